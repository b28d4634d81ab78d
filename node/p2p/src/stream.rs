//! Streams of bytes between two registered peers, for what is neither one message nor a file.
//!
//! # Flow
//! 1. [`Network::accept_streams`] registers a kind of stream; until then it is not served.
//! 2. [`Network::open_stream`] opens one to a peer, or to this node itself.
//! 3. Either side ends it by dropping it.
//!
//! # Bounds
//! Before a byte is read, the peer's role is checked, how fast it opens streams, how many it has open, and how many
//! are open in all. What is in a stream is the concern of whoever reads it: it is as fast as it is read.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use veil_protocol_spec::{PeerIdHash, scheduling::keccak};

use crate::{admission::Admission, command::Command, kind::StreamKind, refusal::Refusal};

pub(crate) fn protocol(kind: StreamKind, scope: &str) -> StreamProtocol {
    let name = format!("/veil/{scope}/{}/1", kind.name());
    // libp2p refuses only a name without a leading slash.
    StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/veil/reach/1"))
}

/// Anything that bytes go through in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream of bytes in both directions. Dropping it ends it.
pub struct ByteStream {
    inner: Box<dyn Duplex>,
    /// What it takes of the limits, as long as it lives.
    held: Vec<OwnedSemaphorePermit>,
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}

impl ByteStream {
    /// Of anything that bytes go through.
    pub fn new(inner: impl Duplex + 'static) -> Self {
        Self { inner: Box::new(inner), held: Vec::new() }
    }

    /// The same, with what it takes of a limit.
    pub(crate) fn holding(mut self, held: OwnedSemaphorePermit) -> Self {
        self.held.push(held);
        self
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

/// A stream that a registered peer has opened.
#[derive(Debug)]
pub struct IncomingStream {
    /// The peer; its connection proves that it holds the key. This node itself for a stream of its own.
    pub from: PeerIdHash,
    /// Its bytes.
    pub stream: ByteStream,
}

/// Who takes the streams of a kind.
pub(crate) type Acceptors = Vec<(StreamKind, mpsc::Sender<IncomingStream>)>;

/// What opening and accepting need.
pub(crate) struct Streams {
    pub(crate) scope: String,
    pub(crate) control: Control,
    admission: Admission,
    /// For what is refused.
    commands: mpsc::UnboundedSender<Command>,
    /// Open ones in all.
    at_once: Arc<Semaphore>,
    /// Those that this node opens to itself go there.
    pub(crate) acceptors: Arc<Mutex<Acceptors>>,
}

impl Streams {
    pub(crate) fn new(
        scope: &str,
        control: Control,
        (admission, commands): (Admission, mpsc::UnboundedSender<Command>),
        at_once: usize,
    ) -> Self {
        let at_once = Arc::new(Semaphore::new(at_once));
        let scope = scope.to_owned();
        Self { scope, control, admission, commands, at_once, acceptors: Arc::default() }
    }

    pub(crate) fn acceptors(&self) -> MutexGuard<'_, Acceptors> {
        self.acceptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a stream that `peer` has opened.
    fn admit(&self, peer: &PeerId, kind: StreamKind) -> Result<Vec<OwnedSemaphorePermit>, Refusal> {
        let of_peer = self.admission.session(peer, kind)?;
        let of_all = Arc::clone(&self.at_once).try_acquire_owned();
        Ok(vec![of_peer, of_all.map_err(|_| Refusal::QueueFull)?])
    }

    /// Hands a stream of a peer to whoever accepts them. A stream that is refused is dropped: the peer sees its end.
    pub(crate) fn take(
        &self,
        (peer, stream): (PeerId, Stream),
        kind: StreamKind,
        queue: &mpsc::Sender<IncomingStream>,
    ) {
        let from = PeerIdHash(keccak(&peer.to_bytes()).0);
        let taken = self.admit(&peer, kind).and_then(|held| {
            let stream = ByteStream { inner: Box::new(stream.compat()), held };
            queue.try_send(IncomingStream { from, stream }).map_err(|_| Refusal::QueueFull)
        });
        if let Err(refusal) = taken {
            // Fails only when the network has stopped.
            let protocol = kind.name();
            let _ = self.commands.send(Command::Refused { peer, protocol, refusal });
        }
    }
}
