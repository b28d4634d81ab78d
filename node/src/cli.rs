//! The command line of `veil`. Every command prints one object with `--json`; exit codes: 0 done, 1
//! the protocol or a verification failed, 2 wrong arguments, 3 files could not be read or written.

mod ceremony;
mod chain;
mod identity;
mod node;
mod report;
mod simulate;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Confidential, decentralised container orchestration on encrypted telemetry.
#[derive(Debug, Parser)]
#[command(name = "veil", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The distributed key generation of a committee.
    #[command(subcommand)]
    Ceremony(Ceremony),
    /// A committee member.
    #[command(subcommand)]
    Committee(node::Member),
    /// Veil's contracts: deploy them, register clusters and nodes, look at them.
    #[command(subcommand)]
    Chain(chain::Command),
    /// The key that a node is known by, to its peers and to the registry.
    #[command(subcommand)]
    Identity(identity::Command),
    /// A node that runs containers.
    #[command(subcommand)]
    Worker(node::Worker),
    /// What a running member or worker says of itself.
    Status(node::Ask),
}

#[derive(Debug, Subcommand)]
enum Ceremony {
    /// Run all members of a ceremony in this process, then prove that the key works.
    Simulate(simulate::Arguments),
    /// Check the transcript of a finished ceremony offline: signatures, echoes, commitments, share
    /// streams, key set.
    Verify(verify::Arguments),
    /// Call the members to a ceremony, as the cluster's admin.
    Propose(ceremony::propose::Arguments),
    /// Take part in the ceremony that is proposed; go on with it after a restart.
    Join(ceremony::join::Arguments),
    /// Say which step the ceremony is in, who is outstanding, since when.
    Status(ceremony::status::Arguments),
    /// End the open attempt, as a member.
    Abort(ceremony::abort::Arguments),
}

impl Cli {
    /// Carries the command out.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Ceremony(Ceremony::Simulate(arguments)) => simulate::run(&arguments),
            Command::Ceremony(Ceremony::Verify(arguments)) => verify::run(&arguments),
            Command::Ceremony(Ceremony::Propose(arguments)) => ceremony::propose::run(&arguments),
            Command::Ceremony(Ceremony::Join(arguments)) => ceremony::join::run(&arguments),
            Command::Ceremony(Ceremony::Status(arguments)) => ceremony::status::run(&arguments),
            Command::Ceremony(Ceremony::Abort(arguments)) => ceremony::abort::run(&arguments),
            Command::Committee(command) => node::member(&command),
            Command::Chain(command) => chain::run(&command),
            Command::Identity(command) => identity::run(&command),
            Command::Worker(command) => node::worker(&command),
            Command::Status(arguments) => node::status(&arguments),
        }
        .into()
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    Failed,
    Usage,
    Files,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Files => 3,
        })
    }
}

/// Prints an error the way every command does.
fn complain(json: bool, kind: &str, error: &dyn core::fmt::Display) {
    if json {
        println!("{}", serde_json::json!({ "error": error.to_string(), "kind": kind }));
    } else {
        eprintln!("error: {error}");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
