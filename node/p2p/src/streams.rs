//! Opening and accepting [streams](crate::stream).

use std::{sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use futures::StreamExt as _;
use libp2p_stream::OpenStreamError;
use tokio::{io::duplex, sync::mpsc, time::timeout};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use veil_protocol_spec::PeerIdHash;

use crate::{
    error::StreamError,
    identity::peer_id,
    kind::StreamKind,
    network::Network,
    stream::{ByteStream, IncomingStream, protocol},
};

/// How long a peer may take to agree to a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes on the way within this node, in each direction.
const WITHIN: usize = 256 << 10;

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
        let opening = control.open_stream(id, protocol(kind, &streams.scope));
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
        let mut incoming = match streams.control.clone().accept(protocol(kind, &streams.scope)) {
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
