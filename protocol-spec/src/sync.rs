//! How nodes keep up with each other: gossip that carries two of the protocol's messages together,
//! and the requests of a node that was away.

use serde::{Deserialize, Serialize};

use crate::{
    agreement::{Instance, Lock, LockError},
    codec::{Bytes, Wire},
    committee::Committee,
    decryption::DecryptionCounter,
    evidence::Evidence,
    identity::InvalidSignature,
    ids::{Blake3Digest, KeySetDigest, PeerIdHash, PublicIdentity, ReplicaIndex, Slot},
    scheduling::{
        Binding, ClusterState, EncryptedWeights, JobSpec, Manifest, SignedCertificateVote,
        SignedSuspicion, SlotRecord, Suspicion, Telemetry,
    },
    sealing::{SealingKeyAnnouncement, ShareAnswer, SignedShareRequest},
    snapshot::StateSnapshot,
};

/// A manifest and the votes that lock it: what workers evaluate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedManifest {
    /// The slot's inputs.
    pub manifest: Manifest,
    /// 2t+1 votes for the manifest.
    pub lock: Lock,
}

impl Wire for LockedManifest {
    const NAME: &'static str = "LockedManifest";
    // Version 1 had a lock that named a slot in place of an instance; versions 2 and 3 listed everything
    // that runs; version 4 knew nothing of replicas that are done, version 5 nothing of versions of jobs, version
    // 6 nothing of periodic jobs, version 7 nothing of samples and of sealed parts that do not open.
    const VERSION: u8 = 8;
    const MAX_BYTES: usize = Manifest::MAX_BYTES + Lock::MAX_BYTES;
}

/// The lock is not for the manifest beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockedManifestError {
    /// The votes do not make a lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The lock names another manifest, slot or cluster, or locks no manifest.
    #[error("the lock is not for this manifest")]
    OtherManifest,
}

impl LockedManifest {
    /// # Errors
    /// [`LockedManifestError`] unless 2t+1 members voted for exactly this manifest.
    pub fn verify(
        &self,
        committee: Committee,
        roster: &[PublicIdentity],
    ) -> Result<(), LockedManifestError> {
        let Self { manifest, lock } = self;
        if (lock.binding, lock.instance, lock.value)
            != (manifest.binding, Instance::manifest(manifest.slot), manifest.digest())
        {
            return Err(LockedManifestError::OtherManifest);
        }
        Ok(lock.verify(committee, roster)?)
    }
}

/// A member's signed suspicion that a worker is lost, as it is gossiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspicionMessage {
    /// The slot whose manifest may count it.
    pub slot: Slot,
    /// The worker that the member considers lost.
    pub worker: PeerIdHash,
    /// The member and its signature over the [`Suspicion`].
    pub signed: SignedSuspicion,
}

impl Wire for SuspicionMessage {
    const NAME: &'static str = "SuspicionMessage";
    // Version 1 had no time.
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 256;
}

impl SuspicionMessage {
    /// # Errors
    /// [`InvalidSignature`] if the member did not sign this for `binding`.
    pub fn verify(
        &self,
        binding: Binding,
        roster: &[PublicIdentity],
    ) -> Result<(), InvalidSignature> {
        let Self { slot, worker, signed: SignedSuspicion { lost_for, .. } } = *self;
        let suspicion = Suspicion { binding, slot, worker, lost_for };
        let identity = roster.get(self.signed.member.position()).ok_or(InvalidSignature)?;
        identity.verify(suspicion.digest().as_bytes(), &self.signed.signature)
    }
}

/// The files that every node of a cluster needs, by the BLAKE3 digest of their bytes, under which
/// peers provide them. What they mean is checked against the chain after fetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFiles {
    /// The FHE key set.
    pub key_set: Blake3Digest,
    /// Its length in bytes.
    pub key_set_bytes: u64,
    /// The reference string of the telemetry proofs.
    pub reference_string: Blake3Digest,
    /// Its length in bytes.
    pub reference_string_bytes: u64,
}

