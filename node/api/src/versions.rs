//! Versions of jobs, as the certificates have them: `veil job history`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{ClusterState, JobSpec, Line, RolloutPhase, Submission, VersionOutcome},
};

/// One version of a job that has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// From 1.
    pub number: u32,
    /// What has become of it.
    pub outcome: VersionOutcome,
    /// Whether it is the one that is to run.
    pub wanted: bool,
    /// How far the wanted version is.
    pub rollout: RolloutPhase,
    /// How many of its replicas have a place and are not certified to be healthy yet.
    pub unproven: usize,
}

impl VersionStatus {
    /// Of this job; nothing if it has no other versions. `lines` are [those of the
    /// state](ClusterState::lines_by_job).
    #[must_use]
    pub fn of(
        state: &ClusterState,
        lines: &BTreeMap<Blake3Digest, &Line>,
        job: &Blake3Digest,
    ) -> Option<Self> {
        let line = lines.get(job)?;
        let version = line.version(job)?;
        let wanted = line.target().is_some_and(|target| target.job == *job);
        let unproven = state.replicas_of(*job).filter(|of| state.is_unproven(*job, *of)).count();
        let (number, outcome, rollout) = (version.number, version.outcome, line.phase());
        Some(Self { number, outcome, wanted, rollout, unproven })
    }
}

/// One version in the history of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobVersion {
    /// Its digest.
    pub job: Blake3Digest,
    /// Place in the chain's order.
    pub position: u64,
    /// Whether it was withdrawn.
    pub cancelled: bool,
    /// How it stands; nothing if it is the only one, no slot has seen it yet, or it is remembered no more.
    pub version: Option<VersionStatus>,
    /// How many of its replicas have a place.
    pub placed: usize,
    /// Its body.
    pub spec: JobSpec,
}

/// The submissions of one operator that have the name of this job, oldest first, as far as their bodies are known;
/// none if its own is not.
#[must_use]
pub fn history(
    job: &Blake3Digest,
    submissions: &[Submission],
    body: &dyn Fn(&Blake3Digest) -> Option<JobSpec>,
    state: &ClusterState,
) -> Vec<JobVersion> {
    let Some(of) = body(job) else { return Vec::new() };
    let lines = state.lines_by_job();
    let own = submissions.iter().filter(|submission| submission.operator == of.operator);
    let mut versions: Vec<_> = own
        .filter_map(|submission| Some((submission, body(&submission.job)?)))
        .filter(|(_, spec)| spec.operator == of.operator && spec.name == of.name)
        .map(|(submission, spec)| JobVersion {
            job: submission.job,
            position: submission.position,
            cancelled: submission.cancelled,
            version: VersionStatus::of(state, &lines, &submission.job),
            placed: state.replicas_of(submission.job).count(),
            spec,
        })
        .collect();
    versions.sort_by_key(|version| version.position);
    // A digest counts with its first submission.
    let mut seen = std::collections::BTreeSet::new();
    versions.retain(|version| seen.insert(version.job));
    versions
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, ClusterId,
        scheduling::{ClusterScope, ResourceRequest, Resources},
    };

    use super::*;

    #[test]
    fn the_history_of_a_job_is_what_its_operator_submitted_under_its_name() {
        let spec = |nonce, operator: u8, name: &str| {
            JobSpec::new(
                ClusterScope {
                    chain_id: ChainId(1),
                    contract: Address([1; 20]),
                    cluster: ClusterId([2; 32]),
                },
                Address([operator; 20]),
                nonce,
                name.parse().unwrap(),
                format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
                ResourceRequest::Clear(Resources::default()),
            )
        };
        let jobs = [spec(1, 3, "a"), spec(2, 3, "b"), spec(3, 4, "a"), spec(4, 3, "a")];
        let submission = |position: u64, job: &JobSpec| Submission {
            position,
            job: job.digest(),
            operator: job.operator,
            leak_bits: 1,
            cancelled: position == 0,
        };
        let submissions: Vec<_> = (0..).zip(&jobs).map(|(at, job)| submission(at, job)).collect();
        let body = |job: &Blake3Digest| jobs.iter().find(|of| of.digest() == *job).cloned();
        let state = ClusterState::default();
        let of = |job: &Blake3Digest| -> Vec<_> {
            let versions = history(job, &submissions, &body, &state);
            versions.iter().map(|of| (of.position, of.cancelled, of.version)).collect()
        };
        assert_eq!(of(&jobs[3].digest()), [(0, true, None), (3, false, None)]);
        assert_eq!(of(&jobs[0].digest()), of(&jobs[3].digest()));
        assert_eq!(of(&Blake3Digest([9; 32])), []);
    }
}
