//! From FINISH to the chain: the members sign one publication, the new group proves that it has its
//! key, and one of them publishes.
//!
//! 1. The reference string that the members made is kept as a file, and its digest goes into the publication.
//! 2. Sign the publication (recorded first, never another in this attempt), collect all n signatures.
//! 3. A FROST session of the new group over the possession digest.
//! 4. Member j waits j-1 steps of a backoff, looks at the chain, and publishes unless it is done: so
//!    that a dead first member delays and does not block.
//!
//! Everything goes on until the attempt is decided, since others may need this member's answers
//! after it needs none any more.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::watch;
use veil_committee::{
    frost::{
        GroupSignature, Purpose, SessionContext, SigningContext, SigningKeyId, SigningMachine,
        SigningSchedule,
    },
    key_share::KeyShare,
};
use veil_keygen_ceremony::transcript::FinishCertificate;
use veil_node_driver::{Channel, Control, Driver, DriverConfig, NonceHost, NonceStore, Transports};
use veil_protocol_spec::{
    Signature, Slot,
    publication::{Publication, ReferenceString},
};

use crate::{
    commit_point::{self, AttemptStatus, CommitPointError, Proposal},
    error::CeremonyError,
    exchange::Exchange,
    folder::AttemptFolder,
    host::ExchangeState,
    options::Member,
};

/// Doublings of the pause between two tries to publish.
const MAX_DOUBLINGS: u32 = 4;

/// What the publication of an attempt needs.
pub(crate) struct Publisher<'a> {
    pub(crate) member: &'a Member,
    pub(crate) proposal: &'a Proposal,
    pub(crate) folder: &'a AttemptFolder,
    pub(crate) config: DriverConfig,
    pub(crate) exchange: Control<Exchange>,
    pub(crate) state: watch::Receiver<ExchangeState>,
    pub(crate) reference: ReferenceString,
}

impl Publisher<'_> {
    /// Runs until it is dropped, when the attempt is decided; returns only what makes going on
    /// useless.
    pub(crate) async fn run(
        mut self,
        certificate: &FinishCertificate,
        share: Arc<KeyShare>,
    ) -> CeremonyError {
        match self.bring(certificate, share).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn bring(
        &mut self,
        certificate: &FinishCertificate,
        share: Arc<KeyShare>,
    ) -> Result<std::convert::Infallible, CeremonyError> {
        let status = &self.member.status;
        let group_share = share.frost().map_err(CeremonyError::KeyShare)?;
        let key_set = share.origin().key_set;
        let group = group_share.public().clone();
        let publication = commit_point::publication(
            self.proposal.epoch,
            certificate,
            key_set,
            &group,
            &self.reference,
        );
        let digest = self.member.chain.publication_digest(&publication)?;
        self.folder.bind_publication(&publication)?;
        let signature = self.member.options.identity.sign(digest.as_bytes());
        self.exchange
            .with(move |exchange, now| exchange.offer(digest, signature, now))
            .await
            .map_err(|_| stopped())?;
        let signatures = self.signatures().await?;
        let possession = self.member.chain.possession_digest(&publication)?;
        status.step("possession", (0, 1), Vec::new());
        let context = SigningContext {
            chain: self.member.options.scope.chain_id,
            contract: self.member.options.scope.contract,
            cluster: self.member.options.scope.cluster,
            key: SigningKeyId {
                purpose: Purpose::Possession,
                epoch: self.proposal.epoch,
                slot: Slot(u64::from(self.proposal.attempt.0)),
            },
        };
        let roster = self.proposal.roster.clone();
        let session = SessionContext::new(context, Arc::new(group), roster)
            .map_err(|error| CeremonyError::Proposal(error.to_string()))?;
        let store = NonceStore::open(&self.folder.nonces(), Slot(0))?;
        let schedule = SigningSchedule {
            restarts: self.folder.count_start()?,
            ..self.member.options.timing.signing
        };
        let machine = SigningMachine::new(
            Arc::new(session),
            Arc::new(group_share),
            self.member.options.identity.clone(),
            &store.records(&context),
            schedule,
        )?;
        let (host, mut outcome) = NonceHost::new(store);
        let (transport, incoming) =
            self.member.transports.open(Channel::Signing, &self.proposal.roster);
        let driver = Driver::start(self.config, machine, host, transport, incoming);
        // Only the commit point decides when it is too late.
        let forever = u64::MAX;
        driver
            .with(move |machine, now| machine.authorise(possession, &[], forever, now))
            .await
            .map_err(|_| stopped())??;
        let completion = outcome.wait_for(Option::is_some).await.map_err(|_| stopped())?.clone();
        let completion = completion.ok_or_else(stopped)??;
        self.publish(&publication, &signatures, &completion.signature).await;
        // The signer goes on answering; the chain decides.
        status.step("commit-point", (0, 1), Vec::new());
        driver.ended().await;
        Err(stopped())
    }

    /// Step 2.
    async fn signatures(&mut self) -> Result<Vec<Signature>, CeremonyError> {
        loop {
            if let Some(signatures) = self.state.borrow_and_update().signatures.clone() {
                return Ok(signatures);
            }
            let missing = self.exchange.with(|exchange, _| exchange.unsigned()).await;
            let missing = missing.map_err(|_| stopped())?;
            let n = self.proposal.roster.len() as u32;
            self.member.status.step("publication", (n - missing.len() as u32, n), missing);
            let changed = self.state.changed();
            if let Ok(Err(_)) = tokio::time::timeout(Duration::from_secs(1), changed).await {
                return Err(stopped());
            }
        }
    }

    /// Step 4. What goes wrong is logged: another member may succeed, and the chain says so.
    async fn publish(
        &self,
        publication: &Publication,
        signatures: &[Signature],
        possession: &GroupSignature,
    ) {
        let Member { chain, options, status, .. } = self.member;
        let turn = u32::from(self.config.me.get()) - 1;
        let n = self.proposal.roster.len() as u32;
        // Until the attempt is decided: a chain that is away for an hour must not cost the key.
        for round in 0_u32.. {
            // Everybody's turn comes once in each round; the rounds become longer.
            let longer = round.saturating_sub(1).min(MAX_DOUBLINGS);
            let wait = if round == 0 { turn } else { n << longer };
            status.step("publish", (0, 1), Vec::new());
            tokio::time::sleep(options.timing.publish_backoff * wait).await;
            let (epoch, attempt) = (self.proposal.epoch, self.proposal.attempt);
            match chain.status(epoch, attempt).await {
                Ok(AttemptStatus::Proposed) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot see whether the key is published");
                    continue;
                }
            }
            let backoff = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_times(3)
                .with_jitter();
            let published = (|| chain.publish(publication, signatures, possession))
                .retry(backoff)
                .when(CommitPointError::is_transient)
                .await;
            match published {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "publishing failed"),
            }
        }
    }
}

/// Something this waits for has ended, which has its own error.
const fn stopped() -> CeremonyError {
    CeremonyError::Interrupted
}
