//! What could not be placed is tried again, less and less often: what never fits must not cost a slot
//! and a transaction at every interval.
//!
//! Which replicas are tried in a slot is a rule of the state
//! ([`ClusterState::next_replicas`](veil_protocol_spec::scheduling::ClusterState::next_replicas)), the same
//! for everybody. When a slot begins of which nothing new is asked is up to each member's clock.

use veil_committee_machine::Millis;

/// How often the wait for another try doubles: to 64 intervals.
const MAX_DOUBLINGS: u64 = 6;

/// How long after the last slot one is due that only tries again what has failed that often.
#[must_use]
pub const fn pause(failures: u64, interval: Millis) -> Millis {
    let doublings = failures.saturating_sub(1);
    let doublings = if doublings < MAX_DOUBLINGS { doublings } else { MAX_DOUBLINGS };
    interval.saturating_mul(1 << doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_that_fails_doubles_the_wait() {
        let waits: Vec<_> = (0..=9).map(|failures| pause(failures, 10_000) / 1000).collect();
        assert_eq!(waits, [10, 10, 20, 40, 80, 160, 320, 640, 640, 640]);
        assert_eq!(pause(u64::MAX, Millis::MAX), Millis::MAX);
    }
}
