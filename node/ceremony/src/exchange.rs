//! What members tell each other around a ceremony: facts before it, and the signatures of the
//! publication after it. A machine like the others, on the publication
//! protocol.
//!
//! # Messages
//! [`ExchangeMessage`]. Answers are given at any time, whatever this member waits for itself; what
//! is missing is asked for again until it is there. Everything is idempotent.
//!
//! # State
//! In memory: after a restart everybody is asked again. That a member signs one publication per
//! attempt is the business of its folder.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use veil_committee_machine::{Effect, Machine, Millis, Verdict};
use veil_protocol_spec::{
    Attempt, CeremonyId, CodecError, Committee, KeccakDigest, ParticipantIndex, PublicIdentity,
    Signature, Wire,
    publication::{ExchangeBody, ExchangeMessage, Facts},
};

use crate::preflight::Answer;

/// Why a message is left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeSkip {
    /// Of another ceremony or attempt.
    OtherAttempt,
    /// Facts that answer no question of this member.
    NotAsked,
}

/// Why a message counts against its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeFault {
    /// Too long, of another version, or not a publication message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A signature that does not verify.
    #[error("its signature of the publication is wrong")]
    Signature,
}

/// What the exchange tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeEffect {
    /// Everybody's facts are here.
    AllFacts,
    /// All members signed this publication; by seat.
    Signed(Vec<Signature>),
    /// A member signed another publication than this member did.
    OtherPublication(ParticipantIndex),
}

/// What an exchange is for.
#[derive(Clone, Debug)]
pub(crate) struct ExchangeConfig {
    /// The ceremony.
    pub(crate) ceremony: CeremonyId,
    /// Its attempt.
    pub(crate) attempt: Attempt,
    /// Size of the committee.
    pub(crate) committee: Committee,
    /// This participant.
    pub(crate) me: ParticipantIndex,
    /// Identities by seat.
    pub(crate) roster: Vec<PublicIdentity>,
    /// This member's facts.
    pub(crate) facts: Facts,
    /// Unix milliseconds when the driver's clock was at zero.
    pub(crate) clock_zero: u64,
    /// Before it asks again.
    pub(crate) retry: Millis,
}

/// See the [module documentation](self).
pub(crate) struct Exchange {
    config: ExchangeConfig,
    want_facts: bool,
    answers: BTreeMap<ParticipantIndex, Answer>,
    publication: Option<(KeccakDigest, Signature)>,
    signatures: BTreeMap<ParticipantIndex, (KeccakDigest, Signature)>,
    told_of: BTreeSet<ParticipantIndex>,
    signed: bool,
    ask_at: Option<Millis>,
    effects: VecDeque<Effect<(), ExchangeEffect>>,
}

impl Exchange {
    /// Answers from the start; asks for nothing yet.
    #[must_use]
    pub(crate) const fn new(config: ExchangeConfig) -> Self {
        Self {
            config,
            want_facts: false,
            answers: BTreeMap::new(),
            publication: None,
            signatures: BTreeMap::new(),
            told_of: BTreeSet::new(),
            signed: false,
            ask_at: None,
            effects: VecDeque::new(),
        }
    }

    /// Asks everybody for facts; then [`ExchangeEffect::AllFacts`].
    pub(crate) fn ask_facts(&mut self, now: Millis) {
        self.want_facts = true;
        self.check_facts();
        self.ask(now);
    }

    /// The answers so far.
    #[must_use]
    pub(crate) const fn answers(&self) -> &BTreeMap<ParticipantIndex, Answer> {
        &self.answers
    }

    /// Gives this member's signature to the others and asks for theirs; then
    /// [`ExchangeEffect::Signed`].
    pub(crate) fn offer(&mut self, digest: KeccakDigest, signature: Signature, now: Millis) {
        self.publication = Some((digest, signature));
        self.say(None, ExchangeBody::Signature(digest, signature));
        self.check_signatures();
        self.ask(now);
    }

    /// Members whose signature under this member's publication is missing.
    #[must_use]
    pub(crate) fn unsigned(&self) -> Vec<ParticipantIndex> {
        let mine = self.publication.as_ref().map(|(digest, _)| digest);
        let signed = |j: &ParticipantIndex| {
            self.signatures.get(j).is_some_and(|(digest, _)| Some(digest) == mine)
        };
        self.others().filter(|j| !signed(j)).collect()
    }

