//! The `veil` binary; the parts are in the library of this package.

use std::process::ExitCode;

use veil_node::cli::Cli;

fn main() -> ExitCode {
    Cli::read().map_or_else(|exit| exit, Cli::run)
}
