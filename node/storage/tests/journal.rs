//! The journal: what was appended comes back, damage is named, a full disk loses nothing.

use std::fs;

use serde::{Deserialize, Serialize};
use veil_protocol_spec::Wire;

use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    durable::erase_file,
    journal::{Journal, JournalError},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry(u64, Vec<u8>);

impl Wire for Entry {
    const NAME: &'static str = "test entry";
    const MAX_BYTES: usize = 1 << 20;
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Other(u64, Vec<u8>);

impl Wire for Other {
    const NAME: &'static str = "other entry";
    const VERSION: u8 = 9;
    const MAX_BYTES: usize = 1 << 20;
}

fn entries(count: u64) -> Vec<Entry> {
    (0..count).map(|i| Entry(i, vec![i as u8; 700])).collect()
}

#[test]
fn what_was_appended_comes_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let all = entries(20);
    for (i, pair) in all.chunks(2).enumerate() {
        let (mut journal, before) = Journal::open::<Entry>(&path).unwrap();
        assert_eq!(before, all[..2 * i]);
        assert_eq!(journal.len(), 2 * i as u64);
        journal.append(pair).unwrap();
    }
    let (journal, before) = Journal::open::<Entry>(&path).unwrap();
    assert_eq!(before, all);
    assert!(matches!(Journal::open::<Entry>(&path), Err(JournalError::InUse(_))));
    drop(journal);
    let error = Journal::open::<Other>(&path).unwrap_err();
    assert!(matches!(error, JournalError::Codec { entry: 0, .. }), "{error}");
}

/// A flipped bit is found, or it is in a place that holds nothing.
#[test]
fn damage_is_named_and_never_read_as_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let all = entries(12);
    let (mut journal, _) = Journal::open::<Entry>(&path).unwrap();
    journal.append(&all).unwrap();
    drop(journal);
    let intact = fs::read(&path).unwrap();
    let mut damaged = 0;
    let needle = &[5u8; 600][..];
    let inside = intact.windows(needle.len()).position(|window| window == needle).unwrap();
    for at in (0..intact.len()).step_by(intact.len() / 97).chain([inside, inside + 300]) {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        match Journal::open::<Entry>(&path) {
            Ok((_, read)) => assert_eq!(read, all, "byte {at}"),
            Err(JournalError::Damaged { .. }) => damaged += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(damaged >= 2);
    for length in [0, 1, 100, 4096, intact.len() / 2] {
        fs::write(&path, &intact[..length]).unwrap();
        match Journal::open::<Entry>(&path) {
            // An empty file is a new journal: whoever lost it all has an empty folder.
            Ok((_, read)) => assert!(read.is_empty() && length == 0, "{length}"),
            Err(error) => {
                assert!(matches!(error, JournalError::Damaged { .. }), "{length}: {error}")
            }
        }
    }
}

/// On a tmpfs, which needs the right to mount; says so if there is none.
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "veil-test"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: mounting a tmpfs needs root; the full disk is not tested");
        return;
    }
    struct Mount<'a>(&'a std::path::Path);
    impl Drop for Mount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let _mount = Mount(folder.path());
    let path = folder.path().join("journal.redb");
    let (mut journal, _) = Journal::open::<Entry>(&path).unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let entry = Entry(stored.len() as u64, vec![7; 200_000]);
        match journal.append([&entry]) {
            Ok(()) => stored.push(entry),
            Err(error) => break error,
        }
        assert!(stored.len() < 100);
    };
    assert!(matches!(error, JournalError::Full(_)), "{error}");
    drop(journal);
    let (_, read) = Journal::open::<Entry>(&path).unwrap();
    assert_eq!(read, stored);
    assert!(!stored.is_empty());
}

#[test]
fn files_are_destroyed_and_directories_are_for_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "the secret").unwrap();
    let second = folder.path().join("link");
    fs::hard_link(&path, &second).unwrap();
    erase_file(&path).unwrap();
    assert!(!path.exists());
    assert_eq!(fs::read(&second).unwrap(), [0; 10]);
    erase_file(&path).unwrap();
    let held = DataDir::lock(folder.path()).unwrap();
    assert!(matches!(DataDir::lock(folder.path()), Err(DataDirError::InUse(_))));
    drop(held);
    DataDir::lock(folder.path()).unwrap();
}
