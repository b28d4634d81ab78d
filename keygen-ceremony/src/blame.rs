//! Who is proven to have deviated, by signed messages alone.
//!
//! Source: `ceremony.md`, "What signed messages prove". A pure function: whoever has the messages comes to the
//! same proofs, and each proof carries the messages that it rests on.
//!
//! An honest member is never named, whatever is withheld, doubled or reordered, and whatever the others sign:
//! each rule is about messages that one member signed, or about the one message that a contribution names by
//! its digest. What no honest member signs is not honest; whether it was shown to all does not matter.

use std::collections::BTreeMap;

use serde::Serialize;
use veil_protocol_spec::{
    Attempt, Blake3Digest, ParticipantIndex,
    ceremony::{CeremonyParameters, Confirm, Contribution, Payload, Round, SignedMessage, Stream},
};
use veil_reference_string::{First, Powers, check_contribution};

use crate::{
    channel,
    contributions::groups_of,
    keyset::ParameterSet,
    reference_string::Link,
    setup::{Setup, SetupError, Timing},
};

/// What a member did that no honest member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Misdeed {
    /// It signed two different messages for one place.
    Equivocation,
    /// It signed both ABORT and FINISH.
    AbortAndFinish,
    /// The payload does not belong to the round, or the message has a recipient where there is none.
    Form,
    /// Its commitments are too few or too many, or its channel key is none.
    Commit,
    /// Its echo has too few or too many digests, or denies its own message.
    Echo,
    /// It confirmed too few or too many keys.
    Confirm,
    /// Its part of the public seed is not the one that it committed to.
    SeedReveal,
    /// Its contribution to the reference string is not made of the message that it names.
    ReferenceString,
    /// Its stream has too few or too many chunks.
    StreamRoot,
}

/// A member's misdeed, with the messages that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Who did it.
    pub culprit: ParticipantIndex,
    /// What it did.
    pub misdeed: Misdeed,
    /// In which round; the later one, if there are two.
    pub round: Round,
    /// One or two messages that the culprit signed; for a contribution also the message that it names.
    pub messages: Vec<SignedMessage>,
}

/// Everything that the messages prove of an attempt, by culprit and misdeed, each misdeed of a member once. Messages
/// that nobody on the roster signed for this attempt count for nothing.
///
/// # Errors
/// [`SetupError`] if the parameters do not fit together.
pub fn proven(
    parameters: &CeremonyParameters,
    params: &ParameterSet,
    attempt: Attempt,
    messages: &[&SignedMessage],
) -> Result<Vec<Proof>, SetupError> {
    let first = parameters.committee.participants().next().ok_or(SetupError::NotAMember)?;
    let timing = Timing { round: 0, retry: 0 };
    let setup = Setup::for_participant(parameters.clone(), params.clone(), attempt, first, timing)?;
    let mut case = Case { signed: Signed::new(), proofs: BTreeMap::new(), setup };
    messages.iter().for_each(|message| case.take(message));
    case.judge();
    Ok(case.proofs.into_values().collect())
}

/// A place of a message: its sender, round and recipient.
type Place = (ParticipantIndex, Round, Option<ParticipantIndex>);
/// Messages by place and digest, so that neither their order nor their number matters.
type Signed<'a> = BTreeMap<Place, BTreeMap<[u8; 32], &'a SignedMessage>>;

struct Case<'a> {
    setup: Setup,
    signed: Signed<'a>,
    proofs: BTreeMap<(ParticipantIndex, Misdeed), Proof>,
}

impl<'a> Case<'a> {
    fn take(&mut self, message: &'a SignedMessage) {
        let header = &message.header;
        let place = (header.sender, header.round, header.recipient);
        let digest = message.digest().0;
        let known = self.signed.get(&place).is_some_and(|there| there.contains_key(&digest));
        let of_attempt = self.setup.committee().contains(header.sender)
            && self.setup.check(&header.ceremony, header.attempt).is_ok();
        let identity = self.setup.parameters.identity(header.sender);
        if !known && of_attempt && identity.is_some_and(|identity| message.verify(identity).is_ok())
        {
            self.signed.entry(place).or_default().insert(digest, message);
        }
    }

    fn judge(&mut self) {
        for ((sender, round, _), messages) in &self.signed.clone() {
            let mut these = messages.values();
            if let (Some(one), Some(other)) = (these.next(), these.next()) {
                self.convict(Misdeed::Equivocation, &[one, other]);
            }
            for message in messages.values() {
                self.judge_one(message);
            }
            if *round == Round::Abort
                && let (Some(abort), Some(finish)) =
                    (messages.values().next(), self.broadcasts(*sender, Round::Finish).first())
            {
                self.convict(Misdeed::AbortAndFinish, &[abort, finish]);
            }
        }
    }