    /// Members whose facts are missing.
    #[must_use]
    pub(crate) fn unanswered(&self) -> Vec<ParticipantIndex> {
        self.others().filter(|j| !self.answers.contains_key(j)).collect()
    }

    fn others(&self) -> impl Iterator<Item = ParticipantIndex> + use<> {
        let me = self.config.me;
        self.config.committee.participants().filter(move |j| *j != me)
    }

    fn say(&mut self, to: Option<ParticipantIndex>, body: ExchangeBody) {
        let ExchangeConfig { ceremony, attempt, .. } = self.config;
        let bytes = ExchangeMessage { ceremony, attempt, body }.to_wire().into();
        self.effects.push_back(match to {
            Some(to) => Effect::Send { to, bytes },
            None => Effect::Broadcast(bytes),
        });
    }

    fn wall(&self, now: Millis) -> u64 {
        self.config.clock_zero + now
    }

    /// Asks for what is missing, and again later if anything is.
    fn ask(&mut self, now: Millis) {
        let mut asked = false;
        if self.want_facts {
            let wall = self.wall(now);
            for j in self.unanswered() {
                asked = true;
                self.say(Some(j), ExchangeBody::AskFacts(wall));
            }
        }
        if self.publication.is_some() {
            for j in self.unsigned() {
                asked = true;
                self.say(Some(j), ExchangeBody::AskSignature);
            }
        }
        self.ask_at = asked.then(|| now + self.config.retry);
    }

    fn check_facts(&mut self) {
        if self.want_facts && self.unanswered().is_empty() {
            self.want_facts = false;
            self.effects.push_back(Effect::Special(ExchangeEffect::AllFacts));
        }
    }

    fn check_signatures(&mut self) {
        let Some((mine, own)) = self.publication else { return };
        for (j, (digest, _)) in &self.signatures {
            if *digest != mine && self.told_of.insert(*j) {
                let other = ExchangeEffect::OtherPublication(*j);
                self.effects.push_back(Effect::Special(other));
            }
        }
        if !self.signed && self.unsigned().is_empty() {
            self.signed = true;
            let signature = |j| match self.signatures.get(&j) {
                Some((_, signature)) => *signature,
                None => own,
            };
            let all = self.config.committee.participants().map(signature).collect();
            self.effects.push_back(Effect::Special(ExchangeEffect::Signed(all)));
        }
    }
}

impl Machine for Exchange {
    type Record = ();
    type Special = ExchangeEffect;
    type Skip = ExchangeSkip;
    type Fault = ExchangeFault;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<ExchangeSkip, ExchangeFault> {
        let message = match ExchangeMessage::from_wire(bytes) {
            Ok(message) => message,
            Err(error) => return Verdict::Fault(error.into()),
        };
        if (message.ceremony, message.attempt) != (self.config.ceremony, self.config.attempt) {
            return Verdict::Skip(ExchangeSkip::OtherAttempt);
        }
        match message.body {
            ExchangeBody::AskFacts(asked) => {
                let facts = ExchangeBody::Facts(asked, self.wall(now), self.config.facts.clone());
                self.say(Some(from), facts);
            }
            ExchangeBody::Facts(asked, theirs, facts) => {
                // An answer to no question of this member would be timed wrongly.
                let wall = self.wall(now);
                let Some(round_trip) = wall.checked_sub(asked) else {
                    return Verdict::Skip(ExchangeSkip::NotAsked);
                };
                let middle = i128::from(asked) + i128::from(round_trip / 2);
                let difference = i128::from(theirs) - middle;
                let clock_difference = difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                self.answers.insert(from, Answer { facts, clock_difference, round_trip });
                self.check_facts();
            }
            ExchangeBody::AskSignature => {
                if let Some((digest, signature)) = self.publication {
                    self.say(Some(from), ExchangeBody::Signature(digest, signature));
                }
            }
            ExchangeBody::Signature(digest, signature) => {
                let identity = self.config.roster.get(from.position());
                let valid =
                    identity.is_some_and(|i| i.verify(digest.as_bytes(), &signature).is_ok());
                if !valid {
                    return Verdict::Fault(ExchangeFault::Signature);
                }
                self.signatures.insert(from, (digest, signature));
                self.check_signatures();
            }
        }
        Verdict::Valid
    }

    fn handle_timeout(&mut self, now: Millis) {
        if self.ask_at.is_some_and(|at| now >= at) {
            self.ask(now);
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.ask_at
    }

    fn poll_effect(&mut self) -> Option<Effect<(), ExchangeEffect>> {
        self.effects.pop_front()
    }
}
