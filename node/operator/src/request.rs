//! Evidence that an encrypted request is not that of its sealed limits, examined by somebody who believes neither worker nor
//! operator (`sealed.md`, "Encrypted requests").
//!
//! # Flow
//! The chain says who submitted the job, and which key set was in force; t+1 members state the cluster's public key; the
//! job's own body commits to limits and seed. What is shown counts if it is what the body commits to; the list counts as
//! wrong if those limits, encrypted with that seed, give another.

use async_recursion::async_recursion as boxed;
use serde::Serialize;
use tfhe::CompactPublicKey;
use veil_node_api::client::Client;
use veil_node_chain::Chain;
use veil_protocol_spec::{
    Address, Blake3Digest, ClusterId,
    scheduling::{
        EncryptedRequest, JobSpec, ProvenList, Quantities, ResourceRequest, SealedRequest,
    },
    sealing::{EncryptionKeys, WrongRequest},
};
use veil_scheduler::request_agrees;

use crate::{
    error::OperatorError,
    history,
    sealing::{Key, public_key},
};

/// What evidence about an encrypted request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The operator encrypted something else than it sealed.
    OperatorDeviates,
    /// The list is that of the limits: whoever calls it wrong deviates.
    RequestAgrees,
    /// The body commits to something else: this shows nothing.
    NotCommitted,
}

/// What was examined, and what it shows.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The job.
    pub job: Blake3Digest,
    /// Who submitted it.
    pub operator: Address,
    /// What is shown.
    pub verdict: Verdict,
}

/// Examines it, with what the chain and the committee say through `node`.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub async fn judge(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    evidence: WrongRequest,
) -> Result<Judged, OperatorError> {
    let WrongRequest { job, opened } = evidence;
    let versions = history::versions(node, job).await?;
    let body = versions.into_iter().find(|version| version.job == job).map(|found| found.spec);
    let body = body.filter(|body| body.digest() == job && body.scope == chain.scope(cluster));
    let body = body.ok_or_else(|| OperatorError::NotFound(job.to_string()))?;
    let operator = body.operator;
    let listed = chain.jobs(cluster, 0).await?;
    if !listed.iter().any(|one| one.digest == job && one.operator == operator) {
        return Err(OperatorError::NoSuchJob(job));
    }
    let judged = |verdict| Judged { job, operator, verdict };
    let (request, quantities) = match committed(&body, &opened) {
        Ok(committed) => committed,
        Err(verdict) => return Ok(judged(verdict)),
    };
    let key = Key::of(chain, cluster, node).await?;
    if key.key_set() != request.key_set {
        return Err(OperatorError::Encrypt(
            "the job is encrypted under an earlier key set than the cluster's".to_owned(),
        ));
    }
    let keys: EncryptionKeys =
        node.get("/v1/encryption-keys").await.map_err(OperatorError::SealingKeys)?;
    let public = public_key(&key, &keys)?;
    let list = request.list.clone();
    let comparing = tokio::task::spawn_blocking(move || {
        compared(&list, &quantities, &opened.seed.randomness(), &public)
    });
    let verdict = comparing.await.map_err(|error| OperatorError::Encrypt(error.to_string()))??;
    Ok(judged(verdict))
}

/// What a job's list is to be of, if its body commits to what is shown.
///
/// # Errors
/// What is shown without encrypting anything.
fn committed<'a>(
    body: &'a JobSpec,
    opened: &SealedRequest,
) -> Result<(&'a EncryptedRequest, Quantities), Verdict> {
    let ResourceRequest::Encrypted(request) = &body.request else {
        return Err(Verdict::NotCommitted);
    };
    if !opened.is_committed_to(body) {
        return Err(Verdict::NotCommitted);
    }
    // What the scale cannot count is no list's.
    let quantities = opened.quantities(&request.scale).map_err(|_| Verdict::OperatorDeviates)?;
    Ok((request, quantities))
}

/// Encrypts again, and compares.
fn compared(
    list: &ProvenList,
    quantities: &Quantities,
    randomness: &[u8; 32],
    public: &CompactPublicKey,
) -> Result<Verdict, OperatorError> {
    let agrees = request_agrees(list, quantities, randomness, public)
        .map_err(|error| OperatorError::Encrypt(error.to_string()))?;
    Ok(if agrees { Verdict::RequestAgrees } else { Verdict::OperatorDeviates })
}

#[cfg(test)]
mod tests;
