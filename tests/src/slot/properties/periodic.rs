//! What must hold of periodic jobs.
//!
//! | property | |
//! |---|---|
//! | no time begins two runs, and none begins after a later one | whatever members do |
//! | what a slot says of a job is of the last of its times up to the slot's block: those before are left out, and none that is to come begins | unless a member lies about times, which an appeal lets pass (`docs/adr/0017-time-zones.md`) |
//! | a run begins beside one that is under way only with `replace`, and then takes its place; a time is left out only with `skip`, and only beside one that is under way | whatever members do |
//! | a slot in which a run begins gives none of its replicas a place, nor leaves one to the run before | whatever members do |
//! | the first slot after a time, written by an honest member, says something of it | unless it may come along |
//!
//! That a replica of a run gets no place after it has ended, and leaves its worker for a reason only, is judged with those
//! of other jobs.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, ReplicaIndex,
    scheduling::{
        ClusterState, MAX_RUN_CHANGES, Outcome, Overlap, RunChange, RunStep, Runs, SlotRecord,
    },
};

use super::super::{
    SlotBehaviour, SlotPlan, SlotReport, chain::ChainView, periodic::Timed, worker::CAPACITY,
    workers::Surroundings,
};

/// Whether a slot says that a run of a job begins.
pub(super) fn begins(record: &SlotRecord, job: &Blake3Digest) -> bool {
    let step = step_of(record, job).filter(|_| !record.certificate.body.is_void());
    matches!(step, Some(RunStep::Begins { .. }))
}

fn step_of(record: &SlotRecord, job: &Blake3Digest) -> Option<RunStep> {
    let runs = &record.manifest.runs;
    let at = runs.binary_search_by_key(job, |change| change.job).ok()?;
    runs.get(at).map(|change| change.step)
}

/// What the properties of periodic jobs are judged by.
#[derive(Default)]
pub(super) struct PeriodicRuns {
    honest: BTreeSet<ParticipantIndex>,
    /// Whether some member writes other times than a job has.
    lies: bool,
    /// The last time of each job of which a slot has said something.
    last: BTreeMap<Blake3Digest, u64>,
    /// What runs that another has followed took on each worker.
    freed: BTreeMap<PeerIdHash, [u64; 4]>,
}

/// One job at a slot.
struct Seen<'a> {
    job: Blake3Digest,
    timed: &'a Timed,
    known: Option<Runs>,
    /// Whether its last run has not ended.
    under_way: bool,
    /// The last of its times up to the slot's block.
    latest: u64,
}

impl PeriodicRuns {
    pub(super) fn new(plan: &SlotPlan) -> Self {
        let lies = plan.behaviours.values().any(|one| *one == SlotBehaviour::BogusRuns);
        Self { honest: plan.honest().collect(), lies, ..Self::default() }
    }

    /// Judged by every certificate, on the chain as of its manifest's block.
    pub(super) fn check(
        &mut self,
        (before, after): (&ClusterState, &ClusterState),
        record: &SlotRecord,
        around: &Surroundings,
        chain: Option<&ChainView>,
        report: &mut SlotReport,
    ) {
        let slot = record.manifest.slot;
        if record.certificate.body.is_void() {
            return;
        }
        let Some(chain) = chain else { return };
        for &RunChange { job, step } in &record.manifest.runs {
            if step == RunStep::Forgotten {
                report.count("periodic job forgotten");
            }
            let Some(time) = step.time() else { continue };
            if self.last.get(&job).is_some_and(|last| time <= *last) {
                report.violate(format!("slot {slot} has job {job} run at {time} again"));
            }
            self.last.insert(job, time);
            if matches!(step, RunStep::Begins { .. }) && after.replicas_of(job).next().is_some() {
                report.violate(format!("slot {slot}: a run of job {job} begins with a place"));
            }
        }
        for (&job, timed) in around.jobs.periodic() {
            let replicas = around.jobs.get(&job).map_or(0, |job| job.replicas);
            let seen = Seen {
                job,
                timed,
                known: before.runs_of(&job),
                under_way: before.replicas_of(job).next().is_some()
                    || (0..replicas).any(|replica| !before.is_done(job, ReplicaIndex(replica))),
                latest: timed.schedule.latest(chain.time).unwrap_or(0),
            };
            match step_of(record, &job) {
                Some(step) => self.check_step(&seen, step, (before, record), around, report),
                None => self.check_unlisted(&seen, chain, record, report),
            }
        }
        self.count_room(record, after, around, report);
        self.last.retain(|job, _| around.jobs.get(job).is_some() || chain.wants(job));
    }

