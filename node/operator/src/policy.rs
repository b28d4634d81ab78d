//! The cluster's policy.

use async_recursion::async_recursion as boxed;
use veil_node_chain::Chain;
use veil_protocol_spec::{ClusterId, scheduling::ClusterPolicy};

use crate::error::OperatorError;

/// As the chain has it now; the default as long as nobody has set one.
///
/// # Errors
/// [`OperatorError`].
#[boxed]
pub(crate) async fn current(
    chain: &Chain,
    cluster: ClusterId,
) -> Result<ClusterPolicy, OperatorError> {
    Ok(match &chain.cluster_policy(cluster).await?[..] {
        [] => ClusterPolicy::default(),
        policy => ClusterPolicy::parse(policy)?,
    })
}
