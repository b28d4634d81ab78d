//! `veil ceremony propose`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use veil_node_ceremony::{AttemptStatus, ProposeOptions, Proposed, propose};
use veil_node_terminal::waiting;

use super::{Common, connect, load};
use crate::cli::{
    failure::{Exit, Failure},
    output,
    run::{TRANSACTION, block_on, conclude},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Seconds until the attempt expires.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(10..=7 * 86_400))]
    duration: u64,
    /// Wait until the key is published or the last attempt has failed.
    #[arg(long)]
    wait: bool,
    /// With --wait: propose so many attempts, each after the one before was aborted or expired.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.common.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    let (chain, commit_point) = connect(&config, &arguments.common).await?;
    let options = ProposeOptions {
        scope: chain.scope(config.chain.cluster),
        committee: chain.cluster(config.chain.cluster).await?.committee,
        parameters: config.committee.parameters,
        duration: Duration::from_secs(arguments.duration),
        attempts: arguments.attempts,
        wait: arguments.wait,
        poll: Duration::from_secs(2),
    };
    let json = arguments.common.json;
    let shown = |proposed: &Proposed| {
        if !json {
            output::note(line(proposed));
        }
    };
    if arguments.wait {
        waiting::on("waiting for the members; `veil ceremony status` says for which");
    } else {
        waiting::on(TRANSACTION);
    }
    let proposed = propose(&commit_point, &options, shown).await?;
    let object = json!({
        "epoch": proposed.epoch,
        "attempt": proposed.attempt,
        "status": proposed.status.name(),
        "keyset_digest": match proposed.status {
            AttemptStatus::Published { key_set, .. } => Some(key_set),
            _ => None,
        },
    });
    output::show(json, &object, |out| {
        if arguments.wait {
            writeln!(out, "{}", line(&proposed))
        } else {
            writeln!(
                out,
                "epoch {} attempt {} is proposed; each member runs `veil ceremony join`",
                proposed.epoch, proposed.attempt
            )
        }
    })?;
    let failed = matches!(proposed.status, AttemptStatus::Aborted | AttemptStatus::Expired);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn line(proposed: &Proposed) -> String {
    let Proposed { epoch, attempt, status, .. } = proposed;
    format!("epoch {epoch} attempt {attempt}: {}", status.name())
}
