//! Which version of a job is wanted, and how it takes the place of the one before.
//!
//! # Rules
//! 1. Jobs of one operator and name are versions of one job, a *line*. A manifest lists as new versions, of each
//!    line of which two jobs are known: those that have a place, and the newest. A job that is new, or older than
//!    the newest of its line and none of its versions, gets no place.
//! 2. The newest version is wanted, unless it has failed and reverts. If the newest is withdrawn, so are all.
//! 3. Replicas of versions with one template are as good as each other: by index, one of them is enough. Those
//!    with a higher index than the wanted version has leave.
//! 4. While a version takes the place of others, a manifest lists so many of its replicas that at most
//!    `max_parallel` have a place, or get one, and are not certified to be healthy: first those that have lost
//!    their worker, then those of which no other version runs, then by index. The replica of another version keeps
//!    its place until then; before, it gets another one if its worker is lost or drained.
//! 5. If both cannot run at once (a fixed host port, an exclusive lease), the one before leaves first, so that at
//!    most `max_parallel` replicas are missing or not healthy. What ends by itself is not waited for: its other
//!    versions leave at once.
//! 6. How a replica fares that was placed in an update is what the telemetry of its worker says. If it is not
//!    healthy, its version has failed; then the last one comes back that was wholly healthy, by these rules, or, without
//!    `auto_revert`, nothing is done before another version.
//!    A version whose submission is withdrawn, while that of the newest is not, is listed, and cannot come back.
//! 7. A line of which all versions are withdrawn, and none runs, is forgotten.

pub mod homes;
mod replicas;
mod system;
pub mod waits;

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Address, Blake3Digest, JobLine, ReplicaIndex,
    scheduling::{
        ClusterState, LeavingReplica, Line, MAX_FORGOTTEN_LINES, MAX_HEALTH, MAX_LINES,
        MAX_LINES_OF_OPERATOR, MAX_NEW_VERSIONS, MAX_VERSIONS, MAX_WITHDRAWN, Manifest, NewVersion,
        ReplicaHealth, RolloutPhase, Submission, Version, VersionOutcome,
    },
};

use self::replicas::LineReplicas;
use crate::{
    demand::{JobDemand, NotConsidered},
    judged::Judged,
};

/// A manifest lists more replicas of a version than may be unproven at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAtOnce {
    /// The wanted version.
    pub job: Blake3Digest,
    /// Replicas of it that would not be certified to be healthy.
    pub found: usize,
    /// Its [`max_parallel`](veil_protocol_spec::scheduling::UpdatePolicy::max_parallel).
    pub most: usize,
}

/// What a job in a list is, as far as its body is known.
pub(crate) struct Known<'a> {
    pub(crate) submission: &'a Submission,
    pub(crate) demand: JobDemand,
}

/// The lines of a state, as of the manifest's block.
pub(crate) struct Rollouts<'a> {
    state: &'a ClusterState,
    /// The line of each version.
    by_job: BTreeMap<Blake3Digest, (JobLine, &'a Line)>,
    /// Lines whose newest version is withdrawn.
    withdrawn: BTreeSet<JobLine>,
    /// Versions of the other lines that were healthy and whose submission is withdrawn.
    gone: Vec<Blake3Digest>,
}

impl<'a> Rollouts<'a> {
    pub(crate) fn new(state: &'a ClusterState, submissions: &[Submission]) -> Self {
        let (mut by_job, mut withdrawn, mut gone) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let open: BTreeSet<_> = if state.lines().next().is_none() {
            BTreeSet::new()
        } else {
            let open = submissions.iter().filter(|submission| !submission.cancelled);
            open.map(|submission| (submission.operator, submission.position)).collect()
        };
        for (id, line) in state.lines() {
            by_job.extend(line.versions().iter().map(|version| (version.job, (id, line))));
            let is_open = |submission| open.contains(&(line.operator(), submission));
            if is_open(line.newest()) {
                let healthy =
                    line.versions().iter().filter(|of| of.outcome == VersionOutcome::Healthy);
                gone.extend(healthy.filter(|of| !is_open(of.submission)).map(|of| of.job));
            } else {
                withdrawn.insert(id);
            }
        }
        gone.sort_unstable();
        gone.truncate(MAX_WITHDRAWN);
        Self { state, by_job, withdrawn, gone }
    }

    pub(crate) fn line_of(&self, job: &Blake3Digest) -> Option<(JobLine, &'a Line)> {
        self.by_job.get(job).copied()
    }

    /// Rule 2: whether all versions of its line are withdrawn.
    pub(crate) fn is_withdrawn(&self, job: &Blake3Digest) -> bool {
        self.by_job.get(job).is_some_and(|(line, _)| self.withdrawn.contains(line))
    }

