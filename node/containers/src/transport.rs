//! How calls reach the engine: a connection of its own for each, so that a call that hangs, and is given
//! up, holds up no other.
//!
//! bollard keeps the status and the message of a refusal, and no header. When the engine says in
//! `Retry-After` how long it wants to be left alone, that is added to the message, where
//! [`crate::refusal`] looks for what registries say.

use std::{io, path::PathBuf, sync::Arc};

use bollard::{API_DEFAULT_VERSION, BollardRequest, errors::Error};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HOST, HeaderValue, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_util::task::AbortOnDropHandle;

/// More than any refusal has to say.
const MAX_REFUSAL: usize = 64 << 10;

/// More than [`get`] is used for.
const MAX_ANSWER: usize = 1 << 20;

/// A connection to the engine.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connects to the engine.
pub(crate) type Dial =
    Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Connection>>> + Send + Sync>;

/// Connects to the engine behind a Unix socket.
pub(crate) fn unix(socket: PathBuf) -> Dial {
    Arc::new(move || {
        let socket = socket.clone();
        Box::pin(async move {
            let stream: Box<dyn Connection> = Box::new(UnixStream::connect(socket).await?);
            Ok(stream)
        })
    })
}

/// A client that gives no call up before `seconds`.
pub(crate) fn client(dial: Dial, seconds: u64) -> Result<bollard::Docker, Error> {
    let transport = move |request| {
        let connecting = dial();
        async move { send(connecting.await?, request).await }
    };
    bollard::Docker::connect_with_custom_transport(
        transport,
        Some("http://engine"),
        seconds,
        API_DEFAULT_VERSION,
    )
}

/// Asks what bollard has no call for.
pub(crate) async fn get(dial: &Dial, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(dial().await?)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path).header(HOST, "engine").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| io::Error::other(error.to_string()))?;
    Ok((status, body.to_bytes()))
}

async fn send(
    stream: Box<dyn Connection>,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, or as soon as nobody waits for it any more.
    tokio::spawn(connection.with_upgrades());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return Ok(response);
    }
    let Some(after) = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok())
    else {
        return Ok(response);
    };
    let after = after.to_owned();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = serde_json::from_slice(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).into_owned(),
        |Refusal { message }| message,
    );
    let message = format!("{message}; Retry-After: {after}");
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}
