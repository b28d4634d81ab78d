//! What a machine must not forget of the slots under way: records by slot, each durable before
//! [`SlotJournal::append`] returns.
//!
//! # Flow
//! 1. [`SlotJournal::open`] gives back the records, by slot and in order.
//! 2. [`SlotJournal::append`] adds to the slots under way.
//! 3. When slots are certified, [`SlotJournal::prune`] hands their records to the [`Archive`] and
//!    forgets them, so that the next start reads the last slots only.
//!
//! # The floor
//! A vote that is forgotten could be cast a second time, differently. So the file says up to which slot
//! records were forgotten: the [floor](SlotJournal::floor). Nothing is appended for a slot up to there,
//! and its machine takes no part in one.
//!
//! # Versions
//! Each entry says its slot outside of the record's own encoding, so that this is known of a record
//! whose version this build does not read. It "raises the floor to its slot: the member takes part again from
//! the next one" (`slot.md`, History). What was said there is not said again.
//!
//! # State and restart
//! One redb file. The entries of a slot are bound to their places by a BLAKE3 chain, so that a damaged,
//! missing or swapped one is found on opening. A journal of the form before this one (`journal.rs`), whose
//! entries do not say their slot, is taken over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use veil_committee::frost::NonceRecord;
use veil_protocol_spec::{
    CodecError, Slot, Wire, agreement::record::Record, domain::JOURNAL_ENTRY, domain::hash_parts,
    scheduling::UnixMillis, slot::SlotEntry,
};

use crate::{
    archive::{Archive, Kind},
    database,
    journal::{self, JournalError, named},
};

const ENTRIES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("slot entries v1");
/// The last slot whose records were forgotten.
const FLOOR: TableDefinition<'_, (), u64> = TableDefinition::new("floor v1");
const CHAIN: usize = 32;

/// A record that belongs to one slot.
pub trait OfSlot: Wire {
    /// That slot.
    fn slot(&self) -> Slot;
}

impl OfSlot for Record {
    fn slot(&self) -> Slot {
        self.instance.slot
    }
}

impl OfSlot for SlotEntry {
    fn slot(&self) -> Slot {
        match self {
            Self::Locked(locked) => locked.manifest.slot,
            Self::Opened { slot, .. } => *slot,
            Self::Ended { end, .. } => end.slot,
        }
    }
}

impl OfSlot for NonceRecord {
    fn slot(&self) -> Slot {
        self.context.key.slot
    }
}

/// A journal by slot, in one file; a cheap handle. See the [module documentation](self).
#[derive(Clone)]
pub struct SlotJournal(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    database: Database,
    floor: Option<Slot>,
    /// Of each slot with entries: the next number, and the chain up to it.
    ends: BTreeMap<Slot, (u64, [u8; CHAIN])>,
}

impl core::fmt::Debug for SlotJournal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let inner = self.inner();
        write!(f, "SlotJournal({}, after slot {:?})", inner.path.display(), inner.floor)
    }
}

impl SlotJournal {
    /// Opens or makes a journal; gives back its records by slot, those of one slot in order.
    ///
    /// `certified` is the last slot of which this node has a certificate. A member enters a slot only on
    /// the certificate of the one before, so an entry that does not say its slot and is not read is of
    /// the next one at the latest.
    ///
    /// # Errors
    /// [`JournalError`]; a damaged journal is left as it is.
    pub fn open<R: OfSlot>(path: &Path, certified: Slot) -> Result<(Self, Vec<R>), JournalError> {
        let mut read = |bytes: &[u8]| R::from_wire(bytes).map(|record| record.slot());
        let (inner, entries) = Inner::open(path, certified, &mut read)?;
        let records = entries.iter().filter_map(|bytes| R::from_wire(bytes).ok()).collect();
        Ok((Self(Arc::new(Mutex::new(inner))), records))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last slot in which nothing may be said any more, since what was said there is forgotten; `None`
    /// if nothing is.
    #[must_use]
    pub fn floor(&self) -> Option<Slot> {
        self.inner().floor
    }

    /// Appends records, all or none, and waits until they are on the disk.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is as before then. [`JournalError::Ended`] for a slot up to the floor.
    pub fn append<'r, R: OfSlot + 'r>(
        &self,
        records: impl IntoIterator<Item = &'r R>,
    ) -> Result<(), JournalError> {
        let entries = records.into_iter().map(|record| (record.slot(), record.to_wire())).collect();
        self.inner().append(entries)
    }

    /// Hands the records of all slots up to `through` to the archive, and forgets them. Waits for the disk.
    ///
    /// # Errors
    /// [`PruneError`]; then they are still here.
    pub fn prune(
        &self,
        through: Slot,
        archive: &Archive,
        kind: Kind,
        now: UnixMillis,
    ) -> Result<(), PruneError> {
        self.inner().prune(through, archive, kind, now)
    }
}

/// Why records are not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] crate::archive::ArchiveError),
}

