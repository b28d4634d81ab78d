//! What ended slots leave behind: out of the journals, which every start reads, into the archive.
//!
//! # Flow
//! At each certificate the journals forget the slots before it ([`History::certified`]). The agreement
//! keeps a few more, whose decisions it gives to members that ask.

use std::sync::Arc;

use veil_committee_agreement::KEPT_DECISIONS;
use veil_node_core::epoch::ActiveEpoch;
use veil_node_driver::NonceStore;
use veil_node_process::unix_now;
use veil_node_storage::{
    archive::Kind,
    inputs::InputsError,
    ledger::{Ledger, LedgerError},
    slot_journal::{PruneError, SlotJournal},
    slot_stores::SlotStores,
};
use veil_protocol_spec::Slot;

use crate::ballot::Ballot;

/// The agreement decides two instances in a slot.
const KEPT_SLOTS: u64 = KEPT_DECISIONS as u64 / 2;

#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Inputs(#[from] InputsError),
}

/// See the [module documentation](self); cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) ballot: Ballot,
    /// What the agreement stores.
    pub(crate) records: SlotJournal,
    pub(crate) slots: SlotJournal,
    pub(crate) nonces: NonceStore,
    pub(crate) stores: Arc<SlotStores>,
    pub(crate) epoch: Arc<ActiveEpoch>,
}

impl History {
    /// A slot is certified: the journals forget what came before it.
    pub(crate) async fn certified(self, slot: Slot) {
        // A member that was away is in an earlier instance still, whose records it goes on writing.
        let Ok(instance) = self.ballot.instance().await else {
            return;
        };
        let agreed = Slot(slot.0.saturating_sub(KEPT_SLOTS).min(instance.slot.0.saturating_sub(1)));
        let ended = Slot(slot.0.saturating_sub(1));
        let pruned = tokio::task::spawn_blocking(move || self.prune(agreed, ended)).await;
        if let Ok(Err(error)) = pruned {
            tracing::error!(slot = slot.0, %error, "records of ended slots stay in the journals for now");
        }
    }

    fn prune(&self, agreed: Slot, ended: Slot) -> Result<(), HistoryError> {
        let (SlotStores { archive, inputs }, now) = (&*self.stores, unix_now());
        self.records.prune(agreed, archive, Kind::Agreement, now)?;
        self.slots.prune(ended, archive, Kind::Slot, now)?;
        self.nonces.prune(ended, archive, now)?;
        let ledger: &Ledger = &self.epoch.ledger;
        let certified = |slot| {
            let record = ledger.record(slot).unwrap_or_else(|error: LedgerError| {
                tracing::error!(%error, "a certificate cannot be read");
                None
            });
            record.map(|record| record.certificate.body.manifest)
        };
        inputs.prune(ended, certified, archive, now)?;
        Ok(())
    }

    /// Keeps what was opened in a step of a slot.
    pub(crate) async fn opened(self, slot: Slot, step: u16, digits: Vec<u8>) {
        let stored = tokio::task::spawn_blocking(move || {
            let entry = (step.into(), digits.as_slice());
            self.stores.archive.put(slot, Kind::Opening, [entry], unix_now())
        });
        if let Ok(Err(error)) = stored.await {
            tracing::error!(slot = slot.0, %error, "what was opened is not kept");
        }
    }
}
