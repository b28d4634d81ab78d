//! What one node measures of itself: one registry, which `/metrics` prints and `veil status` reads.
//!
//! # Role
//! Each part of the node registers what it measures. Nodes of one process have a registry each.
//!
//! # Caveats
//! Labels are words of this build, never what a peer sent: peers cannot make the registry grow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter},
    registry::Registry,
};

/// The registry of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    refusals: Refusals,
}

/// How often something was refused, by protocol and by the name of the reason.
pub type RefusalCounts = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

impl Default for Metrics {
    fn default() -> Self {
        let (mut registry, refusals) = (Registry::default(), Refusals::default());
        registry.register_collector(Box::new(refusals.clone()));
        Self { registry: Arc::new(Mutex::new(registry)), refusals }
    }
}

impl Metrics {
    /// The registry, to register in.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // A metric that was registered is whole, also after the panic of another holder.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal: of a message, a request, a connection.
    pub fn refuse(&self, protocol: &'static str, reason: &'static str) {
        *self.refusals.lock().entry(protocol).or_default().entry(reason).or_default() += 1;
    }

    /// The refusals so far.
    #[must_use]
    pub fn refusals(&self) -> RefusalCounts {
        self.refusals.lock().clone()
    }

    /// Everything in the registry, in the text format of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut lines, &self.registry());
        lines
    }

    /// The same, and what `also` says now.
    #[must_use]
    pub fn text_with(&self, also: impl Collector) -> String {
        let mut now = Registry::default();
        now.register_collector(Box::new(also));
        let mut lines = String::new();
        // Writing to a string does not fail.
        let _ = text::encode_registry(&mut lines, &self.registry());
        let _ = text::encode(&mut lines, &now);
        lines
    }
}

#[derive(Clone, Debug, Default)]
struct Refusals(Arc<Mutex<RefusalCounts>>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, RefusalCounts> {
        // Each count is valid on its own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Refusals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let help = "Messages, requests and connections refused.";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("veil_refusals", help, None, kind)?;
        for (protocol, reasons) in self.lock().iter() {
            for (reason, count) in reasons {
                let labels = [("protocol", *protocol), ("reason", *reason)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_counted_under_its_name() {
        let (metrics, other) = (Metrics::default(), Metrics::default());
        metrics.refuse("telemetry", "stale");
        metrics.clone().refuse("telemetry", "stale");
        metrics.refuse("sync", "too_often");
        assert_eq!(metrics.refusals()["telemetry"]["stale"], 2);
        let text = metrics.text();
        assert!(
            text.contains("veil_refusals_total{protocol=\"telemetry\",reason=\"stale\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("veil_refusals_total{protocol=\"sync\",reason=\"too_often\"} 1\n"));
        assert!(text.ends_with("# EOF\n"));
        assert!(other.refusals().is_empty(), "each node counts for itself");
    }
}
