//! The fixed inputs of a slot.
//!
//! # Flow
//! 1. The proposer lists, in order, every live worker's latest telemetry, what is pending, what is to
//!    leave, what of batch jobs has ended, what workers give back, and which workers are lost, and names the policy, the circuit and a block. What runs is
//!    not listed: the certificate that the manifest builds on commits to it, and
//!    [`ClusterState::running`](super::ClusterState::running) says what of it stays.
//! 2. Members [`parse`](Manifest::parse) it, check it against what they hold themselves, and lock
//!    one manifest per slot with 2t+1 signatures over its [`digest`](Manifest::digest).
//! 3. Every evaluator computes on exactly this; a member decrypts nothing else.
//!
//! # Caveats
//! [`Manifest::validate`] is structural: it needs the committee's size and nothing else. That the
//! telemetry is fresh, that no live worker is left out, that jobs and policy are those on chain, and
//! [`LostWorker::verify`] are the voting member's checks.

use serde::{Deserialize, Serialize};

use super::{
    binding::Binding,
    ended::EndedReplica,
    given_back::GivenBack,
    rollout::{self, ReplicaHealth, RolloutChanges},
    runs::{MAX_RUN_CHANGES, RunChange},
    suspicion::LostWorker,
};
use crate::{
    codec::{CodecError, Wire},
    committee::Committee,
    domain::{self, hash_parts},
    ids::{
        Blake3Digest, KeccakDigest, MAX_PARTICIPANTS, ParticipantIndex, PeerIdHash, ReplicaIndex,
        Slot,
    },
};

/// Most workers with telemetry in one slot.
pub const MAX_TELEMETRY: usize = veil_protocol_spec_job::sampling::ALL_CANDIDATES as usize;
/// Most pending replicas in one slot; the others wait for the next.
pub const MAX_PENDING: usize = 4096;
/// Most running replicas of a cluster.
pub const MAX_RUNNING: usize = 8192;
/// Most workers lost in one slot; the others follow in the next.
pub const MAX_LOST: usize = 256;

/// Most replicas given back in one slot; the others follow in the next.
pub const MAX_GIVEN_BACK: usize = 128;

/// One worker's telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryEntry {
    /// The worker that sent it. The body behind `digest` must name the same sender.
    pub sender: PeerIdHash,
    /// [`TelemetryBody::digest`](super::TelemetryBody::digest).
    pub digest: Blake3Digest,
}

/// One replica that has no place, or is to get another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingReplica {
    /// Position of the job in the chain's order of submissions.
    pub submission: u64,
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// Of a system job: the worker that the replica is for, as a position in [`Manifest::telemetry`]. None of
    /// another job.
    pub only: Option<u16>,
    /// Most workers that are asked for it ([`Sampling::of_try`](super::Sampling::of_try)).
    pub candidates: u16,
}

/// Whether a running replica stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// The replica stays.
    Serving,
    /// The worker is being drained, or is lost: the replica is pending as well, and has its place until
    /// it gets another.
    Draining,
}

/// One replica that loses its place and wants no other, or is done and needs not be remembered: its job was
/// cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeavingReplica {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
}

/// One replica that has a place and keeps it in a slot, at least until it has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningReplica {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// The worker that it is assigned to.
    pub worker: PeerIdHash,
    /// Whether the replica stays there.
    pub state: ReplicaState,
}

/// Which circuit computes the placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitId {
    /// Version of the circuit's text.
    pub version: u32,
    /// Fingerprint of the evaluation: what must be equal for two evaluators to get the same bits.
    pub fingerprint: Blake3Digest,
}

impl CircuitId {
    /// Version of the circuit that places all of a slot at once, and is opened once.
    pub const AT_ONCE: u32 = 5;
    /// Version of the one that places replica after replica by thresholds, and is opened as it goes.
    pub const THRESHOLDS: u32 = 6;
}

/// The block as of which registry, policy and submissions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRef {
    /// Height of the block.
    pub number: u64,
    /// Hash of the block.
    pub hash: KeccakDigest,
}

