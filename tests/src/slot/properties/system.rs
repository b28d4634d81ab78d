//! What must hold of system jobs.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, GivenBack, Line, Placement, RolloutPhase, SlotRecord},
};

use super::super::{SlotReport, chain::ChainView, workers::Surroundings};

/// Whether a replica may leave for another version: one that is healthy at its worker, unless it is not itself, or both
/// cannot run at once. What else a slot takes from that worker, such as the healthy one, is no matter of it.
fn is_replaced(
    before: &ClusterState,
    job: Blake3Digest,
    replica: ReplicaIndex,
    worker: PeerIdHash,
) -> bool {
    let Some(line) = before.line_of(&job) else { return false };
    let Some(target) = line.target().filter(|_| !line.is_current(&job)) else { return false };
    let is_healthy = |(other, replica, place): (Blake3Digest, _, Placement)| {
        place.worker == worker
            && other != job
            && line.version(&other).is_some()
            && !before.is_unproven(other, replica)
    };
    target.terms.stops_first
        || before.is_unproven(job, replica)
        || before.replicas().any(is_healthy)
}

/// "A line that has no place anywhere takes its newest version as it takes a first one: at once." Whether the slot that
/// noted that version has placed this replica of the one before: it leaves with the next slot.
fn is_overtaken(before: &ClusterState, job: Blake3Digest, place: Placement) -> bool {
    let Some(line) = before.line_of(&job) else { return false };
    let is_settled = line.phase() == RolloutPhase::Settled && !line.is_current(&job);
    is_settled && place.slot == before.last_decided()
}

/// "If the newest one's submission is withdrawn, all are."
fn is_withdrawn(state: &ClusterState, chain: &ChainView, job: &Blake3Digest) -> bool {
    let newest = state.line_of(job).map(Line::newest);
    newest.is_some_and(|newest| {
        !chain.submissions.iter().any(|of| of.position == newest && !of.cancelled)
    })
}

/// Judged by every certificate.
pub(super) fn check(
    (before, after): (&ClusterState, &ClusterState),
    record: &SlotRecord,
    around: &Surroundings,
    chain: Option<&ChainView>,
    report: &mut SlotReport,
) {
    let slot = record.manifest.slot;
    let of_system = |state: &ClusterState| -> Vec<_> {
        state.replicas().filter(|(job, ..)| around.jobs.is_system(job)).collect()
    };
    let now = of_system(after);
    let mut at: BTreeMap<Blake3Digest, BTreeSet<PeerIdHash>> = BTreeMap::new();
    for (job, replica, place) in &now {
        if !at.entry(*job).or_default().insert(place.worker) {
            report.violate(format!("slot {slot} has {} run job {job} twice", place.worker));
        }
        if before.placement(*job, *replica).is_some_and(|was| was.worker != place.worker) {
            report.violate(format!("slot {slot} moves replica {replica} of system job {job}"));
        }
    }
    let Some(chain) = chain else { return };
    for (job, replica, place) in of_system(before) {
        if after.placement(job, replica).is_some() {
            continue;
        }
        let words = &record.manifest.given_back;
        let word = words.binary_search_by_key(&(job, replica), GivenBack::key);
        let word = word.ok().and_then(|at| words.get(at));
        if word.is_some_and(|word| word.has_stopped) {
            report.count("system replica given back");
        } else if !chain.workers.contains(&place.worker) {
            report.count("system replica of a worker that has left");
        } else if is_overtaken(before, job, place) {
            report.count("system replica placed while another version was noted");
        } else if is_replaced(before, job, replica, place.worker) {
            report.count("system replica of another version");
        } else if chain.wants(&job) && !is_withdrawn(before, chain, &job) {
            let at = place.worker;
            report.violate(format!(
                "slot {slot} takes replica {replica} of system job {job} from {at} without a reason"
            ));
        } else {
            report.count("system replica withdrawn");
        }
    }
    let may_run = || chain.workers.iter().filter(|worker| !chain.draining.contains(*worker));
    if at.values().any(|at| may_run().all(|worker| at.contains(worker))) {
        report.count("system job on every worker");
    }
    let lost = record.manifest.lost.iter().map(|lost| lost.worker);
    if lost.into_iter().any(|lost| now.iter().any(|(.., place)| place.worker == lost)) {
        report.count("system replica stays at a lost worker");
    }
}
