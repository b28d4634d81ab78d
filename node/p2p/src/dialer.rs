//! When to dial whom again: exponential backoff with jitter, for as long as a peer is registered.

use core::time::Duration;
use std::{collections::HashMap, time::Instant};

use libp2p::PeerId;
use rand::Rng;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    next: Instant,
}

/// The state of all redials.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    waiting: HashMap<PeerId, Backoff>,
}

impl Dialer {
    /// Whether it is time to dial this peer.
    pub(crate) fn is_due(&self, peer: &PeerId, now: Instant) -> bool {
        self.waiting.get(peer).is_none_or(|backoff| backoff.next <= now)
    }

    /// A dial starts: the next one waits, longer each time.
    pub(crate) fn attempt(&mut self, peer: PeerId, now: Instant) {
        let backoff = self.waiting.entry(peer).or_insert(Backoff { failures: 0, next: now });
        let step = FIRST.saturating_mul(1 << backoff.failures.min(8)).min(LONGEST);
        backoff.failures = backoff.failures.saturating_add(1);
        backoff.next = now + step.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
    }

    /// The peer talks to this node, or states new addresses: the next dial may come at once.
    pub(crate) fn reset(&mut self, peer: &PeerId) {
        self.waiting.remove(peer);
    }

    /// Forgets peers that are no longer registered.
    pub(crate) fn retain(&mut self, registered: impl Fn(&PeerId) -> bool) {
        self.waiting.retain(|peer, _| registered(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_become_rarer_until_the_peer_answers() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut dialer = Dialer::default();
        assert!(dialer.is_due(&peer, now));
        dialer.attempt(peer, now);
        assert!(!dialer.is_due(&peer, now));
        assert!(dialer.is_due(&peer, now + FIRST));
        for _ in 0..40 {
            dialer.attempt(peer, now);
        }
        assert!(!dialer.is_due(&peer, now + LONGEST / 2 - Duration::from_millis(1)));
        assert!(dialer.is_due(&peer, now + LONGEST));
        dialer.reset(&peer);
        assert!(dialer.is_due(&peer, now));
    }
}
