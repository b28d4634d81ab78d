//! `veil chain policy`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_config::policy_file;
use veil_protocol_spec::{
    Wire as _, hex,
    scheduling::{ClusterPolicy, keccak},
};

use super::arguments::{Connection, Where};
use crate::cli::failure::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Show the policy in force, and the one that is announced.
    Get(Get),
    /// Replace the policy; the first holds at once, later ones after the cluster's delay.
    Set(Set),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// Write the policy's bytes here as well.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// File with the policy; `veil config sample --role policy` prints one.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Where,
}

impl Command {
    pub(super) const fn connection(&self) -> &Connection {
        match self {
            Self::Get(a) => &a.place.connection,
            Self::Set(a) => &a.place.connection,
        }
    }
}

/// A policy file as the chain keeps it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::file(path))?;
    let policy = policy_file::parse(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(policy.to_wire())
}

fn shown(policy: &[u8]) -> Value {
    json!({
        "policy": ClusterPolicy::parse(policy).ok().as_ref().map(policy_file::shown),
        "policy_hex": hex(policy),
        "policy_hash": format!("0x{}", keccak(policy)),
    })
}

pub(super) async fn carry_out(command: &Command) -> Result<Value, Failure> {
    match command {
        Command::Get(arguments) => {
            let chain = arguments.place.contract.connect(&arguments.place.connection).await?;
            let cluster = arguments.place.cluster.id();
            let policy = chain.cluster_policy(cluster).await?;
            if let Some(path) = &arguments.out {
                fs::write(path, &policy).map_err(Failure::file(path))?;
            }
            let mut report = shown(&policy);
            if let Some((announced, from)) = chain.announced_policy(cluster).await? {
                report["announced"] = shown(&announced);
                report["announced"]["from"] = json!(from);
            }
            Ok(report)
        }
        Command::Set(arguments) => {
            let path = &arguments.file;
            let policy = read(path)?;
            let chain =
                arguments.place.contract.connect_to_send(&arguments.place.connection).await?;
            let cluster = arguments.place.cluster.id();
            let mined = chain.set_cluster_policy(cluster, &policy).await?;
            let announced = chain.announced_policy(cluster).await?;
            Ok(json!({
                "policy_hash": format!("0x{}", keccak(&policy)),
                "from": announced.map(|(_, from)| from),
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
    }
}
