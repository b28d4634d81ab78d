//! Submitting jobs: the chain orders them, a node takes their bodies.

use async_recursion::async_recursion as boxed;
use veil_node_api::{
    address::NodeAddress,
    client::{Client, ClientError},
    sessions::Login,
    tls::CertificateHash,
};
use veil_node_chain::{Chain, ChainError, login_digest};
use veil_node_config::job_file::JobFile;
use veil_protocol_spec::{Address, Blake3Digest, ClusterId, scheduling::JobSpec};

use crate::{
    error::OperatorError,
    obstacle::Obstacle,
    plan::{self, JobPlan, Update},
    sealing::{self, Hidden},
};

/// Logs the chain's account in at a node, for what only `operator` may do there: itself, or one that has delegated
/// this to it. A socket's owner needs no login.
///
/// # Errors
/// [`OperatorError::Login`], and [`OperatorError::Chain`] without an account.
#[boxed]
pub async fn log_in(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    operator: Address,
) -> Result<Client, OperatorError> {
    let Some(key) = chain.account_key() else {
        let is_socket = matches!(node.address(), NodeAddress::Socket(_));
        return if is_socket { Ok(node.clone()) } else { Err(ChainError::NoAccount.into()) };
    };
    let scope = chain.scope(cluster);
    let sign = |login: &Login, certificate: &CertificateHash| {
        let Login { account, operator, challenge, expires } = login;
        let by = (account, operator);
        let digest = login_digest(&scope, &certificate.0, by, challenge, *expires);
        key.sign(&digest).map_err(|error| error.to_string())
    };
    node.log_in(key.address(), operator, cluster, &sign).await.map_err(OperatorError::Login)
}

/// A job that the chain lists now.
#[derive(Debug)]
pub struct Submitted {
    /// Its digest.
    pub job: Blake3Digest,
    /// Its body.
    pub spec: JobSpec,
    /// What it takes the place of.
    pub update: Option<Update>,
}

/// Gives a job's body to `node`, then submits it as a job of `operator`, under its next nonce. "The
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
    node: &Client,
    operator: Address,
    job: JobFile,
    leak_bits: Option<u32>,
) -> Result<Submitted, OperatorError> {
    let plan = plan::look(chain, cluster, node, operator, job, leak_bits).await?;
    submit_planned(chain, cluster, node, plan).await
}

/// Submits what was planned, unless something speaks against it.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn submit_planned(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    plan: JobPlan,
) -> Result<Submitted, OperatorError> {
    if let Some(obstacle) = plan.obstacles.into_iter().find(Obstacle::forbids_submission) {
        return Err(obstacle.into());
    }
    let JobPlan { job, spec, update, .. } = plan;
    give(node, &spec).await.map_err(OperatorError::NotSubmitted)?;
    chain.submit_job_for(cluster, spec.operator, job, spec.nonce, plan.leak_bits).await?;
    // A node keeps few bodies that the chain does not list, and may have dropped this one.
    give_body(node, &spec).await?;
    Ok(Submitted { job, spec, update })
}

/// Gives the body of a job that `operator` has submitted under `nonce` to `node` once more, from its file. What is sealed
/// in it is sealed again, which gives the same as long as file and members are the same; else the chain does not list it.
///
/// # Errors
/// [`OperatorError::NotSealedAgain`], and others of [`OperatorError`].
#[boxed]
pub async fn give_again(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    operator: Address,
    file: JobFile,
    nonce: u64,
) -> Result<Blake3Digest, OperatorError> {
    let hidden = Hidden::of(&file)?;
    let spec = file.into_spec(chain.scope(cluster), operator, nonce)?;
    let spec = sealing::sealed(chain, cluster, node, spec, hidden).await?;
    let job = spec.digest();
    if spec.sealed_part().is_some() {
        let listed = chain.jobs(cluster, 0).await?;
        if !listed.iter().any(|one| one.digest == job && one.operator == operator) {
            return Err(OperatorError::NotSealedAgain { nonce });
        }
    }
    give_body(node, &spec).await?;
    Ok(job)
}

/// Gives a job's body to `node`, which passes it on.
///
/// # Errors
/// [`OperatorError::Body`].
#[boxed]
pub async fn give_body(node: &Client, spec: &JobSpec) -> Result<(), OperatorError> {
    let (job, nonce) = (spec.digest(), spec.nonce);
    let no_body = |source| OperatorError::Body { job, nonce, source: Box::new(source) };
    give(node, spec).await.map_err(no_body)
}

async fn give(node: &Client, spec: &JobSpec) -> Result<(), ClientError> {
    node.post::<serde_json::Value>("/v1/jobs", spec).await.map(drop)
}
