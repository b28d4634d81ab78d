//! Versions of jobs, and how far they have taken the place of those before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use veil_protocol_spec_job::version::VersionTerms;

use super::{ClusterState, Placement};
use crate::{
    codec::encode,
    ids::{Address, Blake3Digest, JobLine, KeccakDigest, PeerIdHash, ReplicaIndex},
    scheduling::{
        abi::keccak,
        assignment::{Assignments, Outcome},
        manifest::{LeavingReplica, MAX_RUNNING, Manifest},
        rollout::NewVersion,
    },
};

/// Most jobs whose versions a cluster remembers.
pub const MAX_LINES: usize = 1024;
/// Most of them that one operator has, so that nobody uses up what others need too.
pub const MAX_LINES_OF_OPERATOR: usize = MAX_LINES / 4;
/// Most versions of a job that are remembered; of more, the oldest that run nowhere are forgotten.
pub const MAX_VERSIONS: usize = 8;

type Replica = (Blake3Digest, ReplicaIndex);
type Places = BTreeMap<Replica, Placement>;

/// Why what a manifest says of versions does not continue the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// A line is to be forgotten that is not remembered.
    #[error("no versions of {0} are remembered that could be forgotten")]
    NoSuchLine(JobLine),
    /// A version is listed as new and is not.
    #[error("job {0} is a version already")]
    KnownVersion(Blake3Digest),
    /// More versions of one job would have to be remembered than can be.
    #[error("job {0} would be one version too many: at most {MAX_VERSIONS} are remembered")]
    TooManyVersions(Blake3Digest),
    /// More jobs would have versions than a cluster remembers.
    #[error("{0} jobs would have versions: at most {MAX_LINES} are remembered")]
    TooManyLines(usize),
    /// A version is listed as withdrawn that could not come back.
    #[error("job {0} is no version that could come back")]
    NoFallback(Blake3Digest),
    /// A replica is listed as healthy or failed that was not placed in an update.
    #[error("replica {1} of job {0} was not placed in an update, or is known to be healthy")]
    NotRolling(Blake3Digest, ReplicaIndex),
}

/// What has become of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionOutcome {
    /// It is taking the place of the one before.
    Rolling,
    /// It was wholly healthy, or was there before anybody asked.
    Healthy,
    /// A replica of it did not come to be healthy.
    Failed,
    /// A later one came before it was wholly healthy.
    Superseded,
}

/// One version of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// From 1, in the order in which versions became known, which is that of the chain unless a body came late.
    pub number: u32,
    /// Position in the chain's order of submissions.
    pub submission: u64,
    /// [`JobSpec::digest`](crate::scheduling::JobSpec::digest).
    pub job: Blake3Digest,
    /// [`JobSpec::template`](crate::scheduling::JobSpec::template).
    pub template: Blake3Digest,
    /// [`JobSpec::terms`](crate::scheduling::JobSpec::terms).
    pub terms: VersionTerms,
    /// What has become of it.
    pub outcome: VersionOutcome,
}

/// How far the wanted version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It is all that runs.
    Settled,
    /// It is taking the place of others.
    Rolling,
    /// It has failed and does not revert: nothing is done before its operator submits another one.
    Halted,
}

/// All versions of a job of which something must be known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    operator: Address,
    /// By submission.
    versions: Vec<Version>,
    /// The submission of the wanted one.
    target: u64,
    /// How many there were.
    count: u32,
    phase: RolloutPhase,
}

impl Line {
    /// Whose job it is.
    #[must_use]
    pub const fn operator(&self) -> Address {
        self.operator
    }

