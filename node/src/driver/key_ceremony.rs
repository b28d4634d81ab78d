//! The key ceremony under this driver, until the driver takes the machines' own face.

use veil_committee_machine as face;
use veil_keygen_ceremony::machine::{Ceremony, CeremonyEffect, Record};
use veil_protocol_spec::ParticipantIndex;

use super::{Effect, Machine, Millis, Ticket, Verdict};

impl Machine for Ceremony {
    type Record = Record;
    type Special = CeremonyEffect;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        match face::Machine::handle(self, from, bytes, now) {
            face::Verdict::Valid => Verdict::Valid,
            face::Verdict::Skip(_) => Verdict::Skip,
            face::Verdict::Fault(fault) => Verdict::Fault(fault.to_string()),
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        face::Machine::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        face::Machine::poll_timeout(self)
    }

    fn work(&mut self, now: Millis) -> bool {
        face::Machine::work(self, now)
    }

    fn poll_effect(&mut self) -> Option<Effect<Record, CeremonyEffect>> {
        Some(match face::Machine::poll_effect(self)? {
            face::Effect::Persist { id, record } => Effect::Persist(Ticket(id.0), record),
            face::Effect::Send { to, bytes } => Effect::Send(to, bytes),
            face::Effect::Broadcast(bytes) => Effect::Broadcast(bytes),
            face::Effect::Special(effect) => Effect::Special(effect),
        })
    }
}
