//! The folder that one process has for itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::durable::replace;

/// The file of the incarnation.
const INCARNATION: &str = "incarnation";
/// Tries to lock a directory.
const LOCK_TRIES: u32 = 10;
/// Between two tries.
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A data directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "{0} is in use by another veil process; stop that one first, or give this one another data directory"
    )]
    InUse(PathBuf),
    /// It cannot be made or read.
    #[error("the data directory {path} cannot be used: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the folder, for its owner only, if it does not exist, and locks it. The system undoes
    /// the lock when the process ends, however it ends.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io)?;
        // Whoever asks whether it is locked holds it for an instant.
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_DELAY),
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        Err(DataDirError::InUse(path.to_owned()))
    }

    /// Whether a process holds the lock now.
    #[must_use]
    pub fn is_locked(path: &Path) -> bool {
        let Ok(lock) = OpenOptions::new().write(true).open(path.join("lock")) else {
            return false;
        };
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// How often, as a time, the node has begun anew with a data directory that does not go on where its last one ended; 0
    /// if never.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn incarnation(&self) -> Result<u64, DataDirError> {
        let path = self.path.join(INCARNATION);
        let read = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{INCARNATION}: {error}"))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        read.map_err(|source| DataDirError::Io { path: self.path.clone(), source })
    }

    /// The node begins anew, now (Unix milliseconds): whoever still runs with an earlier incarnation is not listened to any
    /// more, and ends.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn begin_anew(&self, now: u64) -> Result<(), DataDirError> {
        let next = now.max(self.incarnation()?.saturating_add(1));
        let written = replace(&self.path.join(INCARNATION), next.to_string().as_bytes());
        written.map_err(|source| DataDirError::Io { path: self.path.clone(), source })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_beginning_is_later_than_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::lock(place.path()).unwrap();
        assert_eq!(data.incarnation().unwrap(), 0);
        // Also if the clock went back.
        for (now, expected) in [(1_000, 1_000), (400, 1_001), (5_000, 5_000)] {
            data.begin_anew(now).unwrap();
            assert_eq!(data.incarnation().unwrap(), expected);
        }
        fs::write(place.path().join(INCARNATION), "soon").unwrap();
        let damaged = data.incarnation().unwrap_err().to_string();
        assert!(damaged.contains("incarnation"), "{damaged}");
    }
}
