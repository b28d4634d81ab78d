//! Samples of what is said of updates.

use veil_protocol_spec::{Blake3Digest, JobLine, ReplicaIndex, Slot, scheduling::*};

/// Replicas of an update: one is healthy, one has failed.
pub(crate) fn health() -> [ReplicaHealth; 2] {
    [(3, true), (4, false)].map(|(replica, healthy)| ReplicaHealth {
        job: Blake3Digest([0xbc; 32]),
        replica: ReplicaIndex(replica),
        healthy,
    })
}

/// A job as a version of its line.
fn version(submission: u64, job: &JobSpec) -> NewVersion {
    NewVersion {
        submission,
        job: job.digest(),
        operator: job.operator,
        line: job.line(),
        template: job.template(),
        terms: job.terms(),
    }
}

/// The same with another number of replicas.
fn scaled(job: &JobSpec) -> JobSpec {
    JobSpec { nonce: job.nonce + 1, replicas: job.replicas + 1, ..job.clone() }
}

pub(crate) fn changes(job: &JobSpec) -> RolloutChanges {
    RolloutChanges {
        versions: vec![version(13, &scaled(job))],
        health: health().to_vec(),
        forgotten: vec![JobLine([0xcd; 32])],
        withdrawn: vec![Blake3Digest([0xbd; 32])],
    }
}

/// What becomes of a periodic job.
pub(crate) fn runs(step: RunStep) -> Vec<RunChange> {
    vec![RunChange { job: Blake3Digest([0xce; 32]), step }]
}

/// The state after another slot, in which the job is updated; `like` says the rest of its manifest.
pub(crate) fn updated(state: &ClusterState, like: Manifest, job: &JobSpec) -> ClusterState {
    let versions = vec![version(12, job), version(13, &scaled(job))];
    let next = Manifest {
        slot: Slot(8),
        previous: state.last_certificate(),
        pending: Vec::new(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges { versions, ..RolloutChanges::default() },
        runs: runs(RunStep::Noted { time: 1_790_000_000 }),
        ..like
    };
    state.apply(&next, &Assignments::default()).unwrap()
}
