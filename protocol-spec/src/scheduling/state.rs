//! The cluster's desired state: what the certificates add up to.
//!
//! # Flow
//! 1. A manifest lists what is pending and what leaves (`slot.md`, "Lists"). What it must list is no part of
//!    the state: proposer and voters derive it from the state and the chain. What keeps its place then
//!    follows: [`running`](ClusterState::running).
//! 2. A member takes telemetry only if [`telemetry_counts`](ClusterState::telemetry_counts).
//! 3. When the assignments are decrypted, [`apply`](ClusterState::apply) gives the state after the
//!    slot, whose [`state_root`](ClusterState::state_root) the certificate carries. If the slot ends
//!    without an outcome, [`void`](ClusterState::void) does.
//! 4. When the certificate is signed, [`certified`](ClusterState::certified) closes the slot: only
//!    then can the next manifest be applied, since it names this certificate.
//!
//! A node that was away does 3 and 4 at once with [`follow`](ClusterState::follow), or begins from a
//! [`StateSnapshot`](crate::snapshot::StateSnapshot).
//!
//! # Done
//! A replica of a batch job that a manifest lists as done has no place any more and gets none again
//! ([`ClusterState::done_replica`]): it is remembered, with its exit code, for as long as its job is wanted.
//!
//! # Periodic jobs
//! [`ClusterState::runs_of`] a periodic job remembers which of its times was decided on last, and its last run. When a
//! run begins, what is done of the one before is forgotten: its replicas want a place again.
//!
//! # Given back
//! A replica whose worker gives it back ([`GivenBack`](super::GivenBack)) wants a place elsewhere. Who gave it back, how
//! often and why is [remembered](Returned) for some time: that worker gets it not again soon, and what is given back
//! again and again waits longer each time.
//!
//! # Lost workers
//! A worker that a manifest lists as lost keeps its replicas until they have another place: if it is back
//! before, nothing moves. Until then the state [counts it as lost](ClusterState::lost_since), and the
//! worker does not take its own exclusive leases for renewed (`leases.md`). A manifest that has its
//! telemetry again ends that.
//!
//! # Caveats
//! Signatures are not checked here; see [`SlotRecord`].

mod done;
mod error;
mod given_back;
mod rollout;
mod root;
mod runs;
mod system;
mod tries;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    assignment::{Assignments, Outcome},
    certificate::{CertificateBody, ChainError},
    manifest::{LeavingReplica, MAX_RUNNING, Manifest, ReplicaState, RunningReplica},
    record::SlotRecord,
};
use crate::{
    codec::Wire,
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
};
pub use done::{Done, MAX_DONE, MAX_DONE_OF_OPERATOR};
pub use error::StateError;
pub use given_back::{MAX_RETURNED, MAX_RETURNED_OF_OPERATOR, Returned};
use rollout::Rollouts;
pub use rollout::{
    Line, MAX_LINES, MAX_LINES_OF_OPERATOR, MAX_VERSIONS, RolloutError, RolloutPhase, Version,
    VersionOutcome,
};
pub use runs::{MAX_PERIODIC, MAX_PERIODIC_OF_OPERATOR, Run, RunError, Runs};
pub use tries::Draw;
use tries::{MAX_KNOWN, MAX_TOLD, MAX_TRIED, Tries};

/// Where a replica was assigned to, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The worker that runs it.
    pub worker: PeerIdHash,
    /// The slot that assigned it.
    pub slot: Slot,
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
    /// What has ended for good, and had its place until then.
    done: BTreeMap<(Blake3Digest, ReplicaIndex), Done>,
    /// The last slot that assigned something to a worker.
    booked: BTreeMap<PeerIdHash, Slot>,
    /// Workers that are lost and still have replicas, and the slot since which they are.
    lost: BTreeMap<PeerIdHash, Slot>,
    tries: Tries,
    /// What workers have given back, as long as it is remembered.
    returned: BTreeMap<(Blake3Digest, ReplicaIndex), Returned>,
    rollouts: Rollouts,
    /// When periodic jobs were run.
    runs: BTreeMap<Blake3Digest, Runs>,
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
            done: BTreeMap::new(),
            booked: BTreeMap::new(),
            lost: BTreeMap::new(),
            tries: Tries::default(),
            returned: BTreeMap::new(),
            rollouts: Rollouts::default(),
            runs: BTreeMap::new(),
        }
    }
}