    /// Its versions that are remembered, by submission.
    #[must_use]
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version that is to run.
    #[must_use]
    pub fn target(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.submission == self.target)
    }

    /// The position of its last submission: a job that was submitted before, and is none of the
    /// [versions](Self::versions), is not wanted.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.versions.last().map_or(0, |version| version.submission)
    }

    /// How many versions there were.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How far the wanted version is.
    #[must_use]
    pub const fn phase(&self) -> RolloutPhase {
        self.phase
    }

    /// The version that is this job.
    #[must_use]
    pub fn version(&self, job: &Blake3Digest) -> Option<&Version> {
        self.versions.iter().find(|version| version.job == *job)
    }

    /// Whether replicas of this job are as good as those of the wanted version.
    #[must_use]
    pub fn is_current(&self, job: &Blake3Digest) -> bool {
        let Some((target, version)) = self.target().zip(self.version(job)) else { return false };
        let same = version.template == target.template;
        same && (version.outcome != VersionOutcome::Failed || version.job == target.job)
    }

    /// How many more versions can be remembered.
    #[must_use]
    pub fn room(&self, state: &ClusterState) -> usize {
        let kept = |version: &&Version| self.is_kept(version, &|job| state.has_place(job));
        MAX_VERSIONS.saturating_sub(self.versions.iter().filter(kept).count())
    }

    /// The version that comes back when the wanted one fails.
    #[must_use]
    pub fn fallback(&self) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.outcome == VersionOutcome::Healthy)
    }

    fn is_kept(&self, version: &Version, has_place: &dyn Fn(&Blake3Digest) -> bool) -> bool {
        version.submission == self.target
            || version.submission == self.newest()
            || self.fallback().is_some_and(|of| of.submission == version.submission)
            || has_place(&version.job)
    }

    pub(super) fn new(first: &NewVersion) -> Self {
        Self {
            operator: first.operator,
            versions: Vec::new(),
            target: first.submission,
            count: 0,
            phase: RolloutPhase::Settled,
        }
    }

    pub(super) fn add(&mut self, new: &NewVersion, has_place: &dyn Fn(&Blake3Digest) -> bool) {
        let &NewVersion { submission, job, template, terms, .. } = new;
        self.count = self.count.saturating_add(1);
        let (number, before) = (self.count, self.target().copied());
        let is_newest = self.versions.is_empty() || submission > self.newest();
        let runs = self.versions.iter().any(|version| has_place(&version.job));
        let outcome = if !is_newest {
            // Its body came late.
            if has_place(&job) { VersionOutcome::Healthy } else { VersionOutcome::Superseded }
        } else if !runs {
            // There is nothing that it could take the place of.
            self.phase = RolloutPhase::Settled;
            self.supersede(|_| true);
            VersionOutcome::Healthy
        } else if let Some(before) = before.filter(|before| {
            let good = before.outcome != VersionOutcome::Failed;
            before.template == template && good && self.phase != RolloutPhase::Halted
        }) {
            before.outcome
        } else {
            self.phase = RolloutPhase::Rolling;
            self.supersede(|of| of == VersionOutcome::Rolling);
            if has_place(&job) { VersionOutcome::Healthy } else { VersionOutcome::Rolling }
        };
        if is_newest {
            self.target = submission;
        }
        let version = Version { number, submission, job, template, terms, outcome };
        let at = self.versions.partition_point(|of| of.submission < submission);
        self.versions.insert(at, version);
        while self.versions.len() > MAX_VERSIONS
            && let Some(over) = self.versions.iter().position(|of| !self.is_kept(of, has_place))
        {
            self.versions.remove(over);
        }
    }

    fn supersede(&mut self, which: impl Fn(VersionOutcome) -> bool) {
        for version in &mut self.versions {
            if which(version.outcome) && version.outcome != VersionOutcome::Failed {
                version.outcome = VersionOutcome::Superseded;
            }
        }
    }

    /// A replica of this job has not come to be healthy.
    fn fail(&mut self, job: &Blake3Digest) {
        let Some(failed) = self.version(job).copied() else { return };
        for version in &mut self.versions {
            if version.template == failed.template && version.outcome == VersionOutcome::Rolling {
                version.outcome = VersionOutcome::Failed;
            }
        }
        let Some(target) = self.target().filter(|of| of.outcome == VersionOutcome::Failed) else {
            return;
        };
        let fallback = self.fallback().filter(|_| target.terms.auto_revert);
        (self.target, self.phase) = fallback.map_or((self.target, RolloutPhase::Halted), |of| {
            (of.submission, RolloutPhase::Rolling)
        });
    }

    /// This version can come back no more. If it is the wanted one, another one that was healthy is.
    fn withdraw(&mut self, job: &Blake3Digest) -> Result<(), RolloutError> {
        let newest = self.newest();
        let could = |version: &&mut Version| {
            version.outcome == VersionOutcome::Healthy && version.submission != newest
        };
        let version = self.versions.iter_mut().find(|version| version.job == *job).filter(could);
        let version = version.ok_or(RolloutError::NoFallback(*job))?;
        version.outcome = VersionOutcome::Superseded;
        if version.submission == self.target {
            let next = self.fallback().map(|next| (next.submission, RolloutPhase::Rolling));
            (self.target, self.phase) = next.unwrap_or((newest, RolloutPhase::Halted));
        }
        Ok(())
    }

    /// Whether the wanted version has taken the place of the others. A system job has when no other has a place, all
    /// of its own are proven, and none waits for which another one has left.
    fn is_complete(&self, rollouts: &Rollouts, replicas: &Places) -> bool {
        let Some(target) = self.target() else { return false };
        let is_system = target.terms.is_system();
        let mut proven = BTreeSet::new();
        for version in &self.versions {
            let is_current = self.is_current(&version.job);
            for replica in of_job(replicas, version.job) {
                if !is_current || !is_system && replica.0 >= target.terms.replicas {
                    return false;
                }
                if !rollouts.unproven.contains(&(version.job, replica)) {
                    proven.insert(replica);
                } else if is_system && target.terms.rolls {
                    return false;
                }
            }
        }
        let waits = || rollouts.homes.keys().any(|(job, _)| *job == target.job);
        !target.terms.rolls
            || proven.len() >= usize::from(target.terms.replicas) && !(is_system && waits())
    }
}

