//! What an operator does with jobs: the chain orders them, a node takes their bodies.

use std::path::Path;

use veil_committee_slot::demand::bits_to_state;
use veil_node_chain::{Chain, ChainError};
use veil_node_config::job_file::{JobFile, JobFileError};
use veil_node_core::admin::{self, AdminError};
use veil_protocol_spec::{
    Blake3Digest, ClusterId,
    scheduling::{ClusterPolicy, JobSpec, PolicyError, RequestTooLarge, ResourceRequest},
};

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
    /// No worker can have as much as it asks for.
    #[error(
        "the job is not submitted, since no worker can offer what it asks for by the cluster's policy: {0}; ask for less, or raise the units with `veil chain policy set`"
    )]
    TooLarge(#[from] RequestTooLarge),
    /// Nobody can tell what fits.
    #[error("the job is not submitted: the cluster's policy: {0}")]
    Policy(#[from] PolicyError),
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
/// whose body nobody has. Its placement may tell `leak_bits` about others' load in a day; unless they are
/// given, as many as [`bits_to_state`] says.
///
/// # Errors
/// [`OperatorError`].
pub async fn submit(
    chain: &Chain,
    cluster: ClusterId,
    admin: &Path,
    job: JobFile,
    leak_bits: Option<u32>,
) -> Result<(Blake3Digest, JobSpec), OperatorError> {
    let operator = chain.account().ok_or(ChainError::NoAccount)?;
    let nonce = chain.next_job_nonce(cluster, operator).await?;
    let spec = job.into_spec(chain.scope(cluster), operator, nonce)?;
    check_fits(&spec, &chain.cluster_policy(cluster).await?)?;
    let bits = match leak_bits {
        Some(bits) => bits,
        None => {
            let nodes = chain.nodes(cluster).await?;
            bits_to_state(spec.replicas, nodes.iter().filter(|node| node.roles.worker).count())
        }
    };
    let digest = spec.digest();
    give(admin, &spec).await.map_err(OperatorError::NotSubmitted)?;
    chain.submit_job(cluster, digest, nonce, bits).await?;
    // A node keeps few bodies that the chain does not list, and may have dropped this one.
    give_body(admin, &spec).await?;
    Ok((digest, spec))
}

/// What no worker can ever offer is not submitted: it would take its part of the account's quota and wait
/// for ever.
fn check_fits(spec: &JobSpec, policy: &[u8]) -> Result<(), OperatorError> {
    let policy = match policy {
        [] => ClusterPolicy::default(),
        policy => ClusterPolicy::parse(policy)?,
    };
    match &spec.request {
        ResourceRequest::Clear(request) => Ok(policy.scale.request(request).map(drop)?),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, Wire,
        scheduling::{ClusterScope, Scale},
    };

    use super::*;

    fn spec(cpu_millicores: u64) -> JobSpec {
        let text = format!(
            "image = \"localhost:5000/a@sha256:{}\"\n[resources]\ncpu_millicores = {cpu_millicores}\nmemory_mib = 64\n",
            "ab".repeat(32)
        );
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        let scope = ClusterScope { chain_id: ChainId(1), contract, cluster };
        JobFile::parse(&text).unwrap().into_spec(scope, Address([3; 20]), 0).unwrap()
    }

    #[test]
    fn a_job_beyond_the_policys_scale_is_refused_before_its_transaction() {
        // 191 units of 200 millicores, unless the policy says otherwise.
        assert!(check_fits(&spec(38_200), &[]).is_ok());
        let refused = check_fits(&spec(38_300), &[]).unwrap_err();
        assert!(matches!(refused, OperatorError::TooLarge(_)), "{refused}");
        assert!(refused.to_string().contains("not submitted"), "{refused}");
        let finest = ClusterPolicy { scale: Scale::FINEST, ..ClusterPolicy::default() }.to_wire();
        assert!(check_fits(&spec(19_100), &finest).is_ok());
        assert!(matches!(check_fits(&spec(19_200), &finest), Err(OperatorError::TooLarge(_))));
        assert!(matches!(check_fits(&spec(100), &[9, 9]), Err(OperatorError::Policy(_))));
    }
}
