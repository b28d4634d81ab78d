//! Spent FROST nonces on disk, for all signing sessions of a member: a second message for a place
//! that was signed is refused, whatever asks for it.
//!
//! # State and restart
//! One [`SlotJournal`]. In memory are the records of the slots that are not certified yet; those before go
//! to the archive ([`NonceStore::prune`]), and nothing more is signed there.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use veil_committee::frost::{
    Completion, Fault, NonceRecord, SigningContext, SigningEffect, SigningError, SigningMachine,
};
use veil_node_storage::{
    archive::{Archive, Kind},
    journal::JournalError,
    slot_journal::{PruneError, SlotJournal},
};
use veil_protocol_spec::{KeccakDigest, Slot, scheduling::UnixMillis};

use crate::host::{Host, HostError};

/// The records of spent nonces; a cheap handle.
#[derive(Clone, Debug)]
pub struct NonceStore(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    journal: SlotJournal,
    records: HashMap<SigningContext, Vec<NonceRecord>>,
}

/// A place is taken by another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the nonce journal holds another message ({0}) for this place; the new one is not signed")]
pub struct ConflictingNonce(pub KeccakDigest);

impl NonceStore {
    /// Opens or makes the journal. `certified` is the last slot of which this node has a certificate.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, certified: Slot) -> Result<Self, JournalError> {
        let (journal, stored) = SlotJournal::open::<NonceRecord>(path, certified)?;
        let mut records: HashMap<_, Vec<_>> = HashMap::new();
        for record in stored {
            records.entry(record.context).or_default().push(record);
        }
        Ok(Self(Arc::new(Mutex::new(Inner { journal, records }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of one place, for a machine after a restart.
    #[must_use]
    pub fn records(&self, context: &SigningContext) -> Vec<NonceRecord> {
        self.inner().records.get(context).cloned().unwrap_or_default()
    }

    /// Forgets the records of slots up to `through`, which are certified: they go to the archive, and
    /// nothing is signed there any more. Waits for the disk.
    ///
    /// # Errors
    /// [`PruneError`]; then they are still here.
    pub fn prune(
        &self,
        through: Slot,
        archive: &Archive,
        now: UnixMillis,
    ) -> Result<(), PruneError> {
        let mut inner = self.inner();
        inner.journal.prune(through, archive, Kind::Nonce, now)?;
        inner.records.retain(|context, _| context.key.slot > through);
        Ok(())
    }

    fn append(&self, records: &[NonceRecord]) -> Result<(), HostError> {
        let mut inner = self.inner();
        for record in records {
            let mut of_place = inner.records.get(&record.context).into_iter().flatten();
            if let Some(known) = of_place.find(|known| known.conflicts_with(record)) {
                return Err(HostError::new(ConflictingNonce(known.message)));
            }
        }
        inner.journal.append(records).map_err(HostError::new)?;
        for record in records {
            inner.records.entry(record.context).or_default().push(record.clone());
        }
        Ok(())
    }
}

/// How a signing session ended, once it has.
pub type SigningOutcome = watch::Receiver<Option<Result<Box<Completion>, SigningError>>>;

/// Hosts one signing session.
pub struct NonceHost {
    store: NonceStore,
    outcome: watch::Sender<Option<Result<Box<Completion>, SigningError>>>,
    faults: Box<dyn FnMut(Box<Fault>) + Send>,
}

impl core::fmt::Debug for NonceHost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NonceHost").field("store", &self.store).finish_non_exhaustive()
    }
}

impl NonceHost {
    /// The outcome appears in the receiver.
    #[must_use]
    pub fn new(store: NonceStore) -> (Self, SigningOutcome) {
        let (outcome, receiver) = watch::channel(None);
        (Self { store, outcome, faults: Box::new(drop) }, receiver)
    }

    /// Gives the proofs against members that are caught to `report`, on the machine's thread.
    #[must_use]
    pub fn reporting(mut self, report: impl FnMut(Box<Fault>) + Send + 'static) -> Self {
        self.faults = Box::new(report);
        self
    }
}

impl Host<SigningMachine> for NonceHost {
    fn persist(&mut self, records: &[NonceRecord]) -> Result<(), HostError> {
        self.store.append(records)
    }

    fn carry_out(
        &mut self,
        effect: SigningEffect,
        _machine: &SigningMachine,
    ) -> Result<(), HostError> {
        match effect {
            SigningEffect::Complete(completion) => {
                self.outcome.send_replace(Some(Ok(completion)));
            }
            SigningEffect::Failed(error) => {
                self.outcome.send_replace(Some(Err(error)));
            }
            SigningEffect::CoordinatorFailed(error) => {
                tracing::warn!(%error, "this member's coordinator gave up; the next one's turn comes");
            }
        }
        Ok(())
    }

    fn faulted(&mut self, fault: Box<Fault>) {
        (self.faults)(fault);
    }
}
