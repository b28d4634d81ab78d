//! Events of the contracts by name, for people and for other programs.

use std::{collections::HashMap, sync::LazyLock};

use alloy::{
    dyn_abi::{DynSolValue, EventExt},
    json_abi::{ContractObject, Event},
    primitives::{B256, U256},
    rpc::types::Log,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use veil_protocol_spec::{KeccakDigest, hex, scheduling::BlockRef};

use crate::contracts::INTERFACES;

/// An event of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainEvent {
    /// The contract's name in the directory, or `Directory`.
    pub contract: &'static str,
    /// The event's name.
    pub name: String,
    /// The block it is in.
    pub block: BlockRef,
    /// Hash of the transaction that emitted it.
    pub transaction: KeccakDigest,
    /// Its place among the block's events.
    pub index: u64,
    /// Its arguments by name: numbers up to 2^53, larger ones as decimal text, bytes and addresses as
    /// hexadecimal text.
    pub arguments: Map<String, Value>,
}

/// A contract's events by their first topic.
type Known = HashMap<B256, Event>;

/// The events of all contracts, by the contracts' names.
static KNOWN: LazyLock<HashMap<&'static str, Known>> =
    LazyLock::new(|| INTERFACES.iter().map(|(name, abi)| (*name, events(abi))).collect());

fn events(abi: &str) -> Known {
    // A test below reads every checked-in file.
    let abi = serde_json::from_str::<ContractObject>(abi).ok().and_then(|object| object.abi);
    let abi = abi.unwrap_or_default();
    abi.events().map(|event| (event.selector(), event.clone())).collect()
}

impl ChainEvent {
    /// Reads an event of a contract; `None` if this build does not know it.
    pub(crate) fn decode(contract: &'static str, log: &Log) -> Option<Self> {
        let event = KNOWN.get(contract)?.get(log.topic0()?)?;
        let decoded = event.decode_log(log.data()).ok()?;
        let (mut indexed, mut body) = (decoded.indexed.into_iter(), decoded.body.into_iter());
        let mut arguments = Map::new();
        for input in &event.inputs {
            let value = if input.indexed { indexed.next() } else { body.next() };
            arguments.insert(input.name.clone(), plain(&value?));
        }
        Some(Self {
            contract,
            name: event.name.clone(),
            block: BlockRef {
                number: log.block_number.unwrap_or_default(),
                hash: KeccakDigest(log.block_hash.unwrap_or_default().0),
            },
            transaction: KeccakDigest(log.transaction_hash.unwrap_or_default().0),
            index: log.log_index.unwrap_or_default(),
            arguments,
        })
    }
}

/// A value of an event as JSON.
fn plain(value: &DynSolValue) -> Value {
    let hexadecimal = |bytes: &[u8]| json!(format!("0x{}", hex(bytes)));
    match value {
        DynSolValue::Bool(value) => json!(value),
        DynSolValue::Int(value, _) => json!(value.to_string()),
        DynSolValue::Uint(value, _) => number(*value),
        DynSolValue::FixedBytes(word, size) => hexadecimal(word.get(..*size).unwrap_or(&word[..])),
        DynSolValue::Address(address) => json!(address.to_string()),
        DynSolValue::Function(function) => hexadecimal(function.as_slice()),
        DynSolValue::Bytes(bytes) => hexadecimal(bytes),
        DynSolValue::String(text) => json!(text),
        DynSolValue::Array(values)
        | DynSolValue::FixedArray(values)
        | DynSolValue::Tuple(values) => values.iter().map(plain).collect(),
        #[allow(unreachable_patterns, reason = "there are more with other features of alloy")]
        _ => Value::Null,
    }
}

/// Larger numbers than 2^53 lose digits in most readers of JSON.
fn number(value: U256) -> Value {
    match u64::try_from(value) {
        Ok(small) if small <= 1 << 53 => json!(small),
        _ => json!(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_read_and_has_events() {
        for (contract, events) in KNOWN.iter() {
            assert!(!events.is_empty(), "{contract}");
        }
    }

    #[test]
    fn values_keep_their_digits() {
        assert_eq!(number(U256::from(7)), json!(7));
        assert_eq!(number(U256::from(u64::MAX)), json!("18446744073709551615"));
        assert_eq!(
            plain(&DynSolValue::FixedBytes(B256::repeat_byte(0xab), 4)),
            json!("0xabababab")
        );
        let nested = DynSolValue::Array(vec![DynSolValue::Bool(true)]);
        assert_eq!(plain(&nested), json!([true]));
    }
}
