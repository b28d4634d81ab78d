//! `veil ceremony status`: which step, who is outstanding, since when; from the files of a member
//! that takes part, or did, and from the chain.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};
use veil_node_ceremony::{
    AttemptStatus, CeremonyStatus, CommitPointChain, CommitPointError, Proposal, read_status,
    status_file, unix_seconds,
};
use veil_node_config::MemberConfig;
use veil_node_storage::data_dir::DataDir;

use super::{Common, connect, load};
use crate::cli::{
    failure::{Exit, Failure},
    output::Shown,
    run::{block_on, conclude},
    watch::Watch,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    watch: Watch,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.common.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    arguments.watch.show(arguments.common.json, async || look(&config).await).await
}

async fn look(config: &MemberConfig) -> Result<Shown, Failure> {
    let data_dir = &config.node.data_dir;
    let local = match read_status(data_dir) {
        Ok(status) => Some(status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file(&status_file(data_dir))(error)),
    };
    let running = DataDir::is_locked(data_dir);
    // Without the chain the local part is still worth knowing.
    let chain = match connect(config).await {
        Ok((_, commit_point)) => match commit_point.latest().await {
            Ok(proposal) => Ok(Some(proposal)),
            Err(CommitPointError::NotProposed { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        Err(failure) => Err(failure.message),
    };
    let exit = if chain.is_err() { Exit::Failed } else { Exit::Done };
    let object = as_json(&chain, local.as_ref(), running);
    let mut shown = Shown::new(&object, |out| write_status(out, &chain, local.as_ref(), running))?;
    shown.exit = exit;
    Ok(shown)
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

fn write_status(
    out: &mut dyn Write,
    chain: &OnChain,
    local: Option<&CeremonyStatus>,
    running: bool,
) -> io::Result<()> {
    match chain {
        Err(error) => writeln!(out, "chain   error: {error}")?,
        Ok(None) => writeln!(out, "chain   no ceremony is proposed: `veil ceremony propose`")?,
        Ok(Some(proposal)) => {
            let left = proposal.deadline.saturating_sub(unix_seconds());
            let until = if proposal.status == AttemptStatus::Proposed {
                format!(", {left} s left")
            } else {
                String::new()
            };
            writeln!(
                out,
                "chain   epoch {} attempt {}: {}{until}",
                proposal.epoch,
                proposal.attempt,
                proposal.status.name()
            )?;
        }
    }
    let Some(local) = local else {
        return writeln!(out, "member  has not taken part yet: `veil ceremony join`");
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
    let (epoch, attempt) = (local.epoch, local.attempt);
    writeln!(out, "member {participant} epoch {epoch} attempt {attempt}: {state}")?;
    let proposal = chain.as_ref().ok().and_then(Option::as_ref);
    for missing in outstanding(proposal, local) {
        let identity = missing["identity"].as_str().unwrap_or_default();
        writeln!(out, "waiting for participant {} {identity}", missing["participant"])?;
    }
    Ok(())
}
