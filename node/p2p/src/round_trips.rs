//! Round trips to the connected peers, and when each peer was heard last, as libp2p's ping measures it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use veil_protocol_spec::PeerIdHash;

/// How long it is known of a peer that has gone when it was heard last.
const KEPT: Duration = Duration::from_secs(3600);

/// What is known of one peer.
#[derive(Clone, Copy, Debug)]
struct Contact {
    /// The last one; `None` before the first, and without a connection.
    round_trip: Option<Duration>,
    heard: Instant,
}

/// The shared round trips.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrips(Arc<Mutex<BTreeMap<PeerIdHash, Contact>>>);

impl RoundTrips {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerIdHash, Contact>> {
        // Each entry is valid on its own, also after the panic of another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to a peer is open, or a ping was answered after that time.
    pub(crate) fn record(&self, peer: PeerIdHash, round_trip: Option<Duration>, now: Instant) {
        let mut contacts = self.lock();
        let contact = contacts.entry(peer).or_insert(Contact { round_trip, heard: now });
        *contact = Contact { round_trip: round_trip.or(contact.round_trip), heard: now };
    }

    /// No connection to the peer is open any more.
    pub(crate) fn closed(&self, peer: &PeerIdHash, now: Instant) {
        let mut contacts = self.lock();
        if let Some(contact) = contacts.get_mut(peer) {
            contact.round_trip = None;
        }
        contacts.retain(|_, contact| {
            contact.round_trip.is_some() || now.duration_since(contact.heard) < KEPT
        });
    }

    /// When the peer answered last.
    pub(crate) fn heard(&self, peer: &PeerIdHash) -> Option<Instant> {
        self.lock().get(peer).map(|contact| contact.heard)
    }

    /// The upper median: of two peers the slower one counts.
    pub(crate) fn median(&self) -> Option<Duration> {
        let mut all: Vec<_> =
            self.lock().values().filter_map(|contact| contact.round_trip).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    #[test]
    fn the_median_is_the_upper_one_of_the_connected_peers() {
        let (trips, now) = (RoundTrips::default(), Instant::now());
        assert_eq!(trips.median(), None);
        for (j, millis) in [(1, 5), (2, 40), (3, 9), (1, 7)] {
            trips.record(peer(j), Some(Duration::from_millis(millis)), now);
        }
        trips.record(peer(4), None, now);
        assert_eq!(trips.median(), Some(Duration::from_millis(9)));
        trips.closed(&peer(3), now);
        assert_eq!(trips.median(), Some(Duration::from_millis(40)));
    }

    #[test]
    fn when_a_peer_was_heard_last_is_known_after_it_has_gone_for_a_while() {
        let (trips, start) = (RoundTrips::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trips.heard(&peer(1)), None);
        trips.record(peer(1), None, at(0));
        trips.record(peer(1), Some(Duration::from_millis(3)), at(5));
        trips.closed(&peer(1), at(15));
        assert_eq!(trips.heard(&peer(1)), Some(at(5)));
        trips.closed(&peer(2), at(4000));
        assert_eq!(trips.heard(&peer(1)), None);
    }
}
