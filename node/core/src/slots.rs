//! Counts how slots end, from this node's start on.

use std::sync::Arc;

use prometheus_client::metrics::{counter::Counter, family::Family};
use veil_node_process::metrics::Metrics;
use veil_node_storage::ledger::Ledger;
use veil_protocol_spec::Slot;

type Outcomes = Family<[(&'static str, &'static str); 1], Counter>;

/// Counts until the node stops.
pub(crate) async fn count(metrics: Metrics, ledger: Arc<Ledger>) {
    let outcomes = Outcomes::default();
    for outcome in ["placed", "void"] {
        drop(outcomes.get_or_create(&[("outcome", outcome)])); // from zero on
    }
    metrics.registry().register("veil_slots", "Certified slots, by outcome", outcomes.clone());
    let mut states = ledger.subscribe();
    let mut counted = ledger.state().last_slot().0;
    while states.changed().await.is_ok() {
        let last = states.borrow_and_update().last_slot().0;
        for slot in counted + 1..=last {
            let ledger = Arc::clone(&ledger);
            let read = tokio::task::spawn_blocking(move || ledger.record(Slot(slot))).await;
            if let Ok(Ok(Some(record))) = read {
                let outcome = if record.certificate.body.is_void() { "void" } else { "placed" };
                outcomes.get_or_create(&[("outcome", outcome)]).inc();
            }
        }
        counted = last;
    }
}
