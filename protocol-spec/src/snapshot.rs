//! The state after a slot, for nodes that do not follow the slots before it.
//!
//! # Flow
//! A node that has a ledger gives its last record and the state after it. Who takes it checks the record
//! like any other (structure, lock, the group's signature), and then
//! [`certified`](StateSnapshot::certified): the certificate's state root commits to the state.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Wire,
    ids::Slot,
    scheduling::{ClusterState, SlotRecord, StateError},
};

/// A slot's record and the state after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSnapshot {
    /// The slot's record.
    pub record: SlotRecord,
    /// The state after the slot, yet without its certificate: what the certificate's state root is the
    /// root of.
    pub state: ClusterState,
}

impl Wire for StateSnapshot {
    const NAME: &'static str = "StateSnapshot";
    const MAX_BYTES: usize = SlotRecord::MAX_BYTES + ClusterState::MAX_BYTES;
    // Never hashed, and large.
    const CHECK_CANONICAL: bool = false;
}

/// Why a state is not the one after its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The certificate commits to another state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state names another block or anchored certificate than the manifest.
    #[error(
        "the state after slot {0} names another block or anchored certificate than the manifest"
    )]
    Manifest(Slot),
}

impl StateSnapshot {
    /// The state that the next slot builds on. The caller has checked the record.
    ///
    /// # Errors
    /// [`SnapshotError`] unless the certificate commits to the state.
    pub fn certified(self) -> Result<ClusterState, SnapshotError> {
        let Self { record, state } = self;
        let manifest = &record.manifest;
        // These two are in the manifest, to which the certificate commits, and not in the state's root.
        if (state.last_block(), state.last_base()) != (manifest.block.number, manifest.base) {
            return Err(SnapshotError::Manifest(manifest.slot));
        }
        Ok(state.certified(&record.certificate.body)?)
    }
}
