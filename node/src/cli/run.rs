//! What commands that talk to others share: a runtime, the exit code of an error, logs.

use std::{fs::File, path::Path, sync::Mutex};

use tracing_subscriber::EnvFilter;

use super::{Exit, complain};

/// Environment variable that says what is logged, in the syntax of `tracing`.
const LOG_VARIABLE: &str = "VEIL_LOG";

/// An error of a command.
pub(super) trait Failure: core::fmt::Display {
    /// The exit code, and the word for it in the JSON output.
    fn exit(&self) -> (Exit, &'static str);
}

/// Runs a command on a runtime of its own.
pub(super) fn run<F: Failure>(json: bool, command: impl Future<Output = Result<Exit, F>>) -> Exit {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(json, "runtime", &error);
            return Exit::Files;
        }
    };
    let exit = runtime.block_on(command).unwrap_or_else(|failure| {
        let (exit, kind) = failure.exit();
        complain(json, kind, &failure);
        exit
    });
    // What computes in the background has nothing left to tell.
    runtime.shutdown_background();
    exit
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Logs into a file from now on.
pub(super) fn log_to_file(path: &Path) -> std::io::Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false);
    let _ = logs.with_writer(Mutex::new(file)).try_init(); // a second command in one process: tests
    Ok(())
}
