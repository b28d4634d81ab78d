//! Why workers have no replica of a system job.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, PendingReplica},
};

type Replica = (Blake3Digest, ReplicaIndex);

/// What the next slot would try.
#[derive(Debug)]
pub struct Waiting<'a> {
    state: &'a ClusterState,
    /// And for which worker.
    listed: BTreeMap<Replica, PeerIdHash>,
}

impl<'a> Waiting<'a> {
    /// From what a manifest would list that named the telemetry of these workers.
    #[must_use]
    pub fn new(
        pending: &[PendingReplica],
        workers: &BTreeSet<PeerIdHash>,
        state: &'a ClusterState,
    ) -> Self {
        let workers: Vec<_> = workers.iter().collect();
        let listed = pending.iter().filter_map(|pending| {
            let worker = workers.get(usize::from(pending.only?))?;
            Some(((pending.job, pending.replica), **worker))
        });
        Self { state, listed: listed.collect() }
    }

    /// The replicas of a system job of which something is to be said: those that have a place, wait for one or were
    /// given back; of a job that is not considered, the first at least.
    #[must_use]
    pub fn replicas(&self, job: Blake3Digest, is_refused: bool) -> Vec<ReplicaIndex> {
        let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
        let listed = self.listed.range(all).map(|((_, replica), _)| *replica);
        let returned = self.state.returned_of(job).map(|(replica, _)| replica);
        let mut replicas: BTreeSet<_> = self.state.replicas_of(job).chain(listed).collect();
        replicas.extend(returned);
        if is_refused && replicas.is_empty() {
            replicas.insert(ReplicaIndex(0));
        }
        replicas.into_iter().collect()
    }

    /// Why one has no place, or is to leave it.
    #[must_use]
    pub fn because(&self, job: Blake3Digest, replica: ReplicaIndex) -> String {
        if self.state.placement(job, replica).is_some() {
            return "it is of a system job: it stays here until the worker has stopped it, and goes nowhere else"
                .to_owned();
        }
        match (self.listed.get(&(job, replica)), self.state.last_tried(job, replica)) {
            (Some(worker), Some(slot)) => {
                format!("it is for worker {worker}, which had no room for it in slot {slot}")
            }
            (Some(worker), None) => {
                format!("it is for worker {worker}, and no slot has tried to place it yet")
            }
            (None, _) => "it is of a system job, and goes nowhere else".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::worker;

    /// The next slot would try it for worker 2, and the last one found no room there.
    #[test]
    fn what_waits_is_said_with_its_worker() {
        let (job, workers) = (Blake3Digest([1; 32]), [worker(1), worker(2)].into());
        let pending = [PendingReplica {
            submission: 1,
            job,
            replica: ReplicaIndex(4),
            only: Some(1),
            candidates: 1,
        }];
        let state = ClusterState::default();
        let waiting = Waiting::new(&pending, &workers, &state);
        assert_eq!(waiting.replicas(job, false), [ReplicaIndex(4)]);
        let because = waiting.because(job, ReplicaIndex(4));
        assert!(because.contains(&worker(2).to_string()), "{because}");
        assert!(because.contains("no slot has tried"), "{because}");
        let nothing = Waiting::new(&[], &workers, &state);
        assert_eq!(nothing.replicas(job, false), []);
        assert_eq!(nothing.replicas(job, true), [ReplicaIndex(0)], "why it is not considered");
    }
}
