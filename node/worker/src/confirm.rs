//! Telling the chain that a slot's deployment runs. Nothing waits for it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use veil_node_chain::{Chain, ChainError, Mined, Refusal};
use veil_node_core::cluster::{Tasks, Views};
use veil_node_storage::ledger::{Ledger, LedgerError};
use veil_protocol_spec::{
    Blake3Digest, ClusterId, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{Assignment, Outcome},
};

/// How long to wait until the slot, or a later one, is anchored.
const ANCHOR_TIMEOUT: Duration = Duration::from_secs(600);
/// Records read at once.
const READ_BYTES: usize = 4 << 20;
/// Attempts for one assignment, the first left out.
const RETRIES: usize = 5;

#[derive(Debug, thiserror::Error)]
enum ConfirmError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("slot {0} is not anchored yet")]
    NotAnchored(Slot),
    #[error("this node does not have the certificates up to the one anchored last")]
    Behind,
    #[error(
        "the record of slot {0} is not kept here: this node began from a later state, or it was dropped"
    )]
    NotKept(Slot),
    #[error("the assignment is not in slot {0}")]
    NotAssigned(Slot),
    #[error("the node is stopping")]
    Stopped,
}

impl ConfirmError {
    fn is_confirmed(&self) -> bool {
        match self {
            Self::Chain(error) => error.refusal().is_some_and(Refusal::is_confirmed),
            _ => false,
        }
    }
}

/// Confirms deployments with the account of this node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Confirmer {
    pub(crate) chain: Chain,
    pub(crate) cluster: ClusterId,
    pub(crate) me: PeerIdHash,
    pub(crate) views: Views,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tasks: Tasks,
}

impl Confirmer {
    /// Confirms in the background, if there is an account.
    pub(crate) fn spawn(&self, slot: Slot, replicas: BTreeSet<(Blake3Digest, ReplicaIndex)>) {
        let Some(account) = self.chain.account() else { return };
        let view = self.views.current();
        let operator = view.nodes.get(&self.me).map(|node| node.operator);
        if operator != Some(account) {
            tracing::warn!(
                %slot,
                "not confirmed on chain: the configured account is not the one that registered this worker"
            );
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            if tokio::time::timeout(ANCHOR_TIMEOUT, this.anchored(slot)).await.is_err() {
                tracing::warn!(%slot, "not confirmed on chain: the slot was not anchored in time");
                return;
            }
            for replica in replicas {
                let backoff = ExponentialBuilder::default().with_max_times(RETRIES).with_jitter();
                let retried = (|| this.confirm(slot, replica)).retry(backoff);
                match retried.when(|error| !error.is_confirmed()).await {
                    Ok(mined) => {
                        let (job, index) = replica;
                        let transaction = mined.transaction;
                        tracing::info!(%slot, %job, replica = %index, %transaction, "confirmed on chain");
                    }
                    Err(error) if error.is_confirmed() => {
                        tracing::debug!(%slot, %error, "confirmed on chain before");
                    }
                    Err(error) => tracing::warn!(%slot, %error, "not confirmed on chain"),
                }
            }
        });
    }

    /// Waits until the chain's head is this slot or a later one.
    async fn anchored(&self, slot: Slot) {
        let mut blocks = self.chain.changes();
        loop {
            match self.chain.head(self.cluster).await {
                Ok(Some(head)) if head.slot >= slot => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the last anchor is not known"),
            }
            if blocks.changed().await.is_err() {
                return std::future::pending().await; // the chain's handle is gone: so is this task
            }
        }
    }

    async fn confirm(
        &self,
        slot: Slot,
        (job, replica): (Blake3Digest, ReplicaIndex),
    ) -> Result<Mined, ConfirmError> {
        let head = self.chain.head(self.cluster).await?;
        let head = head.filter(|head| head.slot >= slot).ok_or(ConfirmError::NotAnchored(slot))?;
        let ledger = Arc::clone(&self.ledger);
        // The head may have moved on since: every attempt takes the chain of certificates anew. Skipped
        // slots are links of it like the others.
        let reading = tokio::task::spawn_blocking(move || {
            let mut chain = Vec::new();
            let mut first = None;
            let mut after = Slot(slot.0.saturating_sub(1));
            while after < head.slot {
                let records = ledger.records_after(after, READ_BYTES)?;
                let Some(last) = records.last() else { return Err(ConfirmError::Behind) };
                after = last.manifest.slot;
                let until_head = records.iter().filter(|record| record.manifest.slot <= head.slot);
                chain.extend(until_head.map(|record| record.certificate.body));
                first = first.or_else(|| records.into_iter().next());
            }
            let first = first.ok_or(ConfirmError::Behind)?;
            if first.manifest.slot == slot {
                Ok((chain, first))
            } else {
                Err(ConfirmError::NotKept(slot))
            }
        });
        let (chain, record) = reading.await.map_err(|_| ConfirmError::Stopped)??;
        let wanted = Assignment { job, replica, outcome: Outcome::Node(self.me) };
        let assignments = record.assignments;
        let proof = assignments
            .as_slice()
            .iter()
            .position(|assignment| *assignment == wanted)
            .and_then(|index| assignments.tree().proof(index))
            .ok_or(ConfirmError::NotAssigned(slot))?;
        Ok(self.chain.confirm_deployment(&chain, &wanted, &proof).await?)
    }
}
