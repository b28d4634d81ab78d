//! Submitting and stopping jobs: the chain orders them, a node takes their bodies.

use std::path::Path;

use async_recursion::async_recursion as boxed;
use veil_node_chain::{Chain, ChainError};
use veil_node_config::job_file::JobFile;
use veil_node_core::admin::{self, AdminError};
use veil_protocol_spec::{Blake3Digest, ClusterId, scheduling::JobSpec};

use crate::{error::OperatorError, obstacle::Obstacle, plan};

/// Gives a job's body to the node behind `admin`, then submits it under the account's next nonce. "The
/// public body travels by gossip before the transaction": what ends this halfway leaves no digest on chain
/// whose body nobody has. What speaks against it is found first ([`plan::look`]). Its placement may tell
/// `leak_bits` about others' load in a day; unless they are given, as many as
/// [`bits_to_state`](veil_committee_slot::demand::bits_to_state) says.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn submit(
    chain: &Chain,
    cluster: ClusterId,
    admin: &Path,
    job: JobFile,
    leak_bits: Option<u32>,
) -> Result<(Blake3Digest, JobSpec), OperatorError> {
    let plan = plan::look(chain, cluster, admin, job, leak_bits).await?;
    if let Some(obstacle) = plan.obstacles.into_iter().find(Obstacle::forbids_submission) {
        return Err(obstacle.into());
    }
    let (digest, spec) = (plan.job, plan.spec);
    give(admin, &spec).await.map_err(OperatorError::NotSubmitted)?;
    chain.submit_job(cluster, digest, spec.nonce, plan.leak_bits).await?;
    // A node keeps few bodies that the chain does not list, and may have dropped this one.
    give_body(admin, &spec).await?;
    Ok((digest, spec))
}

/// Gives a job's body to the node behind `admin`, which passes it on.
///
/// # Errors
/// [`OperatorError::Body`].
#[boxed]
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
#[boxed]
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
