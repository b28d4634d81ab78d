//! The chain of certificates on disk, and the cluster's state that follows from it.
//!
//! # Flow
//! [`Ledger::accept`] takes a slot's record from any bringer: it checks that the parts belong
//! together, that 2t+1 members locked the manifest, that the committee's group signed the
//! certificate, and that it continues the chain; stores it durably; then notifies the subscribers.
//!
//!
//! A node that was away long takes a [`StateSnapshot`] instead ([`Ledger::accept_snapshot`]): the state
//! after one slot, with the record whose certificate commits to it. What the records before would add up
//! to, the committee has signed.
//!
//! # State and restart
//! One redb file: records by slot, the state after the last one, and the first conflicting record of a
//! slot, which is evidence against the committee. A start reads the last record, checks it as if a peer
//! had brought it, and the state against what its certificate commits to; the records before were checked
//! when they were stored. Those over the [`Retention`] are dropped, but for the last slots, which a
//! member's start needs. The tables are named after the version of what is in them: those of an earlier
//! version stay in the file, unread.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::watch;
use veil_committee::frost::InvalidGroupSignature;
use veil_protocol_spec::{
    CodecError, Slot, Wire,
    agreement::LockError,
    scheduling::{BindingMismatch, ClusterState, RecordError, SlotRecord, StateError, UnixMillis},
    snapshot::{SnapshotError, StateSnapshot},
    sync::SyncAnswer,
};

use crate::{
    database,
    retention::{Account, Held, Retention},
    trust::{Trust, TrustList},
};

type Table = TableDefinition<'static, u64, &'static [u8]>;

