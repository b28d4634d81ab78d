//! What a member that takes part says of itself: for progress, and in a file for
//! `veil ceremony status`, which may be asked by another process or after a crash.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use veil_node_process::unix_now;
use veil_node_storage::durable::replace;
use veil_protocol_spec::{Attempt, Epoch, ParticipantIndex};

/// A participant that a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// Who.
    pub participant: ParticipantIndex,
    /// Since when, Unix seconds.
    pub since: u64,
}

/// Where one member stands in an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeremonyStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// The attempt.
    pub attempt: Attempt,
    /// This participant, once the roster is known.
    pub participant: Option<ParticipantIndex>,
    /// The step: `preflight`, a round of the ceremony, `publication`, `possession`, `publish`,
    /// `commit-point`, `completed`, `aborted`.
    pub step: String,
    /// Pieces of the step that are done.
    pub done: u32,
    /// Pieces of the step.
    pub total: u32,
    /// Participants that the step waits for.
    pub outstanding: Vec<Outstanding>,
    /// When the step began, Unix seconds.
    pub since: u64,
    /// Until when the key may be published, Unix seconds on the chain's clock.
    pub deadline: u64,
    /// How it ended, if it did.
    pub outcome: Option<String>,
}

/// Shows a member's status.
#[derive(Clone, Debug)]
pub struct CeremonyProgress(Arc<watch::Sender<CeremonyStatus>>);

impl Default for CeremonyProgress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(CeremonyStatus::default())))
    }
}

impl CeremonyProgress {
    /// Follows the status.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<CeremonyStatus> {
        self.0.subscribe()
    }

    /// The status now.
    #[must_use]
    pub fn now(&self) -> CeremonyStatus {
        self.0.borrow().clone()
    }

    pub(crate) fn begin(
        &self,
        epoch: Epoch,
        attempt: Attempt,
        participant: ParticipantIndex,
        deadline: u64,
    ) {
        self.0.send_replace(CeremonyStatus {
            epoch,
            attempt,
            participant: Some(participant),
            deadline,
            since: unix_seconds(),
            ..CeremonyStatus::default()
        });
    }

    pub(crate) fn step(
        &self,
        step: &str,
        (done, total): (u32, u32),
        outstanding: Vec<ParticipantIndex>,
    ) {
        self.0.send_if_modified(|status| {
            let new_step = status.step != step;
            let before = status.outstanding.iter().map(|of| &of.participant);
            if !new_step && (status.done, status.total) == (done, total) && before.eq(&outstanding)
            {
                return false;
            }
            // Who was outstanding in the step before has sent what that one waited for.
            let known: &[Outstanding] = if new_step { &[] } else { status.outstanding.as_slice() };
            let outstanding = outstanding.into_iter().map(|participant| {
                let known = known.iter().find(|of| of.participant == participant);
                known.copied().unwrap_or(Outstanding { participant, since: unix_seconds() })
            });
            let outstanding = outstanding.collect();
            if new_step {
                step.clone_into(&mut status.step);
                status.since = unix_seconds();
            }
            (status.done, status.total, status.outstanding) = (done, total, outstanding);
            true
        });
    }

    pub(crate) fn end(&self, outcome: &str) {
        self.0.send_modify(|status| {
            status.outcome = Some(outcome.to_owned());
            status.outstanding.clear();
        });
    }
}

/// Seconds since 1970 by this machine's clock.
#[must_use]
pub fn unix_seconds() -> u64 {
    unix_now().0 / 1000
}

/// The status file of a data directory.
#[must_use]
pub fn status_file(data_dir: &Path) -> PathBuf {
    data_dir.join("ceremony").join("status.json")
}

/// Reads what the member in this data directory said last.
///
/// # Errors
/// What the system says; `InvalidData` for a file that is not a status.
pub fn read_status(data_dir: &Path) -> io::Result<CeremonyStatus> {
    let text = fs::read_to_string(status_file(data_dir))?;
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// Writes the status to its file whenever it changes, a few times a second at most, until the board
/// is gone. The file is information only: that it cannot be written stops nothing.
pub(crate) async fn keep_file(mut status: watch::Receiver<CeremonyStatus>, data_dir: PathBuf) {
    const WRITE_INTERVAL: Duration = Duration::from_millis(300);
    let path = status_file(&data_dir);
    loop {
        let now = status.borrow_and_update().clone();
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &now)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the status file cannot be written");
        }
        tokio::time::sleep(WRITE_INTERVAL).await;
        if status.changed().await.is_err() {
            return;
        }
    }
}

pub(crate) fn write(path: &Path, status: &CeremonyStatus) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(status).map_err(io::Error::from)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    replace(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_outstanding_is_so_since_the_first_time() {
        let progress = CeremonyProgress::default();
        let one = |j| ParticipantIndex::new(j).unwrap();
        progress.step("deal", (1, 4), vec![one(2), one(3), one(4)]);
        progress.0.send_modify(|status| status.outstanding.iter_mut().for_each(|of| of.since = 7));
        progress.step("deal", (2, 4), vec![one(3), one(4)]);
        assert!(progress.now().outstanding.iter().all(|of| of.since == 7));
        assert_eq!(progress.now().outstanding.len(), 2);
        progress.step("confirm", (1, 4), vec![one(3)]);
        assert!(progress.now().outstanding[0].since > 7, "it has dealt");
    }
}
