//! What is kept of a challenged slot stays until its challenge has ended.
//!
//! # Flow
//! [`hold`] asks the chain from time to time which slots are challenged, and tells the ledger and a member's
//! archive, which drop nothing before the first answer.

use std::{sync::Arc, time::Duration};

use veil_node_chain::{Chain, Challenges};
use veil_protocol_spec::ClusterId;

use crate::epoch::ActiveEpoch;

/// Between two questions. Slots are kept for days, so a challenge is seen long before.
const INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) async fn hold(chain: Chain, cluster: ClusterId, epoch: Arc<ActiveEpoch>) {
    let mut known = Challenges::default();
    loop {
        match chain.open_challenges(cluster, &known).await {
            Ok(now) => {
                if now != known {
                    tracing::info!(slots = ?now.slots(), "challenged slots are kept");
                }
                epoch.ledger.hold(now.slots());
                if let Some(stores) = &epoch.stores {
                    stores.archive.hold(now.slots());
                }
                known = now;
            }
            Err(error) => tracing::warn!(%error, "which slots are challenged is not known"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
