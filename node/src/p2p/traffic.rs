//! Counters of what was sent and received.
//!
//! They count payloads at this node's edge: what it originates and what is meant for it. What
//! gossip forwards for others and what the transports add is not in them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Protocol, Topic};

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

/// What went through a [`super::Network`] since its start.
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
}

/// The shared counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<Mutex<Traffic>>);

impl Counters {
    pub(super) fn lock(&self) -> MutexGuard<'_, Traffic> {
        // Counters are valid whatever happened to another holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn topic(&self, topic: Topic, change: impl FnOnce(&mut Count)) {
        change(self.lock().topics.entry(topic).or_default());
    }

    pub(super) fn protocol(&self, protocol: Protocol, change: impl FnOnce(&mut Count)) {
        change(self.lock().protocols.entry(protocol).or_default());
    }
}

impl Count {
    pub(super) fn send(&mut self, bytes: usize) {
        self.sent += 1;
        self.sent_bytes += bytes as u64;
    }

    pub(super) fn receive(&mut self, bytes: usize) {
        self.received += 1;
        self.received_bytes += bytes as u64;
    }
}
