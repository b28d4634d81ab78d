//! What could not be placed is tried again, less and less often: what never fits must not cost a slot
//! and a transaction at every interval.
//!
//! Which replicas are tried in a slot follows from what the state remembers of tries ([`turn`]), so it is the
//! same for everybody. When a slot begins of which nothing new is asked ([`pause`]) is up to each member's
//! clock.

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{ClusterState, Returned},
};

/// How often the wait for another try doubles: to 64 slots, or 64 intervals.
const MAX_DOUBLINGS: u64 = 6;

/// When a replica that wants a place is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As soon as possible: it was not tried, or something has changed since that could help.
    Now,
    /// In any slot that is held for another one.
    Along,
    /// Not before others have had slots, or an interval has passed.
    Later,
}

/// When that is for one replica. `all_wake` says whether a candidate or the policy is new to the state, which
/// could help all that wait ([`ClusterState::is_woken_by`]). `returned` is how the replica was given back last, if that
/// is remembered: who gives it back again and again does not cost a slot each time, whatever else has changed.
#[must_use]
pub fn turn(
    state: &ClusterState,
    job: Blake3Digest,
    replica: ReplicaIndex,
    all_wake: bool,
    returned: Option<&Returned>,
) -> Turn {
    // Slots that ended void are not counted: after them the same replicas are listed.
    let next = state.last_decided().0 + 1;
    if returned.is_some_and(|returned| next < returned.due().0) {
        return Turn::Later;
    }
    let Some(tried) = state.last_tried(job, replica) else { return Turn::Now };
    let failures = u64::from(state.failures(job, replica));
    if all_wake || failures == 0 || tried <= state.last_freed() {
        Turn::Now
    } else if next >= tried.0.saturating_add(1 << failures.min(MAX_DOUBLINGS)) {
        Turn::Along
    } else {
        Turn::Later
    }
}

/// How often it has failed to place a replica, or to keep it where it was placed.
#[must_use]
pub fn failures(
    state: &ClusterState,
    job: Blake3Digest,
    replica: ReplicaIndex,
    returned: Option<&Returned>,
) -> u8 {
    state.failures(job, replica).max(returned.map_or(0, Returned::failures))
}

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
