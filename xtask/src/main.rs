//! Set-up, tests and checks of Veil: `cargo xtask <command>`.
//!
//! Every step is announced with its command line and followed by the time it took; the first one
//! that fails is named and ends the run. Exit codes: 0 all steps passed, 1 a step failed, 2 the
//! command line is wrong.
//!
//! Everything that compiles runs with `--release`, so that tfhe is compiled once for tests, benches
//! and the binary, and checked once for clippy and rustdoc; see `docs/adr/0002-release-profile.md`.

mod containers;
mod contracts;
mod demo;
mod layering;
mod setup;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::step::{Failed, Step};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests and checks of Veil")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check for the tools that building and testing need, and install what is missing.
    Setup {
        /// Only what containers need: engine, local registry, sample image.
        #[arg(long)]
        docker: bool,
    },
    /// `setup`, then a cluster on this machine (`veil devnet`) with a sample job.
    Demo {
        /// Keep the cluster running instead of ending after the placement.
        #[arg(long)]
        stay: bool,
        /// Passed on to `veil devnet`, such as `--json` or `--processes`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Before a commit: format, clippy, documentation, layering.
    Check,
    /// Format, compile and test the contracts, and compare what the Rust side has of them.
    Contracts,
    /// `check`, then all tests.
    Test {
        /// Also the production-size tests (`#[ignore]`d, one at a time) and the benches' build.
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup { docker: true } => setup::containers(Vec::new()).map(|_| ()),
        Command::Setup { docker: false } => setup::run().map(|_| ()),
        Command::Demo { stay, args } => demo::run(stay, &args),
        Command::Check => check(),
        Command::Contracts => contracts::test(),
        Command::Test { full } => test(full),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("\nxtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), Failed> {
    Step::cargo("format", &["fmt", "--all", "--", "--check"]).run()?;
    layering::check()?;
    Step::cargo(
        "clippy",
        &["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )
    .run()?;
    Step::cargo("documentation", &["doc", "--release", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

fn test(full: bool) -> Result<(), Failed> {
    check()?;
    contracts::test()?;
    let tests = Step::cargo("tests", &["test", "--release", "--workspace"]);
    // Property tests draw the same cases on every machine, so that a commit passes or fails for
    // everybody; `--full` and whoever sets the variable search further.
    let tests = match full || std::env::var_os("PROPTEST_RNG_SEED").is_some() {
        true => tests,
        false => tests.env("PROPTEST_RNG_SEED", "1"),
    };
    tests.run()?;
    if full {
        // --tests leaves out documentation examples, of which the ignored ones are not tests.
        Step::cargo(
            "production-size tests",
            &["test", "--release", "--workspace", "--tests", "--", "--ignored", "--test-threads=1"],
        )
        .run()?;
        Step::cargo("benches build", &["bench", "--workspace", "--no-run"]).run()?;
    }
    Ok(())
}
