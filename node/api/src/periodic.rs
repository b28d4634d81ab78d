//! Periodic jobs, as the certificates have them: `veil job status`.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{ClusterState, JobSpec, JobType, Run, Schedule},
};

/// What has become of the last run of a periodic job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// One of its replicas runs, or waits for a place.
    UnderWay,
    /// All have ended with code 0.
    Succeeded,
    /// All have ended, and one with another code.
    Failed,
}

/// When a periodic job was run, and will be. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodicStatus {
    /// The time of the last run; nothing before the first.
    pub last_run: Option<u64>,
    /// What has become of that.
    pub outcome: Option<RunOutcome>,
    /// The last time at which no run began since the one before had not ended; nothing if one has begun since.
    pub left_out: Option<u64>,
    /// The next time.
    pub next_run: Option<u64>,
}

impl PeriodicStatus {
    /// Of this job, as of a block of time `now`; nothing of a job of another type.
    #[must_use]
    pub fn of(state: &ClusterState, job: &Blake3Digest, body: &JobSpec, now: u64) -> Option<Self> {
        let JobType::Periodic { cron, time_zone, .. } = &body.kind else { return None };
        let runs = state.runs_of(job);
        let outcome = |_: Run| {
            let mut ended = (0..body.replicas).map(|replica| {
                Some(state.done_replica(*job, ReplicaIndex(replica))?.exit.is_success())
            });
            match ended.try_fold(true, |all, one| Some(all && one?)) {
                None => RunOutcome::UnderWay,
                Some(true) => RunOutcome::Succeeded,
                Some(false) => RunOutcome::Failed,
            }
        };
        let last = runs.and_then(|runs| runs.last);
        Some(Self {
            last_run: last.map(|run| run.time),
            outcome: last.map(outcome),
            left_out: runs.filter(|runs| runs.left_out).map(|runs| runs.time),
            next_run: Schedule::new(cron, time_zone).ok().and_then(|times| times.next(now)),
        })
    }
}
