//! `veil chain watch`: the contracts' events, one a line.

use clap::Args;
use serde_json::json;
use veil_node_chain::{ChainEvent, Update};
use veil_node_chain_commands::arguments::{Contract, Reach};
use veil_node_terminal::waiting;

use crate::cli::{
    failure::{Exit, Failure},
    output::{self, Reader},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The first block to look at; the next one if not given.
    #[arg(long, value_name = "BLOCK")]
    from: Option<u64>,
    /// Only events that are deep enough to act on.
    #[arg(long)]
    settled: bool,
    /// End when everything there is has been printed.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    pub(super) reach: Reach,
}

pub(super) async fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let chain = arguments.contract.connect_to_read(&arguments.reach).await?;
    let from = match arguments.from {
        Some(from) => from,
        None => chain.block().await?.0.number + 1,
    };
    let mut follower = chain.follow(chain.block_before(from).await?);
    let show = |update: &Update<ChainEvent>| {
        if arguments.settled && !matches!(update, Update::Settled(_)) {
            return Ok(Reader::Reads);
        }
        output::print(|out| writeln!(out, "{}", line(update, arguments.reach.json)))
    };
    if arguments.once {
        waiting::on("reading the events");
        for update in follower.catch_up().await? {
            if show(&update)? == Reader::Left {
                break;
            }
        }
        return Ok(Exit::Done);
    }
    waiting::over(); // events come when they come
    while show(&follower.next().await?)? == Reader::Reads {}
    Ok(Exit::Done)
}

fn line(update: &Update<ChainEvent>, as_json: bool) -> String {
    let (what, event) = match update {
        Update::Seen(event) => ("seen", event),
        Update::Undone(event) => ("undone", event),
        Update::Settled(event) => ("settled", event),
    };
    if as_json {
        let object = json!({
            "update": what,
            "contract": event.contract,
            "event": event.name,
            "block": event.block.number,
            "block_hash": format!("0x{}", event.block.hash),
            "transaction": format!("0x{}", event.transaction),
            "index": event.index,
            "arguments": event.arguments,
        });
        return object.to_string();
    }
    let arguments = event.arguments.iter().map(|(name, value)| format!("{name}={value}"));
    let arguments: Vec<_> = arguments.collect();
    format!(
        "{what:8} block {:<8} {}.{} {}",
        event.block.number,
        event.contract,
        event.name,
        arguments.join(" ")
    )
}
