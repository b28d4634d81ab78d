//! What a slot cost, from the nodes' own statuses.

use std::collections::BTreeMap;

use serde::Serialize;
use veil_node_api::status::{Phase, Role, Status, TrafficStatus};
use veil_protocol_spec::Slot;

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

impl From<TrafficStatus> for TelemetryFigures {
    fn from(traffic: TrafficStatus) -> Self {
        let messages = traffic.telemetry_messages;
        Self {
            messages,
            originated_bytes_per_interval: traffic.telemetry_originated_bytes / messages.max(1),
            sent_bytes: traffic.sent_bytes,
            received_bytes: traffic.received_bytes,
        }
    }
}

/// Seconds of decryption and signing, if the member took part in both.
#[must_use]
pub fn after_evaluation(status: &Status, slot: Slot) -> Option<f64> {
    let report = status.slots.iter().find(|report| report.slot == slot)?;
    Some(report.phases.get(&Phase::Decrypt)? + report.phases.get(&Phase::Sign)?)
}

/// The largest of them.
pub fn largest<'a>(statuses: impl Iterator<Item = &'a Status>) -> Memory {
    statuses.fold(Memory::default(), |most, status| Memory {
        rss_bytes: most.rss_bytes.max(status.rss_bytes),
        peak_rss_bytes: most.peak_rss_bytes.max(status.peak_rss_bytes),
    })
}

/// The longest time of each phase, among those whose phase it is.
pub fn longest<'a>(
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