/// A request to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// The records after a slot, as many as fit; or the state after the last one, if that is more than
    /// [`SyncAnswer::SNAPSHOT_AFTER`] slots later or the next record is not kept any more.
    Records {
        /// The last slot that the sender has.
        after: Slot,
    },
    /// Telemetry that a manifest names, by its digest.
    Telemetry(Blake3Digest),
    /// A job's body, by its digest.
    Job(Blake3Digest),
    /// The files of a key set and its reference string.
    KeyFiles(KeySetDigest),
    /// What evidence the receiver keeps.
    EvidenceList,
    /// One piece of evidence, by its digest.
    Evidence(Blake3Digest),
    /// The members' votes for the certificate of a slot.
    CertificateVotes(Slot),
    /// The compact public key of a key set, for a worker that needs no more of it.
    PublicKey(KeySetDigest),
    /// How many blocks the member has opened under the key in force.
    BlocksOpened,
    /// Which replicas run on the worker. A worker asks that has lost some of them to it by a certificate.
    Running,
    /// The key that a member is sealed to (`sealed.md`, step 1).
    SealingKey,
    /// A member's share of the key of a sealed job (`sealed.md`, step 5).
    Share(Box<SignedShareRequest>),
    /// The encrypted weights that a policy names, by their digest.
    Weights(Blake3Digest),
}

impl Wire for SyncRequest {
    const NAME: &'static str = "SyncRequest";
    // Version 1 asked for no evidence, no votes and no public key, version 2 for no counter, version 3 not for
    // what runs, version 4 for nothing of what is sealed, version 5 for no weights.
    const VERSION: u8 = 6;
    const MAX_BYTES: usize = 64 + SignedShareRequest::MAX_BYTES;
}

/// The answer to a [`SyncRequest`]; `None` if the peer does not have what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncAnswer {
    /// The records, oldest first.
    Records(Vec<SlotRecord>),
    /// The worker's message.
    Telemetry(Option<Box<Telemetry>>),
    /// The job's body.
    Job(Option<Box<JobSpec>>),
    /// Digests and lengths of the files.
    KeyFiles(Option<KeyFiles>),
    /// Digests, at most [`SyncAnswer::MAX_EVIDENCE`] of them.
    EvidenceList(Vec<Blake3Digest>),
    /// The evidence.
    Evidence(Option<Box<Evidence>>),
    /// The votes, one of each member at most.
    CertificateVotes(Vec<SignedCertificateVote>),
    /// The key as tfhe serializes it. It counts if t+1 members say the same.
    PublicKey(Option<Bytes>),
    /// The state after the last slot, in place of records.
    Snapshot(Box<StateSnapshot>),
    /// The member's counter; `None` if the peer is no member that takes part.
    BlocksOpened(Option<DecryptionCounter>),
    /// Replicas that have their place at the worker, run there, are not being stopped, and are healthy as far as
    /// their job says how to tell; at most [`SyncAnswer::MAX_RUNNING`].
    Running(Vec<(Blake3Digest, ReplicaIndex)>),
    /// The member's word for its key; `None` if the peer is no member that takes part.
    SealingKey(Option<Box<SealingKeyAnnouncement>>),
    /// The member's share, encrypted to who asked, or why it keeps it.
    Share(ShareAnswer),
    /// The weights as their author encrypted them.
    Weights(Option<Box<EncryptedWeights>>),
}

impl SyncAnswer {
    /// Bytes of records put into one answer, unless a single one is longer.
    pub const RECORD_BYTES: usize = 2 << 20;
    /// Pieces of evidence that one answer names.
    pub const MAX_EVIDENCE: usize = 4096;
    /// Replicas that one answer names.
    pub const MAX_RUNNING: usize = 8192;
    /// Slots that a node may be behind and still be given records.
    pub const SNAPSHOT_AFTER: u64 = 64;
}

