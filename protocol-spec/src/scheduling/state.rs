//! The cluster's desired state: what the certificates add up to.
//!
//! # Flow
//! 1. A member asks [`next_replicas`](ClusterState::next_replicas) what the next manifest must list
//!    as pending and as running, given the chain's submissions and the workers lost or drained.
//!    The proposer writes exactly that; the others compare.
//! 2. It takes telemetry only if [`telemetry_counts`](ClusterState::telemetry_counts).
//! 3. When the assignments are decrypted, [`apply`](ClusterState::apply) gives the state after the
//!    slot, whose [`state_root`](ClusterState::state_root) the certificate carries. If the slot ends
//!    without an outcome, [`void`](ClusterState::void) does.
//! 4. When the certificate is signed, [`certified`](ClusterState::certified) closes the slot: only
//!    then can the next manifest be applied, since it names this certificate.
//!
//! A node that was away does 3 and 4 at once with [`follow`](ClusterState::follow).
//!
//! # Caveats
//! Signatures are not checked here; see [`SlotRecord`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    abi::{Words, keccak},
    assignment::{Assignments, Outcome},
    certificate::{CertificateBody, ChainError},
    leaf::{LeafWorker, ReplicaLeaf},
    manifest::{MAX_PENDING, MAX_RUNNING, Manifest, PendingReplica, ReplicaState, RunningReplica},
    merkle::MerkleTree,
    record::SlotRecord,
};
use crate::{
    codec::Wire,
    domain,
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
};

/// Where a replica was assigned to, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The worker that runs it.
    pub worker: PeerIdHash,
    /// The slot that assigned it.
    pub slot: Slot,
}

/// One submission as the chain orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Position in the chain's order.
    pub position: u64,
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Whether the operator has withdrawn it.
    pub cancelled: bool,
}

/// What the manifest of the next slot must list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextReplicas {
    /// [`Manifest::pending`].
    pub pending: Vec<PendingReplica>,
    /// [`Manifest::running`].
    pub running: Vec<RunningReplica>,
    /// Jobs whose body is not known here, so that their number of replicas is unknown. A
    /// voter gets them before it validates a manifest.
    pub unknown: Vec<Blake3Digest>,
}

/// Everything that has a place, after one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    last_slot: Slot,
    last_certificate: KeccakDigest,
    /// What the last certificate can be anchored on.
    base: KeccakDigest,
    /// Number of the block as of which its members read the chain.
    block: u64,
    /// The last slot that did not end void, and the hash of its certificate.
    decided: (Slot, KeccakDigest),
    /// The last slot that placed or removed something.
    changed: Slot,
    replicas: BTreeMap<(Blake3Digest, ReplicaIndex), Placement>,
    /// The last slot that assigned something to a worker.
    booked: BTreeMap<PeerIdHash, Slot>,
    /// Where the replicas that the last slot left pending had their place, if they had one. It
    /// follows from the certificates, so it is not part of the root.
    last: BTreeMap<(Blake3Digest, ReplicaIndex), PeerIdHash>,
}

