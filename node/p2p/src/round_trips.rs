//! Round trips to the connected peers: the last one of each, as libp2p's ping measures it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use veil_protocol_spec::PeerIdHash;

/// The shared round trips.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrips(Arc<Mutex<BTreeMap<PeerIdHash, Duration>>>);

impl RoundTrips {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerIdHash, Duration>> {
        // Each entry is valid on its own, also after the panic of another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, peer: PeerIdHash, round_trip: Duration) {
        self.lock().insert(peer, round_trip);
    }

    pub(crate) fn forget(&self, peer: &PeerIdHash) {
        self.lock().remove(peer);
    }

    /// The upper median: of two peers the slower one counts.
    pub(crate) fn median(&self) -> Option<Duration> {
        let mut all: Vec<_> = self.lock().values().copied().collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_upper_one_of_the_connected_peers() {
        let trips = RoundTrips::default();
        assert_eq!(trips.median(), None);
        for (peer, millis) in [(1, 5), (2, 40), (3, 9), (1, 7)] {
            trips.record(PeerIdHash([peer; 32]), Duration::from_millis(millis));
        }
        assert_eq!(trips.median(), Some(Duration::from_millis(9)));
        trips.forget(&PeerIdHash([3; 32]));
        assert_eq!(trips.median(), Some(Duration::from_millis(40)));
    }
}
