//! What must hold of updates.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, Line, RolloutPhase, SlotRecord, VersionOutcome},
};

use super::super::{SlotReport, workers::Surroundings};

/// Whether another version has taken the place of a replica, or its job was scaled down.
pub(super) fn is_replaced(state: &ClusterState, job: &Blake3Digest, replica: ReplicaIndex) -> bool {
    let Some(line) = state.line_of(job) else { return false };
    let beyond = line.target().is_some_and(|target| replica.0 >= target.terms.replicas);
    beyond || !line.is_current(job)
}

/// The replicas, by index, of which one has a place at a worker that is there, is certified to be healthy or was there
/// before, and is of a version that is not withdrawn.
fn served(
    state: &ClusterState,
    line: &Line,
    gone: &BTreeSet<PeerIdHash>,
    is_withdrawn: &impl Fn(u64) -> bool,
) -> BTreeSet<ReplicaIndex> {
    let open = line.versions().iter().filter(|version| !is_withdrawn(version.submission));
    let jobs = open.map(|version| version.job);
    let replicas = jobs.flat_map(|job| state.replicas_of(job).map(move |replica| (job, replica)));
    replicas
        .filter(|(job, replica)| !state.is_unproven(*job, *replica))
        .filter(|(job, replica)| {
            state.placement(*job, *replica).is_some_and(|place| !gone.contains(&place.worker))
        })
        .map(|(_, replica)| replica)
        .collect()
}

/// Judged by every certificate.
pub(super) fn check(
    (before, after): (&ClusterState, &ClusterState),
    record: &SlotRecord,
    around: &Surroundings,
    is_withdrawn: impl Fn(u64) -> bool,
    report: &mut SlotReport,
) {
    let slot = record.manifest.slot;
    let gone: BTreeSet<_> = record.manifest.lost.iter().map(|lost| lost.worker).collect();
    let unproven = |state: &ClusterState, line: &Line| -> usize {
        let current = line.versions().iter().filter(|version| line.is_current(&version.job));
        // A system job's replica on a lost worker is not waited for.
        let is_system = line.target().is_some_and(|target| target.terms.is_system());
        let is_away = |job, replica| {
            let lost = |worker: &PeerIdHash| {
                [before, after].iter().any(|of| of.lost_since(worker).is_some())
            };
            is_system && state.placement(job, replica).is_some_and(|place| lost(&place.worker))
        };
        let of = |job| {
            let unproven = state.replicas_of(job).filter(|r| state.is_unproven(job, *r));
            unproven.filter(|replica| !is_away(job, *replica)).count()
        };
        current.map(|version| of(version.job)).sum()
    };
    let lines: BTreeMap<_, _> = before.lines().collect();
    for (id, line) in after.lines() {
        let Some(was) = lines.get(&id) else {
            report.count("line noted");
            continue;
        };
        let Some((target, aimed)) = line.target().zip(was.target()) else { continue };
        // Withdrawing the newest version withdraws all: what is submitted after that begins anew.
        if is_withdrawn(line.newest()) || is_withdrawn(was.newest()) {
            continue;
        }
        let most = usize::from(aimed.terms.max_parallel);
        let (held, holds) = (unproven(before, was), unproven(after, was));
        if was.phase() == RolloutPhase::Rolling && holds > most.max(held) {
            report
                .violate(format!("slot {slot} replaces {holds} replicas at once: at most {most}"));
        }
        // "Never fewer than replicas - max_parallel healthy": what stops first may be missing, nothing else.
        let left = served(before, was, &gone, &is_withdrawn);
        let kept = served(after, line, &gone, &is_withdrawn);
        let wanted = aimed.terms.replicas.min(target.terms.replicas);
        let missing = left.difference(&kept).filter(|replica| replica.0 < wanted).count();
        let may_miss = if aimed.terms.stops_first { most } else { 0 };
        if missing > may_miss {
            report.violate(format!("slot {slot} takes {missing} healthy replicas of a job away"));
        }
        for version in line.versions() {
            let Some(earlier) = was.version(&version.job) else { continue };
            let broken = around.jobs.is_broken(&version.job);
            match (earlier.outcome, version.outcome) {
                (VersionOutcome::Rolling, VersionOutcome::Healthy) => {
                    report.count("update complete");
                    if broken {
                        report.violate(format!("slot {slot} calls a broken version healthy"));
                    }
                }
                (VersionOutcome::Rolling, VersionOutcome::Failed) => {
                    report.count("update failed");
                    if !broken && around.is_honest() {
                        report.violate(format!("slot {slot} calls a healthy version failed"));
                    }
                }
                (VersionOutcome::Rolling, VersionOutcome::Superseded) => {
                    report.count("update superseded");
                }
                _ => {}
            }
        }
        let reverts = was.phase() == RolloutPhase::Rolling && line.phase() == RolloutPhase::Settled;
        if reverts && target.submission < line.newest() {
            report.count("update reverted");
        }
        if line.count() > was.count() && line.phase() == RolloutPhase::Settled {
            report.count("scaled");
        }
    }
    let forgotten = record.manifest.rollouts.forgotten.len() as u64;
    for (what, times) in
        [("replica certified healthy", healthy(record)), ("line forgotten", forgotten)]
    {
        if times > 0 {
            report.add(what, times);
        }
    }
}

fn healthy(record: &SlotRecord) -> u64 {
    record.manifest.rollouts.health.iter().filter(|health| health.healthy).count() as u64
}
