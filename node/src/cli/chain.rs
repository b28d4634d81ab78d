//! `veil chain`.

mod arguments;
mod status;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use alloy::primitives::keccak256;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use veil_protocol_spec::{Address, ClusterId, Committee, PeerIdHash, scheduling::Label};

use super::{
    Exit,
    identity::{IdentityArguments, IdentityError},
    run,
};
use crate::chain::{
    AccountKeyError, Chain, ChainError, ClusterSettings, NodeRegistration, Rights, Roles,
};
use arguments::{ClusterArgument, Connection, Contract};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Deploy the contracts to the chain behind --rpc, and write where they are.
    Deploy(Deploy),
    /// Register a cluster; this account becomes its admin.
    Cluster(NewCluster),
    /// Admit a node, under its operator's account, to the clusters of this account.
    Approve(Approve),
    /// Let an account submit jobs, or no longer.
    Grant(Grant),
    /// Register a node of this account, proving possession of its identity.
    Register(Register),
    /// Take a node out of the cluster.
    Deregister(Deregister),
    /// Show the contracts, and a cluster with its nodes, key and last certificate.
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// The deployment file to write; nothing is overwritten.
    #[arg(long, value_name = "FILE", default_value = "veil-deployment.json")]
    out: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct NewCluster {
    /// Tells the clusters of one admin apart.
    #[arg(long, default_value = "default")]
    name: String,
    /// Size of the committee: 4, 7, 10 or 13, or 1 for development.
    #[arg(long, default_value = "4", value_parser = parse_committee)]
    committee: Committee,
    /// Admit workers only with the admin's approval, as members always are.
    #[arg(long)]
    closed: bool,
    /// Longest time between slots while work is pending, in milliseconds.
    #[arg(long, default_value = "10000", value_name = "MS")]
    slot_millis: u64,
    /// File with the scheduling policy.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The node's peer id hash, as `veil identity show` prints it.
    #[arg(long, value_name = "HASH")]
    peer: PeerIdHash,
    /// The account that may register it.
    #[arg(long, value_name = "ADDRESS", value_parser = arguments::parse_address)]
    operator: Address,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Grant {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// The account.
    #[arg(long, value_name = "ADDRESS", value_parser = arguments::parse_address)]
    account: Address,
    /// Take the right away.
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Worker,
    Member,
}

#[derive(Debug, Args)]
pub(super) struct Register {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// For what; may be given twice.
    #[arg(long, value_enum, required = true)]
    role: Vec<Role>,
    #[command(flatten)]
    identity: IdentityArguments,
    /// Who runs the node: at most 32 characters.
    #[arg(long, default_value = "")]
    organisation: String,
    /// A public label, key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Label>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Deregister {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// The node's peer id hash.
    #[arg(long, value_name = "HASH")]
    peer: PeerIdHash,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The cluster to show.
    #[arg(long, env = "VEIL_CLUSTER", value_name = "ID")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

fn parse_committee(text: &str) -> Result<Committee, String> {
    let n: u8 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    Committee::new(n).map_err(|error| error.to_string())
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Key(#[from] AccountKeyError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0} exists already: give another --out, or use that deployment")]
    Exists(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

impl Failure {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

impl run::Failure for Failure {
    fn exit(&self) -> (Exit, &'static str) {
        match self {
            Self::Chain(error) if error.is_file() => (Exit::Files, "files"),
            Self::Chain(ChainError::Refused(_)) => (Exit::Failed, "refused"),
            Self::Chain(ChainError::NoAccount) | Self::Identity(IdentityError::NoPassphrase) => {
                (Exit::Usage, "usage")
            }
            Self::Chain(_) => (Exit::Failed, "chain"),
            Self::Key(AccountKeyError::Malformed(_)) => (Exit::Usage, "usage"),
            Self::Key(_) | Self::Identity(_) | Self::Exists(_) | Self::File { .. } => {
                (Exit::Files, "files")
            }
        }
    }
}

pub(super) fn run(command: &Command) -> Exit {
    let json = connection(command).json;
    run::run(json, async {
        let report = carry_out(command).await?;
        if json {
            println!("{report}")
        } else {
            print(&report, 0)
        }
        Ok::<_, Failure>(Exit::Done)
    })
}

const fn connection(command: &Command) -> &Connection {
    match command {
        Command::Deploy(a) => &a.connection,
        Command::Cluster(a) => &a.connection,
        Command::Approve(a) => &a.connection,
        Command::Grant(a) => &a.connection,
        Command::Register(a) => &a.connection,
        Command::Deregister(a) => &a.connection,
        Command::Status(a) => &a.connection,
    }
}

async fn carry_out(command: &Command) -> Result<Value, Failure> {
    match command {
        Command::Deploy(arguments) => deploy(arguments).await,
        Command::Cluster(arguments) => cluster(arguments).await,
        Command::Approve(arguments) => {
            let chain = arguments.contract.connect(&arguments.connection).await?;
            let mined = chain.approve_node(arguments.peer, arguments.operator).await?;
            Ok(json!({
                "peer": format!("0x{}", arguments.peer),
                "operator": format!("0x{}", arguments.operator),
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Grant(arguments) => {
            let chain = arguments.contract.connect(&arguments.connection).await?;
            let rights = if arguments.revoke { Rights::NONE } else { Rights::SUBMIT };
            let cluster = arguments.cluster.id();
            let mined = chain.set_rights(cluster, arguments.account, rights).await?;
            Ok(json!({
                "account": format!("0x{}", arguments.account),
                "may_submit": !arguments.revoke,
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Register(arguments) => register(arguments).await,
        Command::Deregister(arguments) => {
            let chain = arguments.contract.connect(&arguments.connection).await?;
            let cluster = arguments.cluster.id();
            let mined = chain.deregister_node(cluster, arguments.peer).await?;
            Ok(json!({
                "peer": format!("0x{}", arguments.peer),
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Status(arguments) => {
            let chain = arguments.contract.connect(&arguments.connection).await?;
            Ok(status::describe(&chain, arguments.cluster).await?)
        }
    }
}

async fn deploy(arguments: &Deploy) -> Result<Value, Failure> {
    // Before anything is paid for.
    if arguments.out.exists() {
        return Err(Failure::Exists(arguments.out.clone()));
    }
    let config = arguments.connection.config(Address([0; 20]))?;
    let (_, deployment) = Chain::deploy(config).await?;
    deployment.write(&arguments.out)?;
    let mut report = json!(deployment);
    report["file"] = json!(arguments.out);
    Ok(report)
}

async fn cluster(arguments: &NewCluster) -> Result<Value, Failure> {
    let policy = match &arguments.policy {
        Some(path) => fs::read(path).map_err(Failure::file(path))?,
        None => Vec::new(),
    };
    let chain = arguments.contract.connect(&arguments.connection).await?;
    let settings = ClusterSettings {
        salt: keccak256(&arguments.name).0,
        committee: arguments.committee,
        open_to_workers: !arguments.closed,
        slot_millis: arguments.slot_millis,
        policy,
    };
    let cluster = chain.register_cluster(&settings).await?;
    Ok(json!({
        "cluster": format!("0x{cluster}"),
        "name": arguments.name,
        "committee": arguments.committee.n(),
        "open_to_workers": !arguments.closed,
    }))
}

async fn register(arguments: &Register) -> Result<Value, Failure> {
    let identity = arguments.identity.read()?;
    let chain = arguments.contract.connect(&arguments.connection).await?;
    let registration = NodeRegistration {
        cluster: arguments.cluster.id(),
        roles: Roles {
            worker: arguments.role.contains(&Role::Worker),
            member: arguments.role.contains(&Role::Member),
        },
        organisation: arguments.organisation.clone(),
        labels: arguments.label.clone(),
    };
    let mined = chain.register_node(&registration, &identity).await?;
    Ok(json!({
        "cluster": format!("0x{}", registration.cluster),
        "peer": format!("0x{}", PeerIdHash::of(&identity.public())),
        "roles": status::roles(registration.roles),
        "transaction": format!("0x{}", mined.transaction),
        "gas": mined.gas,
    }))
}

/// The report for a person: a line per value, lists and objects indented.
fn print(report: &Value, indent: usize) {
    for (key, value) in report.as_object().into_iter().flatten() {
        let name = format!("{:indent$}{}", "", key.replace('_', " "));
        match value {
            Value::Null => println!("{name:24} -"),
            Value::String(text) => println!("{name:24} {text}"),
            Value::Object(_) => {
                println!("{name}");
                print(value, indent + 2);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (item, i) in items.iter().zip(1..) {
                    println!("{name} {i}");
                    print(item, indent + 2);
                }
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                println!("{name:24} {}", items.join(", "));
            }
            other => println!("{name:24} {other}"),
        }
    }
}