    /// Whether a job is a version that another one has taken the place of: what is done of it needs not be
    /// remembered.
    pub(crate) fn is_over(&self, job: &Blake3Digest) -> bool {
        self.by_job.get(job).is_some_and(|(_, line)| !line.is_current(job))
    }

    /// Rule 6: what cannot come back any more. It follows from state and chain alone.
    pub(crate) fn gone(&self) -> Vec<Blake3Digest> {
        self.gone.clone()
    }

    /// Rule 7. Of an earlier submission that is open and whose body is not known, `unknown` is told: it could be of
    /// the line, and would come back.
    pub(crate) fn forgotten(
        &self,
        submissions: &[Submission],
        jobs: &dyn Fn(&Blake3Digest) -> Option<JobDemand>,
        mut unknown: impl FnMut(JobLine, Blake3Digest),
    ) -> Vec<JobLine> {
        let mut forgotten = Vec::new();
        for id in &self.withdrawn {
            let Some(line) = self.state.line(id) else { continue };
            if forgotten.len() == MAX_FORGOTTEN_LINES
                || line.versions().iter().any(|version| self.runs(&version.job))
            {
                continue;
            }
            let earlier = submissions.iter().filter(|submission| {
                !submission.cancelled
                    && submission.operator == line.operator()
                    && submission.position < line.newest()
            });
            let mut is_over = true;
            for submission in earlier {
                match (self.by_job.get(&submission.job), jobs(&submission.job)) {
                    (Some((other, _)), _) => is_over &= other != id,
                    (None, Some(demand)) => is_over &= demand.line != *id,
                    (None, None) => {
                        is_over = false;
                        unknown(*id, submission.job);
                    }
                }
            }
            if is_over {
                forgotten.push(*id);
            }
        }
        forgotten
    }

    /// Rules 3, 4 and 5: what leaves, by (job, replica). It follows from state and chain alone.
    pub(crate) fn leaving(&self) -> BTreeSet<LeavingReplica> {
        let mut leaving = BTreeSet::new();
        for (id, line) in self.state.lines().filter(|(id, _)| !self.withdrawn.contains(id)) {
            if let Some(target) = line.target() {
                debug_assert!(self.by_job.contains_key(&target.job), "{id}");
                self.leaving_of(line, target, &mut leaving);
            }
        }
        leaving
    }

    fn leaving_of(&self, line: &Line, target: &Version, leaving: &mut BTreeSet<LeavingReplica>) {
        if target.terms.is_system() {
            return self.system_leaving_of(line, target, leaving);
        }
        let of = LineReplicas::new(self.state, line, target);
        let mut leave = |job, replica| _ = leaving.insert(LeavingReplica { job, replica });
        for (job, replica) in of.surplus() {
            leave(job, replica);
        }
        if line.phase() == RolloutPhase::Halted {
            return;
        }
        let all = (0..target.terms.replicas).map(ReplicaIndex);
        let is_complete = all.clone().all(|replica| of.is_proven(replica));
        let at_once = !target.terms.rolls || line.phase() == RolloutPhase::Settled;
        for (&replica, jobs) in &of.others {
            let taken = of.is_proven(replica) || is_complete && replica.0 >= target.terms.replicas;
            // Of versions that were given up half way, what was never healthy goes at once.
            let kept = jobs.iter().rev().find(|job| !self.state.is_unproven(**job, replica));
            for job in jobs {
                let is_system = line.version(job).is_some_and(|of| of.terms.is_system());
                if taken || at_once || is_system || Some(job) != kept {
                    leave(*job, replica);
                }
            }
        }
        if target.terms.stops_first && !at_once {
            let missing = all.clone().filter(|replica| of.is_missing(*replica)).count();
            let budget = of.budget().saturating_sub(missing);
            let next = all.filter(|replica| !of.current.contains_key(replica));
            let next = next.filter_map(|replica| Some((replica, of.others.get(&replica)?)));
            let next: Vec<_> = next.filter(|(replica, jobs)| of.serves(jobs, *replica)).collect();
            for (replica, jobs) in next.into_iter().take(budget) {
                jobs.iter().for_each(|job| leave(*job, replica));
            }
        }
    }

