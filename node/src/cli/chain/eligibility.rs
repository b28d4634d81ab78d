//! `veil node drain|ineligible|eligible|status`: what a worker is given from now on, and what of it has not left yet.

use std::{io, io::Write};

use clap::{Args, Subcommand};
use serde_json::json;
use veil_node_chain::Chain;
use veil_node_chain_commands::arguments::Where;
use veil_node_operator::{replicas, table};
use veil_node_process::{moment, unix_now};
use veil_protocol_spec::{ClusterId, PeerIdHash, registry::Eligibility, scheduling::UnixMillis};

use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    job::target::{Access, Target},
    output::{self, Shown},
    run::{block_on, conclude},
    watch::Watch,
};

/// Commands of a node's operator and of the cluster's admin about one node.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Give a worker nothing more, and what it runs to others: each replica runs on until it runs elsewhere. One with
    /// an exclusive lease is stopped first. `veil node status` says what waits for what.
    Drain(Drain),
    /// Give a worker nothing more; what it runs stays.
    Ineligible(Arguments),
    /// Give a worker what finds room again.
    Eligible(Arguments),
    /// Say what a worker is given, and of each replica that it has whether it is to leave and what it waits for.
    Status(Status),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The worker's peer id hash, as `veil status` and `veil chain status` show it.
    #[arg(value_name = "NODE")]
    worker: PeerIdHash,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Drain {
    #[command(flatten)]
    arguments: Arguments,
    /// After how long the worker stops what has no other place by then, runs of batch jobs among it, as in 10m, 2h or 1d;
    /// it is pending then. Without it nothing but exclusive replicas is stopped before it runs elsewhere.
    #[arg(long, value_name = "DURATION", value_parser = moment::seconds)]
    deadline: Option<u64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// The worker's peer id hash.
    #[arg(value_name = "NODE")]
    worker: PeerIdHash,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    watch: Watch,
}

/// `veil node`.
pub(in crate::cli) fn run(command: &Command, asking: &Asking) -> Exit {
    let (arguments, eligibility, deadline) = match command {
        Command::Drain(Drain { arguments, deadline }) => {
            let at = deadline.map(|after| (unix_now().0 / 1000).saturating_add(after));
            (arguments, Eligibility::Draining, at)
        }
        Command::Ineligible(arguments) => (arguments, Eligibility::Ineligible, None),
        Command::Eligible(arguments) => (arguments, Eligibility::Eligible, None),
        Command::Status(of) => return conclude(of.target.json, block_on(status(of, asking))),
    };
    conclude(arguments.place.connection.json(), block_on(set(arguments, eligibility, deadline)))
}

async fn set(
    arguments: &Arguments,
    eligibility: Eligibility,
    deadline: Option<u64>,
) -> Result<Exit, Failure> {
    let Arguments { worker, place: Where { cluster, contract, connection } } = arguments;
    let chain = contract.connect_to_send(connection).await?;
    let mined = chain.set_eligibility(cluster.id(), *worker, eligibility, deadline).await?;
    let object = json!({
        "node": worker,
        "eligibility": eligibility,
        "drain_deadline": deadline,
        "transaction": mined.transaction,
    });
    output::show(connection.json(), &object, |out| {
        write_given(out, worker, eligibility, deadline)?;
        match eligibility {
            Eligibility::Draining => {
                writeln!(out, "`veil node status {worker}` says which replicas wait, and why")
            }
            Eligibility::Eligible | Eligibility::Ineligible => Ok(()),
        }
    })?;
    Ok(Exit::Done)
}

fn write_given(
    out: &mut dyn Write,
    worker: &PeerIdHash,
    eligibility: Eligibility,
    deadline: Option<u64>,
) -> io::Result<()> {
    match (eligibility, deadline) {
        (Eligibility::Eligible, _) => writeln!(out, "{worker} is given what finds room"),
        (Eligibility::Ineligible, _) => writeln!(out, "{worker} is given nothing more"),
        (Eligibility::Draining, None) => {
            writeln!(out, "{worker} is given nothing more, and what it runs goes to others")
        }
        (Eligibility::Draining, Some(deadline)) => {
            let until = moment::utc(UnixMillis(deadline.saturating_mul(1000)));
            writeln!(
                out,
                "{worker} is given nothing more, and what it runs goes to others; what is left at {until} it stops"
            )
        }
    }
}

async fn status(of: &Status, asking: &Asking) -> Result<Exit, Failure> {
    let access = of.target.resolve(asking)?;
    let (chain, cluster) = access.chain().await?;
    let look = async || look(of, &access, &chain, cluster).await;
    of.watch.show(of.target.json, look).await
}

async fn look(
    Status { worker, .. }: &Status,
    access: &Access,
    chain: &Chain,
    cluster: ClusterId,
) -> Result<Shown, Failure> {
    let node = chain.node(cluster, *worker).await?;
    let node = node.ok_or_else(|| {
        Failure::usage(format!(
            "the registry lists no node {worker}: `veil chain status` lists them"
        ))
    })?;
    let statuses = access.statuses().await?;
    let rows = replicas::rows(&statuses, &|_: &PeerIdHash| None);
    let here: Vec<_> = rows.into_iter().filter(|row| row.worker == Some(*worker)).collect();
    let object = json!({
        "node": worker,
        "eligibility": node.eligibility,
        "drain_deadline": node.drain_deadline,
        "replicas": here,
    });
    Shown::new(&object, |out| {
        write_given(out, worker, node.eligibility, node.drain_deadline)?;
        if here.is_empty() {
            return writeln!(out, "it has no replica");
        }
        table::write_rows(out, &here, output::width())
    })
}
