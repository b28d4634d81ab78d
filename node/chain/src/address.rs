//! Addresses and names in the forms of the contracts.

use alloy::primitives::{Address as EvmAddress, B256};
use veil_protocol_spec::Address;

/// An address as alloy has it.
pub(crate) fn evm(address: Address) -> EvmAddress {
    EvmAddress::new(address.0)
}

/// An address as the protocol has it.
pub(crate) fn address(evm: EvmAddress) -> Address {
    Address(evm.0.0)
}

/// A contract's or an organisation's name in one word, padded with zeros. Bytes after the 32nd are
/// cut off; callers check the length.
pub(crate) fn name_word(name: &str) -> B256 {
    let mut word = [0; 32];
    for (to, from) in word.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    word.into()
}
