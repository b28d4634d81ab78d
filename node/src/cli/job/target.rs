//! Which node is asked, and which chain and account are used.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use futures::future::join_all;
use veil_node_chain::{AccountKeyError, Chain, ChainError, RpcUrls};
use veil_protocol_spec::{Address, ClusterId};

use crate::{
    admin::{self, AdminError},
    cli::{Exit, run::Failure},
    config::{AnyConfig, ChainSection, ConfigError, parse_address, process_environment},
    devnet::{DevnetError, DevnetFile},
    job_file::JobFileError,
    operator::OperatorError,
    role::{RoleError, account},
    status::{JobStatus, Status},
};

#[derive(Debug, Args)]
pub(super) struct Target {
    /// Configuration of an operator, or of a node on this machine.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of a running `veil devnet`, in place of a configuration.
    #[arg(long, value_name = "DIR")]
    devnet: Option<PathBuf>,
    /// A node's admin socket.
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// JSON-RPC endpoints of the chain, separated by commas.
    #[arg(long, value_name = "URL")]
    rpc: Option<RpcUrls>,
    /// The directory contract.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    contract: Option<Address>,
    /// The cluster.
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JobFailure {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    JobFile(#[from] JobFileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Devnet(#[from] DevnetError),
    #[error("which node? give --config, --devnet or --admin")]
    NoNode,
    #[error("which chain? give --config or --devnet, or --rpc, --contract and --cluster")]
    NoChain,
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Account(#[from] AccountKeyError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl Failure for JobFailure {
    fn exit(&self) -> (Exit, &'static str) {
        match self {
            Self::File { .. } | Self::Devnet(_) | Self::Config(ConfigError::Read { .. }) => {
                (Exit::Files, "files")
            }
            Self::JobFile(_) | Self::Operator(OperatorError::Job(_)) => (Exit::Usage, "job"),
            Self::Config(_) => (Exit::Usage, "config"),
            Self::NoNode | Self::NoChain => (Exit::Usage, "usage"),
            Self::Account(_) | Self::Role(_) => (Exit::Files, "keystore"),
            Self::Admin(_) | Self::Operator(OperatorError::Body { .. }) => (Exit::Failed, "node"),
            Self::Chain(_) | Self::Operator(_) => (Exit::Failed, "chain"),
        }
    }
}

/// Where to go.
pub(super) struct Access {
    sockets: Vec<PathBuf>,
    section: Option<ChainSection>,
    pub(super) devnet: Option<DevnetFile>,
}

impl Target {
    pub(super) fn resolve(&self) -> Result<Access, JobFailure> {
        let devnet = self.devnet.as_deref().map(DevnetFile::read).transpose()?;
        let file = devnet.as_ref().map(|devnet| &devnet.operator).or(self.config.as_ref());
        let config = file.map(|file| AnyConfig::load(file, &process_environment)).transpose()?;
        let sockets = match (&self.admin, &devnet, &config) {
            (Some(socket), ..) => vec![socket.clone()],
            (None, Some(devnet), _) => {
                devnet.nodes.iter().map(|node| node.admin_socket.clone()).collect()
            }
            (None, None, Some(config)) => vec![config.admin_socket()],
            (None, None, None) => Vec::new(),
        };
        let mut section = config.map(|config| config.chain().clone());
        if let (None, Some(rpc), Some(contract), Some(cluster)) =
            (&section, &self.rpc, self.contract, self.cluster)
        {
            section = Some(ChainSection::new(rpc.clone(), contract, cluster));
        } else if let Some(section) = &mut section {
            section.rpc = self.rpc.clone().unwrap_or_else(|| section.rpc.clone());
            section.contract = self.contract.unwrap_or(section.contract);
            section.cluster = self.cluster.unwrap_or(section.cluster);
        }
        Ok(Access { sockets, section, devnet })
    }
}

impl Access {
    /// The chain, with the account that is configured, if one is.
    pub(super) async fn chain(&self) -> Result<(Chain, ClusterId), JobFailure> {
        let section = self.section.as_ref().ok_or(JobFailure::NoChain)?;
        let config = section.connection(account(section)?);
        Ok((Chain::connect(config).await?, section.cluster))
    }

    pub(super) fn first_socket(&self) -> Result<&Path, JobFailure> {
        self.sockets.first().map(PathBuf::as_path).ok_or(JobFailure::NoNode)
    }

    /// What every node that answers says; one must.
    pub(super) async fn statuses(&self) -> Result<Vec<Status>, JobFailure> {
        let asked = self.sockets.iter().map(|socket| admin::get(socket, "/v1/status"));
        let (mut statuses, mut error) = (Vec::new(), JobFailure::NoNode);
        for answer in join_all(asked).await {
            match answer {
                Ok(status) => statuses.push(status),
                Err(refused) => error = refused.into(),
            }
        }
        if statuses.is_empty() { Err(error) } else { Ok(statuses) }
    }

    /// The jobs, from the first node that answers.
    pub(super) async fn jobs(&self) -> Result<Vec<JobStatus>, JobFailure> {
        let mut error = JobFailure::NoNode;
        for socket in &self.sockets {
            match admin::get(socket, "/v1/jobs").await {
                Ok(jobs) => return Ok(jobs),
                Err(refused) => error = refused.into(),
            }
        }
        Err(error)
    }
}
