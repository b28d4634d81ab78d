//! How databases are opened here: with bounded caches.

use std::path::Path;

use redb::{Database, DatabaseError, WriteTransaction};

/// redb keeps this much of a file in memory; left to itself it takes a gigabyte for each.
const CACHE_BYTES: usize = 8 << 20;

/// Opens or makes a database.
pub(crate) fn open(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

/// Begins a write to a database that may be large: after a crash it is opened without being read as a
/// whole.
pub(crate) fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_quick_repair(true);
    Ok(writing)
}
