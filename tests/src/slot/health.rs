//! Replicas of updates on the workers of the world: when each is healthy, or fails, and what workers say of it.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{ClusterState, MAX_HEALTH_SAID, ReplicaHealth},
};

use super::jobs::Jobs;

/// By worker, how those fare that were placed there in updates.
pub(super) type Fares = BTreeMap<PeerIdHash, Arc<[ReplicaHealth]>>;

/// Since when what is not proven has its place.
#[derive(Default)]
pub(super) struct Health {
    since: BTreeMap<(Blake3Digest, ReplicaIndex, Slot), Millis>,
}

impl Health {
    /// How those fare by now that were placed in updates. How long each takes follows from its job.
    pub(super) fn tick(&mut self, state: &ClusterState, jobs: &Jobs, now: Millis) -> Fares {
        let unproven: Vec<_> = state
            .replicas()
            .filter(|(job, replica, _)| state.is_unproven(*job, *replica))
            .collect();
        let mut since = BTreeMap::new();
        let mut fares: BTreeMap<PeerIdHash, Vec<ReplicaHealth>> = BTreeMap::new();
        for (job, replica, placement) in unproven {
            let of = (job, replica, placement.slot);
            let at = self.since.get(&of).copied().unwrap_or(now);
            since.insert(of, at);
            if now >= at + Millis::from(job.0[2]) * 50 {
                let healthy = !jobs.is_broken(&job);
                let said = fares.entry(placement.worker).or_default();
                said.push(ReplicaHealth { job, replica, healthy });
            }
        }
        self.since = since;
        let listed = |mut list: Vec<_>| {
            list.truncate(MAX_HEALTH_SAID);
            list.into()
        };
        fares.into_iter().map(|(worker, list)| (worker, listed(list))).collect()
    }
}

/// What a worker says that calls everything failed, wherever it runs.
pub(super) fn all_failed(state: &ClusterState) -> Arc<[ReplicaHealth]> {
    let unproven = state.replicas().filter(|(job, replica, _)| state.is_unproven(*job, *replica));
    let said = unproven.map(|(job, replica, _)| ReplicaHealth { job, replica, healthy: false });
    said.take(MAX_HEALTH_SAID).collect()
}
