//! Why replicas have no place, by what is public.

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_slot::{
    demand::JobDemand,
    lists::{Ended, NextInputs, next_replicas},
};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, JobSpec, OnLoss, Profile, VolumeKind},
};
use veil_scheduler_plan::{
    inputs::JobRefusal,
    unfit::{OnChain, Unfit},
};

use crate::{cluster::View, progress::Replica};

/// The replicas of wanted jobs that are not in `placed`, and why they have no place. `profiles` is what workers said of
/// themselves, of those whose telemetry is held here.
pub(crate) fn unplaced(
    view: &View,
    jobs: &Jobs,
    state: &ClusterState,
    profiles: &BTreeMap<PeerIdHash, Profile>,
    placed: &BTreeSet<Replica>,
) -> Vec<(Replica, String)> {
    let scale = view.rules_or_default().scale;
    let demand =
        |job: &Blake3Digest| jobs.read(job, |body| JobDemand::of(body, &scale, &view.images));
    let inputs = NextInputs {
        submissions: &view.submissions,
        jobs: &demand,
        judged: None,
        lost: &BTreeMap::new(),
        draining: &view.draining(),
        telemetry: &view.workers(),
        ended: &Ended::new(),
        block: view.block.number,
        policy: view.policy,
    };
    let next = next_replicas(state, &inputs);
    let wanted: BTreeMap<_, _> = view
        .submissions
        .iter()
        .filter(|submission| !submission.cancelled)
        .filter_map(|submission| Some((submission, demand(&submission.job)?)))
        .filter(|(submission, demand)| submission.operator == demand.operator)
        .map(|(submission, demand)| (submission.job, demand.replicas))
        .collect();
    let because = |(job, replica): Replica| {
        if let Some(reason) = next.not_considered.get(&job) {
            return reason.to_string();
        }
        let home = state.last_place(job, replica);
        let by_rules = |body: &JobSpec| refused(body, home, view, profiles);
        if let Some(reason) = jobs.read(&job, by_rules).flatten() {
            return reason;
        }
        match state.last_tried(job, replica) {
            Some(slot) => format!("no candidate had room for it in slot {slot}"),
            None => "no slot has tried to place it yet".to_owned(),
        }
    };
    let replicas = wanted.into_iter().flat_map(|(job, replicas)| {
        (0..replicas).map(ReplicaIndex).map(move |replica| (job, replica))
    });
    let unplaced = replicas.filter(|replica| !placed.contains(replica));
    unplaced.map(|replica| (replica, because(replica))).collect()
}

/// Why public rules leave a replica without a place, if they do.
fn refused(
    job: &JobSpec,
    home: Option<PeerIdHash>,
    view: &View,
    profiles: &BTreeMap<PeerIdHash, Profile>,
) -> Option<String> {
    let bound = job
        .volumes
        .iter()
        .find(|volume| matches!(volume.kind, VolumeKind::Host { on_loss: OnLoss::Pending }));
    if let (Some(volume), Some(home)) = (bound, home) {
        return Some(format!(
            "its data is in volume {} of worker {home}, which has no room for it or is away",
            volume.name
        ));
    }
    let workers: Vec<_> = view.nodes.values().filter(|node| node.roles.worker).collect();
    // Of a worker whose telemetry is not here, nobody knows what it lacks.
    let known = workers.iter().filter_map(|node| Some((node, profiles.get(&node.peer)?)));
    let count = known.clone().count();
    let submitter = view.organisations_of(&job.operator);
    let on_chain = known.map(|(node, profile)| {
        let organisation = node.organisation.as_ref();
        (OnChain { labels: &node.labels, organisation, submitter: &submitter }, profile)
    });
    let (found, unfit) = Unfit::count(job, on_chain);
    let found = found + (workers.len() - count);
    let min = view.rules_or_default().least_candidates(workers.len());
    let too_few = found < min && found < workers.len();
    too_few.then(|| JobRefusal::TooFewCandidates { found, min, unfit }.to_string())
}
