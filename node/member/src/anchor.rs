//! Bringing certificates on chain. Anyone may; the members take turns by slot, so that a member
//! without an account or with a broken endpoint costs a moment and not the anchor.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use veil_node_chain::{Chain, ChainError};
use veil_node_core::{cluster::Tasks, progress::Progress, status::Phase};
use veil_node_storage::ledger::Ledger;
use veil_protocol_spec::{
    ClusterId, Committee, ParticipantIndex, Slot, scheduling::AssignmentCertificate,
};

/// Between the members' turns.
const ANCHOR_TURN: Duration = Duration::from_secs(15);
/// Tries of one member in its turn.
const RETRIES: usize = 3;

/// Anchors certificates in the background; cheap to clone.
#[derive(Clone)]
pub(crate) struct Anchorer {
    pub(crate) chain: Chain,
    pub(crate) cluster: ClusterId,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) committee: Committee,
    pub(crate) me: ParticipantIndex,
    pub(crate) progress: Arc<Progress>,
    pub(crate) tasks: Tasks,
}

impl Anchorer {
    /// Sees to it that the certificate of `slot`, and those before it, are anchored.
    pub(crate) fn spawn(&self, certificate: AssignmentCertificate, slot: Slot) {
        let this = self.clone();
        self.tasks.spawn(async move { this.anchor(certificate, slot).await });
    }

    async fn anchor(&self, certificate: AssignmentCertificate, slot: Slot) {
        let begun = std::time::Instant::now();
        let n = self.committee.n() as u64;
        // 0 for the member whose turn it is, 1 for the next one.
        let mut turn = (self.me.position() as u64 + n - slot.0 % n) % n;
        if self.chain.account().is_none() {
            turn = n; // without an account this member only observes
        }
        let mut changes = self.chain.changes();
        let wait = ANCHOR_TURN * u32::try_from(turn).unwrap_or(u32::MAX);
        let its_turn = tokio::time::sleep(wait);
        tokio::pin!(its_turn);
        loop {
            match self.chain.head(self.cluster).await {
                Ok(Some(head)) if head.slot >= slot => break,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the anchored certificates cannot be read"),
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = &mut its_turn => {
                    if turn < n {
                        let send = || self.send_missing(slot);
                        let backoff =
                            ExponentialBuilder::default().with_max_times(RETRIES).with_jitter();
                        if let Err(error) = send.retry(backoff).await {
                            tracing::warn!(slot = slot.0, %error, "anchoring failed; the next member tries");
                        }
                    }
                    // Again after every member had a turn.
                    let round = ANCHOR_TURN * u32::try_from(n).unwrap_or(u32::MAX);
                    its_turn.as_mut().reset(tokio::time::Instant::now() + round);
                }
            }
        }
        let body = &certificate.body;
        match self.chain.anchored(self.cluster, body.hash()).await {
            Ok(Some(anchored)) if anchored.assignments_root == body.assignments_root => {
                tracing::info!(slot = slot.0, block = anchored.block, root = %anchored.assignments_root, "anchored");
                self.progress.slot(slot, |report| {
                    report.phases.insert(Phase::Anchor, begun.elapsed().as_secs_f64());
                    report.anchored_in_block = Some(anchored.block);
                });
            }
            Ok(_) => tracing::error!(
                slot = slot.0,
                "the chain holds another certificate for this slot: more than t members are dishonest, or this node's ledger is of another chain"
            ),
            Err(error) => tracing::warn!(%error, "the anchored certificate cannot be read back"),
        }
    }

    /// Anchors what the chain lacks up to `slot`, in order.
    async fn send_missing(&self, slot: Slot) -> Result<(), ChainError> {
        let head = self.chain.head(self.cluster).await?;
        let mut after = head.map_or(Slot(0), |head| head.slot);
        while after < slot {
            let next =
                self.ledger.records_after(after, 0).ok().and_then(|mut r| r.drain(..).next());
            let Some(record) = next else { return Ok(()) };
            after = record.manifest.slot;
            if let Err(error) = self.chain.anchor(&record.certificate).await {
                // Another member was faster.
                let head = self.chain.head(self.cluster).await?;
                if head.is_none_or(|head| head.slot < after) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
