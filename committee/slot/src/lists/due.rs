//! Which periodic jobs are run now.
//!
//! # Rules
//! 1. A wanted periodic job that the state does not know is noted: its times up to the manifest's block are over.
//!    It was submitted before that block, so that nothing is run for a time before its submission.
//! 2. Its last time up to the manifest's block is *due*, if it is later than the one that was decided on last. Of
//!    several that have passed since, only the last one is: runs that were missed are not made up for.
//! 3. If the run before has ended, each of its replicas being done, a due run begins. If not, it is left out, or the one
//!    before leaves and it begins, as the job says ([`Overlap`]). Its replicas are pending from the next slot on.
//! 4. Of the versions of a job only the wanted one is run.
//! 5. What is known of a job is forgotten when nobody wants it any more, or another version has taken its place.
//!
//! Time is that of the manifest's block, which everybody reads on the chain. Which of a job's times has come last
//! also follows from a database of time zones, and members may have different ones. So in an appeal any whole minute is
//! accepted that could be due: a member that is right by its own database cannot keep the others from deciding.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Address, Blake3Digest, ReplicaIndex,
    scheduling::{
        MAX_PERIODIC, MAX_PERIODIC_OF_OPERATOR, MAX_RUN_CHANGES, Overlap, RunChange, RunStep, Runs,
    },
};

use super::{Lists, NextReplicas, Wanted};
use crate::{
    demand::{JobDemand, NotConsidered, Timetable},
    rollout::Rollouts,
};

impl Lists<'_> {
    /// Rule 8. `submitted` says which jobs are wanted, whether or not their image is allowed now.
    pub(super) fn due(
        &self,
        rollouts: &Rollouts<'_>,
        wanted: &BTreeMap<Blake3Digest, Wanted<'_>>,
        submitted: impl Fn(&Blake3Digest) -> bool,
        next: &mut NextReplicas,
    ) {
        let mut room = self.room_for_periodic();
        let mut runs = BTreeMap::new();
        for (job, _) in self.state.periodic().filter(|(job, _)| !submitted(job)) {
            runs.insert(job, RunStep::Forgotten);
        }
        for (&job, Wanted { demand, .. }) in wanted.iter().filter(|(job, _)| submitted(job)) {
            let listed = self.inputs.judged.map(|judged| listed(judged.runs, &job));
            if listed == Some(None) {
                continue;
            }
            let Some(demand) = demand else {
                if listed.is_some() {
                    next.unknown.push(job);
                }
                continue;
            };
            let Some(timetable) = demand.timetable else { continue };
            let is_wanted = rollouts
                .line_of(&job)
                .is_none_or(|(_, line)| line.target().is_some_and(|target| target.job == job));
            if !is_wanted {
                continue;
            }
            let in_appeal = self.inputs.judged.is_some_and(|judged| judged.in_appeal);
            let said = listed.flatten().filter(|_| in_appeal).and_then(RunStep::time);
            let time = said.filter(|said| timetable.may_be_due(*said)).unwrap_or(timetable.latest);
            let step = match self.state.runs_of(&job) {
                None if room.take(&demand.operator) => Some(RunStep::Noted { time }),
                None => {
                    next.not_considered.insert(job, NotConsidered::TooManyPeriodic);
                    None
                }
                Some(known) => self.step(job, demand.replicas, &timetable, time, known),
            };
            if let Some(step) = step {
                runs.insert(job, step);
            }
        }
        if let Some(judged) = self.inputs.judged {
            runs.retain(|job, _| listed(judged.runs, job).is_some());
        }
        let runs = runs.into_iter().map(|(job, step)| RunChange { job, step });
        next.runs = runs.take(MAX_RUN_CHANGES).collect();
    }

    /// Rules 2 and 3.
    fn step(
        &self,
        job: Blake3Digest,
        replicas: u16,
        timetable: &Timetable,
        time: u64,
        known: Runs,
    ) -> Option<RunStep> {
        let is_due = time > known.time;
        let is_over = self.state.replicas_of(job).next().is_none()
            && (0..replicas).all(|replica| self.state.is_done(job, ReplicaIndex(replica)));
        let begins = known.last.is_none() || is_over || timetable.overlap == Overlap::Replace;
        let step = if begins { RunStep::Begins { time } } else { RunStep::LeftOut { time } };
        is_due.then_some(step)
    }

    /// Whether replicas of a job may want a place: of a periodic one, only in a run, and not in the slot in
    /// which that begins.
    pub(super) fn is_run(
        &self,
        job: &Blake3Digest,
        demand: &JobDemand,
        next: &mut NextReplicas,
    ) -> bool {
        if demand.timetable.is_none() {
            return true;
        }
        let begins = next.begins(job);
        let has_begun = self.state.runs_of(job).is_some_and(|runs| runs.last.is_some());
        if !begins && !has_begun {
            next.not_considered.entry(*job).or_insert(NotConsidered::NotYet);
        }
        has_begun && !begins
    }

    /// How many more are remembered.
    fn room_for_periodic(&self) -> Room {
        let mut room = Room { all: MAX_PERIODIC, of: BTreeMap::new() };
        let operators = self.operators();
        for (job, _) in self.state.periodic() {
            // Of a job that is not on chain any more nothing is left to count.
            room.all = room.all.saturating_sub(1);
            if let Some(operator) = operators.get(&job) {
                *room.of.entry(*operator).or_default() += 1;
            }
        }
        room
    }
}

struct Room {
    all: usize,
    of: BTreeMap<Address, usize>,
}

impl Room {
    fn take(&mut self, operator: &Address) -> bool {
        let of = self.of.entry(*operator).or_default();
        let has_room = self.all > 0 && *of < MAX_PERIODIC_OF_OPERATOR;
        if has_room {
            (self.all, *of) = (self.all - 1, *of + 1);
        }
        has_room
    }
}

fn listed(runs: &[RunChange], job: &Blake3Digest) -> Option<RunStep> {
    let at = runs.binary_search_by_key(job, |change| change.job).ok()?;
    runs.get(at).map(|change| change.step)
}

impl Timetable {
    /// Whether a time could be one of the job's by another database of time zones.
    const fn may_be_due(&self, time: u64) -> bool {
        time <= self.now && time.is_multiple_of(60)
    }
}

impl NextReplicas {
    /// Whether anything becomes of a periodic job for which a slot is to begin. What is left out has time until there
    /// is another reason: that the run before has ended is one.
    pub(crate) fn has_runs(&self) -> bool {
        self.runs.iter().any(|change| !matches!(change.step, RunStep::LeftOut { .. }))
    }

    /// Whether a run of a periodic job begins.
    pub(super) fn begins(&self, job: &Blake3Digest) -> bool {
        matches!(listed(&self.runs, job), Some(RunStep::Begins { .. }))
    }
}