const RECORDS: Table = TableDefinition::new("slot records v3");
const CONFLICTS: Table = TableDefinition::new("conflicting slot records v3");
/// The state after the last record, before its certificate.
const STATE: TableDefinition<'_, (), &[u8]> = TableDefinition::new("state v4");
const ACCOUNT: Account = Account::new("slots v3", "bytes v3");
/// Slots whose records are kept whatever their age and size.
const LAST_SLOTS: u64 = 64;

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
    /// Its state is not the one that the certificate commits to.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Another record of a slot that is certified already: more than t members signed twice.
    #[error(
        "two certificates are signed for slot {0}: more than t members are dishonest; both records are kept for the dispute, and the second is not enforced"
    )]
    Equivocation(Slot),
    /// A stored record does not decode.
    #[error(
        "the ledger {path} is damaged: {source}; move it away, and what it held is fetched anew"
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
    retention: Retention,
    held: Held,
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
    /// Opens or makes the file. Reads the last record and the state after it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(path: &Path, trust: TrustList, retention: Retention) -> Result<Self, LedgerError> {
        let storage = |error: redb::Error| LedgerError::Storage {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        let open = || -> Result<_, redb::Error> {
            let database = database::open(path)?;
            let writing = database::begin_write(&database)?;
            writing.open_table(RECORDS)?;
            writing.open_table(CONFLICTS)?;
            let state = writing.open_table(STATE)?.get(())?.map(|state| state.value().to_vec());
            writing.commit()?;
            Ok((database, state))
        };
        let (database, state) = open().map_err(storage)?;
        let ledger = Self {
            path: path.to_owned(),
            trust,
            retention,
            held: Held::default(),
            database,
            accepting: Mutex::new(()),
            state: watch::Sender::new(Arc::default()),
        };
        let state = match state {
            Some(state) => ledger.resume(&state)?,
            None => ledger.replay()?,
        };
        ledger.state.send_replace(Arc::new(state));
        Ok(ledger)
    }

    /// Says which slots are challenged: their records stay until they are so no more. Before this was said
    /// once, nothing is dropped.
    pub fn hold(&self, challenged: BTreeSet<Slot>) {
        self.held.set(challenged);
    }

    /// From the stored state after the last record.
    fn resume(&self, state: &[u8]) -> Result<ClusterState, LedgerError> {
        let damaged = |source| LedgerError::Damaged { path: self.path.clone(), source };
        let state = ClusterState::from_wire(state).map_err(damaged)?;
        let record = self.record(state.last_slot())?.ok_or_else(|| {
            self.storage(&"the record that its state follows from is missing; move it away")
        })?;
        self.check(&record)?;
        Ok(StateSnapshot { record, state }.certified()?)
    }

    /// From the records alone, as far as they go back to the first slot: their state is stored in another
    /// version.
    fn replay(&self) -> Result<ClusterState, LedgerError> {
        let mut state = ClusterState::default();
        loop {
            let batch = self.records_after(state.last_slot(), SlotRecord::MAX_BYTES)?;
            for record in &batch {
                self.check(record)?;
                state = state.follow(record)?;
            }
            if batch.is_empty() {
                return Ok(state);
            }
        }
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
    pub fn accept(&self, record: &SlotRecord, now: UnixMillis) -> Result<bool, LedgerError> {
        let _one_at_a_time = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = record.manifest.slot;
        let ended = slot <= self.state().last_slot();
        if let Some(known) = self.record(slot)?.filter(|_| ended) {
            if known.certificate.body == record.certificate.body {
                return Ok(false);
            }
            self.check(record)?;
            if self.conflict(slot)?.is_none() {
                self.keep_conflict(record)?;
            }
            return Err(LedgerError::Equivocation(slot));
        }
        self.check(record)?;
        let before = self.state().after(record)?;
        let state = before.clone().certified(&record.certificate.body)?;
        self.extend(record, &before, now)?;
        self.state.send_replace(Arc::new(state));
        Ok(true)
    }

    /// Takes the state after a later slot than the last one here, whatever lies between; `false` if it is
    /// not later. Waits for the disk.
    ///
    /// # Errors
    /// [`LedgerError`]; the chain has not changed then.
    pub fn accept_snapshot(
        &self,
        snapshot: &StateSnapshot,
        now: UnixMillis,
    ) -> Result<bool, LedgerError> {
        let _one_at_a_time = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        if snapshot.record.manifest.slot <= self.state().last_slot() {
            return Ok(false);
        }
        self.check(&snapshot.record)?;
        let state = snapshot.clone().certified()?;
        self.extend(&snapshot.record, &snapshot.state, now)?;
        self.state.send_replace(Arc::new(state));
        Ok(true)
    }

    /// What a node that was away long takes; `None` before the first slot.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn snapshot(&self) -> Result<Option<StateSnapshot>, LedgerError> {
        let read = || -> Result<_, redb::Error> {
            // Both as of one moment.
            let reading = self.database.begin_read()?;
            let state = reading.open_table(STATE)?.get(())?.map(|state| state.value().to_vec());
            let mut records = reading.open_table(RECORDS)?.range::<u64>(..)?;
            let record = records.next_back().transpose()?;
            Ok((state, record.map(|(_, record)| record.value().to_vec())))
        };
        let (Some(state), Some(record)) = read().map_err(|e| self.storage(&e))? else {
            return Ok(None);
        };
        let damaged = |source| LedgerError::Damaged { path: self.path.clone(), source };
        let state = ClusterState::from_wire(&state).map_err(damaged)?;
        Ok(Some(StateSnapshot { record: self.decode(&record)?, state }))
    }

    fn keep_conflict(&self, record: &SlotRecord) -> Result<(), LedgerError> {
        let store = || -> Result<(), redb::Error> {
            let writing = database::begin_write(&self.database)?;
            let bytes = record.to_wire();
            writing.open_table(CONFLICTS)?.insert(record.manifest.slot.0, bytes.as_slice())?;
            writing.commit()?;
            Ok(())
        };
        store().map_err(|e| self.storage(&e))
    }

    /// Stores a record and the state after it, and drops records that are over the bounds.
    fn extend(
        &self,
        record: &SlotRecord,
        state: &ClusterState,
        now: UnixMillis,
    ) -> Result<(), LedgerError> {
        let store = || -> Result<(), redb::Error> {
            let writing = database::begin_write(&self.database)?;
            self.write(&writing, record, state, now)?;
            writing.commit()?;
            Ok(())
        };
        store().map_err(|e| self.storage(&e))
    }

    fn write(
        &self,
        writing: &WriteTransaction,
        record: &SlotRecord,
        state: &ClusterState,
        now: UnixMillis,
    ) -> Result<(), redb::Error> {
        let slot = record.manifest.slot.0;
        let bytes = record.to_wire();
        let mut records = writing.open_table(RECORDS)?;
        let before = records.insert(slot, bytes.as_slice())?;
        let before = before.map_or(0, |before| before.value().len() as u64);
        writing.open_table(STATE)?.insert((), state.to_wire().as_slice())?;
        ACCOUNT.add(writing, slot, (bytes.len() as u64, before), now)?;
        let end = slot.saturating_sub(LAST_SLOTS);
        for expired in ACCOUNT.expire(writing, (self.retention, &self.held), end, now)? {
            records.remove(expired)?;
        }
        Ok(())
    }

    /// What a peer is told that has the slots up to `after`: the records after it, or the state after the
    /// last one if that is far later or the next record is not here any more.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn answer(&self, after: Slot) -> Result<SyncAnswer, LedgerError> {
        let behind = self.state().last_slot().0.saturating_sub(after.0);
        if behind <= SyncAnswer::SNAPSHOT_AFTER {
            let records = self.records_after(after, SyncAnswer::RECORD_BYTES)?;
            if behind == 0 || !records.is_empty() {
                return Ok(SyncAnswer::Records(records));
            }
        }
        let none = SyncAnswer::Records(Vec::new());
        Ok(self.snapshot()?.map_or(none, |snapshot| SyncAnswer::Snapshot(Box::new(snapshot))))
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

    /// Records after `slot`, oldest first and without a gap: as many as fit into `max_bytes`, and at least
    /// one unless that of the next slot is not here, or not any more.
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
            let next = slot.0.saturating_add(1);
            for (expected, entry) in (next..).zip(table.range(next..)?) {
                let (of, value) = entry?;
                let value = value.value();
                total += value.len();
                if of.value() != expected || !batch.is_empty() && total > max_bytes {
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
