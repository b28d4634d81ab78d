//! The two messages at the beginning of a stream between workers (`links.md`, step 6), from both ends.

use std::{io, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    time::timeout,
};
use veil_protocol_spec::{
    Wire,
    link::{LinkAnswer, LinkRefusal, LinkRequest, ReplicaCondition},
};

use crate::{judge::Granted, stream::Duplex};

/// "They have 10 seconds."
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a worker carries no connection to a replica of another, or does not know how that is.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// The asked worker says why.
    #[error("{0}")]
    Refused(LinkRefusal),
    /// It cannot be reached.
    #[error("its worker cannot be reached: {0}")]
    Unreachable(String),
    /// The stream broke off.
    #[error("its worker breaks off: {0}")]
    Broken(#[from] io::Error),
    /// It does not answer.
    #[error("its worker does not answer within {} s", DEADLINE.as_secs())]
    Silent,
    /// It answers something else.
    #[error("its worker answers what was not asked")]
    Nonsense,
}

async fn write<T: Wire>(stream: &mut impl Duplex, message: &T) -> io::Result<()> {
    let bytes = message.to_wire();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    stream.flush().await
}

async fn read<T: Wire>(stream: &mut impl Duplex) -> io::Result<T> {
    let length = usize::from(stream.read_u16().await?);
    if length > T::MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    T::from_wire(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn ask(stream: &mut impl Duplex, request: &LinkRequest) -> Result<LinkAnswer, LinkFailure> {
    let asking = async {
        write(stream, request).await?;
        read(stream).await
    };
    match timeout(DEADLINE, asking).await {
        Ok(Ok(LinkAnswer::Refused(why))) => Err(LinkFailure::Refused(why)),
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LinkFailure::Silent),
    }
}

/// Asks for a connection; after that the stream is the connection.
///
/// # Errors
/// [`LinkFailure`].
pub async fn connect<S: Duplex>(mut stream: S, request: &LinkRequest) -> Result<S, LinkFailure> {
    match ask(&mut stream, request).await? {
        LinkAnswer::Connected => Ok(stream),
        _ => Err(LinkFailure::Nonsense),
    }
}

/// Asks how a replica is.
///
/// # Errors
/// [`LinkFailure`].
pub async fn state(
    mut stream: impl Duplex,
    request: &LinkRequest,
) -> Result<ReplicaCondition, LinkFailure> {
    match ask(&mut stream, request).await? {
        LinkAnswer::State(state) => Ok(state),
        _ => Err(LinkFailure::Nonsense),
    }
}

/// Answers one stream, and carries its bytes. `decide` says what is granted, `open` opens the port of the container.
/// What was refused, if something was.
///
/// # Errors
/// The stream broke off before there was an answer, or what came was no request.
pub async fn answer<F: Duplex>(
    mut stream: impl Duplex,
    decide: impl FnOnce(&LinkRequest) -> Result<Granted, LinkRefusal>,
    open: impl FnOnce(&LinkRequest, u16) -> BoxFuture<'static, Result<F, LinkRefusal>>,
) -> io::Result<Option<LinkRefusal>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let request: LinkRequest = timeout(DEADLINE, read(&mut stream)).await.map_err(late)??;
    let opened = match decide(&request) {
        Ok(Granted::State(state)) => {
            write(&mut stream, &LinkAnswer::State(state)).await?;
            return Ok(None);
        }
        Ok(Granted::Connect(port)) => open(&request, port).await,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok(mut container) => {
            write(&mut stream, &LinkAnswer::Connected).await?;
            // How a connection ends is its programs' concern.
            let _ = copy_bidirectional(&mut stream, &mut container).await;
            Ok(None)
        }
        Err(refusal) => {
            write(&mut stream, &LinkAnswer::Refused(refusal)).await?;
            Ok(Some(refusal))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use veil_protocol_spec::{
        Blake3Digest, ReplicaIndex,
        link::{LinkEnd, LinkWish},
    };

    use super::*;

    const STATE: ReplicaCondition = ReplicaCondition { running: true, healthy: false };

    fn request(wish: LinkWish) -> LinkRequest {
        let end = |byte| LinkEnd { job: Blake3Digest([byte; 32]), replica: ReplicaIndex(0) };
        LinkRequest { from: end(1), to: end(2), wish }
    }

    fn wanted() -> LinkRequest {
        request(LinkWish::Connect("pg".parse().unwrap()))
    }

    fn opened(far: DuplexStream) -> BoxFuture<'static, Result<DuplexStream, LinkRefusal>> {
        Box::pin(async { Ok(far) })
    }

    #[tokio::test]
    async fn bytes_go_through_in_both_directions_and_so_does_their_end() {
        let ((here, there), (container, mut program)) = (duplex(64), duplex(64));
        let answering = tokio::spawn(answer(
            there,
            |asked| {
                assert_eq!(*asked, wanted());
                Ok(Granted::Connect(5432))
            },
            |_, port| {
                assert_eq!(port, 5432);
                opened(container)
            },
        ));
        let mut stream = connect(here, &wanted()).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut asked = Vec::new();
        program.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"ping");
        program.write_all(b"pong").await.unwrap();
        drop(program);
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.unwrap();
        assert_eq!(answered, b"pong");
        assert_eq!(answering.await.unwrap().unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_refused_is_said_by_name() {
        let refuse = |at_the_program: bool| async move {
            let (here, there) = duplex(64);
            let decide = move |_: &LinkRequest| match at_the_program {
                true => Ok(Granted::Connect(1)),
                false => Err(LinkRefusal::OtherOperator),
            };
            let open = |_: &LinkRequest, _| -> BoxFuture<'static, Result<DuplexStream, _>> {
                Box::pin(async { Err(LinkRefusal::NotListening) })
            };
            let answering = tokio::spawn(answer(there, decide, open));
            let failure = connect(here, &wanted()).await.unwrap_err();
            (failure.to_string(), answering.await.unwrap().unwrap())
        };
        let (said, counted) = refuse(false).await;
        assert_eq!(
            (said.as_str(), counted),
            ("it is a job of another operator", Some(LinkRefusal::OtherOperator))
        );
        assert_eq!(refuse(true).await.1, Some(LinkRefusal::NotListening));
    }

    #[tokio::test]
    async fn a_state_is_told_and_no_answer_to_another_question() {
        for (wish, as_asked) in
            [(LinkWish::State, true), (LinkWish::Connect("a".parse().unwrap()), false)]
        {
            let (here, there) = duplex(64);
            let open = |_: &LinkRequest, _| opened(duplex(1).0);
            let answering = tokio::spawn(answer(there, |_| Ok(Granted::State(STATE)), open));
            if as_asked {
                assert_eq!(state(here, &request(wish)).await.unwrap(), STATE);
            } else {
                let failure = connect(here, &request(wish)).await.unwrap_err();
                assert!(matches!(failure, LinkFailure::Nonsense), "{failure}");
            }
            assert_eq!(answering.await.unwrap().unwrap(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn noise_length_and_silence_are_not_waited_for() {
        let serve = |bytes: Vec<u8>| async move {
            let (mut here, there) = duplex(1024);
            here.write_all(&bytes).await.unwrap();
            let open = |_: &LinkRequest, _| opened(duplex(1).0);
            let answered = answer(there, |_| Ok(Granted::State(STATE)), open).await;
            drop(here);
            answered.unwrap_err().kind()
        };
        assert_eq!(serve(vec![0xff, 0xff]).await, io::ErrorKind::InvalidData);
        assert_eq!(serve(vec![0, 3, 1, 2, 3]).await, io::ErrorKind::InvalidData);
        assert_eq!(serve(vec![0]).await, io::ErrorKind::TimedOut);
        let (here, _there) = duplex(64);
        assert!(matches!(connect(here, &wanted()).await, Err(LinkFailure::Silent)));
        let (here, there) = duplex(64);
        drop(there);
        assert!(matches!(connect(here, &wanted()).await, Err(LinkFailure::Broken(_))));
    }
}