impl Default for ClusterState {
    /// Nothing runs and nothing was certified.
    fn default() -> Self {
        Self {
            last_slot: Slot(0),
            last_certificate: CertificateBody::NO_PREVIOUS,
            base: CertificateBody::NO_PREVIOUS,
            block: 0,
            decided: (Slot(0), CertificateBody::NO_PREVIOUS),
            changed: Slot(0),
            replicas: BTreeMap::new(),
            booked: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }
}

impl Wire for ClusterState {
    const NAME: &'static str = "ClusterState";
    const VERSION: u8 = 3;
    // Slots and certificates; replicas of 77 bytes, as many workers of 42, pending replicas of 67.
    const MAX_BYTES: usize = 160
        + MAX_RUNNING * (32 + 3 + 32 + 10)
        + MAX_RUNNING * (32 + 10)
        + MAX_PENDING * (32 + 3 + 32);
}

/// Why a manifest, its outcome or its certificate does not continue the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StateError {
    /// The slot is not after the last certified one.
    #[error("slot {slot} is not after slot {last}, the last one certified")]
    Slot { slot: Slot, last: Slot },
    /// The manifest builds on another certificate.
    #[error("the manifest builds on certificate {found}, the last one here is {expected}")]
    Previous { found: KeccakDigest, expected: KeccakDigest },
    /// A replica that the manifest lists as running has no place, or another one.
    #[error("replica {replica} of job {job} does not run where the manifest says")]
    NotRunning { job: Blake3Digest, replica: ReplicaIndex },
    /// A pending replica has a place whose worker is neither lost nor drained.
    #[error("replica {replica} of job {job} has a place already")]
    AlreadyPlaced { job: Blake3Digest, replica: ReplicaIndex },
    /// There is not one assignment for each pending replica.
    #[error("the assignments are not those of the manifest's pending replicas")]
    Assignments,
    /// A replica is assigned to a worker whose telemetry the manifest does not list.
    #[error("worker {0} is assigned a replica but is no candidate of this slot")]
    NotCandidate(PeerIdHash),
    /// More replicas would run than a cluster may have.
    #[error("{0} replicas would run: at most {MAX_RUNNING}")]
    TooManyRunning(usize),
    /// The certificate is of another chain of certificates, or out of order.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The certificate carries the root of another state.
    #[error("the certificate's state root is {found}, this slot gives {expected}")]
    Root { found: KeccakDigest, expected: KeccakDigest },
}

impl ClusterState {
    /// The last slot that was applied; 0 before the first.
    #[must_use]
    pub const fn last_slot(&self) -> Slot {
        self.last_slot
    }

    /// Hash of the last certificate; [`CertificateBody::NO_PREVIOUS`] before the first.
    #[must_use]
    pub const fn last_certificate(&self) -> KeccakDigest {
        self.last_certificate
    }

    /// Hash of the last certificate that is not void; [`CertificateBody::NO_PREVIOUS`] before the
    /// first. Whatever is drawn by lot is drawn from it: who ends slots void draws nothing anew.
    #[must_use]
    pub const fn seed(&self) -> KeccakDigest {
        self.decided.1
    }

    /// The slot of that certificate; 0 before the first.
    #[must_use]
    pub const fn last_decided(&self) -> Slot {
        self.decided.0
    }

    /// The last slot that placed or removed something; 0 before the first.
    #[must_use]
    pub const fn last_changed(&self) -> Slot {
        self.changed
    }

    /// The [`base`](Manifest::base) of the last manifest: what its certificate can be anchored on. [`CertificateBody::NO_PREVIOUS`] before the first.
    #[must_use]
    pub const fn last_base(&self) -> KeccakDigest {
        self.base
    }

    /// The number of the block as of which the last manifest reads the chain; 0 before the first.
    #[must_use]
    pub const fn last_block(&self) -> u64 {
        self.block
    }

