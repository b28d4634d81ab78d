//! Members that deviate from the protocol; one file per misbehaviour.
//!
//! A malicious member has its own identity, seed and keys, and runs the honest machine: what differs
//! is what leaves it. A `Deviant` shows every outgoing message, per recipient, to a `Misbehaviour`,
//! which replaces it and signs again. So whatever is not the point of an attack is as it should be.
//! A malicious member does not abort: its own machine may, when the others' echoes differ from what
//! it thinks it has sent, but it keeps that to itself and goes on answering.

mod after_finish;
mod bad_deal;
mod corrupt_chunk;
pub mod crafted_ciphertext;
mod equivocating_commit;
mod malformed;
pub(crate) mod replay;
mod silence;
mod wrong_confirm;
pub mod wrong_deal;
mod wrong_echo;
pub mod wrong_partial;
mod wrong_proof;
pub mod wrong_release;
mod wrong_share;
mod wrong_string;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::Mail;
use veil_keygen_ceremony::{seed::CeremonySeed, setup::Setup, store::MemoryStore};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, Header, Payload, Round, SignedMessage, Stream},
    identity::SecretIdentity,
};

pub use self::{
    bad_deal::BadDeal, wrong_confirm::WrongConfirm, wrong_proof::WrongProof,
    wrong_string::WrongString,
};

/// A way to deviate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// Deals something wrong to one receiver.
    BadDeal {
        /// To whom.
        to: ParticipantIndex,
        /// What.
        wrong: BadDeal,
    },
    /// Commits to one thing before some and to another before the rest.
    EquivocatingCommit {
        /// Who gets the second version.
        second_to: Vec<ParticipantIndex>,
    },
    /// Confirms, reveals or computes something else.
    WrongConfirm(WrongConfirm),
    /// Echoes a digest that it did not receive.
    WrongEcho {
        /// In which echo round.
        round: Round,
        /// Whose message it misreports.
        about: ParticipantIndex,
    },
    /// Publishes one wrong word in its share stream, under a root that fits.
    WrongShare {
        /// Of which stream.
        stream: Stream,
        /// In which chunk.
        chunk: u32,
        /// Which 64-bit word of the chunk.
        word: usize,
    },
    /// Sends chunks with a flipped bit to one receiver, its own and relayed ones.
    CorruptChunk {
        /// To whom.
        to: ParticipantIndex,
    },
    /// Gives some receivers no chunks of one member.
    Starve {
        /// Of which stream.
        stream: Stream,
        /// Whose.
        of: ParticipantIndex,
        /// Who gets none.
        victims: Vec<ParticipantIndex>,
    },
    /// Says nothing in one round, and does not answer for it either.
    Silent {
        /// Which round.
        round: Round,
    },
    /// Says nothing to one receiver for a time, then answers its questions.
    Late {
        /// In which round.
        round: Round,
        /// To whom.
        to: ParticipantIndex,
        /// For how long.
        by: Millis,
    },
    /// Signs FINISH for nobody but the commit point.
    FinishInSecret,
    /// Contributes something else to the reference string.
    WrongString(WrongString),
    /// Contributes one thing to the reference string before some and another before the rest.
    TwoStrings {
        /// Who gets the second version.
        second_to: Vec<ParticipantIndex>,
    },
    /// Proves something else.
    WrongProof(WrongProof),
    /// Sends what it has heard again: other rounds, senders, recipients, attempts, ceremonies.
    Replay,
    /// Sends what is no message, or nobody's.
    Malformed,
    /// Signs ABORT after FINISH.
    AbortAfterFinish,
    /// Signs FINISH for another root.
    FinishOtherRoot {
        /// Before whom; the others get the right one.
        to: Vec<ParticipantIndex>,
    },
}

