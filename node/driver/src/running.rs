//! The handles of a running machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use veil_committee_machine::{Machine, Millis};

use crate::{
    config::DriverConfig,
    error::{DriverError, Stopped},
    host::Host,
    outbox,
    run::{Command, Ended, Thread},
    transport::{AnyTransport, Inbound, Transport},
};

/// A running machine.
pub struct Driver<M: Machine, H: Host<M>> {
    commands: mpsc::Sender<Command<M>>,
    stop: CancellationToken,
    ended: CancellationToken,
    dropped: Arc<AtomicU64>,
    task: JoinHandle<Ended<M, H>>,
    senders: Vec<JoinHandle<()>>,
    drain: CancellationToken,
    /// A driver that is dropped ends its thread and its senders.
    guards: [DropGuard; 2],
}

/// Gives commands to a running machine; cheap to clone.
pub struct Control<M: Machine> {
    commands: mpsc::Sender<Command<M>>,
}

impl<M: Machine> Clone for Control<M> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone() }
    }
}

impl<M: Machine> Control<M> {
    /// Runs `f` on the machine's thread; its effects follow as after any input.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut M, Millis) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let command: Command<M> = Box::new(move |machine, now| drop(reply.send(f(machine, now))));
        self.commands.send(command).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl<M: Machine, H: Host<M>> Driver<M, H> {
    /// Starts the machine's thread and the senders. To be called within a tokio runtime.
    pub fn start(
        config: DriverConfig,
        machine: M,
        host: H,
        transport: impl Transport,
        incoming: mpsc::Receiver<Inbound>,
    ) -> Self {
        Self::start_over(config, machine, host, &AnyTransport::new(transport), incoming)
    }

    fn start_over(
        config: DriverConfig,
        machine: M,
        host: H,
        transport: &AnyTransport,
        incoming: mpsc::Receiver<Inbound>,
    ) -> Self {
        let (commands, received) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let drain = CancellationToken::new();
        let dropped = Arc::new(AtomicU64::new(0));
        let (outboxes, senders) = outbox::start(&config, transport, &drain, &dropped);
        let thread = Thread {
            config,
            machine,
            host,
            incoming,
            commands: received,
            outboxes,
            stop: stop.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let guard = ended.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            thread.run()
        });
        let guards = [stop.clone().drop_guard(), drain.clone().drop_guard()];
        Self { commands, stop, ended, dropped, task, senders, drain, guards }
    }

    /// For commands from elsewhere.
    #[must_use]
    pub fn control(&self) -> Control<M> {
        Control { commands: self.commands.clone() }
    }

    /// Runs `f` on the machine's thread; its effects follow as after any input.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut M, Millis) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.control().with(f).await
    }

    /// Completes when the machine's thread has ended, for whatever reason.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Messages that found their queue full, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the machine, then gives the queues until `deadline` to empty.
    ///
    /// # Errors
    /// [`DriverError::Panicked`]; other errors are in [`Ended::error`].
    pub async fn finish(self, deadline: Duration) -> Result<Ended<M, H>, DriverError> {
        let Self { stop, task, senders, drain, guards: _guards, .. } = self;
        stop.cancel();
        let ended = task.await.map_err(|error| DriverError::Panicked(error.to_string()))?;
        drain.cancel();
        let aborts: Vec<_> = senders.iter().map(JoinHandle::abort_handle).collect();
        let all = futures::future::join_all(senders);
        if tokio::time::timeout(deadline, all).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        Ok(ended)
    }

    /// Ends the machine at once; what is queued is lost, as in a crash.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn kill(self) -> Result<Ended<M, H>, DriverError> {
        self.senders.iter().for_each(JoinHandle::abort);
        self.stop.cancel();
        self.task.await.map_err(|error| DriverError::Panicked(error.to_string()))
    }
}
