//! What is kept of ended slots for disputes and audits, out of the way of what a start reads.
//!
//! # Flow
//! When a slot is certified, the journals hand over what they hold of it ([`Archive::put`]). What is
//! older than the [`Retention`] says, or does not fit into its bytes, is dropped then, oldest slot
//! first, but for slots that are held ([`Archive::hold`]).
//!
//! # State and restart
//! One redb file; opening it reads nothing. An entry has its number from the journal that it comes from,
//! so that one that is handed over twice, because of a crash in between, is stored once.
//!
//! # Caveats
//! Entries are the bytes that were stored before, with the version that they begin with: the reader
//! knows which versions it reads.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase, TableDefinition};
use veil_protocol_spec::{Slot, scheduling::UnixMillis};

use crate::{
    database,
    retention::{Account, Held, Retention},
};

const ENTRIES: TableDefinition<'_, (u64, u8, u64), &[u8]> = TableDefinition::new("entries v1");
const ACCOUNT: Account = Account::new("slots v1", "bytes v1");

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A record of the agreement: values, votes, locks.
    Agreement = 1,
    /// The lock or the end of the slot.
    Slot = 2,
    /// A spent nonce and the message that it signed.
    Nonce = 3,
    /// Public inputs of the locked manifest.
    Inputs = 4,
    /// Body of a job that the locked manifest lists.
    Job = 5,
    /// Telemetry that the locked manifest lists.
    Telemetry = 6,
    /// The digits that were opened.
    Opening = 7,
}

/// The archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "the archive {path}: {detail}; it can be moved away: it holds nothing that a start needs, and everything that a dispute about an ended slot needs"
)]
pub struct ArchiveError {
    path: PathBuf,
    detail: String,
}

/// See the [module documentation](self).
pub struct Archive {
    path: PathBuf,
    database: Database,
    retention: Retention,
    held: Held,
}

impl core::fmt::Debug for Archive {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(path: &Path) -> impl Fn(redb::Error) -> ArchiveError + '_ {
    |error| ArchiveError { path: path.to_owned(), detail: error.to_string() }
}

impl Archive {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(path: &Path, retention: Retention) -> Result<Self, ArchiveError> {
        let open = || -> Result<Database, redb::Error> {
            let database = database::open(path)?;
            let writing = database::begin_write(&database)?;
            writing.open_table(ENTRIES)?;
            writing.commit()?;
            Ok(database)
        };
        let database = open().map_err(failed(path))?;
        Ok(Self { path: path.to_owned(), database, retention, held: Held::default() })
    }

    /// Says which slots are challenged: they stay until they are so no more. Before this was said once,
    /// nothing is dropped.
    pub fn hold(&self, challenged: BTreeSet<Slot>) {
        self.held.set(challenged);
    }

    /// Stores entries of a slot by their numbers, durably; then drops what is over the bounds. Waits for
    /// the disk.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing has changed then.
    pub fn put<'b>(
        &self,
        slot: Slot,
        kind: Kind,
        entries: impl IntoIterator<Item = (u64, &'b [u8])>,
        now: UnixMillis,
    ) -> Result<(), ArchiveError> {
        self.put_all(slot, kind, &mut entries.into_iter(), now).map_err(failed(&self.path))
    }

    fn put_all(
        &self,
        slot: Slot,
        kind: Kind,
        entries: &mut dyn Iterator<Item = (u64, &[u8])>,
        now: UnixMillis,
    ) -> Result<(), redb::Error> {
        let writing = database::begin_write(&self.database)?;
        {
            let mut table = writing.open_table(ENTRIES)?;
            let (mut added, mut removed) = (0, 0);
            for (number, bytes) in entries {
                added += bytes.len() as u64;
                let before = table.insert((slot.0, kind as u8, number), bytes)?;
                removed += before.map_or(0, |before| before.value().len() as u64);
            }
            ACCOUNT.add(&writing, slot.0, (added, removed), now)?;
            for expired in ACCOUNT.expire(&writing, (self.retention, &self.held), u64::MAX, now)? {
                let all = (expired, 0, 0)..(expired + 1, 0, 0);
                table.retain_in(all, |_, _| false)?;
            }
        }
        writing.commit()?;
        Ok(())
    }