type Read<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Slot, CodecError>;

impl Inner {
    fn open(
        path: &Path,
        certified: Slot,
        read: Read<'_>,
    ) -> Result<(Self, Vec<Vec<u8>>), JournalError> {
        let database =
            database::open(path).map_err(|error| journal::database_error(path, error))?;
        let mut inner =
            Self { path: path.to_owned(), database, floor: None, ends: BTreeMap::new() };
        inner.take_over(certified, read)?;
        let entries = inner.load(read)?;
        Ok((inner, entries))
    }

    fn error(&self) -> impl Fn(redb::Error) -> JournalError + '_ {
        |error| named(&self.path, error)
    }

    /// Gives the entries of a journal of the earlier form their slots.
    fn take_over(&mut self, certified: Slot, read: Read<'_>) -> Result<(), JournalError> {
        let Some(entries) = journal::read_entries(&self.path, &self.database)? else {
            return Ok(());
        };
        let (mut known, mut floor) = (Vec::new(), None);
        for (entry, bytes) in entries.into_iter().enumerate() {
            match read(&bytes) {
                Ok(slot) => known.push((slot, bytes)),
                // Without certificates nothing says which slot it was.
                Err(source) if certified == Slot(0) => {
                    let (path, entry) = (self.path.clone(), entry as u64);
                    return Err(JournalError::Codec { path, entry, source });
                }
                Err(source) => {
                    let slot = Slot(certified.0 + 1);
                    floor = Some(slot);
                    tracing::warn!(path = %self.path.display(), entry, %slot, %source, "this member takes no part in slots up to this one");
                }
            }
        }
        let write = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            if let Some(floor) = floor {
                writing.open_table(FLOOR)?.insert((), floor.0)?;
            }
            writing.delete_table(journal::ENTRIES)?;
            writing.delete_table(journal::BASE)?;
            insert(&writing, &mut BTreeMap::new(), &known)?;
            writing.commit()?;
            Ok(())
        };
        write().map_err(self.error())
    }

    fn load(&mut self, read: Read<'_>) -> Result<Vec<Vec<u8>>, JournalError> {
        let stored = self.stored().map_err(self.error())?;
        let (floor, entries) = stored;
        self.floor = floor;
        let mut by_slot: BTreeMap<Slot, Vec<Vec<u8>>> = BTreeMap::new();
        for (slot, number, value) in entries {
            let damaged = |what: &str| JournalError::Damaged {
                path: self.path.clone(),
                detail: format!("entry {number} of slot {slot} {what}"),
            };
            let (next, before) = self.ends.get(&slot).copied().unwrap_or_default();
            if number != next {
                return Err(damaged("does not follow"));
            }
            let Some((chain, bytes)) = value.split_first_chunk::<CHAIN>() else {
                return Err(damaged("is truncated"));
            };
            if *chain != link(slot, number, &before, bytes) {
                return Err(damaged("has a wrong checksum"));
            }
            match read(bytes) {
                Ok(of) if of == slot => by_slot.entry(slot).or_default().push(bytes.to_vec()),
                Ok(_) => return Err(damaged("is of another slot")),
                Err(source) => {
                    self.floor = self.floor.max(Some(slot));
                    tracing::warn!(path = %self.path.display(), %slot, %source, "this member takes no part in slots up to this one");
                }
            }
            self.ends.insert(slot, (number + 1, *chain));
        }
        let floor = self.floor;
        Ok(by_slot
            .into_iter()
            .filter(|(slot, _)| Some(*slot) > floor)
            .flat_map(|(_, e)| e)
            .collect())
    }

    /// The floor and the entries, by slot and number.
    #[allow(clippy::type_complexity, reason = "it is taken apart at once")]
    fn stored(&self) -> Result<(Option<Slot>, Vec<(Slot, u64, Vec<u8>)>), redb::Error> {
        let writing = self.database.begin_write()?; // makes the tables
        let floor = writing.open_table(FLOOR)?.get(())?.map(|floor| Slot(floor.value()));
        let entries = writing
            .open_table(ENTRIES)?
            .iter()?
            .map(|entry| {
                let (key, value) = entry?;
                let (slot, number) = key.value();
                Ok((Slot(slot), number, value.value().to_vec()))
            })
            .collect::<Result<_, redb::Error>>()?;
        writing.commit()?;
        Ok((floor, entries))
    }

    fn append(&mut self, entries: Vec<(Slot, Vec<u8>)>) -> Result<(), JournalError> {
        if let Some(floor) = self.floor
            && let Some((slot, _)) = entries.iter().find(|(slot, _)| *slot <= floor)
        {
            return Err(JournalError::Ended { path: self.path.clone(), slot: *slot, floor });
        }
        let mut ends = self.ends.clone();
        let written = (|| -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            insert(&writing, &mut ends, &entries)?;
            // Durability is immediate by default: this returns when it is on the disk.
            writing.commit()?;
            Ok(())
        })();
        written.map_err(self.error())?;
        self.ends = ends;
        Ok(())
    }

    fn prune(
        &mut self,
        through: Slot,
        archive: &Archive,
        kind: Kind,
        now: UnixMillis,
    ) -> Result<(), PruneError> {
        // One slot after the other: a member that was away long may have many, but each is bounded.
        while let Some((&slot, _)) = self.ends.range(..=through).next() {
            let entries = self.entries_of(slot).map_err(self.error())?;
            let bytes = entries.iter().map(|(number, bytes)| (*number, &bytes[..]));
            archive.put(slot, kind, bytes, now)?;
            self.forget(slot)?;
        }
        if self.floor < Some(through) {
            self.forget(through)?;
        }
        Ok(())
    }

    fn entries_of(&self, slot: Slot) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(ENTRIES)?;
        let range = table.range((slot.0, 0)..=(slot.0, u64::MAX))?;
        range
            .map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().1, value.value().get(CHAIN..).unwrap_or_default().to_vec()))
            })
            .collect()
    }

    /// Forgets the entries of a slot, before which there are none, and that there were any.
    fn forget(&mut self, slot: Slot) -> Result<(), JournalError> {
        let floor = self.floor.map_or(slot, |floor| floor.max(slot));
        let write = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            writing.open_table(FLOOR)?.insert((), floor.0)?;
            let all = (0, 0)..=(slot.0, u64::MAX);
            writing.open_table(ENTRIES)?.retain_in(all, |_, _| false)?;
            writing.commit()?;
            Ok(())
        };
        write().map_err(self.error())?;
        self.floor = Some(floor);
        self.ends.retain(|of, _| *of > slot);
        Ok(())
    }
}

fn insert(
    writing: &redb::WriteTransaction,
    ends: &mut BTreeMap<Slot, (u64, [u8; CHAIN])>,
    entries: &[(Slot, Vec<u8>)],
) -> Result<(), redb::Error> {
    let mut table = writing.open_table(ENTRIES)?;
    for (slot, bytes) in entries {
        let (next, chain) = ends.entry(*slot).or_default();
        *chain = link(*slot, *next, chain, bytes);
        let entry = [&chain[..], bytes].concat();
        table.insert((slot.0, *next), entry.as_slice())?;
        *next += 1;
    }
    Ok(())
}

fn link(slot: Slot, number: u64, before: &[u8; CHAIN], bytes: &[u8]) -> [u8; CHAIN] {
    hash_parts(JOURNAL_ENTRY, &[&slot.0.to_le_bytes(), &number.to_le_bytes(), before, bytes])
}
