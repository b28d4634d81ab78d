//! What others sign: transactions without a signature, as a file.

use core::fmt;

use alloy::primitives::U256;
use serde_json::{Value, json};
use veil_protocol_spec::{Address, ChainId, hex};

use crate::address::evm;

/// That transactions are written down, and whom they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The account that is going to send them, which contracts are asked for. Nothing is asked for nobody.
    pub from: Option<Address>,
}

/// One transaction without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedCall {
    /// What it is, as in errors.
    pub what: &'static str,
    /// The contract.
    pub to: Address,
    /// In wei.
    pub value: U256,
    /// The call.
    pub data: Vec<u8>,
}

/// Transactions for others to sign, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedBatch {
    /// The chain that they are for.
    pub chain_id: ChainId,
    /// Who is going to send them.
    pub from: Option<Address>,
    /// The time of the last block (Unix, seconds).
    pub created: u64,
    /// The transactions.
    pub calls: Vec<UnsignedCall>,
    /// Transactions that follow once these are in the chain, and are too many for one batch.
    pub left: usize,
}

impl UnsignedBatch {
    /// In the form of Safe's Transaction Builder, version 1.0.
    #[must_use]
    pub fn to_safe_json(&self) -> Value {
        let transactions = self.calls.iter().map(|call| {
            json!({
                "to": evm(call.to).to_string(),
                "value": call.value.to_string(),
                "data": format!("0x{}", hex(&call.data)),
                "contractMethod": null,
                "contractInputsValues": null,
            })
        });
        let transactions: Vec<_> = transactions.collect();
        json!({
            "version": "1.0",
            "chainId": self.chain_id.0.to_string(),
            "createdAt": self.created.saturating_mul(1000),
            "meta": {
                "name": "Veil",
                "description": self.to_string(),
                "txBuilderVersion": "1.16.5",
                "createdFromSafeAddress": self.from.map_or_else(String::new, |from| evm(from).to_string()),
                "createdFromOwnerAddress": "",
            },
            "transactions": transactions,
        })
    }
}

impl fmt::Display for UnsignedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counted: Vec<(&str, usize)> = Vec::new();
        for call in &self.calls {
            match counted.last_mut().filter(|(what, _)| *what == call.what) {
                Some((_, times)) => *times += 1,
                None => counted.push((call.what, 1)),
            }
        }
        for (i, (what, times)) in counted.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(what)?;
            if *times > 1 {
                write!(f, " ({times} times)")?;
            }
        }
        match self.left {
            0 => Ok(()),
            left => write!(
                f,
                "; {left} more transactions follow: repeat the command once these are in the chain"
            ),
        }
    }
}
