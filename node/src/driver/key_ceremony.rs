//! The key ceremony as a [`Machine`].

use veil_keygen_ceremony::{
    machine::{self, AbortReport, Ceremony, Outcome, Record},
    transcript::FinishCertificate,
};
use veil_protocol_spec::ParticipantIndex;

use super::{Effect, Machine, Millis, Ticket, Verdict};

/// What only the ceremony has done.
#[derive(Clone, Debug)]
pub enum CeremonyEffect {
    /// Destroy the persisted seed: FINISH is signed.
    EraseSeed,
    /// Destroy the persisted key share: the attempt made no key.
    EraseKeyShare,
    /// Bring to the commit point.
    Publish(Box<FinishCertificate>),
    /// The attempt succeeded.
    Complete(Box<Outcome>),
    /// The attempt failed.
    Abort(Box<AbortReport>),
}

impl Machine for Ceremony {
    type Record = Record;
    type Special = CeremonyEffect;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Verdict {
        match self.handle(from, bytes, now) {
            machine::Verdict::Valid => Verdict::Valid,
            machine::Verdict::Skip(_) => Verdict::Skip,
            machine::Verdict::Fault(fault) => Verdict::Fault(fault.to_string()),
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.poll_timeout()
    }

    fn work(&mut self, now: Millis) -> bool {
        self.work(now)
    }

    fn poll_effect(&mut self) -> Option<Effect<Record, CeremonyEffect>> {
        Some(match self.poll_effect()? {
            machine::Effect::Persist(record) => Effect::Persist(Ticket(0), record),
            machine::Effect::Send(to, bytes) => Effect::Send(to, bytes),
            machine::Effect::Broadcast(bytes) => Effect::Broadcast(bytes),
            machine::Effect::EraseSeed => Effect::Special(CeremonyEffect::EraseSeed),
            machine::Effect::EraseKeyShare => Effect::Special(CeremonyEffect::EraseKeyShare),
            machine::Effect::Publish(certificate) => {
                Effect::Special(CeremonyEffect::Publish(certificate))
            }
            machine::Effect::Complete(outcome) => {
                Effect::Special(CeremonyEffect::Complete(outcome))
            }
            machine::Effect::Abort(report) => Effect::Special(CeremonyEffect::Abort(report)),
        })
    }
}
