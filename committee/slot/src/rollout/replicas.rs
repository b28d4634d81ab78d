//! What of a line has a place.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{ClusterState, Line, Version},
};

/// What of a line has a place, by index.
pub(super) struct LineReplicas<'a> {
    state: &'a ClusterState,
    target: &'a Version,
    /// As good as the wanted version: one for each index.
    pub(super) current: BTreeMap<ReplicaIndex, Blake3Digest>,
    /// Further ones, which nobody needs.
    twice: Vec<(Blake3Digest, ReplicaIndex)>,
    /// Of other versions, by submission.
    pub(super) others: BTreeMap<ReplicaIndex, Vec<Blake3Digest>>,
    /// How many of the current ones are not certified to be healthy.
    pub(super) unproven: usize,
}

impl<'a> LineReplicas<'a> {
    pub(super) fn new(state: &'a ClusterState, line: &Line, target: &'a Version) -> Self {
        let (current, twice) = (BTreeMap::new(), Vec::new());
        let others: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut of = Self { state, target, current, twice, others, unproven: 0 };
        for version in line.versions() {
            let is_current = line.is_current(&version.job);
            for replica in state.replicas_of(version.job) {
                if !is_current {
                    of.others.entry(replica).or_default().push(version.job);
                    continue;
                }
                of.unproven += usize::from(of.is_awaited(version.job, replica));
                // That which is known to be healthy stays.
                let better = |held: &Blake3Digest| {
                    state.is_unproven(*held, replica) && !state.is_unproven(version.job, replica)
                };
                match of.current.get(&replica) {
                    Some(held) if better(held) => {
                        of.twice.push((*held, replica));
                        of.current.insert(replica, version.job);
                    }
                    Some(_) => of.twice.push((version.job, replica)),
                    None => _ = of.current.insert(replica, version.job),
                }
            }
        }
        of
    }

    /// Whether a replica that has a place is not certified to be healthy. That of a system job on a lost worker is
    /// not waited for: it goes nowhere else.
    fn is_awaited(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        let is_lost = || {
            let placement = self.state.placement(job, replica);
            placement.is_some_and(|at| self.state.lost_since(&at.worker).is_some())
        };
        let is_unproven = self.state.is_unproven(job, replica);
        is_unproven && !(self.target.terms.is_system() && is_lost())
    }

    /// What nobody needs of the wanted version: of a system job, what its worker has twice.
    pub(super) fn surplus(&self) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex)> + '_ {
        let mut workers = BTreeSet::new();
        let beyond = self.current.iter().filter(move |(replica, job)| {
            if !self.target.terms.is_system() {
                return replica.0 >= self.target.terms.replicas;
            }
            let placement = self.state.placement(**job, **replica);
            placement.is_some_and(|at| !workers.insert(at.worker))
        });
        beyond.map(|(replica, job)| (*job, *replica)).chain(self.twice.iter().copied())
    }

    /// Whether the wanted version has come so far.
    pub(super) fn is_proven(&self, replica: ReplicaIndex) -> bool {
        let current = self.current.get(&replica);
        current.is_some_and(|job| !self.state.is_unproven(*job, replica))
    }

    /// Whether nothing of any version has a place.
    pub(super) fn is_missing(&self, replica: ReplicaIndex) -> bool {
        let other = self.others.get(&replica).is_some_and(|jobs| self.serves(jobs, replica));
        !self.current.contains_key(&replica) && !other
    }

    /// Whether one of these is not known to have failed.
    pub(super) fn serves(&self, jobs: &[Blake3Digest], replica: ReplicaIndex) -> bool {
        jobs.iter().any(|job| !self.state.is_unproven(*job, replica))
    }

    /// How many more may get a place.
    pub(super) fn budget(&self) -> usize {
        usize::from(self.target.terms.max_parallel).saturating_sub(self.unproven)
    }
}
