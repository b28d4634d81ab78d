//! A member's part in the key ceremony, between processes.
//!
//! # Roles
//! - the cluster's admin proposes an attempt on chain ([`propose`]);
//! - each member of its roster joins ([`join`]): checks, takes part, publishes;
//! - the chain ([`CommitPointChain`]) decides: published, aborted or expired.
//!
//! # Flow of [`join`]
//! 1. The proposal: for this cluster, this member and these parameters, and not out of date.
//! 2. Pre-flight ([`Preflight`]): everybody is reachable, runs the same build, has the same time, and
//!    room on disk and in memory. Left out when the attempt goes on after a restart.
//! 3. The ceremony's machine. Its seed is on disk, encrypted, before anything is sent.
//! 4. After FINISH: the reference string, the signatures of all members under one publication, the
//!    new group's proof of possession, the publication.
//! 5. The chain's decision goes to the machine; the key is valid or its share is destroyed.
//!
//! # Restart
//! [`join`] again, with the same data directory, at any moment: it goes on where the records end.
//!
//! # State
//! `ceremony/epoch-<e>-attempt-<a>` in the data directory; [`FinishedKey`] in
//! `ceremony/epoch-<e>.json` once there is a key; `ceremony/status.json` for `status`.
//!
//! # Caveats
//! A member that is away longer than a round lasts makes the others abort: the next attempt has its
//! own number, and begins anew.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tokio_util::sync::CancellationToken;
use veil_committee::{
    frost::{self, SigningError, SigningSchedule},
    key_share::KeyShareError,
};
use veil_keygen_ceremony::{
    machine::{AbortReport, ResumeError},
    setup::{SetupError, Timing},
};
use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    journal::JournalError,
    keystore::{KeystoreError, Passphrase},
};
use veil_protocol_spec::{
    Attempt, Epoch, domain, identity::SecretIdentity, scheduling::ClusterScope,
};

use crate::driver::{DriverError, Transports};

mod attempt;
mod commit_point;
mod exchange;
mod folder;
mod keeper;
mod on_chain;
mod preflight;
mod propose;
mod publish;
mod reference_string;
mod single_party;
mod status;
#[cfg(test)]
mod tests;

pub use commit_point::{
    AttemptStatus, CommitPointChain, CommitPointError, NewAttempt, Proposal, Publication,
};
pub use folder::FinishedKey;
pub use on_chain::ChainCommitPoint;
pub use preflight::{
    Answer, Facts, Needs, Preflight, PreflightFault, PreflightRow, build_fingerprint, own_facts,
};
pub use propose::{ProposeOptions, Proposed, abort, erase_failed_attempt, propose};
pub use reference_string::{ReferenceString, ReferenceStringError, ReferenceStringSource};
pub use single_party::SinglePartyReference;
pub use status::{CeremonyStatus, StatusBoard, read_status, status_file, unix_seconds};

/// How long a member waits for what.
#[derive(Clone, Copy, Debug)]
pub struct CeremonyTiming {
    /// Of the ceremony's machine: rounds, and before it asks again.
    pub machine: Timing,
    /// For everybody's answer to the pre-flight questions.
    pub preflight: Duration,
    /// Between two looks at the chain.
    pub poll: Duration,
    /// Between the members' turns to publish.
    pub publish_backoff: Duration,
    /// Of the proof of possession.
    pub signing: SigningSchedule,
    /// For the last messages to get out at the end.
    pub drain: Duration,
    /// For the next attempt to be proposed after one has failed.
    pub next_attempt: Duration,
}

impl Default for CeremonyTiming {
    fn default() -> Self {
        Self {
            machine: Timing { round: 900_000, retry: 5_000 },
            preflight: Duration::from_secs(300),
            poll: Duration::from_secs(2),
            publish_backoff: Duration::from_secs(10),
            signing: SigningSchedule {
                rotation: 10_000,
                timing: frost::Timing { commit: 10_000, share: 10_000, max_attempts: 8 },
                restarts: 0,
            },
            drain: Duration::from_secs(10),
            next_attempt: Duration::from_secs(600),
        }
    }
}

/// What a member is told.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The member's key.
    pub identity: SecretIdentity,
    /// Encrypts what is secret on disk.
    pub passphrase: Passphrase,
    /// Chain, contract and cluster.
    pub scope: ClusterScope,
    /// Name of the FHE parameter set that this member takes part with, and no other.
    pub parameters: String,
    /// Sign a publication whose reference string one party made. **Insecure**: that party can forge
    /// telemetry proofs, and learn bits of the key with them.
    pub insecure_reference_string: bool,
    /// How long it waits for what.
    pub timing: CeremonyTiming,
}

