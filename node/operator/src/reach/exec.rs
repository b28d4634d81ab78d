//! Running a command in a replica's container.

use std::{
    io::{self, Read},
    thread,
};

use tokio::{
    io::{AsyncWriteExt as _, split},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;
use veil_node_reach::{ReachFailure, frame};
use veil_protocol_spec::{
    codec::Bytes,
    reach::{Action, ExecInput, ExecOutput, ExecWanted, PIECE},
};

use super::{Placed, ReachError, Way};

/// Runs a command; gives it what comes from `input`, and `output` what it writes. The code with which it ends.
///
/// # Errors
/// [`ReachError`].
pub async fn run(
    way: &Way,
    placed: &Placed,
    wanted: ExecWanted,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, ReachError> {
    let reached = way.reach(placed, Action::Exec(wanted)).await?;
    let (mut reads, mut writes) = split(reached.open().await?);
    let feeding = tokio::spawn(async move {
        while let Some(input) = input.recv().await {
            if frame::send(&mut writes, &input).await.is_err() {
                return; // the other half hears why
            }
        }
        let _ = writes.shutdown().await; // as above
    });
    let _feeding = AbortOnDropHandle::new(feeding);
    let worker = placed.worker;
    loop {
        match frame::read::<ExecOutput>(&mut reads).await {
            Ok(Some(ExecOutput::Exit(code))) => return Ok(code),
            Ok(Some(ExecOutput::Failed(refusal))) => {
                return Err(ReachFailure::Refused { worker, refusal }.into());
            }
            Ok(Some(written)) => {
                // Nobody may read it; the command ends all the same.
                let _ = output.send(written).await;
            }
            Ok(None) | Err(_) => return Err(reached.over().await.into()),
        }
    }
}

/// Passes on what `input` gives. A thread of its own: reading a terminal cannot be given up, and ends with the process.
pub fn pass_input(mut input: impl Read + Send + 'static, feed: mpsc::Sender<ExecInput>) {
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(read @ 1..) => buffer.get(..read).unwrap_or_default().to_vec(),
                Ok(_) | Err(_) => break,
            };
            if feed.blocking_send(ExecInput::Bytes(Bytes(read))).is_err() {
                return;
            }
        }
        let _ = feed.blocking_send(ExecInput::End); // the command has ended
    });
}
