//! What has ended for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterState, Placement, StateError};
use crate::{
    ids::{Blake3Digest, ReplicaIndex, Slot},
    scheduling::{
        ended::{EndedReplica, ReplicaExit},
        manifest::{LeavingReplica, MAX_RUNNING, Manifest},
    },
};

/// Most replicas that a cluster remembers as done. Beyond it what has ended keeps its place: nothing that is
/// done is ever forgotten and runs again.
pub const MAX_DONE: usize = MAX_RUNNING;
/// Most of them that one operator has, so that nobody uses up what others need too. Jobs that are stopped do not
/// count.
pub const MAX_DONE_OF_OPERATOR: usize = MAX_DONE / 4;

type Places = BTreeMap<(Blake3Digest, ReplicaIndex), Placement>;

/// How a replica has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The place that it had.
    pub placement: Placement,
    /// The slot whose certificate says that it is done.
    pub slot: Slot,
    /// How its last run ended.
    pub exit: ReplicaExit,
}

impl Done {
    /// Most bytes that one takes in the encoding of a state, with its replica.
    pub(super) const MAX_ENTRY_BYTES: usize = EndedReplica::MAX_BYTES + 32 + 10 + 10;
}

/// Whether the manifest lists a replica as done.
pub(super) fn lists(manifest: &Manifest, job: Blake3Digest, replica: ReplicaIndex) -> bool {
    manifest.done.binary_search_by_key(&(job, replica), EndedReplica::key).is_ok()
}

impl ClusterState {
    /// Every replica that is done, in order.
    pub fn done(&self) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex, Done)> + '_ {
        self.done.iter().map(|(&(job, replica), &done)| (job, replica, done))
    }

    /// How a replica has ended, if it is done.
    #[must_use]
    pub fn done_replica(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<Done> {
        self.done.get(&(job, replica)).copied()
    }

    /// Whether a replica is done.
    #[must_use]
    pub fn is_done(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        self.done.contains_key(&(job, replica))
    }

    /// What is done after a slot; what becomes so is taken out of `replicas`.
    pub(super) fn done_after(
        &self,
        manifest: &Manifest,
        slot: Slot,
        replicas: &mut Places,
    ) -> Result<BTreeMap<(Blake3Digest, ReplicaIndex), Done>, StateError> {
        let is_done = |job, replica| self.is_done(job, replica);
        if let Some(again) = manifest.pending.iter().find(|p| is_done(p.job, p.replica)) {
            return Err(StateError::Done { job: again.job, replica: again.replica });
        }
        let mut done = self.done.clone();
        for &LeavingReplica { job, replica } in &manifest.leaving {
            done.remove(&(job, replica));
        }
        for &EndedReplica { job, replica, exit } in &manifest.done {
            let placement =
                replicas.remove(&(job, replica)).ok_or(StateError::NotRunning { job, replica })?;
            done.insert((job, replica), Done { placement, slot, exit });
        }
        if done.len() > MAX_DONE {
            return Err(StateError::TooManyDone(done.len()));
        }
        Ok(done)
    }
}
