//! When to dial a peer again: exponential backoff with jitter, as long as the peer is registered.

use core::time::Duration;
use std::{collections::HashMap, time::Instant};

use libp2p::PeerId;
use rand::Rng;

const FIRST_REDIAL_DELAY: Duration = Duration::from_millis(250);
const MAX_REDIAL_DELAY: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    next: Instant,
}

/// The backoff of each peer that was dialled in vain.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    waiting: HashMap<PeerId, Backoff>,
}

impl Dialer {
    /// Whether it is time to dial this peer.
    pub(crate) fn is_due(&self, peer: &PeerId, now: Instant) -> bool {
        self.waiting.get(peer).is_none_or(|backoff| backoff.next <= now)
    }

    /// Records a dial: each one delays the next one longer.
    pub(crate) fn attempt(&mut self, peer: PeerId, now: Instant) {
        let backoff = self.waiting.entry(peer).or_insert(Backoff { failures: 0, next: now });
        let step =
            FIRST_REDIAL_DELAY.saturating_mul(1 << backoff.failures.min(8)).min(MAX_REDIAL_DELAY);
        backoff.failures = backoff.failures.saturating_add(1);
        backoff.next = now + step.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
    }

    /// Ends the backoff: the peer has sent a message or stated new addresses.
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
        assert!(dialer.is_due(&peer, now + FIRST_REDIAL_DELAY));
        for _ in 0..40 {
            dialer.attempt(peer, now);
        }
        assert!(!dialer.is_due(&peer, now + MAX_REDIAL_DELAY / 2 - Duration::from_millis(1)));
        assert!(dialer.is_due(&peer, now + MAX_REDIAL_DELAY));
        dialer.reset(&peer);
        assert!(dialer.is_due(&peer, now));
    }
}
