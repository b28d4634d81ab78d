//! The journals that say what a member has signed with its key share. They are made before the member takes
//! part in its first ceremony, so whoever has a share has them, and a share without them is refused: its
//! member could sign a second time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use veil_node_storage::{
    journal::{Journal, JournalError},
    slot_journal::SlotJournal,
};
use veil_protocol_spec::{Slot, decryption::DecryptionCounter, slot::SlotEntry};

/// Votes.
pub const AGREEMENT: &str = "agreement.redb";
/// How much the key has been used.
pub const DECRYPTION: &str = "decryption.redb";
/// Messages that the member gave a share of a signature for.
pub const NONCES: &str = "nonces.redb";
/// Lock and end of the slot under way.
pub const SLOT: &str = "slot.redb";
const ALL: [&str; 4] = [AGREEMENT, DECRYPTION, NONCES, SLOT];

/// Their folder in a data directory.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("slots")
}

/// Makes the journals that are not there, empty.
///
/// # Errors
/// [`JournalError`].
pub fn make(folder: &Path) -> Result<(), JournalError> {
    let io = |source: io::Error| JournalError::Io { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(io)?;
    for path in missing(folder) {
        if path.ends_with(DECRYPTION) {
            Journal::open::<DecryptionCounter>(&path)?;
        } else {
            // Empty, they are the same for all kinds of records.
            SlotJournal::open::<SlotEntry>(&path, Slot(0))?;
        }
    }
    Ok(())
}

/// Those that are not there.
#[must_use]
pub fn missing(folder: &Path) -> Vec<PathBuf> {
    let journals = ALL.iter().map(|name| folder.join(name));
    journals.filter(|path| !path.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_journal_that_is_missing_is_named_until_it_is_made() {
        let data = tempfile::tempdir().unwrap();
        let folder = folder(data.path());
        assert_eq!(missing(&folder).len(), 4);
        make(&folder).unwrap();
        for name in ALL {
            assert!(missing(&folder).is_empty());
            fs::remove_file(folder.join(name)).unwrap();
            assert_eq!(missing(&folder), [folder.join(name)]);
            make(&folder).unwrap();
        }
    }
}
