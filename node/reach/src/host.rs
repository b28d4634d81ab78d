//! What a worker does with containers for those who reach them.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use tokio::{io::AsyncWrite, net::TcpStream};
use veil_node_containers::{
    CommandOutput, DockerError, Found, LogParts, LogRange, ReachError, ReplicaId,
};
use veil_protocol_spec::reach::Refusal;

/// A command that was begun.
#[async_trait]
pub trait Command: Send + Sync {
    /// Its terminal has other rows and columns.
    ///
    /// # Errors
    /// [`DockerError`].
    async fn resize(&self, size: (u16, u16)) -> Result<(), DockerError>;

    /// The code with which it has ended, once its output is over; nothing if the engine does not know in time.
    ///
    /// # Errors
    /// [`DockerError`].
    async fn exit_code(&self) -> Result<Option<i64>, DockerError>;

    /// Ends it and what it has started, as far as this worker can; returns when that is done.
    async fn end(&self);
}

/// A command that runs.
pub struct Ran {
    /// Its standard input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes; ends with it.
    pub output: CommandOutput,
    /// How it fares.
    pub command: Arc<dyn Command>,
}

impl core::fmt::Debug for Ran {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ran").finish_non_exhaustive()
    }
}

/// The containers of a worker; but for tests, its [`Executor`](veil_node_containers::Executor).
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The container of a replica, if it has one.
    ///
    /// # Errors
    /// [`DockerError`].
    async fn find(&self, id: &ReplicaId) -> Result<Option<Found>, DockerError>;

    /// What a container writes.
    fn logs(&self, container: &str, range: LogRange) -> LogParts;

    /// Runs a command in a container, with a terminal of these rows and columns if they are given.
    ///
    /// # Errors
    /// [`DockerError`].
    async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        input: bool,
        terminal: Option<(u16, u16)>,
    ) -> Result<Ran, DockerError>;

    /// A connection to a port of a replica.
    ///
    /// # Errors
    /// [`ReachError`].
    async fn connect(&self, id: &ReplicaId, port: u16) -> Result<TcpStream, ReachError>;
}

/// What whoever reaches a container is told of that.
#[must_use]
pub fn refusal_of(error: &ReachError) -> Refusal {
    match error {
        ReachError::NoContainer => Refusal::NoContainer,
        ReachError::NotRunning => Refusal::NotRunning,
        ReachError::NothingListens => Refusal::NothingListens,
        ReachError::Engine(error) => Refusal::engine(error),
    }
}
