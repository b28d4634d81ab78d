//! `veil ceremony propose|join|status|abort`: what they share.

pub(super) mod abort;
pub(super) mod join;
pub(super) mod propose;
pub(super) mod status;

use std::{env::VarError, fs, path::PathBuf};

use clap::Args;
use veil_protocol_spec::identity::SecretIdentity;
use zeroize::Zeroizing;

use super::{Exit, complain};
use crate::{
    ceremony::{CeremonyError, ChainCommitPoint, CommitPointError},
    chain::{AccountKey, AccountKeyError, Chain, ChainConfig, ChainError},
    config::{ConfigError, MemberConfig, process_environment},
    driver::DataDirError,
    keystore::{KeystoreError, Passphrase, read_identity},
    p2p::NetworkError,
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
    Keystore(#[from] KeystoreError),
    #[error(
        "the passphrase is missing: set node.passphrase_file, VEIL_PASSPHRASE_FILE or VEIL_PASSPHRASE"
    )]
    NoPassphrase,
    #[error(transparent)]
    Account(#[from] AccountKeyError),
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
    #[error("the identity has the peer id {found}, but node.peer_id says {expected}")]
    OtherPeer { expected: String, found: String },
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

impl Failure {
    const fn exit(&self) -> (Exit, &'static str) {
        match self {
            Self::Config(ConfigError::Read { .. }) | Self::Files { .. } => (Exit::Files, "files"),
            Self::Config(_) | Self::NoPassphrase | Self::OtherPeer { .. } => (Exit::Usage, "usage"),
            Self::Keystore(_) | Self::Account(_) => (Exit::Files, "keystore"),
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

    fn report(&self, json: bool) -> Exit {
        let (exit, kind) = self.exit();
        complain(json, kind, self);
        exit
    }
}

/// Runs a command on a runtime of its own.
fn run_async(common: &Common, command: impl Future<Output = Result<Exit, Failure>>) -> Exit {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => {
            let failure = Failure::Files { path: PathBuf::from("the tokio runtime"), source };
            return failure.report(common.json);
        }
    };
    let exit = runtime.block_on(command).unwrap_or_else(|failure| failure.report(common.json));
    // What computes in the background has nothing left to tell.
    runtime.shutdown_background();
    exit
}

fn load(common: &Common) -> Result<MemberConfig, Failure> {
    Ok(MemberConfig::load(&common.config, &process_environment)?)
}

fn passphrase(config: &MemberConfig) -> Result<Passphrase, Failure> {
    match std::env::var("VEIL_PASSPHRASE") {
        Ok(text) if !text.is_empty() => return Ok(Passphrase::new(text)),
        Ok(_) | Err(VarError::NotPresent | VarError::NotUnicode(_)) => {}
    }
    let file = config.node.passphrase_file.as_ref().ok_or(Failure::NoPassphrase)?;
    Ok(Passphrase::from_file(file)?)
}

fn identity(config: &MemberConfig, passphrase: &Passphrase) -> Result<SecretIdentity, Failure> {
    let path = config.node.identity_file();
    let identity = read_identity(&path, passphrase)?;
    if let Some(expected) = &config.node.peer_id {
        let found = crate::p2p::peer_id(&identity.public());
        let found = found.map_err(|_| KeystoreError::Identity(path))?.to_string();
        if found != *expected {
            return Err(Failure::OtherPeer { expected: expected.clone(), found });
        }
    }
    Ok(identity)
}

fn account(config: &MemberConfig) -> Result<Option<AccountKey>, Failure> {
    if let Some(key) = AccountKey::from_environment()? {
        return Ok(Some(key));
    }
    let Some(keystore) = &config.chain.keystore else { return Ok(None) };
    let passphrase = match &config.chain.keystore_passphrase_file {
        Some(path) => Zeroizing::new(
            fs::read_to_string(path)
                .map_err(|source| Failure::Files { path: path.clone(), source })?,
        ),
        None => Zeroizing::default(),
    };
    let line = passphrase.lines().next().unwrap_or_default().trim();
    Ok(Some(AccountKey::from_keystore(keystore, line)?))
}

async fn connect(config: &MemberConfig) -> Result<(Chain, ChainCommitPoint), Failure> {
    let mut chain = ChainConfig::new(config.chain.rpc.clone(), config.chain.contract);
    chain.key = account(config)?;
    let chain = Chain::connect(chain).await?;
    let commit_point = ChainCommitPoint::new(chain.clone(), config.chain.cluster);
    Ok((chain, commit_point))
}
