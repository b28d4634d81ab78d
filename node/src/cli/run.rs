//! What every command goes through: its runtime, its logs, the signals that stop it, its failure.

use std::{
    env,
    fs::File,
    io::{IsTerminal as _, stderr},
    path::Path,
    pin::Pin,
    sync::Mutex,
};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};
use veil_node_config::process_environment;
use veil_node_terminal::waiting;
pub(super) use veil_node_terminal::waiting::TRANSACTION;

use super::{
    failure::{Exit, Failure},
    output,
};

/// Environment variable that says what is logged, in the syntax of `tracing`; else it is [`LOG_DEFAULT`].
const LOG_VARIABLE: &str = "VEIL_LOG";
const LOG_DEFAULT: &str = "info";

/// Tells why a command failed, as JSON on standard output or as text on standard error.
pub(super) fn conclude(json: bool, result: Result<Exit, Failure>) -> Exit {
    waiting::over();
    result.unwrap_or_else(|failure| {
        if let Some(batch) = &failure.unsigned {
            return output::unsigned(json, batch).map_or(Exit::Files, |_| failure.exit);
        }
        let object = json!({ "error": failure.message, "kind": failure.kind });
        if !json || output::show(true, &object, |_| Ok(())).is_err() {
            output::note(format!("error: {}", failure.message));
        }
        failure.exit
    })
}

/// Runs a command on a runtime of its own.
///
/// # Errors
/// The command's.
pub(super) fn block_on(
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        let message = format!("the system gives no threads ({error}); see `ulimit -a`");
        Failure::new(Exit::Failed, "runtime", message)
    })?;
    // Boxed: else the runtime's two schedulers are generated for each command.
    let command: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(command);
    let ended = runtime.block_on(command);
    // What computes in the background has nothing left to tell.
    runtime.shutdown_background();
    ended
}

/// Logs to standard error from now on, as JSON if told to.
pub(super) fn log_to_stderr(json: bool) {
    let colours = stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    log(BoxMakeWriter::new(stderr), colours, json);
}

/// Logs into a file from now on.
///
/// # Errors
/// [`Failure::file`].
pub(super) fn log_to_file(path: &Path) -> Result<(), Failure> {
    let file = File::options().create(true).append(true).open(path).map_err(Failure::file(path))?;
    log(BoxMakeWriter::new(Mutex::new(file)), false, false);
    Ok(())
}

/// Logs what `VEIL_LOG` selects, from `info` up by default.
fn log(to: BoxMakeWriter, colours: bool, json: bool) {
    let wanted = process_environment(LOG_VARIABLE);
    let wanted = wanted.as_deref().unwrap_or(LOG_DEFAULT);
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        output::note(format!("{LOG_VARIABLE}: {error}; `{LOG_DEFAULT}` is logged"));
        EnvFilter::new(LOG_DEFAULT)
    });
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(to)
        .with_ansi(colours)
        .log_internal_errors(false); // they would be printed, and a closed standard error panics
    // An error means that something in this process logs already.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}

/// Is cancelled by SIGINT and SIGTERM. A second one ends the process at once.
///
/// # Errors
/// If the system takes no handler.
pub(super) fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let handler = |kind| {
        signal(kind).map_err(|error| {
            let message = format!("signals cannot be handled: {error}");
            Failure::new(Exit::Failed, "runtime", message)
        })
    };
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stopping.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("stopping; once more to stop at once");
            stopping.cancel();
        }
    });
    Ok(stop)
}
