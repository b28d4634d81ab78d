//! Counters of what was sent and received.
//!
//! By topic and protocol they count payloads at this node's edge: what it originates and what is
//! meant for it. What gossip forwards for others and what the transports add is in the totals, which
//! libp2p counts below its multiplexers (TCP's and QUIC's own headers are not).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

use crate::kind::{Protocol, Topic};

/// Messages and bytes of one topic or protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages published, or requests made and answers given.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages delivered, or requests served and answers received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Messages dropped or requests refused because a local queue or a peer's budget was full.
    pub dropped: u64,
}

/// What went through a [`Network`](crate::Network) since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By gossip topic.
    pub topics: BTreeMap<Topic, Count>,
    /// By request protocol.
    pub protocols: BTreeMap<Protocol, Count>,
    /// Bulk streams.
    pub blobs: Count,
    /// Connections refused because the peer is not registered.
    pub refused_connections: u64,
    /// All bytes sent on all connections.
    pub wire_sent_bytes: u64,
    /// All bytes received on all connections.
    pub wire_received_bytes: u64,
}

/// libp2p's counters of all bytes. It gives them out as text only.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Registry>);

impl Wire {
    pub(crate) fn new(registry: Registry) -> Self {
        Self(Arc::new(registry))
    }

    /// Sent and received.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let mut lines = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut lines, &self.0);
        let total = |direction: &str| {
            let counted = lines.lines().filter(|line| {
                line.starts_with("libp2p_bandwidth_bytes_total{") && line.contains(direction)
            });
            let values = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            values.sum()
        };
        (total("direction=\"Outbound\""), total("direction=\"Inbound\""))
    }
}

/// The shared counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<Traffic>>);

impl Counters {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Traffic> {
        // Counters are valid whatever happened to another holder.
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
