//! `veil ceremony status`: which step, who is outstanding, since when; from the files of a member
//! that takes part, or did, and from the chain.

use std::io;

use clap::Args;
use serde_json::{Value, json};
use veil_node_storage::data_dir::DataDir;

use super::{Common, Failure, connect, load, run_async};
use crate::{
    ceremony::{
        AttemptStatus, CeremonyStatus, CommitPointChain, CommitPointError, Proposal, read_status,
        status_file, unix_seconds,
    },
    cli::Exit,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    run_async(&arguments.common, carry_out(arguments))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    let data_dir = &config.node.data_dir;
    let local = match read_status(data_dir) {
        Ok(status) => Some(status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(Failure::Files { path: status_file(data_dir), source }),
    };
    let running = DataDir::is_locked(data_dir);
    // Without the chain the local part is still worth knowing.
    let chain = match connect(&config).await {
        Ok((_, commit_point)) => match commit_point.latest().await {
            Ok(proposal) => Ok(Some(proposal)),
            Err(CommitPointError::NotProposed { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    let exit = if chain.is_err() { Exit::Failed } else { Exit::Done };
    if arguments.common.json {
        println!("{}", as_json(&chain, local.as_ref(), running));
    } else {
        print(&chain, local.as_ref(), running);
    }
    Ok(exit)
}

type OnChain = Result<Option<Proposal>, String>;

/// Where the local status is of the attempt on chain, names can be given.
fn outstanding(proposal: Option<&Proposal>, local: &CeremonyStatus) -> Vec<Value> {
    let named = proposal.filter(|p| (p.epoch, p.attempt) == (local.epoch, local.attempt));
    let one = |j: &veil_protocol_spec::ParticipantIndex| {
        let identity = named.and_then(|proposal| proposal.roster.get(j.position()));
        json!({ "participant": j, "identity": identity })
    };
    local.outstanding.iter().map(one).collect()
}

fn as_json(chain: &OnChain, local: Option<&CeremonyStatus>, running: bool) -> Value {
    let proposal = chain.as_ref().ok().and_then(Option::as_ref);
    json!({
        "chain": proposal.map(|proposal| json!({
            "epoch": proposal.epoch,
            "attempt": proposal.attempt,
            "status": proposal.status.name(),
            "keyset_digest": match proposal.status {
                AttemptStatus::Published { key_set, .. } => Some(key_set),
                _ => None,
            },
            "parameters": proposal.parameters,
            "deadline": proposal.deadline,
            "members": proposal.roster,
        })),
        "chain_error": chain.as_ref().err(),
        "member": local.map(|local| json!({
            "running": running,
            "epoch": local.epoch,
            "attempt": local.attempt,
            "participant": local.participant,
            "step": local.step,
            "done": local.done,
            "total": local.total,
            "outstanding": outstanding(proposal, local),
            "since": local.since,
            "outcome": local.outcome,
        })),
    })
}

fn print(chain: &OnChain, local: Option<&CeremonyStatus>, running: bool) {
    match chain {
        Err(error) => eprintln!("error: {error}"),
        Ok(None) => println!("chain   no ceremony is proposed: `veil ceremony propose`"),
        Ok(Some(proposal)) => {
            let left = proposal.deadline.saturating_sub(unix_seconds());
            let until = if proposal.status == AttemptStatus::Proposed {
                format!(", {left} s left")
            } else {
                String::new()
            };
            println!(
                "chain   epoch {} attempt {}: {}{until}",
                proposal.epoch,
                proposal.attempt,
                proposal.status.name()
            );
        }
    }
    let Some(local) = local else {
        println!("member  has not taken part yet: `veil ceremony join`");
        return;
    };
    let since = unix_seconds().saturating_sub(local.since);
    let state = match (&local.outcome, running) {
        (Some(outcome), _) => outcome.clone(),
        (None, true) => format!("{} {}/{} for {since} s", local.step, local.done, local.total),
        (None, false) => format!(
            "stopped in {}; `veil ceremony join` goes on",
            if local.step.is_empty() { "the beginning" } else { &local.step }
        ),
    };
    let participant = local.participant.map_or_else(String::new, |j| format!(" participant {j}"));
    println!("member {participant} epoch {} attempt {}: {state}", local.epoch, local.attempt);
    let proposal = chain.as_ref().ok().and_then(Option::as_ref);
    for missing in outstanding(proposal, local) {
        let identity = missing["identity"].as_str().unwrap_or_default();
        println!("waiting for participant {} {identity}", missing["participant"]);
    }
}
