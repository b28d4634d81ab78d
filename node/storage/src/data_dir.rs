//! The folder that one process has for itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

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

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
