//! What SWIM knows of the other peers.

use std::collections::{BTreeMap, btree_map};

use veil_protocol_spec::{PeerIdHash, scheduling::UnixMillis};

/// What SWIM knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The peer answers.
    Alive,
    /// The peer did not answer a probe and may still refute the suspicion.
    Suspect,
    /// The peer was declared dead, or it left.
    Down {
        /// When this node learned it, by its own clock.
        since: UnixMillis,
    },
}

/// The health of the other registered peers, as SWIM knows it. A peer that was never seen is not in
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    pub(super) peers: BTreeMap<PeerIdHash, Health>,
    pub(super) superseded: bool,
}

impl Liveness {
    /// The health of one peer; `None` if it was never seen.
    #[must_use]
    pub fn get(&self, peer: &PeerIdHash) -> Option<Health> {
        self.peers.get(peer).copied()
    }

    /// Whether the peer is alive, or suspected but not yet down.
    #[must_use]
    pub fn is_up(&self, peer: &PeerIdHash) -> bool {
        matches!(self.get(peer), Some(Health::Alive | Health::Suspect))
    }

    /// Whether a later incarnation of this node has joined: it speaks for this node's identity from then on.
    #[must_use]
    pub const fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// All peers that were seen, in the order of their ids.
    pub fn iter(&self) -> btree_map::Iter<'_, PeerIdHash, Health> {
        self.peers.iter()
    }
}
