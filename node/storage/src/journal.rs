//! What a machine must not forget: records in order, each durable before [`Journal::append`]
//! returns.
//!
//! Each entry is bound to its place and to everything before it by a BLAKE3 chain, so that a
//! damaged, missing or swapped entry is found when the journal is opened. Secrets are not kept here
//! but in files of their own, which can be destroyed. What belongs to slots, and is of no use after
//! them, is in a [`SlotJournal`](crate::slot_journal::SlotJournal).

use std::{
    io,
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableHandle,
};
use veil_protocol_spec::{
    CodecError, Slot, Wire,
    domain::{JOURNAL_ENTRY, hash_parts},
};

use crate::database;

pub(crate) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries v1");
/// Number of the first entry, and the chain before it, once those before were forgotten.
pub(crate) const BASE: TableDefinition<'_, (), (u64, [u8; CHAIN])> =
    TableDefinition::new("base v1");
const CHAIN: usize = 32;

/// An append-only journal in one file.
pub struct Journal {
    path: PathBuf,
    database: Database,
    next: u64,
    chain: [u8; CHAIN],
}

/// Why a journal cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal {0} is in use by another veil process; stop that one first")]
    InUse(PathBuf),
    /// The disk is full.
    #[error(
        "the disk of the journal {0} is full; nothing was lost: make room and start the member again"
    )]
    Full(PathBuf),
    /// The system refuses.
    #[error("the journal {path} cannot be read or written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content is not what was written.
    #[error(
        "the journal {path} is damaged ({detail}); do not go on with it, nor with an older copy, which would send a second time what was sent already; let the attempt expire, or leave the seat empty until the next epoch"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where and how.
        detail: String,
    },
    /// An entry is intact but of another version or kind.
    #[error("entry {entry} of the journal {path}: {source}")]
    Codec {
        /// Which journal.
        path: PathBuf,
        /// Which entry.
        entry: u64,
        /// What is wrong.
        source: CodecError,
    },
    /// Of a slot whose records were forgotten, so that nobody knows what was said there.
    #[error(
        "the journal {path} has forgotten what was said in slots up to {floor}, so nothing more is said in slot {slot}"
    )]
    Ended {
        /// Which journal.
        path: PathBuf,
        /// Which slot.
        slot: Slot,
        /// The last one that was forgotten.
        floor: Slot,
    },
}

impl Journal {
    /// Opens or makes a journal; gives back its entries in order.
    ///
    /// # Errors
    /// [`JournalError`]; a damaged journal is left as it is.
    pub fn open<R: Wire>(path: &Path) -> Result<(Self, Vec<R>), JournalError> {
        let database = database::open(path).map_err(|error| database_error(path, error))?;
        let (next, chain, entries) = load(path, &database)?;
        let first = next - entries.len() as u64;
        let records = (first..).zip(&entries).map(|(entry, bytes)| {
            R::from_wire(bytes).map_err(|source| JournalError::Codec {
                path: path.to_owned(),
                entry,
                source,
            })
        });
        let records = records.collect::<Result<_, _>>()?;
        Ok((Self { path: path.to_owned(), database, next, chain }, records))
    }

    /// Appends records, all or none, and waits until they are on the disk.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is as before then.
    pub fn append<'r, R: Wire + 'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r R>,
    ) -> Result<(), JournalError> {
        let records = records.into_iter().map(Wire::to_wire).collect();
        self.write(records, false)
    }

    /// Appends a record that holds all that those before it said, and forgets them: both or neither. Waits
    /// until that is on the disk.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn replace<R: Wire>(&mut self, record: &R) -> Result<(), JournalError> {
        self.write(vec![record.to_wire()], true)
    }

    fn write(&mut self, records: Vec<Vec<u8>>, forget: bool) -> Result<(), JournalError> {
        let (mut next, mut chain) = (self.next, self.chain);
        let written = (|| -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(ENTRIES)?;
                if forget {
                    table.retain_in(..next, |_, _| false)?;
                    transaction.open_table(BASE)?.insert((), (next, chain))?;
                }
                for bytes in records {
                    chain = link(next, &chain, &bytes);
                    let entry = [&chain[..], &bytes].concat();
                    table.insert(next, entry.as_slice())?;
                    next += 1;
                }
            }
            // Durability is immediate by default: this returns when it is on the disk.
            transaction.commit()?;
            Ok(())
        })();
        written.map_err(|error| named(&self.path, error))?;
        (self.next, self.chain) = (next, chain);
        Ok(())
    }

    /// Entries so far, with those that were forgotten.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.next
    }

    /// Whether it has no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl core::fmt::Debug for Journal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Journal({}, {} entries)", self.path.display(), self.next)
    }
}

type Loaded = (u64, [u8; CHAIN], Vec<Vec<u8>>);

/// The next entry's number, the chain up to it, and the entries.
fn load(path: &Path, database: &Database) -> Result<Loaded, JournalError> {
    let stored = || -> Result<_, redb::Error> {
        let transaction = database.begin_write()?; // makes the tables
        let base = transaction.open_table(BASE)?.get(())?.map(|base| base.value());
        let mut entries = Vec::new();
        for entry in transaction.open_table(ENTRIES)?.iter()? {
            let (key, value) = entry?;
            entries.push((key.value(), value.value().to_vec()));
        }
        transaction.commit()?;
        Ok((base.unwrap_or_default(), entries))
    };
    let ((mut next, mut chain), stored) = stored().map_err(|error| named(path, error))?;
    let mut entries = Vec::new();
    for (number, value) in stored {
        let damaged = |what: &str| JournalError::Damaged {
            path: path.to_owned(),
            detail: format!("entry {next} {what}"),
        };
        if number != next {
            return Err(damaged("is missing"));
        }
        let Some((found, bytes)) = value.split_first_chunk::<CHAIN>() else {
            return Err(damaged("is truncated"));
        };
        if *found != link(next, &chain, bytes) {
            return Err(damaged("has a wrong checksum"));
        }
        entries.push(bytes.to_vec());
        chain = *found;
        next += 1;
    }
    Ok((next, chain, entries))
}

/// The entries of a journal, if the database holds one.
pub(crate) fn read_entries(
    path: &Path,
    database: &Database,
) -> Result<Option<Vec<Vec<u8>>>, JournalError> {
    let exists = || -> Result<bool, redb::Error> {
        let reading = database.begin_read()?;
        let mut tables = reading.list_tables()?;
        Ok(tables.any(|table| table.name() == ENTRIES.name()))
    };
    if !exists().map_err(|error| named(path, error))? {
        return Ok(None);
    }
    load(path, database).map(|(.., entries)| Some(entries))
}

fn link(entry: u64, before: &[u8; CHAIN], bytes: &[u8]) -> [u8; CHAIN] {
    hash_parts(JOURNAL_ENTRY, &[&entry.to_le_bytes(), before, bytes])
}

pub(crate) fn database_error(path: &Path, error: DatabaseError) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => named(path, redb::Error::Io(source)),
        other => JournalError::Damaged { path: path.to_owned(), detail: other.to_string() },
    }
}

pub(crate) fn named(path: &Path, error: redb::Error) -> JournalError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
            JournalError::Full(path)
        }
        // redb says so of a file that is no journal, or not wholly one.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            JournalError::Damaged { path, detail: source.to_string() }
        }
        redb::Error::Io(source) => JournalError::Io { path, source },
        redb::Error::PreviousIo => JournalError::Io {
            path,
            source: io::Error::other("an earlier write failed; start the member again"),
        },
        other => JournalError::Damaged { path, detail: other.to_string() },
    }
}
