//! Journals by slot: a start reads the slots under way only, what was forgotten is not said again, and a
//! record of another version stops nobody.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use veil_node_storage::{
    archive::{Archive, Kind},
    journal::{Journal, JournalError},
    retention::Retention,
    slot_journal::{OfSlot, SlotJournal},
};
use veil_protocol_spec::{Slot, Wire, scheduling::UnixMillis};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vote(Slot, Vec<u8>);

impl Wire for Vote {
    const NAME: &'static str = "test vote";
    const MAX_BYTES: usize = 1 << 20;
}

impl OfSlot for Vote {
    fn slot(&self) -> Slot {
        self.0
    }
}

/// The same of the next version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NextVote(Slot);

impl Wire for NextVote {
    const NAME: &'static str = "test vote";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 1 << 20;
}

impl OfSlot for NextVote {
    fn slot(&self) -> Slot {
        self.0
    }
}

/// Three votes of a slot.
fn votes(slot: u64) -> Vec<Vote> {
    (0..3).map(|i| Vote(Slot(slot), vec![i; 700])).collect()
}

fn archive(folder: &Path) -> Archive {
    Archive::open(&folder.join("archive.redb"), Retention::default()).unwrap()
}

fn open<R: OfSlot>(folder: &Path, certified: u64) -> (SlotJournal, Vec<R>) {
    SlotJournal::open(&folder.join("votes.redb"), Slot(certified)).unwrap()
}

fn prune(journal: &SlotJournal, through: u64, archive: &Archive) {
    journal.prune(Slot(through), archive, Kind::Agreement, UnixMillis(0)).unwrap();
}

#[test]
fn a_start_reads_the_slots_under_way_and_the_archive_has_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path());
    for slot in 1..=40 {
        let (journal, before) = open::<Vote>(folder.path(), slot - 1);
        let kept: Vec<_> = (slot.saturating_sub(3).max(1)..slot).flat_map(votes).collect();
        assert_eq!(before, kept);
        let through = (slot > 1).then(|| Slot(slot.saturating_sub(4)));
        assert_eq!(journal.floor(), through);
        journal.append(&votes(slot)).unwrap();
        prune(&journal, slot.saturating_sub(3), &archive);
    }
    for slot in [1, 17, 37] {
        let expected: Vec<_> = votes(slot).iter().map(Wire::to_wire).collect();
        assert_eq!(archive.entries(Slot(slot), Kind::Agreement).unwrap(), expected);
    }
    assert!(archive.entries(Slot(38), Kind::Agreement).unwrap().is_empty());
}

/// What was handed over once is gone from the file: not only left aside by a start, but of no weight in it.
#[test]
fn what_is_forgotten_is_gone_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open::<Vote>(folder.path(), 0);
    for slot in 1..=3 {
        journal.append(&votes(slot)).unwrap();
    }
    prune(&journal, 2, &archive(folder.path()));
    drop(journal);
    let (journal, records) = open::<Vote>(folder.path(), 3);
    assert_eq!(records, votes(3));
    // An archive that knows nothing yet gets what the file still holds.
    let other = tempfile::tempdir().unwrap();
    let fresh = archive(other.path());
    prune(&journal, 3, &fresh);
    let held = [1, 2, 3].map(|slot| fresh.entries(Slot(slot), Kind::Agreement).unwrap().len());
    assert_eq!(held, [0, 0, 3]);
}

