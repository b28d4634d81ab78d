//! Batch jobs, and runs of periodic ones, on the workers of the world: when each replica ends, and what workers say of it.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{ClusterState, EndedReplica, MAX_ENDED, ReplicaExit},
};

use super::jobs::Jobs;

/// By worker, what has ended there.
pub(super) type Ended = BTreeMap<PeerIdHash, Arc<[EndedReplica]>>;

/// What runs of batch jobs, and until when.
#[derive(Default)]
pub(super) struct Runs {
    ends: BTreeMap<(Blake3Digest, ReplicaIndex, Slot), Millis>,
}

impl Runs {
    /// What was placed anew begins to run. How long follows from the job.
    pub(super) fn tick(&mut self, state: &ClusterState, jobs: &Jobs, now: Millis) {
        // Of a periodic job other runs follow: of those that are over nothing is asked any more.
        let is_of_state = |of: &(Blake3Digest, ReplicaIndex, Slot)| {
            let placed = state.placement(of.0, of.1);
            let done = state.done_replica(of.0, of.1).map(|done| done.placement);
            [placed, done].into_iter().flatten().any(|placement| placement.slot == of.2)
        };
        self.ends.retain(|of, _| {
            jobs.get(&of.0).is_some() && (!jobs.is_periodic(&of.0) || is_of_state(of))
        });
        for (job, replica, placement) in state.replicas() {
            if jobs.is_batch(&job) {
                // Of a periodic job each run takes another time, some of them longer than until the next.
                let slot = placement.slot.0.to_le_bytes()[0].wrapping_mul(37);
                let drawn = if jobs.is_periodic(&job) { job.0[1] ^ slot } else { job.0[1] };
                let runs = Millis::from(drawn) * 500;
                self.ends.entry((job, replica, placement.slot)).or_insert(now + runs);
            }
        }
    }

    /// Whether a replica has ended where this slot placed it.
    pub(super) fn has_ended(&self, of: (Blake3Digest, ReplicaIndex, Slot), now: Millis) -> bool {
        self.ends.get(&of).is_some_and(|ends| *ends <= now)
    }

    /// What has ended by now and is not certified.
    pub(super) fn ended(&self, state: &ClusterState, now: Millis) -> Ended {
        let mut by_worker: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (job, replica, placement) in state.replicas() {
            if self.has_ended((job, replica, placement.slot), now) {
                by_worker.entry(placement.worker).or_default().push(exited(job, replica));
            }
        }
        let listed = |mut list: Vec<_>| {
            list.truncate(MAX_ENDED);
            list.into()
        };
        by_worker.into_iter().map(|(worker, list)| (worker, listed(list))).collect()
    }
}

/// With a code that follows from the job.
fn exited(job: Blake3Digest, replica: ReplicaIndex) -> EndedReplica {
    let code = (job.0[0] % 4 < 3).then_some(i32::from(job.0[0] % 4));
    EndedReplica { job, replica, exit: ReplicaExit { code, out_of_memory: false } }
}

/// What a worker says that calls everything ended that anybody runs.
pub(super) fn everything(state: &ClusterState) -> Arc<[EndedReplica]> {
    state.replicas().take(MAX_ENDED).map(|(job, replica, _)| exited(job, replica)).collect()
}
