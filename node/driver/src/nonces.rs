//! Spent FROST nonces on disk, for all signing sessions of a member: a second message for a place
//! that was signed is refused, whatever asks for it.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use veil_committee::frost::{
    Completion, Fault, NonceRecord, SigningEffect, SigningError, SigningMachine,
};
use veil_node_storage::journal::{Journal, JournalError};
use veil_protocol_spec::KeccakDigest;

use crate::host::{Host, HostError};

/// The records of spent nonces; a cheap handle.
#[derive(Clone, Debug)]
pub struct NonceStore(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    records: Vec<NonceRecord>,
}

/// A place is taken by another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the nonce journal holds another message ({0}) for this place; the new one is not signed")]
pub struct ConflictingNonce(pub KeccakDigest);

impl NonceStore {
    /// Opens or makes the journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let (journal, records) = Journal::open(path)?;
        Ok(Self(Arc::new(Mutex::new(Inner { journal, records }))))
    }

    /// All records, for a machine after a restart.
    #[must_use]
    pub fn records(&self) -> Vec<NonceRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.clone()
    }

    fn append(&self, records: &[NonceRecord]) -> Result<(), HostError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            if let Some(known) = inner.records.iter().find(|known| known.conflicts_with(record)) {
                return Err(HostError::new(ConflictingNonce(known.message)));
            }
        }
        inner.journal.append(records).map_err(HostError::new)?;
        inner.records.extend_from_slice(records);
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
