//! Handing signed transactions to the network. What a node says against them is text without a standard:
//! the words of the common nodes are here.

use alloy::providers::Provider;

use crate::{error::ChainError, rpc::Rpc};

/// Hands a transaction's bytes to the node; the same bytes may be handed over again.
///
/// # Errors
/// [`ChainError`]; an `Rpc` error for which [`is_taken`] holds if another transaction has the nonce.
pub(crate) async fn broadcast(
    rpc: &Rpc,
    what: &'static str,
    bytes: &[u8],
) -> Result<(), ChainError> {
    let sent =
        rpc.ask(what, || async { rpc.provider.send_raw_transaction(bytes).await.map(drop) }).await;
    match sent {
        Err(ChainError::Rpc { detail, .. }) if is_known(&detail) => Ok(()),
        sent => sent,
    }
}

/// Whether a node says that another transaction has the nonce.
pub(crate) fn is_taken(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    detail.contains("nonce too low") || detail.contains("replacement transaction underpriced")
}

/// Whether a node says that it has these bytes.
fn is_known(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    detail.contains("already known") || detail.contains("already imported")
}
