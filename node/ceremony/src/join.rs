//! One attempt after the other, until there is a key.

use std::time::Duration;

use async_recursion::async_recursion as boxed;
use backon::{ExponentialBuilder, Retryable};
use tokio_util::sync::CancellationToken;
use veil_node_driver::Transports;

use crate::{
    attempt,
    commit_point::{CommitPointError, Proposal},
    error::CeremonyError,
    finished::FinishedKey,
    folder::void_attempts,
    options::Member,
    status::{self, status_file},
};

/// Takes part in the attempt that is proposed, and, if that makes no key, in the following ones, up
/// to `attempts` in all.
///
/// # Errors
/// [`CeremonyError`] of the last attempt.
pub async fn join<T: Transports>(
    member: &Member<T>,
    attempts: u32,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    join_over_any(&member.over_any(), attempts, stop).await
}

#[boxed]
async fn join_over_any(
    member: &Member,
    attempts: u32,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let following = member.status.subscribe();
    let file = tokio::spawn(status::keep_file(following, member.data.path().to_owned()));
    let result = join_attempts(member, attempts, stop).await;
    file.abort();
    let last = member.status.now();
    let path = status_file(member.data.path());
    if let Err(error) = status::write(&path, &last) {
        tracing::warn!(%error, "the status file cannot be written");
    }
    result
}

async fn join_attempts(
    member: &Member,
    attempts: u32,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let mut left = attempts.max(1);
    erase_void_shares(member).await;
    let mut proposal = latest(member).await?;
    loop {
        let key = FinishedKey::load(member.data.path(), proposal.epoch);
        let path = || member.data.path().join("ceremony");
        let key = key.map_err(|source| CeremonyError::Files { path: path(), source })?;
        if let Some(key) = key.filter(|key| key.attempt == proposal.attempt) {
            // A crash may have come between the two.
            key.erase_deals().map_err(|source| CeremonyError::Files { path: path(), source })?;
            return Ok(key);
        }
        let error = match attempt::run(member, &proposal, stop).await {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        left -= 1;
        if left == 0 || !error.ends_attempt() {
            return Err(error);
        }
        tracing::warn!(%error, left, "waiting for the next attempt");
        let next = next_attempt(member, &proposal);
        proposal = tokio::select! {
            next = tokio::time::timeout(member.options.timing.next_attempt, next) => match next {
                Ok(next) => next,
                Err(_) => return Err(error),
            },
            () = stop.cancelled() => return Err(CeremonyError::Interrupted),
        };
    }
}

/// Destroys the shares of attempts that have been over for long, as all endpoints say: one that lies would
/// else destroy the share of a valid key. What does not work is tried again at the next start: a void share
/// is worth nothing.
async fn erase_void_shares(member: &Member) {
    let void = match void_attempts(member.data.path()) {
        Ok(void) => void,
        Err(error) => return tracing::warn!(%error, "void key shares are not looked for"),
    };
    for (epoch, attempt, folder) in void {
        let erased = async {
            let block = member.chain.settled_block().await?;
            if !member.chain.is_over_everywhere(epoch, attempt).await? {
                return Ok(());
            }
            let path = folder.path().to_owned();
            folder.erase_void_share(block).map_err(|source| CeremonyError::Files { path, source })
        };
        if let Err(error) = erased.await {
            tracing::warn!(%error, %epoch, %attempt, "a void key share is kept for now");
        }
    }
}

async fn latest(member: &Member) -> Result<Proposal, CeremonyError> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_times(5)
        .with_jitter();
    Ok((|| member.chain.latest()).retry(backoff).when(CommitPointError::is_transient).await?)
}

async fn next_attempt(member: &Member, failed: &Proposal) -> Proposal {
    loop {
        tokio::time::sleep(member.options.timing.poll).await;
        match member.chain.latest().await {
            Ok(next) if (next.epoch, next.attempt) > (failed.epoch, failed.attempt) => return next,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the chain names no next attempt"),
        }
    }
}
