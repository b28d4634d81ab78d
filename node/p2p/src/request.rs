//! Requests: one message to one peer, one answer back.
//!
//! A frame is a version byte, a tag byte (the protocol of a request, the outcome of an answer), a
//! length as four bytes (little endian), the body. Version, tag and length, the peer's role and what it
//! may still send are checked before anything of the body is read. Each [`Lane`] has its own libp2p
//! behaviour.

use core::time::Duration;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    request_response::{self, Codec, OutboundRequestId, ProtocolSupport, ResponseChannel},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use veil_protocol_spec::PeerIdHash;

use crate::{
    admission::{Admission, Held},
    error::RequestError,
    kind::{Lane, Protocol},
    refusal::Refusal,
};

const VERSION: u8 = 1;
pub(crate) const MAX_REASON_BYTES: usize = 256;
const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Longest deadline of a request; [`Network::request`](crate::Network::request) cuts longer ones.
pub const MAX_DEADLINE: Duration = Duration::from_secs(300);
/// A probe without an answer is lost long before this; the deadline frees its stream.
const SWIM_DEADLINE: Duration = Duration::from_secs(5);
/// Streams of one connection, both directions together. [`Admission`] bounds what is read on them.
const STREAMS_PER_CONNECTION: usize = 128;
/// Requests to one peer at the same time; those of both directions and a few that have timed out
/// here but not there fit into [`STREAMS_PER_CONNECTION`].
pub(crate) const MAX_IN_FLIGHT: usize = 48;

/// A request as read from the wire.
#[derive(Debug)]
pub(crate) enum Call {
    /// The body, and what it takes of the peer's room.
    Read(Protocol, Vec<u8>, Held),
    /// Nothing was read but the head, in which there may be no protocol of this lane.
    Refused(Option<Protocol>, Refusal),
}

/// An answer as written to the wire; the discriminants are the tags.
#[derive(Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    Done(Vec<u8>) = 0,
    Refused(String) = 1,
    Unsupported = 2,
    Busy = 3,
    TooLarge = 4,
    Malformed = 5,
    NotAllowed = 6,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLong => Self::TooLarge,
            Refusal::NotAMember | Refusal::NotAWorker | Refusal::NotRegistered => Self::NotAllowed,
            Refusal::NotServed => Self::Unsupported,
            Refusal::Malformed | Refusal::Forged | Refusal::UnknownAuthor => Self::Malformed,
            Refusal::TooOften | Refusal::TooMuch | Refusal::TooManyStreams | Refusal::QueueFull => {
                Self::Busy
            }
        }
    }
}

impl Answer {
    /// The answer as the caller gets it.
    pub(crate) fn into_result(
        self,
        peer: PeerIdHash,
        protocol: Protocol,
    ) -> Result<Vec<u8>, RequestError> {
        match self {
            Self::Done(bytes) if bytes.len() <= protocol.max_response() => Ok(bytes),
            Self::Done(_) | Self::Malformed => Err(RequestError::Malformed(peer)),
            Self::Refused(reason) => Err(RequestError::Refused { peer, reason }),
            Self::Unsupported => Err(RequestError::Unsupported(peer, protocol)),
            Self::Busy => Err(RequestError::Busy(peer)),
            Self::NotAllowed => Err(RequestError::NotAllowed(peer, protocol)),
            Self::TooLarge => Err(RequestError::TooLarge { protocol, max: protocol.max_request() }),
        }
    }
}

/// The framing on one lane.
#[derive(Debug)]
pub(crate) struct Frames {
    lane: Lane,
    admission: Admission,
    reads: Reads,
}

/// Whose streams a codec reads. libp2p copies the behaviour's codec for each connection, and that of the
/// connection for each stream, without saying whose it is.
#[derive(Clone, Debug)]
enum Reads {
    /// The behaviour's own: a copy of it reads those of the peer whose connection is being set up.
    Next(Arc<Mutex<Option<PeerId>>>),
    Of(Option<PeerId>),
}

impl Clone for Frames {
    fn clone(&self) -> Self {
        let reads = match &self.reads {
            Reads::Next(peer) => Reads::Of(*peer.lock().unwrap_or_else(PoisonError::into_inner)),
            of => of.clone(),
        };
        Self { lane: self.lane, admission: self.admission.clone(), reads }
    }
}

/// libp2p's behaviour of requests, with codecs that know whose streams they read.
pub(crate) struct Requests {
    inner: request_response::Behaviour<Frames>,
    next: Arc<Mutex<Option<PeerId>>>,
}

impl Requests {
    pub(crate) fn send_request(&mut self, peer: &PeerId, call: Call) -> OutboundRequestId {
        self.inner.send_request(peer, call)
    }

