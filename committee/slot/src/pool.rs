//! The telemetry a node has received and checked: what a manifest can name.
//!
//! # Flow
//! 1. [`Pool::admit`]: registration, cluster, signature, sequence, age, and how often this worker sends,
//!    by the times that it signed. Cheap, before anything else.
//! 2. The caller verifies the proof and expands the list, off the reactor (a tenth of a second and
//!    more).
//! 3. [`Pool::insert`]: checks the sequence once more, since others may have come meanwhile.
//!
//! # State
//! The last [`KEPT`] messages of each worker: a manifest may name one that another has replaced
//! since. `T` is what the proof's verification leaves, the expanded ciphertexts. Of each worker, the last
//! [`BURST`] messages that were admitted, whatever their proofs turned out to be: a proof costs its
//! verifiers a quarter of what it costs its maker, and nothing if it is invalid.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Slot,
    scheduling::{Binding, Profile, Telemetry, TelemetryError, UnixMillis},
};

/// Messages kept of each worker.
pub const KEPT: usize = 4;
/// How far a sender's clock may be ahead of ours.
pub const MAX_AHEAD: UnixMillis = UnixMillis(30_000);

/// Messages that a worker may send without a pause: at an interval, and after certificates.
pub const BURST: usize = 4;
/// Between two samples of one worker, on average over [`BURST`] of them.
pub const MIN_INTERVAL: UnixMillis = UnixMillis(2_000);

/// Why telemetry is left aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of another cluster, or not signed by its sender.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The registry does not list the sender as a worker.
    #[error("{0} is not a registered worker of this cluster")]
    NotAWorker(PeerIdHash),
    /// Replayed, or overtaken.
    #[error("sequence number {given} of {sender} is not after {last}")]
    Stale {
        /// Who.
        sender: PeerIdHash,
        /// The message's.
        given: u64,
        /// The highest seen.
        last: u64,
    },
    /// Sampled too long ago.
    #[error("the sample of {sender} is {age_ms} ms old: at most {max_ms}")]
    Old {
        /// Who.
        sender: PeerIdHash,
        /// Age by this node's clock.
        age_ms: u64,
        /// Allowed.
        max_ms: u64,
    },
    /// Sampled too soon after those before it.
    #[error(
        "the sample of {sender} is taken {after_ms} ms after the one {BURST} messages before: at least {min_ms}"
    )]
    TooSoon {
        /// Who.
        sender: PeerIdHash,
        /// By the signed times.
        after_ms: u64,
        /// Asked for.
        min_ms: u64,
    },
    /// Sampled in the future.
    #[error("the sample of {sender} is {ahead_ms} ms ahead of this clock: check both clocks")]
    Ahead {
        /// Who.
        sender: PeerIdHash,
        /// By how much.
        ahead_ms: u64,
    },
}

impl Refusal {
    /// In metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Telemetry(TelemetryError::Binding(_)) => "another_binding",
            Self::Telemetry(TelemetryError::Signature(_)) => "signature",
            Self::Telemetry(TelemetryError::Profile(_)) => "profile",
            Self::Telemetry(TelemetryError::TooManyEnded(_) | TelemetryError::EndedOrder) => {
                "ended"
            }
            Self::Telemetry(
                TelemetryError::TooManyGivenBack(_) | TelemetryError::GivenBackOrder,
            ) => "given_back",
            Self::Telemetry(TelemetryError::TooMuchHealth(_) | TelemetryError::HealthOrder) => {
                "health"
            }
            Self::NotAWorker(_) => "not_a_worker",
            Self::Stale { .. } => "stale",
            Self::Old { .. } => "old",
            Self::TooSoon { .. } => "too_soon",
            Self::Ahead { .. } => "ahead",
        }
    }
}

