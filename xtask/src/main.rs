//! Set-up, tests and checks of Veil: `cargo xtask <command>`.
//!
//! Each step is announced with its command line and followed by what it cost; the first one that fails
//! is named and ends the run. A run of several steps ends with a table of their costs. Exit codes: 0 all
//! steps passed, 1 a step failed, 2 the command line is wrong.
//!
//! Everything that compiles runs with `--release`, so that tfhe is compiled once for tests, benches
//! and the binary, and checked once for clippy and rustdoc; see `docs/adr/0002-release-profile.md`.

mod containers;
mod contracts;
mod cost;
mod demo;
mod failed;
mod house;
mod ops;
mod package;
mod podman;
mod setup;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    cost::{COLUMNS, CostReport},
    failed::Failed,
    step::Step,
};

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
        /// What to run in place of the sample job: import, placement, links, a page.
        #[arg(long)]
        example: Option<demo::Example>,
        /// Passed on to `veil devnet`, such as `--json` or `--processes`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Before a commit: format, rules of the house, clippy, documentation.
    Check {
        /// Clippy and documentation of one crate only, such as `veil-node-p2p` or `node/p2p`.
        package: Option<String>,
    },
    /// Format, compile and test the contracts, and compare what the Rust side has of them.
    Contracts,
    /// Check what operators put into Prometheus and Grafana: configuration, alerts, dashboard.
    Ops,
    /// What operators install: a Debian package, a container image, a bill of materials. Without options what takes
    /// neither root nor a network.
    Package(package::Options),
    /// Make faults in the contracts, one at a time, and tell which of them no test notices. Takes hours.
    Mutate(contracts::mutate::Options),
    /// The containers' tests on Podman, with a service of its own that ends with them.
    Podman,
    /// `check`, then all tests.
    Test {
        /// Those of one crate only, such as `veil-node-p2p` or `node/p2p`.
        package: Option<String>,
        /// Also the production-size tests (`#[ignore]`d, one at a time), the containers' tests on Podman if it is
        /// installed, and the benches' build.
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    let mut report = CostReport::start();
    let result = match Cli::parse().command {
        Command::Setup { docker: true } => setup::containers(Vec::new()).map(|_| ()),
        Command::Setup { docker: false } => setup::run().map(|_| ()),
        Command::Demo { stay, example, args } => demo::run(example, stay, &args),
        Command::Check { package } => {
            Scope::of(package).and_then(|scope| check(&scope, &mut report))
        }
        Command::Contracts => contracts::test(),
        Command::Ops => ops::test(),
        Command::Package(options) => package::run(&options),
        Command::Mutate(options) => contracts::mutate::run(&options),
        Command::Podman => podman::test(),
        Command::Test { package, full } => {
            Scope::of(package).and_then(|scope| test(&scope, full, &mut report))
        }
    };
    if !report.is_empty() {
        println!("\n{COLUMNS}\n{report}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("\nxtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

/// What is compiled and tested: everything, or one crate.
enum Scope {
    Workspace,
    Package(String),
}

impl Scope {
    fn of(package: Option<String>) -> Result<Self, Failed> {
        package.map_or(Ok(Self::Workspace), |given| house::package(&given).map(Self::Package))
    }

    /// The cargo step `command`, of this scope, with `options`.
    fn cargo(&self, name: &'static str, command: &str, options: &[&str]) -> Step {
        let scope = match self {
            Self::Workspace => &["--workspace"][..],
            Self::Package(package) => &["--package", package],
        };
        Step::cargo(name, &[&[command, "--release"], scope, options].concat())
    }
}

fn check(scope: &Scope, report: &mut CostReport) -> Result<(), Failed> {
    report.measure("format", || Step::cargo("format", &["fmt", "--all", "--", "--check"]).run())?;
    report.measure("house", house::check)?;
    report.measure("clippy", || {
        scope.cargo("clippy", "clippy", &["--all-targets", "--", "-D", "warnings"]).run()
    })?;
    report.measure("documentation", || {
        let step = scope.cargo("documentation", "doc", &["--no-deps"]);
        step.env("RUSTDOCFLAGS", "-D warnings").run()
    })
}

fn test(scope: &Scope, full: bool, report: &mut CostReport) -> Result<(), Failed> {
    check(scope, report)?;
    if matches!(scope, Scope::Workspace) {
        report.measure("contracts", contracts::test)?;
        report.measure("ops", ops::test)?;
    }
    report.measure("tests", || {
        let tests = scope.cargo("tests", "test", &[]);
        // Property tests draw the same cases on every machine, so that a commit passes or fails for
        // everybody; `--full`, and the variable, search further.
        match full || std::env::var_os("PROPTEST_RNG_SEED").is_some() {
            true => tests,
            false => tests.env("PROPTEST_RNG_SEED", "1"),
        }
        .run()
    })?;
    if matches!(scope, Scope::Workspace) {
        report.measure("package", package::test)?;
    }
    if full {
        report.measure("production-size tests", || {
            // --tests leaves out documentation examples, of which the ignored ones are not tests.
            let ignored = ["--tests", "--", "--ignored", "--test-threads=1"];
            scope.cargo("production-size tests", "test", &ignored).run()
        })?;
        if matches!(scope, Scope::Workspace) {
            match podman::is_installed() {
                true => report.measure("containers on Podman", podman::test)?,
                false => println!("\n== podman: not installed; its tests are left out"),
            }
            report.measure("benches build", || {
                Step::cargo("benches build", &["bench", "--workspace", "--no-run"]).run()
            })?;
        }
    }
    Ok(())
}
