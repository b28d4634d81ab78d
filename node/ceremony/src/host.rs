//! Hosts of the machines around a ceremony.

use tokio::sync::{mpsc, watch};
use veil_committee_machine::Millis;
use veil_keygen_ceremony::{
    machine::{AbortReport, Ceremony, CeremonyEffect, Outcome, Progress, Record, Stage},
    transcript::{FinishCertificate, Transcript},
};
use veil_node_driver::{Host, HostError};
use veil_node_storage::{journal::Journal, keystore::Passphrase};
use veil_protocol_spec::{
    Attempt, Signature,
    ceremony::{CeremonyParameters, Round, SignedMessage},
};

use crate::{
    exchange::{Exchange, ExchangeEffect},
    folder::AttemptFolder,
    status::CeremonyProgress,
};

/// What the ceremony's host tells the attempt.
#[derive(Debug)]
pub(crate) enum CeremonyEvent {
    Publish(Box<FinishCertificate>),
    Complete(Box<Outcome>),
    Abort(Box<AbortReport>),
}

pub(crate) struct CeremonyHost {
    pub(crate) folder: AttemptFolder,
    pub(crate) journal: Journal,
    pub(crate) passphrase: Passphrase,
    pub(crate) parameters: CeremonyParameters,
    pub(crate) attempt: Attempt,
    pub(crate) events: mpsc::UnboundedSender<CeremonyEvent>,
    pub(crate) status: CeremonyProgress,
    pub(crate) shown: Option<Progress>,
}

impl CeremonyHost {
    fn transcript(&self, machine: &Ceremony) -> Transcript {
        let messages = machine.broadcasts().filter(|m| m.header.round != Round::Abort);
        self.transcript_of(messages.cloned().collect())
    }

    fn transcript_of(&self, messages: Vec<SignedMessage>) -> Transcript {
        Transcript { parameters: self.parameters.clone(), attempt: self.attempt, messages }
    }
}

impl Host<Ceremony> for CeremonyHost {
    fn persist(&mut self, records: &[Record]) -> Result<(), HostError> {
        let mut messages = Vec::new();
        for record in records {
            match record {
                Record::Message(message) => messages.push(&**message),
                // Files of their own; what comes before and after them keeps its order.
                Record::KeySet(key_set) => {
                    self.folder.write_key_set(key_set).map_err(HostError::new)?;
                }
                Record::KeyShare(share) => {
                    self.folder.write_key_share(share, &self.passphrase).map_err(HostError::new)?;
                }
            }
        }
        if messages.is_empty() {
            return Ok(());
        }
        self.journal.append(messages).map_err(HostError::new)
    }

    fn carry_out(&mut self, effect: CeremonyEffect, machine: &Ceremony) -> Result<(), HostError> {
        let event = match effect {
            CeremonyEffect::EraseSeed => {
                return self.folder.erase_seed().map_err(HostError::new);
            }
            CeremonyEffect::VoidKeyShare => {
                return self.folder.void_key_share().map_err(HostError::new);
            }
            CeremonyEffect::Publish(certificate) => CeremonyEvent::Publish(certificate),
            CeremonyEffect::Complete(outcome) => {
                let transcript = self.transcript(machine);
                self.folder.write_transcript(&transcript).map_err(HostError::new)?;
                CeremonyEvent::Complete(outcome)
            }
            CeremonyEffect::Abort(report) => {
                let evidence = self.transcript_of(machine.broadcasts().cloned().collect());
                // The abort must be known even if its evidence finds no room.
                if let Err(error) = self.folder.write_evidence(&evidence) {
                    tracing::warn!(%error, "the evidence of the abort could not be kept");
                }
                CeremonyEvent::Abort(report)
            }
        };
        // The attempt has stopped listening: nothing is left to do for it.
        let _ = self.events.send(event);
        Ok(())
    }

    fn observe(&mut self, machine: &Ceremony, _now: Millis) {
        let progress = machine.progress();
        if self.shown.as_ref() == Some(&progress) || progress.stage == Stage::AwaitCommitPoint {
            return;
        }
        let Progress { stage, done, total, outstanding } = progress.clone();
        self.status.step(stage.name(), (done, total), outstanding);
        self.shown = Some(progress);
    }
}

/// What the exchange has brought so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExchangeState {
    pub(crate) all_facts: bool,
    pub(crate) signatures: Option<Vec<Signature>>,
}

pub(crate) struct ExchangeHost(pub(crate) watch::Sender<ExchangeState>);

impl Host<Exchange> for ExchangeHost {
    fn persist(&mut self, _records: &[()]) -> Result<(), HostError> {
        Ok(())
    }

    fn carry_out(&mut self, effect: ExchangeEffect, _: &Exchange) -> Result<(), HostError> {
        self.0.send_modify(|state| match effect {
            ExchangeEffect::AllFacts => state.all_facts = true,
            ExchangeEffect::Signed(signatures) => state.signatures = Some(signatures),
            ExchangeEffect::OtherPublication(participant) => {
                tracing::error!(
                    %participant,
                    "signed another publication than this member; the attempt will expire"
                );
            }
        });
        Ok(())
    }
}
