//! Running a command in a replica's container.

use tokio::{
    io::{AsyncWriteExt as _, split},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;
use veil_node_reach::{ReachFailure, frame};
use veil_protocol_spec::reach::{Action, ExecInput, ExecOutput, ExecWanted};

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
