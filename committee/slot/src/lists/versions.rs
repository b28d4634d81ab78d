//! What the lists say of versions of jobs.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{LeavingReplica, ReplicaHealth, RolloutChanges, Submission},
};

use super::{Lists, NextReplicas, Wanted, system::OfSystem};
use crate::{
    demand::JobDemand,
    rollout::{Known, Rollouts},
};

/// The replicas of versions that may be pending, and the jobs that get no place yet.
pub(super) struct Listed {
    of_versions: BTreeMap<Blake3Digest, BTreeSet<ReplicaIndex>>,
    wait: BTreeSet<Blake3Digest>,
}

impl Lists<'_> {
    /// Rule 9.
    pub(super) fn versions(
        &self,
        rollouts: &Rollouts<'_>,
        wanted: &BTreeMap<Blake3Digest, Wanted<'_>>,
        of_system: &OfSystem,
        next: &mut NextReplicas,
    ) -> Listed {
        let known = wanted.iter().filter_map(|(job, Wanted { submission, demand })| {
            Some((*job, Known { submission, demand: (*demand)? }))
        });
        let known: BTreeMap<_, _> = known.collect();
        if let Some(judged) = self.inputs.judged {
            let unknown = judged
                .versions
                .iter()
                .filter(|job| wanted.contains_key(job) && !known.contains_key(job));
            next.unknown.extend(unknown);
        }
        // Which of them may be listed depends on where the others are.
        let body = |job: &Blake3Digest| !wanted.contains_key(job) || known.contains_key(job);
        for job in self.state.replicas().map(|(job, ..)| job).filter(|job| !body(job)) {
            let Some((judged, (_, line))) = self.inputs.judged.zip(rollouts.line_of(&job)) else {
                continue;
            };
            if line.versions().iter().any(|version| judged.pending.contains(&version.job)) {
                next.unknown.push(job);
            }
        }
        let mut missing = Vec::new();
        let mut forgotten =
            rollouts.forgotten(self.inputs.submissions, self.inputs.jobs, |line, job| {
                missing.push((line, job));
            });
        if let Some(judged) = self.inputs.judged {
            // Who has written it may know fewer bodies.
            forgotten.retain(|line| judged.forgotten.contains(line));
            let missing = missing.iter().filter(|(line, _)| judged.forgotten.contains(line));
            next.unknown.extend(missing.map(|(_, job)| job));
        }
        let registered = rollouts.register(&known, self.inputs.judged);
        next.not_considered.extend(registered.refused);
        let wants = |job: Blake3Digest, replica| {
            let (demand, placement) =
                (known.get(&job)?.demand, self.state.placement(job, replica)?);
            let is_lost = self.inputs.lost.contains_key(&placement.worker);
            (!self.serves((job, replica), &demand, next)).then_some(is_lost)
        };
        let leaving: BTreeSet<_> = next.leaving.iter().copied().collect();
        let mut of_versions = rollouts.may_be_listed(wants, body, &leaving);
        for (line, target) in rollouts.system_lines() {
            let (Some(workers), Some(of)) = (of_system.get(&target.job), known.get(&target.job))
            else {
                continue;
            };
            let serves = |job, replica| self.serves((job, replica), &of.demand, next);
            for (job, replica) in rollouts.system_listed(line, target, workers, serves) {
                of_versions.entry(job).or_default().insert(replica);
            }
        }
        let says = |job, replica| {
            let health = self.inputs.health.get(&self.state.placement(job, replica)?.worker)?;
            let at = health.binary_search_by_key(&(job, replica), ReplicaHealth::key).ok()?;
            Some(health.get(at)?.healthy)
        };
        let leaves = |job, replica| leaving.contains(&LeavingReplica { job, replica });
        next.rollouts = RolloutChanges {
            versions: registered.versions,
            health: rollouts.health(leaves, says),
            forgotten,
            withdrawn: rollouts.gone(),
        };
        Listed { of_versions, wait: registered.wait }
    }

    /// Which replicas of a job may be pending; `None` if it is not to be tried.
    pub(super) fn indices(
        &self,
        listed: &Listed,
        wanted: &BTreeMap<Blake3Digest, Wanted<'_>>,
        of_system: &OfSystem,
        submission: &Submission,
        demand: &JobDemand,
        next: &mut NextReplicas,
    ) -> Option<BTreeSet<ReplicaIndex>> {
        let job = submission.job;
        if let Some(indices) = listed.of_versions.get(&job) {
            return Some(indices.clone());
        }
        let placed: BTreeSet<_> = self.state.replicas_of(job).collect();
        if placed.is_empty() {
            let runs = |other: &Blake3Digest| self.state.replicas_of(*other).next().is_some();
            let mut others = wanted.iter().filter(|(other, of)| {
                of.demand.is_none() && of.submission.operator == demand.operator && runs(other)
            });
            if let Some((other, _)) = others.next() {
                if self.inputs.judged.is_some() {
                    next.unknown.push(*other);
                }
                return None;
            }
            if listed.wait.contains(&job) {
                return None;
            }
        }
        if demand.is_system() {
            let workers = of_system.get(&job);
            return Some(workers.into_iter().flatten().map(|(replica, _)| *replica).collect());
        }
        Some(placed.into_iter().chain((0..demand.replicas).map(ReplicaIndex)).collect())
    }
}
