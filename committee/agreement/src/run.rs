//! What a member holds of the slot it is in, beside the engine.

use std::collections::{BTreeMap, BTreeSet};

use arc_malachitebft_core_types::Timeout;
use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot,
    agreement::{Equivocation, SignedProposal, SignedVote, VoteKind},
    codec::Bytes,
    domain,
    scheduling::Manifest,
};

use super::{effect::FaultKind, engine::Members};

/// A manifest of this slot.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    /// `None` if the bytes are not a valid manifest of this slot.
    pub(super) manifest: Option<Box<Manifest>>,
    /// What the host said, once it has.
    pub(super) valid: Option<bool>,
    /// Round in which it was proposed first.
    pub(super) round: u32,
    /// Whether the host was asked again after 2t+1 members voted for it.
    pub(super) appealed: bool,
}

/// The slot this member is in.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) slot: Slot,
    pub(super) held: BTreeMap<Blake3Digest, Held>,
    pub(super) proposals: BTreeMap<u32, Vec<SignedProposal>>,
    /// The first vote of each member in each place.
    seen: BTreeMap<(ParticipantIndex, u32, VoteKind), SignedVote>,
    /// Members whose equivocation was reported.
    pub(super) reported: BTreeSet<ParticipantIndex>,
    timers: Vec<(Millis, u64, Timeout)>,
    timers_set: u64,
    pub(super) decided: Option<Blake3Digest>,
    pub(super) abstained: bool,
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
            abstained: false,
        }
    }

    /// Keeps a manifest that is not held yet; the error says what is wrong with it.
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
        let valid = manifest.is_none().then_some(false);
        let digest = digest_of(&bytes);
        self.held.insert(digest, Held { bytes, manifest, valid, round, appealed: false });
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

    /// Records a vote; a second, different one in its place is evidence.
    pub(super) fn record_vote(&mut self, vote: &SignedVote) -> Option<Equivocation> {
        let place = (vote.vote.voter, vote.vote.round, vote.vote.kind);
        let first = self.seen.entry(place).or_insert(*vote);
        (first.vote.manifest != vote.vote.manifest).then_some(Equivocation::Votes(*first, *vote))
    }

    /// The first proposal of the round that differs.
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

    /// Removes the timer that is due first, in the order in which they were set.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Timeout> {
        let due = self.timers.iter().enumerate().filter(|(_, (at, ..))| *at <= now);
        let (index, _) = due.min_by_key(|(_, (at, set, _))| (*at, *set))?;
        Some(self.timers.remove(index).2)
    }
}