    fn convict(&mut self, misdeed: Misdeed, messages: &[&SignedMessage]) {
        let Some(header) = messages.first().map(|message| message.header) else { return };
        let messages = messages.iter().map(|message| (*message).clone()).collect();
        let Self { proofs, .. } = self;
        proofs.entry((header.sender, misdeed)).or_insert(Proof {
            culprit: header.sender,
            misdeed,
            round: header.round,
            messages,
        });
    }

    /// What a member broadcast in a round; more than one thing if it equivocated.
    fn broadcasts(&self, sender: ParticipantIndex, round: Round) -> Vec<&'a SignedMessage> {
        let found = self.signed.get(&(sender, round, None));
        found.into_iter().flat_map(BTreeMap::values).copied().collect()
    }

    fn judge_one(&mut self, message: &'a SignedMessage) {
        let header = &message.header;
        let (committee, sender) = (self.setup.committee(), header.sender);
        let addressed = match header.recipient {
            Some(recipient) => {
                header.round == Round::Deal && recipient != sender && committee.contains(recipient)
            }
            None => header.round != Round::Deal,
        };
        if !addressed || !message.payload.fits(header.round) {
            return self.convict(Misdeed::Form, &[message]);
        }
        let groups = || groups_of(committee, sender).len();
        match &message.payload {
            Payload::Commit(commit) => {
                let sealed = channel::seal(&commit.channel_key.0, b"", b"", &[0; 32]);
                if commit.contributions.len() != groups() || sealed.is_err() {
                    self.convict(Misdeed::Commit, &[message]);
                }
            }
            Payload::Echo(echo) => {
                if echo.digests.len() != committee.n() {
                    return self.convict(Misdeed::Echo, &[message]);
                }
                let Some(of) = header.round.echoes() else { return };
                for own in self.broadcasts(sender, of) {
                    if echo.digests.get(sender.position()) != Some(&own.digest()) {
                        self.convict(Misdeed::Echo, &[message, own]);
                    }
                }
            }
            Payload::Confirm(confirm) => {
                if confirm.keys.len() != groups() {
                    self.convict(Misdeed::Confirm, &[message]);
                }
                self.judge_reveal(message, confirm);
            }
            Payload::ReferenceString(contribution) => self.judge_string(message, contribution),
            Payload::StreamRoot(root) => {
                let of = |stream: &Stream| stream.root_round() == header.round;
                let stream = [Stream::Bits, Stream::Bodies].into_iter().find(of);
                if stream.is_some_and(|s| root.chunks.len() != self.setup.chunks(s) as usize) {
                    self.convict(Misdeed::StreamRoot, &[message]);
                }
            }
            // Sealed, or about what only a computation of the whole attempt could refute.
            Payload::Deal(_) | Payload::Prove(_) | Payload::Finish(_) | Payload::Abort(_) => {}
        }
    }

    fn judge_reveal(&mut self, message: &'a SignedMessage, confirm: &Confirm) {
        let sender = message.header.sender;
        let revealed = self.setup.context().public_seed_commitment(sender, &confirm.public_seed);
        for commit in self.broadcasts(sender, Round::Commit) {
            if matches!(&commit.payload, Payload::Commit(of) if of.public_seed != revealed) {
                self.convict(Misdeed::SeedReveal, &[message, commit]);
            }
        }
    }

    /// A contribution names by its digest what it raises. An honest member raises only powers that are in their
    /// groups, and makes of powers of one exponent powers of one exponent.
    fn judge_string(&mut self, message: &'a SignedMessage, contribution: &Contribution) {
        let sender = message.header.sender;
        let above = self.setup.committee().participants().take_while(|j| *j < sender).last();
        let Some(above) = above else {
            let start = Powers::start(self.setup.string);
            if !self.raises(Link { sender, above: None }, &start, contribution) {
                self.convict(Misdeed::ReferenceString, &[message]);
            }
            return;
        };
        let mut all = self.broadcasts(above, Round::ReferenceString).into_iter();
        // If the message that it names is not here, nothing is known of what it raised.
        let Some(named) = all.find(|m| m.digest() == contribution.before) else { return };
        let Payload::ReferenceString(before) = &named.payload else { return };
        let Ok(powers) = Powers::read(self.setup.string, &before.powers.0) else { return };
        let link = Link { sender, above: Some((above, named.digest())) };
        if !self.raises(link, &powers, contribution) {
            self.convict(Misdeed::ReferenceString, &[message, named]);
        }
    }

    fn raises(&self, link: Link, powers: &Powers, contribution: &Contribution) -> bool {
        let (size, before): (_, Blake3Digest) = (self.setup.string, link.before());
        let Contribution { powers: raised, proof, .. } = contribution;
        let first: First = powers.first();
        let place = link.place(&self.setup, &before);
        contribution.before == before
            && check_contribution(size, place, &first, &raised.0, &proof.0).is_ok()
            && Powers::read(size, &raised.0)
                .is_ok_and(|raised| powers.check().is_err() || raised.check().is_ok())
    }
}

#[cfg(test)]
mod tests;
