//! The key ceremony as a [`Machine`], until it implements that itself.

use std::ops::{Deref, DerefMut};

use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_keygen_ceremony::{
    machine::{self, AbortReport, Ceremony, Fault, Outcome, Record, Skip},
    transcript::FinishCertificate,
};
use veil_protocol_spec::ParticipantIndex;

/// A [`Ceremony`].
pub struct KeyCeremony(pub Ceremony);

impl Deref for KeyCeremony {
    type Target = Ceremony;

    fn deref(&self) -> &Ceremony {
        &self.0
    }
}

impl DerefMut for KeyCeremony {
    fn deref_mut(&mut self) -> &mut Ceremony {
        &mut self.0
    }
}

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

impl Machine for KeyCeremony {
    type Record = Record;
    type Special = CeremonyEffect;
    type Skip = Skip;
    type Fault = Fault;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<Skip, Fault> {
        match self.0.handle(from, bytes, now) {
            machine::Verdict::Valid => Verdict::Valid,
            machine::Verdict::Skip(skip) => Verdict::Skip(skip),
            machine::Verdict::Fault(fault) => Verdict::Fault(fault),
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.0.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.0.poll_timeout()
    }

    fn work(&mut self, now: Millis) -> bool {
        self.0.work(now)
    }

    fn poll_effect(&mut self) -> Option<Effect<Record, CeremonyEffect>> {
        Some(match self.0.poll_effect()? {
            machine::Effect::Persist(record) => Effect::Persist { id: PersistId(0), record },
            machine::Effect::Send(to, bytes) => Effect::Send { to, bytes },
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
