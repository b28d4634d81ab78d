//! Who is registered: the cluster's peers as the chain states them.

use std::collections::BTreeMap;

pub use veil_protocol_spec::registry::Roles;
use veil_protocol_spec::{PeerIdHash, PublicIdentity};

/// A registered peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key; the libp2p peer id follows from it.
    pub identity: PublicIdentity,
    /// What it may do.
    pub roles: Roles,
}

/// The registered peers of a cluster. Whoever reads the chain publishes a new one on a watch
/// channel; the network connects to those who came and disconnects those who went.
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

    /// The registered workers.
    pub fn workers(&self) -> impl Iterator<Item = (&PeerIdHash, &Peer)> {
        self.iter().filter(|(_, peer)| peer.roles.worker)
    }

    /// The committee.
    pub fn members(&self) -> impl Iterator<Item = (&PeerIdHash, &Peer)> {
        self.iter().filter(|(_, peer)| peer.roles.member)
    }

    /// Number of registered peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// The id of a peer is computed from its key here, so that the two cannot disagree.
impl FromIterator<Peer> for Directory {
    fn from_iter<I: IntoIterator<Item = Peer>>(peers: I) -> Self {
        let peers = peers.into_iter().map(|peer| (PeerIdHash::of(&peer.identity), peer));
        Self { peers: peers.collect() }
    }
}
