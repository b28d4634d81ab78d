//! `veil node drain|ineligible|eligible`: what a worker is given from now on.

use clap::{Args, Subcommand};
use serde_json::json;
use veil_protocol_spec::{PeerIdHash, registry::Eligibility};

use super::arguments::Where;
use crate::cli::{
    failure::{Exit, Failure},
    output,
    run::{block_on, conclude},
};

/// Commands of a node's operator and of the cluster's admin about one node.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Give a worker nothing more, and what it runs to others: each replica runs on until it runs elsewhere. Those
    /// with an exclusive lease or a host volume stay; `veil job status` says what waits for what.
    Drain(Arguments),
    /// Give a worker nothing more; what it runs stays.
    Ineligible(Arguments),
    /// Give a worker what finds room again.
    Eligible(Arguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The worker's peer id hash, as `veil status` and `veil chain status` show it.
    #[arg(value_name = "NODE")]
    worker: PeerIdHash,
    #[command(flatten)]
    place: Where,
}

/// `veil node`.
pub(in crate::cli) fn run(command: &Command) -> Exit {
    let (arguments, eligibility) = match command {
        Command::Drain(arguments) => (arguments, Eligibility::Draining),
        Command::Ineligible(arguments) => (arguments, Eligibility::Ineligible),
        Command::Eligible(arguments) => (arguments, Eligibility::Eligible),
    };
    conclude(arguments.place.connection.json, block_on(set(arguments, eligibility)))
}

async fn set(arguments: &Arguments, eligibility: Eligibility) -> Result<Exit, Failure> {
    let Arguments { worker, place: Where { cluster, contract, connection } } = arguments;
    let chain = contract.connect(connection).await?;
    let mined = chain.set_eligibility(cluster.id(), *worker, eligibility).await?;
    let object = json!({
        "node": worker,
        "eligibility": eligibility,
        "transaction": mined.transaction,
    });
    output::show(connection.json, &object, |out| match eligibility {
        Eligibility::Eligible => writeln!(out, "{worker} is given work again"),
        Eligibility::Ineligible => writeln!(out, "{worker} is given nothing more"),
        Eligibility::Draining => writeln!(
            out,
            "{worker} is given nothing more, and what it runs goes to others; `veil job status` shows how far it is"
        ),
    })?;
    Ok(Exit::Done)
}
