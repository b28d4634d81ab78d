//! `veil job history|revert`, and what an update says of itself.

use clap::Args;
use serde_json::json;
use veil_node_operator::{
    history::{self, choose, find, versions},
    submission::Submitted,
    table,
};
use veil_node_terminal::waiting;

use super::target::{ForOperator, Target};
use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output,
    run::TRANSACTION,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct History {
    /// Name of the job, or digest of one of its versions, or the first digits of that.
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Revert {
    /// Name of the job, or digest of one of its versions, or the first digits of that.
    #[arg(value_name = "JOB")]
    job: String,
    /// Number of the version; otherwise the last one that was healthy before the one that is wanted now.
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// Bits that its placement may tell about others' load in a day, as for `submit`.
    #[arg(long, value_name = "N")]
    leak_bits: Option<u32>,
    #[command(flatten)]
    operator: ForOperator,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) async fn history(arguments: &History, asking: &Asking) -> Result<Exit, Failure> {
    let access = arguments.target.resolve(asking)?;
    let job = find(&access.jobs().await?, &arguments.job)?;
    waiting::on("waiting for the versions of the job");
    let versions = versions(access.first_node()?, job).await?;
    let object = json!({ "job": job, "versions": table::versions(&versions) });
    output::show(arguments.target.json, &object, |out| {
        table::write_versions(out, &versions, output::width())
    })?;
    Ok(Exit::Done)
}

pub(super) async fn revert(arguments: &Revert, asking: &Asking) -> Result<Exit, Failure> {
    let access = arguments.target.resolve(asking)?;
    let job = find(&access.jobs().await?, &arguments.job)?;
    let (chain, cluster) = access.chain().await?;
    let operator = arguments.operator.of(&chain)?;
    let node = access.session(&chain, cluster, operator).await?;
    let versions = versions(&node, job).await?;
    let version = choose(&versions, arguments.to)?;
    let leak_bits = arguments.leak_bits;
    waiting::on(TRANSACTION);
    let submitted = history::revert(&chain, cluster, &node, operator, version, leak_bits).await?;
    show(arguments.target.json, &submitted)
}

/// The digest on standard output, and what it is an update of beside it.
pub(super) fn show(json: bool, submitted: &Submitted) -> Result<Exit, Failure> {
    let Submitted { job, spec, update } = submitted;
    let object = json!({ "job": job, "name": spec.name, "update": update });
    if let Some(update) = update {
        output::note(format_args!("update of {}: version {}", spec.name, update.version));
    }
    output::show(json, &object, |out| writeln!(out, "{job}"))?;
    Ok(Exit::Done)
}
