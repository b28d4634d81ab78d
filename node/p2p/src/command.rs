//! What is asked of the swarm, and what arrives from it and carries a way back: a verdict on
//! gossip, an answer to a request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{MessageAcceptance, MessageId},
    request_response::ResponseChannel,
    swarm::ConnectionId,
};
use tokio::sync::{mpsc, oneshot};
use veil_protocol_spec::PeerIdHash;

use crate::{
    error::{PublishError, RequestError},
    kind::{Protocol, Topic},
    request::{Answer, MAX_REASON},
};

/// What handles, verdicts and the SWIM task ask of the swarm.
///
/// The queue has no bound of its own: each entry comes from a caller that waits for its reply, or
/// from a message that was counted against a bounded queue when it came in.
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
        protocol: Protocol,
        channel: ResponseChannel<Answer>,
        answer: Answer,
    },
    /// A peer states where it can be dialled.
    Learn {
        peer: PeerIdHash,
        addresses: Vec<Multiaddr>,
    },
    /// A peer has started again: its connections, but for the one that it is known to use or else
    /// the newest, lead nowhere.
    Restarted {
        peer: PeerIdHash,
        keep: Option<ConnectionId>,
    },
}

/// A message from a topic, signed by a registered author.
///
/// Say what it is worth: [`accept`](Self::accept) lets it travel on, [`reject`](Self::reject)
/// counts against the peer that sent it, and dropping it ignores it. With several subscribers the
/// first verdict counts.
#[derive(Debug)]
pub struct Gossip {
    /// Who wrote it; not necessarily who passed it on.
    pub author: PeerIdHash,
    /// The message.
    pub bytes: Arc<[u8]>,
    verdict: Arc<Verdict>,
}

impl Gossip {
    /// The message is valid: pass it on.
    pub fn accept(&self) {
        self.verdict.give(MessageAcceptance::Accept);
    }

    /// The message breaks a rule that the peer which passed it on could have checked.
    pub fn reject(&self, reason: &str) {
        tracing::warn!(author = %self.author, topic = %self.verdict.topic, reason, "rejected gossip");
        self.verdict.give(MessageAcceptance::Reject);
    }

    /// The message is of no use to anyone now (late, or already known); nobody is to blame.
    pub fn ignore(&self) {
        self.verdict.give(MessageAcceptance::Ignore);
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
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Verdict {
    fn give(&self, acceptance: MessageAcceptance) {
        if !self.given.swap(true, Ordering::Relaxed) {
            let (message, relay) = (self.message.clone(), self.relay);
            // Fails only when the network has stopped, and then nothing travels on.
            let _ = self.commands.send(Command::Verdict { message, relay, acceptance });
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.give(MessageAcceptance::Ignore);
    }
}

/// A request from a registered peer. Dropping the responder refuses it.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks.
    pub from: PeerIdHash,
    /// The request.
    pub bytes: Vec<u8>,
    /// Takes the answer.
    pub responder: Responder,
}

impl Incoming {
    /// Answers.
    pub fn respond(self, bytes: Vec<u8>) {
        self.responder.respond(bytes);
    }

    /// Refuses, with a reason for the peer's log.
    pub fn refuse(self, reason: impl Into<String>) {
        self.responder.refuse(reason);
    }
}

/// The way back to the peer that asked. Dropping it refuses the request.
#[derive(Debug)]
pub struct Responder {
    pub(crate) protocol: Protocol,
    pub(crate) channel: ResponseChannel<Answer>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

impl Responder {
    /// Answers.
    pub fn respond(self, bytes: Vec<u8>) {
        let protocol = self.protocol;
        if bytes.len() > protocol.max_response() {
            tracing::error!(%protocol, bytes = bytes.len(), "an answer is too long to be sent");
            return self.refuse("the answer is too long");
        }
        self.send(Answer::Done(bytes));
    }

    /// Refuses, with a reason for the peer's log (cut after 256 bytes).
    pub fn refuse(self, reason: impl Into<String>) {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        self.send(Answer::Refused(reason));
    }

    pub(crate) fn send(self, answer: Answer) {
        let Self { protocol, channel, commands } = self;
        // Fails only when the network has stopped, which closes the channel to the peer as well.
        let _ = commands.send(Command::Respond { protocol, channel, answer });
    }
}