/// The fixed inputs of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The slot, from 1.
    pub slot: Slot,
    /// The member that wrote this manifest.
    pub proposer: ParticipantIndex,
    /// Hash of the certificate this slot builds on; zero if there is none yet.
    pub previous: KeccakDigest,
    /// The block as of which the chain is read.
    pub block: BlockRef,
    /// Hash of the certificate that the chain has anchored last as of that block; zero if there is
    /// none. This slot's certificate can be anchored only on it (`anchoring.md`).
    pub base: KeccakDigest,
    /// Jobs on the job board as of that block, with the cancelled ones: who signs has seen as many.
    pub jobs_seen: u64,
    /// Digest of the cluster's policy on chain.
    pub policy: KeccakDigest,
    /// The circuit to evaluate.
    pub circuit: CircuitId,
    /// By sender in strictly ascending order: this is also the order of the candidates.
    pub telemetry: Vec<TelemetryEntry>,
    /// By (submission, replica) in strictly ascending order.
    pub pending: Vec<PendingReplica>,
    /// Replicas that have a place and are to leave it: by (job, replica) in strictly ascending order.
    pub leaving: Vec<LeavingReplica>,
    /// Replicas of batch jobs that have a place and leave it for good, since they have ended, by the telemetry
    /// of their workers: by (job, replica) in strictly ascending order.
    pub done: Vec<EndedReplica>,
    /// By worker in strictly ascending order.
    pub lost: Vec<LostWorker>,
    /// Replicas that have a place and that their workers give back, by their telemetry: by (job, replica) in strictly
    /// ascending order. Those that have stopped leave their place, and may be pending as well.
    pub given_back: Vec<GivenBack>,
    /// Which versions of jobs are new, and how those fare that take the place of others.
    pub rollouts: RolloutChanges,
    /// What becomes of periodic jobs, by job in strictly ascending order.
    pub runs: Vec<RunChange>,
}

impl Wire for Manifest {
    const NAME: &'static str = "Manifest";
    // Version 2 had suspicions without a time; it and version 3 listed everything that runs; version 4 knew
    // nothing of replicas that are done, version 5 of those given back and of versions, version 6 of periodic and
    // system jobs and of versions that are withdrawn, version 7 of samples, version 8 of sealed parts that do not
    // open.
    const VERSION: u8 = 9;
    const MAX_BYTES: usize = (1 << 20) + (1 << 16);
}

/// Largest sizes of the lists' entries on the wire: a u64 takes at most 10 bytes, a u16 3.
const LARGEST: usize = 512
    + MAX_TELEMETRY * (32 + 32)
    + MAX_PENDING * (10 + 32 + 3 + 4 + 3)
    + MAX_RUNNING * (32 + 3)
    + MAX_RUNNING * EndedReplica::MAX_BYTES
    + MAX_GIVEN_BACK * GivenBack::MAX_BYTES
    + RolloutChanges::MAX_BYTES
    + MAX_RUN_CHANGES * RunChange::MAX_BYTES
    + MAX_LOST * (32 + 1 + ((MAX_PARTICIPANTS - 1) / 3 + 1) * (1 + 5 + 64));
const _: () = assert!(LARGEST <= Manifest::MAX_BYTES, "the largest manifest must fit");

