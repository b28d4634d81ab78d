//! The member's protocols and what they report: agreement, decryption, signing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use veil_committee::{
    decryption::{DecryptionEffect, Decryptor, Evidence, Fault, WrongMembership},
    frost::SigningError,
    key_share::{KeyShare, KeyShareError},
};
use veil_committee_agreement::{Agreement, AgreementConfig, AgreementEffect, SetupError, Timing};
use veil_node_ceremony::P2pTransports;
use veil_node_ceremony::journals;
use veil_node_core::epoch::ActiveEpoch;
use veil_node_driver::{
    Channel, Control, Driver, DriverConfig, Host, HostError, NonceStore, Transports,
};
use veil_node_storage::{durable::count_up, journal::JournalError, slot_journal::SlotJournal};
use veil_protocol_spec::{
    ParticipantIndex, agreement::record::Record, decryption::DecryptionCounter, evidence::Proof,
    identity::SecretIdentity,
};

use crate::{ballot::Ballot, counter::CounterJournal, signer::Signer};

/// Why the protocols cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Agreement.
    #[error(transparent)]
    Agreement(#[from] SetupError),
    /// Decryption.
    #[error(transparent)]
    Decryption(#[from] WrongMembership),
    /// The key share.
    #[error(transparent)]
    KeyShare(#[from] KeyShareError),
    /// Signing.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The restart counter of the coordinator.
    #[error("{path}: {source}")]
    Restarts {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Proofs that may wait to be stored. What finds no room is lost: it is against members that more is known
/// of.
pub(crate) const MAX_WAITING_PROOFS: usize = 64;

/// Stores records, and passes on what happened, and proofs of what must not.
struct Forward<J, E> {
    journal: J,
    /// `None` once a record could not be stored: the member ends when it sees that nothing more can come.
    events: Option<mpsc::UnboundedSender<E>>,
    proofs: mpsc::Sender<Proof>,
}

impl<J, E> Forward<J, E> {
    /// A journal that has failed takes nothing any more until it is opened again, so a machine that would
    /// go on without it would wait for ever.
    fn stored(&mut self, stored: Result<(), JournalError>) -> Result<(), HostError> {
        if stored.is_err() {
            self.events = None;
        }
        stored.map_err(HostError::new)
    }

    fn tell(&self, event: E) {
        if let Some(events) = &self.events {
            let _ = events.send(event); // the member has stopped
        }
    }

    fn report(&self, proof: Proof) {
        let _ = self.proofs.try_send(proof); // see MAX_WAITING_PROOFS
    }
}

impl Host<Agreement> for Forward<SlotJournal, AgreementEffect> {
    fn persist(&mut self, records: &[Record]) -> Result<(), HostError> {
        let stored = self.journal.append(records);
        self.stored(stored)
    }

    fn carry_out(&mut self, event: AgreementEffect, _machine: &Agreement) -> Result<(), HostError> {
        self.tell(event);
        Ok(())
    }
}

impl Host<Decryptor> for Forward<CounterJournal, DecryptionEffect> {
    fn persist(&mut self, records: &[DecryptionCounter]) -> Result<(), HostError> {
        let Some(last) = records.last() else { return Ok(()) };
        let stored = self.journal.replace(last);
        self.stored(stored)
    }

    fn carry_out(
        &mut self,
        effect: DecryptionEffect,
        machine: &Decryptor,
    ) -> Result<(), HostError> {
        if let DecryptionEffect::WrongShare { request, culprit, .. } = &effect
            && let Some(wrong) = machine.wrong_partial(*request, *culprit)
        {
            self.report(Proof::WrongPartial(Box::new(wrong)));
        }
        self.tell(effect);
        Ok(())
    }

    fn faulted(&mut self, fault: Box<Fault>) {
        let Evidence::TwoPartials { first, second } = fault.evidence;
        self.report(Proof::TwoPartials(Box::new((first, second))));
    }
}

/// The protocols of one epoch, each a machine under a driver of its own.
pub(crate) struct Protocols {
    pub(crate) me: ParticipantIndex,
    pub(crate) ballot: Ballot,
    pub(crate) agreed: mpsc::UnboundedReceiver<AgreementEffect>,
    pub(crate) decryption: Control<Decryptor>,
    pub(crate) decrypted: mpsc::UnboundedReceiver<DecryptionEffect>,
    /// What the agreement stores.
    pub(crate) records: SlotJournal,
    pub(crate) nonces: NonceStore,
    _agreement: Driver<Agreement, Forward<SlotJournal, AgreementEffect>>,
    _decryption: Driver<Decryptor, Forward<CounterJournal, DecryptionEffect>>,
}

impl Protocols {
    /// Sets them up from what is stored in `folder`, and starts them; the signer runs in a task of its
    /// own.
    pub(crate) fn start(
        epoch: &Arc<ActiveEpoch>,
        transports: &P2pTransports,
        folder: &Path,
        identity: &SecretIdentity,
        share: &KeyShare,
        timing: Timing,
        proofs: mpsc::Sender<Proof>,
    ) -> Result<(Self, Signer), ProtocolError> {
        let (committee, roster) = (epoch.committee, &epoch.roster);
        let certified = epoch.ledger.state().last_slot();
        let (records, stored) = SlotJournal::open(&folder.join(journals::AGREEMENT), certified)?;
        let config =
            AgreementConfig { committee, binding: epoch.binding, roster: roster.clone(), timing };
        let mut agreement = Agreement::new(config, identity.clone(), stored)?;
        if let Some(floor) = records.floor() {
            agreement.abstain_through(floor);
        }
        let me = agreement.participant();
        let (events, agreed) = mpsc::unbounded_channel();
        let journal = records.clone();
        let host = Forward { journal, events: Some(events), proofs: proofs.clone() };
        let (transport, incoming) = transports.open(Channel::Agreement, roster);
        let config = DriverConfig::new(committee, me);
        let agreement = Driver::start(config, agreement, host, transport, incoming);

        let (journal, counter) = CounterJournal::open(folder, epoch)?;
        let decryptor =
            Decryptor::new(share.decryptor(), identity.clone(), roster.clone(), counter)?;
        let (events, decrypted) = mpsc::unbounded_channel();
        let host = Forward { journal, events: Some(events), proofs: proofs.clone() };
        let (transport, incoming) = transports.open(Channel::Decryption, roster);
        let decryption = Driver::start(config, decryptor, host, transport, incoming);

        let path = folder.join("restarts");
        let restarts = count_up(&path)
            .map_err(|source| ProtocolError::Restarts { path: path.clone(), source })?;
        let group_share = share.frost()?;
        epoch.evidence.know_shares(Arc::new(group_share.public().clone()));
        let nonces = NonceStore::open(&folder.join(journals::NONCES), certified)?;
        let signer = Signer::new(
            Arc::clone(epoch),
            transports.clone(),
            Arc::new(group_share),
            identity.clone(),
            nonces.clone(),
            (path, restarts),
            proofs,
        );
        let protocols = Self {
            me,
            ballot: Ballot::new(agreement.control()),
            agreed,
            decryption: decryption.control(),
            decrypted,
            records,
            nonces,
            _agreement: agreement,
            _decryption: decryption,
        };
        Ok((protocols, signer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding C4: a member whose machine has stopped stayed, and looked alive.
    #[tokio::test]
    async fn a_journal_that_fails_ends_what_the_member_waits_for() {
        let (events, mut received) = mpsc::unbounded_channel();
        let mut host = Forward { journal: (), events: Some(events), proofs: mpsc::channel(1).0 };
        assert!(host.stored(Ok(())).is_ok());
        host.tell(1);
        let full = JournalError::Full(PathBuf::from("slots/agreement.redb"));
        assert!(host.stored(Err(full)).is_err());
        host.tell(2);
        assert_eq!(received.recv().await, Some(1));
        assert_eq!(received.recv().await, None);
    }
}
