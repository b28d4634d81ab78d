//! Health checks by a command on Podman. It runs the command when it is told to, and leaves the clock to systemd,
//! which a machine may not have; the worker is the clock everywhere. How long a command may take, and how often it
//! may fail, Podman leaves to whoever asks, too.

use std::time::Duration;

use bollard::errors::Error;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::{engine::Docker, transport};

/// What [`Docker::runs_check`] brings.
type Passes = Option<bool>;

/// The check of one run of a container.
#[derive(Default)]
pub(crate) struct Command {
    running: Option<AbortOnDropHandle<Passes>>,
}

impl Command {
    /// Whether `run` says so within `patience`; None if the engine does not say.
    ///
    /// What has taken longer has failed. It goes on in the container, and no other is begun beside it: they would
    /// become as many as there may be processes.
    pub(crate) async fn passes(
        &mut self,
        patience: Duration,
        run: impl Future<Output = Passes> + Send + 'static,
    ) -> Passes {
        let is_late = self.running.is_some();
        let running = self.running.get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(run)));
        let Ok(ended) = timeout(patience, running).await else { return Some(false) };
        self.running = None;
        if is_late { Some(false) } else { ended.ok().flatten() }
    }
}

#[derive(Deserialize)]
struct Checked {
    #[serde(rename = "Status")]
    status: String,
}

impl Docker {
    /// Has Podman run the container's health check once; None if it says nothing that is understood.
    pub(crate) async fn runs_check(self, container: String) -> Passes {
        let path = format!("/v4.0.0/libpod/containers/{container}/healthcheck");
        let answer: Result<_, Error> = transport::get(&self.dial, &path).await;
        let (status, body) = answer.ok()?;
        match status {
            StatusCode::OK => {
                let checked: Checked = serde_json::from_slice(&body).ok()?;
                Some(checked.status == "healthy")
            }
            StatusCode::CONFLICT => Some(false), // it does not run
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_command_that_takes_too_long_has_failed_and_no_other_runs_beside_it() {
        let (mut command, begun) = (Command::default(), Arc::new(AtomicUsize::new(0)));
        let run = |seconds| {
            let begun = Arc::clone(&begun);
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(seconds)).await;
                Some(true)
            }
        };
        assert_eq!(command.passes(PATIENCE, run(900)).await, Some(true));
        assert_eq!(command.passes(PATIENCE, run(2_500)).await, Some(false));
        for _ in 0..2 {
            assert_eq!(command.passes(PATIENCE, run(0)).await, Some(false));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        assert_eq!(command.passes(PATIENCE, run(0)).await, Some(true));
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_the_engine_is_no_failure_and_that_of_the_command_is() {
        let mut command = Command::default();
        assert_eq!(command.passes(PATIENCE, async { None }).await, None);
        assert_eq!(command.passes(PATIENCE, async { Some(false) }).await, Some(false));
        assert_eq!(command.passes(PATIENCE, pending()).await, Some(false));
    }
}
