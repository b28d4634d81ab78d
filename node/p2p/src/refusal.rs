//! Why something from a peer is refused, and what that costs the peer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// A refusal; its name is the label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is not in the format of this version of the protocol")]
    Malformed,
    #[error("it is longer than the protocol allows")]
    TooLong,
    #[error("it speaks in another peer's name")]
    Forged,
    #[error("only members of the committee may send it")]
    NotAMember,
    #[error("only workers may open it")]
    NotAWorker,
    #[error("messages come faster than one peer may send them")]
    TooOften,
    #[error("bytes come faster than one peer may send them")]
    TooMuch,
    #[error("too many streams of this peer are open")]
    TooManyStreams,
    #[error("the peer has left the registry")]
    NotRegistered,
    #[error("its author is not in the registry")]
    UnknownAuthor,
    #[error("the queue of those that wait is full")]
    QueueFull,
    #[error("nothing serves the protocol here")]
    NotServed,
}

impl Refusal {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Forged => "forged",
            Self::NotAMember => "not_a_member",
            Self::NotAWorker => "not_a_worker",
            Self::TooOften => "too_often",
            Self::TooMuch => "too_much",
            Self::TooManyStreams => "too_many_streams",
            Self::NotRegistered => "not_registered",
            Self::UnknownAuthor => "unknown_author",
            Self::QueueFull => "queue_full",
            Self::NotServed => "not_served",
        }
    }

    /// What it counts against the peer. What an honest peer can cause counts nothing: its view of the
    /// chain may be another, and a queue here may be full.
    const fn points(self) -> f64 {
        match self {
            Self::Malformed | Self::TooLong | Self::Forged => 10.0,
            // A new member may be ahead of others' view of the chain for some blocks.
            Self::NotAMember
            | Self::NotAWorker
            | Self::TooOften
            | Self::TooMuch
            | Self::TooManyStreams => 1.0,
            Self::NotRegistered | Self::UnknownAuthor | Self::QueueFull | Self::NotServed => 0.0,
        }
    }
}

/// With as many points a peer is disconnected for a while.
const LIMIT: f64 = 100.0;
/// Points that are forgiven in a second.
const FORGIVEN: f64 = 1.0;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// After as long without a pause, the next one is a first one again.
const FORGET_PAUSES: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug)]
struct Record {
    points: f64,
    at: Instant,
    pauses: u32,
    paused_until: Option<Instant>,
}

/// What the registered peers have on their account.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    records: HashMap<PeerId, Record>,
}

impl Standing {
    /// Counts a refusal against a peer. The length of the pause that begins, if one does.
    pub(crate) fn fault(
        &mut self,
        peer: PeerId,
        refusal: Refusal,
        now: Instant,
    ) -> Option<Duration> {
        let points = refusal.points();
        if points <= 0.0 || self.is_paused(&peer, now) {
            return None;
        }
        let new = Record { points: 0.0, at: now, pauses: 0, paused_until: None };
        let record = self.records.entry(peer).or_insert(new);
        let forgiven = now.saturating_duration_since(record.at).as_secs_f64() * FORGIVEN;
        record.points = (record.points - forgiven).max(0.0) + points;
        record.at = now;
        if record.points < LIMIT {
            return None;
        }
        let quiet = record.paused_until.map(|until| now.saturating_duration_since(until));
        if quiet.is_some_and(|quiet| quiet >= FORGET_PAUSES) {
            record.pauses = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << record.pauses.min(16)).min(MAX_PAUSE);
        *record = Record {
            points: 0.0,
            at: now,
            pauses: record.pauses.saturating_add(1),
            paused_until: Some(now + pause),
        };
        Some(pause)
    }

    pub(crate) fn is_paused(&self, peer: &PeerId, now: Instant) -> bool {
        let until = self.records.get(peer).and_then(|record| record.paused_until);
        until.is_some_and(|until| now < until)
    }

    /// Forgets peers that are no longer registered.
    pub(crate) fn retain(&mut self, registered: impl Fn(&PeerId) -> bool) {
        self.records.retain(|peer, _| registered(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_grow_and_are_forgotten_after_a_good_while() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut standing = Standing::default();
        let misbehave = |standing: &mut Standing, now| {
            (0..1000).find_map(|_| standing.fault(peer, Refusal::Malformed, now))
        };
        assert_eq!(misbehave(&mut standing, start), Some(seconds(10)));
        assert!(standing.is_paused(&peer, start + seconds(9)));
        assert_eq!(misbehave(&mut standing, start + seconds(9)), None, "paused already");
        assert!(!standing.is_paused(&peer, start + seconds(10)));
        assert_eq!(misbehave(&mut standing, start + seconds(10)), Some(seconds(20)));
        assert_eq!(misbehave(&mut standing, start + seconds(30)), Some(seconds(40)));
        assert_eq!(misbehave(&mut standing, start + seconds(70 + 3600)), Some(seconds(10)));
    }

    #[test]
    fn what_is_rare_or_honest_costs_nothing() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut standing = Standing::default();
        for second in 0..10_000 {
            let now = start + seconds(second);
            assert_eq!(standing.fault(peer, Refusal::TooOften, now), None);
            for honest in [Refusal::QueueFull, Refusal::NotRegistered, Refusal::NotServed] {
                assert_eq!(standing.fault(peer, honest, now), None);
            }
        }
    }
}
