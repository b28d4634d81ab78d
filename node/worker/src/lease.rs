//! How long this worker has been cut off from the committee, over restarts too.
//!
//! # State
//! A file holds the last contact in milliseconds since the Unix epoch. The clock is this machine's:
//! one that is set back lengthens leases by as much.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use veil_node_storage::durable::replace;
use veil_protocol_spec::scheduling::UnixMillis;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct LastContact {
    path: PathBuf,
    at: Option<UnixMillis>,
}

impl LastContact {
    /// What is on disk; nothing if that cannot be read.
    pub(crate) fn open(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        Self { path: path.to_owned(), at: text.trim().parse().ok().map(UnixMillis) }
    }

    /// The committee was reached.
    ///
    /// # Errors
    /// What the system says; the contact counts for this process then, not for the next.
    pub(crate) fn renew(&mut self, at: UnixMillis) -> io::Result<()> {
        if self.at >= Some(at) {
            return Ok(());
        }
        self.at = Some(at);
        replace(&self.path, at.0.to_string().as_bytes())
    }

    /// How old the contact is; longer than any lease if there never was one.
    pub(crate) fn age(&self, now: UnixMillis) -> Duration {
        self.at.map_or(Duration::MAX, |at| Duration::from_millis(now.0.saturating_sub(at.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_spans_restarts_and_only_shrinks_with_later_contact() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contact");
        let mut contact = LastContact::open(&path);
        assert_eq!(contact.age(UnixMillis(5)), Duration::MAX);
        contact.renew(UnixMillis(1000)).unwrap();
        contact.renew(UnixMillis(900)).unwrap();
        let contact = LastContact::open(&path);
        assert_eq!(contact.age(UnixMillis(31_000)), Duration::from_secs(30));
        assert_eq!(contact.age(UnixMillis(1)), Duration::ZERO);
    }
}
