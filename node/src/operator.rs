//! What an operator does with jobs: the chain orders them, a node takes their bodies.

use std::path::Path;

use veil_node_chain::{Chain, ChainError};
use veil_node_core::{
    admin::{self, AdminError},
    job_file::{JobFile, JobFileError},
};
use veil_protocol_spec::{Blake3Digest, ClusterId, scheduling::JobSpec};

/// Why a job is not submitted or stopped.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The job file.
    #[error(transparent)]
    Job(#[from] JobFileError),
    /// No node has the body, so the chain was told nothing.
    #[error("no node took the job's body, so nothing was submitted: {0}")]
    NotSubmitted(AdminError),
    /// The chain lists the job, and no node has its body.
    #[error(
        "job {job} is submitted on chain, but no node has its body: {source}; repeat with the same file and `--nonce {nonce}`"
    )]
    Body {
        /// Which.
        job: Blake3Digest,
        /// Its nonce.
        nonce: u64,
        /// Why the node did not take it.
        source: AdminError,
    },
    /// Nothing to stop.
    #[error("the chain lists no running job {0} of this account; `veil job list` shows them")]
    NoSuchJob(Blake3Digest),
}

/// Gives a job's body to the node behind `admin`, then submits it under the account's next nonce. "The
/// public body travels by gossip before the transaction": what ends this halfway leaves no digest on chain
/// whose body nobody has.
///
/// # Errors
/// [`OperatorError`].
pub async fn submit(
    chain: &Chain,
    cluster: ClusterId,
    admin: &Path,
    job: JobFile,
) -> Result<(Blake3Digest, JobSpec), OperatorError> {
    let operator = chain.account().ok_or(ChainError::NoAccount)?;
    let nonce = chain.next_job_nonce(cluster, operator).await?;
    let spec = job.into_spec(chain.scope(cluster), operator, nonce)?;
    let digest = spec.digest();
    give(admin, &spec).await.map_err(OperatorError::NotSubmitted)?;
    chain.submit_job(cluster, digest, nonce, leak_bits(&spec)).await?;
    // A node keeps few bodies that the chain does not list, and may have dropped this one.
    give_body(admin, &spec).await?;
    Ok((digest, spec))
}

/// What a job's placement may tell about others' load: each replica's answer, placed or pending, is a
/// bit.
fn leak_bits(spec: &JobSpec) -> u32 {
    u32::from(spec.replicas).max(1)
}

/// Gives a job's body to the node behind `admin`, which passes it on.
///
/// # Errors
/// [`OperatorError::Body`].
pub async fn give_body(admin: &Path, spec: &JobSpec) -> Result<(), OperatorError> {
    let (job, nonce) = (spec.digest(), spec.nonce);
    give(admin, spec).await.map_err(|source| OperatorError::Body { job, nonce, source })
}

async fn give(admin: &Path, spec: &JobSpec) -> Result<(), AdminError> {
    admin::post::<serde_json::Value>(admin, "/v1/jobs", spec).await.map(drop)
}

/// Cancels every submission of the job by this account; returns their number.
///
/// # Errors
/// [`OperatorError`].
pub async fn stop(
    chain: &Chain,
    cluster: ClusterId,
    job: Blake3Digest,
) -> Result<usize, OperatorError> {
    let operator = chain.account().ok_or(ChainError::NoAccount)?;
    let submitted = chain.jobs(cluster, 0).await?;
    let own = |one: &&veil_node_chain::SubmittedJob| {
        one.digest == job && one.operator == operator && !one.cancelled
    };
    let mut stopped = 0;
    for one in submitted.iter().filter(own) {
        chain.cancel_job(cluster, one.position).await?;
        stopped += 1;
    }
    if stopped == 0 { Err(OperatorError::NoSuchJob(job)) } else { Ok(stopped) }
}