impl Wire for SyncAnswer {
    const NAME: &'static str = "SyncAnswer";
    // Versions 1 to 3 carried records of their own, versions 1 and 2 no evidence, no votes and no public
    // key, version 3 no snapshot, version 4 no counter, version 5 job specifications of version 2; version 6
    // knew nothing of what runs, or of replicas that are done, version 7 nothing of versions of jobs, version 8
    // nothing of periodic jobs, version 9 nothing of what is sealed, version 10 nothing of links and of the limits of
    // encrypted requests, version 11 no bodies with more than 64 KiB of sealed contents, version 12 nothing of sealed
    // parts that do not open, version 13 no weights.
    const VERSION: u8 = 14;
    // Records that were put together, and the last; or a record and the state after it.
    const MAX_BYTES: usize = 64
        + SlotRecord::MAX_BYTES
        + if Self::RECORD_BYTES > ClusterState::MAX_BYTES {
            Self::RECORD_BYTES
        } else {
            ClusterState::MAX_BYTES
        };
    // Never hashed, and re-encoding megabytes only to compare costs.
    const CHECK_CANONICAL: bool = false;
}
const _: () =
    assert!(StateSnapshot::MAX_BYTES + 64 <= SyncAnswer::MAX_BYTES, "a snapshot must fit");

const _: () = assert!(JobSpec::MAX_BYTES + 64 <= SyncAnswer::MAX_BYTES, "a job's body must fit");

const _: () =
    assert!(EncryptedWeights::MAX_BYTES + 64 <= SyncAnswer::MAX_BYTES, "weights must fit");

const _: () = assert!(
    Evidence::MAX_BYTES + 64 <= SyncAnswer::MAX_BYTES
        && SyncAnswer::MAX_EVIDENCE * 33 <= SyncAnswer::MAX_BYTES
        && SyncAnswer::MAX_RUNNING * 36 <= SyncAnswer::MAX_BYTES,
    "the longest evidence and the longest lists must fit"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Epoch, ParticipantIndex, Signature},
        scheduling::arbitrary::{binding, secret},
    };

    #[test]
    fn a_suspicion_counts_for_its_slot_worker_and_cluster_only() {
        let secret = secret(1);
        let roster = [secret.public()];
        let (slot, worker) = (Slot(4), PeerIdHash([9; 32]));
        let suspicion = Suspicion { binding: binding(), slot, worker, lost_for: 7 };
        let member = ParticipantIndex::new(1).unwrap();
        let signed = suspicion.sign(member, &secret);
        let good = SuspicionMessage { slot, worker, signed };
        assert_eq!(good.verify(binding(), &roster), Ok(()));
        assert_eq!(SuspicionMessage::from_wire(&good.to_wire()), Ok(good));
        let later = SuspicionMessage { slot: Slot(5), ..good };
        assert!(later.verify(binding(), &roster).is_err());
        let other = Binding { epoch: Epoch(binding().epoch.0 + 1), ..binding() };
        assert!(good.verify(other, &roster).is_err());
        let longer = SignedSuspicion { lost_for: 8, ..signed };
        assert!(SuspicionMessage { signed: longer, ..good }.verify(binding(), &roster).is_err());
        let outsider = SignedSuspicion { member: ParticipantIndex::new(2).unwrap(), ..signed };
        assert!(SuspicionMessage { signed: outsider, ..good }.verify(binding(), &roster).is_err());
        let forged = SignedSuspicion { signature: Signature([7; 64]), ..signed };
        assert!(SuspicionMessage { signed: forged, ..good }.verify(binding(), &roster).is_err());
    }

    #[test]
    fn requests_and_answers_round_trip() {
        for request in [
            SyncRequest::Records { after: Slot(u64::MAX) },
            SyncRequest::Telemetry(Blake3Digest([1; 32])),
            SyncRequest::Job(Blake3Digest([2; 32])),
            SyncRequest::KeyFiles(KeySetDigest([3; 32])),
            SyncRequest::EvidenceList,
            SyncRequest::Evidence(Blake3Digest([4; 32])),
            SyncRequest::CertificateVotes(Slot(u64::MAX)),
            SyncRequest::PublicKey(KeySetDigest([3; 32])),
            SyncRequest::BlocksOpened,
            SyncRequest::SealingKey,
            SyncRequest::Weights(Blake3Digest([5; 32])),
        ] {
            assert_eq!(SyncRequest::from_wire(&request.to_wire()), Ok(request));
        }
        let answer = SyncAnswer::Job(None);
        assert_eq!(SyncAnswer::from_wire(&answer.to_wire()), Ok(answer));
    }
}
