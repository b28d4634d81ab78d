//! One authorised request: whose shares are here, what they open, whose are wrong.

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_machine::{Effect, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex,
    decryption::{
        DecryptionCounter, DecryptionMessage, DecryptionPayload, RequestContext, RequestId,
    },
    evidence::WrongPartial,
};

use super::{
    MAX_ANSWERS,
    effect::{Completion, DecryptionEffect, Evidence, Fault, RequestStatus, Skip},
};
use crate::decrypt::combine;

/// What the decryption machine gives back.
pub(super) type DecryptorEffect = Effect<DecryptionCounter, DecryptionEffect>;
/// What the decryption machine says of a message.
pub(super) type DecryptorVerdict = Verdict<Skip, Box<Fault>>;

/// This member's own share.
pub(super) enum Own {
    /// Waits for the counter to be stored.
    Held(PersistId, Box<DecryptionMessage>),
    /// Sent; among the received ones.
    Sent,
    /// Dropped, since the counter could not be stored.
    NotPersisted,
}

pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) context: RequestContext,
    /// Digests of the blocks, of which the id is made.
    blocks: Vec<Blake3Digest>,
    pub(super) own: Own,
    /// The first share of each sender.
    partials: BTreeMap<ParticipantIndex, DecryptionMessage>,
    culprits: BTreeSet<ParticipantIndex>,
    pub(super) complete: bool,
    pub(super) asked: u32,
    /// When to ask next; `None` once it is complete.
    pub(super) ask_at: Option<Millis>,
    /// Answers to each member so far, and when the last one left.
    answers: BTreeMap<ParticipantIndex, (u32, Millis)>,
}

impl Request {
    pub(super) fn new(id: RequestId, context: RequestContext, blocks: Vec<Blake3Digest>) -> Self {
        Self {
            id,
            context,
            blocks,
            own: Own::NotPersisted,
            partials: BTreeMap::new(),
            culprits: BTreeSet::new(),
            complete: false,
            asked: 0,
            ask_at: None,
            answers: BTreeMap::new(),
        }
    }

    pub(super) const fn blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn partials(&self) -> impl Iterator<Item = &DecryptionMessage> {
        self.partials.values()
    }

    pub(super) fn outstanding(&self, committee: Committee) -> Vec<ParticipantIndex> {
        committee.participants().filter(|j| !self.partials.contains_key(j)).collect()
    }

    /// What the sender's first share makes of another by it; `None` if there is no first.
    pub(super) fn repeated(&self, message: &DecryptionMessage) -> Option<DecryptorVerdict> {
        self.partials.get(&message.sender).map(|first| repeated(first, message))
    }

    /// Accepts a sender's first share.
    pub(super) fn add(
        &mut self,
        message: DecryptionMessage,
        committee: Committee,
    ) -> Vec<DecryptionEffect> {
        self.partials.insert(message.sender, message);
        self.combine(committee)
    }

    /// "Decode as soon as 2t+1 shares agree, correct up to t errors, name the members whose share
    /// was wrong" (`decryption.md`, step 4). After that, later shares are checked in the same way.
    fn combine(&mut self, committee: Committee) -> Vec<DecryptionEffect> {
        if self.partials.len() < committee.signing_threshold().get() {
            return Vec::new();
        }
        let shares: Vec<(ParticipantIndex, &[u8])> = self
            .partials
            .values()
            .filter_map(|message| match &message.payload {
                DecryptionPayload::Partial(bytes) => Some((message.sender, bytes.0.as_slice())),
                DecryptionPayload::Request => None,
            })
            .collect();
        let Ok(combined) = combine(committee, &shares, self.blocks.len()) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        let new: Vec<_> =
            combined.culprits.iter().copied().filter(|j| !self.culprits.contains(j)).collect();
        self.culprits.extend(&new);
        if !self.complete {
            self.complete = true;
            self.ask_at = None;
            let participants =
                self.partials.keys().copied().filter(|j| !self.culprits.contains(j)).collect();
            let (request, context) = (self.id, self.context);
            let completion = Completion { request, context, combined, participants };
            effects.push(DecryptionEffect::Complete(Box::new(completion)));
        }
        for culprit in new {
            if let Some(evidence) = self.partials.get(&culprit).cloned().map(Box::new) {
                effects.push(DecryptionEffect::WrongShare { request: self.id, culprit, evidence });
            }
        }
        effects
    }

    /// This member's share for `to`, if it may leave and has not left too often: [`MAX_ANSWERS`] times,
    /// then once in a pause.
    pub(super) fn answer(
        &mut self,
        me: ParticipantIndex,
        to: ParticipantIndex,
        pause: Millis,
        now: Millis,
    ) -> Result<&DecryptionMessage, Skip> {
        let own = self.partials.get(&me).ok_or(Skip::NotPersisted)?;
        let (answers, last) = self.answers.entry(to).or_insert((0, now));
        if *answers >= MAX_ANSWERS && now < last.saturating_add(pause) {
            return Err(Skip::TooOften);
        }
        (*answers, *last) = (answers.saturating_add(1), now);
        Ok(own)
    }

    /// What convicts a member whose share was found wrong: its share, and 2t+1 that agree.
    pub(super) fn wrong_partial(
        &self,
        culprit: ParticipantIndex,
        committee: Committee,
    ) -> Option<WrongPartial> {
        let wrong = self.culprits.contains(&culprit).then(|| self.partials.get(&culprit))??;
        let right = self.partials.iter().filter(|(j, _)| !self.culprits.contains(j));
        let right = right.map(|(_, partial)| partial).take(committee.signing_threshold().get());
        let partials = core::iter::once(wrong).chain(right).cloned().collect();
        Some(WrongPartial { culprit, context: self.context, blocks: self.blocks.clone(), partials })
    }

    pub(super) fn status(&self, committee: Committee) -> RequestStatus {
        RequestStatus {
            request: self.id,
            context: self.context,
            blocks: self.blocks.len(),
            received: self.partials.keys().copied().collect(),
            outstanding: self.outstanding(committee),
            culprits: self.culprits.iter().copied().collect(),
            complete: self.complete,
            not_persisted: matches!(self.own, Own::NotPersisted),
            asked: self.asked,
        }
    }
}

/// A second share by one sender for one request: a repetition, or proof against it. Both are
/// authentic.
pub(super) fn repeated(first: &DecryptionMessage, second: &DecryptionMessage) -> DecryptorVerdict {
    if first.payload == second.payload {
        return Verdict::Skip(Skip::Duplicate);
    }
    let evidence = Evidence::TwoPartials { first: first.clone(), second: second.clone() };
    Verdict::Fault(Box::new(Fault { culprit: first.sender, evidence }))
}
