//! Addresses and names in the forms of the contracts.

use alloy::primitives::{Address as EvmAddress, B256, address as evm_address};
use veil_protocol_spec::{Address, scheduling::Organisation};

/// The deterministic deployer (<https://github.com/Arachnid/deterministic-deployment-proxy>): it takes a salt and creation
/// code.
pub const DEPLOYER: Address = Address(evm_address!("4e59b44847b379578588920cA78FbF26c0B4956C").0.0);

/// An address as alloy has it.
pub(crate) fn evm(address: Address) -> EvmAddress {
    EvmAddress::new(address.0)
}

/// An address as the protocol has it.
pub(crate) fn address(evm: EvmAddress) -> Address {
    Address(evm.0.0)
}

/// A contract's name in one word, padded with zeros. Bytes after the 32nd are cut off; callers check the length.
pub(crate) fn name_word(name: &str) -> B256 {
    let mut word = [0; 32];
    for (to, from) in word.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    word.into()
}

/// An organisation's name in one word, padded with zeros; zero for none.
pub(crate) fn organisation_word(organisation: Option<&Organisation>) -> B256 {
    organisation.map_or(B256::ZERO, |name| name_word(name.as_str()))
}

#[cfg(test)]
mod tests {
    use veil_node_chain_refusal::forms::organisation;

    use super::*;

    #[test]
    fn each_organisation_has_one_word() {
        for name in ["A", "Acme Corp.", &"x".repeat(32)] {
            let named: Organisation = name.parse().unwrap();
            assert_eq!(organisation(&organisation_word(Some(&named))), Some(named));
        }
        assert_eq!(organisation(&organisation_word(None)), None);
        for wrong in ["Acme\0x", "\0Acme", " Acme", "Acme ", "Ac\nme", "\u{e4}cme"] {
            assert_eq!(organisation(&name_word(wrong)), None, "{wrong:?}");
        }
    }
}
