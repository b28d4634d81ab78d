//! Digests the chain recomputes: Keccak-256 over 32-byte words, as `keccak256(abi.encode(...))`
//! does for arguments of static type. Every word has a fixed place, so no two lists of values
//! give the same bytes.

use sha3::{Digest, Keccak256};

use crate::ids::{Address, KeccakDigest};

/// Keccak-256 of `bytes`, as the EVM computes it.
#[must_use]
pub fn keccak(bytes: &[u8]) -> KeccakDigest {
    KeccakDigest(Keccak256::digest(bytes).into())
}

/// Words appended in the order of the Solidity arguments.
#[derive(Clone, Debug, Default)]
pub struct Words(Vec<u8>);

impl Words {
    /// A first word that names the purpose: Keccak-256 of a separator of [`crate::domain`].
    #[must_use]
    pub fn purpose(domain: &str) -> Self {
        Self::default().bytes32(keccak(domain.as_bytes()).as_bytes())
    }

    /// `bytes32`: as it is.
    #[must_use]
    pub fn bytes32(mut self, word: &[u8; 32]) -> Self {
        self.0.extend_from_slice(word);
        self
    }

    /// `uint8` to `uint64`: big-endian, zero-extended on the left.
    #[must_use]
    pub fn uint(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&[0; 24]);
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// `address`: zero-extended on the left.
    #[must_use]
    pub fn address(mut self, address: &Address) -> Self {
        self.0.extend_from_slice(&[0; 12]);
        self.0.extend_from_slice(address.as_bytes());
        self
    }

    /// `keccak256(abi.encode(...))` of the words so far.
    #[must_use]
    pub fn keccak(&self) -> KeccakDigest {
        keccak(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keccak_is_the_one_of_the_evm() {
        assert_eq!(
            keccak(b"").to_string(),
            "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
        );
    }

    #[test]
    fn words_are_padded_as_solidity_pads() {
        let words = Words::default().uint(0x0102).address(&Address([0xaa; 20])).bytes32(&[7; 32]);
        let mut expected = [0; 96];
        expected[30] = 1;
        expected[31] = 2;
        expected[44..64].fill(0xaa);
        expected[64..].fill(7);
        assert_eq!(words.0, expected);
    }
}
