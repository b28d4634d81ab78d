//! Counters of messages and bytes.
//!
//! The counters of topics and protocols count the payloads that this node originates and those that
//! are addressed to it. The totals also count what gossip relays for others and what the transports
//! add: libp2p measures them below its multiplexers, without the headers of TCP and QUIC.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::kind::{Protocol, Topic};

/// Messages and bytes of one topic or protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages published, or requests made and answers given.
    pub sent: u64,
    /// Payload bytes of `sent`.
    pub sent_bytes: u64,
    /// Messages delivered, or requests served and answers received.
    pub received: u64,
    /// Payload bytes of `received`.
    pub received_bytes: u64,
    /// Messages dropped or requests refused because a local queue or a peer's budget was full.
    pub dropped: u64,
}

/// The traffic of a [`Network`](crate::Network) since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Gossip of each topic that was used.
    pub topics: BTreeMap<Topic, Count>,
    /// Requests and answers of each protocol that was used.
    pub protocols: BTreeMap<Protocol, Count>,
    /// Files served (`sent`) and fetched (`received`).
    pub blobs: Count,
    /// Bytes sent on all connections together.
    pub wire_sent_bytes: u64,
    /// Bytes received on all connections together.
    pub wire_received_bytes: u64,
}

/// Bytes sent and bytes received, from libp2p's counters, which it exports only as text.
pub(crate) fn on_the_wire(text: &str) -> (u64, u64) {
    let total = |direction: &str| {
        let counted = text.lines().filter(|line| {
            line.starts_with("libp2p_bandwidth_bytes_total{") && line.contains(direction)
        });
        let values = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    };
    (total("direction=\"Outbound\""), total("direction=\"Inbound\""))
}

/// The shared counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<Traffic>>);

impl Counters {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Traffic> {
        // Each counter is valid on its own, also after the panic of another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn topic(&self, topic: Topic, change: impl FnOnce(&mut Count)) {
        change(self.lock().topics.entry(topic).or_default());
    }

    pub(crate) fn protocol(&self, protocol: Protocol, change: impl FnOnce(&mut Count)) {
        change(self.lock().protocols.entry(protocol).or_default());
    }
}

impl Count {
    pub(crate) fn send(&mut self, bytes: usize) {
        self.sent += 1;
        self.sent_bytes += bytes as u64;
    }

    pub(crate) fn receive(&mut self, bytes: usize) {
        self.received += 1;
        self.received_bytes += bytes as u64;
    }
}