/// Also if nothing but the journal is left of the data directory.
#[test]
fn nothing_is_said_again_in_a_slot_that_was_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path());
    let (journal, _) = open::<Vote>(folder.path(), 0);
    journal.append(&votes(5)).unwrap();
    prune(&journal, 5, &archive);
    for _ in 0..2 {
        let refused = journal.append(&[Vote(Slot(6), vec![]), Vote(Slot(5), vec![9])]);
        assert!(matches!(refused, Err(JournalError::Ended { slot: Slot(5), .. })), "{refused:?}");
    }
    drop(journal);
    let (journal, records) = open::<Vote>(folder.path(), 0);
    assert_eq!((journal.floor(), records), (Some(Slot(5)), vec![]));
    assert!(journal.append(&votes(5)).is_err());
    journal.append(&votes(6)).unwrap();
    // A member that was away forgets slots of which it has nothing.
    prune(&journal, 900, &archive);
    assert_eq!(journal.floor(), Some(Slot(900)));
    assert_eq!(archive.entries(Slot(6), Kind::Agreement).unwrap().len(), 3);
}

/// What was said is not known, so nothing is said in its slot; the next slots go on.
#[test]
fn a_record_of_another_version_costs_its_slot_and_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open::<Vote>(folder.path(), 0);
    journal.append(&votes(7)).unwrap();
    journal.append(&votes(8)).unwrap();
    drop(journal);
    let (journal, records) = open::<NextVote>(folder.path(), 7);
    assert_eq!((journal.floor(), records), (Some(Slot(8)), vec![]));
    assert!(journal.append(&[NextVote(Slot(8))]).is_err());
    journal.append(&[NextVote(Slot(9))]).unwrap();
    let archive = archive(folder.path());
    prune(&journal, 8, &archive);
    drop(journal);
    let (journal, records) = open::<NextVote>(folder.path(), 8);
    assert_eq!((journal.floor(), records), (Some(Slot(8)), vec![NextVote(Slot(9))]));
    // What is not read is kept as it is.
    assert_eq!(archive.entries(Slot(8), Kind::Agreement).unwrap().len(), 3);
}

#[test]
fn a_journal_of_the_earlier_form_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("votes.redb");
    let all: Vec<_> = (3..6).flat_map(votes).collect();
    let (mut earlier, _) = Journal::open::<Vote>(&path).unwrap();
    earlier.append(&all).unwrap();
    drop(earlier);
    for _ in 0..2 {
        let (journal, records) = open::<Vote>(folder.path(), 5);
        assert_eq!((journal.floor(), &records), (None, &all));
    }
}

/// A member enters a slot on the certificate of the one before, so what is not read is of the slot under
/// way at the latest. Without certificates nothing says which slot it was.
#[test]
fn a_journal_of_the_earlier_form_and_version_costs_the_slot_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("votes.redb");
    let (mut earlier, _) = Journal::open::<Vote>(&path).unwrap();
    earlier.append(&votes(6)).unwrap();
    drop(earlier);
    let refused = SlotJournal::open::<NextVote>(&path, Slot(0));
    assert!(matches!(refused, Err(JournalError::Codec { .. })), "{refused:?}");
    for _ in 0..2 {
        let (journal, records) = open::<NextVote>(folder.path(), 5);
        assert_eq!((journal.floor(), records), (Some(Slot(6)), vec![]));
    }
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("votes.redb");
    let (journal, _) = open::<Vote>(folder.path(), 0);
    journal.append(&votes(1)).unwrap();
    journal.append(&votes(2)).unwrap();
    drop(journal);
    let intact = fs::read(&path).unwrap();
    let needle = [2u8; 600];
    let inside = intact.windows(needle.len()).position(|window| window == needle).unwrap();
    let mut bytes = intact;
    bytes[inside + 300] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let refused = SlotJournal::open::<Vote>(&path, Slot(0));
    assert!(matches!(refused, Err(JournalError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_journal_that_is_replaced_keeps_its_last_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counter.redb");
    for i in 0..5 {
        let (mut journal, before) = Journal::open::<Vote>(&path).unwrap();
        assert_eq!(before, votes(i).into_iter().take(1).filter(|_| i > 0).collect::<Vec<_>>());
        journal.replace(&votes(i)[0]).unwrap();
        journal.replace(&votes(i + 1)[0]).unwrap();
        assert_eq!(journal.len(), 2 * i + 2);
    }
}
