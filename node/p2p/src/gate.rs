//! The registry gate and the address book, as a libp2p behaviour.
//!
//! It refuses connections, in either direction, with peers that are not in the directory, closes
//! those with peers that have left it, and gives the swarm the addresses of a peer to dial.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol as Part,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use veil_protocol_spec::PeerIdHash;

use crate::{directory::Directory, identity::peer_id};

/// The peer is not registered in this cluster.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("peer {0} is not registered in this cluster")]
pub(crate) struct NotRegistered(pub(crate) PeerId);

#[derive(Debug)]
struct Entry {
    hash: PeerIdHash,
    addresses: Vec<Multiaddr>,
}

/// The registered peers, their addresses, and the connections to close.
#[derive(Debug)]
pub(crate) struct Gate {
    me: PeerId,
    /// Registered peers, this node included.
    entries: HashMap<PeerId, Entry>,
    by_hash: BTreeMap<PeerIdHash, PeerId>,
    /// Addresses from the configuration, tried beside those that a peer states.
    bootstrap: Vec<(PeerId, Multiaddr)>,
    close: VecDeque<PeerId>,
    waker: Option<Waker>,
}

impl Gate {
    pub(crate) fn new(me: PeerId, bootstrap: Vec<(PeerId, Multiaddr)>) -> Self {
        Self {
            me,
            entries: HashMap::new(),
            by_hash: BTreeMap::new(),
            bootstrap,
            close: VecDeque::new(),
            waker: None,
        }
    }

    /// Replaces the directory, and closes the connections of peers that have left it.
    pub(crate) fn update(&mut self, directory: &Directory) {
        let mut old: HashMap<PeerId, Entry> = std::mem::take(&mut self.entries);
        self.by_hash.clear();
        for (hash, peer) in directory.iter() {
            match peer_id(&peer.identity) {
                Ok(id) => {
                    let addresses = old.remove(&id).map(|entry| entry.addresses);
                    let addresses = addresses.unwrap_or_default();
                    self.entries.insert(id, Entry { hash: *hash, addresses });
                    self.by_hash.insert(*hash, id);
                }
                Err(reason) => tracing::warn!(peer = %hash, %reason, "skipped a registered peer"),
            }
        }
        let gone: HashSet<PeerId> = old.into_keys().collect();
        self.close.extend(gone);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn hash_of(&self, peer: &PeerId) -> Option<PeerIdHash> {
        self.entries.get(peer).map(|entry| entry.hash)
    }

    pub(crate) fn peer_of(&self, hash: &PeerIdHash) -> Option<PeerId> {
        self.by_hash.get(hash).copied()
    }

    /// Replaces the addresses that the peer itself states.
    pub(crate) fn learn(&mut self, peer: &PeerIdHash, addresses: Vec<Multiaddr>) {
        let id = self.by_hash.get(peer);
        if let Some(entry) = id.and_then(|id| self.entries.get_mut(id)) {
            entry.addresses = addresses;
        }
    }

    /// The registered peers with a known address, without this node.
    pub(crate) fn reachable(&self) -> impl Iterator<Item = PeerId> {
        self.entries
            .iter()
            .filter(|(peer, entry)| {
                **peer != self.me
                    && (!entry.addresses.is_empty()
                        || self.bootstrap.iter().any(|(known, _)| known == *peer))
            })
            .map(|(peer, _)| *peer)
    }

    fn check(&self, peer: PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        if self.entries.contains_key(&peer) {
            Ok(dummy::ConnectionHandler)
        } else {
            Err(ConnectionDenied::new(NotRegistered(peer)))
        }
    }
}

/// Splits `/…/p2p/<peer id>` into address and peer id.
pub(crate) fn split_peer(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut address = address.clone();
    match address.pop() {
        Some(Part::P2p(peer)) if !address.is_empty() => Some((peer, address)),
        _ => None,
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some(peer) = peer else { return Ok(Vec::new()) };
        let Some(entry) = self.entries.get(&peer) else {
            return Err(ConnectionDenied::new(NotRegistered(peer)));
        };
        let configured = self.bootstrap.iter().filter(|(known, _)| *known == peer);
        let configured = configured.map(|(_, address)| address);
        Ok(entry.addresses.iter().chain(configured).cloned().collect())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.close.pop_front() {
            let connection = CloseConnection::All;
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
