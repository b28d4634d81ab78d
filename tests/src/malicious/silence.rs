//! Says nothing where something is due, and does not answer for it either.

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, Round, SignedMessage, Stream},
};

use super::{Insider, Misbehaviour, wire};

pub(super) struct Silent {
    pub(super) round: Round,
    pub(super) publishes: bool,
}

impl Misbehaviour for Silent {
    fn own(&mut self, _insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        if message.header.round == self.round { Vec::new() } else { vec![wire(message)] }
    }

    fn publishes(&self) -> bool {
        self.round != Round::Finish || self.publishes
    }
}

/// So late that the receiver only just goes on, and is itself late for the others.
pub(super) struct Late {
    pub(super) round: Round,
    pub(super) to: ParticipantIndex,
    pub(super) by: Millis,
    pub(super) due: Option<Millis>,
}

impl Misbehaviour for Late {
    fn own(&mut self, insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        if insider.to != self.to || message.header.round != self.round {
            return vec![wire(message)];
        }
        let due = *self.due.get_or_insert(insider.now);
        if insider.now < due + self.by { Vec::new() } else { vec![wire(message)] }
    }
}

pub(super) struct Starve {
    pub(super) stream: Stream,
    pub(super) of: ParticipantIndex,
    pub(super) victims: Vec<ParticipantIndex>,
}

impl Misbehaviour for Starve {
    fn other(&mut self, insider: &Insider, message: CeremonyMessage) -> Vec<Vec<u8>> {
        match &message {
            CeremonyMessage::Chunk { id, .. }
                if (id.stream, id.sender) == (self.stream, self.of)
                    && self.victims.contains(&insider.to) =>
            {
                Vec::new()
            }
            _ => vec![message.to_wire()],
        }
    }
}