/// One message that passed every check, and its ciphertexts.
#[derive(Debug)]
pub struct Verified<T> {
    /// The message.
    pub telemetry: Telemetry,
    /// Its digest.
    pub digest: Blake3Digest,
    /// Its expanded ciphertexts.
    pub expanded: T,
    /// When it came, by this node's clock.
    pub received_at: UnixMillis,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Pool<T> {
    binding: Binding,
    max_age: UnixMillis,
    workers: BTreeSet<PeerIdHash>,
    entries: BTreeMap<PeerIdHash, VecDeque<Arc<Verified<T>>>>,
    admitted: BTreeMap<PeerIdHash, VecDeque<Admitted>>,
}

/// A message that passed the first step.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    sequence: u64,
    sampled_at: UnixMillis,
}

impl<T> Pool<T> {
    /// Empty; telemetry older than `max_age` is refused and not proposed.
    #[must_use]
    pub fn new(binding: Binding, max_age: UnixMillis) -> Self {
        let (workers, entries, admitted) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { binding, max_age, workers, entries, admitted }
    }

    /// Whose telemetry counts; that of others is forgotten.
    pub fn set_workers(&mut self, workers: BTreeSet<PeerIdHash>) {
        self.entries.retain(|sender, _| workers.contains(sender));
        self.admitted.retain(|sender, _| workers.contains(sender));
        self.workers = workers;
    }

    /// Whether this is a registered worker.
    #[must_use]
    pub fn is_worker(&self, peer: &PeerIdHash) -> bool {
        self.workers.contains(peer)
    }

    fn last_sequence(&self, sender: &PeerIdHash) -> Option<u64> {
        let last = self.entries.get(sender)?.back()?;
        Some(last.telemetry.body.sequence)
    }

    fn check_sequence(&self, telemetry: &Telemetry) -> Result<(), Refusal> {
        let (sender, given) = (telemetry.body.sender(), telemetry.body.sequence);
        match self.last_sequence(&sender) {
            Some(last) if given <= last => Err(Refusal::Stale { sender, given, last }),
            _ => Ok(()),
        }
    }

