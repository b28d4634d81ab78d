//! `veil ceremony propose|join|status|abort`: what they share.

pub(super) mod abort;
pub(super) mod join;
pub(super) mod propose;
pub(super) mod status;

use std::path::PathBuf;

use clap::Args;
use veil_node_p2p::NetworkError;
use veil_node_storage::{data_dir::DataDirError, keystore::Passphrase};
use veil_protocol_spec::identity::SecretIdentity;

use super::{Exit, node::role_exit};
use crate::{
    ceremony::{CeremonyError, ChainCommitPoint, CommitPointError},
    chain::{Chain, ChainError},
    config::{ConfigError, MemberConfig, process_environment},
    role::{self, RoleError},
};

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The member's configuration file.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE", default_value = "member.toml")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why a command ended before its work was done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("{path}: {source}")]
    Files { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(
        "the identity {0} is not registered as a member of this cluster: `veil chain register --role member` does that"
    )]
    NotRegistered(veil_protocol_spec::PublicIdentity),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
}

impl From<CommitPointError> for Failure {
    fn from(error: CommitPointError) -> Self {
        Self::Ceremony(error.into())
    }
}

impl super::run::Failure for Failure {
    fn exit(&self) -> (Exit, &'static str) {
        match self {
            Self::Config(ConfigError::Read { .. }) | Self::Files { .. } => (Exit::Files, "files"),
            Self::Config(_) => (Exit::Usage, "usage"),
            Self::Role(error) => match role_exit(error) {
                Exit::Usage => (Exit::Usage, "usage"),
                exit => (exit, "keystore"),
            },
            Self::DataDir(_) => (Exit::Files, "data_dir"),
            Self::Chain(_) | Self::NotRegistered(_) => (Exit::Failed, "chain"),
            Self::Network(_) => (Exit::Failed, "network"),
            Self::Ceremony(error) => match error {
                CeremonyError::DataDir(_)
                | CeremonyError::Journal(_)
                | CeremonyError::Keystore(_)
                | CeremonyError::Files { .. } => (Exit::Files, "files"),
                CeremonyError::Chain(_) => (Exit::Failed, "chain"),
                CeremonyError::Preflight(_) => (Exit::Failed, "preflight"),
                CeremonyError::Proposal(_)
                | CeremonyError::Setup(_)
                | CeremonyError::OutOfDate { .. } => (Exit::Failed, "proposal"),
                CeremonyError::Aborted(_) => (Exit::Failed, "aborted"),
                CeremonyError::Interrupted => (Exit::Failed, "interrupted"),
                _ => (Exit::Failed, "ceremony"),
            },
        }
    }
}

fn run_async(common: &Common, command: impl Future<Output = Result<Exit, Failure>>) -> Exit {
    super::run::run(common.json, command)
}

fn load(common: &Common) -> Result<MemberConfig, Failure> {
    Ok(MemberConfig::load(&common.config, &process_environment)?)
}

fn passphrase(config: &MemberConfig) -> Result<Passphrase, Failure> {
    Ok(role::passphrase(&config.node, &process_environment)?)
}

fn identity(config: &MemberConfig, passphrase: &Passphrase) -> Result<SecretIdentity, Failure> {
    Ok(role::open_identity(&config.node, passphrase)?)
}

async fn connect(config: &MemberConfig) -> Result<(Chain, ChainCommitPoint), Failure> {
    let chain = Chain::connect(config.chain.connection(role::account(&config.chain)?)).await?;
    let commit_point = ChainCommitPoint::new(chain.clone(), config.chain.cluster);
    Ok((chain, commit_point))
}
