//! The cluster's scheduling policy: public, on chain as the bytes whose Keccak-256 the manifest
//! names.
//!
//! # Reserved fields
//! Some fields are there so that what comes later changes no format. Each is zero until then, and a
//! policy in which it is not is [refused](PolicyError::Reserved) with the reason: nobody may rely on a
//! rule that no node enforces.
//!
//! # Confidential weights
//! The weights of `cost` may be encrypted by the policy's author, so that workers and operators do
//! not learn what the cluster prefers. The policy then names the digest of an [`EncryptedWeights`], which nodes ask each
//! other for: the chain takes 8 KiB, a proven list is larger.

use serde::{Deserialize, Serialize};
use veil_protocol_spec_job::{
    job::SchedulingPolicy,
    sampling::{Candidates, Sampling},
};

use super::{
    binding::ClusterScope,
    manifest::{CircuitId, MAX_TELEMETRY},
    proven::{ProofMetadata, ProvenList},
    quantities::{OutOfRange, Scale},
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

impl PolicyWeights {
    /// Which list has them, if they are encrypted.
    #[must_use]
    pub const fn encrypted(self) -> Option<Blake3Digest> {
        match self {
            Self::Public(_) => None,
            Self::Encrypted(digest) => Some(digest),
        }
    }

    /// Which list a job of that policy is placed by, if it takes one.
    #[must_use]
    pub fn list_for(self, policy: SchedulingPolicy) -> Option<Blake3Digest> {
        self.encrypted().filter(|_| policy == SchedulingPolicy::Cost)
    }
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
    /// A replica stays pending without being evaluated if its job narrows the candidates, by whatever
    /// rule, and fewer than this are left: the answer would say too much about each of them. 1 refuses
    /// nothing; 0 stands for [`least_candidates`](Self::least_candidates)' default.
    pub min_candidates: u16,
    /// Most workers in a slot, at most [`MAX_TELEMETRY`].
    pub max_workers: u16,
    /// The weights of the `cost` policy.
    pub weights: PolicyWeights,
    /// How long a worker is gone, as a member sees it itself, before that member says that it is lost;
    /// 1 to [`Self::MAX_LOSS_GRACE`].
    pub loss_grace_seconds: u32,
    /// Workers that are drawn to evaluate a slot again, at most [`Self::MAX_AUDITORS`].
    pub auditors: u16,
    /// Slots after which a certificate is anchored that nobody waits for, at least 1.
    pub anchor_every: u16,
    /// Seconds after which a committee is followed by the next. Reserved.
    pub epoch_length: u64,
    /// What each resource counts in the choice among workers: CPU, memory, disk, GPU. Reserved.
    pub resource_weights: [Weight; 4],
    /// Linux capabilities that containers do not get, by their bits. Reserved.
    pub withheld_capabilities: u64,
    /// Whether an image needs a signature that the chain commits to.
    pub image_signatures: bool,
    /// Which of the workers that may take a replica are asked for it.
    pub candidates: Candidates,
    /// The circuit that is evaluated from [`Self::circuit_from`] on, by version; the fingerprint is reserved.
    /// Version 0, which policies had before they said it, stands for [`CircuitId::AT_ONCE`].
    pub circuit: CircuitId,
    /// The first block of manifests that name that circuit; those before name [`CircuitId::AT_ONCE`].
    pub circuit_from: u64,
}

impl Default for ClusterPolicy {
    fn default() -> Self {
        Self {
            scale: Scale::default(),
            min_candidates: 0,
            max_workers: MAX_TELEMETRY as u16,
            weights: PolicyWeights::Public(Weights::default()),
            loss_grace_seconds: 20,
            auditors: 2,
            anchor_every: 4,
            epoch_length: 0,
            resource_weights: [Weight::default(); 4],
            withheld_capabilities: 0,
            image_signatures: false,
            candidates: Candidates::Sample,
            circuit: CircuitId {
                version: CircuitId::THRESHOLDS,
                fingerprint: Blake3Digest([0; 32]),
            },
            circuit_from: 0,
        }
    }
}

impl Wire for ClusterPolicy {
    const NAME: &'static str = "ClusterPolicy";
    // Version 2 asked all candidates in each try.
    const VERSION: u8 = 3;
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
    /// A worker is lost at once, or practically never.
    #[error(
        "a loss grace of {0} seconds: 1 to {max} are possible",
        max = ClusterPolicy::MAX_LOSS_GRACE
    )]
    LossGrace(u32),
    /// Too many auditors.
    #[error("{0} auditors: at most {max}", max = ClusterPolicy::MAX_AUDITORS)]
    Auditors(u16),
    /// Nothing would ever be anchored.
    #[error("anchor_every is 0: a certificate is anchored after at least 1 slot")]
    AnchorEvery,
    /// A circuit that came after this build.
    #[error(
        "circuit {0}: this build evaluates {at_once} and {thresholds}; run a version that has it",
        at_once = CircuitId::AT_ONCE, thresholds = CircuitId::THRESHOLDS
    )]
    Circuit(u32),
    /// A field that no node acts on yet.
    #[error("`{field}` is reserved and must be zero: {reason}")]
    #[allow(missing_docs, reason = "the message says what its fields are")]
    Reserved { field: &'static str, reason: &'static str },
}