    /// Step 1.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&mut self, telemetry: &Telemetry, now: UnixMillis) -> Result<(), Refusal> {
        let sender = telemetry.body.sender();
        if !self.workers.contains(&sender) {
            return Err(Refusal::NotAWorker(sender));
        }
        telemetry.verify(&self.binding)?;
        self.check_sequence(telemetry)?;
        let sampled = telemetry.body.sampled_at.0;
        let ahead_ms = sampled.saturating_sub(now.0);
        if ahead_ms > MAX_AHEAD.0 {
            return Err(Refusal::Ahead { sender, ahead_ms });
        }
        let (age_ms, max_ms) = (now.0.saturating_sub(sampled), self.max_age.0);
        if age_ms > max_ms {
            return Err(Refusal::Old { sender, age_ms, max_ms });
        }
        self.check_rate(telemetry)
    }

    fn check_rate(&mut self, telemetry: &Telemetry) -> Result<(), Refusal> {
        let sender = telemetry.body.sender();
        let new =
            Admitted { sequence: telemetry.body.sequence, sampled_at: telemetry.body.sampled_at };
        let before = self.admitted.entry(sender).or_default();
        if let Some(Admitted { sequence: last, .. }) = before.back()
            && new.sequence <= *last
        {
            return Err(Refusal::Stale { sender, given: new.sequence, last: *last });
        }
        if let Some(oldest) = before.front().filter(|_| before.len() >= BURST) {
            let after_ms = new.sampled_at.0.saturating_sub(oldest.sampled_at.0);
            let min_ms = MIN_INTERVAL.0 * BURST as u64;
            if after_ms < min_ms {
                return Err(Refusal::TooSoon { sender, after_ms, min_ms });
            }
            before.pop_front();
        }
        before.push_back(new);
        Ok(())
    }

    /// Step 3.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::NotAWorker`].
    pub fn insert(
        &mut self,
        telemetry: Telemetry,
        expanded: T,
        now: UnixMillis,
    ) -> Result<Arc<Verified<T>>, Refusal> {
        let sender = telemetry.body.sender();
        if !self.workers.contains(&sender) {
            return Err(Refusal::NotAWorker(sender));
        }
        self.check_sequence(&telemetry)?;
        let digest = telemetry.body.digest();
        let entry = Arc::new(Verified { telemetry, digest, expanded, received_at: now });
        let kept = self.entries.entry(sender).or_default();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&entry));
        Ok(entry)
    }

    /// The message with this digest, if it is still kept.
    #[must_use]
    pub fn get(&self, sender: &PeerIdHash, digest: &Blake3Digest) -> Option<Arc<Verified<T>>> {
        self.entries.get(sender)?.iter().find(|entry| entry.digest == *digest).cloned()
    }

    /// The message with this digest, whoever sent it.
    #[must_use]
    pub fn find(&self, digest: &Blake3Digest) -> Option<Arc<Verified<T>>> {
        self.entries.values().flatten().find(|entry| entry.digest == *digest).cloned()
    }

    /// What each worker said of itself last.
    pub fn profiles(&self) -> impl Iterator<Item = (PeerIdHash, &Profile)> {
        self.entries.iter().filter_map(|(sender, entries)| {
            entries.back().map(|entry| (*sender, &entry.telemetry.body.profile))
        })
    }

    /// Each worker's last message, if it is fresh, came before `cut_off`, and already includes what
    /// was assigned to that worker: `includes` names the slot that it must include.
    pub fn fresh(
        &self,
        now: UnixMillis,
        cut_off: UnixMillis,
        includes: impl Fn(&PeerIdHash) -> Slot,
    ) -> Vec<Arc<Verified<T>>> {
        let last = |entries: &VecDeque<Arc<Verified<T>>>| {
            entries.iter().rev().find(|entry| entry.received_at <= cut_off).cloned()
        };
        self.entries
            .iter()
            .filter_map(|(sender, entries)| last(entries).map(|entry| (sender, entry)))
            .filter(|(sender, entry)| {
                let body = &entry.telemetry.body;
                now.0.saturating_sub(body.sampled_at.0) <= self.max_age.0
                    && body.includes_slot >= includes(sender)
            })
            .map(|(_, entry)| entry)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest,
        identity::SecretIdentity,
        scheduling::{BindingMismatch, ClusterScope, ProvenList, TelemetryBody},
    };

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn binding() -> Binding {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) }
    }

    fn secret(byte: u8) -> SecretIdentity {
        SecretIdentity::from_bytes(&[byte; 32]).unwrap()
    }

    fn body(sequence: u64) -> TelemetryBody {
        TelemetryBody {
            binding: binding(),
            identity: secret(1).public(),
            sequence,
            includes_slot: Slot(0),
            sampled_at: NOW,
            policy: KeccakDigest([7; 32]),
            profile: Profile::default(),
            ended: Vec::new(),
            health: Vec::new(),
            list: ProvenList::new(vec![1]).unwrap(),
            given_back: Vec::new(),
        }
    }

    fn pool() -> Pool<()> {
        let mut pool = Pool::new(binding(), UnixMillis(10_000));
        pool.set_workers([PeerIdHash::of(&secret(1).public())].into());
        pool
    }

    #[test]
    fn each_defect_is_named() {
        let sender = PeerIdHash::of(&secret(1).public());
        let mut pool = pool();
        let good = body(5).sign(&secret(1));
        assert_eq!(pool.admit(&good, NOW), Ok(()));
        assert_eq!(pool.admit(&good, NOW).unwrap_err().name(), "stale", "it is being verified");
        pool.insert(good.clone(), (), NOW).unwrap();
        let stale = Refusal::Stale { sender, given: 5, last: 5 };
        assert_eq!(pool.admit(&good, NOW), Err(stale.clone()), "replayed");
        assert_eq!(pool.insert(good, (), NOW).unwrap_err(), stale, "raced");
        let stranger = TelemetryBody { identity: secret(9).public(), ..body(6) }.sign(&secret(9));
        assert!(matches!(pool.admit(&stranger, NOW), Err(Refusal::NotAWorker(_))));
        let foreign =
            TelemetryBody { binding: Binding { epoch: Epoch(1), ..binding() }, ..body(6) };
        assert_eq!(
            pool.admit(&foreign.sign(&secret(1)), NOW),
            Err(Refusal::Telemetry(BindingMismatch { field: "epoch" }.into()))
        );
        let forged = body(6).sign(&secret(2));
        assert!(matches!(pool.admit(&forged, NOW), Err(Refusal::Telemetry(_))));
        let late = UnixMillis(NOW.0 + 10_001);
        let next = body(6).sign(&secret(1));
        assert!(matches!(pool.admit(&next, late), Err(Refusal::Old { age_ms: 10_001, .. })));
        let early = UnixMillis(NOW.0 - MAX_AHEAD.0 - 1);
        assert!(matches!(pool.admit(&next, early), Err(Refusal::Ahead { .. })));
        assert_eq!(pool.admit(&next, NOW), Ok(()));
    }

    /// By the signed times: whoever sees the messages decides the same, whenever they arrive.
    #[test]
    fn a_worker_that_sends_without_a_pause_is_not_listened_to() {
        let mut pool = pool();
        let sampled = |sequence, after| {
            let sampled_at = UnixMillis(NOW.0 - 10_000 + after);
            TelemetryBody { sampled_at, ..body(sequence) }.sign(&secret(1))
        };
        let mut admit = |sequence, after| pool.admit(&sampled(sequence, after), NOW);
        for sequence in 1..=4 {
            assert_eq!(admit(sequence, sequence), Ok(()));
        }
        let sender = PeerIdHash::of(&secret(1).public());
        let too_soon = Refusal::TooSoon { sender, after_ms: 7_999, min_ms: 8_000 };
        assert_eq!(admit(5, 8_000), Err(too_soon));
        assert_eq!(admit(6, 8_001), Ok(()));
        assert!(matches!(admit(7, 8_001), Err(Refusal::TooSoon { .. })));
        assert!(matches!(admit(8, 0), Err(Refusal::TooSoon { .. })), "a clock that is set back");
        assert_eq!(admit(9, 8_002), Ok(()));
    }

    #[test]
    fn a_slot_takes_the_last_message_before_the_cut_off() {
        let mut pool = pool();
        for sequence in 1..=6 {
            let at = UnixMillis(NOW.0 + sequence);
            pool.insert(body(sequence).sign(&secret(1)), (), at).unwrap();
        }
        let at = |cut_off: u64| {
            let fresh = pool.fresh(NOW, UnixMillis(NOW.0 + cut_off), |_| Slot(0));
            fresh.iter().map(|entry| entry.telemetry.body.sequence).collect::<Vec<_>>()
        };
        assert_eq!(at(10), [6]);
        assert_eq!(at(4), [4]);
        assert_eq!(at(2), [0; 0], "only the last four are kept");
    }

    #[test]
    fn a_worker_must_know_what_was_assigned_to_it() {
        let mut pool = pool();
        pool.insert(body(1).sign(&secret(1)), (), NOW).unwrap();
        assert_eq!(pool.fresh(NOW, NOW, |_| Slot(1)).len(), 0);
        let knows = TelemetryBody { includes_slot: Slot(1), ..body(2) };
        pool.insert(knows.sign(&secret(1)), (), NOW).unwrap();
        assert_eq!(pool.fresh(NOW, NOW, |_| Slot(1)).len(), 1);
        assert_eq!(pool.fresh(UnixMillis(NOW.0 + 10_001), NOW, |_| Slot(1)).len(), 0);
    }

    #[test]
    fn who_leaves_the_registry_is_forgotten() {
        let mut pool = pool();
        let entry = pool.insert(body(1).sign(&secret(1)), (), NOW).unwrap();
        assert!(pool.find(&entry.digest).is_some());
        pool.set_workers(BTreeSet::new());
        assert!(pool.find(&entry.digest).is_none());
    }
}
