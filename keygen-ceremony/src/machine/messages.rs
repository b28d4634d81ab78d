//! Signed messages and requests for them, in and out.

use std::sync::Arc;

use veil_committee_machine::{Effect, Millis, Verdict};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{AbortReason, CeremonyMessage, Header, Payload, Round, SignedMessage},
};

use super::{
    Ceremony,
    failure::Failure,
    interface::{Fault, Record, Stage},
};
use crate::setup::Skip;

type Accepted = Verdict<Skip, Fault>;

impl Ceremony {
    pub(super) fn accept(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Accepted {
        let message = match CeremonyMessage::from_wire(bytes) {
            Ok(message) => message,
            Err(error) => return Verdict::Fault(error.into()),
        };
        let (ceremony, attempt) = match &message {
            CeremonyMessage::Signed(message) => (message.header.ceremony, message.header.attempt),
            CeremonyMessage::Request { ceremony, attempt, .. } => (*ceremony, *attempt),
            CeremonyMessage::ChunkRequest(id) | CeremonyMessage::Chunk { id, .. } => {
                (id.ceremony, id.attempt)
            }
        };
        if let Err(skip) = self.setup.check(&ceremony, attempt) {
            return Verdict::Skip(skip);
        }
        match message {
            CeremonyMessage::Signed(message) => self.accept_signed(*message, now),
            CeremonyMessage::Request { round, sender, .. } => self.serve(from, round, sender),
            CeremonyMessage::ChunkRequest(id) => self.serve_chunk(from, id),
            CeremonyMessage::Chunk { id, bytes } => self.accept_chunk(id, bytes.0, now),
        }
    }

    fn accept_signed(&mut self, message: SignedMessage, now: Millis) -> Accepted {
        let Header { round, sender, recipient, .. } = message.header;
        let Some(identity) = self
            .setup
            .parameters
            .identity(sender)
            .filter(|_| self.setup.committee().contains(sender))
        else {
            return Verdict::Fault(Fault::NotAMember(sender));
        };
        if !message.payload.fits(round) || recipient.is_some() != (round == Round::Deal) {
            return Verdict::Fault(Fault::Form(round));
        }
        if sender == self.setup.me {
            return Verdict::Skip(Skip::Duplicate);
        }
        if recipient.is_some_and(|recipient| recipient != self.setup.me) {
            return Verdict::Skip(Skip::NotForMe);
        }
        let known = self.log.get(round, sender);
        if known == Some(&message) {
            return Verdict::Skip(Skip::Duplicate);
        }
        if message.verify(identity).is_err() {
            return Verdict::Fault(Fault::Signature(sender));
        }
        if let Some(first) = known.cloned() {
            // After FINISH there is nothing to abort, and no end to what a culprit may sign.
            let finished = self.log.finish_root(self.setup.me).is_some();
            if !finished && !self.has_ended() {
                self.persist(Record::Message(Box::new(message.clone())));
                self.evidence.extend([first, message]);
                self.abort(AbortReason::Equivocation { accused: sender, round });
            }
            return Verdict::Fault(Fault::Equivocation { sender, round });
        }
        if self.has_ended() {
            return Verdict::Skip(Skip::Done);
        }
        self.persist(Record::Message(Box::new(message.clone())));
        self.log.insert(message);
        if round == Round::Abort {
            self.abort(AbortReason::PeerAborted { by: sender });
        } else if let Err(failed) = self.advance(now) {
            self.end(failed);
        }
        Verdict::Valid
    }

    /// Sends a message again to a peer that asks for it.
    fn serve(
        &mut self,
        from: ParticipantIndex,
        round: Round,
        sender: ParticipantIndex,
    ) -> Accepted {
        let found = if round == Round::Deal {
            self.log.sent_deal(from).filter(|_| sender == self.setup.me)
        } else {
            self.log.get(round, sender)
        };
        // A member that aborted will not get it, and its ABORT may have been lost: silence would be
        // blamed on it.
        let found = found.or_else(|| self.log.get(Round::Abort, self.setup.me));
        let Some(message) = found.cloned() else {
            return Verdict::Skip(Skip::NotHere);
        };
        self.send(from, &CeremonyMessage::Signed(Box::new(message)));
        Verdict::Valid
    }

    pub(super) fn own_header(&self, round: Round, recipient: Option<ParticipantIndex>) -> Header {
        Header {
            ceremony: self.setup.id,
            attempt: self.setup.attempt,
            round,
            sender: self.setup.me,
            recipient,
        }
    }

    /// Signs, persists and sends this member's message of a round.
    pub(super) fn send_own(
        &mut self,
        round: Round,
        recipient: Option<ParticipantIndex>,
        payload: Payload,
    ) -> Result<(), Failure> {
        let header = self.own_header(round, recipient);
        let message = SignedMessage::sign(header, payload, &self.identity);
        let before = self
            .replayed
            .iter()
            .find(|m| m.header.round == round && m.header.recipient == recipient);
        match before {
            // Other bytes than were sent before the restart: sending them would be equivocation.
            Some(before) if *before != message => return Err(Failure::Diverged(round)),
            Some(_) => {}
            None => self.persist(Record::Message(Box::new(message.clone()))),
        }
        match recipient {
            Some(recipient) => {
                self.send(recipient, &CeremonyMessage::Signed(Box::new(message.clone())));
            }
            None => self.broadcast(&message),
        }
        self.log.insert_own(message);
        Ok(())
    }

    pub(super) fn send(&mut self, to: ParticipantIndex, message: &CeremonyMessage) {
        self.effects.push_back(Effect::Send { to, bytes: message.to_wire().into() });
    }

    pub(super) fn broadcast(&mut self, message: &SignedMessage) {
        let bytes = CeremonyMessage::Signed(Box::new(message.clone())).to_wire();
        self.effects.push_back(Effect::Broadcast(bytes.into()));
    }

    /// Asks everybody for what is missing: its sender first, but a relay may have it too.
    pub(super) fn request_missing(&mut self, now: Millis) {
        let round = match self.stage() {
            Stage::Collect(round) => round,
            Stage::Raise(_) => Round::ReferenceString,
            _ => return self.request_missing_chunks(now),
        };
        for sender in self.progress().outstanding {
            let request = CeremonyMessage::Request {
                ceremony: self.setup.id,
                attempt: self.setup.attempt,
                round,
                sender,
            };
            let bytes: Arc<[u8]> = request.to_wire().into();
            self.effects.push_back(if round == Round::Deal {
                Effect::Send { to: sender, bytes }
            } else {
                Effect::Broadcast(bytes)
            });
        }
    }
}
