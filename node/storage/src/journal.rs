//! What a machine must not forget: records in order, each durable before [`Journal::append`]
//! returns.
//!
//! Each entry is bound to its place and to everything before it by a BLAKE3 chain, so that a
//! damaged, missing or swapped entry is found when the journal is opened. Secrets are not kept here
//! but in files of their own, which can be destroyed.

use std::{
    io,
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use veil_protocol_spec::{
    CodecError, Wire,
    domain::{JOURNAL_ENTRY, hash_parts},
};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries v1");
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
}

impl Journal {
    /// Opens or makes a journal; gives back its entries in order.
    ///
    /// # Errors
    /// [`JournalError`]; a damaged journal is left as it is.
    pub fn open<R: Wire>(path: &Path) -> Result<(Self, Vec<R>), JournalError> {
        let database = Database::builder()
            .set_cache_size(8 << 20)
            .create(path)
            .map_err(|error| database_error(path, error))?;
        let mut journal = Self { path: path.to_owned(), database, next: 0, chain: [0; CHAIN] };
        let records = journal.load()?;
        Ok((journal, records))
    }

    fn load<R: Wire>(&mut self) -> Result<Vec<R>, JournalError> {
        let path = self.path.clone();
        let damaged = |entry: u64, what: &str| JournalError::Damaged {
            path: path.clone(),
            detail: format!("entry {entry} {what}"),
        };
        let transaction = self.database.begin_read().map_err(|error| self.error(error.into()))?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(self.error(error.into())),
        };
        let mut records = Vec::new();
        for found in table.iter().map_err(|error| self.error(error.into()))? {
            let (key, value) = found.map_err(|error| self.error(error.into()))?;
            if key.value() != self.next {
                return Err(damaged(self.next, "is missing"));
            }
            let Some((chain, bytes)) = value.value().split_first_chunk::<CHAIN>() else {
                return Err(damaged(self.next, "is truncated"));
            };
            if *chain != link(self.next, &self.chain, bytes) {
                return Err(damaged(self.next, "has a wrong checksum"));
            }
            let record = R::from_wire(bytes).map_err(|source| JournalError::Codec {
                path: path.clone(),
                entry: self.next,
                source,
            })?;
            records.push(record);
            self.chain = *chain;
            self.next += 1;
        }
        Ok(records)
    }

    /// Appends records, all or none, and waits until they are on the disk.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is as before then.
    pub fn append<'r, R: Wire + 'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r R>,
    ) -> Result<(), JournalError> {
        let (mut next, mut chain) = (self.next, self.chain);
        let written = (|| -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(ENTRIES)?;
                for record in records {
                    let bytes = record.to_wire();
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
        written.map_err(|error| self.error(error))?;
        (self.next, self.chain) = (next, chain);
        Ok(())
    }

    /// Entries so far.
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

    fn error(&self, error: redb::Error) -> JournalError {
        named(&self.path, error)
    }
}

impl core::fmt::Debug for Journal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Journal({}, {} entries)", self.path.display(), self.next)
    }
}

fn link(entry: u64, before: &[u8; CHAIN], bytes: &[u8]) -> [u8; CHAIN] {
    hash_parts(JOURNAL_ENTRY, &[&entry.to_le_bytes(), before, bytes])
}

fn database_error(path: &Path, error: DatabaseError) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => named(path, redb::Error::Io(source)),
        other => JournalError::Damaged { path: path.to_owned(), detail: other.to_string() },
    }
}

fn named(path: &Path, error: redb::Error) -> JournalError {
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