/// A member, ready to take part.
pub struct Member<T: Transports> {
    /// What it was told.
    pub options: MemberOptions,
    /// Its data directory, locked.
    pub data: Arc<DataDir>,
    /// The network.
    pub transports: T,
    /// The chain.
    pub chain: Arc<dyn CommitPointChain>,
    /// Where the reference string comes from.
    pub reference: Arc<dyn ReferenceStringSource>,
    /// Shows how far it is.
    pub status: StatusBoard,
}

/// What ties a ceremony's messages to one deployment.
#[must_use]
pub fn ceremony_context(scope: &ClusterScope) -> [u8; 32] {
    let parts: [&[u8]; 3] =
        [&scope.chain_id.0.to_le_bytes(), scope.contract.as_bytes(), scope.cluster.as_bytes()];
    domain::hash_parts(domain::CEREMONY_CONTEXT, &parts)
}

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
        "the attempt made no key: {}; its share was destroyed. `veil ceremony propose` starts the next one",
        .0.reason
    )]
    Aborted(Box<AbortReport>),
    /// There is a key that this member has no share of.
    #[error(
        "the epoch's key was published, but this data directory holds no part of that ceremony: use the directory that took part, or restore it from backup"
    )]
    PublishedWithoutMe,
    /// The chain has another transcript than this member.
    #[error(
        "the chain published another transcript than this member signed; do not use the key share, and keep the data directory as evidence"
    )]
    OtherTranscript,
    /// FINISH was signed, but the share is not there.
    #[error(
        "FINISH was signed but the key share is missing: restore the data directory from backup"
    )]
    NoKeyShare,
    /// The key share.
    #[error(transparent)]
    KeyShare(KeyShareError),
    /// A second publication for one attempt.
    #[error(
        "{0} holds another publication that this member signed in this attempt; it signs no second one"
    )]
    OtherPublication(PathBuf),
    /// The publication's reference string was made by one party.
    #[error(
        "the reference string was made by one party, which could forge proofs with it; this member signs such a publication only with committee.insecure_reference_string = true"
    )]
    InsecureReferenceString,
    /// The key is published, and what its telemetry proofs rest on is not here.
    #[error(
        "the key is published, but the reference string {0} is missing or damaged (see the log); remove the file and run `veil ceremony join` again while participant 1 is there"
    )]
    NoReferenceString(PathBuf),
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

/// Takes part in the attempt that is proposed, and, if that makes no key, in the following ones, up
/// to `attempts` in all.
///
/// # Errors
/// [`CeremonyError`] of the last attempt.
pub async fn join<T: Transports>(
    member: &Member<T>,
    attempts: u32,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let following = member.status.subscribe();
    let file = tokio::spawn(status::keep_file(following, member.data.path().to_owned()));
    let result = join_attempts(member, attempts, stop).await;
    file.abort();
    let last = member.status.now();
    let path = status_file(member.data.path());
    if let Err(error) = status::write(&path, &last) {
        tracing::warn!(%error, "the status file cannot be written");
    }
    result
}

async fn join_attempts<T: Transports>(
    member: &Member<T>,
    attempts: u32,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let mut left = attempts.max(1);
    let mut proposal = latest(member).await?;
    loop {
        let key = FinishedKey::load(member.data.path(), proposal.epoch);
        let path = || member.data.path().join("ceremony");
        let key = key.map_err(|source| CeremonyError::Files { path: path(), source })?;
        if let Some(key) = key.filter(|key| key.attempt == proposal.attempt) {
            return Ok(key);
        }
        let error = match attempt::run(member, &proposal, stop).await {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        left -= 1;
        if left == 0 || !error.ends_attempt() {
            return Err(error);
        }
        tracing::warn!(%error, left, "waiting for the next attempt");
        let next = next_attempt(member, &proposal);
        proposal = tokio::select! {
            next = tokio::time::timeout(member.options.timing.next_attempt, next) => match next {
                Ok(next) => next,
                Err(_) => return Err(error),
            },
            () = stop.cancelled() => return Err(CeremonyError::Interrupted),
        };
    }
}

async fn latest<T: Transports>(member: &Member<T>) -> Result<Proposal, CeremonyError> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_times(5)
        .with_jitter();
    Ok((|| member.chain.latest()).retry(backoff).when(CommitPointError::is_transient).await?)
}

async fn next_attempt<T: Transports>(member: &Member<T>, failed: &Proposal) -> Proposal {
    loop {
        tokio::time::sleep(member.options.timing.poll).await;
        match member.chain.latest().await {
            Ok(next) if (next.epoch, next.attempt) > (failed.epoch, failed.attempt) => return next,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the chain names no next attempt"),
        }
    }
}
