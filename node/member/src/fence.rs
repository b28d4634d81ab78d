//! What keeps a member from signing a second time after its data directory went back in time.
//!
//! A member says one thing in each place because its journals say what it said. Without them, or with
//! older ones, it would say another: so a key share without journals does not start, and a data directory
//! that was restored passes a fence first.
//!
//! # Flow
//! 1. The ceremony makes them, empty, before its member signs anything: whoever has a share has journals.
//! 2. [`check_journals`] refuses a share without them.
//! 3. [`raise`] (`veil committee fence`, `veil share import`) says that the journals are lost, or older than what was sent.
//! 4. [`Fence::pass`] keeps the member from voting, opening and signing until the cluster is past all that
//!    it may have said.
//!
//! # Why slot L + 3 is safe
//! Let C be the last certificate that the member ever saw, so that it may have said something in slot C + 1
//! and in none after it. 2t+1 members signed C, each of them in slot C, so with the certificate of C - 1.
//! Any 2t+1 of the other members hold at least one honest one of these. So if 2t+1 others have brought
//! all their certificates, up to L, then L >= C - 1, and C + 1 <= L + 2. The member waits for the
//! certificate of slot L + 2. What others claim counts for nothing: certificates are verified.
//!
//! The counter of opened blocks may be lost with the journals. Only the others can say what it was: before
//! the fence goes down the member takes over the largest number that t+1 of 2t+1 others state.
//!
//! Whoever runs elsewhere under the same identity is not kept from signing by that. So the fence begins a new incarnation
//! of the member: the others listen to no earlier one, and one that is told of it ends ([`crate::MemberError::Superseded`]);
//! the fence stays up for as long as that takes.
//!
//! # State
//! `slots/fence`: `pending`, or the slot whose certificate is awaited.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use veil_node_api::progress::Progress;
use veil_node_ceremony::journals;
use veil_node_config::MemberConfig;
use veil_node_core::{epoch::ActiveEpoch, follow::Follower};
use veil_node_process::unix_now;
use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    durable::replace,
    journal::JournalError,
};
use veil_protocol_spec::Slot;

use crate::counter::{self, supported};

/// Between two rounds of asking the other members.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// The least time that a fence stays up: an earlier process of this member that is connected to anybody has been told within
/// a few probes of the membership, and has ended.
const LEAST_TIME: Duration = Duration::from_secs(30);
/// Slots after the last known certificate in which the member may have said something.
const SLOTS_IN_DOUBT: u64 = 2;
const PENDING: &str = "pending";

/// Why a member does not pass, or a fence is not raised.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// There is a key share, and nothing that says what was signed with it.
    #[error(
        "this data directory holds a key share, but not the journals that say what this member has signed ({}): without them it could sign a second time, and lose its stake. Start it with the directory that has them; if they are lost for good, `veil committee fence` lets it take part again as soon as the cluster is past everything that it may have signed",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoJournals(Vec<PathBuf>),
    /// There is nobody to ask.
    #[error(
        "a committee of one has nobody who could say what it has signed: its seat stays empty until the next epoch"
    )]
    Alone,
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The member runs.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FenceError {
    let path = path.to_owned();
    move |source| FenceError::Io { path, source }
}

fn fence_file(folder: &Path) -> PathBuf {
    folder.join("fence")
}

/// Refuses a key share without the journals, unless a fence is up, which makes up for them.
pub(crate) fn check_journals(folder: &Path) -> Result<(), FenceError> {
    if fence_file(folder).exists() {
        return Ok(journals::make(folder)?);
    }
    let missing = journals::missing(folder);
    if missing.is_empty() { Ok(()) } else { Err(FenceError::NoJournals(missing)) }
}

/// `veil committee fence`: the data directory's journals are lost, or older than what this member has sent.
/// Its member takes part again once the cluster is past that.
///
/// # Errors
/// [`FenceError`].
pub fn raise(config: &MemberConfig) -> Result<PathBuf, FenceError> {
    raise_in(&DataDir::lock(&config.node.data_dir)?)
}

/// The same in a data directory that nobody else uses.
pub(crate) fn raise_in(data: &DataDir) -> Result<PathBuf, FenceError> {
    data.begin_anew(unix_now().0)?;
    let folder = journals::folder(data.path());
    fs::create_dir_all(&folder).map_err(io_error(&folder))?;
    let path = fence_file(&folder);
    replace(&path, PENDING.as_bytes()).map_err(io_error(&path))?;
    Ok(path)
}

