//! `veil chain elect`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_chain::{Chain, ChainError};
use veil_protocol_spec::{ClusterId, Epoch, PeerIdHash};

use super::arguments::{Connection, Where};
use crate::cli::failure::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Freeze the candidates, and fix the block that decides.
    Request(Arguments),
    /// Draw the committee, with the proof of the deciding block's prevrandao.
    Seal(Arguments),
    /// Fix another block, if the one before is too old to be proved.
    Expire(Arguments),
    /// Show the election and the committee.
    Show(Arguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The epoch; the one that gets the next key if not given.
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    #[command(flatten)]
    place: Where,
}

impl Command {
    const fn arguments(&self) -> &Arguments {
        match self {
            Self::Request(a) | Self::Seal(a) | Self::Expire(a) | Self::Show(a) => a,
        }
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.arguments().place.connection
    }
}

pub(super) async fn carry_out(command: &Command) -> Result<Value, Failure> {
    let arguments = command.arguments();
    let Where { contract, connection, .. } = &arguments.place;
    let chain = match command {
        Command::Show(_) => contract.connect(connection).await?,
        _ => contract.connect_to_send(connection).await?,
    };
    let cluster = arguments.place.cluster.id();
    let epoch = match arguments.epoch {
        Some(epoch) => Epoch(epoch),
        None => Epoch(chain.current_epoch(cluster).await?.map_or(0, |epoch| epoch.0 + 1)),
    };
    let mined = match command {
        Command::Request(_) => Some(chain.request_election(cluster, epoch).await?),
        Command::Seal(_) => Some(chain.seal_election(cluster, epoch).await?),
        Command::Expire(_) => Some(chain.expire_election(cluster, epoch).await?),
        Command::Show(_) => None,
    };
    let mut report = describe(&chain, cluster, epoch).await?;
    if let Some(mined) = mined {
        report["transaction"] = json!(format!("0x{}", mined.transaction));
        report["gas"] = json!(mined.gas);
    }
    Ok(report)
}

pub(super) async fn describe(
    chain: &Chain,
    cluster: ClusterId,
    epoch: Epoch,
) -> Result<Value, ChainError> {
    let election = chain.election(cluster, epoch).await?;
    let mut report = json!({
        "epoch": epoch.0,
        "status": election.status,
        "round": election.round,
        "random_block": election.random_block,
    });
    if let Some(committee) = chain.committee(cluster, epoch).await? {
        let texts =
            |peers: &[PeerIdHash]| peers.iter().map(|peer| format!("0x{peer}")).collect::<Vec<_>>();
        report["seats"] = json!(texts(&committee.seats));
        report["standbys"] = json!(texts(&committee.standbys));
        report["verified"] = json!(chain.verify_election(cluster, epoch).await?);
    }
    Ok(report)
}
