//! A worker's load, encrypted and proven.
//!
//! # Flow
//! 1. The worker samples its free capacity, quantises it with the cluster's
//!    [`Scale`](super::Scale), rounding down, and adds its classes: a [`Reading`](super::Reading).
//!    It adds, in clear, what it says of itself and which replicas of batch jobs have ended here.
//! 2. It encrypts the reading as one compact list and proves the list well-formed, with
//!    [`TelemetryBody::proof_metadata`] as the metadata of tfhe's proof.
//! 3. It signs the body and gossips it.
//! 4. A receiver decodes, calls [`Telemetry::verify`], verifies the proof, and caches the message
//!    under [`TelemetryBody::digest`].
//!
//! # Caveats
//! There is no unproven form: a crafted list without a proof decrypts to bits of the compact
//! key through the placement it causes. The labels that an operator sets are not here; they are in the
//! registry. What a worker says of itself in public is, since it changes without a transaction.

use serde::{Deserialize, Serialize};

use super::{
    binding::{Binding, BindingMismatch, UnixMillis},
    ended::EndedReplica,
    given_back::GivenBack,
    profile::{Profile, ProfileError},
    proven::{ProofMetadata, ProvenList},
    rollout::ReplicaHealth,
};
use crate::{
    codec::Wire,
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, PublicIdentity, Signature, Slot},
};

/// Most replicas that one message lists as ended; the others follow when these are certified.
pub const MAX_ENDED: usize = 256;
/// Most replicas of which one message says how they fare; the others follow when these are certified.
pub const MAX_HEALTH_SAID: usize = 256;

/// Most replicas that one message gives back; the others follow when these have left.
pub const MAX_WORDS: usize = 64;

/// Everything of [`Telemetry`] that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryBody {
    /// The cluster, key set and epoch this is for.
    pub binding: Binding,
    /// The sender's key. Its peer id hash follows from it, see [`Self::sender`].
    pub identity: PublicIdentity,
    /// Grows with every message of this identity under this key set; a receiver keeps the highest.
    pub sequence: u64,
    /// The last slot whose assignments the sample already includes, so that a slot does not book
    /// the same capacity again. Slots count from 1; 0 means none yet.
    pub includes_slot: Slot,
    /// When the sample was taken.
    pub sampled_at: UnixMillis,
    /// Digest of the policy in whose scale it was quantised; a manifest under another one cannot use
    /// it.
    pub policy: KeccakDigest,
    /// What the worker says of itself in public: what jobs ask of it besides room.
    pub profile: Profile,
    /// Replicas of batch jobs that have their place here by the last certificate that the worker knows, and
    /// have ended for good: by (job, replica) in strictly ascending order. Repeated until a certificate says
    /// that they are done.
    pub ended: Vec<EndedReplica>,
    /// The encrypted reading and its proof.
    pub list: ProvenList,
    /// Replicas that have their place here and that the worker gives back: by (job, replica) in strictly ascending
    /// order. Repeated until a certificate says that they have left.
    pub given_back: Vec<GivenBack>,
    /// How replicas fare that were placed here in an update, by the last certificate that the worker knows, as
    /// far as that is decided: by (job, replica) in strictly ascending order. Repeated until a certificate says
    /// so too.
    pub health: Vec<ReplicaHealth>,
}

/// A worker's signed telemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The signed part.
    pub body: TelemetryBody,
    /// Made with [`TelemetryBody::identity`] over [`TelemetryBody::digest`].
    pub signature: Signature,
}

impl Wire for TelemetryBody {
    const NAME: &'static str = "TelemetryBody";
    // Version 2 had no profile, version 3 said nothing of replicas that have ended, version 4 of those given back
    // or placed in an update, and accepted no organisations, version 5 knew no drain that has ended, version 6 no
    // sealed part that does not open.
    const VERSION: u8 = 7;
    const MAX_BYTES: usize = ProvenList::MAX_BYTES
        + Profile::MAX_BYTES
        + MAX_ENDED * EndedReplica::MAX_BYTES
        + MAX_WORDS * GivenBack::MAX_BYTES
        + MAX_HEALTH_SAID * ReplicaHealth::MAX_BYTES
        + 512;
}

impl Wire for Telemetry {
    const NAME: &'static str = "Telemetry";
    const VERSION: u8 = 7;
    const MAX_BYTES: usize = TelemetryBody::MAX_BYTES + 64;
}

