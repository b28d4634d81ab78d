//! The containers of a worker's engine; and commands in them whose operator has gone, which end.
//!
//! Engines have no call that ends a command in a container. This worker asks the engine for the command's process, and
//! tells all processes of its session to end: first as a terminal does that is closed, then without asking. Where this
//! worker may not do that, as one that is not root, the container's own `kill` does it.
//!
//! # Caveats
//! - What a command has put into a session of its own (`setsid`, a daemon) goes on.
//! - Where this worker may signal no process of the container, an image without `kill` keeps its commands; so does an
//!   engine whose processes are not this machine's. That is in the worker's log.
//! - A worker that is killed ends no commands: they find their input at its end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::{net::TcpStream, time::sleep};
use veil_node_containers::{
    DockerError, Executor, Found, LogParts, LogRange, ReachError, ReplicaId, Running,
    RunningCommand,
};
use veil_node_process::session::{Members, Tell};

use crate::host::{Command, Host, Ran};

/// How long a command may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(100);
/// For the container's own `kill`.
const KILLING: Duration = Duration::from_secs(10);

#[async_trait]
impl Host for Arc<Executor> {
    async fn find(&self, id: &ReplicaId) -> Result<Option<Found>, DockerError> {
        Executor::find(self, id).await
    }

    fn logs(&self, container: &str, range: LogRange) -> LogParts {
        Executor::logs(self, container, range)
    }

    async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        input: bool,
        terminal: Option<(u16, u16)>,
    ) -> Result<Ran, DockerError> {
        let ran = Executor::exec(self, container, command, input, terminal).await?;
        let Running { input, output, command } = ran;
        let (executor, container) = (Self::clone(self), container.to_owned());
        Ok(Ran { input, output, command: Arc::new(OnEngine { executor, container, command }) })
    }

    async fn connect(&self, id: &ReplicaId, port: u16) -> Result<TcpStream, ReachError> {
        Executor::connect(self, id, port).await
    }
}

/// A command on the engine of a worker.
struct OnEngine {
    executor: Arc<Executor>,
    container: String,
    command: RunningCommand,
}

#[async_trait]
impl Command for OnEngine {
    async fn resize(&self, size: (u16, u16)) -> Result<(), DockerError> {
        self.command.resize(size).await
    }

    async fn exit_code(&self) -> Result<Option<i64>, DockerError> {
        self.command.exit_code().await
    }

    async fn end(&self) {
        let container = &self.container;
        let members = match self.command.process().await {
            Ok(Some(process)) => Members::of(process, container),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%container, %error, "a command whose operator has gone is not found");
                return;
            }
        };
        let Some(members) = members else {
            tracing::warn!(%container, "a command whose operator has gone has no process: it goes on");
            return;
        };
        // As seen from within, and only while it is there.
        let inner = on_this_machine(&members, Members::inner_leader).await;
        let told = on_this_machine(&members, |members| members.tell(Tell::HangUp)).await;
        if told > 0 && self.has_ended(&members).await {
            return;
        }
        if on_this_machine(&members, |members| members.tell(Tell::Kill)).await > 0
            && self.has_ended(&members).await
        {
            return;
        }
        if let Some(inner) = inner {
            self.kill_within(inner).await;
        }
        if !self.has_ended(&members).await {
            tracing::warn!(
                %container,
                "a command whose operator has gone goes on: this worker may not end its processes (run it as root), \
                 and the image has no `kill` that does"
            );
        }
    }
}

impl OnEngine {
    /// Whether it does so in time.
    async fn has_ended(&self, members: &Members) -> bool {
        let ending = async {
            loop {
                let runs = !matches!(self.command.process().await, Ok(None));
                if !runs && on_this_machine(members, Members::count).await == 0 {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        tokio::time::timeout(GRACE, ending).await.is_ok()
    }

    /// A process that an engine starts leads a group, which `kill` knows by a negative number.
    async fn kill_within(&self, inner: u32) {
        let command = ["kill".to_owned(), "-9".to_owned(), format!("-{inner}")].to_vec();
        let killing = async {
            let running = self.executor.exec(&self.container, command, false, None).await?;
            let mut output = running.output;
            while output.next().await.is_some() {}
            running.command.exit_code().await
        };
        // What came of it shows in the processes.
        let killed = tokio::time::timeout(KILLING, killing).await;
        tracing::debug!(container = %self.container, ?killed, "the container's own kill");
    }
}

/// Reads, and writes to, the operating system, which may wait.
async fn on_this_machine<T: Default + Send + 'static>(
    members: &Members,
    ask: impl FnOnce(&Members) -> T + Send + 'static,
) -> T {
    let members = members.clone();
    tokio::task::spawn_blocking(move || ask(&members)).await.unwrap_or_default()
}