fn of_job(replicas: &Places, job: Blake3Digest) -> impl Iterator<Item = ReplicaIndex> + '_ {
    let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
    replicas.range(all).map(|(&(_, replica), _)| replica)
}

/// See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollouts {
    pub(super) lines: BTreeMap<JobLine, Line>,
    /// Replicas that were placed in an update, and of which no certificate says that they are healthy.
    pub(super) unproven: BTreeSet<Replica>,
    /// Of replicas that have no place yet and whose predecessor had to leave first: where that was.
    pub(super) homes: BTreeMap<Replica, PeerIdHash>,
}

impl Rollouts {
    /// Most bytes of its encoding.
    pub(super) const MAX_BYTES: usize = 9
        + MAX_LINES
            * (32
                + 20
                + 1
                + MAX_VERSIONS * (5 + 10 + 64 + VersionTerms::MAX_BYTES + 1)
                + 10
                + 5
                + 1)
        + MAX_RUNNING * 35
        + MAX_RUNNING * (35 + 32);

    /// After a slot; `before` is what had a place before it, `replicas` what has one after it.
    pub(super) fn after(
        &self,
        manifest: &Manifest,
        assignments: &Assignments,
        before: &Places,
        replicas: &Places,
    ) -> Result<Self, RolloutError> {
        let changes = &manifest.rollouts;
        if self.lines.is_empty() && changes.is_empty() {
            return Ok(self.clone());
        }
        let mut after = self.clone();
        for line in &changes.forgotten {
            after.lines.remove(line).ok_or(RolloutError::NoSuchLine(*line))?;
        }
        for job in &changes.withdrawn {
            let line = after.lines.values_mut().find(|line| line.version(job).is_some());
            line.ok_or(RolloutError::NoFallback(*job))?.withdraw(job)?;
        }
        let had_place = |job: &Blake3Digest| of_job(before, *job).next().is_some();
        for new in &changes.versions {
            let line = after.lines.entry(new.line).or_insert_with(|| Line::new(new));
            if line.version(&new.job).is_some() {
                return Err(RolloutError::KnownVersion(new.job));
            }
            line.add(new, &had_place);
            if line.versions.len() > MAX_VERSIONS {
                return Err(RolloutError::TooManyVersions(new.job));
            }
        }
        if after.lines.len() > MAX_LINES {
            return Err(RolloutError::TooManyLines(after.lines.len()));
        }
        let mut line_of = BTreeMap::new();
        for (line, of) in &after.lines {
            line_of.extend(of.versions.iter().map(|version| (version.job, *line)));
        }
        for health in &changes.health {
            let (job, replica) = health.key();
            if !after.unproven.contains(&(job, replica)) {
                return Err(RolloutError::NotRolling(job, replica));
            }
            if health.healthy {
                after.unproven.remove(&(job, replica));
            } else if let Some(line) = line_of.get(&job).and_then(|of| after.lines.get_mut(of)) {
                line.fail(&job);
            }
        }
        for assignment in assignments.as_slice() {
            let Outcome::Node(_) = assignment.outcome else { continue };
            let replica = (assignment.job, assignment.replica);
            let rolls = line_of.get(&assignment.job).and_then(|line| after.lines.get(line));
            let rolls = rolls.is_some_and(|line| {
                let rolls = line.target().is_some_and(|target| target.terms.rolls);
                rolls && line.phase == RolloutPhase::Rolling && line.is_current(&assignment.job)
            });
            if rolls {
                after.unproven.insert(replica);
            } else {
                after.unproven.remove(&replica);
            }
        }
        after.homes.retain(|of, _| {
            let (job, replica) = *of;
            manifest.leaving.binary_search(&LeavingReplica { job, replica }).is_err()
        });
        after.unproven.retain(|of| replicas.contains_key(of) && line_of.contains_key(&of.0));
        for &LeavingReplica { job, replica } in &manifest.leaving {
            let line = line_of.get(&job).and_then(|line| after.lines.get(line));
            let target = line.filter(|line| !line.is_current(&job)).and_then(Line::target);
            let Some(target) = target.filter(|target| target.terms.stops_first) else { continue };
            if let Some(place) =
                before.get(&(job, replica)).filter(|_| after.homes.len() < MAX_RUNNING)
            {
                after.homes.insert((target.job, replica), place.worker);
            }
        }
        let targets: BTreeSet<_> =
            after.lines.values().filter_map(Line::target).map(|target| target.job).collect();
        // Of a system job each worker waits for the version that is wanted now.
        let moved = after.homes.keys().filter_map(|&(job, replica)| {
            let target = after.lines.get(line_of.get(&job)?)?.target()?;
            let moves = target.terms.is_system() && target.job != job;
            moves.then_some(((job, replica), (target.job, replica)))
        });
        for (from, to) in moved.collect::<Vec<_>>() {
            if let Some(worker) = after.homes.remove(&from) {
                after.homes.entry(to).or_insert(worker);
            }
        }
        after.homes.retain(|of, _| !replicas.contains_key(of) && targets.contains(&of.0));
        let complete: Vec<_> = after
            .lines
            .iter()
            .filter(|(_, line)| line.phase == RolloutPhase::Rolling)
            .filter(|(_, line)| line.is_complete(&after, replicas))
            .map(|(line, _)| *line)
            .collect();
        for line in complete {
            let Some(line) = after.lines.get_mut(&line) else { continue };
            let target = line.target;
            line.phase = RolloutPhase::Settled;
            for version in line.versions.iter_mut().filter(|of| of.submission == target) {
                version.outcome = VersionOutcome::Healthy;
            }
            line.supersede(|of| of == VersionOutcome::Rolling);
        }
        Ok(after)
    }

