//! The member's protocols and what they report: agreement, decryption, signing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use veil_committee::{
    decryption::{Completion, DecryptionEffect, Decryptor, WrongMembership},
    frost::{
        self, GroupKeyShare, Purpose, SessionContext, SigningContext, SigningError, SigningKeyId,
        SigningMachine, SigningSchedule,
    },
    key_share::{KeyShare, KeyShareError},
};
use veil_committee_agreement::{Agreement, AgreementConfig, AgreementEffect, SetupError, Timing};
use veil_committee_machine::Millis;
use veil_node_core::{P2pTransports, epoch::ActiveEpoch};
use veil_node_driver::{
    Channel, Control, Driver, DriverConfig, Host, HostError, NonceHost, NonceStore, SigningOutcome,
    Stopped, Transports,
};
use veil_node_storage::{
    durable::count_up,
    journal::{Journal, JournalError},
};
use veil_protocol_spec::{
    ParticipantIndex, Slot,
    agreement::record::Record,
    decryption::DecryptionCounter,
    identity::SecretIdentity,
    scheduling::{Binding, CertificateBody, GroupSignature},
};

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

/// Stores records, and passes on what happened.
struct Forward<E> {
    journal: Journal,
    events: mpsc::UnboundedSender<E>,
}

impl Host<Agreement> for Forward<AgreementEffect> {
    fn persist(&mut self, records: &[Record]) -> Result<(), HostError> {
        self.journal.append(records).map_err(HostError::new)
    }

    fn carry_out(&mut self, event: AgreementEffect, _machine: &Agreement) -> Result<(), HostError> {
        let _ = self.events.send(event); // the member has stopped
        Ok(())
    }
}

impl Host<Decryptor> for Forward<DecryptionEffect> {
    fn persist(&mut self, records: &[DecryptionCounter]) -> Result<(), HostError> {
        self.journal.append(records).map_err(HostError::new)
    }

    fn carry_out(
        &mut self,
        effect: DecryptionEffect,
        _machine: &Decryptor,
    ) -> Result<(), HostError> {
        let _ = self.events.send(effect); // the member has stopped
        Ok(())
    }
}

/// The protocols of one epoch, each a machine under a driver of its own.
pub(crate) struct Protocols {
    pub(crate) me: ParticipantIndex,
    pub(crate) agreement: Control<Agreement>,
    pub(crate) agreed: mpsc::UnboundedReceiver<AgreementEffect>,
    pub(crate) decryption: Control<Decryptor>,
    pub(crate) decrypted: mpsc::UnboundedReceiver<DecryptionEffect>,
    _agreement: Driver<Agreement, Forward<AgreementEffect>>,
    _decryption: Driver<Decryptor, Forward<DecryptionEffect>>,
    signing: Signing,
}

struct Signing {
    restarts: PathBuf,
    transports: P2pTransports,
    epoch: Arc<ActiveEpoch>,
    share: Arc<GroupKeyShare>,
    identity: SecretIdentity,
    nonces: NonceStore,
    schedule: SigningSchedule,
    running: Option<(Slot, Driver<SigningMachine, NonceHost>, SigningOutcome)>,
}

/// Between the coordinators' turns, and for each of their steps.
const SIGNING_STEP: Millis = 5_000;
/// After which a session is given up and begun anew.
const SIGNING_DEADLINE: Millis = 120_000;

impl Protocols {
    /// Sets them up from what is stored in `folder`, and starts them.
    pub(crate) fn start(
        epoch: &Arc<ActiveEpoch>,
        transports: &P2pTransports,
        folder: &Path,
        identity: &SecretIdentity,
        share: &KeyShare,
        timing: Timing,
    ) -> Result<Self, ProtocolError> {
        let (committee, roster) = (epoch.committee, &epoch.roster);
        let (journal, records) = Journal::open(&folder.join("agreement.redb"))?;
        let config =
            AgreementConfig { committee, binding: epoch.binding, roster: roster.clone(), timing };
        let agreement = Agreement::new(config, identity.clone(), records)?;
        let me = agreement.participant();
        let (events, agreed) = mpsc::unbounded_channel();
        let (transport, incoming) = transports.open(Channel::Agreement, roster);
        let config = DriverConfig::new(committee, me);
        let agreement =
            Driver::start(config, agreement, Forward { journal, events }, transport, incoming);

        let (journal, counters) =
            Journal::open::<DecryptionCounter>(&folder.join("decryption.redb"))?;
        let decryptor = Decryptor::new(
            share.decryptor(),
            identity.clone(),
            roster.clone(),
            counters.last().copied().unwrap_or_default(),
        )?;
        let (events, decrypted) = mpsc::unbounded_channel();
        let (transport, incoming) = transports.open(Channel::Decryption, roster);
        let decryption =
            Driver::start(config, decryptor, Forward { journal, events }, transport, incoming);

        let path = folder.join("restarts");
        let restarts = count_up(&path)
            .map_err(|source| ProtocolError::Restarts { path: path.clone(), source })?;
        let signing = Signing {
            restarts: path,
            transports: transports.clone(),
            epoch: Arc::clone(epoch),
            share: Arc::new(share.frost()?),
            identity: identity.clone(),
            nonces: NonceStore::open(&folder.join("nonces.redb"))?,
            schedule: SigningSchedule {
                rotation: 2 * SIGNING_STEP,
                timing: frost::Timing {
                    commit: SIGNING_STEP,
                    share: SIGNING_STEP,
                    max_attempts: committee.n() as u32,
                },
                restarts,
            },
            running: None,
        };
        Ok(Self {
            me,
            agreement: agreement.control(),
            agreed,
            decryption: decryption.control(),
            decrypted,
            _agreement: agreement,
            _decryption: decryption,
            signing,
        })
    }

