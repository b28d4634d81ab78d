//! Streams of bytes, and sessions over them through a peer that carries what it cannot read.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional,
};
use veil_node_p2p::{
    ByteStream, End, IncomingStream, Network, Session, SessionError, StreamError, StreamKind,
};

use crate::cluster::{QUIC, TCP, cluster, connected, id, scope, secret, within};

const SECRET: &[u8] = b"what only the two ends of a session may know";

async fn three(listen: &str) -> Vec<Network> {
    let (networks, _directory) = cluster(&[1, 2, 3], listen).await;
    connected(&networks[0], &[2, 3]).await;
    networks
}

/// What a stream wrote and read, beside the stream.
struct Tapped(ByteStream, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buffer);
        self.1.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.1.lock().unwrap().extend_from_slice(&bytes[..written]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Repeats, on each stream of the session, what comes on it, until it ends.
async fn echo(mut session: Session) {
    while let Some(mut stream) = session.incoming.recv().await {
        tokio::spawn(async move {
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
            stream.shutdown().await.unwrap();
        });
    }
}

async fn ask(session: &Session, said: &[u8]) -> Vec<u8> {
    let mut stream = session.opener.open().await.unwrap();
    stream.write_all(said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

/// Node 1 is the way to node 2, and records what it carries.
async fn a_session_through(listen: &str) {
    let networks = three(listen).await;
    let (entry, worker) = (&networks[0], &networks[1]);
    let mut streams = worker.accept_streams(StreamKind::Reach);
    let answering = tokio::spawn(async move {
        let IncomingStream { from, stream } = streams.recv().await.unwrap();
        assert_eq!(from, id(1), "the way, not who is at its end");
        let session = Session::accept(stream, &scope(1), &secret(2)).await.unwrap();
        let client = session.peer;
        echo(session).await;
        client
    });
    let carried = Arc::new(Mutex::new(Vec::new()));
    let mut onward = Tapped(
        within("stream", entry.open_stream(id(2), StreamKind::Reach)).await.unwrap(),
        Arc::clone(&carried),
    );
    let (here, mut there) = tokio::io::duplex(64 << 10);
    let carrying = tokio::spawn(async move { copy_bidirectional(&mut there, &mut onward).await });
    let connecting = Session::connect(here, &scope(1), &secret(9), id(2));
    let session = within("session", connecting).await.unwrap();
    assert_eq!(session.peer, id(2));
    let long: Vec<u8> = SECRET.repeat(100_000);
    // Many at once, and each of them more than a window.
    let asked = (0..8).map(|_| ask(&session, &long));
    for answer in within("answers", futures::future::join_all(asked)).await {
        assert!(answer == long);
    }
    drop(session);
    assert_eq!(within("end", answering).await.unwrap(), id(9));
    carrying.abort();
    let carried = carried.lock().unwrap();
    assert!(carried.len() > 16 * long.len());
    let readable = carried.windows(16).any(|window| window == &SECRET[..16]);
    assert!(!readable, "the entry node can read");
    for network in networks {
        network.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_node_carries_what_it_cannot_read_over_quic() {
    a_session_through(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_node_carries_what_it_cannot_read_over_tcp() {
    a_session_through(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_way_is_not_who_was_expected() {
    let (here, there) = tokio::io::duplex(64 << 10);
    let in_the_way = tokio::spawn(async move {
        let _ = Session::accept(there, &scope(1), &secret(3)).await;
    });
    let refused = Session::connect(here, &scope(1), &secret(9), id(2)).await.unwrap_err();
    assert!(
        matches!(refused, SessionError::OtherPeer { expected, found } if expected == id(2) && found == id(3)),
        "{refused}"
    );
    in_the_way.await.unwrap();
    // A handshake for another cluster is none for this one.
    let (here, there) = tokio::io::duplex(64 << 10);
    let other = tokio::spawn(async move {
        Session::accept(there, &scope(2), &secret(2)).await.map(drop).unwrap_err()
    });
    let refused = Session::connect(here, &scope(1), &secret(9), id(2)).await.map(drop).unwrap_err();
    assert!(matches!(refused, SessionError::Handshake(_)), "{refused}");
    assert!(matches!(other.await.unwrap(), SessionError::Handshake(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_between_the_two_that_the_connection_shows() {
    let networks = three(QUIC).await;
    let (one, two) = (&networks[0], &networks[1]);
    let refused = one.open_stream(id(9), StreamKind::Link).await.unwrap_err();
    assert_eq!(refused, StreamError::NotRegistered(id(9)));
    let refused = one.open_stream(id(2), StreamKind::Link).await.unwrap_err();
    assert_eq!(refused, StreamError::Unsupported(id(2), StreamKind::Link), "nobody accepts yet");
    let refused = one.open_stream(id(1), StreamKind::Link).await.unwrap_err();
    assert_eq!(refused, StreamError::Unsupported(id(1), StreamKind::Link));
    // To another node, and to itself.
    for to in [2, 1] {
        let mut streams = networks[usize::from(to) - 1].accept_streams(StreamKind::Link);
        let answering = tokio::spawn(async move {
            let IncomingStream { from, stream } = streams.recv().await.unwrap();
            echo(Session::direct(stream, from, End::Answers)).await;
            from
        });
        let stream = within("link", one.open_stream(id(to), StreamKind::Link)).await.unwrap();
        let session = Session::direct(stream, id(to), End::Begins);
        assert_eq!(ask(&session, SECRET).await, SECRET);
        drop(session);
        assert_eq!(within("end", answering).await.unwrap(), id(1));
    }
    assert!(two.metrics().refusals().is_empty());
    for network in networks {
        network.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_streams_open_and_no_more() {
    let networks = three(QUIC).await;
    let (one, two) = (&networks[0], &networks[1]);
    let mut streams = two.accept_streams(StreamKind::Reach);
    let (mut opened, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        opened.push(within("open", one.open_stream(id(2), StreamKind::Reach)).await.unwrap());
        taken.push(within("take", streams.recv()).await.unwrap());
    }
    let mut more = within("open", one.open_stream(id(2), StreamKind::Reach)).await.unwrap();
    let mut byte = [0];
    let read = within("its end", more.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(two.metrics().refusals()["reach"]["too_many_streams"], 1);
    taken.pop();
    within("one more", async {
        // The end of one is told before another may take its place.
        loop {
            let _stream = one.open_stream(id(2), StreamKind::Reach).await.unwrap();
            if let Ok(Some(_)) =
                tokio::time::timeout(std::time::Duration::from_millis(200), streams.recv()).await
            {
                return;
            }
        }
    })
    .await;
    for network in networks {
        network.stop().await;
    }
}
