//! What must hold in every run, checked at every step of it.
//!
//! | property | checked |
//! |---|---|
//! | never two outcomes of a slot | at each decision and each certificate |
//! | a slot ends within [`ENDS_WITHIN`] while 2t+1 honest members reach each other | at each step |
//! | with at most t members that disturb, at most 1 % of the slots that have something to place end void | at the end |
//! | no replica is lost for longer than the grace, the rest of the slot under way and one slot while there is room; an exclusive one for the lease and a margin more ([`lost`]) | at each step and each certificate |
//! | nothing is removed but what is not wanted any more, or whose worker was gone for the grace, as each honest member that says so saw itself | at each certificate |
//! | a replica is done only if its worker says that it has ended, which of honest ones holds | at each certificate |
//! | a replica leaves a worker that gives it back only for its word, and what must not run twice only after the worker has stopped it, which of honest ones holds | at each certificate |
//! | what is given back or drained has another place within a slot, once there is room | at each step |
//! | what is done never gets a place again, and its room is used | at each certificate |
//! | no manifest of an honest member is refused for what it lists as done or given back | at each judgement |
//! | a slot replaces at most `max_parallel` replicas of a job whose new version is not certified healthy, and takes no healthy one away before another is, unless both cannot run at once | at each certificate |
//! | a version that is broken is never called healthy, one that is not is never called failed, unless a worker lies | at each certificate |
//! | a system job never has two replicas at a worker, and none goes to another | at each certificate |
//! | no time of a periodic job begins two runs, none begins beside another but by `overlap`, and none is forgotten ([`periodic`]) | at each certificate |
//! | no exclusive replica gets a place while its old worker may run it | at each certificate, if the plan says so |
//! | what a member stores of slots that are not over is at most [`KEPT_MANIFESTS`] manifests and [`KEPT_BYTES`] | at each record |

mod lost;
mod periodic;
mod rollout;
mod system;

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_machine::Millis;
use veil_committee_slot::machine::SlotTiming;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{ClusterState, LostWorker, MAX_LOST, Outcome, SlotRecord},
};

use self::{lost::Lost, periodic::PeriodicRuns};
use super::{
    Phase, SlotPlan, SlotReport, WorkerBehaviour, worker::CAPACITY, workers::Surroundings,
};

/// How long the members of the world wait in a slot.
pub(super) const SLOT: SlotTiming = SlotTiming { collect: 5_000, retry: 1_000, void_after: 30_000 };
/// From a slot's beginning to its certificate: the void timer, and rounds of both agreements with
/// proposers that deviate, on a bad network.
const ENDS_WITHIN: Millis = 240_000;
/// Manifests that a member stores at most, in one slot and the decisions before it.
pub(super) const KEPT_MANIFESTS: usize = 24;
/// And beside them.
pub(super) const KEPT_BYTES: usize = 256 << 10;

type Replica = (Blake3Digest, ReplicaIndex);

/// What the properties are judged by.
#[derive(Default)]
pub(super) struct Properties {
    honest: BTreeSet<ParticipantIndex>,
    /// The slot that a member was in first, and when.
    begun: Option<(Slot, Millis)>,
    /// The last time at which fewer than 2t+1 honest members reached each other.
    apart: Millis,
    lost: BTreeMap<Replica, Lost>,
    /// When the certificate was there since which a worker counts as lost.
    counted: BTreeMap<PeerIdHash, Millis>,
    /// When the last slot ended.
    ended_at: Millis,
    /// Workers that may still run an exclusive replica that was taken from them, and until when.
    leased: BTreeMap<Replica, (PeerIdHash, Millis)>,
    /// What is done of jobs that are wanted.
    done: BTreeSet<Replica>,
    /// What it took on each worker.
    freed: BTreeMap<PeerIdHash, [u64; 4]>,
    /// Slots whose end is overdue, so that each is told once.
    told: Slot,
    periodic: PeriodicRuns,
}

impl Properties {
    pub(super) fn new(plan: &SlotPlan) -> Self {
        let honest = plan.honest().collect();
        Self { honest, periodic: PeriodicRuns::new(plan), ..Self::default() }
    }