    /// Rules 3 to 5: which replicas of versions may be listed as pending, by job. `wants` says whether one that
    /// has a place, of a job whose body is known, wants another: `Some(true)` if its worker is lost; `body`, whether
    /// that is known.
    pub(crate) fn may_be_listed(
        &self,
        wants: impl Fn(Blake3Digest, ReplicaIndex) -> Option<bool>,
        body: impl Fn(&Blake3Digest) -> bool,
        leaving: &BTreeSet<LeavingReplica>,
    ) -> BTreeMap<Blake3Digest, BTreeSet<ReplicaIndex>> {
        let mut listed: BTreeMap<Blake3Digest, BTreeSet<ReplicaIndex>> = BTreeMap::new();
        for (job, (id, _)) in &self.by_job {
            if !self.withdrawn.contains(id) {
                listed.insert(*job, BTreeSet::new());
            }
        }
        for (_, line) in self.state.lines().filter(|(id, _)| !self.withdrawn.contains(id)) {
            let Some(target) = line.target().filter(|target| !target.terms.is_system()) else {
                continue;
            };
            let of = LineReplicas::new(self.state, line, target);
            if !of.current.values().all(&body) {
                continue;
            }
            let stays = |job, replica| !leaving.contains(&LeavingReplica { job, replica });
            let moves = |job, replica| wants(job, replica).filter(|_| stays(job, replica));
            let mut list = |job, replica| _ = listed.entry(job).or_default().insert(replica);
            let halted = line.phase() == RolloutPhase::Halted;
            // What is good where it was, and has lost its worker there.
            for (&replica, jobs) in &of.others {
                let waits = of.current.contains_key(&replica) && !halted;
                for &job in jobs.iter().filter(|_| !waits) {
                    let good = !self.state.is_unproven(job, replica);
                    if good && moves(job, replica).is_some() {
                        list(job, replica);
                    }
                }
            }
            let rolls = target.terms.rolls && line.phase() != RolloutPhase::Settled;
            let mut rest = Vec::new();
            for replica in (0..target.terms.replicas).map(ReplicaIndex) {
                match of.current.get(&replica) {
                    Some(&job) => {
                        let at_once = !rolls || self.state.is_unproven(job, replica);
                        match moves(job, replica) {
                            Some(_) if at_once && halted => {}
                            Some(_) if at_once => list(job, replica),
                            Some(is_lost) => rest.push((!is_lost, false, replica, job)),
                            None => {}
                        }
                    }
                    None if halted => {}
                    None => {
                        let others = of.others.get(&replica);
                        let clash = target.terms.stops_first && others.is_some();
                        if !clash && !self.is_finished(line, replica) {
                            rest.push((true, others.is_some(), replica, target.job));
                        }
                    }
                }
            }
            rest.sort_unstable();
            let budget = if rolls { of.budget() } else { usize::MAX };
            for (.., replica, job) in rest.into_iter().take(budget) {
                list(job, replica);
            }
        }
        listed
    }

    /// Whether a replica of a version that is as good as the wanted one has ended for good.
    fn is_finished(&self, line: &Line, replica: ReplicaIndex) -> bool {
        let current = line.versions().iter().filter(|version| line.is_current(&version.job));
        let mut jobs = current.map(|version| version.job);
        jobs.any(|job| self.state.is_done(job, replica))
    }

    /// Rule 6. `says` is what the telemetry of the worker says that has the replica.
    pub(crate) fn health(
        &self,
        leaves: impl Fn(Blake3Digest, ReplicaIndex) -> bool,
        says: impl Fn(Blake3Digest, ReplicaIndex) -> Option<bool>,
    ) -> Vec<ReplicaHealth> {
        let mut health = Vec::new();
        for (job, replica, _) in self.state.replicas() {
            if health.len() >= MAX_HEALTH {
                break;
            }
            let rolling = self
                .line_of(&job)
                .map(|(_, line)| line)
                .filter(|line| line.is_current(&job) && line.phase() == RolloutPhase::Rolling);
            let Some(line) = rolling.filter(|_| self.state.is_unproven(job, replica)) else {
                continue;
            };
            // What was wholly healthy once does not fail: there would be nothing to come back to.
            let may_fail = line
                .version(&job)
                .is_some_and(|version| version.outcome == VersionOutcome::Rolling);
            let said = says(job, replica).filter(|healthy| *healthy || may_fail);
            if let Some(healthy) = said.filter(|_| !leaves(job, replica)) {
                health.push(ReplicaHealth { job, replica, healthy });
            }
        }
        health
    }