    /// Everything of one kind that is kept of a slot, in order.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn entries(&self, slot: Slot, kind: Kind) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            let range = (slot.0, kind as u8, 0)..=(slot.0, kind as u8, u64::MAX);
            table.range(range)?.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        read().map_err(failed(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn open(folder: &Path, days: u32, bytes: u64) -> Archive {
        let archive =
            Archive::open(&folder.join("archive.redb"), Retention { days, bytes }).unwrap();
        archive.hold(BTreeSet::new());
        archive
    }

    fn kept(archive: &Archive, slots: core::ops::RangeInclusive<u64>) -> Vec<u64> {
        let has = |slot: &u64| !archive.entries(Slot(*slot), Kind::Slot).unwrap().is_empty();
        slots.filter(has).collect()
    }

    #[test]
    fn what_is_handed_over_twice_is_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        let archive = open(folder.path(), 14, 100);
        for _ in 0..20 {
            let both: [(u64, &[u8]); 2] = [(0, &[1; 30]), (1, &[2; 30])];
            archive.put(Slot(3), Kind::Agreement, both, UnixMillis(0)).unwrap();
        }
        archive.put(Slot(3), Kind::Slot, [(0, &[3; 30][..])], UnixMillis(0)).unwrap();
        drop(archive);
        let archive = open(folder.path(), 14, 100);
        assert_eq!(archive.entries(Slot(3), Kind::Agreement).unwrap(), [[1; 30], [2; 30]]);
        assert_eq!(archive.entries(Slot(3), Kind::Slot).unwrap(), [[3; 30]]);
        assert!(archive.entries(Slot(2), Kind::Slot).unwrap().is_empty());
    }

    #[test]
    fn the_oldest_slots_go_when_the_bytes_are_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let archive = open(folder.path(), 14, 350);
        for slot in 1..=9 {
            archive.put(Slot(slot), Kind::Slot, [(0, &[0; 100][..])], UnixMillis(0)).unwrap();
        }
        assert_eq!(kept(&archive, 1..=9), [7, 8, 9]);
    }

    #[test]
    fn a_challenged_slot_stays_until_its_challenge_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let retention = Retention { days: 2, bytes: 350 };
        let archive = Archive::open(&folder.path().join("archive.redb"), retention).unwrap();
        let put = |slot: u64, days: u64| {
            let now = UnixMillis(days * DAY);
            archive.put(Slot(slot), Kind::Slot, [(0, &[0; 100][..])], now).unwrap();
        };
        (1..=6).for_each(|slot| put(slot, 0));
        assert_eq!(kept(&archive, 1..=6).len(), 6, "the chain has not been asked");
        archive.hold([Slot(2), Slot(4)].into());
        put(7, 0);
        assert_eq!(kept(&archive, 1..=7), [2, 4, 7]);
        put(8, 9);
        assert_eq!(kept(&archive, 1..=8), [2, 4, 8]);
        archive.hold([Slot(4)].into());
        put(9, 9);
        assert_eq!(kept(&archive, 1..=9), [4, 8, 9]);
        archive.hold(BTreeSet::new());
        put(10, 9);
        assert_eq!(kept(&archive, 1..=10), [8, 9, 10]);
    }

    #[test]
    fn a_slot_goes_when_its_days_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let archive = open(folder.path(), 2, u64::MAX);
        for slot in 1..=9 {
            let now = UnixMillis(slot * DAY);
            archive.put(Slot(slot), Kind::Slot, [(0, &[0; 9][..])], now).unwrap();
        }
        assert_eq!(kept(&archive, 1..=9), [7, 8, 9]);
    }
}