    /// Too few members reach each other now.
    pub(super) const fn apart(&mut self, now: Millis) {
        self.apart = now;
    }

    /// A member is in a phase of a slot.
    pub(super) fn reached(&mut self, slot: Slot, phase: Phase, now: Millis) {
        let known = self.begun.is_some_and(|(of, _)| of >= slot);
        if phase.is_under_way() && !known {
            self.begun = Some((slot, now));
        }
    }

    /// "Every slot ends while 2t+1 honest members are connected."
    pub(super) fn check_end(&mut self, last: Slot, now: Millis, report: &mut SlotReport) {
        let Some((slot, since)) = self.begun.filter(|(slot, _)| *slot > last && *slot > self.told)
        else {
            return;
        };
        if now > since.max(self.apart) + ENDS_WITHIN {
            self.told = slot;
            report.violate(format!("slot {slot} began at {since} and has not ended at {now}"));
        }
    }

    /// What a certificate changes must have a reason.
    pub(super) fn check_change(
        &mut self,
        (before, after): (&ClusterState, &ClusterState),
        record: &SlotRecord,
        around: &Surroundings,
        now: Millis,
        report: &mut SlotReport,
    ) {
        let slot = record.manifest.slot;
        let chain = around.chain.at(record.manifest.block);
        let lost = &record.manifest.lost;
        report.add_if_any("list of lost workers full", u64::from(lost.len() == MAX_LOST));
        for LostWorker { worker, suspicions } in lost {
            report.count("worker counted as lost");
            // "t+1 suspicions are worth something because one of them is an honest member's own."
            for by in suspicions.iter().map(|suspicion| suspicion.member) {
                if self.honest.contains(&by) && !around.was_lost_to(by, worker, now) {
                    report.violate(format!("{by} says in slot {slot} that {worker} is lost"));
                }
            }
        }
        self.periodic.check((before, after), record, around, chain.as_deref(), report);
        // What the run before has left, or had lost, is nothing of the one that begins.
        self.done.retain(|(job, _)| !periodic::begins(record, job));
        self.lost.retain(|(job, _), _| !periodic::begins(record, job));
        self.check_done((before, after), record, around, now, report);
        self.check_listed((before, after), record, around, now, report);
        let open = |at| {
            let chain = chain.as_ref()?;
            chain
                .submissions
                .iter()
                .find(|submission| submission.position == at)
                .map(|of| !of.cancelled)
        };
        rollout::check((before, after), record, around, |at| open(at) != Some(true), report);
        system::check((before, after), record, around, chain.as_deref(), report);
        let replaced = |job: &Blake3Digest, replica| rollout::is_replaced(after, job, replica);
        let state = after;
        let places = |state: &ClusterState| -> BTreeMap<_, _> {
            state.replicas().map(|(job, replica, p)| ((job, replica), p.worker)).collect()
        };
        let was = before;
        let (before, after) = (places(before), places(after));
        for (of @ (job, replica), worker) in &before {
            if after.get(of) == Some(worker) || around.jobs.is_system(job) {
                continue;
            }
            let is_lost = lost.iter().any(|lost| lost.worker == *worker);
            if state.is_done(*job, *replica) {
                report.count("replica done");
                continue;
            }
            let is_before = periodic::begins(record, job);
            let is_replaced = replaced(job, *replica) || is_before;
            let wanted = chain.as_ref().is_none_or(|chain| chain.wants(job));
            let stays = wanted && !is_lost && !is_replaced;
            let placement = was.placement(*job, *replica).filter(|_| stays);
            let leaves = placement.is_some_and(|placement| {
                let chain = chain.as_deref();
                given_back::may_leave(was, *of, placement, record, around, chain, report)
            });
            if is_before {
                report.count("replica of the run before stopped");
            } else if is_replaced {
                report.count("replica of another version");
            } else if !is_lost && wanted && !leaves {
                report.violate(format!(
                    "slot {slot} takes replica {replica} of {job} from {worker} without a reason"
                ));
            }
            if !leaves {
                let lost = "replica of a lost worker";
                report.count(if is_lost { lost } else { "replica withdrawn" });
            }
            let lease = around.jobs.lease(job);
            // What it has stopped it does not run, whatever it is cut off from.
            let runs = around
                .worker(worker)
                .zip(lease.filter(|_| !leaves))
                .and_then(|(w, lease)| w.runs_until(lease));
            if let Some(until) = runs {
                self.leased.insert(*of, (*worker, until));
            }
            let wants = || chain.as_ref().is_some_and(|chain| chain.wants(job));
            if !after.contains_key(of) && !is_replaced && wants() {
                self.lost.entry(*of).or_insert_with(|| Lost::new(now, *worker));
            }
        }
        self.note_tries(record, now);
        self.leased.retain(|_, (_, until)| now < *until);
        for (of @ (job, replica), worker) in &after {
            let runs = self.leased.get(of).filter(|(old, _)| old != worker);
            if runs.is_some() && before.get(of) != Some(worker) {
                report.violate(format!("slot {slot} has replica {replica} of {job} run twice"));
            }
        }
    }

