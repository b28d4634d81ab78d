//! Sealing at the operator (`sealed.md`, steps 1 and 2): the members' keys come from a node, and count as far as
//! identities that the chain names have signed them.

use async_recursion::async_recursion as boxed;
use rand::rngs::OsRng;
use veil_committee_sealed::seal::seal;
use veil_node_api::client::Client;
use veil_node_chain::Chain;
use veil_protocol_spec::{
    ClusterId,
    scheduling::{Binding, JobSpec, Sealed, SealedContents},
    sealing::{SealingKeyAnnouncement, SealingRoster},
};

use crate::error::OperatorError;

/// The job with `contents` sealed in it for the committee of the epoch; as it is if there are none.
///
/// # Errors
/// [`OperatorError`]; nothing was sealed then.
#[boxed]
pub(crate) async fn sealed(
    chain: &Chain,
    cluster: ClusterId,
    node: &Client,
    job: JobSpec,
    contents: &SealedContents,
) -> Result<JobSpec, OperatorError> {
    if contents.is_empty() {
        return Ok(job);
    }
    let key = chain.current_key(cluster).await?.ok_or(OperatorError::NoCommittee)?;
    let binding = Binding { scope: job.scope, key_set: key.key_set, epoch: key.epoch };
    let committee = chain.cluster(cluster).await?.committee;
    let attempt = chain.ceremony_attempt(cluster, key.epoch, key.attempt).await?;
    let seats = attempt.ok_or(OperatorError::NoCommittee)?.roster;
    let identities = chain.identities(cluster, &seats).await?;
    let announced: Vec<SealingKeyAnnouncement> =
        node.get("/v1/sealing-keys").await.map_err(OperatorError::SealingKeys)?;
    let roster = SealingRoster::new(binding, committee, &identities, &announced)?;
    let part = seal(&job, contents, &roster, &mut OsRng)?;
    Ok(JobSpec { sealed: Sealed::Part(Box::new(part)), ..job })
}
