//! What the run cost, from the nodes' own statuses.

use std::collections::BTreeMap;

use serde::Serialize;
use veil_node_api::status::Role;
use veil_node_operator::figures::{Memory, TelemetryFigures, after_evaluation, largest, longest};
use veil_node_process::{peak_rss_bytes, rss_bytes};
use veil_protocol_spec::{
    Slot,
    scheduling::{CircuitId, ClusterPolicy},
};
use veil_scheduler::slot::circuit_of;

use crate::{Devnet, DevnetError};

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Seconds by phase of the slot: the longest over the members, of `enforce` over the workers.
    pub phases: BTreeMap<&'static str, f64>,
    /// Decryption and signing together, in milliseconds, as the member saw it whose evaluation was
    /// over last: the others' times include waiting for it.
    pub after_evaluation_ms: Option<f64>,
    /// Seconds by step of the set-up.
    pub setup: BTreeMap<&'static str, f64>,
    /// By worker.
    pub telemetry: BTreeMap<String, TelemetryFigures>,
    /// Of one process with all nodes, or the largest process of each role.
    pub memory: BTreeMap<&'static str, Memory>,
    /// What was evaluated.
    pub circuit: CircuitId,
    /// Of the parts.
    pub versions: BTreeMap<&'static str, String>,
}

impl Devnet {
    /// Asks every node.
    ///
    /// # Errors
    /// [`DevnetError::Node`] if one does not answer.
    pub async fn figures(&self, slot: Slot) -> Result<Figures, DevnetError> {
        let mut statuses = Vec::new();
        for node in self.nodes().iter().filter(|node| node.is_started()) {
            statuses.push((node.name().to_owned(), node.status().await?));
        }
        let phases = longest(statuses.iter().map(|(_, status)| status), slot);
        let after = statuses.iter().filter_map(|(_, status)| after_evaluation(status, slot));
        let after = after.min_by(f64::total_cmp);
        let workers = statuses.iter().filter(|(_, status)| status.role == Role::Worker);
        let telemetry =
            workers.map(|(name, status)| (name.clone(), TelemetryFigures::from(status.traffic)));
        let telemetry = telemetry.collect();
        let memory = if self.options.processes {
            let largest =
                |role| largest(statuses.iter().map(|(_, s)| s).filter(|s| s.role == role));
            BTreeMap::from([("member", largest(Role::Member)), ("worker", largest(Role::Worker))])
        } else {
            let now = Memory { rss_bytes: rss_bytes(), peak_rss_bytes: peak_rss_bytes() };
            BTreeMap::from([("process", now)])
        };
        Ok(Figures {
            after_evaluation_ms: after.map(|seconds| seconds * 1000.0),
            phases,
            setup: self.steps.iter().copied().collect(),
            telemetry,
            memory,
            circuit: circuit_of(ClusterPolicy::default().circuit.version),
            versions: BTreeMap::from([("veil", env!("CARGO_PKG_VERSION").to_owned())]),
        })
    }
}
