//! Commands to the task that owns the swarm, and the messages whose receiver sends one: gossip gets
//! a verdict, a request gets an answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{MessageAcceptance, MessageId},
    request_response::ResponseChannel,
};
use tokio::sync::{mpsc, oneshot};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::PeerIdHash;

use crate::{
    admission::Held,
    error::{PublishError, RequestError},
    kind::{Protocol, Topic},
    refusal::Refusal,
    request::{Answer, MAX_REASON_BYTES},
};

/// A command of a handle, of a message's receiver, or of the SWIM task.
///
/// The queue of commands has no bound of its own: each entry comes from a caller that waits for its
/// reply, or from a message that a bounded queue counted when it arrived.
#[derive(Debug)]
pub(crate) enum Command {
    Publish {
        topic: Topic,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
    Subscribe {
        topic: Topic,
        queue: mpsc::Sender<Gossip>,
    },
    Verdict {
        message: MessageId,
        relay: PeerId,
        acceptance: MessageAcceptance,
    },
    Request {
        to: PeerIdHash,
        protocol: Protocol,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<Vec<u8>, RequestError>>,
    },
    Serve {
        protocol: Protocol,
        queue: mpsc::Sender<Incoming>,
    },
    Respond {
        to: PeerId,
        protocol: Protocol,
        channel: ResponseChannel<Answer>,
        answer: Answer,
    },
    /// Another task has refused something from a peer.
    Refused {
        peer: PeerId,
        protocol: &'static str,
        refusal: Refusal,
    },
    /// A peer states the addresses to dial it at.
    Learn {
        peer: PeerIdHash,
        addresses: Vec<Multiaddr>,
    },
    /// A peer has restarted: of several connections to it the oldest is dead.
    Restarted(PeerIdHash),
}

/// A message from a topic, signed by a registered author.
///
/// Its receiver gives a verdict: [`accept`](Self::accept) relays the message, and
/// [`reject`](Self::reject) counts against the peer that sent it. A dropped message is ignored. With
/// several subscribers the first verdict counts.
#[derive(Debug)]
pub struct Gossip {
    /// The peer that signed it, which need not be the one that relayed it.
    pub author: PeerIdHash,
    /// The message, at most [`Topic::max_bytes`] long; not decoded or checked.
    pub bytes: Arc<[u8]>,
    verdict: Arc<Verdict>,
}

impl Gossip {
    /// Relays the message: it is valid.
    pub fn accept(&self) {
        self.verdict.give(MessageAcceptance::Accept);
    }

    /// Drops the message, and counts it against the peer that relayed it: it breaks a rule that
    /// this peer could have checked.
    pub fn reject(&self, reason: &str) {
        self.reject_as("invalid", &reason);
    }

    /// The same, counted under a name in snake_case, which says which rule it was.
    pub fn reject_as(&self, name: &'static str, reason: &dyn core::fmt::Display) {
        let topic = self.verdict.topic;
        tracing::warn!(author = %self.author, %topic, name, %reason, "rejected gossip");
        self.verdict.metrics.refuse(topic.name(), name);
        self.verdict.give(MessageAcceptance::Reject);
    }

    /// Drops the message and blames nobody: it is late, or already known.
    pub fn ignore(&self) {
        self.verdict.give(MessageAcceptance::Ignore);
    }

    /// The same, counted under a name in snake_case.
    pub fn ignore_as(&self, name: &'static str) {
        self.verdict.metrics.refuse(self.verdict.topic.name(), name);
        self.ignore();
    }

    pub(crate) fn new(author: PeerIdHash, bytes: Arc<[u8]>, verdict: Arc<Verdict>) -> Self {
        Self { author, bytes, verdict }
    }
}

/// The one verdict on a message, shared by its subscribers.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) topic: Topic,
    pub(crate) message: MessageId,
    pub(crate) relay: PeerId,
    pub(crate) given: AtomicBool,
    pub(crate) metrics: Metrics,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Verdict {
    fn give(&self, acceptance: MessageAcceptance) {
        if !self.given.swap(true, Ordering::Relaxed) {
            let (message, relay) = (self.message.clone(), self.relay);
            // Fails only when the network has stopped, which relays nothing any more.
            let _ = self.commands.send(Command::Verdict { message, relay, acceptance });
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.give(MessageAcceptance::Ignore);
    }
}

/// A request from a registered peer.
#[derive(Debug)]
pub struct Incoming {
    /// The peer that asks; its connection proves that it holds the key.
    pub from: PeerIdHash,
    /// The request, at most [`Protocol::max_request`] long; not decoded or checked.
    pub bytes: Vec<u8>,
    /// The way back, for a server that answers later; dropping it refuses the request.
    pub responder: Responder,
}

impl Incoming {
    /// See [`Responder::respond`].
    pub fn respond(self, bytes: Vec<u8>) {
        self.responder.respond(bytes);
    }

    /// See [`Responder::refuse`].
    pub fn refuse(self, reason: impl Into<String>) {
        self.responder.refuse(reason);
    }

    /// The same, counted under a name in snake_case.
    pub fn refuse_as(self, name: &'static str, reason: impl Into<String>) {
        self.responder.refuse_as(name, reason);
    }
}

/// The way back to the peer that asked. Dropping it refuses the request.
#[derive(Debug)]
pub struct Responder {
    pub(crate) to: PeerId,
    pub(crate) protocol: Protocol,
    pub(crate) channel: ResponseChannel<Answer>,
    pub(crate) metrics: Metrics,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Of the peer's room, until it is answered.
    pub(crate) held: Held,
}

impl Responder {
    /// Answers. An answer longer than [`Protocol::max_response`] becomes a refusal.
    pub fn respond(self, bytes: Vec<u8>) {
        let protocol = self.protocol;
        if bytes.len() > protocol.max_response() {
            tracing::error!(%protocol, bytes = bytes.len(), "an answer is too long to be sent");
            return self.refuse("the answer is too long");
        }
        self.send(Answer::Done(bytes));
    }

    /// Refuses, with a reason for the peer's log (cut after 256 bytes of UTF-8).
    pub fn refuse(self, reason: impl Into<String>) {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        self.send(Answer::Refused(reason));
    }

    /// The same, counted under a name in snake_case.
    pub fn refuse_as(self, name: &'static str, reason: impl Into<String>) {
        self.metrics.refuse(self.protocol.name(), name);
        self.refuse(reason);
    }

    pub(crate) fn send(self, answer: Answer) {
        let Self { to, protocol, channel, commands, metrics: _, held: _held } = self;
        // Fails only when the network has stopped, which closes the channel to the peer as well.
        let _ = commands.send(Command::Respond { to, protocol, channel, answer });
    }
}
