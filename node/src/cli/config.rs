//! `veil config sample|check`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use veil_node_config::{
    AnyConfig, MEMBER_SAMPLE, OPERATOR_SAMPLE, WORKER_SAMPLE, policy_file::POLICY_SAMPLE,
    process_environment,
};

use super::{
    failure::{Exit, Failure},
    output,
    run::conclude,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print a commented file with every key.
    Sample {
        /// Whose.
        #[arg(long, value_enum)]
        role: Role,
    },
    /// Check a file as the process that reads it would, environment included.
    Check(Check),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    Member,
    Worker,
    Operator,
    /// No role: a cluster's policy.
    Policy,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Exit {
    match command {
        Command::Sample { role } => conclude(false, sample(*role)),
        Command::Check(arguments) => conclude(arguments.json, check(arguments)),
    }
}

fn sample(role: Role) -> Result<Exit, Failure> {
    let sample = match role {
        Role::Member => MEMBER_SAMPLE,
        Role::Worker => WORKER_SAMPLE,
        Role::Operator => OPERATOR_SAMPLE,
        Role::Policy => POLICY_SAMPLE,
    };
    output::print(|out| write!(out, "{sample}")).map(|_| Exit::Done)
}

fn check(arguments: &Check) -> Result<Exit, Failure> {
    let config = AnyConfig::load(&arguments.file, &process_environment)
        .map_err(|error| Failure { kind: "config", ..error.into() })?;
    let chain = config.chain();
    let object = json!({
        "valid": true,
        "role": config.role(),
        "node": config.node().address.to_string(),
        "rpc": chain.rpc,
        "contract": chain.contract,
        "cluster": chain.cluster,
    });
    output::show(arguments.json, &object, |out| {
        writeln!(out, "{}: sound, for a {}", arguments.file.display(), config.role())
    })?;
    Ok(Exit::Done)
}
