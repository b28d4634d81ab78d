//! Signing certificates: one session for each slot, with the group.
//!
//! # Flow
//! A task of its own takes [`SigningCommand`]s. Between [`SigningCommand::Prepare`] and
//! [`SigningCommand::Sign`] nonce commitments are gathered; a session that fails begins anew. A command
//! for the next slot ends what is left of the one before.
//!
//! Before a session is told what to sign, this member's vote for it is stored: `slot.md`, step 10.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use veil_committee::frost::{
    self, GroupKeyShare, Purpose, SessionContext, SigningContext, SigningError, SigningKeyId,
    SigningMachine, SigningSchedule,
};
use veil_committee_machine::Millis;
use veil_node_ceremony::P2pTransports;
use veil_node_core::epoch::ActiveEpoch;
use veil_node_driver::{
    Channel, Driver, DriverConfig, NonceHost, NonceStore, SigningOutcome, Stopped, Transports,
};
use veil_node_storage::{durable::count_up, evidence::EvidenceError};
use veil_protocol_spec::{
    ParticipantIndex, Slot, Wire,
    codec::Bytes,
    evidence::Proof,
    identity::SecretIdentity,
    scheduling::{Binding, CertificateBody, CertificateVote, GroupSignature},
};

/// Between the coordinators' turns, and for each of their steps.
const SIGNING_STEP: Millis = 5_000;
/// After which a session is given up and begun anew.
const SIGNING_DEADLINE: Millis = 120_000;
/// Sessions for one command.
const SESSIONS: usize = 3;

/// What the signer is to do.
pub(crate) enum SigningCommand {
    /// Get ready to sign in this slot.
    Prepare(Slot),
    /// Have the group sign. The members in `ready` are known to be there.
    Sign {
        /// What.
        body: Box<CertificateBody>,
        /// Who is there.
        ready: Vec<ParticipantIndex>,
    },
}

/// What came of a [`SigningCommand::Sign`].
pub(crate) type Signed = (Slot, Result<GroupSignature, SigningError>);

/// See the [module documentation](self).
pub(crate) struct Signer {
    restarts: PathBuf,
    transports: P2pTransports,
    epoch: Arc<ActiveEpoch>,
    share: Arc<GroupKeyShare>,
    identity: SecretIdentity,
    nonces: NonceStore,
    schedule: SigningSchedule,
    running: Option<(Slot, Driver<SigningMachine, NonceHost>, SigningOutcome)>,
    proofs: mpsc::Sender<Proof>,
}

impl Signer {
    /// `restarts` is the file that counts sessions of this coordinator, `count` what it says.
    pub(crate) fn new(
        epoch: Arc<ActiveEpoch>,
        transports: P2pTransports,
        share: Arc<GroupKeyShare>,
        identity: SecretIdentity,
        nonces: NonceStore,
        (restarts, count): (PathBuf, u32),
        proofs: mpsc::Sender<Proof>,
    ) -> Self {
        let schedule = SigningSchedule {
            rotation: 2 * SIGNING_STEP,
            timing: frost::Timing {
                commit: SIGNING_STEP,
                share: SIGNING_STEP,
                max_attempts: epoch.committee.n() as u32,
            },
            restarts: count,
        };
        let running = None;
        Self { restarts, transports, epoch, share, identity, nonces, schedule, running, proofs }
    }

    /// Obeys commands until there are no more.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<SigningCommand>,
        signed: mpsc::UnboundedSender<Signed>,
    ) {
        let mut next = commands.recv().await;
        while let Some(command) = next {
            next = match command {
                SigningCommand::Prepare(slot) => {
                    if let Err(error) = self.open(slot).await {
                        // It is opened again when there is something to sign.
                        tracing::warn!(slot = slot.0, %error, "signing is not prepared");
                    }
                    commands.recv().await
                }
                SigningCommand::Sign { body, ready } => tokio::select! {
                    result = self.sign(&body, &ready) => {
                        let _ = signed.send((body.slot, result)); // the member has stopped
                        commands.recv().await
                    }
                    next = commands.recv() => next,
                },
            };
        }
    }

    /// Has the group sign the certificate of a slot; begins anew when a session fails.
    async fn sign(
        &mut self,
        body: &CertificateBody,
        ready: &[ParticipantIndex],
    ) -> Result<GroupSignature, SigningError> {
        let mut failure = SigningError::Over;
        for _ in 0..SESSIONS {
            self.open(body.slot).await?;
            match self.attempt(body, ready).await {
                Ok(signature) => return Ok(signature),
                Err(
                    error @ (SigningError::AlreadyAuthorised { .. } | SigningError::NotPersisted),
                ) => return Err(error),
                Err(error) => {
                    tracing::warn!(slot = %body.slot.0, %error, "signing starts again");
                    self.close().await;
                    self.renew()?;
                    failure = error;
                }
            }
        }
        Err(failure)
    }

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
        let records = self.nonces.records(&context);
        let machine = SigningMachine::new(
            Arc::new(session),
            Arc::clone(&self.share),
            self.identity.clone(),
            &records,
            self.schedule,
        )?;
        let (host, outcome) = NonceHost::new(self.nonces.clone());
        let proofs = self.proofs.clone();
        let host = host.reporting(move |fault| {
            let proof = Proof::Signing(Bytes(fault.evidence.to_wire()));
            let _ = proofs.try_send(proof); // see MAX_WAITING_PROOFS
        });
        let (transport, incoming) = self.transports.open(Channel::Signing, &self.epoch.roster);
        let config = DriverConfig::new(self.epoch.committee, self.share.index());
        let driver = Driver::start(config, machine, host, transport, incoming);
        // A driver that has stopped says so when there is something to sign.
        let _ = driver.with(SigningMachine::prepare).await;
        self.running = Some((slot, driver, outcome));
        Ok(())
    }

    /// "Each member signs one EIP-712 vote for the certificate when it authorises FROST for it": stored
    /// before a share of the signature can leave.
    async fn vote(&self, body: &CertificateBody) -> Result<(), SigningError> {
        let signed = CertificateVote::of(body).sign(self.share.index(), &self.identity);
        let store = Arc::clone(&self.epoch.evidence);
        match tokio::task::spawn_blocking(move || store.cast(&signed)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(EvidenceError::AlreadyVoted { voted: authorised, asked, .. })) => {
                Err(SigningError::AlreadyAuthorised { authorised, asked })
            }
            Ok(Err(error)) => {
                tracing::error!(slot = body.slot.0, %error, "the vote for the certificate is not stored");
                Err(SigningError::NotPersisted)
            }
            Err(_) => Err(SigningError::Over), // the runtime is shutting down
        }
    }

    async fn attempt(
        &mut self,
        body: &CertificateBody,
        ready: &[ParticipantIndex],
    ) -> Result<GroupSignature, SigningError> {
        self.vote(body).await?;
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
