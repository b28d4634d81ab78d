//! Whose machine runs, on which clock, and how much may wait for the others.

use std::time::Duration;

use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::clock::Clock;

/// Whose machine it is, and how much may wait for the others.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// The committee.
    pub committee: Committee,
    /// This participant.
    pub me: ParticipantIndex,
    /// The machine's clock.
    pub clock: Clock,
    /// Bounds of the queues.
    pub queues: QueueLimits,
}

impl DriverConfig {
    /// With a clock that starts now and the usual bounds.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex) -> Self {
        Self { committee, me, clock: Clock::start(), queues: QueueLimits::default() }
    }
}

/// How much may wait for one participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes in the queue; one message always fits.
    pub bytes: usize,
    /// Messages in the queue.
    pub messages: usize,
    /// Messages that wait for their acknowledgement at once.
    pub in_flight: usize,
    /// Tries after the first.
    pub retries: usize,
    /// Pause before the first of them; it doubles each time, with jitter.
    pub pause: Duration,
}

impl Default for QueueLimits {
    /// 32 MiB hold four times the chunks that a ceremony asks for ahead.
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            messages: 4096,
            in_flight: 4,
            retries: 3,
            pause: Duration::from_millis(200),
        }
    }
}
