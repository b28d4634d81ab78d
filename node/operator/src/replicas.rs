//! What is seen of a job's replicas: what the certificates say beside what the workers observe.

use serde::Serialize;
use veil_node_api::{
    periodic::PeriodicStatus,
    status::{DoneStatus, JobStatus, Observed, ReplicaStatus, Status},
    versions::VersionStatus,
};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{RolloutPhase, VersionOutcome},
};

/// One replica in the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its job.
    pub job: Blake3Digest,
    /// Which of the job's.
    pub replica: ReplicaIndex,
    /// Where it is assigned to, or where a container is that is not assigned.
    pub worker: Option<PeerIdHash>,
    /// What that worker is called, where it has a name.
    pub worker_name: Option<String>,
    /// Whether the certificates want it there.
    pub assigned: bool,
    /// What the worker sees of it.
    pub observed: Option<Observed>,
    /// Whether it runs.
    pub running: bool,
    /// Why it waits.
    pub pending_because: Option<String>,
    /// How it has ended for good, if it has.
    pub done: Option<DoneStatus>,
    /// The number of its version, if its job has had others.
    pub version: Option<u32>,
}

/// How far an update is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// What its operator calls the job.
    pub name: Option<String>,
    /// The wanted version.
    pub job: Blake3Digest,
    /// How it stands.
    pub version: VersionStatus,
    /// In words.
    pub state: String,
}

/// How far the updates of these jobs are: one for each whose wanted version is among them.
#[must_use]
pub fn rollouts(jobs: &[&JobStatus]) -> Vec<Rollout> {
    let wanted = jobs.iter().filter_map(|job| Some((job, job.version.filter(|of| of.wanted)?)));
    wanted
        .filter(|(job, _)| !job.cancelled)
        .map(|(job, version)| {
            let VersionStatus { number, unproven, .. } = version;
            let (outcome, phase) = (version.outcome, version.rollout);
            let state = match phase {
                RolloutPhase::Settled => format!("version {number} runs"),
                RolloutPhase::Halted => format!(
                    "version {number} has failed and does not revert: `veil job revert` goes back"
                ),
                RolloutPhase::Rolling if outcome == VersionOutcome::Healthy => {
                    format!("a later version has failed: version {number} comes back, {unproven} replicas of it are waited for")
                }
                RolloutPhase::Rolling => {
                    format!("version {number} is rolled out, {unproven} replicas of it are waited for")
                }
            };
            Rollout { name: job.name.clone(), job: job.job, version, state }
        })
        .collect()
}

/// When a periodic job was run, and will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Periodic {
    /// What its operator calls it.
    pub name: Option<String>,
    /// Its digest.
    pub job: Blake3Digest,
    /// The times.
    #[serde(flatten)]
    pub times: PeriodicStatus,
}

/// The periodic ones among these jobs that are not withdrawn, of each job the wanted version.
#[must_use]
pub fn periodic(jobs: &[&JobStatus]) -> Vec<Periodic> {
    let is_wanted = |job: &&&JobStatus| !job.cancelled && job.version.is_none_or(|of| of.wanted);
    jobs.iter()
        .filter(is_wanted)
        .filter_map(|job| {
            Some(Periodic { name: job.name.clone(), job: job.job, times: job.periodic? })
        })
        .collect()
}

/// What the certificates say, by the node that knows most of them, beside what each worker that was
/// asked sees of its own containers.
#[must_use]
pub fn rows(statuses: &[Status], name_of: &dyn Fn(&PeerIdHash) -> Option<String>) -> Vec<Row> {
    let Some(newest) = statuses.iter().max_by_key(|status| status.last_slot) else {
        return Vec::new();
    };
    let row =
        |replica: &ReplicaStatus, worker: Option<PeerIdHash>, observed: Option<Observed>| Row {
            job: replica.job,
            replica: replica.replica,
            worker,
            worker_name: worker.as_ref().and_then(name_of),
            assigned: replica.worker.is_some() && replica.worker == worker,
            running: observed.as_ref().is_some_and(|observed| observed.running),
            observed,
            pending_because: replica.pending_because.clone(),
            done: replica.done.clone(),
            version: replica.version,
        };
    let seen_by = |worker: PeerIdHash, replica: &ReplicaStatus| {
        let status = statuses.iter().find(|status| status.peer == worker)?;
        let same =
            |other: &&ReplicaStatus| (other.job, other.replica) == (replica.job, replica.replica);
        status.replicas.iter().find(same)?.observed.clone()
    };
    let claimed = |replica: &&ReplicaStatus| {
        replica.worker.is_some() || replica.pending_because.is_some() || replica.done.is_some()
    };
    let mut rows: Vec<_> = newest
        .replicas
        .iter()
        .filter(claimed)
        .map(|replica| {
            let observed = replica.worker.and_then(|worker| seen_by(worker, replica));
            row(replica, replica.worker, observed)
        })
        .collect();
    // Containers that no certificate wants where they are.
    for status in statuses {
        for replica in status.replicas.iter().filter(|r| r.observed.is_some()) {
            let assigned_here = rows.iter().any(|row| {
                (row.job, row.replica) == (replica.job, replica.replica)
                    && row.worker == Some(status.peer)
            });
            if !assigned_here {
                let mut stray = row(replica, Some(status.peer), replica.observed.clone());
                stray.assigned = false;
                (stray.pending_because, stray.done) = (None, None);
                rows.push(stray);
            }
        }
    }
    rows.sort_by_key(|row| (row.job, row.replica, !row.assigned));
    rows
}
