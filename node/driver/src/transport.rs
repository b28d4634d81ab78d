//! How bytes get to the other participants.

use std::{future::Future, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::mpsc;
use veil_protocol_spec::{ParticipantIndex, PublicIdentity};

/// Bytes from a participant that the transport has authenticated.
pub type Inbound = (ParticipantIndex, Vec<u8>);

/// Carries bytes to participants; a cheap handle. What the others send comes through the bounded
/// channel that belongs to it.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Completes when the other side has taken the bytes, which is the flow control.
    fn send(
        &self,
        to: ParticipantIndex,
        bytes: Arc<[u8]>,
    ) -> impl Future<Output = Result<(), TransportError>> + Send;
}

/// A transport of whatever kind: what sends through it is generated once, and not for every kind.
#[derive(Clone)]
pub struct AnyTransport(Arc<dyn SendBoxed>);

trait SendBoxed: Send + Sync {
    fn send_boxed(
        &self,
        to: ParticipantIndex,
        bytes: Arc<[u8]>,
    ) -> BoxFuture<'_, Result<(), TransportError>>;
}

impl<T: Transport> SendBoxed for T {
    fn send_boxed(
        &self,
        to: ParticipantIndex,
        bytes: Arc<[u8]>,
    ) -> BoxFuture<'_, Result<(), TransportError>> {
        self.send(to, bytes).boxed()
    }
}

impl AnyTransport {
    /// One of some kind.
    #[must_use]
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }
}

impl Transport for AnyTransport {
    fn send(
        &self,
        to: ParticipantIndex,
        bytes: Arc<[u8]>,
    ) -> impl Future<Output = Result<(), TransportError>> + Send {
        self.0.send_boxed(to, bytes)
    }
}

/// Why bytes did not arrive, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum TransportError {
    /// Not connected, no answer in time, the connection broke: worth another try.
    #[error("participant {to} cannot be reached: {detail}")]
    Unreachable { to: ParticipantIndex, detail: String },
    /// The other side, or this one, refuses such a message: no use in trying again.
    #[error("the message to participant {to} was refused: {detail}")]
    Refused { to: ParticipantIndex, detail: String },
}

impl TransportError {
    /// Whether another try may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The kind of machine that a transport is for; each has a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// The key ceremony.
    Ceremony,
    /// FROST signatures.
    Signing,
    /// What members tell each other around a ceremony.
    Publication,
    /// Partial decryptions.
    Decryption,
    /// Agreement on manifests.
    Agreement,
}

/// Where transports come from.
pub trait Transports: Clone + Send + Sync + 'static {
    /// One of them.
    type Transport: Transport;

    /// Opens a channel between the members of a roster, identities by seat. What comes in goes to
    /// the receiver that was made last for the channel; an earlier one ends.
    fn open(
        &self,
        channel: Channel,
        roster: &[PublicIdentity],
    ) -> (Self::Transport, mpsc::Receiver<Inbound>);
}

type Open =
    dyn Fn(Channel, &[PublicIdentity]) -> (AnyTransport, mpsc::Receiver<Inbound>) + Send + Sync;

/// Transports of whatever kind; see [`AnyTransport`].
#[derive(Clone)]
pub struct AnyTransports(Arc<Open>);

impl AnyTransports {
    /// Those of some kind.
    #[must_use]
    pub fn new(transports: impl Transports) -> Self {
        Self(Arc::new(move |channel, roster| {
            let (transport, incoming) = transports.open(channel, roster);
            (AnyTransport::new(transport), incoming)
        }))
    }
}

impl Transports for AnyTransports {
    type Transport = AnyTransport;

    fn open(
        &self,
        channel: Channel,
        roster: &[PublicIdentity],
    ) -> (AnyTransport, mpsc::Receiver<Inbound>) {
        (self.0)(channel, roster)
    }
}
