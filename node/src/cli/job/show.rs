//! Tables of jobs and replicas.

use std::io::{self, Write};

use serde::Serialize;
use veil_node_core::status::{JobStatus, Observed, ReplicaStatus, Status};
use veil_protocol_spec::{Blake3Digest, PeerIdHash, ReplicaIndex};

use super::target::Access;

/// One replica in the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) job: Blake3Digest,
    replica: ReplicaIndex,
    /// Where it is assigned to, or where a container is that is not assigned.
    worker: Option<PeerIdHash>,
    worker_name: Option<String>,
    assigned: bool,
    observed: Option<Observed>,
    pub(super) running: bool,
    pending_because: Option<String>,
}

/// What the certificates say, by the node that knows most of them, beside what each worker that was
/// asked sees of its own containers.
pub(super) fn rows(statuses: &[Status], access: &Access) -> Vec<Row> {
    let Some(newest) = statuses.iter().max_by_key(|status| status.last_slot) else {
        return Vec::new();
    };
    let name = |peer: &PeerIdHash| access.devnet.as_ref().map(|devnet| devnet.name_of(peer));
    let row =
        |replica: &ReplicaStatus, worker: Option<PeerIdHash>, observed: Option<Observed>| Row {
            job: replica.job,
            replica: replica.replica,
            worker,
            worker_name: worker.as_ref().and_then(name),
            assigned: replica.worker.is_some() && replica.worker == worker,
            running: observed.as_ref().is_some_and(|observed| observed.running),
            observed,
            pending_because: replica.pending_because.clone(),
        };
    let seen_by = |worker: PeerIdHash, replica: &ReplicaStatus| {
        let status = statuses.iter().find(|status| status.peer == worker)?;
        let same =
            |other: &&ReplicaStatus| (other.job, other.replica) == (replica.job, replica.replica);
        status.replicas.iter().find(same)?.observed.clone()
    };
    let claimed =
        |replica: &&ReplicaStatus| replica.worker.is_some() || replica.pending_because.is_some();
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
                stray.pending_because = None;
                rows.push(stray);
            }
        }
    }
    rows.sort_by_key(|row| (row.job, row.replica, !row.assigned));
    rows
}

fn short(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

pub(super) fn write_rows(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    writeln!(
        out,
        "{:<14}{:>7}  {:<14}{:<10}{:<22}because",
        "job", "replica", "worker", "assigned", "observed"
    )?;
    for row in rows {
        let worker = row.worker_name.clone().or_else(|| row.worker.map(|peer| peer.to_string()));
        let worker = worker.unwrap_or_else(|| "-".to_owned());
        let observed = match &row.observed {
            Some(observed) => observed.state.as_str(),
            None if row.worker.is_some() => "not asked",
            None => "-",
        };
        let assigned = match (row.assigned, row.worker) {
            (true, _) => "yes",
            (false, Some(_)) => "no",
            (false, None) => "pending",
        };
        writeln!(
            out,
            "{:<14}{:>7}  {:<14}{assigned:<10}{observed:<22}{}",
            short(&row.job.to_string()),
            row.replica,
            short(&worker),
            row.pending_because.as_deref().unwrap_or_default()
        )?;
    }
    Ok(())
}

pub(super) fn write_jobs(out: &mut dyn Write, jobs: &[JobStatus]) -> io::Result<()> {
    writeln!(
        out,
        "{:>8}  {:<64}  {:>6}  {:>8}  {:<11}image",
        "position", "job", "wanted", "assigned", "withdrawn"
    )?;
    for job in jobs {
        let assigned = job.replicas.iter().filter(|replica| replica.worker.is_some()).count();
        writeln!(
            out,
            "{:>8}  {:<64}  {:>6}  {assigned:>8}  {:<11}{}",
            job.position,
            job.job,
            job.wanted.map_or_else(|| "?".to_owned(), |wanted| wanted.to_string()),
            if job.cancelled { "yes" } else { "no" },
            job.image.as_deref().unwrap_or("body not known here")
        )?;
    }
    Ok(())
}
