//! `veil chain elect`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_operator::chain;
use veil_protocol_spec::Epoch;

use crate::{
    arguments::{Connection, Where},
    error::CommandError,
};

/// `veil chain elect`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Freeze the candidates, and fix the block that decides.
    Request(Request),
    /// Draw the committee, with the proof of the deciding block's prevrandao.
    Seal(Arguments),
    /// Draw more standbys, from where the draw ended, if those there are do not suffice.
    Extend(Arguments),
    /// Fix another block, if the one before is too old to be proved.
    Expire(Arguments),
    /// Show the election and the committee.
    Show(Arguments),
}

/// `veil chain elect request`.
#[derive(Debug, Args)]
pub struct Request {
    /// Draw another committee of an epoch that was drawn and has had no key for a week. That burns 1 ether.
    #[arg(long)]
    redraw: bool,
    #[command(flatten)]
    arguments: Arguments,
}

/// What all of them take.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The epoch; the one that gets the next key if not given.
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    #[command(flatten)]
    place: Where,
}

impl Command {
    const fn arguments(&self) -> &Arguments {
        match self {
            Self::Request(Request { arguments: a, .. })
            | Self::Seal(a)
            | Self::Extend(a)
            | Self::Expire(a)
            | Self::Show(a) => a,
        }
    }

    /// How to reach the chain.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.arguments().place.connection
    }
}

/// Carries the command out.
///
/// # Errors
/// [`CommandError`].
pub async fn carry_out(command: &Command) -> Result<Value, CommandError> {
    let arguments = command.arguments();
    let Where { contract, connection, .. } = &arguments.place;
    let to = match command {
        Command::Show(_) => contract.connect(connection).await?,
        _ => contract.connect_to_send(connection).await?,
    };
    let cluster = arguments.place.cluster.id();
    let epoch = match arguments.epoch {
        Some(epoch) => Epoch(epoch),
        None => Epoch(to.current_epoch(cluster).await?.map_or(0, |epoch| epoch.0 + 1)),
    };
    let mined = match command {
        Command::Request(Request { redraw, .. }) => {
            Some(to.request_election(cluster, epoch, *redraw).await?)
        }
        Command::Seal(_) => Some(to.seal_election(cluster, epoch).await?),
        Command::Extend(_) => Some(to.extend_election(cluster, epoch).await?),
        Command::Expire(_) => Some(to.expire_election(cluster, epoch).await?),
        Command::Show(_) => None,
    };
    let mut report = chain::election(&to, cluster, epoch).await?;
    if let Some(mined) = mined {
        report["transaction"] = json!(format!("0x{}", mined.transaction));
        report["gas"] = json!(mined.gas);
    }
    Ok(report)
}
