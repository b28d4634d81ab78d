//! The cluster's scheduling policy: public, on chain as the bytes whose Keccak-256 the manifest
//! names.
//!
//! # Confidential weights
//! The weights of `cost` may be encrypted by the policy's author, so that workers and operators do
//! not learn what the cluster prefers. The policy then names the digest of an
//! [`EncryptedWeights`], which travels by gossip: the chain takes 8 KiB, a proven list is larger.

use serde::{Deserialize, Serialize};

use super::{
    binding::ClusterScope,
    manifest::MAX_TELEMETRY,
    quantities::{OutOfRange, Scale},
    telemetry::{ProofMetadata, ProvenList},
};
use crate::{
    codec::{CodecError, Wire},
    domain::{self, hash_parts},
    ids::{Address, Blake3Digest, KeccakDigest, KeySetDigest},
};

/// How much a class counts, 0 to 2.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

impl Weight {
    /// Largest weight.
    pub const MAX: u8 = 2;

    /// # Errors
    /// [`OutOfRange`] above [`Self::MAX`].
    pub const fn new(weight: u8) -> Result<Self, OutOfRange> {
        if weight > Self::MAX {
            Err(OutOfRange { value: weight, max: Self::MAX })
        } else {
            Ok(Self(weight))
        }
    }

    /// The weight, 0 to 2.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Weight {
    type Error = OutOfRange;

    fn try_from(weight: u8) -> Result<Self, OutOfRange> {
        Self::new(weight)
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

/// What `cost` minimises: price class times `price` plus latency class times `latency`, 11 and
/// 12 counting alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// What one price class more costs.
    pub price: Weight,
    /// What one latency class more costs.
    pub latency: Weight,
}

/// The price counts twice as much as the latency.
impl Default for Weights {
    fn default() -> Self {
        Self { price: Weight(2), latency: Weight(1) }
    }
}

/// The weights of `cost`, or where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyWeights {
    /// The weights are public.
    Public(Weights),
    /// The author encrypts them; this is [`EncryptedWeights::digest`].
    Encrypted(Blake3Digest),
}

/// Weights encrypted and proven by the policy's author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptedWeights {
    /// The cluster that they are for.
    pub scope: ClusterScope,
    /// The key set they are encrypted under; a reshared key keeps it.
    pub key_set: KeySetDigest,
    /// The address that encrypts them.
    pub author: Address,
    /// Never used twice by this author in this cluster.
    pub nonce: u64,
    /// The weights and their proof.
    pub list: ProvenList,
}

impl Wire for EncryptedWeights {
    const NAME: &'static str = "EncryptedWeights";
    const MAX_BYTES: usize = ProvenList::MAX_BYTES + 512;
}

impl EncryptedWeights {
    /// What a policy names.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::ENCRYPTED_WEIGHTS, &[&self.to_wire()]))
    }

    /// What the list's proof must bind.
    #[must_use]
    pub fn proof_metadata(&self) -> ProofMetadata {
        ProofMetadata::for_weights(&self.scope, &self.key_set, &self.author, self.nonce)
    }
}

/// The rules of placement that hold for all jobs of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPolicy {
    /// The unit of each resource.
    pub scale: Scale,
    /// A job whose public rules leave fewer candidates than this stays pending without being
    /// evaluated: its answer would say too much about each of them. 0 and 1 refuse nothing. Jobs
    /// without constraints are not counted.
    pub min_candidates: u16,
    /// Most workers in a slot, at most [`MAX_TELEMETRY`].
    pub max_workers: u16,
    /// The weights of the `cost` policy.
    pub weights: PolicyWeights,
}

impl Default for ClusterPolicy {
    fn default() -> Self {
        Self {
            scale: Scale::default(),
            min_candidates: 1,
            max_workers: MAX_TELEMETRY as u16,
            weights: PolicyWeights::Public(Weights::default()),
        }
    }
}

impl Wire for ClusterPolicy {
    const NAME: &'static str = "ClusterPolicy";
    const MAX_BYTES: usize = 256;
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The bytes are not a policy.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The policy allows no workers, or more than a manifest can name.
    #[error("at most {0} workers: 1 to {max} are possible", max = MAX_TELEMETRY)]
    MaxWorkers(u16),
}

impl ClusterPolicy {
    /// Decodes and checks the policy on chain.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let policy = Self::from_wire(bytes)?;
        if !(1..=MAX_TELEMETRY).contains(&usize::from(policy.max_workers)) {
            return Err(PolicyError::MaxWorkers(policy.max_workers));
        }
        Ok(policy)
    }

    /// What a manifest names: Keccak-256 of the encoding.
    #[must_use]
    pub fn digest(&self) -> KeccakDigest {
        super::abi::keccak(&self.to_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::arbitrary::{assert_wire, binding};

    #[test]
    fn a_policy_reads_back_and_its_rules_hold() {
        let policy = ClusterPolicy::default();
        assert_wire(&policy);
        assert_eq!(ClusterPolicy::parse(&policy.to_wire()), Ok(policy));
        for max_workers in [0, 1025] {
            let wrong = ClusterPolicy { max_workers, ..policy };
            let refused = ClusterPolicy::parse(&wrong.to_wire());
            assert_eq!(refused, Err(PolicyError::MaxWorkers(max_workers)));
        }
        assert!(ClusterPolicy::parse(b"spread").is_err());
        let other = ClusterPolicy { min_candidates: 2, ..policy };
        assert_ne!(other.digest(), policy.digest());
        assert!(Weight::new(3).is_err());
    }

    #[test]
    fn weights_bind_their_author() {
        let weights = EncryptedWeights {
            scope: binding().scope,
            key_set: binding().key_set,
            author: Address([7; 20]),
            nonce: 1,
            list: ProvenList::new(vec![1; 60]).unwrap(),
        };
        assert_wire(&weights);
        let again = EncryptedWeights { nonce: 2, ..weights.clone() };
        assert_ne!(again.proof_metadata(), weights.proof_metadata());
        assert_ne!(again.digest(), weights.digest());
        let other = EncryptedWeights { author: Address([8; 20]), ..weights.clone() };
        assert_ne!(other.proof_metadata(), weights.proof_metadata());
    }
}
