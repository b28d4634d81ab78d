//! Whose containers these are.

use veil_protocol_spec::{PeerIdHash, scheduling::ClusterScope};

/// Whose containers these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub scope: ClusterScope,
    /// The worker in it.
    pub worker: PeerIdHash,
}