    fn check_step(
        &mut self,
        seen: &Seen<'_>,
        step: RunStep,
        (before, record): (&ClusterState, &SlotRecord),
        around: &Surroundings,
        report: &mut SlotReport,
    ) {
        let (slot, job, latest) = (record.manifest.slot, seen.job, seen.latest);
        let Some(time) = step.time() else { return };
        if time != latest && !self.lies {
            report.violate(format!("slot {slot}: job {job} at {time}, and its last is {latest}"));
        }
        let Some(known) = seen.known else {
            report.count("periodic job noted");
            return;
        };
        let passed_over = seen.timed.schedule.next(known.time).is_some_and(|next| next < time);
        report.add_if_any("time passed over, since a later one has come", u64::from(passed_over));
        let is_beside = known.last.is_some() && seen.under_way;
        let overlap = seen.timed.overlap;
        match step {
            RunStep::Begins { .. } if is_beside && overlap == Overlap::Replace => {
                report.count("run replaces the one before");
            }
            RunStep::Begins { .. } if is_beside => {
                report.violate(format!("slot {slot}: a run of {job} begins beside another"));
            }
            RunStep::Begins { .. } => {
                let first = known.last.is_none();
                report.count(if first {
                    "first run begins"
                } else {
                    "run follows one that is over"
                });
            }
            RunStep::LeftOut { .. } if is_beside && overlap == Overlap::Skip => {
                report.count("run left out");
            }
            RunStep::LeftOut { .. } => {
                report.violate(format!("slot {slot} leaves a run of {job} out for no other"));
            }
            RunStep::Noted { .. } | RunStep::Forgotten => {
                report.violate(format!("slot {slot} notes job {job} again"));
            }
        }
        if matches!(step, RunStep::Begins { .. }) {
            // What is done of the run before is forgotten: its room stays free.
            for (_, _, done) in before.done().filter(|(of, ..)| *of == job) {
                let freed = self.freed.entry(done.placement.worker).or_default();
                let need = around.jobs.need(&job).unwrap_or_default();
                freed.iter_mut().zip(need).for_each(|(freed, need)| *freed += need);
            }
        }
    }

    /// Whether a worker is given more than it would have room for if what runs took had not become free.
    fn count_room(
        &mut self,
        record: &SlotRecord,
        after: &ClusterState,
        around: &Surroundings,
        report: &mut SlotReport,
    ) {
        for assignment in record.assignments.as_slice() {
            let Outcome::Node(worker) = assignment.outcome else { continue };
            let Some(freed) = self.freed.get_mut(&worker) else { continue };
            let mut taken = *freed;
            for (job, ..) in after.replicas().filter(|(.., place)| place.worker == worker) {
                let need = around.jobs.need(&job).unwrap_or_default();
                taken.iter_mut().zip(need).for_each(|(taken, need)| *taken += need);
            }
            if taken.iter().zip(CAPACITY).any(|(taken, has)| *taken > has.into()) {
                report.count("room of a run before is used");
                *freed = [0; 4];
            }
        }
    }

    fn check_unlisted(
        &self,
        seen: &Seen<'_>,
        chain: &ChainView,
        record: &SlotRecord,
        report: &mut SlotReport,
    ) {
        let manifest = &record.manifest;
        let is_due = seen.known.is_none_or(|known| seen.latest > known.time);
        let is_full = manifest.runs.len() >= MAX_RUN_CHANGES;
        if is_due && !is_full && chain.wants(&seen.job) && self.honest.contains(&manifest.proposer)
        {
            let (slot, job) = (manifest.slot, seen.job);
            report.violate(format!("slot {slot} says nothing of job {job}, which is due"));
        }
    }
}
