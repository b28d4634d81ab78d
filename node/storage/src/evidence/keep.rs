//! Evidence that this node finds: judged, stored, told.

use std::sync::Arc;

use veil_protocol_spec::evidence::Evidence;

use super::{EvidenceStore, Kept, verdict::Verdict};

/// Judges evidence, stores it, and says so in the log. Waits for the disk on a thread for that.
pub async fn keep(store: Arc<EvidenceStore>, evidence: Evidence) {
    let kept = tokio::task::spawn_blocking(move || store.accept(&evidence)).await;
    match kept {
        Ok(Ok(Kept::New(verdict))) => tell(&verdict),
        Ok(Ok(Kept::Known | Kept::Enough)) => {}
        Ok(Err(error)) => tracing::error!(%error, "evidence is not kept"),
        Err(_) => {} // the runtime is shutting down
    }
}

/// Says in the log what evidence shows that is kept.
pub fn tell(verdict: &Verdict) {
    let Verdict { kind, culprit, place, .. } = verdict;
    tracing::error!(
        kind = kind.name(),
        ?culprit,
        ?place,
        "evidence of a fault is kept; see `veil evidence list`"
    );
}