    /// What becomes done must have ended, and never gets a place again.
    fn check_done(
        &mut self,
        (before, after): (&ClusterState, &ClusterState),
        record: &SlotRecord,
        around: &Surroundings,
        now: Millis,
        report: &mut SlotReport,
    ) {
        let slot = record.manifest.slot;
        for (job, replica, _) in after.replicas() {
            if self.done.contains(&(job, replica)) {
                report.violate(format!("slot {slot} places replica {replica} of {job} again"));
            }
        }
        for (job, replica, done) in after.done() {
            if before.is_done(job, replica) {
                continue;
            }
            let ran = done.placement;
            let lies = around
                .worker(&ran.worker)
                .is_some_and(|worker| worker.behaviour == Some(WorkerBehaviour::ClaimEnded));
            let ended = around.runs.has_ended((job, replica, ran.slot), now);
            // Of a job that was withdrawn meanwhile nothing is known any more.
            let is_known = around.jobs.get(&job).is_some();
            let had_place = before.placement(job, replica) == Some(ran);
            if !had_place || is_known && !(around.jobs.is_batch(&job) && (ended || lies)) {
                report.violate(format!("slot {slot} says that replica {replica} of {job} is done"));
            }
            self.done.insert((job, replica));
            let freed = self.freed.entry(ran.worker).or_default();
            let need = around.jobs.need(&job).unwrap_or_default();
            freed.iter_mut().zip(need).for_each(|(freed, need)| *freed += need);
        }
        let chain = around.chain.head();
        self.done.retain(|(job, _)| chain.wants(job));
        for assignment in record.assignments.as_slice() {
            let Outcome::Node(worker) = assignment.outcome else { continue };
            let Some(mut taken) = self.freed.get(&worker).copied() else { continue };
            for (job, ..) in after.replicas().filter(|(.., place)| place.worker == worker) {
                let need = around.jobs.need(&job).unwrap_or_default();
                taken.iter_mut().zip(need).for_each(|(taken, need)| *taken += need);
            }
            if taken.iter().zip(CAPACITY).any(|(taken, has)| *taken > has.into()) {
                report.count("room of what is done is used");
            }
        }
    }

    /// The first certificate of a slot is there.
    pub(super) fn ended(&mut self, slot: Slot, now: Millis, report: &mut SlotReport) {
        if let Some((_, since)) = self.begun.filter(|(of, _)| *of == slot) {
            report.longest_slot_ms = report.longest_slot_ms.max(now - since.max(self.apart));
        }
    }
}

/// "With at most t faulty at most 1 % of the slots that have something to place end void."
pub(super) fn check_void(void: u64, report: &mut SlotReport) {
    if void * 100 > report.with_work {
        let of = report.with_work;
        report.violate(format!("{void} of {of} slots that had something to place ended void"));
    }
}

mod given_back;
#[cfg(test)]
mod tests;
