//! Streams over one TCP connection: yamux, on the wire as `libp2p-yamux` speaks it, in pieces of 63 KB instead of 16.
//!
//! Each piece is a message of Noise, a call of the kernel, and a reader to wake. `libp2p-yamux` does not let its size be
//! chosen.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    iter::{Once, once},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// Bytes of a piece: with yamux's header of 12 it fits into one message of libp2p's Noise.
const PIECE: usize = 65_535 - 1024 - 12;
/// Streams of the peer that nobody has asked for yet; yamux lets it have no more without an answer.
const QUEUE: usize = 256;

/// Agrees to yamux over what is encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yamux;

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, io: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(io, Mode::Client)))
    }
}

/// A connection of many streams.
pub(crate) struct Muxer<C> {
    connection: Connection<C>,
    /// The peer's, not asked for yet: the connection moves bytes only while it looks for them.
    incoming: VecDeque<Stream>,
    asks: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(io: C, mode: Mode) -> Self {
        let mut config = Config::default();
        // As `libp2p-yamux` has it: a stream ends with its connection.
        config.set_read_after_close(false).set_split_send_size(PIECE);
        let connection = Connection::new(io, config, mode);
        Self { connection, incoming: VecDeque::new(), asks: None }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection
            .poll_next_inbound(cx)
            .map(|stream| stream.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.incoming.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let found = self.poll_incoming(cx);
        if found.is_pending() {
            self.asks = Some(cx.waker().clone());
        }
        found
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        while let Poll::Ready(found) = self.poll_incoming(cx) {
            let stream = found?;
            if self.incoming.len() >= QUEUE {
                tracing::debug!("a stream of a peer was dropped: too many wait");
                continue;
            }
            self.incoming.push_back(stream);
            if let Some(asks) = self.asks.take() {
                asks.wake();
            }
        }
        Poll::Pending
    }
}
