//! What a member holds of the instance it is in, beside the engine.

use std::collections::{BTreeMap, BTreeSet};

use arc_malachitebft_core_types::Timeout;
use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    agreement::{Equivocation, Instance, SignedProposal, SignedVote, VoteKind},
    codec::Bytes,
};

use super::{
    engine::Members,
    value::{Value, ValueError, digest_of},
};

/// A value of this instance.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    /// `None` if the bytes are no value of this instance.
    pub(super) value: Option<Value>,
    /// What the host said, or what follows from the others' votes, once it is known.
    pub(super) valid: Option<bool>,
    /// Round in which it was proposed: a manifest first, an end last.
    pub(super) round: u32,
    /// Round in which the host was last asked again because 2t+1 members voted for it.
    pub(super) appealed: Option<u32>,
}

/// The instance this member is in.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) instance: Instance,
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

impl Run {
    pub(super) const fn new(instance: Instance) -> Self {
        Self {
            instance,
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

    /// Keeps a value; the error says what is wrong with it. Of one that is held already only the
    /// round changes.
    pub(super) fn hold(
        &mut self,
        bytes: Bytes,
        round: u32,
        members: &Members,
    ) -> Result<(), ValueError> {
        let digest = digest_of(self.instance.subject, &bytes);
        if let Some(held) = self.held.get_mut(&digest) {
            held.round = held.round.max(round);
            return Ok(());
        }
        let (value, result) = match Value::parse(&bytes, self.instance, members) {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let valid = value.is_none().then_some(false);
        self.held.insert(digest, Held { bytes, value, valid, round, appealed: None });
        result
    }

    /// How many members other than `me` have voted for a value, in whatever rounds.
    pub(super) fn supporters(&self, value: Blake3Digest, me: ParticipantIndex) -> usize {
        let votes = self.seen.values().map(|signed| signed.vote);
        let others = votes.filter(|vote| vote.value == Some(value) && vote.voter != me);
        others.map(|vote| vote.voter).collect::<BTreeSet<_>>().len()
    }

    /// Drops values and their proposals, so that an instance that takes long does not fill memory.
    pub(super) fn forget(&mut self, old: impl Fn(Blake3Digest, u32) -> bool) {
        let before = self.held.len();
        self.held.retain(|digest, held| !old(*digest, held.round));
        if self.held.len() == before {
            return;
        }
        let held = &self.held;
        self.proposals.retain(|_, proposals| {
            proposals.retain(|signed| held.contains_key(&signed.proposal.value));
            !proposals.is_empty()
        });
    }

    /// Records a vote; a second, different one in its place is evidence.
    pub(super) fn record_vote(&mut self, vote: &SignedVote) -> Option<Equivocation> {
        let place = (vote.vote.voter, vote.vote.round, vote.vote.kind);
        let first = self.seen.entry(place).or_insert(*vote);
        (first.vote.value != vote.vote.value).then_some(Equivocation::Votes(*first, *vote))
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
