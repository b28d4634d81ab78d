//! The peer-to-peer network of one cluster, over libp2p.
//!
//! # Roles
//! Every node, worker or committee member, runs one [`Network`]. The [`Directory`] says who may
//! take part; a reader of the chain publishes it on a watch channel. The network refuses the
//! connections of all others, and closes those of peers that leave the directory.
//!
//! # Flow
//! 1. [`Network::start`] binds the addresses of a [`NetworkConfig`] and dials the bootstrap peers.
//!    Transports are QUIC, and TCP with Noise and yamux, under the node's secp256k1 identity.
//! 2. [`Network::publish`] and [`Network::subscribe`] gossip on the [`Topic`]s of the cluster. Each
//!    subscriber gives a verdict on a message: only an accepted one travels on.
//! 3. [`Network::request`] and [`Network::serve`] exchange one message for one answer, on a
//!    [`Protocol`].
//! 4. [`Network::provide`] and [`Network::fetch`] transfer files by digest.
//! 5. [`Network::open_stream`] and [`Network::accept_streams`] carry bytes of a [`StreamKind`]; a [`Session`] is many
//!    streams over one, for its two ends only.
//! 6. [`Network::liveness`] is what SWIM knows of the other peers. SWIM also spreads their signed
//!    addresses, so one reachable bootstrap peer is enough to join.
//! 7. [`Network::leave`] tells the peers, [`Network::stop`] ends all tasks and frees the ports.
//!
//! # State
//! One task owns the libp2p swarm and takes commands; another owns the SWIM membership. A
//! [`Network`] is a handle to both; they stop when the last handle is dropped. Only
//! [`Network::fetch`] writes to disk.
//!
//! # Bounds
//! What one peer can make this node hold, read or compute is bounded for this peer alone: requests in
//! hand, messages and bytes on each protocol ([`Rates`]), streams, unfinished handshakes of one
//! address. The committee's protocols are for members, which is checked before a body is read. Each
//! refusal is counted under its name in the node's
//! [`Metrics`](veil_node_process::metrics::Metrics); a peer that collects too many is disconnected for
//! a while, each time longer.
//!
//! # Restart
//! A restarted node joins again through its bootstrap peers under a newer membership record, with
//! new addresses if it has any; its peers close their connections to the previous run. A fetch
//! resumes from the `.part` file of the previous run. Subscriptions, servers and offered files are
//! not kept: their owners set them up again.
//!
//! # Caveats
//! - SWIM is not Byzantine-robust: a registered peer can spread a false suspicion, which its victim
//!   refutes, or a false death. So [`Health::Down`] convicts nobody: whoever acts on it also asks whether
//!   there is a connection.
//! - A slow subscriber loses gossip, and a slow server has requests refused: the swarm never waits.
//! - The clock of a restarted node must not be behind that of its previous start: its peers would
//!   take its new membership record for an old one.
//!
//! # Example
//! Two networks on the loopback interface exchange a request.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use tokio::sync::watch;
//! use veil_node_p2p::{Directory, Network, NetworkConfig, Peer, Protocol};
//! use veil_protocol_spec::{
//!     Address, ChainId, ClusterId, identity::SecretIdentity, registry::Roles,
//!     scheduling::ClusterScope,
//! };
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let scope = ClusterScope {
//!     chain_id: ChainId(31337),
//!     contract: Address([1; 20]),
//!     cluster: ClusterId([1; 32]),
//! };
//! let first = SecretIdentity::from_bytes(&[1; 32])?;
//! let second = SecretIdentity::from_bytes(&[2; 32])?;
//! let roles = Roles { worker: true, member: false };
//! let peers = [&first, &second].map(|identity| Peer { identity: identity.public(), roles });
//! let (_publisher, directory) = watch::channel(Arc::new(Directory::from_iter(peers)));
//!
//! let mut config = NetworkConfig::new(first, scope);
//! config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse()?];
//! let server = Network::start(config, directory.clone()).await?;
//! let mut requests = server.serve(Protocol::Sync);
//! tokio::spawn(async move {
//!     while let Some(request) = requests.recv().await {
//!         let answer = request.bytes.to_ascii_uppercase();
//!         request.respond(answer);
//!     }
//! });
//!
//! let mut config = NetworkConfig::new(second, scope);
//! config.bootstrap = server.addresses();
//! let client = Network::start(config, directory).await?;
//! let deadline = Duration::from_secs(60);
//! let answer = client.request(server.me(), Protocol::Sync, b"state?".to_vec(), deadline).await?;
//! assert_eq!(answer, b"STATE?");
//! # Ok(())
//! # }
//! ```

mod actor;
mod address;
mod admission;
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
mod measure;
mod muxer;
mod network;
mod noise;
mod rates;
mod refusal;
mod request;
mod round_trips;
mod session;
mod stream;
mod streams;
mod swim;
mod traffic;
mod transport;

pub use libp2p::{Multiaddr, PeerId, multiaddr};

pub use self::{
    address::{AddressError, check_dial, check_listen},
    blob::fetch::{FetchError, Progress},
    command::{Gossip, Incoming, Responder},
    config::{Limits, NetworkConfig, SwimConfig},
    directory::{Directory, Peer},
    error::{NetworkError, PublishError, RequestError, StreamError},
    identity::{InvalidIdentity, peer_id},
    kind::{Protocol, StreamKind, Topic},
    network::Network,
    rates::{Rate, Rates},
    request::MAX_DEADLINE,
    session::{End, Opener, PIECE, Session, SessionError},
    stream::{ByteStream, Duplex, IncomingStream},
    swim::{Health, Liveness},
    traffic::{Count, Traffic},
};
