//! Workers that deviate.

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_slot::pool::MAX_AHEAD;

use super::telemetry::MAX_AGE;

/// What a worker does that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerBehaviour {
    /// Sends one half of the members message k, the others message k+1.
    Split,
    /// Sends each message to one member.
    Whisper,
    /// Sends telemetry all the time.
    Flood,
    /// Is connected and sends no telemetry.
    Mute,
    /// Sends telemetry whose signature does not verify.
    Forge,
    /// Sends old telemetry again.
    Repeat,
    /// Claims to know a slot that there has not been.
    ClaimFuture,
    /// Never says that it knows what was assigned to it.
    IgnoreAssignments,
    /// Counts in the scale of another policy.
    OtherPolicy,
    /// Says that everything it has is free.
    Boast,
    /// Says that everything has ended that anybody runs.
    ClaimEnded,
    /// Says that it gives back everything that anybody runs, and has stopped it.
    GiveAllBack,
    /// Says of others that they are down.
    Accuse,
    /// Is gone again and again, for less than the grace.
    Flap,
    /// Its clock is further ahead than members allow.
    ClockAhead,
    /// Its clock is further behind than members allow.
    ClockBehind,
}

impl WorkerBehaviour {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Split,
        Self::Whisper,
        Self::Flood,
        Self::Mute,
        Self::Forge,
        Self::Repeat,
        Self::ClaimFuture,
        Self::IgnoreAssignments,
        Self::OtherPolicy,
        Self::Boast,
        Self::ClaimEnded,
        Self::GiveAllBack,
        Self::Accuse,
        Self::Flap,
        Self::ClockAhead,
        Self::ClockBehind,
    ];

    /// How far its clock is off, in milliseconds, if that is what it does.
    pub(super) const fn clock(self) -> Option<i64> {
        const BEYOND: Millis = 60_000;
        match self {
            Self::ClockAhead => Some((MAX_AHEAD.0 + BEYOND) as i64),
            Self::ClockBehind => Some(-((MAX_AGE + BEYOND) as i64)),
            _ => None,
        }
    }
}
