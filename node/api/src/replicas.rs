//! Replicas, as the certificates have them and as they are seen: `veil job status`.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{ClusterState, JobSpec, JobType},
};

use crate::status::{Observed, ReplicaStatus};

/// A replica of a job.
pub type Replica = (Blake3Digest, ReplicaIndex);

/// What is known beside the certificates.
pub struct Known<'a> {
    /// What this process's own replicas do.
    pub observed: BTreeMap<Replica, Observed>,
    /// Of replicas of wanted jobs, why they have no place, or no other.
    pub because: BTreeMap<Replica, String>,
    /// Workers whose replicas go to others.
    pub draining: &'a BTreeSet<PeerIdHash>,
    /// Whether a job is known to be a system job.
    pub is_system: &'a dyn Fn(&Blake3Digest) -> bool,
}

impl core::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Known").field("observed", &self.observed).finish_non_exhaustive()
    }
}

impl Known<'_> {
    /// Why a replica that has a place on this worker is to leave it, or cannot yet.
    fn leaves(
        &self,
        state: &ClusterState,
        of @ (job, replica): Replica,
        worker: &PeerIdHash,
    ) -> Option<String> {
        match state.lost_since(worker) {
            Some(since) if (self.is_system)(&job) => Some(format!(
                "its worker is lost since slot {since}; it is of a system job, and goes nowhere else"
            )),
            Some(since) => Some(format!(
                "its worker is lost since slot {since}; it moves once another has room for it and its lease is over"
            )),
            None if self.draining.contains(worker) || state.is_given_back(job, replica) => {
                self.because.get(&of).cloned()
            }
            None => None,
        }
    }
}

/// Every replica: those that have a place, those that are done, those that wait for one, and those that are still to be
/// stopped here.
#[must_use]
pub fn replicas(state: &ClusterState, mut known: Known<'_>) -> Vec<ReplicaStatus> {
    let lines = state.lines_by_job();
    let new = |(job, replica): Replica| ReplicaStatus {
        job,
        replica,
        worker: None,
        pending_because: None,
        observed: None,
        done: None,
        version: lines.get(&job).and_then(|line| line.version(&job)).map(|version| version.number),
    };
    let mut replicas = Vec::new();
    for (job, replica, placement) in state.replicas() {
        let of = (job, replica);
        replicas.push(ReplicaStatus {
            worker: Some(placement.worker),
            pending_because: known.leaves(state, of, &placement.worker),
            observed: known.observed.remove(&of),
            ..new(of)
        });
    }
    // Their containers, if they are there yet, are to be stopped.
    replicas.extend(state.done().map(|(job, replica, done)| ReplicaStatus {
        done: Some(done.into()),
        ..new((job, replica))
    }));
    let placed: BTreeSet<Replica> = replicas.iter().map(|r| (r.job, r.replica)).collect();
    for (of, because) in known.because {
        if !placed.contains(&of) {
            replicas.push(ReplicaStatus {
                pending_because: Some(because),
                observed: known.observed.remove(&of),
                ..new(of)
            });
        }
    }
    // Still to be stopped here.
    replicas.extend(
        known
            .observed
            .into_iter()
            .map(|(of, observed)| ReplicaStatus { observed: Some(observed), ..new(of) }),
    );
    replicas
}

/// How many replicas of a job run at once; of a system job, those that have a place or wait for one.
#[must_use]
pub fn wanted(body: &JobSpec, replicas: &[ReplicaStatus]) -> u16 {
    if body.kind != JobType::System {
        return body.replicas;
    }
    let counts = |of: &&ReplicaStatus| of.worker.is_some() || of.pending_because.is_some();
    u16::try_from(replicas.iter().filter(counts).count()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_with_its_reason_and_what_is_to_be_stopped_without() {
        let of = |replica| (Blake3Digest([1; 32]), ReplicaIndex(replica));
        let observed = Observed::default;
        let known = Known {
            observed: [(of(0), observed()), (of(2), observed())].into(),
            because: [(of(0), "no room".to_owned()), (of(1), "not tried".to_owned())].into(),
            draining: &BTreeSet::new(),
            is_system: &|_| false,
        };
        let told = replicas(&ClusterState::default(), known);
        let told: Vec<_> = told
            .iter()
            .map(|of| (of.replica.0, of.pending_because.as_deref(), of.observed.is_some()))
            .collect();
        assert_eq!(
            told,
            [(0, Some("no room"), true), (1, Some("not tried"), false), (2, None, true)]
        );
    }
}
