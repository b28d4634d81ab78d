//! How long this worker has been cut off from the committee, over restarts too.
//!
//! # Clock
//! "The worker measures its lease on a clock that counts suspend": [`Uptime`], which goes on while the
//! machine sleeps, and which no step of the time of day moves.
//!
//! # State
//! A file holds the start of the machine and the uptime of the last contact. It renews nothing: after a
//! restart of the worker the age goes on from there. After a restart of the machine nobody knows how long
//! it was off, and so the age is longer than any lease until the committee is reached again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use veil_node_process::{BootId, Uptime};
use veil_node_storage::durable::replace;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct LastContact {
    path: PathBuf,
    boot: Option<BootId>,
    at: Option<Uptime>,
}

impl LastContact {
    /// What is on disk of this start of the machine; nothing if that cannot be read.
    pub(crate) fn open(path: &Path, boot: Option<BootId>) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let stored = parse(&text).filter(|(of, _)| boot == Some(*of));
        Self { path: path.to_owned(), boot, at: stored.map(|(_, at)| at) }
    }

    /// The committee was reached.
    ///
    /// # Errors
    /// What the system says; the contact counts for this process then, not for the next.
    pub(crate) fn renew(&mut self, at: Uptime) -> io::Result<()> {
        if self.at >= Some(at) {
            return Ok(());
        }
        self.at = Some(at);
        // Without its start, an uptime would mean nothing to the next process.
        let Some(BootId(boot)) = self.boot else { return Ok(()) };
        replace(&self.path, format!("{boot:032x} {}", at.0.as_millis()).as_bytes())
    }

    /// How old the contact is; longer than any lease if there never was one, or if the clock cannot be
    /// read.
    pub(crate) fn age(&self, now: Option<Uptime>) -> Duration {
        match (self.at, now) {
            (Some(at), Some(now)) => now.0.saturating_sub(at.0),
            _ => Duration::MAX,
        }
    }
}

fn parse(text: &str) -> Option<(BootId, Uptime)> {
    let (boot, millis) = text.trim().split_once(' ')?;
    let boot = BootId(u128::from_str_radix(boot, 16).ok()?);
    Some((boot, Uptime(Duration::from_millis(millis.parse().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A machine, which may be started again.
    #[derive(Clone, Copy)]
    struct Machine {
        boot: BootId,
        up: Duration,
    }

    impl Machine {
        const START: Self = Self { boot: BootId(7), up: SECOND };

        fn start_again(&mut self) {
            *self = Self { boot: BootId(self.boot.0 + 1), up: Duration::ZERO };
        }

        fn open(&self, path: &Path) -> LastContact {
            LastContact::open(path, Some(self.boot))
        }

        fn now(&self) -> Option<Uptime> {
            Some(Uptime(self.up))
        }
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact");
        (folder, path)
    }

    #[test]
    fn the_age_spans_restarts_of_the_worker_and_only_shrinks_with_later_contact() {
        let (_folder, path) = file();
        let mut machine = Machine::START;
        let mut contact = machine.open(&path);
        assert_eq!(contact.age(machine.now()), Duration::MAX);
        contact.renew(Uptime(machine.up)).unwrap();
        contact.renew(Uptime(machine.up - SECOND)).unwrap();
        machine.up += 30 * SECOND;
        assert_eq!(contact.age(machine.now()), 30 * SECOND);
        let contact = machine.open(&path);
        machine.up += 5 * SECOND;
        assert_eq!(contact.age(machine.now()), 35 * SECOND);
    }

    #[test]
    fn after_a_restart_of_the_machine_no_lease_holds_until_there_is_contact() {
        let (_folder, path) = file();
        let mut machine = Machine::START;
        machine.open(&path).renew(Uptime(machine.up)).unwrap();
        machine.start_again();
        let mut contact = machine.open(&path);
        assert_eq!(contact.age(machine.now()), Duration::MAX);
        contact.renew(Uptime(machine.up)).unwrap();
        machine.up += SECOND;
        assert_eq!(machine.open(&path).age(machine.now()), SECOND);
    }

    #[test]
    fn what_cannot_be_read_is_no_contact() {
        let (_folder, path) = file();
        let machine = Machine::START;
        for text in ["", "1700000000000", "7", "7 x", "x 5"] {
            fs::write(&path, text).unwrap();
            assert_eq!(machine.open(&path).age(machine.now()), Duration::MAX, "{text}");
        }
        fs::write(&path, "7 1000").unwrap();
        assert_eq!(machine.open(&path).age(machine.now()), Duration::ZERO);
        assert_eq!(machine.open(&path).age(None), Duration::MAX);
        assert_eq!(LastContact::open(&path, None).age(machine.now()), Duration::MAX);
    }
}
