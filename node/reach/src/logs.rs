//! Logs, at the worker: what a container writes, over its restarts.
//!
//! A replica whose container is started again, or made anew, is followed further: what was sent is told by its time.

use std::{io, time::Duration};

use futures::{FutureExt as _, StreamExt as _};
use tokio::{
    io::{AsyncWriteExt as _, BufWriter},
    time::sleep,
};
use veil_node_containers::{Found, LogPart, LogRange, ReplicaId};
use veil_node_p2p::ByteStream;
use veil_protocol_spec::{
    codec::Bytes,
    reach::{LogOutput, LogPiece, LogsWanted, PIECE, Refusal},
};

use crate::{
    authorise::{Place, World},
    frame,
    host::Host,
};

const NANOSECONDS: u64 = 1_000_000_000;
/// Between two looks at a container that does not run, or is not there.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes that wait to be sent together.
const BUFFER: usize = 64 << 10;

type Out = BufWriter<ByteStream>;

/// Sends a log until it is over, or as long as it is followed.
pub(crate) async fn send(
    world: &dyn World,
    host: &dyn Host,
    id: ReplicaId,
    wanted: LogsWanted,
    stream: ByteStream,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, stream);
    let LogsWanted { follow, since, mut tail } = wanted;
    // All that was written later is wanted, and not sent yet.
    let mut after = since.map_or(0, |since| since.saturating_sub(1));
    let mut read: Option<Found> = None;
    loop {
        let found = match host.find(&id).await {
            Ok(found) => found,
            Err(error) => return end(&mut out, &LogOutput::Failed(Refusal::engine(&error))).await,
        };
        let is_new = |found: &Found| {
            let run = |of: &Found| (of.container.clone(), of.started.clone());
            found.running || read.as_ref().map(run) != Some(run(found))
        };
        match found.filter(is_new) {
            Some(found) => {
                let range =
                    LogRange { follow, since_seconds: after / NANOSECONDS, tail: tail.take() };
                let parts = host.logs(&found.container, range);
                if let Err(refusal) = copy(parts, &mut after, &mut out).await? {
                    return end(&mut out, &LogOutput::Failed(refusal)).await;
                }
                if !follow {
                    return end(&mut out, &LogOutput::End).await;
                }
                let runs_on = found.running;
                read = Some(found);
                if runs_on {
                    sleep(LOOK).await;
                }
            }
            None if !follow => {
                return end(&mut out, &LogOutput::Failed(Refusal::NoContainer)).await;
            }
            None if world.place(id.job, id.replica) == Place::EndedHere => {
                return end(&mut out, &LogOutput::End).await;
            }
            None => sleep(LOOK).await,
        }
    }
}

/// Sends what comes, at once when nothing more is there to be sent with it.
async fn copy(
    mut parts: veil_node_containers::LogParts,
    after: &mut u64,
    out: &mut Out,
) -> io::Result<Result<(), Refusal>> {
    let begun = *after;
    loop {
        let next = match parts.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush().await?;
                parts.next().await
            }
        };
        let LogPart { time, is_error, bytes } = match next {
            None => return Ok(Ok(())),
            Some(Err(error)) => return Ok(Err(Refusal::engine(&error))),
            Some(Ok(part)) => part,
        };
        // The engine takes whole seconds.
        if time != 0 && time <= begun {
            continue;
        }
        *after = time.max(*after);
        for piece in bytes.chunks(PIECE) {
            let piece = LogPiece { time, is_error, bytes: Bytes(piece.to_vec()) };
            frame::write(out, &LogOutput::Piece(piece)).await?;
        }
    }
}

async fn end(out: &mut Out, last: &LogOutput) -> io::Result<()> {
    frame::write(out, last).await?;
    out.shutdown().await
}