impl Behaviour {
    fn misbehaviour(self) -> Box<dyn Misbehaviour> {
        match self {
            Self::BadDeal { to, wrong } => Box::new(bad_deal::BadDealer::new(to, wrong)),
            Self::EquivocatingCommit { second_to } => {
                Box::new(equivocating_commit::EquivocatingCommit { second_to })
            }
            Self::WrongConfirm(wrong) => Box::new(wrong),
            Self::WrongEcho { round, about } => Box::new(wrong_echo::WrongEcho { round, about }),
            Self::WrongShare { stream, chunk, word } => {
                Box::new(wrong_share::WrongShare { stream, chunk, word, root: None })
            }
            Self::CorruptChunk { to } => Box::new(corrupt_chunk::CorruptChunk { to }),
            Self::Starve { stream, of, victims } => {
                Box::new(silence::Starve { stream, of, victims })
            }
            Self::Silent { round } => Box::new(silence::Silent { round, publishes: false }),
            Self::FinishInSecret => {
                Box::new(silence::Silent { round: Round::Finish, publishes: true })
            }
            Self::Late { round, to, by } => Box::new(silence::Late { round, to, by, due: None }),
            Self::WrongString(wrong) => Box::new(wrong_string::Contributor::new(wrong, None)),
            Self::TwoStrings { second_to } => {
                let wrong = WrongString::OtherExponent;
                Box::new(wrong_string::Contributor::new(wrong, Some(second_to)))
            }
            Self::WrongProof(wrong) => Box::new(wrong),
            Self::Replay => Box::new(replay::Replay::default()),
            Self::Malformed => Box::new(malformed::Malformed),
            Self::AbortAfterFinish => Box::new(after_finish::AbortAfterFinish),
            Self::FinishOtherRoot { to } => Box::new(after_finish::FinishOtherRoot { to }),
        }
    }
}

/// What a member knows.
pub(crate) struct Insider {
    pub(crate) setup: Arc<Setup>,
    pub(crate) identity: SecretIdentity,
    pub(crate) seed: CeremonySeed,
    pub(crate) store: MemoryStore,
    /// Messages of other attempts and ceremonies that it has kept.
    pub(crate) relics: Vec<Vec<u8>>,
    /// The recipient of the message that leaves.
    pub(crate) to: ParticipantIndex,
    /// The time at which it does.
    pub(crate) now: Millis,
}

impl Insider {
    pub(crate) fn me(&self) -> ParticipantIndex {
        self.setup.participant()
    }

    pub(crate) fn header(&self, round: Round, recipient: Option<ParticipantIndex>) -> Header {
        Header {
            ceremony: self.setup.parameters().id(),
            attempt: self.setup.attempt(),
            round,
            sender: self.me(),
            recipient,
        }
    }

    /// Signs another payload in place of one of its own messages.
    pub(crate) fn instead(&self, message: &SignedMessage, payload: Payload) -> SignedMessage {
        SignedMessage::sign(message.header, payload, &self.identity)
    }
}

/// The bytes of a signed message on the wire.
pub(crate) fn wire(message: SignedMessage) -> Vec<u8> {
    CeremonyMessage::Signed(Box::new(message)).to_wire()
}

/// What leaves instead of what should.
pub(crate) trait Misbehaviour: Send {
    /// Something to send instead of this member's own message.
    fn own(&mut self, _insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        vec![wire(message)]
    }

    /// The same for everything else: relayed messages, requests and chunks.
    fn other(&mut self, _insider: &Insider, message: CeremonyMessage) -> Vec<Vec<u8>> {
        vec![message.to_wire()]
    }

    /// Whether it brings a certificate to the commit point.
    fn publishes(&self) -> bool {
        true
    }

    /// Listens to what arrives.
    fn hear(&mut self, _message: &CeremonyMessage, _bytes: &[u8]) {}
}

/// What stands between an honest machine and its network.
pub(crate) struct Deviant {
    insider: Insider,
    pub(crate) misbehaviour: Box<dyn Misbehaviour>,
}

impl Deviant {
    pub(crate) fn new(insider: Insider, behaviour: Behaviour) -> Self {
        Self { insider, misbehaviour: behaviour.misbehaviour() }
    }

    /// What leaves in place of a message.
    pub(crate) fn replace(&mut self, mail: &Mail, now: Millis) -> Vec<Arc<[u8]>> {
        (self.insider.to, self.insider.now) = (mail.to, now);
        let replaced = match CeremonyMessage::from_wire(&mail.bytes) {
            Ok(CeremonyMessage::Signed(message)) if message.header.sender == self.insider.me() => {
                if message.header.round == Round::Abort {
                    return Vec::new();
                }
                self.misbehaviour.own(&self.insider, *message)
            }
            Ok(message) => self.misbehaviour.other(&self.insider, message),
            Err(_) => return Vec::new(),
        };
        replaced.into_iter().map(Into::into).collect()
    }

    /// Listens to what arrives.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        if let Ok(message) = CeremonyMessage::from_wire(bytes) {
            self.misbehaviour.hear(&message, bytes);
        }
    }
}