impl Wire for ClusterState {
    const NAME: &'static str = "ClusterState";
    // Version 3 knew no lost workers, and what was tried only of the last slot. The root of version 4 did
    // not commit to what happened before. Version 5 knew nothing of replicas that are done, version 6 of those
    // given back and of versions, version 7 of periodic jobs, version 8 of samples, version 9 of sealed parts that
    // do not open.
    const VERSION: u8 = 10;
    // Slots and certificates; replicas of 77 bytes, those done of 94; as many workers of 42 twice; what was
    // tried and told; versions.
    const MAX_BYTES: usize = 320
        + MAX_RUNNING * (32 + 3 + 32 + 10)
        + MAX_DONE * Done::MAX_ENTRY_BYTES
        + 2 * MAX_RUNNING * (32 + 10)
        + MAX_TRIED * (32 + 3 + 2 + 10 + 33)
        + MAX_TOLD * (32 + 5 + 10)
        + MAX_KNOWN * 32
        + MAX_RETURNED * Returned::MAX_ENTRY_BYTES
        + Rollouts::MAX_BYTES
        + MAX_PERIODIC * Runs::MAX_ENTRY_BYTES;
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

    /// Slots in a row, up to the last one, that ended void.
    #[must_use]
    pub const fn voids(&self) -> u64 {
        self.last_slot.0.saturating_sub(self.decided.0.0)
    }

    /// The slot since which a worker counts as lost that still has replicas; `None` if it does not.
    #[must_use]
    pub fn lost_since(&self, worker: &PeerIdHash) -> Option<Slot> {
        self.lost.get(worker).copied()
    }