/// Why a manifest is refused. A voting member treats each as a fault of the proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ManifestError {
    /// The bytes are not a manifest.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The slot is 0; slots count from 1.
    #[error("slot 0 is before the first slot")]
    SlotZero,
    /// The proposer is not a member.
    #[error("proposer {0} is not in the committee")]
    Proposer(ParticipantIndex),
    /// A list is too long.
    #[error("`{list}` has {len} entries: at most {max}")]
    TooMany { list: &'static str, len: usize, max: usize },
    /// A list is out of order, or names something twice.
    #[error("`{list}` is not strictly ascending at entry {index}")]
    Order { list: &'static str, index: usize },
    /// Two workers have the same message.
    #[error("two workers are listed with telemetry {0}")]
    DuplicateTelemetry(Blake3Digest),
    /// A submission has two jobs, or a job two submissions.
    #[error("job {0} does not belong to exactly one submission")]
    Submission(Blake3Digest),
    /// A replica is for a worker without telemetry.
    #[error("replica {replica} of job {job} is for a worker that `telemetry` does not list")]
    NoSuchWorker { job: Blake3Digest, replica: ReplicaIndex },
    /// A replica is to leave although it wants a place.
    #[error("replica {replica} of job {job} is pending and leaving at once")]
    PendingAndLeaving { job: Blake3Digest, replica: ReplicaIndex },
    /// A replica is done although it wants a place, or leaves for another reason.
    #[error("replica {replica} of job {job} is done, and pending or leaving too")]
    DoneAndListed { job: Blake3Digest, replica: ReplicaIndex },
    /// A replica is given back although it is done, or leaves for another reason.
    #[error("replica {replica} of job {job} is given back, and done or leaving too")]
    GivenBackAndListed { job: Blake3Digest, replica: ReplicaIndex },
    /// A lost worker has telemetry.
    #[error("worker {0} is lost and listed in `telemetry` too")]
    LostButListed(PeerIdHash),
    /// Not exactly t+1 members suspect a worker.
    #[error("worker {worker} is suspected by {found} members: exactly {required} must sign")]
    SuspicionCount { worker: PeerIdHash, found: usize, required: usize },
    /// The suspecting members are out of order, or one is not a member.
    #[error("the members that suspect worker {0} are not strictly ascending members")]
    SuspicionMembers(PeerIdHash),
}

impl Manifest {
    /// Decodes and [`validate`](Self::validate)s bytes from outside.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8], committee: Committee) -> Result<Self, ManifestError> {
        let manifest = Self::from_wire(bytes)?;
        manifest.validate(committee)?;
        Ok(manifest)
    }

    /// What members lock and certificates name.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::MANIFEST, &[&self.to_wire()]))
    }

    /// The one worker that a pending replica of a system job is for.
    #[must_use]
    pub fn only(&self, pending: &PendingReplica) -> Option<PeerIdHash> {
        self.telemetry.get(usize::from(pending.only?)).map(|entry| entry.sender)
    }

    /// What stands for the digest of the outputs if nothing is evaluated, for there are no workers.
    #[must_use]
    pub fn no_outputs(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::NO_OUTPUTS, &[self.digest().as_bytes()]))
    }

    /// Checks the structure: sizes, strict order, no contradiction between the lists.
    ///
    /// # Errors
    /// The first broken rule, as [`ManifestError`].
    pub fn validate(&self, committee: Committee) -> Result<(), ManifestError> {
        if self.slot == Slot(0) {
            return Err(ManifestError::SlotZero);
        }
        if !committee.contains(self.proposer) {
            return Err(ManifestError::Proposer(self.proposer));
        }
        ordered("telemetry", &self.telemetry, MAX_TELEMETRY, |t| t.sender)?;
        ordered("pending", &self.pending, MAX_PENDING, |p| (p.submission, p.replica))?;
        ordered("leaving", &self.leaving, MAX_RUNNING, |r| (r.job, r.replica))?;
        ordered("done", &self.done, MAX_RUNNING, EndedReplica::key)?;
        ordered("lost", &self.lost, MAX_LOST, |l| l.worker)?;
        ordered("given_back", &self.given_back, MAX_GIVEN_BACK, GivenBack::key)?;
        let RolloutChanges { versions, health, forgotten, withdrawn } = &self.rollouts;
        ordered("versions", versions, rollout::MAX_NEW_VERSIONS, |v| v.submission)?;
        ordered("health", health, rollout::MAX_HEALTH, ReplicaHealth::key)?;
        ordered("forgotten", forgotten, rollout::MAX_FORGOTTEN_LINES, |line| *line)?;
        ordered("withdrawn", withdrawn, rollout::MAX_WITHDRAWN, |job| *job)?;
        ordered("runs", &self.runs, MAX_RUN_CHANGES, |change| change.job)?;
        self.validate_telemetry()?;
        self.validate_replicas()?;
        self.validate_lost(committee)
    }

    fn validate_telemetry(&self) -> Result<(), ManifestError> {
        let mut digests: Vec<_> = self.telemetry.iter().map(|t| t.digest).collect();
        digests.sort_unstable();
        let duplicate = digests.iter().zip(digests.iter().skip(1)).find(|(a, b)| a == b);
        duplicate.map_or(Ok(()), |(digest, _)| Err(ManifestError::DuplicateTelemetry(*digest)))
    }

    fn validate_replicas(&self) -> Result<(), ManifestError> {
        let nobody = |p: &&PendingReplica| p.only.is_some() && self.only(p).is_none();
        if let Some(&PendingReplica { job, replica, .. }) = self.pending.iter().find(nobody) {
            return Err(ManifestError::NoSuchWorker { job, replica });
        }
        // One submission has one job and the reverse: both (submission, job) and (job, submission)
        // are then functions.
        let mut jobs: Vec<_> = self.pending.iter().map(|p| (p.job, p.submission)).collect();
        jobs.sort_unstable();
        jobs.dedup();
        let twice = jobs.iter().zip(jobs.iter().skip(1)).find(|(a, b)| a.0 == b.0);
        if let Some((_, (job, _))) = twice {
            return Err(ManifestError::Submission(*job));
        }
        jobs.sort_unstable_by_key(|(_, submission)| *submission);
        let shared = jobs.iter().zip(jobs.iter().skip(1)).find(|(a, b)| a.1 == b.1);
        if let Some((_, (job, _))) = shared {
            return Err(ManifestError::Submission(*job));
        }

        let mut pending: Vec<_> = self.pending.iter().map(|p| (p.job, p.replica)).collect();
        pending.sort_unstable();
        let both = |leaving: &&LeavingReplica| {
            pending.binary_search(&(leaving.job, leaving.replica)).is_ok()
        };
        if let Some(&LeavingReplica { job, replica }) = self.leaving.iter().find(both) {
            return Err(ManifestError::PendingAndLeaving { job, replica });
        }
        let both = |done: &&EndedReplica| {
            let leaving = LeavingReplica { job: done.job, replica: done.replica };
            pending.binary_search(&done.key()).is_ok()
                || self.leaving.binary_search(&leaving).is_ok()
        };
        if let Some(&EndedReplica { job, replica, .. }) = self.done.iter().find(both) {
            return Err(ManifestError::DoneAndListed { job, replica });
        }
        let both = |word: &&GivenBack| {
            let leaving = LeavingReplica { job: word.job, replica: word.replica };
            self.leaving.binary_search(&leaving).is_ok()
                || self.done.binary_search_by_key(&word.key(), EndedReplica::key).is_ok()
        };
        if let Some(&GivenBack { job, replica, .. }) = self.given_back.iter().find(both) {
            return Err(ManifestError::GivenBackAndListed { job, replica });
        }
        Ok(())
    }

    fn validate_lost(&self, committee: Committee) -> Result<(), ManifestError> {
        let is_lost = |worker: PeerIdHash| {
            let found = self.lost.binary_search_by_key(&worker, |l| l.worker);
            found.is_ok().then_some(worker)
        };
        if let Some(worker) = self.telemetry.iter().find_map(|t| is_lost(t.sender)) {
            return Err(ManifestError::LostButListed(worker));
        }
        let required = committee.reconstruction_threshold().get();
        for LostWorker { worker, suspicions } in &self.lost {
            let (worker, found) = (*worker, suspicions.len());
            if found != required {
                return Err(ManifestError::SuspicionCount { worker, found, required });
            }
            let ascending = suspicions.is_sorted_by(|a, b| a.member < b.member);
            if !ascending || !suspicions.iter().all(|s| committee.contains(s.member)) {
                return Err(ManifestError::SuspicionMembers(worker));
            }
        }
        Ok(())
    }
}

fn ordered<T, K: Ord>(
    list: &'static str,
    entries: &[T],
    max: usize,
    key: impl Fn(&T) -> K,
) -> Result<(), ManifestError> {
    if entries.len() > max {
        return Err(ManifestError::TooMany { list, len: entries.len(), max });
    }
    match entries.iter().zip(entries.iter().skip(1)).position(|(a, b)| key(a) >= key(b)) {
        Some(before) => Err(ManifestError::Order { list, index: before + 1 }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
