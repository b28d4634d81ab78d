//! The connections to each peer, and when to begin anew with one.
//!
//! Gossipsub tells a peer the subscriptions on its first connection only, and takes what it knows of the
//! peer for true as long as one is left. A node that was killed and is back before its old connection has
//! timed out, or that lost the connection on its side alone, would be told nothing on its new one, and
//! could send no gossip until the other side forgets it, too. So both sides begin anew then: all
//! connections to the peer are closed, and the next one is the first again.
//!
//! A node dials only peers that it has no connection to. A further connection therefore means either that
//! both sides dialled at once, which takes no longer than [`SIMULTANEOUS`], or that the peer has forgotten
//! the others.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

/// Two dials at once, and several addresses in one dial, end within this time.
const SIMULTANEOUS: Duration = Duration::from_secs(3);
/// Least time between two beginnings for a further connection. Where every dial takes longer than
/// [`SIMULTANEOUS`], there would be no end of them.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// A peer with at least one connection.
#[derive(Debug)]
struct Link {
    /// The oldest first.
    connections: Vec<ConnectionId>,
    since: Instant,
    /// The peer has sent a message on one of them.
    talks: bool,
}

/// What a new connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// There was none before.
    First,
    /// It is one more.
    Further,
    /// The peer has forgotten the others: close all.
    Forgotten,
}

/// What a closed connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It was the last.
    Last {
        /// The peer has sent a message since the first connection.
        talked: bool,
    },
    /// Others are left.
    OneOfSeveral,
    /// It was the one on which the peers told each other their subscriptions; those that are left may be of
    /// a later run of the peer: close them.
    Oldest,
    /// It was not known.
    Unknown,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Links {
    links: HashMap<PeerId, Link>,
    renewed: HashMap<PeerId, Instant>,
}

impl Links {
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.links.keys()
    }

    /// How many connections there are to a peer.
    pub(super) fn connections(&self, peer: &PeerId) -> usize {
        self.links.get(peer).map_or(0, |link| link.connections.len())
    }

    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> Opened {
        let link = self.links.entry(peer).or_insert_with(|| Link {
            connections: Vec::new(),
            since: now,
            talks: false,
        });
        link.connections.push(connection);
        if link.connections.len() == 1 {
            return Opened::First;
        }
        self.renewed.retain(|_, at| now.duration_since(*at) < RENEWAL_INTERVAL);
        if now.duration_since(link.since) <= SIMULTANEOUS || self.renewed.contains_key(&peer) {
            return Opened::Further;
        }
        self.renewed.insert(peer, now);
        Opened::Forgotten
    }

    pub(super) fn closed(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        now: Instant,
    ) -> Closed {
        let Some(link) = self.links.get_mut(peer) else { return Closed::Unknown };
        let oldest = link.connections.first() == Some(&connection);
        link.connections.retain(|known| *known != connection);
        if link.connections.is_empty() {
            let talked = link.talks;
            self.links.remove(peer);
            return Closed::Last { talked };
        }
        let simultaneous = now.duration_since(link.since) <= SIMULTANEOUS;
        if oldest && !simultaneous { Closed::Oldest } else { Closed::OneOfSeveral }
    }

    /// The peer has sent a message. Whether that is its first since it was connected.
    pub(super) fn talks(&mut self, peer: &PeerId) -> bool {
        self.links.get_mut(peer).is_some_and(|link| !core::mem::replace(&mut link.talks, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(4);

    fn connection(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn dials_at_once_are_no_reason_to_begin_anew() {
        let (mut links, peer, now) = (Links::default(), PeerId::random(), Instant::now());
        assert_eq!(links.opened(peer, connection(1), now), Opened::First);
        assert_eq!(links.opened(peer, connection(2), now + SIMULTANEOUS), Opened::Further);
        // The peer gives one of two addresses up that it dialled in one go.
        assert_eq!(links.closed(&peer, connection(1), now + SIMULTANEOUS), Closed::OneOfSeveral);
        assert_eq!(links.connections(&peer), 1);
        assert!(links.talks(&peer) && !links.talks(&peer));
        let last = links.closed(&peer, connection(2), now + LATER);
        assert_eq!(last, Closed::Last { talked: true });
        assert_eq!(links.closed(&peer, connection(2), now + LATER), Closed::Unknown);
    }

    #[test]
    fn a_peer_that_forgot_its_connection_begins_anew() {
        let (mut links, peer, now) = (Links::default(), PeerId::random(), Instant::now());
        links.opened(peer, connection(1), now);
        assert_eq!(links.opened(peer, connection(2), now + LATER), Opened::Forgotten);
        links.closed(&peer, connection(1), now + LATER);
        let last = links.closed(&peer, connection(2), now + LATER);
        assert_eq!(last, Closed::Last { talked: false });
        // The next ones are like any others; but where dials take long, both sides do not go on for ever.
        let again = now + LATER;
        assert_eq!(links.opened(peer, connection(3), again), Opened::First);
        assert_eq!(links.opened(peer, connection(4), again + LATER), Opened::Further);
        let another = PeerId::random();
        links.opened(another, connection(5), again);
        assert_eq!(links.opened(another, connection(6), again + LATER), Opened::Forgotten);
        let much_later = again + RENEWAL_INTERVAL;
        assert_eq!(links.opened(peer, connection(7), much_later), Opened::Forgotten);
    }

    #[test]
    fn what_outlives_the_oldest_connection_begins_anew() {
        let (mut links, peer, now) = (Links::default(), PeerId::random(), Instant::now());
        for n in 1..=3 {
            links.opened(peer, connection(n), now);
        }
        assert_eq!(links.closed(&peer, connection(2), now + LATER), Closed::OneOfSeveral);
        assert_eq!(links.closed(&peer, connection(1), now + LATER), Closed::Oldest);
        assert_eq!(links.connections(&peer), 1);
    }
}
