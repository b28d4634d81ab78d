//! Why the network does not start, and why a message does not get through.

use libp2p::Multiaddr;
use veil_protocol_spec::PeerIdHash;

use crate::kind::{Protocol, Topic};

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

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Longer than the topic allows.
    #[error("{len} bytes are more than the {max} that the topic {topic} allows")]
    TooLarge {
        /// The topic.
        topic: Topic,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// No connected peer subscribes to the topic.
    #[error("no connected peer listens on the topic {0}; check the bootstrap peers")]
    NoPeers(Topic),
    /// The same bytes were published within the last two minutes.
    #[error("this message was already published on the topic {0}")]
    Duplicate(Topic),
    /// The queues to all peers are full.
    #[error("the connections to all peers on the topic {0} are congested; try again later")]
    Congested(Topic),
    /// The message could not be signed.
    #[error("the message could not be signed")]
    Signing,
    /// The network was stopped.
    #[error("the network was stopped")]
    Stopped,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The peer is not in the directory.
    #[error("peer {0} is not registered in this cluster")]
    NotRegistered(PeerIdHash),
    /// No connection, and none could be made.
    #[error("peer {0} cannot be reached: no known address answers")]
    NotConnected(PeerIdHash),
    /// The peer closes connections before anything is exchanged.
    #[error("peer {0} closes the connection at once: is this node registered where it looks?")]
    Shunned(PeerIdHash),
    /// No answer within the deadline; the peer may have acted on the request nevertheless.
    #[error("peer {0} did not answer in time")]
    Timeout(PeerIdHash),
    /// The connection broke; the peer may have acted on the request nevertheless.
    #[error("the connection to peer {0} broke before the answer: {1}")]
    Broken(PeerIdHash, String),
    /// Longer than the protocol allows; nothing was sent, or the peer said so.
    #[error("the message is longer than the {max} bytes that the protocol {protocol} allows")]
    TooLarge {
        /// The protocol.
        protocol: Protocol,
        /// Bytes allowed.
        max: usize,
    },
    /// The peer does not serve the protocol: it has another role, cluster or version.
    #[error("peer {0} does not serve the protocol {1}")]
    Unsupported(PeerIdHash, Protocol),
    /// The peer has more requests than it can take, from all or from this node.
    #[error("peer {0} is busy; ask again later")]
    Busy(PeerIdHash),
    /// The peer refused to answer.
    #[error("peer {peer} refused: {reason}")]
    Refused {
        /// Who.
        peer: PeerIdHash,
        /// In the peer's words; empty if it gave none.
        reason: String,
    },
    /// The answer breaks the framing.
    #[error("peer {0} sent an answer that is not in the format of this protocol version")]
    Malformed(PeerIdHash),
    /// The network was stopped.
    #[error("the network was stopped")]
    Stopped,
}
