//! Which node is asked, and which chain and account are used.

use std::path::{Path, PathBuf};

use clap::Args;
use futures::future::join_all;
use veil_node_chain::{Chain, RpcUrls};
use veil_node_config::{AnyConfig, ChainSection, parse_address, process_environment};
use veil_node_core::{
    admin,
    lifecycle::account,
    status::{JobStatus, Status},
};
use veil_protocol_spec::{Address, ClusterId};

use crate::{cli::failure::Failure, devnet::DevnetFile};

#[derive(Debug, Args)]
pub(in crate::cli) struct Target {
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
    pub(in crate::cli) json: bool,
}

fn no_node() -> Failure {
    Failure::usage("which node? give --config, --devnet or --admin")
}

fn no_chain() -> Failure {
    Failure::usage("which chain? give --config or --devnet, or --rpc, --contract and --cluster")
}

/// Where to go.
pub(in crate::cli) struct Access {
    sockets: Vec<PathBuf>,
    section: Option<ChainSection>,
    pub(super) devnet: Option<DevnetFile>,
}

impl Target {
    pub(in crate::cli) fn resolve(&self) -> Result<Access, Failure> {
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
    pub(in crate::cli) async fn chain(&self) -> Result<(Chain, ClusterId), Failure> {
        let section = self.section.as_ref().ok_or_else(no_chain)?;
        let config = section.connection(account(section)?);
        Ok((Chain::connect(config).await?, section.cluster))
    }

    pub(in crate::cli) fn first_socket(&self) -> Result<&Path, Failure> {
        self.sockets.first().map(PathBuf::as_path).ok_or_else(no_node)
    }

    /// What every node that answers says; one must.
    pub(super) async fn statuses(&self) -> Result<Vec<Status>, Failure> {
        let asked = self.sockets.iter().map(|socket| admin::get(socket, "/v1/status"));
        let (mut statuses, mut error) = (Vec::new(), no_node());
        for answer in join_all(asked).await {
            match answer {
                Ok(status) => statuses.push(status),
                Err(refused) => error = refused.into(),
            }
        }
        if statuses.is_empty() { Err(error) } else { Ok(statuses) }
    }

    /// The jobs, from the first node that answers.
    pub(super) async fn jobs(&self) -> Result<Vec<JobStatus>, Failure> {
        let mut error = no_node();
        for socket in &self.sockets {
            match admin::get(socket, "/v1/jobs").await {
                Ok(jobs) => return Ok(jobs),
                Err(refused) => error = refused.into(),
            }
        }
        Err(error)
    }
}
