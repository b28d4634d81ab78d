//! "No replica lost for longer than grace + a slot (+ lease + margin if exclusive) once capacity exists", in slots.
//!
//! # What can be judged exactly, and what cannot
//! A slot fixes its inputs when its members agree on the manifest. One that does so before the grace is over cannot
//! list what is not lost yet, so nobody can promise a replica a place before the rest of that slot has passed. The
//! next slot can, and has to: so the bound is the grace, the rest of the slot under way, and one slot. How long
//! a slot takes is a matter of another property ([`ENDS_WITHIN`](super::ENDS_WITHIN)), therefore this is judged by
//! slots and not by a time that holds the longest two:
//!
//! 1. While no slot is under way, one begins within [`BEGINS_WITHIN`] of the moment at which the replica is due.
//! 2. The first slot whose manifest is agreed on from that moment lists the worker as lost, and the replica.
//!
//! A replica is due when its worker has been gone for the grace, and there is room. An exclusive one is due twice:
//! at the grace its worker is to be counted as lost, and what it waits for then, the lease and a margin, begins with
//! that certificate, which all members know, and not with the grace, of which each knows its own.
//!
//! A replica has to wait for another turn if a list was full, if the slot ended void, and if a slot has listed it in
//! vain, since others in the same slot have taken the room. When that turn comes is up to the rules of tries, which
//! count slots and pauses; here it has to come within [`LONGEST_PAUSE`] and two slots.

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    scheduling::{ClusterState, MAX_LOST, MAX_PENDING, Outcome, RolloutPhase, SlotRecord},
};
use veil_scheduler_plan::cost::{most_pairs, pairs, pairs_of};

use super::{Properties, Replica, SLOT, given_back, rollout};
use crate::slot::{SlotReport, sight::STEP, worker::GRACE, workers::Surroundings};

/// Until the first members agree on a manifest: they look every two seconds, a second later at most, fetch what
/// certificates they lack, and wait for telemetry. This is judged every two seconds.
pub(super) const BEGINS_WITHIN: Millis = 2_000 + 1_000 + 1_000 + SLOT.collect + 2_000;
/// Between two tries of what found no place, at most: the replica waits for its turn then.
const LONGEST_PAUSE: Millis = 640_000;
/// A slot that is not disturbed, and what passes between two.
const ONE_SLOT: Millis = 60_000;

/// A replica without a worker.
#[derive(Clone, Copy)]
pub(super) struct Lost {
    pub(super) since: Millis,
    /// Where it was.
    pub(super) worker: PeerIdHash,
    /// The last time at which it could not have been placed.
    pub(super) excused: Millis,
    /// Whether it waits for another turn than its first.
    pub(super) waits: bool,
}

impl Lost {
    pub(super) const fn new(since: Millis, worker: PeerIdHash) -> Self {
        Self { since, worker, excused: since, waits: false }
    }
}

/// Whether what becomes of a job is a matter of its update.
fn is_updated(state: &ClusterState, (job, replica): Replica) -> bool {
    let updates = state.line_of(&job).is_some_and(|line| line.phase() != RolloutPhase::Settled);
    updates || rollout::is_replaced(state, &job, replica)
}

impl Properties {
    /// From when a slot that begins lists a replica, as far as is known.
    fn due(&self, job: &Blake3Digest, lost: &Lost, around: &Surroundings) -> Millis {
        // "Lease + 90 s + lease / 1000", which members state in steps.
        let wait = |lease: Millis| lease + lease / 1000 + 90_000 + STEP;
        let lease = around.jobs.lease(job).zip(self.counted.get(&lost.worker));
        let leased_until = lease.map_or(0, |(lease, counted)| counted + wait(lease));
        leased_until.max(lost.since + GRACE).max(lost.excused)
    }

