//! Telemetry on its way from workers to members, and what members make of it.
//!
//! Messages are not made and verified as bytes here: a thousand workers for a thousand slots would be
//! millions of signatures. What decides about a message is the same as in
//! [`Pool`](veil_committee_slot::pool::Pool), which has tests of its own.

use veil_committee_machine::Millis;
use veil_committee_slot::{
    manifest::TelemetryRef,
    pool::{MAX_AHEAD, Refusal},
};
use veil_protocol_spec::{
    MAX_PARTICIPANTS, PeerIdHash,
    identity::InvalidSignature,
    scheduling::{Reading, TelemetryError, UnixMillis},
};

/// When the world begins, by a clock that is right.
const EPOCH: u64 = 1_700_000_000_000;
/// How old a sample may be.
pub(super) const MAX_AGE: Millis = 120_000;

/// A wall clock: how far it is off, in milliseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Clock(pub(super) i64);

impl Clock {
    pub(super) const fn at(self, now: Millis) -> UnixMillis {
        UnixMillis((EPOCH + now).saturating_add_signed(self.0))
    }
}

/// What is wrong with a message, so that every member refuses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Signature,
    Stale,
    NotRegistered,
}

impl Flaw {
    pub(super) fn refusal(self, sender: PeerIdHash) -> Refusal {
        match self {
            Self::Signature => TelemetryError::Signature(InvalidSignature).into(),
            Self::Stale => Refusal::Stale { sender, given: 1, last: 1 },
            Self::NotRegistered => Refusal::NotAWorker(sender),
        }
    }
}

/// One message of a worker: what members compare, what only the worker knows, and when each member has
/// it.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) telemetry: TelemetryRef,
    pub(super) reading: Reading,
    arrives: [Option<Millis>; MAX_PARTICIPANTS],
}

impl Sample {
    /// Sends a message at `now` to the members for which `to` says so. `refused` is told of each that
    /// refuses it.
    pub(super) fn send(
        (telemetry, reading): (TelemetryRef, Reading),
        clocks: &[Clock],
        to: impl Fn(usize) -> bool,
        loss: u8,
        now: Millis,
        mut refused: impl FnMut(Refusal),
    ) -> Self {
        let mut arrives = [None; MAX_PARTICIPANTS];
        let digest = telemetry.entry.digest.0;
        for (j, (arrives, clock)) in arrives.iter_mut().zip(clocks).enumerate() {
            // Luck and latency follow from the message.
            let lost = digest[j % 32] < loss;
            if lost || !to(j) {
                continue;
            }
            let at = now + Millis::from(digest[(j + 7) % 32]) * 4;
            let (here, sampled) = (clock.at(at).0, telemetry.sampled_at.0);
            let sender = telemetry.entry.sender;
            let (ahead_ms, age_ms) = (sampled.saturating_sub(here), here.saturating_sub(sampled));
            if ahead_ms > MAX_AHEAD.0 {
                refused(Refusal::Ahead { sender, ahead_ms });
            } else if age_ms > MAX_AGE {
                refused(Refusal::Old { sender, age_ms, max_ms: MAX_AGE });
            } else {
                *arrives = Some(at);
            }
        }
        Self { telemetry, reading, arrives }
    }

    /// Whether a member has it, and it is not too old by the member's clock.
    pub(super) fn is_fresh(&self, j: usize, clock: Clock, now: Millis) -> bool {
        let age = clock.at(now).0.saturating_sub(self.telemetry.sampled_at.0);
        self.arrives[j].is_some_and(|at| at <= now) && age <= MAX_AGE
    }
}
