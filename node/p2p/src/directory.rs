//! The registered peers of a cluster, as the chain states them.

use std::collections::BTreeMap;

use veil_protocol_spec::{PeerIdHash, PublicIdentity, registry::Roles};

/// A registered peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key, from which its libp2p peer id and its [`PeerIdHash`] follow.
    pub identity: PublicIdentity,
    /// What it is entitled to do.
    pub roles: Roles,
}

/// The registered peers of a cluster. The reader of the chain publishes a new directory on a watch
/// channel; the network connects to the peers that joined it and disconnects those that left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    peers: BTreeMap<PeerIdHash, Peer>,
}

impl Directory {
    /// The peer that is registered under `id`.
    #[must_use]
    pub fn get(&self, id: &PeerIdHash) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Whether `id` is registered.
    #[must_use]
    pub fn contains(&self, id: &PeerIdHash) -> bool {
        self.peers.contains_key(id)
    }

    /// All peers, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerIdHash, &Peer)> {
        self.peers.iter()
    }

    /// Number of registered peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no peer is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// Computes the id of each peer from its key: the two cannot disagree.
impl FromIterator<Peer> for Directory {
    fn from_iter<I: IntoIterator<Item = Peer>>(peers: I) -> Self {
        let peers = peers.into_iter().map(|peer| (PeerIdHash::of(&peer.identity), peer));
        Self { peers: peers.collect() }
    }
}