    /// The workers that count as lost, in order, and the slots since which they do.
    pub fn lost(&self) -> impl Iterator<Item = (PeerIdHash, Slot)> + '_ {
        self.lost.iter().map(|(worker, since)| (*worker, *since))
    }

    /// The last slot that found no place for a replica, and is remembered.
    #[must_use]
    pub fn last_tried(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<Slot> {
        self.tries.tried.get(&(job, replica)).map(|tried| tried.slot)
    }

    /// How many slots found no place for a replica, since something changed that could help.
    #[must_use]
    pub fn failures(&self, job: Blake3Digest, replica: ReplicaIndex) -> u8 {
        self.tries.tried.get(&(job, replica)).map_or(0, |tried| tried.failures)
    }

    /// The last slot in which a replica left a worker that was not lost; 0 before the first.
    #[must_use]
    pub const fn last_freed(&self) -> Slot {
        self.tries.freed
    }

    /// Whether these candidates or this policy are new, which could help whatever found no place.
    #[must_use]
    pub fn is_woken_by(&self, telemetry: &BTreeSet<PeerIdHash>, policy: KeccakDigest) -> bool {
        self.tries.all_wake(telemetry, policy)
    }

    /// What was told around a job within the window that `block` is in: bits, and since which block.
    #[must_use]
    pub fn told(&self, job: &Blake3Digest, block: u64) -> (u32, u64) {
        let told = self.tries.told(job, block);
        (told.bits, told.since)
    }

    /// What goes by lot in the slot of a manifest that builds on this state is drawn from here and from
    /// [`Self::seed`].
    #[must_use]
    pub fn draw(&self, manifest: &Manifest) -> Draw {
        self.tries.draw.unwrap_or(Draw::of(manifest))
    }

    /// Every replica that has a place, in order.
    pub fn replicas(&self) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex, Placement)> + '_ {
        self.replicas.iter().map(|(&(job, replica), &placement)| (job, replica, placement))
    }

    /// Where a replica has its place.
    #[must_use]
    pub fn placement(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<Placement> {
        self.replicas.get(&(job, replica)).copied()
    }

    /// The replicas of one job that have a place, in order.
    pub fn replicas_of(&self, job: Blake3Digest) -> impl Iterator<Item = ReplicaIndex> + '_ {
        let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
        self.replicas.range(all).map(|(&(_, replica), _)| replica)
    }

    /// What a worker is to run, in order.
    pub fn assigned_to(
        &self,
        worker: PeerIdHash,
    ) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex)> + '_ {
        let here = move |(_, _, placement): &(_, _, Placement)| placement.worker == worker;
        self.replicas().filter(here).map(|(job, replica, _)| (job, replica))
    }

    /// Whether a worker's telemetry counts in the next slot: it includes every assignment that the
    /// worker got, so that no slot books the same room twice, and claims no slot of the future. That of a
    /// lost worker was sampled after the worker knew that it is.
    #[must_use]
    pub fn telemetry_counts(&self, worker: &PeerIdHash, includes_slot: Slot) -> bool {
        let booked = self.booked.get(worker).copied().unwrap_or_default();
        let least = booked.max(self.lost.get(worker).copied().unwrap_or_default());
        (least..=self.last_slot).contains(&includes_slot)
    }

    /// What keeps its place in the slot of a manifest that builds on this state, by (job, replica):
    /// everything but what the manifest lists as leaving, as done, or as given back and stopped. A replica that is pending as well is draining: its
    /// worker may be taken from it.
    pub fn running<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = RunningReplica> + 'a {
        let pending: BTreeSet<_> = manifest.pending.iter().map(|p| (p.job, p.replica)).collect();
        self.replicas().filter_map(move |(job, replica, Placement { worker, .. })| {
            let leaves = manifest.leaving.binary_search(&LeavingReplica { job, replica }).is_ok();
            let released = given_back::is_released(manifest, job, replica);
            if leaves || released || done::lists(manifest, job, replica) {
                return None;
            }
            let moves = pending.contains(&(job, replica));
            let state = if moves { ReplicaState::Draining } else { ReplicaState::Serving };
            Some(RunningReplica { job, replica, worker, state })
        })
    }

    /// The state after a slot, yet without its certificate.
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
        let mut replicas = self.replicas.clone();
        let mut done = self.done_after(manifest, slot, &mut replicas)?;
        for &LeavingReplica { job, replica } in &manifest.leaving {
            let waits = self.rollouts.homes.contains_key(&(job, replica));
            if replicas.remove(&(job, replica)).is_none() && !self.is_done(job, replica) && !waits {
                return Err(StateError::NotRunning { job, replica });
            }
        }
        let returned = self.returned_after(manifest, &mut replicas)?;
        let runs = self.runs_after(manifest, slot, &replicas, &mut done)?;
        let mut booked = self.booked.clone();
        let only: BTreeMap<_, _> = manifest
            .pending
            .iter()
            .filter_map(|pending| Some(((pending.job, pending.replica), manifest.only(pending)?)))
            .collect();
        for assignment in assignments.as_slice() {
            let Outcome::Node(worker) = assignment.outcome else { continue };
            if manifest.telemetry.binary_search_by_key(&worker, |t| t.sender).is_err() {
                return Err(StateError::NotCandidate(worker));
            }
            let replica = (assignment.job, assignment.replica);
            if only.get(&replica).is_some_and(|only| *only != worker) {
                return Err(StateError::NotCandidate(worker));
            }
            let placement = Placement { worker, slot };
            replicas.insert(replica, placement);
            booked.insert(worker, slot);
        }
        if replicas.len() > MAX_RUNNING {
            return Err(StateError::TooManyRunning(replicas.len()));
        }
        let mut lost = self.lost.clone();
        for listed in &manifest.lost {
            lost.entry(listed.worker).or_insert(slot);
        }
        let holders: BTreeSet<_> = replicas.values().map(|placement| placement.worker).collect();
        let is_back = |worker: &PeerIdHash| {
            manifest.telemetry.binary_search_by_key(worker, |t| t.sender).is_ok()
        };
        lost.retain(|worker, _| holders.contains(worker) && !is_back(worker));
        let left = |(of, place): (&_, &Placement)| {
            replicas.get(of).is_none_or(|now| now.worker != place.worker)
                && manifest.lost.binary_search_by_key(&place.worker, |l| l.worker).is_err()
        };
        let freed = self.replicas.iter().any(left);
        let mut tries = self.tries.clone();
        tries.locked(manifest);
        tries.decided(manifest, assignments, freed, |of| {
            only.get(of).copied().or_else(|| self.last_place(of.0, of.1))
        });
        let rollouts = self.rollouts.after(manifest, assignments, &self.replicas, &replicas)?;
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
            done,
            booked,
            lost,
            tries,
            returned,
            rollouts,
            runs,
        })
    }

    /// The state after a slot that ended void, yet without its certificate: as before, but that the slot
    /// is over, and that its tries are charged.
    ///
    /// # Errors
    /// [`StateError`] if the manifest does not continue this state.
    pub fn void(&self, manifest: &Manifest) -> Result<Self, StateError> {
        let last_slot = self.continued_by(manifest)?;
        let (base, block) = (manifest.base, manifest.block.number);
        let mut after = Self { last_slot, base, block, ..self.clone() };
        after.tries.locked(manifest);
        Ok(after)
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
            Some((of, self.last_place(pending.job, pending.replica)?))
        })
    }

    /// The worker that has the replica, or had it last, or had the one that left for it.
    #[must_use]
    pub fn last_place(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<PeerIdHash> {
        let of = (job, replica);
        let place = self.replicas.get(&of).map(|placement| placement.worker);
        let tried = || self.tries.tried.get(&of)?.previous;
        place.or_else(tried).or_else(|| self.rollouts.homes.get(&of).copied())
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
        self.after(record)?.certified(&record.certificate.body)
    }

    /// The state after a slot, yet without its certificate, whether or not it ended void.
    ///
    /// # Errors
    /// [`StateError`] if the record does not continue this state.
    pub fn after(&self, record: &SlotRecord) -> Result<Self, StateError> {
        let SlotRecord { manifest, assignments, certificate, .. } = record;
        if certificate.body.is_void() {
            self.void(manifest)
        } else {
            self.apply(manifest, assignments)
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