    /// Rule 1: the new versions among these jobs, which are wanted and whose bodies are known, and those that
    /// get no place. `judged` is what a manifest lists.
    pub(crate) fn register(
        &self,
        known: &BTreeMap<Blake3Digest, Known<'_>>,
        judged: Option<Judged<'_>>,
    ) -> Registered {
        let mut registered = Registered::default();
        let mut of_line: BTreeMap<JobLine, Vec<&Known<'_>>> = BTreeMap::new();
        for known in known.values() {
            if self.by_job.contains_key(&known.submission.job) {
                continue;
            }
            of_line.entry(known.demand.line).or_default().push(known);
        }
        let mut lines: BTreeMap<Address, usize> = BTreeMap::new();
        let mut all_lines = 0;
        for (_, line) in self.state.lines() {
            *lines.entry(line.operator()).or_default() += 1;
            all_lines += 1;
        }
        let runs = |known: &&Known<'_>| self.runs(&known.submission.job);
        for (id, mut jobs) in of_line {
            jobs.sort_unstable_by_key(|known| known.submission.position);
            let line = self.state.line(&id);
            let last = line.map_or(0, Line::newest);
            let is_newer = |known: &&Known<'_>| line.is_none() || known.submission.position > last;
            let is_listed = |known: &&Known<'_>| {
                judged.is_none_or(|judged| judged.versions.contains(&known.submission.job))
            };
            let newest = jobs.iter().rfind(|known| is_newer(known) && is_listed(known));
            let newest = newest.map(|known| known.submission.job);
            let mut new: Vec<_> = jobs
                .iter()
                .filter(|known| is_listed(known))
                .filter(|known| runs(known) || Some(known.submission.job) == newest)
                .collect();
            // Two make a line.
            if line.is_none() && new.len() == 1 {
                let first = jobs.iter().rev().filter(|known| is_listed(known));
                new.extend(first.filter(|known| Some(known.submission.job) != newest).take(1));
                new.sort_unstable_by_key(|known| known.submission.position);
            }
            if line.is_none() && new.len() < 2 {
                registered.alone(&jobs, &runs, judged);
                continue;
            }
            let unplaced = jobs.iter().filter(|known| !runs(known));
            registered.wait.extend(unplaced.map(|known| known.submission.job));
            if new.is_empty() {
                continue;
            }
            let of_operator = lines
                .entry(jobs.first().map_or(Address([0; 20]), |of| of.demand.operator))
                .or_default();
            let refused = if line.is_none()
                && (all_lines >= MAX_LINES || *of_operator >= MAX_LINES_OF_OPERATOR)
            {
                Some(NotConsidered::TooManyUpdates)
            } else if new.len() > line.map_or(MAX_VERSIONS, |line| line.room(self.state)) {
                Some(NotConsidered::TooManyVersions)
            } else {
                None
            };
            if let Some(refused) = refused {
                let unplaced = jobs.iter().filter(|known| !runs(known));
                registered.refused.extend(unplaced.map(|of| (of.submission.job, refused)));
                continue;
            }
            if registered.versions.len() + new.len() > MAX_NEW_VERSIONS {
                continue;
            }
            if line.is_none() {
                (*of_operator, all_lines) = (*of_operator + 1, all_lines + 1);
            }
            registered.versions.extend(new.into_iter().map(|known| {
                let JobDemand { operator, line, template, terms, .. } = known.demand;
                let Submission { position: submission, job, .. } = *known.submission;
                NewVersion { submission, job, operator, line, template, terms }
            }));
        }
        registered.versions.sort_unstable_by_key(|version| version.submission);
        registered
    }

    fn runs(&self, job: &Blake3Digest) -> bool {
        self.state.replicas_of(*job).next().is_some()
    }
}

/// What [`Rollouts::register`] finds.
#[derive(Default)]
pub(crate) struct Registered {
    pub(crate) versions: Vec<NewVersion>,
    /// Jobs that get no place in this slot.
    pub(crate) wait: BTreeSet<Blake3Digest>,
    pub(crate) refused: BTreeMap<Blake3Digest, NotConsidered>,
}

impl Registered {
    /// Jobs of a line of which nothing is listed as new: of several that are known, one that has no place waits,
    /// since whoever lists it knows the other one, if that runs, and would have listed both.
    fn alone(
        &mut self,
        jobs: &[&Known<'_>],
        runs: &impl Fn(&&Known<'_>) -> bool,
        judged: Option<Judged<'_>>,
    ) {
        let Some(judged) = judged else { return };
        let unplaced =
            || jobs.iter().filter(|known| !runs(known)).map(|known| known.submission.job);
        let tried = unplaced().filter(|job| judged.pending.contains(job)).count();
        if tried > 1 || unplaced().count() < jobs.len() {
            self.wait.extend(unplaced());
        }
    }
}

/// Whether a manifest lists more replicas of a version that is taking the place of others than its operator
/// allows. It follows from the state and the manifest alone.
pub(crate) fn too_many_at_once(state: &ClusterState, manifest: &Manifest) -> Option<TooManyAtOnce> {
    state.lines().filter(|(_, line)| line.phase() == RolloutPhase::Rolling).find_map(|(_, line)| {
        let target = line.target().filter(|target| target.terms.rolls)?;
        let listed = manifest.pending.iter().filter(|pending| line.is_current(&pending.job));
        let new = listed.filter(|of| !state.is_unproven(of.job, of.replica)).count();
        let (found, most) = (
            LineReplicas::new(state, line, target).unproven + new,
            usize::from(target.terms.max_parallel),
        );
        (new > 0 && found > most).then_some(TooManyAtOnce { job: target.job, found, most })
    })
}