impl ClusterPolicy {
    /// Largest [`loss_grace_seconds`](Self::loss_grace_seconds): a day.
    pub const MAX_LOSS_GRACE: u32 = 24 * 3600;
    /// Largest [`auditors`](Self::auditors): as many evaluations again cost more than they tell.
    pub const MAX_AUDITORS: u16 = 64;

    /// Decodes and checks the policy on chain.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let policy = Self::from_wire(bytes)?;
        if !(1..=MAX_TELEMETRY).contains(&usize::from(policy.max_workers)) {
            return Err(PolicyError::MaxWorkers(policy.max_workers));
        }
        if !(1..=Self::MAX_LOSS_GRACE).contains(&policy.loss_grace_seconds) {
            return Err(PolicyError::LossGrace(policy.loss_grace_seconds));
        }
        if policy.auditors > Self::MAX_AUDITORS {
            return Err(PolicyError::Auditors(policy.auditors));
        }
        if policy.anchor_every == 0 {
            return Err(PolicyError::AnchorEvery);
        }
        if !matches!(policy.circuit.version, 0 | CircuitId::AT_ONCE | CircuitId::THRESHOLDS) {
            return Err(PolicyError::Circuit(policy.circuit.version));
        }
        policy.check_reserved()?;
        Ok(policy)
    }

    /// The candidates that a job which narrows them must leave, in a slot with that many workers. Unless the
    /// policy says how many: half of the workers, but at least 2 and at most 4.
    #[must_use]
    pub fn least_candidates(&self, workers: usize) -> usize {
        match self.min_candidates {
            0 => (workers / 2).clamp(2, 4),
            least => least.into(),
        }
    }

    /// How many workers a try of a replica asks, by how many have failed.
    #[must_use]
    pub const fn sampling(&self) -> Sampling {
        Sampling { candidates: self.candidates, least: self.min_candidates }
    }

    /// The version of the circuit that a manifest of this block names.
    #[must_use]
    pub const fn circuit_at(&self, block: u64) -> u32 {
        match self.circuit.version {
            0 => CircuitId::AT_ONCE,
            _ if block < self.circuit_from => CircuitId::AT_ONCE,
            version => version,
        }
    }

    /// Exhaustive, so that a new field is thought of.
    fn check_reserved(&self) -> Result<(), PolicyError> {
        let Self {
            epoch_length,
            resource_weights,
            withheld_capabilities,
            circuit,
            circuit_from: _,
            image_signatures: _,
            candidates: _,
            scale: _,
            min_candidates: _,
            max_workers: _,
            weights: _,
            loss_grace_seconds: _,
            auditors: _,
            anchor_every: _,
        } = self;
        let none = Self::default();
        let fields = [
            (
                *epoch_length == 0,
                "epoch_length",
                "an epoch ends when a ceremony makes the next key",
            ),
            (
                *resource_weights == none.resource_weights,
                "resource_weights",
                "the circuit counts all resources alike",
            ),
            (
                *withheld_capabilities == 0,
                "withheld_capabilities",
                "containers get no capabilities at all",
            ),
            (
                circuit.fingerprint == none.circuit.fingerprint,
                "circuit.fingerprint",
                "members compare those of their builds when they agree on a manifest",
            ),
        ];
        let broken = fields.into_iter().find(|(zero, ..)| !zero);
        broken.map_or(Ok(()), |(_, field, reason)| Err(PolicyError::Reserved { field, reason }))
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
        let refused = |change: fn(&mut ClusterPolicy)| {
            let mut policy = ClusterPolicy::default();
            change(&mut policy);
            ClusterPolicy::parse(&policy.to_wire()).unwrap_err()
        };
        assert_eq!(refused(|p| p.loss_grace_seconds = 0), PolicyError::LossGrace(0));
        assert_eq!(refused(|p| p.loss_grace_seconds = 86_401), PolicyError::LossGrace(86_401));
        assert_eq!(refused(|p| p.auditors = 65), PolicyError::Auditors(65));
        assert_eq!(refused(|p| p.anchor_every = 0), PolicyError::AnchorEvery);
        assert!(ClusterPolicy::parse(b"spread").is_err());
        let other = ClusterPolicy { min_candidates: 2, ..policy };
        assert_ne!(other.digest(), policy.digest());
        let all = ClusterPolicy { candidates: Candidates::All, ..policy };
        assert_eq!(ClusterPolicy::parse(&all.to_wire()), Ok(all));
        assert_eq!((all.sampling().of_try(0), policy.sampling().of_try(0)), (1024, 15));
        let signed = ClusterPolicy { image_signatures: true, ..policy };
        assert_eq!(ClusterPolicy::parse(&signed.to_wire()), Ok(signed));
        assert!(Weight::new(3).is_err());
    }

    #[test]
    fn half_of_the_workers_are_enough_candidates_unless_the_policy_says_how_many() {
        let least = |min_candidates, workers| {
            ClusterPolicy { min_candidates, ..ClusterPolicy::default() }.least_candidates(workers)
        };
        for (workers, expected) in [(0, 2), (1, 2), (3, 2), (5, 2), (6, 3), (8, 4), (1024, 4)] {
            assert_eq!(least(0, workers), expected, "{workers} workers");
        }
        assert_eq!((least(1, 100), least(7, 2)), (1, 7));
        assert_eq!(ClusterPolicy::default().min_candidates, 0);
    }

    #[test]
    fn reserved_fields_are_zero_or_refused_with_the_reason() {
        type Change = fn(&mut ClusterPolicy);
        let changes: [(&str, Change); 4] = [
            ("epoch_length", |p| p.epoch_length = 1),
            ("resource_weights", |p| p.resource_weights[3] = Weight(1)),
            ("withheld_capabilities", |p| p.withheld_capabilities = 1 << 40),
            ("circuit.fingerprint", |p| p.circuit.fingerprint.0[31] = 1),
        ];
        for (name, change) in changes {
            let mut policy = ClusterPolicy::default();
            change(&mut policy);
            let refused = ClusterPolicy::parse(&policy.to_wire()).unwrap_err();
            let PolicyError::Reserved { field, reason } = &refused else {
                panic!("{name}: {refused}")
            };
            assert_eq!(*field, name);
            assert!(refused.to_string().contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_policy_says_from_which_block_on_which_circuit_is_evaluated() {
        let of = |version, circuit_from| {
            let circuit = CircuitId { version, ..ClusterPolicy::default().circuit };
            let policy = ClusterPolicy { circuit, circuit_from, ..ClusterPolicy::default() };
            ClusterPolicy::parse(&policy.to_wire())
        };
        let at = |version, from, block| of(version, from).unwrap().circuit_at(block);
        assert_eq!(at(CircuitId::THRESHOLDS, 0, 0), CircuitId::THRESHOLDS);
        assert_eq!(at(CircuitId::THRESHOLDS, 8, 7), CircuitId::AT_ONCE);
        assert_eq!(at(CircuitId::THRESHOLDS, 8, 8), CircuitId::THRESHOLDS);
        // A policy that was set before there was a choice, and one that goes back.
        assert_eq!(at(0, 0, u64::MAX), CircuitId::AT_ONCE);
        assert_eq!(at(CircuitId::AT_ONCE, 0, 9), CircuitId::AT_ONCE);
        let refused = of(7, 0).unwrap_err();
        assert_eq!(refused, PolicyError::Circuit(7));
        assert!(refused.to_string().contains("evaluates 5 and 6"), "{refused}");
    }

    #[test]
    fn the_longest_policy_fits_and_an_earlier_one_is_refused_by_name() {
        let longest = ClusterPolicy {
            min_candidates: u16::MAX,
            max_workers: u16::MAX,
            weights: PolicyWeights::Encrypted(Blake3Digest([0xff; 32])),
            loss_grace_seconds: u32::MAX,
            auditors: u16::MAX,
            anchor_every: u16::MAX,
            epoch_length: u64::MAX,
            withheld_capabilities: u64::MAX,
            circuit: CircuitId { version: u32::MAX, fingerprint: Blake3Digest([0xff; 32]) },
            circuit_from: u64::MAX,
            ..ClusterPolicy::default()
        };
        assert_eq!(ClusterPolicy::from_wire(&longest.to_wire()), Ok(longest));
        let mut earlier = ClusterPolicy::default().to_wire();
        earlier[0] = 2;
        let refused = ClusterPolicy::parse(&earlier).unwrap_err();
        assert!(refused.to_string().contains("ClusterPolicy has version 2"), "{refused}");
    }

    #[test]
    fn only_jobs_by_cost_need_a_list_and_only_of_encrypted_weights() {
        let list = Blake3Digest([9; 32]);
        let (encrypted, public) =
            (PolicyWeights::Encrypted(list), PolicyWeights::Public(Weights::default()));
        assert_eq!(encrypted.list_for(SchedulingPolicy::Cost), Some(list));
        assert_eq!(encrypted.list_for(SchedulingPolicy::Spread), None);
        assert_eq!(public.list_for(SchedulingPolicy::Cost), None);
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
