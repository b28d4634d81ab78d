//! Why a member has no key, or not yet.

use std::{io, path::PathBuf};

use veil_committee::{frost::SigningError, key_share::KeyShareError};
use veil_keygen_ceremony::{
    machine::{AbortReport, ResumeError},
    setup::SetupError,
};
use veil_node_driver::DriverError;
use veil_node_storage::{data_dir::DataDirError, journal::JournalError, keystore::KeystoreError};
use veil_protocol_spec::{Attempt, Epoch};

use crate::{
    commit_point::{AttemptStatus, CommitPointError},
    preflight::Preflight,
    reference_string::ReferenceStringError,
};

/// Why a member has no key, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A secret, or a file beside it.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// Other files.
    #[error("{path}: {source}")]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The chain.
    #[error(transparent)]
    Chain(#[from] CommitPointError),
    /// The proposal is not one to take part in.
    #[error("the proposed ceremony is refused: {0}")]
    Proposal(String),
    /// The setup that the proposal gives.
    #[error("the proposed ceremony is refused: {0}")]
    Setup(#[from] SetupError),
    /// It is decided already.
    #[error(
        "attempt {attempt} of epoch {epoch} is over ({status:?}); the cluster's admin runs `veil ceremony propose` for the next one"
    )]
    OutOfDate {
        /// The epoch.
        epoch: Epoch,
        /// The attempt.
        attempt: Attempt,
        /// Where it stands.
        status: AttemptStatus,
    },
    /// The folder belongs to another proposal with the same numbers.
    #[error(
        "{0} is of another ceremony with the same epoch and attempt (the chain was set back, or the roster changed); move it away to take part in this one"
    )]
    OtherProposal(PathBuf),
    /// Somebody cannot take part.
    #[error("not everybody is ready; nothing was started:\n{0}")]
    Preflight(Preflight),
    /// The records do not allow to go on.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The driver stopped.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The attempt made no key.
    #[error(
        "the attempt made no key: {}; its share is void. `veil ceremony propose` starts the next one",
        .0.reason
    )]
    Aborted(Box<AbortReport>),
    /// There is a key that this member has no share of.
    #[error(
        "the epoch's key was published, but this data directory holds no part of that ceremony: use the directory that took part; an older copy of it would vote a second time. If it is lost, `veil share import` takes the share from a backup; without one this seat stays empty until the next epoch"
    )]
    PublishedWithoutMe,
    /// The chain has another transcript than this member.
    #[error(
        "the chain published another transcript than this member signed; do not use the key share, and keep the data directory as evidence"
    )]
    OtherTranscript,
    /// The key share.
    #[error(transparent)]
    KeyShare(KeyShareError),
    /// A second publication for one attempt.
    #[error(
        "{0} holds another publication that this member signed in this attempt; it signs no second one"
    )]
    OtherPublication(PathBuf),
    /// It cannot be made or kept.
    #[error(transparent)]
    ReferenceString(ReferenceStringError),
    /// The proof of possession.
    #[error("the proof of possession: {0}")]
    Signing(#[from] SigningError),
    /// Told to stop.
    #[error("stopped before the attempt was decided; `veil ceremony join` goes on with it")]
    Interrupted,
}

impl CeremonyError {
    /// Whether the attempt is over while the next one may succeed.
    #[must_use]
    pub const fn ends_attempt(&self) -> bool {
        matches!(self, Self::Aborted(_) | Self::OutOfDate { .. })
    }
}
