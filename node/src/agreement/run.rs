//! What a member holds of the slot it is in, beside the engine.

use std::collections::{BTreeMap, BTreeSet};

use arc_malachitebft_core_types::{Timeout, TimeoutKind};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot,
    agreement::{Equivocation, SignedProposal, SignedVote, VoteKind},
    ceremony::Bytes,
    domain,
    scheduling::Manifest,
};

use super::{
    effect::{FaultKind, Millis},
    engine::Members,
};

/// How long a member waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For a proposal, its check by the owner included.
    pub propose: Millis,
    /// For prevotes that agree, once 2t+1 are here.
    pub prevote: Millis,
    /// For precommits that agree, once 2t+1 are here.
    pub precommit: Millis,
    /// Until a member that is stuck sends its votes again and asks; members are staggered by up to
    /// a quarter of it.
    pub retry: Millis,
    /// What each round adds to each of these.
    pub growth: Millis,
    /// The longest of all waits.
    pub most: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            propose: 10_000,
            prevote: 2_000,
            precommit: 2_000,
            retry: 5_000,
            growth: 1_000,
            most: 60_000,
        }
    }
}

impl Timing {
    pub(super) fn wait(&self, timeout: Timeout, members: &Members) -> Millis {
        let base = match timeout.kind {
            TimeoutKind::Propose => self.propose,
            TimeoutKind::Prevote => self.prevote,
            TimeoutKind::Precommit => self.precommit,
            // A fixed place in the quarter, so that members do not all ask in one instant.
            TimeoutKind::Rebroadcast => {
                let position = members.me.position() as u64;
                let stagger = self.retry.saturating_mul(position);
                self.retry.saturating_add(stagger / (4 * members.committee.n() as u64))
            }
            // The engine is told to finish at once.
            TimeoutKind::FinalizeHeight(_) => 0,
        };
        let round = u64::from(timeout.round.as_u32().unwrap_or_default());
        base.saturating_add(self.growth.saturating_mul(round)).min(self.most).max(1)
    }
}

/// A manifest of this slot.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    /// `None` if the bytes are no sound manifest of this slot.
    pub(super) manifest: Option<Box<Manifest>>,
    /// The owner's word, once it is there.
    pub(super) sound: Option<bool>,
    /// Round in which it was proposed first.
    pub(super) round: u32,
    /// Whether the owner was asked again after 2t+1 members voted for it.
    pub(super) appealed: bool,
}

/// The slot this member is in.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) slot: Slot,
    pub(super) held: BTreeMap<Blake3Digest, Held>,
    pub(super) proposals: BTreeMap<u32, Vec<SignedProposal>>,
    /// The first word of each member in each place.
    seen: BTreeMap<(ParticipantIndex, u32, VoteKind), SignedVote>,
    /// Members whose double talk was reported.
    pub(super) reported: BTreeSet<ParticipantIndex>,
    timers: Vec<(Millis, u64, Timeout)>,
    timers_set: u64,
    pub(super) decided: Option<Blake3Digest>,
    pub(super) abstaining: bool,
}

/// The digest that votes name, from the encoding.
pub(super) fn digest_of(bytes: &Bytes) -> Blake3Digest {
    Blake3Digest(domain::hash_parts(domain::MANIFEST, &[&bytes.0]))
}

impl Run {
    pub(super) const fn new(slot: Slot) -> Self {
        Self {
            slot,
            held: BTreeMap::new(),
            proposals: BTreeMap::new(),
            seen: BTreeMap::new(),
            reported: BTreeSet::new(),
            timers: Vec::new(),
            timers_set: 0,
            decided: None,
            abstaining: false,
        }
    }

    /// Takes up a manifest that is not held yet; says what is wrong with it.
    pub(super) fn hold(
        &mut self,
        bytes: Bytes,
        round: u32,
        members: &Members,
    ) -> Result<(), FaultKind> {
        let checked = Manifest::parse(&bytes.0, members.committee)
            .map_err(FaultKind::Manifest)
            .and_then(|manifest| self.check(manifest, members));
        let (manifest, result) = match checked {
            Ok(manifest) => (Some(Box::new(manifest)), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let sound = manifest.is_none().then_some(false);
        let digest = digest_of(&bytes);
        self.held.insert(digest, Held { bytes, manifest, sound, round, appealed: false });
        result
    }

    fn check(&self, manifest: Manifest, members: &Members) -> Result<Manifest, FaultKind> {
        manifest.binding.check(&members.binding).map_err(|e| FaultKind::Elsewhere(e.field))?;
        if manifest.slot != self.slot {
            return Err(FaultKind::Elsewhere("slot"));
        }
        Ok(manifest)
    }

    /// Drops manifests and their proposals, so that a slot that takes long does not fill memory.
    pub(super) fn forget(&mut self, old: impl Fn(Blake3Digest, u32) -> bool) {
        let before = self.held.len();
        self.held.retain(|digest, held| !old(*digest, held.round));
        if self.held.len() == before {
            return;
        }
        let held = &self.held;
        self.proposals.retain(|_, proposals| {
            proposals.retain(|signed| held.contains_key(&signed.proposal.manifest));
            !proposals.is_empty()
        });
    }

    /// Notes a vote; a second, different one in its place is evidence.
    pub(super) fn note_vote(&mut self, vote: &SignedVote) -> Option<Equivocation> {
        let place = (vote.vote.voter, vote.vote.round, vote.vote.kind);
        let first = self.seen.entry(place).or_insert(*vote);
        (first.vote.manifest != vote.vote.manifest).then(|| Equivocation::Votes(*first, *vote))
    }

    /// The first proposal of the round that says something else.
    pub(super) fn other_proposal(&self, signed: &SignedProposal) -> Option<Equivocation> {
        let known = self.proposals.get(&signed.proposal.round)?;
        let other = known.iter().find(|other| other.proposal != signed.proposal)?;
        Some(Equivocation::Proposals(*other, *signed))
    }

    pub(super) fn schedule(&mut self, timeout: Timeout, at: Millis) {
        self.cancel(timeout);
        self.timers.push((at, self.timers_set, timeout));
        self.timers_set += 1;
    }

    pub(super) fn cancel(&mut self, timeout: Timeout) {
        self.timers.retain(|(_, _, set)| *set != timeout);
    }

    pub(super) fn cancel_all(&mut self) {
        self.timers.clear();
    }

    pub(super) fn next_timer(&self) -> Option<Millis> {
        self.timers.iter().map(|(at, ..)| *at).min()
    }

    /// Takes the timer that is due first, in the order in which they were set.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Timeout> {
        let due = self.timers.iter().enumerate().filter(|(_, (at, ..))| *at <= now);
        let (index, _) = due.min_by_key(|(_, (at, set, _))| (*at, *set))?;
        Some(self.timers.remove(index).2)
    }
}
