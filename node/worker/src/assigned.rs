//! What the last verified certificates say of this worker.

use std::collections::BTreeMap;

use veil_protocol_spec::{Blake3Digest, PeerIdHash, ReplicaIndex, Slot, scheduling::ClusterState};

/// A replica of a job.
pub(crate) type Replica = (Blake3Digest, ReplicaIndex);

/// What the last verified certificates say of this worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The last slot whose certificate is known.
    pub(crate) slot: Slot,
    /// What has its place here, and the slot that placed it.
    pub(crate) here: BTreeMap<Replica, Slot>,
    /// Whether the worker counts as lost: nothing of it has another place yet.
    pub(crate) is_lost: bool,
}

impl Assigned {
    pub(crate) fn to(me: PeerIdHash, state: &ClusterState) -> Self {
        let here = state.replicas().filter(|(_, _, placement)| placement.worker == me);
        let here: BTreeMap<_, _> =
            here.map(|(job, replica, placed)| ((job, replica), placed.slot)).collect();
        Self { slot: state.last_slot(), here, is_lost: state.lost_since(&me).is_some() }
    }
}
