//! Settings of a network.

use core::time::Duration;

use libp2p::Multiaddr;
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::{identity::SecretIdentity, scheduling::ClusterScope};

use crate::rates::Rates;

/// Everything that [`Network::start`](crate::Network::start) needs beside the directory.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The node's key, also its libp2p key.
    pub identity: SecretIdentity,
    /// The cluster. Peers of another one share no topic and no protocol with this node.
    pub scope: ClusterScope,
    /// Where to listen, e.g. `/ip4/0.0.0.0/udp/7000/quic-v1`, `/ip4/0.0.0.0/tcp/7000`. Port 0
    /// takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Where others reach this node, if not at the addresses it listens on (NAT, DNS names).
    pub announce: Vec<Multiaddr>,
    /// Addresses to dial first, each ending in `/p2p/<peer id>`. One that answers is enough: SWIM
    /// learns the others from it.
    pub bootstrap: Vec<Multiaddr>,
    /// Timings of failure detection.
    pub swim: SwimConfig,
    /// Bounds on what peers can make this node do.
    pub limits: Limits,
    /// Where this network counts.
    pub metrics: Metrics,
}

impl NetworkConfig {
    /// A configuration with default timings and limits that listens nowhere.
    #[must_use]
    pub fn new(identity: SecretIdentity, scope: ClusterScope) -> Self {
        Self {
            identity,
            scope,
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            swim: SwimConfig::default(),
            limits: Limits::default(),
            metrics: Metrics::default(),
        }
    }
}

/// Timings of the failure detector. All nodes of a cluster should use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwimConfig {
    /// One peer is probed per period.
    pub probe_period: Duration,
    /// How long an answer to a probe may take before other peers are asked; less than half a period.
    pub probe_rtt: Duration,
    /// How many other peers are then asked to probe.
    pub indirect_probes: usize,
    /// How long a suspected peer may refute the suspicion before it counts as down.
    pub suspicion: Duration,
    /// Grows when the node begins anew with a data directory that does not go on where its last one ended, perhaps on
    /// another machine. Of two processes with one identity the others listen to the one with the larger number, and the
    /// other one is told. This node's own, unlike the times.
    pub incarnation: u64,
}

impl Default for SwimConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(500),
            indirect_probes: 3,
            suspicion: Duration::from_secs(4),
            incarnation: 0,
        }
    }
}

/// Bounds on what peers can make this node do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How fast one peer may send.
    pub rates: Rates,
    /// Messages that wait for one subscriber or server; further ones are dropped or refused.
    pub queue: usize,
    /// Files served at the same time; a further one is refused as busy.
    pub blob_serves: usize,
    /// Streams of peers that are open at the same time; a further one is refused.
    pub streams: usize,
    /// Connections to all peers together.
    pub connections: u32,
    /// Incoming connections that have not proved an identity yet.
    pub half_open: u32,
    /// Those of one network address.
    pub half_open_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rates: Rates::default(),
            queue: 256,
            blob_serves: 16,
            streams: 512,
            connections: 512,
            half_open: 256,
            half_open_per_address: 32,
        }
    }
}
