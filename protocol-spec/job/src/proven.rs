//! Ciphertext lists with a proof, and what the proof binds.

use core::fmt;

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    binding::ClusterScope,
    domain::{self, hash_parts},
    ids::{Address, KeySetDigest, PeerIdHash},
};

/// tfhe's `ProvenCompactCiphertextList` in safe serialization: opaque here, 1 byte to 128 KiB (six
/// u16 with their proof take about 39 KB). Nothing may be computed on it before its proof is
/// verified.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct ProvenList(Vec<u8>);

/// A proven list is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proven ciphertext list of {len} bytes: 1 to {max} are allowed", max = ProvenList::MAX_BYTES)]
pub struct ProvenListSize {
    /// Length of the list in bytes.
    pub len: usize,
}

impl ProvenList {
    /// Longest accepted list in bytes.
    pub const MAX_BYTES: usize = 128 * 1024;

    /// # Errors
    /// [`ProvenListSize`] if `bytes` is empty or longer than [`Self::MAX_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, ProvenListSize> {
        match bytes.len() {
            1..=Self::MAX_BYTES => Ok(Self(bytes)),
            len => Err(ProvenListSize { len }),
        }
    }

    /// Of no ciphertexts: what stands for any list where it does not matter which it is.
    pub(crate) fn blank() -> Self {
        Self(vec![0])
    }

    /// The serialized list.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for ProvenList {
    type Error = ProvenListSize;

    fn try_from(bytes: Vec<u8>) -> Result<Self, ProvenListSize> {
        Self::new(bytes)
    }
}

impl From<ProvenList> for Vec<u8> {
    fn from(list: ProvenList) -> Self {
        list.0
    }
}

impl fmt::Debug for ProvenList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenList({} bytes)", self.0.len())
    }
}

/// The bytes tfhe's proof of a list binds, so that a list copied by another sender, sent again
/// under another number, or used for another purpose, does not verify: a digest of purpose, chain,
/// contract, cluster, key set, sender and sequence number. The epoch is left out: a resharing keeps
/// the key and with it the proof's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProofMetadata([u8; 32]);

impl ProofMetadata {
    /// The metadata of the list that `sender` sends as its `sequence`-th.
    #[must_use]
    pub fn new(
        scope: &ClusterScope,
        key_set: &KeySetDigest,
        sender: &PeerIdHash,
        sequence: u64,
    ) -> Self {
        Self::of(domain::TELEMETRY_PROOF, scope, key_set, sender.as_bytes(), sequence)
    }

    /// The metadata of the request in the job that `operator` submits with `nonce`.
    #[must_use]
    pub fn for_request(
        scope: &ClusterScope,
        key_set: &KeySetDigest,
        operator: &Address,
        nonce: u64,
    ) -> Self {
        Self::of(domain::REQUEST_PROOF, scope, key_set, operator.as_bytes(), nonce)
    }

    /// The metadata of the weights that `author` encrypts with `nonce`.
    #[must_use]
    pub fn for_weights(
        scope: &ClusterScope,
        key_set: &KeySetDigest,
        author: &Address,
        nonce: u64,
    ) -> Self {
        Self::of(domain::WEIGHTS_PROOF, scope, key_set, author.as_bytes(), nonce)
    }

    /// The metadata of the bid that `bidder` makes in the auction with `number`.
    #[must_use]
    pub fn for_bid(
        scope: &ClusterScope,
        key_set: &KeySetDigest,
        bidder: &Address,
        number: u64,
    ) -> Self {
        Self::of(domain::BID_PROOF, scope, key_set, bidder.as_bytes(), number)
    }

    fn of(
        purpose: &str,
        scope: &ClusterScope,
        key_set: &KeySetDigest,
        sender: &[u8],
        number: u64,
    ) -> Self {
        Self(hash_parts(
            purpose,
            &[
                &scope.chain_id.0.to_le_bytes(),
                scope.contract.as_bytes(),
                scope.cluster.as_bytes(),
                key_set.as_bytes(),
                sender,
                &number.to_le_bytes(),
            ],
        ))
    }

    /// What to give to tfhe as metadata.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_size_limit() {
        assert_eq!(ProvenList::new(vec![]), Err(ProvenListSize { len: 0 }));
        let len = ProvenList::MAX_BYTES;
        assert!(ProvenList::new(vec![0; len]).is_ok());
        assert_eq!(ProvenList::new(vec![0; len + 1]), Err(ProvenListSize { len: len + 1 }));
    }
}
