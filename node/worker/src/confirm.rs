//! Telling the chain that a slot's deployment runs. Nothing waits for it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use veil_node_chain::{ChainError, Mined};
use veil_node_core::{cluster::Cluster, epoch::Epoch};
use veil_node_storage::ledger::LedgerError;
use veil_protocol_spec::{
    Blake3Digest, Slot,
    scheduling::{Assignment, Outcome, ReplicaIndex},
};

/// How long to wait until the slot's root is anchored.
const ANCHORED: Duration = Duration::from_secs(600);
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
    #[error("the assignment is not in slot {0}")]
    NotAssigned(Slot),
    #[error("the node is stopping")]
    Stopped,
}

/// Confirms in the background, if there is an account.
pub(crate) fn spawn(
    cluster: &Arc<Cluster>,
    epoch: &Arc<Epoch>,
    slot: Slot,
    replicas: BTreeSet<(Blake3Digest, ReplicaIndex)>,
) {
    let Some(account) = cluster.chain.account() else { return };
    let view = cluster.view();
    let operator = view.nodes.get(&cluster.me).map(|node| node.operator);
    if operator != Some(account) {
        tracing::warn!(
            %slot,
            "not confirmed on chain: the configured account is not the one that registered this worker"
        );
        return;
    }
    let (joined, epoch) = (Arc::clone(cluster), Arc::clone(epoch));
    cluster.spawn(async move {
        let cluster = joined;
        let anchored = tokio::time::timeout(ANCHORED, anchored(&cluster, slot)).await;
        if anchored.is_err() {
            tracing::warn!(%slot, "not confirmed on chain: the slot was not anchored in time");
            return;
        }
        for replica in replicas {
            let backoff = ExponentialBuilder::default().with_max_times(RETRIES).with_jitter();
            let confirming = (|| confirm(&cluster, &epoch, slot, replica)).retry(backoff);
            match confirming.await {
                Ok(mined) => {
                    let (job, index) = replica;
                    let transaction = mined.transaction;
                    tracing::info!(%slot, %job, replica = %index, %transaction, "confirmed on chain");
                }
                Err(error) => tracing::warn!(%slot, %error, "not confirmed on chain"),
            }
        }
    });
}

/// Waits until the chain's head is this slot or a later one.
async fn anchored(cluster: &Cluster, slot: Slot) {
    let mut blocks = cluster.chain.changes();
    loop {
        match cluster.chain.head(cluster.scope.cluster).await {
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
    cluster: &Cluster,
    epoch: &Arc<Epoch>,
    slot: Slot,
    (job, replica): (Blake3Digest, ReplicaIndex),
) -> Result<Mined, ConfirmError> {
    let head = cluster.chain.head(cluster.scope.cluster).await?;
    let head = head.filter(|head| head.slot >= slot).ok_or(ConfirmError::NotAnchored(slot))?;
    let ledger = Arc::clone(&epoch.ledger);
    // The head may have moved on since: every attempt takes the chain of certificates anew.
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
        Ok((chain, first.ok_or(ConfirmError::Behind)?))
    });
    let (chain, record) = reading.await.map_err(|_| ConfirmError::Stopped)??;
    let wanted = Assignment { job, replica, outcome: Outcome::Node(cluster.me) };
    let assignments = record.assignments;
    let proof = assignments
        .as_slice()
        .iter()
        .position(|assignment| *assignment == wanted)
        .and_then(|index| assignments.tree().proof(index))
        .ok_or(ConfirmError::NotAssigned(slot))?;
    Ok(cluster.chain.confirm_deployment(&chain, &wanted, &proof).await?)
}
