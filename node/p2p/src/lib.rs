//! The peer-to-peer network of one cluster, over libp2p.
//!
//! # Roles
//! Every node, worker or committee member, runs one [`Network`]. Who may take part is in the
//! [`Directory`], which a reader of the chain publishes on a watch channel; connections of others
//! are refused when they are established, and closed when a peer leaves the directory.
//!
//! # Flow
//! - Transports: QUIC, and TCP with Noise and yamux, under the node's secp256k1 identity.
//! - [`Network::publish`] and [`Network::subscribe`]: gossip on the [`Topic`]s of the cluster.
//! - [`Network::request`] and [`Network::serve`]: one message, one answer, on a [`Protocol`].
//! - [`Network::provide`] and [`Network::fetch`]: files by digest, resumed after interruptions.
//! - [`Network::liveness`]: SWIM. It also spreads the signed addresses of all peers, so that one
//!   reachable bootstrap peer is enough to join.
//!
//! # State
//! One task owns the libp2p swarm and is driven by commands; one owns the SWIM membership. A
//! [`Network`] is a handle to both; when the last one is dropped, they stop. Nothing is on disk
//! except what [`Network::fetch`] writes.
//!
//! # Caveats
//! - SWIM is not Byzantine-robust: a registered peer can spread a false suspicion, which its victim
//!   refutes. Whoever acts on `Down` needs t+1 members' signed suspicion.
//! - A slow subscriber loses gossip, a slow server has requests refused; the swarm never waits.
//! - A restarted node must start with a clock that is not behind that of its previous start,
//!   otherwise its peers take its new membership record for an old one.

mod actor;
mod blob;
mod budget;
mod command;
mod config;
mod dialer;
mod directory;
mod error;
mod gate;
mod gossip;
#[cfg(test)]
mod hostile_tests;
mod identity;
mod kind;
mod network;
mod request;
mod round_trips;
mod swim;
mod traffic;

pub use libp2p::{Multiaddr, PeerId, multiaddr};

pub use self::{
    blob::fetch::{FetchError, Progress},
    command::{Gossip, Incoming, Responder},
    config::{Limits, NetworkConfig, SwimConfig},
    directory::{Directory, Peer, Roles},
    error::{NetworkError, PublishError, RequestError},
    identity::{InvalidIdentity, peer_id, public_identity},
    kind::{Protocol, Topic},
    network::Network,
    request::MAX_DEADLINE,
    swim::{Health, Liveness},
    traffic::{Count, Traffic},
};
