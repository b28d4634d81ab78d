//! Numbers that grow and are never used twice, over restarts and crashes too.
//!
//! # State
//! A file holds the first number that is not reserved yet. It is made durable before a number of the
//! reserved range is used; a restart goes on after the range. Should the file be lost, the clock
//! stands in: numbers are milliseconds since the Unix epoch at least.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use veil_node_process::unix_now;
use veil_node_storage::durable::replace;

/// Numbers reserved with one write.
const RANGE: u64 = 256;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Sequence {
    path: PathBuf,
    next: u64,
    reserved: u64,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}; without it the telemetry of this worker could repeat a number")]
pub struct SequenceError {
    /// Which file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl Sequence {
    /// Opens the file, if there is one.
    ///
    /// # Errors
    /// [`SequenceError`].
    pub(crate) fn open(path: &Path) -> Result<Self, SequenceError> {
        Self::open_at(path, unix_now().0)
    }

    fn open_at(path: &Path, now: u64) -> Result<Self, SequenceError> {
        let stored = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        let stored: u64 =
            stored.map_err(|source| SequenceError { path: path.to_owned(), source })?;
        let next = stored.max(now);
        Ok(Self { path: path.to_owned(), next, reserved: next })
    }

    /// The next number.
    ///
    /// # Errors
    /// [`SequenceError`]; no number is used up then.
    pub(crate) fn take(&mut self) -> Result<u64, SequenceError> {
        if self.next >= self.reserved {
            let reserved = self.next.saturating_add(RANGE);
            replace(&self.path, reserved.to_string().as_bytes())
                .map_err(|source| SequenceError { path: self.path.clone(), source })?;
            self.reserved = reserved;
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence");
        let mut last = 0;
        // As after crashes: nothing is written on dropping. The clock stands still, then goes back.
        for now in [1000, 1000, 5] {
            let mut sequence = Sequence::open_at(&path, now).unwrap();
            for _ in 0..RANGE + 10 {
                let number = sequence.take().unwrap();
                assert!(number > last, "{number} after {last}");
                last = number;
            }
        }
        let mut later = Sequence::open_at(&path, 1_000_000).unwrap();
        assert_eq!(later.take().unwrap(), 1_000_000);
    }

    #[test]
    fn a_number_is_not_given_before_its_range_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("sequence");
        let mut sequence = Sequence::open_at(&path, 7).unwrap();
        assert!(sequence.take().is_err());
        fs::create_dir(folder.path().join("gone")).unwrap();
        assert_eq!(sequence.take().unwrap(), 7);
        fs::write(&path, "no number").unwrap();
        assert!(Sequence::open_at(&path, 7).is_err());
    }
}
