//! The `veil` binary; the parts are in the library of this package.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    veil_node::cli::Cli::parse().run()
}
