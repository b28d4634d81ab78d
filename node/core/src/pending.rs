//! Why replicas have no place, by what is public.

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_slot::{
    demand::JobDemand,
    fit::Fit,
    lists::{Ended, Health, NextInputs, Words, next_replicas},
    rollout::{
        homes::{inherits, predecessor},
        waits::{VersionWait, waits_for},
    },
    waiting::Waiting,
};
use veil_node_api::{given_back, replicas::Replica};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, JobSpec, OnLoss, Profile, Strength, VolumeKind},
};
use veil_scheduler_plan::{
    inputs::JobRefusal,
    unfit::{OnChain, Unfit},
};

use veil_node_view::View;

/// The replicas of wanted jobs that have no place, or are to leave theirs, and why. `profiles` is what workers said of
/// themselves, of those whose telemetry is held here.
pub(crate) fn unplaced(
    view: &View,
    jobs: &Jobs,
    state: &ClusterState,
    profiles: &BTreeMap<PeerIdHash, Profile>,
) -> BTreeMap<Replica, String> {
    let policy = view.rules_or_default();
    let demand = |job: &Blake3Digest| {
        jobs.read(job, |body| JobDemand::of(body, &policy, &view.images, view.time))
    };
    let draining = view.draining();
    let inputs = NextInputs {
        submissions: &view.submissions,
        jobs: &demand,
        judged: None,
        lost: &BTreeMap::new(),
        draining: &draining,
        telemetry: &view.workers(),
        ended: &Ended::new(),
        health: &Health::new(),
        block: view.block.number,
        policy: view.policy,
        sampling: policy.sampling(),
        given_back: &Words::new(),
        owners: &BTreeMap::new(),
        committee: view.committee,
        fit: &|job, worker| {
            let fit = |body: &JobSpec| view.fit(body, worker, profiles.get(worker));
            jobs.read(job, fit).unwrap_or(Fit::Silent)
        },
    };
    let next = next_replicas(state, &inputs);
    let system = Waiting::new(&next.pending, &view.workers(), state);
    let wanted: BTreeMap<_, _> = view
        .submissions
        .iter()
        .filter(|submission| !submission.cancelled)
        .filter_map(|submission| Some((submission, demand(&submission.job)?)))
        .filter(|(submission, demand)| submission.operator == demand.operator)
        .map(|(submission, demand)| (submission.job, demand))
        .collect();
    let lines = state.lines_by_job();
    let because = |(job, replica): Replica| {
        if let Some(reason) = next.not_considered.get(&job) {
            return reason.to_string();
        }
        if demand(&job).is_some_and(|demand| demand.is_system()) {
            return system.because(job, replica);
        }
        // A replica that has a place is asked for when it is to leave.
        if state.placement(job, replica).is_some()
            && demand(&job).is_some_and(|demand| demand.stops_first())
        {
            return "it must not run twice: it gets another place when its worker has stopped it"
                .to_owned();
        }
        let home = state.last_place(job, replica).or_else(|| {
            let (before, worker) = predecessor(state, lines.get(&job)?, job, replica)?;
            inherits(&jobs.body(&job)?, &jobs.body(&before)?).then_some(worker)
        });
        let returned = state.returned_replica(job, replica);
        let block = view.block.number;
        let mut barred = state.closed_to(&[], (state.last_slot(), block), job);
        let returned = returned.filter(|returned| state.is_barred_by(returned, block));
        barred.extend(returned.map(|returned| returned.placement.worker));
        let out = |body: &JobSpec| &barred | &taken(state, &job, body);
        let by_rules = |body: &JobSpec| refused(body, home, &out(body), view, profiles);
        if let Some(reason) = jobs.read(&job, by_rules).flatten() {
            return reason;
        }
        match state.last_tried(job, replica) {
            Some(slot) => format!("no candidate had room for it in slot {slot}"),
            None => "no slot has tried to place it yet".to_owned(),
        }
    };
    let because = |(job, replica): Replica| {
        let reason = because((job, replica));
        let left = state.placement(job, replica).is_none();
        match (state.returned_replica(job, replica), state.last_place(job, replica)) {
            (Some(returned), _) if left || state.is_given_back(job, replica) => {
                format!("{}; {reason}", given_back::told(returned))
            }
            (_, Some(worker)) if draining.contains(&worker) => {
                format!("its worker {worker} is drained; {reason}")
            }
            _ => reason,
        }
    };
    let replicas = wanted.into_iter().flat_map(|(job, demand)| {
        let replicas: Vec<_> = if demand.is_system() {
            system.replicas(job, next.not_considered.contains_key(&job))
        } else {
            (0..demand.replicas).map(ReplicaIndex).collect()
        };
        replicas.into_iter().map(move |replica| (job, replica))
    });
    let waits = replicas.filter(|&(job, replica)| {
        let place = state.placement(job, replica);
        place.is_none_or(|place| {
            draining.contains(&place.worker) || state.is_given_back(job, replica)
        })
    });
    waits
        .filter_map(|of| {
            // Versions keep nothing from leaving that has a place.
            let without_place = state.placement(of.0, of.1).is_none();
            match waits_for(state, &lines, &next.rollouts, of.0, of.1).filter(|_| without_place) {
                None => Some((of, because(of))),
                Some(VersionWait::NotWanted) => None,
                Some(waits) => Some((of, waits.to_string())),
            }
        })
        .collect()
}

/// The workers that no other replica of the job may go to, since they have one.
fn taken(state: &ClusterState, job: &Blake3Digest, body: &JobSpec) -> BTreeSet<PeerIdHash> {
    let apart = body.constraints.anti_affinity.as_ref();
    if apart.is_none_or(|rule| rule.strength != Strength::Hard) {
        return BTreeSet::new();
    }
    let places = state.replicas_of(*job).filter_map(|replica| state.placement(*job, replica));
    places.map(|place| place.worker).collect()
}

/// Why public rules leave a replica without a place, if they do.
fn refused(
    job: &JobSpec,
    home: Option<PeerIdHash>,
    out: &BTreeSet<PeerIdHash>,
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
    // Each of them fits it by everything else, or it would not have what it has.
    let out = out.iter().filter(|worker| view.nodes.contains_key(worker)).count();
    let found = (found + (workers.len() - count)).saturating_sub(out);
    let min = view.rules_or_default().least_candidates(workers.len());
    let too_few = found < min && found < workers.len();
    too_few.then(|| JobRefusal::TooFewCandidates { found, min, unfit }.to_string())
}

#[cfg(test)]
mod tests;