/// Why telemetry is refused before its proof is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The telemetry is for another cluster, key set or epoch.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// The identity that it names did not sign it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
    /// What it says of itself breaks a rule.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// It lists too many replicas as ended.
    #[error("it lists {0} replicas as ended: at most {MAX_ENDED} at once")]
    TooManyEnded(usize),
    /// The replicas that it lists as ended are out of order, or one is listed twice.
    #[error("its list of ended replicas is not strictly ascending")]
    EndedOrder,
    /// It gives too many replicas back.
    #[error("it gives {0} replicas back: at most {MAX_WORDS} at once")]
    TooManyGivenBack(usize),
    /// The replicas that it gives back are out of order, or one is listed twice.
    #[error("its list of replicas that are given back is not strictly ascending")]
    GivenBackOrder,
    /// It says of too many replicas how they fare.
    #[error("it says of {0} replicas how they fare: at most {MAX_HEALTH_SAID} at once")]
    TooMuchHealth(usize),
    /// The replicas of which it says how they fare are out of order, or one is listed twice.
    #[error("its list of how replicas fare is not strictly ascending")]
    HealthOrder,
}

impl TelemetryBody {
    /// The sender as the registry knows it.
    #[must_use]
    pub fn sender(&self) -> PeerIdHash {
        PeerIdHash::of(&self.identity)
    }

    /// What the list's proof must bind.
    #[must_use]
    pub fn proof_metadata(&self) -> ProofMetadata {
        ProofMetadata::new(
            &self.binding.scope,
            &self.binding.key_set,
            &self.sender(),
            self.sequence,
        )
    }

    /// What is signed, and what a manifest names. The signature is not part of it: signing the
    /// same body again gives no second message. Two digests by one identity under one sequence
    /// number are evidence of equivocation.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::TELEMETRY, &[&self.to_wire()]))
    }

    /// Signs the body. `secret` must be the secret side of [`Self::identity`]; with another key
    /// the result does not [`verify`](Telemetry::verify).
    #[must_use]
    pub fn sign(self, secret: &SecretIdentity) -> Telemetry {
        let signature = secret.sign(self.digest().as_bytes());
        Telemetry { body: self, signature }
    }
}

impl Telemetry {
    /// Checks the binding, the signature, the profile and the lists of replicas, in this order. Registration of the sender, freshness
    /// and the proof are the caller's.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn verify(&self, expected: &Binding) -> Result<(), TelemetryError> {
        self.body.binding.check(expected)?;
        self.body.identity.verify(self.body.digest().as_bytes(), &self.signature)?;
        self.body.profile.validate()?;
        let ended = &self.body.ended;
        if ended.len() > MAX_ENDED {
            return Err(TelemetryError::TooManyEnded(ended.len()));
        }
        if !ended.is_sorted_by(|a, b| a.key() < b.key()) {
            return Err(TelemetryError::EndedOrder);
        }
        let given_back = &self.body.given_back;
        if given_back.len() > MAX_WORDS {
            return Err(TelemetryError::TooManyGivenBack(given_back.len()));
        }
        if !given_back.is_sorted_by(|a, b| a.key() < b.key()) {
            return Err(TelemetryError::GivenBackOrder);
        }
        let health = &self.body.health;
        if health.len() > MAX_HEALTH_SAID {
            return Err(TelemetryError::TooMuchHealth(health.len()));
        }
        if !health.is_sorted_by(|a, b| a.key() < b.key()) {
            return Err(TelemetryError::HealthOrder);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        codec::CodecError,
        ids::{Address, ChainId, Epoch, ReplicaIndex},
        scheduling::{
            Accepts, Egress, GiveBackReason, ImageReference, MAX_ACCEPTED, MAX_FACTS, Note,
            Organisation, ReplicaExit,
            arbitrary::{assert_wire, binding, secret},
            limits,
        },
    };

    fn ended(replica: u16) -> EndedReplica {
        let exit = ReplicaExit { code: Some(i32::from(replica) - 1), out_of_memory: false };
        EndedReplica { job: Blake3Digest([0xbb; 32]), replica: ReplicaIndex(replica), exit }
    }

