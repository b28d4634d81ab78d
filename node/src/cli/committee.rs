//! `veil committee run`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{Exit, service};
use crate::{
    config::{MemberConfig, process_environment},
    member,
    role::Secrets,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a member: take part in the key ceremony if there is no key yet, then in every slot.
    Run(Run),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The member's file; `veil config sample --role member` prints one to start from.
    #[arg(long, value_name = "FILE", env = "VEIL_CONFIG")]
    config: PathBuf,
    /// Logs as JSON lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> ExitCode {
    let Command::Run(arguments) = command;
    let config = match MemberConfig::load(&arguments.config, &process_environment) {
        Ok(config) => config,
        Err(error) => {
            super::complain(false, "config", &error);
            return Exit::Usage.into();
        }
    };
    let secrets = match Secrets::load(&config.node, &config.chain, &process_environment) {
        Ok(secrets) => secrets,
        Err(error) => {
            super::complain(false, "secrets", &error);
            return Exit::Files.into();
        }
    };
    service::run(arguments.json, async |stop| member::run(&config, secrets, stop).await)
}
