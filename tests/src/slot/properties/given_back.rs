//! What workers give back, and what leaves those that are drained.

use veil_protocol_spec::scheduling::{ClusterState, GivenBack, Placement, SlotRecord};

use super::{Replica, Surroundings, WorkerBehaviour};
use crate::slot::{SlotReport, chain::ChainView};

/// Whether a certificate may take a replica from its worker by the worker's own word, or since it is drained.
pub(super) fn may_leave(
    before: &ClusterState,
    of @ (job, replica): Replica,
    placement: Placement,
    record: &SlotRecord,
    around: &Surroundings,
    chain: Option<&ChainView>,
    report: &mut SlotReport,
) -> bool {
    let at = record.manifest.given_back.binary_search_by_key(&of, GivenBack::key);
    let word = at.ok().and_then(|at| record.manifest.given_back.get(at));
    if word.is_some_and(|word| word.has_stopped) {
        let slot = record.manifest.slot;
        // What a worker says that lies is its own; nobody else can know better.
        let lies = around
            .worker(&placement.worker)
            .is_some_and(|worker| worker.behaviour == Some(WorkerBehaviour::GiveAllBack));
        if !lies && !around.given_back.has_stopped((job, replica, placement)) {
            report.violate(format!("slot {slot}: replica {replica} of {job} has not stopped"));
        }
        report.count("replica given back and stopped");
        return true;
    }
    // What must not run twice does not move while it runs.
    let is_back = word.is_some() || before.is_given_back(job, replica);
    let is_drained = chain.is_some_and(|chain| chain.draining.contains(&placement.worker));
    if !around.jobs.moves_running(&job) || !(is_back || is_drained) {
        return false;
    }
    report.count(if is_back { "replica given back and moved" } else { "replica drained" });
    true
}

/// Whether a replica that has a place is to get another: "an evicted replica runs elsewhere within a slot once there
/// is room".
pub(super) fn is_to_move(
    state: &ClusterState,
    (job, replica): Replica,
    placement: Placement,
    around: &Surroundings,
) -> bool {
    let is_drained = around.chain.head().draining.contains(&placement.worker);
    around.jobs.moves_running(&job) && (is_drained || state.is_given_back(job, replica))
}

/// What is given back again and again waits longer.
pub(super) fn returns_often(state: &ClusterState, (job, replica): Replica) -> bool {
    state.returned_replica(job, replica).is_some_and(|returned| returned.times > 1)
}
