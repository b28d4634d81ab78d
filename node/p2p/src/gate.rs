//! The registry gate and the address book, as a libp2p behaviour.
//!
//! It refuses connections, in either direction, with peers that are not in the directory or have to wait
//! for their misbehaviour, closes those with peers that have left it, and gives the swarm the addresses
//! of a peer to dial. Of one network address it takes a few unfinished handshakes at a time: whoever
//! leaves them half open keeps out nobody elsewhere.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol as Part,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure,
        NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use veil_protocol_spec::PeerIdHash;

use crate::{
    directory::Directory,
    identity::peer_id,
    refusal::{Refusal, Standing},
};

/// Why the gate refuses a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("peer {0} is not registered in this cluster")]
    NotRegistered(PeerId),
    #[error("peer {0} has misbehaved, and has to wait")]
    Paused(PeerId),
    #[error("too many handshakes with {0} are unfinished")]
    HalfOpen(IpAddr),
}

impl Denied {
    /// The label of the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotRegistered(_) => "not_registered",
            Self::Paused(_) => "paused",
            Self::HalfOpen(_) => "half_open",
        }
    }
}

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
    standing: Standing,
    /// Incoming connections that have not proved an identity yet, and where they come from.
    half_open: HashMap<ConnectionId, IpAddr>,
    half_open_per_address: usize,
    close: VecDeque<PeerId>,
    waker: Option<Waker>,
}

impl Gate {
    pub(crate) fn new(
        me: PeerId,
        bootstrap: Vec<(PeerId, Multiaddr)>,
        half_open_per_address: usize,
    ) -> Self {
        Self {
            me,
            entries: HashMap::new(),
            by_hash: BTreeMap::new(),
            bootstrap,
            standing: Standing::default(),
            half_open: HashMap::new(),
            half_open_per_address,
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
        self.standing.retain(|peer| self.entries.contains_key(peer));
        self.close(gone);
    }

    fn close(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.close.extend(peers);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Counts a refusal against a registered peer. The length of the pause that begins, if one does: its
    /// connections are closed, and there is none until then.
    pub(crate) fn fault(
        &mut self,
        peer: PeerId,
        refusal: Refusal,
        now: Instant,
    ) -> Option<Duration> {
        if !self.entries.contains_key(&peer) {
            return None;
        }
        let pause = self.standing.fault(peer, refusal, now)?;
        self.close([peer]);
        Some(pause)
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

    /// The registered peers with a known address that need not wait, without this node.
    pub(crate) fn reachable(&self, now: Instant) -> impl Iterator<Item = PeerId> {
        self.entries
            .iter()
            .filter(move |(peer, entry)| {
                **peer != self.me
                    && !self.standing.is_paused(peer, now)
                    && (!entry.addresses.is_empty()
                        || self.bootstrap.iter().any(|(known, _)| known == *peer))
            })
            .map(|(peer, _)| *peer)
    }

    fn check(&self, peer: PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        let denied = match self.entries.get(&peer) {
            None => Denied::NotRegistered(peer),
            Some(_) if self.standing.is_paused(&peer, Instant::now()) => Denied::Paused(peer),
            Some(_) => return Ok(dummy::ConnectionHandler),
        };
        Err(ConnectionDenied::new(denied))
    }
}

/// Where a connection comes from: a host, or in version 6 the network that one host has to itself.
fn source(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Part::Ip4(ip) => Some(IpAddr::V4(ip)),
        Part::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(IpAddr::V4(ip)),
            None => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))),
        },
        _ => None,
    })
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

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(from) = source(remote) else { return Ok(()) };
        let unfinished = self.half_open.values().filter(|address| **address == from).count();
        if unfinished >= self.half_open_per_address {
            return Err(ConnectionDenied::new(Denied::HalfOpen(from)));
        }
        self.half_open.insert(connection, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.half_open.remove(&connection);
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
            return Err(ConnectionDenied::new(Denied::NotRegistered(peer)));
        };
        self.check(peer)?;
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

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event {
            self.half_open.remove(&connection_id);
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_handshakes_are_bounded_for_each_address_alone() {
        let mut gate = Gate::new(PeerId::random(), Vec::new(), 2);
        let (local, mut id) = (Multiaddr::empty(), 0);
        let mut open = |gate: &mut Gate, from: &str| {
            id += 1;
            let connection = ConnectionId::new_unchecked(id);
            let opened =
                gate.handle_pending_inbound_connection(connection, &local, &from.parse().unwrap());
            opened.map(|()| connection)
        };
        let first = open(&mut gate, "/ip4/192.0.2.1/tcp/1").unwrap();
        open(&mut gate, "/ip4/192.0.2.1/udp/2/quic-v1").unwrap();
        let denied = open(&mut gate, "/ip4/192.0.2.1/tcp/3").unwrap_err();
        let denied = denied.downcast::<Denied>().unwrap();
        assert_eq!(denied.name(), "half_open");
        open(&mut gate, "/ip4/192.0.2.2/tcp/1").unwrap();
        // One that proves an identity is not half open any more, whoever it turns out to be.
        let peer = PeerId::random();
        assert!(gate.handle_established_inbound_connection(first, peer, &local, &local).is_err());
        open(&mut gate, "/ip4/192.0.2.1/tcp/4").unwrap();
        // One network of version 6 is one source.
        for host in ["/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::2/tcp/1"] {
            open(&mut gate, host).unwrap();
        }
        assert!(open(&mut gate, "/ip6/2001:db8::3/tcp/1").is_err());
        open(&mut gate, "/ip6/2001:db8:1::1/tcp/1").unwrap();
    }
}