    fn health(replica: u16) -> ReplicaHealth {
        let (job, replica) = (Blake3Digest([0xcc; 32]), ReplicaIndex(replica));
        ReplicaHealth { job, replica, healthy: replica.0 % 2 == 0 }
    }

    fn body() -> TelemetryBody {
        TelemetryBody {
            binding: binding(),
            identity: secret(1).public(),
            sequence: 7,
            includes_slot: Slot(3),
            sampled_at: UnixMillis(1_700_000_000_000),
            policy: KeccakDigest([0x70; 32]),
            profile: Profile::default(),
            ended: vec![ended(1), ended(2)],
            list: ProvenList::new(vec![0xc7; 100]).unwrap(),
            given_back: vec![given_back(1), given_back(2)],
            health: vec![health(1), health(2)],
        }
    }

    fn given_back(replica: u16) -> GivenBack {
        GivenBack {
            job: Blake3Digest([0xbc; 32]),
            replica: ReplicaIndex(replica),
            placed: Slot(3),
            reason: GiveBackReason::Evicted,
            until: Some(UnixMillis(1_700_000_600_000)),
            has_stopped: replica > 1,
            note: Note::default(),
        }
    }

    /// A profile with full lists of the longest entries.
    fn fullest() -> Profile {
        let long = |i: usize, len: usize| format!("{i:02}{}", "x".repeat(len - 2));
        let fact = |i: usize| format!("veil/{}={}", long(i, 58), "v".repeat(63)).parse().unwrap();
        let operators = (0..MAX_ACCEPTED).map(|i| Address([i as u8; 20])).collect();
        let images = (0..MAX_ACCEPTED).map(|i| long(i, ImageReference::MAX_NAME));
        let organisations = (0..MAX_ACCEPTED).map(|i| long(i, Organisation::MAX_BYTES));
        Profile {
            facts: (0..MAX_FACTS).map(fact).collect(),
            volumes: (0..limits::ENTRIES).map(|i| long(i, 63).parse().unwrap()).collect(),
            accepts: Accepts {
                operators: Some(operators),
                images: Some(images.map(|image| image.parse().unwrap()).collect()),
                egress: Egress::AllowPrivate,
                organisations: Some(organisations.map(|name| name.parse().unwrap()).collect()),
            },
        }
    }

    #[test]
    fn a_profile_that_breaks_a_rule_is_refused_though_it_is_signed() {
        let mut broken = body();
        broken.profile.facts = vec!["zone=eu".parse().unwrap()];
        let refused = broken.sign(&secret(1)).verify(&binding());
        assert_eq!(refused, Err(TelemetryError::Profile(ProfileError::Key)));
    }

    #[test]
    fn what_has_ended_is_listed_once_and_not_without_end() {
        let verify = |ended| TelemetryBody { ended, ..body() }.sign(&secret(1)).verify(&binding());
        let most: Vec<_> = (0..MAX_ENDED as u16).map(ended).collect();
        assert_eq!(verify(most.clone()), Ok(()));
        let more = [most, vec![ended(u16::MAX)]].concat();
        assert_eq!(verify(more), Err(TelemetryError::TooManyEnded(MAX_ENDED + 1)));
        for wrong in [vec![ended(2), ended(1)], vec![ended(1), ended(1)]] {
            assert_eq!(verify(wrong), Err(TelemetryError::EndedOrder));
        }
    }

    #[test]
    fn what_is_given_back_is_listed_once_and_not_without_end() {
        let verify =
            |given_back| TelemetryBody { given_back, ..body() }.sign(&secret(1)).verify(&binding());
        let most: Vec<_> = (0..MAX_WORDS as u16).map(given_back).collect();
        assert_eq!(verify(most.clone()), Ok(()));
        let more = [most, vec![given_back(u16::MAX)]].concat();
        assert_eq!(verify(more), Err(TelemetryError::TooManyGivenBack(MAX_WORDS + 1)));
        for wrong in [[2, 1], [1, 1]] {
            let refused = verify(wrong.map(given_back).to_vec());
            assert_eq!(refused, Err(TelemetryError::GivenBackOrder));
        }
    }