    /// At each step: who is lost, and whether a slot has begun since it is due.
    pub(in crate::slot) fn check_lost(
        &mut self,
        state: &ClusterState,
        around: &Surroundings,
        now: Millis,
        report: &mut SlotReport,
    ) {
        let gone =
            |worker: &PeerIdHash| around.worker(worker).is_none_or(|w| w.gone_since().is_some());
        let mut lost = core::mem::take(&mut self.lost);
        // One of a system job is bound to its worker: it waits there.
        for (job, replica, placement) in
            state.replicas().filter(|(job, ..)| !around.jobs.is_system(job))
        {
            let of = (job, replica);
            if gone(&placement.worker) || given_back::is_to_move(state, of, placement, around) {
                let found = Lost::new(now, placement.worker);
                let lost = lost.entry(of).or_insert(found);
                // It was placed on one that was gone by then.
                if lost.worker != placement.worker {
                    *lost = found;
                }
            } else if let Some(lost) = lost.remove(&of) {
                report.longest_loss_ms = report.longest_loss_ms.max(now - lost.excused);
            }
        }
        let chain = around.chain.head();
        let under_way = self.begun.is_some_and(|(slot, _)| slot > state.last_slot());
        lost.retain(|of @ (job, replica), lost| {
            if !chain.wants(job) || state.is_done(*job, *replica) || is_updated(state, *of) {
                return false;
            }
            // Its grace begins anew whenever its worker is back, however short that is.
            let is_there = |worker| state.placement(*job, *replica).is_some_and(|of| of.worker == worker);
            let worker = around.worker(&lost.worker).filter(|worker| is_there(worker.id));
            let gone_since = worker.and_then(|worker| worker.gone_since());
            lost.since = lost.since.max(gone_since.unwrap_or(lost.since));
            if !around.has_room(*of, state, now) || self.apart == now {
                lost.excused = now;
            }
            let waits = lost.waits
                || state.voids() > 0
                || state.failures(*job, *replica) > 0
                || given_back::returns_often(state, *of);
            let due = self.due(job, lost, around);
            let overdue = if waits {
                now > due + LONGEST_PAUSE + 2 * ONE_SLOT
            } else {
                !under_way && now > due.max(self.ended_at) + BEGINS_WITHIN
            };
            if overdue {
                let since = lost.since;
                report.violate(format!(
                    "replica {replica} of {job} is lost since {since}, and at {now} no slot lists it"
                ));
            }
            !overdue
        });
        self.lost = lost;
    }

    /// At each certificate: whether the slot lists who was due when it began.
    pub(super) fn check_listed(
        &mut self,
        (before, after): (&ClusterState, &ClusterState),
        record: &SlotRecord,
        around: &Surroundings,
        now: Millis,
        report: &mut SlotReport,
    ) {
        let manifest = &record.manifest;
        let begun = self.begun.filter(|(slot, _)| *slot == manifest.slot).map(|(_, at)| at);
        let is_counted = |worker: &PeerIdHash| {
            manifest.lost.binary_search_by_key(worker, |of| of.worker).is_ok()
        };
        let few_lost = manifest.lost.len() < MAX_LOST;
        let has_room = |asks: u16| {
            let asks = manifest.telemetry.len().min(asks.into());
            manifest.pending.len() < MAX_PENDING
                && pairs(manifest) + pairs_of(asks) <= most_pairs(before.voids())
        };
        let is_void = record.certificate.body.is_void();
        let chain = around.chain.at(manifest.block);
        let mut all = core::mem::take(&mut self.lost);
        for (of @ (job, replica), lost) in &mut all {
            let listed = manifest.pending.iter().any(|p| (p.job, p.replica) == *of);
            let wanted = chain.as_ref().is_some_and(|chain| chain.wants(job));
            let place = before.placement(*job, *replica);
            let excused = lost.waits
                || !wanted
                || place.is_some_and(|place| place.worker != lost.worker)
                || before.is_done(*job, *replica)
                || before.failures(*job, *replica) > 0
                || is_updated(before, *of)
                || is_updated(after, *of)
                || given_back::returns_often(before, *of);
            let Some(begun) = begun.filter(|_| !excused && !listed) else { continue };
            // A slot that counts the worker moves its replicas, but for those that wait for a lease from then on.
            let is_gone =
                around.worker(&lost.worker).is_none_or(|worker| worker.gone_since().is_some());
            let counts = !is_gone || is_counted(&lost.worker);
            let is_exclusive = is_gone && around.jobs.lease(job).is_some();
            let waits_for_lease = is_exclusive && !self.counted.contains_key(&lost.worker);
            let to_count = !counts && begun >= (lost.since + GRACE).max(lost.excused);
            let to_list = counts && !waits_for_lease && begun >= self.due(job, lost, around);
            let (slot, since) = (manifest.slot, lost.since);
            // Of more than a list holds those come first that no slot has counted yet; the others take turns.
            let few = has_room(around.sampling().of_try(before.failed(*job, *replica)));
            lost.waits = to_count && (is_void || !few_lost) || to_list && (is_void || !few);
            if lost.waits {
                report.count("lost replica waits for its turn");
            } else if to_count {
                report.violate(format!(
                    "slot {slot}, from {begun}, does not count {} as lost, since {since}",
                    lost.worker
                ));
            } else if to_list {
                report.violate(format!(
                    "slot {slot}, from {begun}, passes over replica {replica} of {job}, lost since {since}"
                ));
            }
        }
        self.lost = all;
        for worker in manifest.lost.iter().map(|of| of.worker) {
            if before.lost_since(&worker).is_none() && !is_void {
                self.counted.insert(worker, now);
            }
        }
        self.counted.retain(|worker, _| after.lost_since(worker).is_some());
    }

    /// A slot has ended: what it has tried in vain.
    pub(super) fn note_tries(&mut self, record: &SlotRecord, now: Millis) {
        for assignment in record.assignments.as_slice() {
            let lost = self.lost.get_mut(&(assignment.job, assignment.replica));
            if let Some(lost) = lost.filter(|_| assignment.outcome == Outcome::Pending) {
                lost.waits = true;
            }
        }
        self.ended_at = now;
    }
}
