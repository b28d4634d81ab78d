//! `veil config sample|check`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Exit, complain};
use crate::{
    config::{
        AnyConfig, ConfigError, MEMBER_SAMPLE, OPERATOR_SAMPLE, WORKER_SAMPLE, process_environment,
    },
    policy_file::POLICY_SAMPLE,
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
        Command::Sample { role } => {
            let sample = match role {
                Role::Member => MEMBER_SAMPLE,
                Role::Worker => WORKER_SAMPLE,
                Role::Operator => OPERATOR_SAMPLE,
                Role::Policy => POLICY_SAMPLE,
            };
            print!("{sample}");
            Exit::Done
        }
        Command::Check(arguments) => check(arguments),
    }
}

fn check(arguments: &Check) -> Exit {
    match AnyConfig::load(&arguments.file, &process_environment) {
        Ok(config) if arguments.json => {
            let chain = config.chain();
            println!(
                "{}",
                json!({
                    "valid": true,
                    "role": config.role(),
                    "admin_socket": config.admin_socket(),
                    "rpc": chain.rpc,
                    "contract": chain.contract,
                    "cluster": chain.cluster,
                })
            );
            Exit::Done
        }
        Ok(config) => {
            println!("{}: sound, for a {}", arguments.file.display(), config.role());
            Exit::Done
        }
        Err(error) => {
            let exit = match error {
                ConfigError::Read { .. } => Exit::Files,
                _ => Exit::Usage,
            };
            complain(arguments.json, "config", &error);
            exit
        }
    }
}
