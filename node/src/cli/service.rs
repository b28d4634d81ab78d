//! What commands that run until they are told to stop have in common: logs, signals, exit codes.

use std::{future::Future, process::ExitCode};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Exit;

/// Logs go to standard error; `VEIL_LOG` says which, in the syntax of `tracing`'s filters.
pub(super) fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_env("VEIL_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn,alloy=warn,hyper=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second call in one process fails, and then logging is on already.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}

/// Runs a service until it ends, or until SIGINT or SIGTERM has told it to stop and it has.
pub(super) fn run<E, F>(json_logs: bool, service: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    E: core::fmt::Display,
    F: Future<Output = Result<(), E>>,
{
    start_logging(json_logs);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            super::complain(false, "runtime", &error);
            return Exit::Files.into();
        }
    };
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        tokio::spawn(stop_on_signal(stop.clone()));
        service(stop).await
    });
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            super::complain(false, "service", &error);
            Exit::Failed.into()
        }
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    // Without handlers the process simply ends on a signal, which a restart mends.
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}
