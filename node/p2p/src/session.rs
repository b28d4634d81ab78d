//! Sessions: many streams over one, between two ends that know each other.
//!
//! # Flow
//! 1. The one that begins calls [`Session::connect`], the other [`Session::accept`]: a Noise handshake (XX) shows each
//!    the other's identity, and encrypts everything that follows. Whoever carries the bytes of the stream beneath learns
//!    their number and their times.
//! 2. Where the connection beneath shows the peer already, [`Session::direct`] does without.
//! 3. Either end opens streams by [`Opener::open`], as long as the session lives; yamux gives each of them back-pressure
//!    of its own. What one end opens, the other finds in [`Session::incoming`] once something is written to it.
//! 4. Dropping the [`Session`] ends all of its streams.
//!
//! # Bounds
//! What the other end has sent and nobody has read, in all streams of a session, is at most 32 MiB; streams are
//! as many as fit into it with the least window that yamux gives each. An [`Opener`] waits before it opens more.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use async_recursion::async_recursion as boxed;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{
    compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _},
    sync::{CancellationToken, DropGuard},
};
use veil_protocol_spec::{
    PeerIdHash,
    identity::SecretIdentity,
    scheduling::{ClusterScope, keccak},
};
use yamux::{Config, Connection, Mode};

use crate::{
    identity::keypair,
    kind::scope_tag,
    noise,
    stream::{ByteStream, Duplex},
};

/// How long the other end may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is on the way may take when the session ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Streams that the other end has opened and nobody has taken yet; further ones are dropped.
const QUEUE: usize = 64;
/// Streams that one end opens at once; it waits until others are over.
const OPEN: usize = 64;
/// Streams of a session; the other end may hear later that some are over. More end the session.
const STREAMS: usize = 96;
/// Bytes of a piece. It is one message of Noise, and one piece again of the yamux between nodes (`muxer`) that carries it.
pub const PIECE: usize = 60 << 10;
/// Bytes that wait to be read, in all streams of a session.
const WINDOW: usize = 32 << 20;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum SessionError {
    /// The identity of this end is none.
    #[error("this end's key is none of secp256k1")]
    Identity,
    /// The handshake took too long.
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// The handshake failed: the other end refused, or is none.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// Somebody else is at the other end.
    #[error("peer {found} is at the other end, not {expected}")]
    OtherPeer { expected: PeerIdHash, found: PeerIdHash },
    /// It has ended.
    #[error("the session is over")]
    Over,
}

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that begins.
    Begins,
    /// The other.
    Answers,
}

type Request = oneshot::Sender<ByteStream>;

/// Opens streams of a session; cheap to clone.
#[derive(Clone, Debug)]
pub struct Opener {
    requests: mpsc::Sender<Request>,
    open: Arc<Semaphore>,
}

impl Opener {
    /// Opens a stream, once fewer than 64 of this end are open.
    ///
    /// # Errors
    /// [`SessionError::Over`].
    #[boxed]
    pub async fn open(&self) -> Result<ByteStream, SessionError> {
        // Nobody closes the semaphore.
        let held = Arc::clone(&self.open).acquire_owned().await.map_err(|_| SessionError::Over)?;
        let (reply, opened) = oneshot::channel();
        self.requests.send(reply).await.map_err(|_| SessionError::Over)?;
        Ok(opened.await.map_err(|_| SessionError::Over)?.holding(held))
    }

    /// Returns when the session is over.
    pub async fn over(&self) {
        self.requests.closed().await;
    }
}

/// A session: many streams over one, for its two ends only.
#[derive(Debug)]
pub struct Session {
    /// Who is at the other end.
    pub peer: PeerIdHash,
    /// Opens streams.
    pub opener: Opener,
    /// The streams that the other end opens.
    pub incoming: mpsc::Receiver<ByteStream>,
    _stop_on_drop: DropGuard,
}

