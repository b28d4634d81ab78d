//! How a version of a system job takes the place of the one before: worker by worker.

use std::collections::BTreeSet;

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{LeavingReplica, Line, RolloutPhase, Version},
};

use super::{Rollouts, replicas::LineReplicas};
use crate::fit::Workers;

impl Rollouts<'_> {
    /// Every line of which a system job is wanted, and that job.
    pub(crate) fn system_lines(&self) -> impl Iterator<Item = (&Line, &Version)> {
        let lines = self.state.lines().filter(|(id, _)| !self.withdrawn.contains(id));
        let lines = lines.filter_map(|(_, line)| Some((line, line.target()?)));
        lines.filter(|(_, target)| target.terms.is_system())
    }

    fn worker(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<PeerIdHash> {
        self.state.placement(job, replica).map(|placement| placement.worker)
    }

    /// What leaves of a system job's line by the state alone: what another version has taken the place of at its
    /// worker, what a worker has twice, and what is of another type.
    pub(super) fn system_leaving_of(
        &self,
        line: &Line,
        target: &Version,
        leaving: &mut BTreeSet<LeavingReplica>,
    ) {
        let of = LineReplicas::new(self.state, line, target);
        for (job, replica) in of.surplus() {
            leaving.insert(LeavingReplica { job, replica });
        }
        if line.phase() == RolloutPhase::Halted {
            return;
        }
        let proven = of.current.keys().filter(|replica| of.is_proven(**replica));
        let proven = proven.filter_map(|replica| self.worker(*of.current.get(replica)?, *replica));
        let proven: BTreeSet<_> = proven.collect();
        let settled = line.phase() == RolloutPhase::Settled;
        for (&replica, jobs) in &of.others {
            let kept = jobs.iter().rev().find(|job| !self.state.is_unproven(**job, replica));
            for &job in jobs {
                let taken = self.worker(job, replica).is_some_and(|at| proven.contains(&at));
                let is_system = line.version(&job).is_some_and(|of| of.terms.is_system());
                if taken || settled || !is_system || Some(&job) != kept {
                    leaving.insert(LeavingReplica { job, replica });
                }
            }
        }
    }

    /// What leaves before the wanted version comes, since both cannot run at once; `leaving` leaves anyway.
    pub(crate) fn system_stops(
        &self,
        line: &Line,
        target: &Version,
        workers: &Workers,
        telemetry: &BTreeSet<PeerIdHash>,
        leaving: impl Fn(Blake3Digest, ReplicaIndex) -> bool,
    ) -> Vec<LeavingReplica> {
        if !target.terms.stops_first || line.phase() != RolloutPhase::Rolling {
            return Vec::new();
        }
        let of = LineReplicas::new(self.state, line, target);
        // Whoever is silent holds nobody up.
        let homes = self.state.homes_of(target.job);
        let missing = homes
            .filter(|(replica, worker)| of.is_missing(*replica) && telemetry.contains(worker))
            .count();
        let budget = of.budget().saturating_sub(missing);
        let next = of.others.iter().filter(|(replica, jobs)| {
            let is_there = workers.get(replica).is_some_and(|worker| {
                jobs.iter().any(|job| self.worker(*job, **replica) == Some(*worker))
            });
            let stays = jobs.iter().any(|job| !leaving(*job, **replica));
            is_there && stays && !of.current.contains_key(replica) && of.serves(jobs, **replica)
        });
        let next = next.take(budget).flat_map(|(&replica, jobs)| {
            jobs.iter().map(move |&job| LeavingReplica { job, replica })
        });
        next.collect()
    }

    /// Which replicas of a system job's line may be pending, by job: those of workers that have none of the wanted
    /// version, as many as may be unproven at once. `serves` says whether one that has a place stays there.
    pub(crate) fn system_listed(
        &self,
        line: &Line,
        target: &Version,
        workers: &Workers,
        serves: impl Fn(Blake3Digest, ReplicaIndex) -> bool,
    ) -> BTreeSet<(Blake3Digest, ReplicaIndex)> {
        if line.phase() == RolloutPhase::Halted {
            return BTreeSet::new();
        }
        let of = LineReplicas::new(self.state, line, target);
        let mut listed = BTreeSet::new();
        let mut rest = Vec::new();
        for &replica in workers.keys() {
            match of.current.get(&replica) {
                Some(&job) if serves(job, replica) => {}
                // It counts already.
                Some(&job) if self.state.is_unproven(job, replica) => {
                    listed.insert((job, replica));
                }
                Some(&job) => rest.push((false, replica, job)),
                None => {
                    let others = of.others.get(&replica);
                    if !(target.terms.stops_first && others.is_some()) {
                        rest.push((others.is_some(), replica, target.job));
                    }
                }
            }
        }
        rest.sort_unstable();
        let rolls = line.phase() == RolloutPhase::Rolling;
        let budget = if rolls { of.budget() } else { usize::MAX };
        listed.extend(rest.into_iter().take(budget).map(|(_, replica, job)| (job, replica)));
        listed
    }
}
