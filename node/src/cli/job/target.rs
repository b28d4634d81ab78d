//! Which node is asked, and which chain and account are used.

use std::path::PathBuf;

use clap::Args;
use futures::future::join_all;
use veil_node_api::client::Client;
use veil_node_api::status::{JobStatus, Status};
use veil_node_chain::{Chain, ChainConfig, ChainError, Draft, RpcUrls};
use veil_node_chain_commands::arguments::Drafting;
use veil_node_config::{AnyConfig, ChainSection, parse_address, process_environment};
use veil_node_core::lifecycle::account;
use veil_node_devnet::DevnetFile;
use veil_node_operator::submission;
use veil_node_terminal::waiting;
use veil_protocol_spec::{Address, ClusterId};

use crate::cli::{asking::Asking, failure::Failure};

#[derive(Debug, Args)]
pub(in crate::cli) struct Target {
    /// Configuration of an operator, or of a node on this machine.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of a running `veil devnet`, in place of a configuration.
    #[arg(long, value_name = "DIR")]
    devnet: Option<PathBuf>,
    /// JSON-RPC endpoints of the chain, separated by commas.
    #[arg(long, value_name = "URL")]
    rpc: Option<RpcUrls>,
    /// The directory contract.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    contract: Option<Address>,
    /// The cluster.
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    drafting: Drafting,
    /// Print one JSON object.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Whose jobs they are.
#[derive(Debug, Args)]
pub(in crate::cli) struct ForOperator {
    /// The operator that has delegated this to the account (`veil operator delegate`), whose job it is; otherwise the
    /// account's own.
    #[arg(long = "for", env = "VEIL_OPERATOR", value_name = "OPERATOR", value_parser = parse_address)]
    operator: Option<Address>,
}

impl ForOperator {
    pub(super) fn of(&self, chain: &Chain) -> Result<Address, Failure> {
        let operator = self.operator.or_else(|| chain.account());
        operator.ok_or_else(|| ChainError::NoAccount.into())
    }
}

fn no_chain() -> Failure {
    Failure::usage("which chain? give --config or --devnet, or --rpc, --contract and --cluster")
}

/// Where to go.
pub(in crate::cli) struct Access {
    /// The nodes to ask, or why there is none: not every command asks one.
    nodes: Result<Vec<Client>, Failure>,
    section: Option<ChainSection>,
    draft: Option<Draft>,
    pub(super) devnet: Option<DevnetFile>,
}

impl Target {
    pub(in crate::cli) fn resolve(&self, asking: &Asking) -> Result<Access, Failure> {
        let devnet = self.devnet.as_deref().map(DevnetFile::read).transpose()?;
        let file = devnet.as_ref().map(|devnet| &devnet.operator).or(self.config.as_ref());
        let config = file.map(|file| AnyConfig::load(file, &process_environment)).transpose()?;
        let nodes = match &devnet {
            Some(devnet) if !asking.is_given() => {
                let sockets = devnet.nodes.iter().map(|node| node.admin_socket.clone());
                Ok(sockets.map(Client::of_socket).collect())
            }
            _ => asking.client(config.as_ref().map(AnyConfig::node)).map(|node| vec![node]),
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
        Ok(Access { nodes, section, draft: self.drafting.draft(), devnet })
    }
}

impl Access {
    /// The chain, with the account that is configured, if one is.
    pub(in crate::cli) async fn chain(&self) -> Result<(Chain, ClusterId), Failure> {
        let section = self.section.as_ref().ok_or_else(no_chain)?;
        waiting::on("connecting to the chain");
        let key = if self.draft.is_some() { None } else { account(section)? };
        let config = ChainConfig { draft: self.draft, ..section.connection(key) };
        let chain = Chain::connect(config).await?;
        waiting::on("reading the contracts");
        Ok((chain, section.cluster))
    }

    fn nodes(&self) -> Result<&[Client], Failure> {
        self.nodes.as_deref().map_err(Clone::clone)
    }

    /// A node to read from.
    pub(in crate::cli) fn first_node(&self) -> Result<&Client, Failure> {
        self.nodes()?.first().ok_or_else(|| Failure::usage("the network has no node"))
    }

    /// A node that takes jobs of the operator.
    pub(super) async fn session(
        &self,
        chain: &Chain,
        cluster: ClusterId,
        operator: Address,
    ) -> Result<Client, Failure> {
        let node = self.first_node()?;
        waiting::on(format_args!("logging in at the node at {}", node.address()));
        Ok(submission::log_in(chain, cluster, node, operator).await?)
    }

    /// What every node that answers says; one must.
    pub(in crate::cli) async fn statuses(&self) -> Result<Vec<Status>, Failure> {
        let nodes = self.nodes()?;
        match nodes {
            [node] => waiting::on(format_args!("waiting for the node at {}", node.address())),
            nodes => waiting::on(format_args!("waiting for {} nodes", nodes.len())),
        }
        let asked = nodes.iter().map(|node| node.get("/v1/status"));
        let (mut statuses, mut error) = (Vec::new(), None);
        for answer in join_all(asked).await {
            match answer {
                Ok(status) => statuses.push(status),
                Err(refused) => error = Some(refused),
            }
        }
        match error {
            Some(error) if statuses.is_empty() => Err(error.into()),
            _ => Ok(statuses),
        }
    }

    /// The jobs, from the first node that answers.
    pub(super) async fn jobs(&self) -> Result<Vec<JobStatus>, Failure> {
        let first = self.first_node()?;
        waiting::on(format_args!("waiting for the jobs that the node at {} has", first.address()));
        let mut jobs = first.get("/v1/jobs").await;
        for node in self.nodes()?.iter().skip(1) {
            if jobs.is_ok() {
                break;
            }
            waiting::on(format_args!(
                "waiting for the jobs that the node at {} has",
                node.address()
            ));
            jobs = node.get("/v1/jobs").await;
        }
        Ok(jobs?)
    }
}