/// What a fence waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For the other members' certificates.
    Pending,
    /// For the certificate of this slot.
    Until(Slot),
}

/// A fence that is up.
#[derive(Debug)]
pub(crate) struct Fence {
    path: PathBuf,
    state: State,
}

impl Fence {
    /// The fence in `folder`, if there is one.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, FenceError> {
        let path = fence_file(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FenceError::Io { path, source }),
        };
        // Whatever else it says: the safe side is to ask again.
        let state = text.trim().parse().map_or(State::Pending, |slot| State::Until(Slot(slot)));
        Ok(Some(Self { path, state }))
    }

    /// Waits until the member can say nothing that contradicts what it said before, and takes the fence
    /// down.
    pub(crate) async fn pass(
        mut self,
        epoch: &ActiveEpoch,
        follower: &Follower,
        progress: &Progress,
    ) -> Result<(), FenceError> {
        let least = tokio::time::Instant::now() + LEAST_TIME;
        let needed = epoch.committee.signing_threshold().get();
        if epoch.committee.n() <= needed {
            return Err(FenceError::Alone);
        }
        tracing::warn!(
            "this member was fenced: it takes no part until the cluster is past all that it may have signed"
        );
        let until = loop {
            match self.state {
                State::Until(slot) => break slot,
                State::Pending => {
                    let answered = follower.ask_members().await;
                    if answered >= needed {
                        self.set(epoch.ledger.state().last_slot())?;
                        continue;
                    }
                    let waiting = format!(
                        "{needed} other members to bring their certificates; {answered} have"
                    );
                    progress.stage("fenced", [waiting]);
                    tokio::time::sleep(ASK_INTERVAL).await;
                }
            }
        };
        progress.stage("fenced", [format!("the certificate of slot {until}")]);
        let mut certificates = epoch.ledger.subscribe();
        // The ledger lives as long as the epoch, which is borrowed.
        let _ = certificates.wait_for(|state| state.last_slot() >= until).await;
        loop {
            let stated = follower.blocks_opened().await;
            let answered = stated.len();
            if let Some(counter) = supported(stated, epoch.committee) {
                counter::raise(self.folder(), counter)?;
                break;
            }
            let waiting = format!(
                "{needed} other members to say how many blocks they have opened; {answered} have"
            );
            progress.stage("fenced", [waiting]);
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        let waiting = "an earlier process of this member to end, if there is one".to_owned();
        progress.stage("fenced", [waiting]);
        tokio::time::sleep_until(least).await;
        fs::remove_file(&self.path).map_err(io_error(&self.path))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path) // the file was found in a folder
    }

    /// 2t+1 others have brought all their certificates, of which this is the last slot's.
    fn set(&mut self, last: Slot) -> Result<(), FenceError> {
        let until = Slot(last.0.saturating_add(SLOTS_IN_DOUBT));
        replace(&self.path, until.0.to_string().as_bytes()).map_err(io_error(&self.path))?;
        self.state = State::Until(until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_share_without_journals_is_refused_by_name() {
        let data = tempfile::tempdir().unwrap();
        let folder = journals::folder(data.path());
        journals::make(&folder).unwrap();
        check_journals(&folder).unwrap();
        fs::remove_file(folder.join(journals::NONCES)).unwrap();
        let text = check_journals(&folder).unwrap_err().to_string();
        assert!(text.contains(journals::NONCES) && text.contains("veil committee fence"), "{text}");
        assert!(!text.contains(journals::AGREEMENT), "{text}");
    }

    #[test]
    fn a_fence_makes_up_for_journals_and_stays_up_over_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let folder = journals::folder(data.path());
        assert!(Fence::find(&folder).unwrap().is_none());
        fs::create_dir_all(&folder).unwrap();
        fs::write(fence_file(&folder), PENDING).unwrap();
        check_journals(&folder).unwrap();
        assert!(folder.join(journals::NONCES).exists());
        let mut fence = Fence::find(&folder).unwrap().unwrap();
        assert_eq!(fence.state, State::Pending);
        // The last certificate that 2t+1 others have is of slot 7, so this member may have said something
        // in slot 9, and waits for its certificate.
        fence.set(Slot(7)).unwrap();
        let again = Fence::find(&folder).unwrap().unwrap();
        assert_eq!(again.state, State::Until(Slot(9)));
        fs::write(fence_file(&folder), "damaged").unwrap();
        assert_eq!(Fence::find(&folder).unwrap().unwrap().state, State::Pending);
    }
}
