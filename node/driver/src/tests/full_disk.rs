//! A journal on a disk that is really full: a small tmpfs, which needs the right to mount. Without it the
//! test says so and checks nothing.

use std::{path::Path, process::Command};

use serde::{Deserialize, Serialize};
use veil_node_storage::journal::{Journal, JournalError};
use veil_protocol_spec::{Wire, codec::Bytes};

use super::*;

/// As much as a tenth of the disk.
#[derive(Serialize, Deserialize)]
struct Page(Bytes);

impl Wire for Page {
    const NAME: &'static str = "page";
    const MAX_BYTES: usize = 1 << 20;
}

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Stores a page for each record.
struct PageHost(Journal);

impl Host<Parrot> for PageHost {
    fn persist(&mut self, records: &[u32]) -> Result<(), HostError> {
        let pages = records.iter().map(|_| Page(Bytes(vec![7; 400 << 10])));
        self.0.append(&pages.collect::<Vec<_>>()).map_err(HostError::new)
    }

    fn carry_out(&mut self, _: u32, _: &Parrot) -> Result<(), HostError> {
        Ok(())
    }
}

/// The machine ends, nothing that depends on the record is sent, and the error says what to do: a member
/// whose machine has ended exits with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_machine_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "veil-test"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: mounting a tmpfs needs root; the full disk is not tested");
        return;
    }
    let _mount = Mount(folder.path());
    let (journal, _) = Journal::open::<Page>(&folder.path().join("journal.redb")).unwrap();
    let (_sender, incoming) = mpsc::channel(1);
    let transport = LoggingTransport::default();
    let log = Arc::clone(&transport.log);
    let machine = Parrot::default();
    let driver = Driver::start(config(1), machine, PageHost(journal), transport, incoming);
    let mut stored = 0;
    while let Ok(()) = driver
        .with(move |machine, _| machine.effects.extend([persist(stored, 1), send(2, 9)]))
        .await
    {
        stored += 1;
        assert!(stored < 100, "the disk never fills");
    }
    in_time(driver.ended()).await;
    let ended = driver.finish(Duration::from_secs(10)).await.unwrap();
    let error = ended.error.expect("it stopped by itself");
    let DriverError::Persist(inner) = &error else { panic!("{error}") };
    let full = inner.inner().downcast_ref::<JournalError>();
    assert!(matches!(full, Some(JournalError::Full(_))), "{error}");
    assert!(error.to_string().contains("make room and start the member again"), "{error}");
    assert!(log.lock().unwrap().len() <= ended.machine.persisted.len());
    assert!(!ended.machine.persisted.is_empty(), "there was room in the beginning");
}