impl Session {
    /// Begins a session under `identity`, which may be made for it, with the peer that is expected.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn connect(
        stream: impl Duplex + 'static,
        scope: &ClusterScope,
        identity: &SecretIdentity,
        expected: PeerIdHash,
    ) -> Result<Self, SessionError> {
        let session = Self::shake(ByteStream::new(stream), scope, identity, End::Begins).await?;
        match session.peer {
            found if found == expected => Ok(session),
            found => Err(SessionError::OtherPeer { expected, found }),
        }
    }

    /// Answers whoever has opened `stream`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn accept(
        stream: impl Duplex + 'static,
        scope: &ClusterScope,
        identity: &SecretIdentity,
    ) -> Result<Self, SessionError> {
        Self::shake(ByteStream::new(stream), scope, identity, End::Answers).await
    }

    /// Over a stream to a peer that is known already, by the connection beneath.
    #[must_use]
    pub fn direct(stream: ByteStream, peer: PeerIdHash, end: End) -> Self {
        Self::over(stream.compat(), peer, end)
    }

    #[boxed]
    async fn shake(
        stream: ByteStream,
        scope: &ClusterScope,
        identity: &SecretIdentity,
        end: End,
    ) -> Result<Self, SessionError> {
        let key = keypair(identity).ok_or(SessionError::Identity)?;
        // A handshake for this purpose and cluster is of no use for another.
        let prologue = format!("veil reach 2 {}", scope_tag(scope));
        let shaking = noise::shake(stream, &key, prologue.as_bytes(), end == End::Begins);
        let shaken = timeout(HANDSHAKE_TIMEOUT, shaking).await;
        let shaken = shaken.map_err(|_| SessionError::Timeout)?;
        let (peer, secured) = shaken.map_err(|e| SessionError::Handshake(e.to_string()))?;
        Ok(Self::over(secured, PeerIdHash(keccak(&peer.to_bytes()).0), end))
    }

    fn over<C>(stream: C, peer: PeerIdHash, end: End) -> Self
    where
        C: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    {
        let stop = CancellationToken::new();
        let (requests, asked) = mpsc::channel(1);
        let (found, incoming) = mpsc::channel(QUEUE);
        let mut config = Config::default();
        config.set_max_num_streams(STREAMS).set_max_connection_receive_window(Some(WINDOW));
        config.set_split_send_size(PIECE);
        let mode = match end {
            End::Begins => Mode::Client,
            End::Answers => Mode::Server,
        };
        let connection = Connection::new(stream, config, mode);
        tokio::spawn(drive(connection, asked, found, stop.clone()));
        let opener = Opener { requests, open: Arc::new(Semaphore::new(OPEN)) };
        Self { peer, opener, incoming, _stop_on_drop: stop.drop_guard() }
    }
}

/// Moves the bytes of all streams until the session is over.
async fn drive<C>(
    mut connection: Connection<C>,
    mut asked: mpsc::Receiver<Request>,
    found: mpsc::Sender<ByteStream>,
    stop: CancellationToken,
) where
    C: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
{
    let mut waiting: VecDeque<Request> = VecDeque::new();
    let moving = poll_fn(|cx| {
        'moving: loop {
            loop {
                match connection.poll_next_inbound(cx) {
                    Poll::Ready(Some(Ok(stream))) => {
                        if found.try_send(ByteStream::new(stream.compat())).is_err() {
                            tracing::debug!("a stream of a session was dropped: too many wait");
                        }
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            while let Poll::Ready(Some(request)) = asked.poll_recv(cx) {
                waiting.push_back(request);
            }
            waiting.retain(|request| !request.is_closed());
            if !waiting.is_empty() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        let stream = ByteStream::new(stream.compat());
                        // Whoever asked may have given up.
                        let _ = waiting.pop_front().map(|request| request.send(stream));
                        // Until it is polled with the others, above, what is written to it wakes nobody.
                        continue 'moving;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            return Poll::Pending;
        }
    });
    tokio::select! {
        () = moving => {}
        () = stop.cancelled() => {}
    }
    // An error means that the other end has gone.
    let _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| connection.poll_close(cx))).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Beside one that is open and says nothing, as the control stream between two beats.
    #[tokio::test(start_paused = true)]
    async fn what_a_new_stream_says_waits_for_no_other() {
        let (here, there) = duplex(64 << 10);
        let peer = PeerIdHash([1; 32]);
        let client = Session::direct(ByteStream::new(here), peer, End::Begins);
        let mut server = Session::direct(ByteStream::new(there), peer, End::Answers);
        let mut quiet = client.opener.open().await.unwrap();
        quiet.write_all(b"1").await.unwrap();
        let _quiet = server.incoming.recv().await.unwrap();
        for _ in 0..3 {
            let mut asks = client.opener.open().await.unwrap();
            asks.write_all(b"2").await.unwrap();
            // Time passes only when nobody has anything to do.
            let found = timeout(Duration::from_secs(3600), server.incoming.recv()).await;
            let mut found = found.expect("it was not sent").unwrap();
            let mut byte = [0];
            found.read_exact(&mut byte).await.unwrap();
            found.write_all(b"3").await.unwrap();
            asks.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"3");
        }
    }
}
