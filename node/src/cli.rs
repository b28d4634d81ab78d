//! The command line of `veil`. Every command prints one object with `--json`; what the exit codes say
//! is in `help`, where `veil --help` has it from.
//!
//! # Flow
//! A command is a module with its arguments and `run`. It works, in `run::block_on` if it waits for
//! others, prints through `output`, and ends with an `Exit` or a `Failure`, which `run::conclude`
//! reports.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when the reader has left; `output` does not"
)]

mod asking;
mod ceremony;
mod chain;
mod config;
mod devnet;
mod evidence;
mod failure;
#[cfg(test)]
mod failures_tests;
mod help;
mod identity;
mod job;
mod manual;
mod node;
mod operator;
mod output;
mod run;
mod share;
mod simulate;
mod verify;
mod watch;

use std::{env, ffi::OsStr, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

/// The arguments of `veil`.
#[derive(Debug, Parser)]
#[command(
    name = "veil",
    version,
    about = help::ABOUT,
    long_about = None,
    after_help = help::after(),
    propagate_version = true
)]
pub struct Cli {
    #[command(flatten)]
    asking: asking::Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The distributed key generation of a committee.
    #[command(subcommand)]
    Ceremony(Ceremony),
    /// A whole network on this machine, with a job on it.
    Devnet(devnet::Arguments),
    /// Submit, watch and stop jobs.
    #[command(subcommand)]
    Job(job::Command),
    /// Keys that submit jobs for an operator.
    #[command(subcommand)]
    Operator(operator::Command),
    /// What a node keeps of faults: list it, hand it out, take it to the chain.
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Configuration files.
    #[command(subcommand)]
    Config(config::Command),
    /// Veil's contracts: deploy them, register clusters and nodes, look at them.
    #[command(subcommand)]
    Chain(chain::Command),
    /// The key that a node is known by, to its peers and to the registry.
    #[command(subcommand)]
    Identity(identity::Command),
    /// A node that holds a share of the key and decides placements.
    #[command(subcommand)]
    Committee(node::Member),
    /// Backups of a member's share of the key, and bringing one back.
    #[command(subcommand)]
    Share(share::Command),
    /// A node that runs containers.
    #[command(subcommand)]
    Worker(node::Worker),
    /// What a worker is given from now on.
    #[command(subcommand)]
    Node(chain::eligibility::Command),
    /// What a running member or worker says of itself.
    Status(node::Ask),
    /// Print completions for a shell: `source <(veil completions bash)`.
    Completions(manual::Completions),
    /// Manual pages of all commands.
    Man(manual::Manual),
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
    /// End the open attempt, as a member; of an elected committee that costs the member its seat.
    Abort(ceremony::abort::Arguments),
}

/// A variable that is set to nothing is not set: that is what `${VARIABLE}` is of one that a service file does not know.
fn without_empty(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(Resettable::Reset),
        _ => argument,
    });
    command.mut_subcommands(without_empty)
}

impl Cli {
    /// The arguments of this process.
    ///
    /// # Errors
    /// The exit code, once what is wrong with them has been said: with `--json` as the object that any other
    /// failure is. Asking for help or the version ends here too.
    pub fn read() -> Result<Self, ExitCode> {
        Self::parse_within(help::columns()).map_err(|error| {
            let json = error.use_stderr() && env::args_os().any(|argument| argument == "--json");
            if json {
                let message = error.render().to_string();
                let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
                return run::conclude(true, Err(failure::Failure::usage(message))).into();
            }
            let _ = error.print(); // nobody reads it
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        })
    }

    /// The arguments of this process; what is said of them has no line longer than that.
    fn parse_within(columns: usize) -> Result<Self, clap::Error> {
        let mut command = without_empty(Self::command().term_width(columns));
        let mut matches = command.try_get_matches_from_mut(env::args_os())?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }

    /// Carries the command out.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let asking = &self.asking;
        match self.command {
            Command::Ceremony(Ceremony::Simulate(arguments)) => simulate::run(&arguments),
            Command::Ceremony(Ceremony::Verify(arguments)) => verify::run(&arguments),
            Command::Ceremony(Ceremony::Propose(arguments)) => ceremony::propose::run(&arguments),
            Command::Ceremony(Ceremony::Join(arguments)) => ceremony::join::run(&arguments),
            Command::Ceremony(Ceremony::Status(arguments)) => ceremony::status::run(&arguments),
            Command::Ceremony(Ceremony::Abort(arguments)) => ceremony::abort::run(&arguments),
            Command::Devnet(arguments) => devnet::run(&arguments),
            Command::Job(command) => job::run(&command, asking),
            Command::Operator(command) => operator::run(&command, asking),
            Command::Evidence(command) => evidence::run(&command, asking),
            Command::Config(command) => config::run(&command),
            Command::Chain(command) => chain::run(&command, asking),
            Command::Identity(command) => identity::run(&command),
            Command::Committee(command) => node::member(&command, asking),
            Command::Share(command) => share::run(&command),
            Command::Worker(command) => node::worker(&command, asking),
            Command::Node(command) => chain::eligibility::run(&command, asking),
            Command::Status(arguments) => node::status(&arguments, asking),
            Command::Completions(arguments) => manual::completions(&arguments),
            Command::Man(arguments) => manual::manual(&arguments),
        }
        .into()
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

    /// Scripts read every command; what these print is a file, or logs, which have an option of that name.
    #[test]
    fn every_command_prints_json_but_those_that_print_a_file() {
        const FILES: [&str; 3] = ["completions", "man", "sample"];
        fn check(command: &clap::Command) {
            let mut below = command.get_subcommands().peekable();
            let has_json = command.get_arguments().any(|of| of.get_long() == Some("json"));
            let name = command.get_name();
            if below.peek().is_none() {
                assert!(has_json != FILES.contains(&name), "{name}");
            }
            below.for_each(check);
        }
        check(&Cli::command());
    }

    /// Clap looks for both under one name, and panics when the command runs.
    #[test]
    fn no_command_has_an_argument_by_the_name_of_a_global_one() {
        fn check(command: &clap::Command, globals: &[clap::Id]) {
            for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
                assert!(!globals.contains(argument.get_id()), "{}: {argument}", command.get_name());
            }
            command.get_subcommands().for_each(|command| check(command, globals));
        }
        let command = Cli::command();
        let globals = command.get_arguments().filter(|argument| argument.is_global_set());
        let globals: Vec<_> = globals.map(|argument| argument.get_id().clone()).collect();
        assert!(!globals.is_empty());
        check(&command, &globals);
    }
}