    pub(crate) fn send_response(
        &mut self,
        channel: ResponseChannel<Answer>,
        answer: Answer,
    ) -> Result<(), Answer> {
        self.inner.send_response(channel, answer)
    }

    fn connects(&self, peer: PeerId) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
    }
}

impl NetworkBehaviour for Requests {
    type ConnectionHandler =
        <request_response::Behaviour<Frames> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = request_response::Event<Call, Answer>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.connects(peer);
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.connects(peer);
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

pub(crate) fn behaviour(scope: &str, lane: Lane, admission: Admission) -> Requests {
    let (name, deadline) = match lane {
        Lane::Swim => ("swim", SWIM_DEADLINE),
        Lane::Bulk => ("request", MAX_DEADLINE),
    };
    // libp2p refuses only a name without a leading slash.
    let protocol = StreamProtocol::try_from_owned(format!("/veil/{scope}/{name}/1"));
    let config = request_response::Config::default()
        .with_request_timeout(deadline)
        .with_max_concurrent_streams(STREAMS_PER_CONNECTION);
    let protocols = protocol.into_iter().map(|protocol| (protocol, ProtocolSupport::Full));
    let next = Arc::default();
    let reads = Reads::Next(Arc::clone(&next));
    let frames = Frames { lane, admission, reads };
    Requests { inner: request_response::Behaviour::with_codec(frames, protocols, config), next }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the frame has another version or format")
}

async fn read_head<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<(u8, u8, usize)> {
    let mut head = [0; 6];
    io.read_exact(&mut head).await?;
    let [version, tag, len @ ..] = head;
    Ok((version, tag, u32::from_le_bytes(len) as usize))
}

async fn read_body<T: AsyncRead + Unpin + Send>(io: &mut T, len: usize) -> io::Result<Vec<u8>> {
    // The body grows with what arrives: a length alone takes no memory. `read_to_end` would zero all
    // spare capacity each time it waits, which takes most of the time for long bodies.
    let mut body = Vec::new();
    let mut chunk = vec![0; len.min(READ_CHUNK_BYTES)];
    while body.len() < len {
        let wanted = chunk.len().min(len - body.len());
        let read = io.read(&mut chunk[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.extend_from_slice(&chunk[..read]);
    }
    Ok(body)
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(
    io: &mut T,
    tag: u8,
    body: &[u8],
) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(|_| malformed())?;
    let [a, b, c, d] = len.to_le_bytes();
    io.write_all(&[VERSION, tag, a, b, c, d]).await?;
    io.write_all(body).await
}

#[async_trait]
impl Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Call;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Call>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (version, tag, len) = read_head(io).await?;
        let protocol = Protocol::from_tag(tag).filter(|protocol| protocol.lane() == self.lane);
        let Some(protocol) = protocol.filter(|_| version == VERSION) else {
            return Ok(Call::Refused(None, Refusal::Malformed));
        };
        let Reads::Of(Some(peer)) = self.reads else {
            return Ok(Call::Refused(Some(protocol), Refusal::NotRegistered));
        };
        match self.admission.request(peer, protocol, len).await {
            Ok(held) => Ok(Call::Read(protocol, read_body(io, len).await?, held)),
            Err(refusal) => Ok(Call::Refused(Some(protocol), refusal)),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (version, tag, len) = match read_head(io).await {
            // The peer has dropped the responder, which closes the stream without an answer.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Answer::Refused(String::new()));
            }
            head => head?,
        };
        let max = match (tag, self.lane) {
            (0, Lane::Swim) => Protocol::Swim.max_response(),
            (0, Lane::Bulk) => Protocol::Sync.max_response(), // the longest; the caller checks its own
            (1, _) => MAX_REASON_BYTES,
            _ => 0,
        };
        if version != VERSION || len > max {
            return Ok(Answer::Malformed);
        }
        let body = read_body(io, len).await?;
        Ok(match tag {
            0 => Answer::Done(body),
            1 => Answer::Refused(String::from_utf8_lossy(&body).into_owned()),
            2 => Answer::Unsupported,
            3 => Answer::Busy,
            4 => Answer::TooLarge,
            6 => Answer::NotAllowed,
            _ => Answer::Malformed,
        })
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        call: Call,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Call::Read(protocol, body, _) = call else { return Err(malformed()) };
        write_frame(io, protocol as u8, &body).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: Answer,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match answer {
            Answer::Done(body) => write_frame(io, 0, &body).await,
            Answer::Refused(reason) => write_frame(io, 1, reason.as_bytes()).await,
            Answer::Unsupported => write_frame(io, 2, &[]).await,
            Answer::Busy => write_frame(io, 3, &[]).await,
            Answer::TooLarge => write_frame(io, 4, &[]).await,
            Answer::Malformed => write_frame(io, 5, &[]).await,
            Answer::NotAllowed => write_frame(io, 6, &[]).await,
        }
    }
}