    /// Every replica that has a place, in order.
    pub fn replicas(&self) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex, Placement)> + '_ {
        self.replicas.iter().map(|(&(job, replica), &placement)| (job, replica, placement))
    }

    /// What a worker is to run, in order.
    pub fn assigned_to(
        &self,
        worker: PeerIdHash,
    ) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex)> + '_ {
        let here = move |(_, _, placement): &(_, _, Placement)| placement.worker == worker;
        self.replicas().filter(here).map(|(job, replica, _)| (job, replica))
    }

    /// What had its place at a worker that was counted as lost, and waits for a place since: nobody else
    /// is to run it yet.
    pub fn waiting_of(
        &self,
        worker: PeerIdHash,
    ) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex)> + '_ {
        self.last.iter().filter(move |(_, place)| **place == worker).map(|(replica, _)| *replica)
    }

    /// Whether a worker's telemetry counts in the next slot: it includes every assignment that the
    /// worker got, so that no slot books the same room twice, and claims no slot of the future.
    #[must_use]
    pub fn telemetry_counts(&self, worker: &PeerIdHash, includes_slot: Slot) -> bool {
        let booked = self.booked.get(worker).copied().unwrap_or_default();
        (booked..=self.last_slot).contains(&includes_slot)
    }

    /// What the next manifest must list.
    ///
    /// `submissions` are all of the cluster's as of the manifest's block; of a job submitted twice
    /// the first counts, and a job that is not among them is no longer wanted. `replicas` gives
    /// the number of replicas of a job whose body is known.
    #[must_use]
    pub fn next_replicas(
        &self,
        submissions: &[Submission],
        replicas: impl Fn(&Blake3Digest) -> Option<u16>,
        lost: &BTreeSet<PeerIdHash>,
        draining: &BTreeSet<PeerIdHash>,
    ) -> NextReplicas {
        let mut first: BTreeMap<Blake3Digest, Submission> = BTreeMap::new();
        for submission in submissions {
            let known = first.entry(submission.job).or_insert(*submission);
            if submission.position < known.position {
                *known = *submission;
            }
        }
        let wanted: BTreeMap<u64, Blake3Digest> =
            first.values().filter(|s| !s.cancelled).map(|s| (s.position, s.job)).collect();
        let is_wanted = |job| first.get(job).is_some_and(|s| !s.cancelled);
        let stays: BTreeMap<_, _> = self
            .replicas
            .iter()
            .filter(|((job, _), placement)| is_wanted(job) && !lost.contains(&placement.worker))
            .collect();

        let mut next = NextReplicas::default();
        // Draining replicas keep their place until they have another one, so they are counted.
        let room = MAX_PENDING.min(MAX_RUNNING - stays.len().min(MAX_RUNNING));
        'jobs: for (submission, job) in wanted {
            let placed =
                self.replicas.range((job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX)));
            let mut indices: BTreeSet<_> = placed.map(|((_, replica), _)| *replica).collect();
            match replicas(&job) {
                Some(count) => indices.extend((0..count).map(ReplicaIndex)),
                None => next.unknown.push(job),
            }
            for replica in indices {
                let serves = stays
                    .get(&(job, replica))
                    .is_some_and(|placement| !draining.contains(&placement.worker));
                if serves {
                    continue;
                }
                if next.pending.len() >= room {
                    break 'jobs;
                }
                next.pending.push(PendingReplica { submission, job, replica });
            }
        }
        let moving: BTreeSet<_> = next.pending.iter().map(|p| (p.job, p.replica)).collect();
        next.running = stays
            .into_iter()
            .map(|(&(job, replica), &Placement { worker, .. })| {
                let moves = moving.contains(&(job, replica));
                let state = if moves { ReplicaState::Draining } else { ReplicaState::Serving };
                RunningReplica { job, replica, worker, state }
            })
            .collect();
        next
    }

    /// The state after a slot, yet without its certificate. Replicas that the manifest lists
    /// neither as running nor as pending leave: their job is cancelled.
    ///
    /// # Errors
    /// [`StateError`] if manifest or assignments do not continue this state.
    pub fn apply(
        &self,
        manifest: &Manifest,
        assignments: &Assignments,
    ) -> Result<Self, StateError> {
        let slot = self.continued_by(manifest)?;
        if !assignments.answers(manifest) {
            return Err(StateError::Assignments);
        }
        let mut replicas = BTreeMap::new();
        for &RunningReplica { job, replica, worker, .. } in &manifest.running {
            let placement = self.replicas.get(&(job, replica)).filter(|p| p.worker == worker);
            let placement = placement.ok_or(StateError::NotRunning { job, replica })?;
            replicas.insert((job, replica), *placement);
        }
        for &PendingReplica { job, replica, .. } in &manifest.pending {
            let place = self.replicas.get(&(job, replica));
            let lost = |worker| manifest.lost.iter().any(|lost| lost.worker == worker);
            if place.is_some_and(|p| !lost(p.worker) && !replicas.contains_key(&(job, replica))) {
                return Err(StateError::AlreadyPlaced { job, replica });
            }
        }
        let mut booked = self.booked.clone();
        for assignment in assignments.as_slice() {
            let Outcome::Node(worker) = assignment.outcome else { continue };
            if manifest.telemetry.binary_search_by_key(&worker, |t| t.sender).is_err() {
                return Err(StateError::NotCandidate(worker));
            }
            let placement = Placement { worker, slot };
            replicas.insert((assignment.job, assignment.replica), placement);
            booked.insert(worker, slot);
        }
        if replicas.len() > MAX_RUNNING {
            return Err(StateError::TooManyRunning(replicas.len()));
        }
        let last = self.previous(manifest).filter(|(of, _)| !replicas.contains_key(of)).collect();
        let same = (&replicas, &booked) == (&self.replicas, &self.booked);
        let changed = if same { self.changed } else { slot };
        let Self { last_certificate, decided, .. } = *self;
        let (base, block) = (manifest.base, manifest.block.number);
        Ok(Self {
            last_slot: slot,
            last_certificate,
            base,
            block,
            decided,
            changed,
            replicas,
            booked,
            last,
        })
    }

    /// The state after a slot that ended void, yet without its certificate: as before, but that the slot
    /// is over.
    ///
    /// # Errors
    /// [`StateError`] if the manifest does not continue this state.
    pub fn void(&self, manifest: &Manifest) -> Result<Self, StateError> {
        let last_slot = self.continued_by(manifest)?;
        let (base, block) = (manifest.base, manifest.block.number);
        Ok(Self { last_slot, base, block, ..self.clone() })
    }

    /// The manifest's slot, if that is a later one and builds on the last certificate.
    fn continued_by(&self, manifest: &Manifest) -> Result<Slot, StateError> {
        let (slot, last) = (manifest.slot, self.last_slot);
        if slot <= last {
            return Err(StateError::Slot { slot, last });
        }
        let (found, expected) = (manifest.previous, self.last_certificate);
        if found != expected {
            return Err(StateError::Previous { found, expected });
        }
        Ok(slot)
    }

    /// Where the pending replicas of a manifest that builds on this state had their place, as far as
    /// they had one: what a job that prefers it goes back to.
    pub fn previous<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = ((Blake3Digest, ReplicaIndex), PeerIdHash)> + 'a {
        manifest.pending.iter().filter_map(|pending| {
            let of = (pending.job, pending.replica);
            let place = self.replicas.get(&of).map(|placement| placement.worker);
            Some((of, place.or_else(|| self.last.get(&of).copied())?))
        })
    }

    /// Closes the slot that was applied, or ended void, with its certificate.
    ///
    /// # Errors
    /// [`StateError`] if the certificate is not of that slot or says that something else comes out.
    pub fn certified(mut self, body: &CertificateBody) -> Result<Self, StateError> {
        let (slot, previous) = (body.slot, self.last_slot);
        if slot != previous {
            return Err(ChainError::Slot { slot, previous }.into());
        }
        let (found, expected) = (body.previous, self.last_certificate);
        if found != expected {
            return Err(ChainError::Previous { slot, found, expected }.into());
        }
        let (found, expected) = (body.state_root, self.state_root());
        if found != expected {
            return Err(StateError::Root { found, expected });
        }
        self.last_certificate = body.hash();
        if !body.is_void() {
            self.decided = (slot, self.last_certificate);
        }
        Ok(self)
    }

    /// The state after a certified slot.
    ///
    /// # Errors
    /// [`StateError`] if the record does not continue this state.
    pub fn follow(&self, record: &SlotRecord) -> Result<Self, StateError> {
        let SlotRecord { manifest, assignments, certificate, .. } = record;
        let after = if certificate.body.is_void() {
            self.void(manifest)?
        } else {
            self.apply(manifest, assignments)?
        };
        after.certified(&certificate.body)
    }

    /// Root over every replica's place ([`ReplicaLeaf`]) and every worker's last booking, replicas
    /// first, each kind in ascending order. A worker's leaf is
    /// `keccak256(bytes.concat(keccak256(abi.encode(purpose, worker, slot))))`, where `bytes32 purpose` is
    /// Keccak-256 of [`domain::STATE_WORKER_LEAF`], `bytes32 worker` and `uint64 slot`.
    #[must_use]
    pub fn state_root(&self) -> KeccakDigest {
        let replicas = self.replicas().map(|(job, replica, Placement { worker, slot })| {
            let worker = LeafWorker::Open(worker);
            ReplicaLeaf { job, replica, worker, slot, done: false, drained: false }.hash()
        });
        let workers = self.booked.iter().map(|(worker, slot)| {
            let words = Words::purpose(domain::STATE_WORKER_LEAF);
            keccak(words.bytes32(worker.as_bytes()).uint(slot.0).keccak().as_bytes())
        });
        MerkleTree::new(replicas.chain(workers).collect()).root()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
