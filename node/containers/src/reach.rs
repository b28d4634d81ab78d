//! A replica's container from outside: what it writes, commands in it, connections to its ports.
//!
//! # Caveats
//! - A container is looked up by its name, which follows from the replica, for each call anew: what another replica got
//!   meanwhile, such as its address, is never reached in its place.
//! - A connection is to the container's address on its bridge network, from this machine, as those of health checks: a
//!   program that listens on its own loopback address only is not reached.
//! - Whoever gives a command up leaves it running, as engines do: [`RunningCommand::process`] says what is to be ended.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::{ContainerInspectResponse, ContainerStateStatusEnum, ExecConfig},
    query_parameters::{LogsOptionsBuilder, ResizeExecOptionsBuilder},
};
use futures::{Stream, StreamExt as _};
use hyper::body::Bytes;
use tokio::{
    io::AsyncWrite,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use veil_node_process::moment::unix_nanos;

use crate::{
    container,
    engine::{Docker, Kind},
    error::DockerError,
    executor::Executor,
    labels,
    probe::address,
    replica::ReplicaId,
};

/// How long a program may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an engine may take to know how a command has ended whose output is over.
const ENDING: Duration = Duration::from_secs(5);
/// Between two questions for it.
const ASKING: Duration = Duration::from_millis(20);

/// Why a replica is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// It has no container now.
    #[error("there is no container of this replica now")]
    NoContainer,
    /// Its container does not run.
    #[error("the container does not run now")]
    NotRunning,
    /// Its program accepts no connections there.
    #[error("nothing listens on the port")]
    NothingListens,
    /// The engine.
    #[error(transparent)]
    Engine(#[from] DockerError),
}

/// A container as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The engine's id of it.
    pub container: String,
    /// When its last run began, in the engine's words.
    pub started: String,
    /// Whether it runs.
    pub running: bool,
    /// Where its ports are, if it runs.
    address: Option<IpAddr>,
}

impl Found {
    /// One whose ports are nowhere.
    #[must_use]
    pub const fn new(container: String, started: String, running: bool) -> Self {
        Self { container, started, running, address: None }
    }

    fn of(said: &ContainerInspectResponse) -> Option<Self> {
        let state = said.state.as_ref();
        let running = state.and_then(|state| state.status);
        let running = running == Some(ContainerStateStatusEnum::RUNNING);
        Some(Self {
            container: said.id.clone()?,
            started: state.and_then(|state| state.started_at.clone()).unwrap_or_default(),
            running,
            address: address(said).filter(|_| running),
        })
    }
}

/// Which part of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRange {
    /// Also what is yet to be written, until the container ends.
    pub follow: bool,
    /// Only what was written since, Unix time in seconds.
    pub since_seconds: u64,
    /// Only as many lines of what is there already, the last.
    pub tail: Option<u32>,
}

/// A piece of a log: a line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// When it was written, in nanoseconds of Unix time; 0 if the engine does not say.
    pub time: u64,
    /// Whether it is of the standard error.
    pub is_error: bool,
    /// What was written.
    pub bytes: Bytes,
}

/// What a container writes. An engine that fails ends it.
pub type LogParts = Pin<Box<dyn Stream<Item = Result<LogPart, DockerError>> + Send>>;

/// Output of a command: whether it is of the standard error, and what it is.
pub type CommandOutput = Pin<Box<dyn Stream<Item = Result<(bool, Bytes), DockerError>> + Send>>;

/// A command that runs in a container.
pub struct Running {
    /// Its standard input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes; ends with it.
    pub output: CommandOutput,
    /// How it fares.
    pub command: RunningCommand,
}

impl core::fmt::Debug for Running {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Running").field("command", &self.command).finish_non_exhaustive()
    }
}

/// A command that was begun.
#[derive(Clone, Debug)]
pub struct RunningCommand {
    docker: Docker,
    id: String,
}

impl Executor {
    /// The container of a replica, if it has one.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say.
    #[boxed]
    pub async fn find(&self, id: &ReplicaId) -> Result<Option<Found>, DockerError> {
        let names = [container::name(&self.owner, id), container::suspended_name(&self.owner, id)];
        for name in names {
            let said = match self.docker.inspect(&name).await {
                Err(error) if error.status() == Some(404) => continue,
                said => said?,
            };
            // A name can be anybody's; the labels are this worker's.
            let config = said.config.as_ref();
            let labels = config.and_then(|config| config.labels.as_ref()).and_then(labels::read);
            if labels.is_some_and(|labels| labels.id == *id) {
                return Ok(Found::of(&said));
            }
        }
        Ok(None)
    }

    /// A connection to a port of a replica that runs.
    ///
    /// # Errors
    /// [`ReachError`].
    #[boxed]
    pub async fn connect(&self, id: &ReplicaId, port: u16) -> Result<TcpStream, ReachError> {
        let found = self.find(id).await?.ok_or(ReachError::NoContainer)?;
        let address = found.address.ok_or(ReachError::NotRunning)?;
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        let connected = timeout(CONNECT, connecting).await;
        let connection = connected.ok().and_then(Result::ok).ok_or(ReachError::NothingListens)?;
        // Small writes are not to wait for each other; that an option is not set is no reason to refuse.
        let _ = connection.set_nodelay(true);
        // Had the container ended meanwhile, another could have its address.
        if self.find(id).await?.as_ref() != Some(&found) {
            return Err(ReachError::NotRunning);
        }
        Ok(connection)
    }

