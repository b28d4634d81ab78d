//! The chain of certificates on disk, and the cluster's state that follows from it.
//!
//! # Flow
//! [`Ledger::accept`] takes a slot's record from any bringer: it checks that the parts belong
//! together, that 2t+1 members locked the manifest, that the committee's group signed the
//! certificate, and that it continues the chain; stores it durably; then notifies the subscribers.
//!
//! # State
//! One redb file: records by slot, and the first conflicting record of a slot, which is evidence
//! against the committee. On opening, every record is checked as if a peer had brought it. The tables
//! are named after the version of the records: those of an earlier version stay in the file, unread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::sync::watch;
use veil_committee::frost::InvalidGroupSignature;
use veil_protocol_spec::{
    CodecError, Slot, Wire,
    agreement::LockError,
    scheduling::{BindingMismatch, ClusterState, RecordError, SlotRecord, StateError},
};

use crate::trust::{Trust, TrustList};

type Table = TableDefinition<'static, u64, &'static [u8]>;

const RECORDS: Table = TableDefinition::new("slot records v2");
const CONFLICTS: Table = TableDefinition::new("conflicting slot records v2");

/// Why a record is not taken, or the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Of a slot before the first epoch that this node knows.
    #[error("no committee is known that could certify slot {0}")]
    NoCommittee(Slot),
    /// Of another cluster, key set or epoch.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// Its parts do not belong together.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its manifest was not locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The committee did not sign it.
    #[error("certificate of slot {slot}: {source}")]
    Signature {
        /// Which.
        slot: Slot,
        /// What is wrong.
        source: InvalidGroupSignature,
    },
    /// It does not continue what is known.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another record of a slot that is certified already: more than t members signed twice.
    #[error(
        "two certificates are signed for slot {0}: more than t members are dishonest; both records are kept for the dispute, and the second is not enforced"
    )]
    Equivocation(Slot),
    /// A stored record does not decode.
    #[error(
        "the ledger {path} is damaged: {source}; move it away, and the records are fetched anew"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The file cannot be read or written.
    #[error("the ledger {path}: {detail}")]
    Storage {
        /// Which file.
        path: PathBuf,
        /// What the storage said.
        detail: String,
    },
}

/// See the [module documentation](self).
pub struct Ledger {
    path: PathBuf,
    trust: TrustList,
    database: Database,
    /// Held while a record is checked and stored: two bringers must not interleave.
    accepting: Mutex<()>,
    state: watch::Sender<Arc<ClusterState>>,
}

impl core::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens or makes the file, and follows every record in it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(path: &Path, trust: TrustList) -> Result<Self, LedgerError> {
        let storage = |detail: &dyn core::fmt::Display| LedgerError::Storage {
            path: path.to_owned(),
            detail: detail.to_string(),
        };
        let database = Database::create(path).map_err(|e| storage(&e))?;
        let writing = database.begin_write().map_err(|e| storage(&e))?;
        writing.open_table(RECORDS).map_err(|e| storage(&e))?;
        writing.open_table(CONFLICTS).map_err(|e| storage(&e))?;
        writing.commit().map_err(|e| storage(&e))?;
        let ledger = Self {
            path: path.to_owned(),
            trust,
            database,
            accepting: Mutex::new(()),
            state: watch::Sender::new(Arc::default()),
        };
        let mut state = ClusterState::default();
        let mut after = Slot(0);
        loop {
            let batch = ledger.records_after(after, SlotRecord::MAX_BYTES)?;
            let Some(last) = batch.last() else { break };
            after = last.manifest.slot;
            for record in &batch {
                ledger.check(record)?;
                state = state.follow(record)?;
            }
        }
        ledger.state.send_replace(Arc::new(state));
        Ok(ledger)
    }

    /// The state after the last record.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    /// Notifies of every new state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    fn storage(&self, detail: &dyn core::fmt::Display) -> LedgerError {
        LedgerError::Storage { path: self.path.clone(), detail: detail.to_string() }
    }

    fn check(&self, record: &SlotRecord) -> Result<(), LedgerError> {
        let slot = record.manifest.slot;
        let trust = self.trust.at(slot).ok_or(LedgerError::NoCommittee(slot))?;
        let Trust { binding, committee, roster, group } = trust;
        record.manifest.binding.check(binding)?;
        record.verify_structure(*committee)?;
        record.lock.verify(*committee, roster)?;
        group.verify(&record.certificate).map_err(|source| LedgerError::Signature { slot, source })
    }

    /// Takes a record; `false` if it is known already. Waits for the disk: not for the reactor.
    ///
    /// # Errors
    /// [`LedgerError`]; the chain has not changed then. A record after a gap is
    /// [`StateError::Previous`]: fetch what lies between first. A second, different certificate of
    /// a slot is [`LedgerError::Equivocation`], and kept as [`Self::conflict`].
    pub fn accept(&self, record: &SlotRecord) -> Result<bool, LedgerError> {
        let _one_at_a_time = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = record.manifest.slot;
        if let Some(known) = self.record(slot)? {
            if known.certificate.body == record.certificate.body {
                return Ok(false);
            }
            self.check(record)?;
            if self.conflict(slot)?.is_none() {
                self.store(CONFLICTS, record)?;
            }
            return Err(LedgerError::Equivocation(slot));
        }
        self.check(record)?;
        let state = self.state().follow(record)?;
        self.store(RECORDS, record)?;
        self.state.send_replace(Arc::new(state));
        Ok(true)
    }

    fn store(&self, table: Table, record: &SlotRecord) -> Result<(), LedgerError> {
        let store = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            let bytes = record.to_wire();
            writing.open_table(table)?.insert(record.manifest.slot.0, bytes.as_slice())?;
            writing.commit()?;
            Ok(())
        };
        store().map_err(|e| self.storage(&e))
    }

    /// The record of a slot.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Damaged`].
    pub fn record(&self, slot: Slot) -> Result<Option<SlotRecord>, LedgerError> {
        self.read(RECORDS, slot)
    }

    /// Another record of the same slot, certified by the same committee: with [`Self::record`] the
    /// proof that more than t members signed twice.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn conflict(&self, slot: Slot) -> Result<Option<SlotRecord>, LedgerError> {
        self.read(CONFLICTS, slot)
    }

    fn read(&self, table: Table, slot: Slot) -> Result<Option<SlotRecord>, LedgerError> {
        let bytes = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(table)?;
            Ok(table.get(slot.0)?.map(|entry| entry.value().to_vec()))
        };
        let bytes = bytes().map_err(|e| self.storage(&e))?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }

    fn decode(&self, bytes: &[u8]) -> Result<SlotRecord, LedgerError> {
        SlotRecord::from_wire(bytes)
            .map_err(|source| LedgerError::Damaged { path: self.path.clone(), source })
    }

    /// Records after `slot`, oldest first: as many as fit into `max_bytes`, and at least one.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], [`LedgerError::Damaged`].
    pub fn records_after(
        &self,
        slot: Slot,
        max_bytes: usize,
    ) -> Result<Vec<SlotRecord>, LedgerError> {
        let bytes = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let (mut batch, mut total) = (Vec::new(), 0);
            for entry in table.range(slot.0.saturating_add(1)..)? {
                let (_, value) = entry?;
                let value = value.value();
                total += value.len();
                if !batch.is_empty() && total > max_bytes {
                    break;
                }
                batch.push(value.to_vec());
            }
            Ok(batch)
        };
        let batch = bytes().map_err(|e| self.storage(&e))?;
        batch.iter().map(|bytes| self.decode(bytes)).collect()
    }
}