    /// Keccak-256 of the encoding; `None` if no job has had a second version.
    pub(super) fn digest(&self) -> Option<KeccakDigest> {
        if *self == Self::default() {
            return None;
        }
        Some(keccak(&encode(self)))
    }
}

impl ClusterState {
    /// Every job of which versions are remembered, in order.
    pub fn lines(&self) -> impl Iterator<Item = (JobLine, &Line)> + '_ {
        self.rollouts.lines.iter().map(|(id, line)| (*id, line))
    }

    /// The versions of a job, if it has had a second one.
    #[must_use]
    pub fn line(&self, line: &JobLine) -> Option<&Line> {
        self.rollouts.lines.get(line)
    }

    /// The line of every job that is a version of one.
    #[must_use]
    pub fn lines_by_job(&self) -> BTreeMap<Blake3Digest, &Line> {
        let lines = self.rollouts.lines.values();
        lines.flat_map(|line| line.versions.iter().map(move |of| (of.job, line))).collect()
    }

    /// The line that this job is a version of, if it has others. It looks through all of them: whoever asks for
    /// many jobs takes [`Self::lines_by_job`].
    #[must_use]
    pub fn line_of(&self, job: &Blake3Digest) -> Option<&Line> {
        self.rollouts.lines.values().find(|line| line.version(job).is_some())
    }

    /// Whether a replica was placed in an update, and no certificate says that it is healthy.
    #[must_use]
    pub fn is_unproven(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        self.rollouts.unproven.contains(&(job, replica))
    }

    /// Replicas that were placed in an update at this worker, and of which no certificate says that they are
    /// healthy, and the slots that placed them: the worker says how they fare.
    pub fn unproven_at(
        &self,
        worker: PeerIdHash,
    ) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex, Placement)> + '_ {
        self.rollouts.unproven.iter().filter_map(move |&(job, replica)| {
            let placement = self.placement(job, replica)?;
            (placement.worker == worker).then_some((job, replica, placement))
        })
    }

    fn has_place(&self, job: &Blake3Digest) -> bool {
        self.replicas_of(*job).next().is_some()
    }
}
