//! Threshold decryption as a [`Machine`]. Its owner authorises outputs through
//! [`Driver::with`](super::Driver::with).

use veil_committee::{
    decryption::{self, Completion, DecryptionCounter, Decryptor},
    frost::PersistId,
};
use veil_protocol_spec::{
    ParticipantIndex,
    decryption::{DecryptionMessage, RequestId},
};

use super::{Effect, Machine, Millis, Ticket, Verdict};

/// A [`Decryptor`] with the timer that it asked for.
pub struct DecryptionMachine {
    decryptor: Decryptor,
    timer: Option<Millis>,
}

/// What only decryption has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecryptionEffect {
    /// The outputs are decrypted.
    Complete(Box<Completion>),
    /// A member's share is wrong.
    LiarFound {
        /// Of which request.
        request: RequestId,
        /// Who.
        participant: ParticipantIndex,
        /// Its signed share.
        evidence: Box<DecryptionMessage>,
    },
    /// A member asked for something that is not given to it.
    Refused {
        /// Who asked.
        from: ParticipantIndex,
        /// For what.
        request: RequestId,
        /// Why not.
        reason: decryption::Skip,
    },
    /// Asked often enough, and silent.
    Outstanding {
        /// Which request.
        request: RequestId,
        /// Who.
        participants: Vec<ParticipantIndex>,
    },
}

impl DecryptionMachine {
    /// Takes the machine of one member, key and epoch.
    #[must_use]
    pub const fn new(decryptor: Decryptor) -> Self {
        Self { decryptor, timer: None }
    }

    /// The machine inside, to authorise outputs and for its status.
    pub const fn decryptor(&mut self) -> &mut Decryptor {
        &mut self.decryptor
    }
}

impl Machine for DecryptionMachine {
    type Record = DecryptionCounter;
    type Special = DecryptionEffect;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        match self.decryptor.handle(from, bytes, now) {
            decryption::Verdict::Valid => Verdict::Valid,
            decryption::Verdict::Skip(_) => Verdict::Skip,
            decryption::Verdict::Fault(fault) => {
                Verdict::Fault(format!("participant {} is at fault", fault.culprit))
            }
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.timer = None;
        self.decryptor.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.timer
    }

    fn poll_effect(&mut self) -> Option<Effect<DecryptionCounter, DecryptionEffect>> {
        loop {
            return Some(match self.decryptor.poll_effect()? {
                decryption::Effect::SetTimer { at } => {
                    self.timer = Some(at);
                    continue;
                }
                decryption::Effect::Persist { id, counter } => {
                    Effect::Persist(Ticket(id.0), counter)
                }
                decryption::Effect::Broadcast(bytes) => Effect::Broadcast(bytes.into()),
                decryption::Effect::Send { to, bytes } => Effect::Send(to, bytes.into()),
                decryption::Effect::Complete(completion) => {
                    Effect::Special(DecryptionEffect::Complete(completion))
                }
                decryption::Effect::LiarFound { request, participant, evidence } => {
                    let evidence = Box::new(evidence);
                    Effect::Special(DecryptionEffect::LiarFound { request, participant, evidence })
                }
                decryption::Effect::Refused { from, request, reason } => {
                    Effect::Special(DecryptionEffect::Refused { from, request, reason })
                }
                decryption::Effect::Outstanding { request, participants } => {
                    Effect::Special(DecryptionEffect::Outstanding { request, participants })
                }
            });
        }
    }

    fn persisted(&mut self, ticket: Ticket) {
        self.decryptor.persisted(PersistId(ticket.0));
    }

    fn persist_failed(&mut self, ticket: Ticket) -> bool {
        self.decryptor.persist_failed(PersistId(ticket.0));
        true
    }
}
