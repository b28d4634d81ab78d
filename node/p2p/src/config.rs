//! Settings of a network.

use core::time::Duration;

use libp2p::Multiaddr;
use veil_protocol_spec::{identity::SecretIdentity, scheduling::ClusterScope};

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
}

impl Default for SwimConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(500),
            indirect_probes: 3,
            suspicion: Duration::from_secs(4),
        }
    }
}

/// Bounds on what peers can make this node do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second of one peer, on average.
    pub requests_per_second: u32,
    /// Requests of one peer at once.
    pub request_burst: u32,
    /// Messages that wait for one subscriber or server; further ones are dropped or refused.
    pub queue: usize,
    /// Files served at the same time; a further one is refused as busy.
    pub blob_serves: usize,
    /// Connections to all peers together.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 500,
            request_burst: 1000,
            queue: 256,
            blob_serves: 16,
            connections: 512,
        }
    }
}
