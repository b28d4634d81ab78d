//! Commands, at the worker.

use std::{io, sync::Arc};

use futures::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    runtime::Handle,
};
use veil_node_containers::ReplicaId;
use veil_node_p2p::ByteStream;
use veil_protocol_spec::{
    codec::Bytes,
    reach::{ExecInput, ExecOutput, ExecWanted, PIECE, Refusal, TerminalSize},
};

use crate::{
    frame,
    host::{Command, Host, Ran},
};

/// Ends a command when it is dropped, unless it was [over](Self::over).
struct EndsWithOperator(Option<Arc<dyn Command>>);

impl EndsWithOperator {
    fn new(command: Arc<dyn Command>) -> Self {
        Self(Some(command))
    }

    /// It has ended.
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for EndsWithOperator {
    fn drop(&mut self) {
        let Some(command) = self.0.take() else { return };
        // A session is dropped where it ran; but for a process that ends, there is a runtime.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { command.end().await });
        }
    }
}

/// Runs a command, and carries what goes to it and comes of it.
pub(crate) async fn run(
    host: &dyn Host,
    id: ReplicaId,
    wanted: ExecWanted,
    stream: ByteStream,
) -> io::Result<()> {
    let (from, mut to) = split(stream);
    let last = match begin(host, id, wanted).await {
        Err(refusal) => ExecOutput::Failed(refusal),
        Ok(Ran { input, output, command }) => {
            // Also where this is given up: the operator hangs up, or may reach the job no more.
            let ends = EndsWithOperator::new(Arc::clone(&command));
            let mut showing = std::pin::pin!(show(output, &mut to));
            let mut feeding = std::pin::pin!(feed(from, input, &*command));
            // The end of the input is not the end of the command.
            let shown = tokio::select! {
                shown = &mut showing => shown,
                fed = &mut feeding => match fed {
                    Ok(()) => showing.await,
                    Err(error) => return Err(error),
                },
            };
            match shown? {
                Err(refusal) => ExecOutput::Failed(refusal),
                Ok(()) => {
                    // What has closed its output, and goes on, is the container's.
                    ends.over();
                    ended(&*command).await
                }
            }
        }
    };
    frame::write(&mut to, &last).await?;
    to.shutdown().await
}

async fn begin(host: &dyn Host, id: ReplicaId, wanted: ExecWanted) -> Result<Ran, Refusal> {
    let found = host.find(&id).await.map_err(|error| Refusal::engine(&error))?;
    let found = found.ok_or(Refusal::NoContainer)?;
    if !found.running {
        return Err(Refusal::NotRunning);
    }
    let ExecWanted { command, input, terminal } = wanted;
    let size = terminal.map(|TerminalSize { rows, columns }| (rows, columns));
    let begun = host.exec(&found.container, command, input, size).await;
    begun.map_err(|error| Refusal::engine(&error))
}

async fn ended(command: &dyn Command) -> ExecOutput {
    match command.exit_code().await {
        Ok(Some(code)) => ExecOutput::Exit(i32::try_from(code).unwrap_or(i32::MAX)),
        Ok(None) => ExecOutput::Failed(Refusal::NotNow),
        Err(error) => ExecOutput::Failed(Refusal::engine(&error)),
    }
}

async fn show(
    mut output: veil_node_containers::CommandOutput,
    to: &mut WriteHalf<ByteStream>,
) -> io::Result<Result<(), Refusal>> {
    while let Some(part) = output.next().await {
        let (is_error, bytes) = match part {
            Ok(part) => part,
            Err(error) => return Ok(Err(Refusal::engine(&error))),
        };
        for piece in bytes.chunks(PIECE) {
            let piece = Bytes(piece.to_vec());
            let piece = if is_error { ExecOutput::Error(piece) } else { ExecOutput::Out(piece) };
            frame::send(to, &piece).await?;
        }
    }
    Ok(Ok(()))
}

async fn feed(
    mut from: ReadHalf<ByteStream>,
    mut input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
    command: &dyn Command,
) -> io::Result<()> {
    let mut is_open = true;
    loop {
        match frame::read(&mut from).await? {
            // A command that reads no more is not to be stopped for that.
            Some(ExecInput::Bytes(bytes)) if is_open => {
                let written = async {
                    input.write_all(&bytes.0).await?;
                    input.flush().await
                };
                is_open = written.await.is_ok();
            }
            Some(ExecInput::Bytes(_)) => {}
            Some(ExecInput::End) => {
                is_open = false;
                let _ = input.shutdown().await; // it has ended
            }
            Some(ExecInput::Size(TerminalSize { rows, columns })) => {
                // One that has just ended has none.
                let _ = command.resize((rows, columns)).await;
            }
            None => {
                let _ = input.shutdown().await; // it has ended
                return Ok(());
            }
        }
    }
}

/// The first byte of a stream, with which the other end begins it.
pub(crate) async fn begun(stream: &mut ByteStream) -> io::Result<()> {
    match stream.read_u8().await? {
        veil_protocol_spec::reach::BEGIN => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