    /// Gets ready to sign in `slot`: nonce commitments are gathered while the slot is evaluated, and
    /// what other members say early waits here.
    pub(crate) async fn open_signing(&mut self, slot: Slot) -> Result<(), SigningError> {
        self.signing.open(slot).await
    }

    /// Has the group sign the outcome of a slot; begins anew when a session fails. The members in
    /// `ready` have evaluated it too.
    pub(crate) async fn sign(
        &mut self,
        body: &CertificateBody,
        ready: &[ParticipantIndex],
    ) -> Result<GroupSignature, SigningError> {
        let mut failure = SigningError::Over;
        for _ in 0..3 {
            self.signing.open(body.slot).await?;
            match self.signing.sign(body, ready).await {
                Ok(signature) => return Ok(signature),
                Err(error @ SigningError::AlreadyAuthorised { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(slot = %body.slot.0, %error, "signing starts again");
                    self.signing.close().await;
                    self.signing.renew()?;
                    failure = error;
                }
            }
        }
        Err(failure)
    }
}

impl Signing {
    /// Members answer a coordinator's later attempts only, so a new session begins above the old.
    fn renew(&mut self) -> Result<(), SigningError> {
        self.schedule.restarts = count_up(&self.restarts).map_err(|error| {
            tracing::error!(path = %self.restarts.display(), %error, "the restart counter is not stored");
            SigningError::NotPersisted
        })?;
        Ok(())
    }

    async fn close(&mut self) {
        if let Some((_, driver, _)) = self.running.take() {
            let _ = driver.kill().await; // its state is of no use any more
        }
    }

    async fn open(&mut self, slot: Slot) -> Result<(), SigningError> {
        if self.running.as_ref().is_some_and(|(of, ..)| *of == slot) {
            return Ok(());
        }
        self.close().await;
        let Binding { scope, epoch, .. } = self.epoch.binding;
        let key = SigningKeyId { purpose: Purpose::Certificate, epoch, slot };
        let context = SigningContext {
            chain: scope.chain_id,
            contract: scope.contract,
            cluster: scope.cluster,
            key,
        };
        let group = Arc::new(self.share.public().clone());
        let session = SessionContext::new(context, group, self.epoch.roster.clone())
            .map_err(|_| SigningError::WrongKey)?;
        let records = self.nonces.records();
        let machine = SigningMachine::new(
            Arc::new(session),
            Arc::clone(&self.share),
            self.identity.clone(),
            &records,
            self.schedule,
        )?;
        let (host, outcome) = NonceHost::new(self.nonces.clone());
        let (transport, incoming) = self.transports.open(Channel::Signing, &self.epoch.roster);
        let config = DriverConfig::new(self.epoch.committee, self.share.index());
        let driver = Driver::start(config, machine, host, transport, incoming);
        // A driver that has stopped says so when there is something to sign.
        let _ = driver.with(SigningMachine::prepare).await;
        self.running = Some((slot, driver, outcome));
        Ok(())
    }

    async fn sign(
        &mut self,
        body: &CertificateBody,
        ready: &[ParticipantIndex],
    ) -> Result<GroupSignature, SigningError> {
        let Some((_, driver, outcome)) = &mut self.running else { return Err(SigningError::Over) };
        let (message, ready) = (body.signing_digest(), ready.to_vec());
        driver
            .with(move |machine, now| {
                machine.authorise(message, &ready, now + SIGNING_DEADLINE, now)
            })
            .await
            .map_err(|Stopped| SigningError::Over)??;
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| SigningError::Over)?;
        let completion = match outcome.as_ref() {
            Some(Ok(completion)) => completion,
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(SigningError::Over),
        };
        let bytes = completion.signature.as_bytes().try_into();
        bytes.map(GroupSignature).map_err(|_| SigningError::Over)
    }
}

/// The completed request that belongs to `slot`.
pub(crate) fn completion_of(effect: DecryptionEffect, slot: Slot) -> Option<Box<Completion>> {
    match effect {
        DecryptionEffect::Complete(completion) if completion.context.slot == slot => {
            Some(completion)
        }
        DecryptionEffect::Complete(_) => None,
        DecryptionEffect::WrongShare { culprit, .. } => {
            tracing::error!(%culprit, "a member's partial decryption is wrong");
            None
        }
        DecryptionEffect::Refused { from, reason, .. } => {
            tracing::warn!(participant = %from, %reason, "a request for a decryption was refused");
            None
        }
        DecryptionEffect::Outstanding { participants, .. } => {
            tracing::warn!(?participants, "members have not sent their partial decryption");
            None
        }
    }
}
