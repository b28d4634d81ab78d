//! Why the network does not start.

use libp2p::Multiaddr;

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// An address to listen on does not work.
    #[error("cannot listen on {address}: {reason}; change `listen` or free the port")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What libp2p says.
        reason: String,
    },
    /// A bootstrap address does not say whose it is.
    #[error("the bootstrap address {0} must end in /p2p/<peer id>, as the peer's log states it")]
    Bootstrap(Multiaddr),
    /// A transport does not start.
    #[error("cannot start the transports: {0}")]
    Transport(String),
    /// A setting of gossipsub is refused.
    #[error("cannot start gossip: {0}")]
    Gossip(String),
    /// The node's key is not one libp2p takes.
    #[error("the identity is not a secp256k1 key")]
    Identity,
}
