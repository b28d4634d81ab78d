//! `veil chain policy`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::Value;
use veil_node_chain_commands::arguments::{Connection, Where};
use veil_node_config::policy_file::{self, PolicyFile};
use veil_node_operator::new_policy;

use crate::cli::{asking::Asking, failure::Failure};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Show the policy in force, and the one that is announced; with --node, what that node has of encrypted weights.
    Get(Get),
    /// Replace the policy; the first holds at once, later ones after the cluster's delay. Weights that its file wants
    /// encrypted take a node, which gives the keys and gets the encrypted weights.
    Set(Set),
    /// Give a node the encrypted weights that `set` has written to a file.
    Give(Give),
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

#[derive(Debug, Args)]
pub(in crate::cli) struct Give {
    /// The file that `set` has named.
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    #[command(flatten)]
    place: Where,
}

impl Command {
    pub(super) const fn connection(&self) -> &Connection {
        match self {
            Self::Get(a) => &a.place.connection,
            Self::Set(a) => &a.place.connection,
            Self::Give(a) => &a.place.connection,
        }
    }
}

/// A policy file.
pub(super) fn read(path: &Path) -> Result<PolicyFile, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::file(path))?;
    let read = policy_file::parse(&text);
    read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

pub(super) async fn carry_out(command: &Command, asking: &Asking) -> Result<Value, Failure> {
    match command {
        Command::Get(Get { out, place }) => {
            let node = asking.is_given().then(|| asking.client(None)).transpose()?;
            let chain = place.contract.connect(&place.connection).await?;
            let (report, bytes) =
                new_policy::describe(&chain, place.cluster.id(), node.as_ref()).await?;
            if let Some(path) = out {
                fs::write(path, bytes).map_err(Failure::file(path))?;
            }
            Ok(report)
        }
        Command::Set(Set { file, place }) => {
            let read = read(file)?;
            let node = read.hidden().map(|_| asking.client(None)).transpose()?;
            let chain = place.contract.connect_to_send(&place.connection).await?;
            Ok(new_policy::set(&chain, place.cluster.id(), &read, file, node.as_ref()).await?)
        }
        Command::Give(Give { list, place }) => {
            let node = asking.client(None)?;
            let chain = place.contract.connect(&place.connection).await?;
            Ok(new_policy::give(&chain, place.cluster.id(), &node, list).await?)
        }
    }
}