    /// What a container writes and has written.
    #[must_use]
    pub fn logs(&self, container: &str, range: LogRange) -> LogParts {
        let LogRange { follow, since_seconds, tail } = range;
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(i32::try_from(since_seconds).unwrap_or(i32::MAX))
            .tail(&tail)
            .build();
        let parts = self.docker.client.logs(container, Some(options));
        Box::pin(parts.map(|part| match part {
            Ok(LogOutput::StdErr { message }) => Ok(stamped(true, message)),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdIn { message }
                | LogOutput::Console { message },
            ) => Ok(stamped(false, message)),
            Err(error) => Err(DockerError::from_call("logs", error)),
        }))
    }

    /// Runs a command in a container, with a terminal of these rows and columns if they are given.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not run it.
    #[boxed]
    pub async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        input: bool,
        terminal: Option<(u16, u16)>,
    ) -> Result<Running, DockerError> {
        let docker = self.docker.clone();
        let size = terminal.map(|(rows, columns)| vec![rows.into(), columns.into()]);
        let config = ExecConfig {
            attach_stdin: Some(input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(terminal.is_some()),
            console_size: size,
            cmd: Some(command),
            privileged: Some(false),
            ..ExecConfig::default()
        };
        let creating = docker.client.create_exec(container, config);
        let id = docker.call(Kind::Change, "create exec", creating).await?.id;
        let options = StartExecOptions { tty: terminal.is_some(), ..StartExecOptions::default() };
        let starting = docker.client.start_exec(&id, Some(options));
        let started = docker.call(Kind::Change, "start exec", starting).await?;
        let StartExecResults::Attached { output, input } = started else {
            let message = "the command was started, and not attached to".to_owned();
            return Err(DockerError::Refused { call: "start exec", status: 200, message });
        };
        let output = output.map(|part| match part {
            Ok(LogOutput::StdErr { message }) => Ok((true, message)),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdIn { message }
                | LogOutput::Console { message },
            ) => Ok((false, message)),
            Err(error) => Err(DockerError::from_call("exec", error)),
        });
        let command = RunningCommand { docker, id };
        Ok(Running { input, output: Box::pin(output), command })
    }
}

impl RunningCommand {
    /// Its terminal has another size.
    ///
    /// # Errors
    /// [`DockerError`].
    #[boxed]
    pub async fn resize(&self, (rows, columns): (u16, u16)) -> Result<(), DockerError> {
        let options = ResizeExecOptionsBuilder::new().h(rows.into()).w(columns.into()).build();
        let resizing = self.docker.client.resize_exec(&self.id, options);
        self.docker.call(Kind::Change, "resize exec", resizing).await
    }

    /// Its process, in the engine's numbers, as long as it runs.
    ///
    /// # Errors
    /// [`DockerError`].
    #[boxed]
    pub async fn process(&self) -> Result<Option<i64>, DockerError> {
        let looking = self.docker.client.inspect_exec(&self.id);
        let said = self.docker.call(Kind::Look, "inspect exec", looking).await?;
        Ok(said.pid.filter(|_| said.running == Some(true)))
    }

    /// The code with which it has ended, once its output is over; nothing if the engine does not know in time.
    ///
    /// # Errors
    /// [`DockerError`].
    #[boxed]
    pub async fn exit_code(&self) -> Result<Option<i64>, DockerError> {
        let end = Instant::now() + ENDING;
        loop {
            let looking = self.docker.client.inspect_exec(&self.id);
            let said = self.docker.call(Kind::Look, "inspect exec", looking).await?;
            if said.running != Some(true) && said.exit_code.is_some() {
                return Ok(said.exit_code);
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            sleep(ASKING).await;
        }
    }
}

/// The time that the engine puts before each piece, apart from the piece.
fn stamped(is_error: bool, mut bytes: Bytes) -> LogPart {
    let space = bytes.iter().take(40).position(|byte| *byte == b' ');
    let stamp = space.and_then(|end| core::str::from_utf8(bytes.get(..end)?).ok());
    let time = stamp.and_then(unix_nanos);
    if let (Some(_), Some(end)) = (time, space) {
        let _ = bytes.split_to(end + 1);
    }
    LogPart { time: time.unwrap_or_default(), is_error, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_told_apart_from_it() {
        let read = |text: &'static str| stamped(true, Bytes::from_static(text.as_bytes()));
        let line = read("2026-11-27T19:13:18.849905699Z hello world\n");
        assert_eq!(
            (line.time, &line.bytes[..]),
            (1_795_806_798_849_905_699, &b"hello world\n"[..])
        );
        let empty = read("2026-11-27T19:13:18.849905699Z \n");
        assert_eq!(&empty.bytes[..], b"\n");
        for text in ["hello world\n", "", "2026-11-27T19:13:18Z", " x"] {
            let line = read(text);
            assert_eq!((line.time, &line.bytes[..]), (0, text.as_bytes()), "{text}");
        }
    }
}
