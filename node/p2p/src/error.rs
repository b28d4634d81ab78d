//! Why the network does not start, and why a message does not get through.

use libp2p::Multiaddr;
use veil_protocol_spec::PeerIdHash;

use crate::{
    kind::StreamKind,
    kind::{Protocol, Topic},
};

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum NetworkError {
    /// The network cannot listen on an address, for a reason that libp2p or the system states.
    #[error("cannot listen on {address}: {reason}; change `listen` or free the port")]
    Listen { address: Multiaddr, reason: String },
    /// A bootstrap address does not name its peer.
    #[error("the bootstrap address {0} must end in /p2p/<peer id>, as the peer's log states it")]
    Bootstrap(Multiaddr),
    /// A transport does not start; libp2p states the reason.
    #[error("cannot start the transports: {0}; check the network and resolver of this machine")]
    Transport(String),
    /// Gossipsub refuses a setting of this build.
    #[error("cannot start gossip: {0}; report it, no setting of the node can cause it")]
    Gossip(String),
    /// libp2p does not accept the node's key.
    #[error("the identity is not a secp256k1 key; make one with `veil identity new`")]
    Identity,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum PublishError {
    /// The message of `len` bytes is longer than the `max` that its topic allows; it was not sent.
    #[error("{len} bytes are more than the {max} that the topic {topic} allows")]
    TooLarge { topic: Topic, len: usize, max: usize },
    /// No connected peer subscribes to the topic.
    #[error("no connected peer listens on the topic {0}; check the bootstrap peers")]
    NoPeers(Topic),
    /// The same bytes were published within the last two minutes.
    #[error("this message was already published on the topic {0}")]
    Duplicate(Topic),
    /// The send queues to all peers are full.
    #[error("the connections to all peers on the topic {0} are congested; try again later")]
    Congested(Topic),
    /// libp2p could not sign or encode the message.
    #[error("the message could not be signed; check the identity of this node")]
    Signing,
    /// The network was stopped.
    #[error("the network was stopped")]
    Stopped,
}

/// Why there is no stream to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum StreamError {
    /// The peer is not in the directory.
    #[error("peer {0} is not registered in this cluster")]
    NotRegistered(PeerIdHash),
    /// There is no connection to the peer, for a reason that libp2p states.
    #[error("peer {0} cannot be reached: {1}")]
    Unreachable(PeerIdHash, String),
    /// The peer accepts no such streams: it has another role or version, or has not joined yet.
    #[error("peer {0} takes no streams of the kind \"{name}\": is it a worker that is ready?", name = .1.name())]
    Unsupported(PeerIdHash, StreamKind),
    /// Too many wait there.
    #[error("peer {0} is busy; try again")]
    Busy(PeerIdHash),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum RequestError {
    /// The peer is not in the directory; nothing was sent.
    #[error("peer {0} is not registered in this cluster")]
    NotRegistered(PeerIdHash),
    /// There is no connection to the peer, and none could be made; nothing was sent.
    #[error("peer {0} cannot be reached: no known address answers")]
    NotConnected(PeerIdHash),
    /// The peer closes connections before anything is exchanged.
    #[error("peer {0} closes the connection at once: is this node registered where it looks?")]
    Shunned(PeerIdHash),
    /// No answer within the deadline; the peer may have acted on the request nevertheless.
    #[error("peer {0} did not answer in time")]
    Timeout(PeerIdHash),
    /// The connection broke, for the reason that libp2p states; the peer may have acted on the request nevertheless.
    #[error("the connection to peer {0} broke before the answer: {1}")]
    Broken(PeerIdHash, String),
    /// The request is longer than the `max` bytes of its protocol; this node did not send it, or the
    /// peer did not read it.
    #[error("the message is longer than the {max} bytes that the protocol {protocol} allows")]
    TooLarge { protocol: Protocol, max: usize },
    /// The peer does not serve the protocol: it has another role, cluster or version.
    #[error("peer {0} does not serve the protocol {1}")]
    Unsupported(PeerIdHash, Protocol),
    /// This node has not the role that the protocol asks for, in the directory of the peer.
    #[error(
        "peer {0} takes the protocol {1} from members of the committee only: is this node one where it looks?"
    )]
    NotAllowed(PeerIdHash, Protocol),
    /// The peer has more requests than it can take, from all or from this node.
    #[error("peer {0} is busy; ask again later")]
    Busy(PeerIdHash),
    /// The peer refused to answer, for a reason in its own words; empty if it gave none.
    #[error("peer {peer} refused: {reason}")]
    Refused { peer: PeerIdHash, reason: String },
    /// The answer is not a valid frame.
    #[error("peer {0} sent an answer that is not in the format of this protocol version")]
    Malformed(PeerIdHash),
    /// The network was stopped.
    #[error("the network was stopped")]
    Stopped,
}