    #[test]
    fn how_a_replica_fares_is_said_once_and_not_without_end() {
        let verify =
            |health| TelemetryBody { health, ..body() }.sign(&secret(1)).verify(&binding());
        let most: Vec<_> = (0..MAX_HEALTH_SAID as u16).map(health).collect();
        assert_eq!(verify(most.clone()), Ok(()));
        let more = [most, vec![health(u16::MAX)]].concat();
        assert_eq!(verify(more), Err(TelemetryError::TooMuchHealth(MAX_HEALTH_SAID + 1)));
        for wrong in [vec![health(2), health(1)], vec![health(1), health(1)]] {
            assert_eq!(verify(wrong), Err(TelemetryError::HealthOrder));
        }
    }

    #[test]
    fn a_signed_message_verifies_for_its_cluster_only() {
        let telemetry = body().sign(&secret(1));
        assert_eq!(telemetry.verify(&binding()), Ok(()));
        let other = Binding { epoch: Epoch(9), ..binding() };
        assert_eq!(
            telemetry.verify(&other),
            Err(TelemetryError::Binding(BindingMismatch { field: "epoch" }))
        );
    }

    #[test]
    fn a_changed_body_or_another_signer_is_refused() {
        let refused = Err(TelemetryError::Signature(InvalidSignature));
        assert_eq!(body().sign(&secret(2)).verify(&binding()), refused);
        let mut changed = body().sign(&secret(1));
        changed.body.sequence += 1;
        assert_eq!(changed.verify(&binding()), refused);
    }

    #[test]
    fn the_proof_binds_every_field_it_should() {
        let base = body().proof_metadata();
        let changes: [fn(&mut TelemetryBody); 6] = [
            |b| b.binding.scope.chain_id = ChainId(2),
            |b| b.binding.scope.contract.0[0] ^= 1,
            |b| b.binding.scope.cluster.0[0] ^= 1,
            |b| b.binding.key_set.0[0] ^= 1,
            |b| b.identity = secret(2).public(),
            |b| b.sequence += 1,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = body();
            change(&mut changed);
            assert_ne!(changed.proof_metadata(), base, "change {i}");
        }
        let mut later_epoch = body();
        later_epoch.binding.epoch = Epoch(9);
        assert_eq!(later_epoch.proof_metadata(), base);
    }

    #[test]
    fn a_message_has_a_size_limit() {
        let bytes = vec![1; Telemetry::MAX_BYTES + 1];
        assert!(matches!(Telemetry::from_wire(&bytes), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn the_longest_message_fits() {
        let mut longest = body();
        longest.binding.scope.chain_id = ChainId(u64::MAX);
        longest.binding.epoch = Epoch(u64::MAX);
        longest.sequence = u64::MAX;
        longest.includes_slot = Slot(u64::MAX);
        longest.sampled_at = UnixMillis(u64::MAX);
        longest.profile = fullest();
        assert_eq!(longest.profile.validate(), Ok(()));
        let exit = ReplicaExit { code: Some(i32::MIN), out_of_memory: true };
        let all = (0..MAX_ENDED as u16).map(|i| EndedReplica { exit, ..ended(u16::MAX - i) });
        longest.ended = all.rev().collect();
        let words = (0..MAX_WORDS as u16).map(|i| GivenBack {
            placed: Slot(u64::MAX),
            until: Some(UnixMillis(u64::MAX)),
            note: "x".repeat(Note::MAX_BYTES).try_into().unwrap(),
            ..given_back(u16::MAX - i)
        });
        longest.given_back = words.rev().collect();
        longest.health = (0..MAX_HEALTH_SAID as u16).rev().map(|i| health(u16::MAX - i)).collect();
        longest.list = ProvenList::new(vec![0xff; ProvenList::MAX_BYTES]).unwrap();
        assert!(longest.to_wire().len() <= TelemetryBody::MAX_BYTES);
        let telemetry = longest.sign(&secret(1));
        assert_eq!(Telemetry::from_wire(&telemetry.to_wire()), Ok(telemetry));
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        assert_wire(&body().sign(&secret(1)));
    }

    proptest! {
        #[test]
        fn round_trips(
            sequence: u64,
            slot: u64,
            at: u64,
            list in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let body = TelemetryBody {
                sequence,
                includes_slot: Slot(slot),
                sampled_at: UnixMillis(at),
                list: ProvenList::new(list).unwrap(),
                ..body()
            };
            let telemetry = body.sign(&secret(3));
            prop_assert_eq!(Telemetry::from_wire(&telemetry.to_wire()), Ok(telemetry));
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Telemetry::from_wire(&bytes);
        }
    }
}
