//! The host of the machine that anchors certificates: one task, whatever the number of slots.
//!
//! # Flow
//! Whenever a slot is certified or the chain has another block, the [`AnchorMachine`] is shown the chain's head. It
//! decides by the rules of `anchoring.md` which certificate is due, and when it is this member's turn; this task
//! sends the transaction, and says in the slots' reports when they are on chain.
//!
//! # Restart
//! Nothing is stored: head and certificates say what is due.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use veil_committee_machine::{Effect, Machine as _};
use veil_committee_slot::anchor::{AnchorEffect, AnchorHead, AnchorMachine, AnchorSight};
use veil_node_api::progress::Progress;
use veil_node_api::status::{KEPT_SLOTS, Phase};
use veil_node_chain::{Chain, ChainError, Head};
use veil_node_core::cluster::Views;
use veil_node_driver::Clock;
use veil_node_storage::ledger::{Ledger, LedgerError};
use veil_protocol_spec::{ClusterId, Slot, scheduling::ClusterState};

#[derive(Debug, thiserror::Error)]
enum AnchorError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// See the [module documentation](self).
pub(crate) struct Anchorer {
    pub(crate) machine: AnchorMachine,
    pub(crate) clock: Clock,
    pub(crate) chain: Chain,
    pub(crate) cluster: ClusterId,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) views: Views,
    pub(crate) progress: Arc<Progress>,
}

/// Slots that were certified while this process ran, until they are anchored or skipped.
#[derive(Default)]
struct Certified {
    last: Slot,
    since: BTreeMap<Slot, Instant>,
}

impl Certified {
    fn note(&mut self, last: Slot) {
        let now = Instant::now();
        self.since.extend((self.last.0 + 1..=last.0).map(|slot| (Slot(slot), now)));
        self.last = self.last.max(last);
        while self.since.len() > KEPT_SLOTS {
            self.since.pop_first();
        }
    }

    fn up_to(&mut self, head: Slot) -> BTreeMap<Slot, Instant> {
        let later = self.since.split_off(&Slot(head.0 + 1));
        core::mem::replace(&mut self.since, later)
    }
}

impl Anchorer {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let (mut states, mut blocks) = (self.ledger.subscribe(), self.chain.changes());
        let last = states.borrow().last_slot();
        let mut certified = Certified { last, ..Certified::default() };
        let mut reported = None;
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            blocks.borrow_and_update();
            certified.note(state.last_slot());
            match self.chain.head(self.cluster).await {
                Ok(head) => {
                    if let Some(head) = head.filter(|head| reported != Some(head.hash)) {
                        reported = Some(head.hash);
                        self.report(&head, certified.up_to(head.slot)).await;
                    }
                    self.observe(&state, head.as_ref());
                }
                Err(error) => {
                    tracing::warn!(%error, "the last anchored certificate cannot be read");
                }
            }
            self.carry_out().await;
            let due = self.clock.reach(self.machine.poll_timeout());
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = blocks.changed() => if changed.is_err() { return },
                () = due => self.machine.handle_timeout(self.clock.now()),
            }
        }
    }

    fn observe(&mut self, state: &ClusterState, head: Option<&Head>) {
        let head = head.map(|of| AnchorHead { hash: of.hash, slot: of.slot, count: of.count });
        let every = self.views.current().rules_or_default().anchor_every;
        let seen = AnchorSight { state, head, every };
        let Self { machine, ledger, clock, .. } = self;
        let base_of = |slot| {
            let record = ledger.record(slot)?;
            Ok::<_, LedgerError>(record.map(|record| record.certificate.body.base))
        };
        // It may read many records.
        let observe = || machine.observe(&seen, base_of, clock.now());
        if let Err(error) = tokio::task::block_in_place(observe) {
            tracing::warn!(%error, "the certificates to anchor cannot be read");
        }
    }

    async fn carry_out(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            // It stores nothing and sends no messages.
            let Effect::Special(AnchorEffect::Anchor { base, slot }) = effect else { continue };
            let sent = self.anchor(slot).await;
            if let Err(error) = &sent {
                tracing::warn!(slot = slot.0, %error, "anchoring failed; it is tried again, or the next member tries");
            }
            self.machine.tried(base, sent.is_ok(), self.clock.now());
        }
    }

    /// Sends the certificate of a slot to the chain.
    async fn anchor(&self, slot: Slot) -> Result<(), AnchorError> {
        let record = tokio::task::block_in_place(|| self.ledger.record(slot))?;
        let Some(record) = record else { return Ok(()) };
        match self.chain.anchor(&record.certificate).await {
            // Another member was faster.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.is_out_of_order()) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Says of slots that the chain's head is theirs, or after them.
    async fn report(&self, head: &Head, slots: BTreeMap<Slot, Instant>) {
        let own = self.ledger.record(head.slot).ok().flatten();
        if own.is_some_and(|record| record.certificate.body.hash() != head.hash) {
            tracing::error!(
                slot = head.slot.0,
                "the chain holds another certificate for this slot: more than t members are dishonest, or this node's ledger is of another chain"
            );
            return;
        }
        let block = match self.chain.anchored(self.cluster, head.hash).await {
            Ok(anchored) => anchored.map(|anchored| anchored.block),
            Err(error) => {
                tracing::warn!(%error, "the anchored certificate cannot be read back");
                return;
            }
        };
        tracing::info!(slot = head.slot.0, block, certificate = %head.hash, "anchored");
        for (slot, since) in slots {
            self.progress.slot(slot, |report| {
                report.phases.insert(Phase::Anchor, since.elapsed().as_secs_f64());
                report.anchored_in_block = block;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_wait_for_the_head_to_pass_them() {
        let mut certified = Certified { last: Slot(4), ..Certified::default() };
        certified.note(Slot(4));
        certified.note(Slot(7));
        assert!(certified.up_to(Slot(6)).into_keys().eq([Slot(5), Slot(6)]));
        certified.note(Slot(7));
        assert!(certified.up_to(Slot(9)).into_keys().eq([Slot(7)]));
        certified.note(Slot(7 + 2 * KEPT_SLOTS as u64));
        assert_eq!(certified.since.len(), KEPT_SLOTS);
    }
}
