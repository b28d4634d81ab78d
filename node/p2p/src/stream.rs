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
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use futures::StreamExt as _;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{Control, OpenStreamError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, duplex},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use veil_protocol_spec::{PeerIdHash, scheduling::keccak};

use crate::{
    admission::Admission, command::Command, error::StreamError, identity::peer_id,
    network::Network, refusal::Refusal,
};

/// How long a peer may take to agree to a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes on the way within this node, in each direction.
const WITHIN: usize = 256 << 10;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// An operator reaches its job on a worker; the peer that opens it passes on bytes that it cannot read.
    Reach,
    /// A worker reaches a job on another, for one of its own.
    Link,
}

impl StreamKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Reach, Self::Link];

    /// Name in logs, counters and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Link => "link",
        }
    }

    /// Whether only workers open it.
    pub(crate) const fn is_for_workers(self) -> bool {
        matches!(self, Self::Link)
    }

    fn protocol(self, scope: &str) -> StreamProtocol {
        let name = format!("/veil/{scope}/{}/1", self.name());
        // libp2p refuses only a name without a leading slash.
        StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/veil/reach/1"))
    }
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

/// What opening and accepting need.
pub(crate) struct Streams {
    scope: String,
    control: Control,
    admission: Admission,
    /// For what is refused.
    commands: mpsc::UnboundedSender<Command>,
    /// Open ones in all.
    at_once: Arc<Semaphore>,
    /// Those that this node opens to itself go there.
    acceptors: Arc<Mutex<Vec<(StreamKind, mpsc::Sender<IncomingStream>)>>>,
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

    fn acceptors(&self) -> MutexGuard<'_, Vec<(StreamKind, mpsc::Sender<IncomingStream>)>> {
        self.acceptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a stream that `peer` has opened.
    fn admit(&self, peer: &PeerId, kind: StreamKind) -> Result<Vec<OwnedSemaphorePermit>, Refusal> {
        let of_peer = self.admission.session(peer, kind)?;
        let of_all = Arc::clone(&self.at_once).try_acquire_owned();
        Ok(vec![of_peer, of_all.map_err(|_| Refusal::QueueFull)?])
    }

    /// Hands a stream of a peer to whoever accepts them. A stream that is refused is dropped: the peer sees its end.
    fn take(
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

impl Network {
    /// Opens a stream to a peer, which need not be connected; to this node itself without the network.
    ///
    /// # Errors
    /// [`StreamError`] names the peer and the reason. What the peer refuses later is the end of the stream.
    #[boxed]
    pub async fn open_stream(
        &self,
        to: PeerIdHash,
        kind: StreamKind,
    ) -> Result<ByteStream, StreamError> {
        let streams = &self.inner.streams;
        if to == self.inner.me {
            let acceptors = streams.acceptors();
            let queue = acceptors.iter().find(|(of, _)| *of == kind).map(|(_, queue)| queue);
            let queue = queue.ok_or(StreamError::Unsupported(to, kind))?;
            let (here, there) = duplex(WITHIN);
            let stream = ByteStream::new(there);
            let sent = queue.try_send(IncomingStream { from: to, stream });
            return sent.map(|()| ByteStream::new(here)).map_err(|_| StreamError::Busy(to));
        }
        let identity = self.inner.directory.borrow().get(&to).map(|peer| peer.identity);
        let id = identity.and_then(|identity| peer_id(&identity).ok());
        let id = id.ok_or(StreamError::NotRegistered(to))?;
        let mut control = streams.control.clone();
        let opening = control.open_stream(id, kind.protocol(&streams.scope));
        match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(stream)) => Ok(ByteStream::new(stream.compat())),
            Ok(Err(OpenStreamError::UnsupportedProtocol(_))) => {
                Err(StreamError::Unsupported(to, kind))
            }
            Ok(Err(error)) => Err(StreamError::Unreachable(to, error.to_string())),
            Err(_) => Err(StreamError::Unreachable(to, "no answer in time".to_owned())),
        }
    }

    /// The streams of a kind that peers open from now on; once for each kind. Those that find the queue
    /// ([`Limits::queue`](crate::Limits::queue)) full are refused.
    #[must_use = "an unread queue fills up"]
    pub fn accept_streams(&self, kind: StreamKind) -> mpsc::Receiver<IncomingStream> {
        let (queue, receiver) = mpsc::channel(self.inner.queue);
        let streams = &self.inner.streams;
        let mut incoming = match streams.control.clone().accept(kind.protocol(&streams.scope)) {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::error!(%error, kind = kind.name(), "streams cannot be accepted");
                return receiver;
            }
        };
        streams.acceptors().push((kind, queue.clone()));
        let (streams, stop) = (Arc::clone(streams), self.inner.stop.clone());
        self.inner.tasks.spawn(async move {
            // The stream ends with the swarm; `stop` may come first.
            while let Some(Some(opened)) = stop.run_until_cancelled(incoming.next()).await {
                streams.take(opened, kind, &queue);
            }
        });
        receiver
    }
}
