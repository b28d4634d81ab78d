//! What can go wrong on the way.

use std::{io, path::PathBuf};

use veil_node_api::client::ClientError;
use veil_node_ceremony::CeremonyError;
use veil_node_chain::{AccountKeyError, ChainError, anvil::AnvilError};
use veil_node_config::{ConfigError, job_file::JobFileError};
use veil_node_containers::DockerError;
use veil_node_operator::{error::OperatorError, verify::VerifyError};
use veil_node_storage::{durable::WriteNewError, keystore::KeystoreError};

/// Why there is no cluster, or no placement.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// What was asked for cannot be had.
    #[error("{0}")]
    Options(String),
    /// The local chain.
    #[error(transparent)]
    Anvil(#[from] AnvilError),
    /// The contracts.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// An account's key.
    #[error(transparent)]
    Account(#[from] AccountKeyError),
    /// The ceremony's proposal.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// A secret on disk.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The record of the deployment.
    #[error(transparent)]
    Write(#[from] WriteNewError),
    /// A node's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine.
    #[error("{0}; `cargo xtask demo` sets one up")]
    Docker(#[from] DockerError),
    /// A node's answer.
    #[error(transparent)]
    Node(#[from] ClientError),
    /// The job.
    #[error(transparent)]
    Job(#[from] JobFileError),
    /// Submitting it.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The outcome does not hold.
    #[error("the outcome of slot {slot} does not verify: {source}")]
    Verify {
        /// Which.
        slot: veil_protocol_spec::Slot,
        /// What is wrong.
        source: VerifyError,
    },
    /// A node gave up.
    #[error("{node} ended: {why}; its log is {log}")]
    NodeEnded {
        /// Its short name.
        node: String,
        /// What it said.
        why: String,
        /// Where it says more.
        log: PathBuf,
    },
    /// Something took too long.
    #[error("{what} took longer than {seconds} s. Outstanding: {outstanding}. Logs: {logs}")]
    Deadline {
        /// What.
        what: &'static str,
        /// How long it might take.
        seconds: u64,
        /// Who or what has not come.
        outstanding: String,
        /// The folder with the logs.
        logs: PathBuf,
    },
    /// Told to stop.
    #[error("interrupted")]
    Interrupted,
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DevnetError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether files or the engine are to blame, not the protocol.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Keystore(_) | Self::Docker(_) | Self::Anvil(_))
    }
}
