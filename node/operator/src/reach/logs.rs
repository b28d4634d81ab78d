//! Logs of all replicas of a job at once, over restarts and moves.

use std::{sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use veil_node_reach::{ReachFailure, frame};
use veil_protocol_spec::{
    ReplicaIndex,
    reach::{Action, LogOutput, LogPiece, LogsWanted, Refusal},
};

use super::{Named, Placed, ReachError, Way};
use crate::error::OperatorError;

/// Between two attempts to go on with a log.
const AGAIN: Duration = Duration::from_secs(1);
/// For the reason why a session has broken off.
const REASON: Duration = Duration::from_secs(3);

/// What there is to say.
#[derive(Clone, Debug)]
pub enum Said {
    /// A replica has written something.
    Piece(ReplicaIndex, LogPiece),
    /// Where it is read from now on, or why it is not read for a while.
    Note(ReplicaIndex, String),
}

/// Reads the logs of all replicas that are meant into `said`. Followed, it goes on with a replica that is started again,
/// is moved, or whose worker is not reached for a while, from where it was; it ends when the job is stopped.
///
/// # Errors
/// [`ReachError`] of the first replica whose log is not read.
#[boxed]
pub async fn read(
    way: Arc<Way>,
    named: Named,
    places: Vec<Placed>,
    wanted: LogsWanted,
    said: mpsc::Sender<Said>,
) -> Result<(), ReachError> {
    let mut reading = JoinSet::new();
    for placed in places {
        let one = Named { replica: Some(placed.replica), ..named.clone() };
        let log = Log { way: Arc::clone(&way), named: one, wanted, said: said.clone() };
        reading.spawn(log.read(placed));
    }
    drop(said);
    let mut first = Ok(());
    while let Some(ended) = reading.join_next().await {
        if let Ok(Err(error)) = ended
            && first.is_ok()
        {
            first = Err(error);
        }
    }
    first
}

/// The log of one replica.
struct Log {
    way: Arc<Way>,
    named: Named,
    wanted: LogsWanted,
    said: mpsc::Sender<Said>,
}

impl Log {
    async fn read(mut self, mut placed: Placed) -> Result<(), ReachError> {
        loop {
            let error = match self.read_from(&placed).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if matches!(error.refusal(), Some(Refusal::Stopped)) && self.wanted.follow {
                self.note(&placed, "the job was stopped".to_owned()).await;
                return Ok(());
            }
            if !self.wanted.follow || is_final(&error) {
                return Err(error);
            }
            self.note(&placed, error.to_string()).await;
            match self.next_place(&placed).await {
                Ok(Some(next)) => {
                    if next.worker != placed.worker {
                        self.note(&next, format!("now on worker {}", next.worker)).await;
                    }
                    placed = next;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Until it has ended by itself.
    async fn read_from(&mut self, placed: &Placed) -> Result<(), ReachError> {
        let reached = self.way.reach(placed, Action::Logs(self.wanted)).await?;
        let mut stream = reached.open().await?;
        loop {
            match frame::read::<LogOutput>(&mut stream).await {
                Ok(Some(LogOutput::Piece(piece))) => {
                    // From there on, if it has to be asked for again.
                    self.wanted.tail = None;
                    if piece.time > 0 {
                        self.wanted.since = Some(piece.time + 1);
                    }
                    let piece = Said::Piece(placed.replica, piece);
                    if self.said.send(piece).await.is_err() {
                        return Ok(()); // nobody reads any more
                    }
                }
                Ok(Some(LogOutput::End)) => return Ok(()),
                Ok(Some(LogOutput::Failed(refusal))) => {
                    let worker = placed.worker;
                    return Err(ReachFailure::Refused { worker, refusal }.into());
                }
                Ok(None) | Err(_) => {
                    let why = "it broke off".to_owned();
                    let over = timeout(REASON, reached.over()).await;
                    let worker = placed.worker;
                    return Err(over.unwrap_or(ReachFailure::Over { worker, why }).into());
                }
            }
        }
    }

    /// Where it is to be read next; nothing if the job is gone.
    async fn next_place(&self, before: &Placed) -> Result<Option<Placed>, ReachError> {
        let mut last = String::new();
        loop {
            sleep(AGAIN).await;
            if self.said.is_closed() {
                return Ok(None);
            }
            match self.way.places(&self.named).await {
                // One that has ended there was read to its end.
                Ok(places) => match places.into_iter().find(|of| !of.ended || of.job == before.job)
                {
                    Some(next) => return Ok(Some(next)),
                    None => return Ok(None),
                },
                Err(ReachError::Operator(OperatorError::NotFound(_))) => {
                    self.note(before, "the job was stopped".to_owned()).await;
                    return Ok(None);
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != last {
                        self.note(before, error.clone()).await;
                        last = error;
                    }
                }
            }
        }
    }

    async fn note(&self, placed: &Placed, text: String) {
        let _ = self.said.send(Said::Note(placed.replica, text)).await; // nobody reads any more
    }
}

/// Whether asking again, or elsewhere, changes nothing.
const fn is_final(error: &ReachError) -> bool {
    match error {
        ReachError::Failed(ReachFailure::Refused { refusal, .. }) => matches!(
            refusal,
            Refusal::OtherCluster
                | Refusal::OtherOperator
                | Refusal::NotDelegated
                | Refusal::Signature
                | Refusal::Expired
                | Refusal::TooLong
                | Refusal::Malformed
        ),
        ReachError::Failed(ReachFailure::NotSigned(_)) | ReachError::Malformed(_) => true,
        _ => false,
    }
}
