//! What the run cost, from the nodes' own statuses.

use std::collections::BTreeMap;

use serde::Serialize;
use veil_node_core::status::{Phase, Role, Status};
use veil_node_process::{peak_rss_bytes, rss_bytes};
use veil_protocol_spec::{Slot, scheduling::CircuitId};

use super::{Devnet, DevnetError};

/// Bytes of one worker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TelemetryFigures {
    /// Telemetry messages that it made.
    pub messages: u64,
    /// Bytes of one of them: what it originates per interval.
    pub originated_bytes_per_interval: u64,
    /// Everything that it sent, relayed gossip included.
    pub sent_bytes: u64,
    /// Everything that it received.
    pub received_bytes: u64,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Now.
    pub rss_bytes: u64,
    /// At most so far.
    pub peak_rss_bytes: u64,
}

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
    /// [`DevnetError::Admin`] if one does not answer.
    pub async fn figures(&self, slot: Slot) -> Result<Figures, DevnetError> {
        let mut statuses = Vec::new();
        for node in self.nodes().iter().filter(|node| node.is_started()) {
            statuses.push((node.name().to_owned(), node.status().await?));
        }
        let phases = longest(statuses.iter().map(|(_, status)| status), slot);
        let after = statuses.iter().filter_map(|(_, status)| after_evaluation(status, slot));
        let after = after.min_by(f64::total_cmp);
        let workers = statuses.iter().filter(|(_, status)| status.role == Role::Worker);
        let telemetry = workers.map(|(name, status)| {
            let traffic = status.traffic;
            let messages = traffic.telemetry_messages;
            let figures = TelemetryFigures {
                messages,
                originated_bytes_per_interval: traffic.telemetry_originated_bytes / messages.max(1),
                sent_bytes: traffic.sent_bytes,
                received_bytes: traffic.received_bytes,
            };
            (name.clone(), figures)
        });
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
            circuit: veil_scheduler::circuit_id(),
            versions: BTreeMap::from([("veil", env!("CARGO_PKG_VERSION").to_owned())]),
        })
    }
}

/// Seconds of decryption and signing, if the member took part in both.
fn after_evaluation(status: &Status, slot: Slot) -> Option<f64> {
    let report = status.slots.iter().find(|report| report.slot == slot)?;
    Some(report.phases.get(&Phase::Decrypt)? + report.phases.get(&Phase::Sign)?)
}

fn largest<'a>(statuses: impl Iterator<Item = &'a Status>) -> Memory {
    statuses.fold(Memory::default(), |most, status| Memory {
        rss_bytes: most.rss_bytes.max(status.rss_bytes),
        peak_rss_bytes: most.peak_rss_bytes.max(status.peak_rss_bytes),
    })
}

/// The longest time of each phase, among those whose phase it is.
fn longest<'a>(
    statuses: impl Iterator<Item = &'a Status>,
    slot: Slot,
) -> BTreeMap<&'static str, f64> {
    let mut longest = BTreeMap::new();
    for status in statuses {
        let Some(report) = status.slots.iter().find(|report| report.slot == slot) else { continue };
        for (phase, seconds) in &report.phases {
            let role = if *phase == Phase::Enforce { Role::Worker } else { Role::Member };
            if status.role == role {
                let most = longest.entry(phase.name()).or_insert(*seconds);
                *most = f64::max(*most, *seconds);
            }
        }
    }
    longest
}
