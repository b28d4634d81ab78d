//! How the command line talks to a running process: HTTP with JSON bodies over a Unix socket in the
//! process's data directory. Whoever may open the socket (its owner) may ask.
//!
//! An answer other than 2xx carries `{"error": ...}`; [`AdminError::Refused`] passes it on.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use axum::Router;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a running process cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error("{socket}: {source}; is the process running, and is this its data directory?")]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("{socket}: {source}")]
    Listen {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("{0}: another process answers there; one process at a time per data directory")]
    InUse(PathBuf),
    /// Not an answer.
    #[error("{socket}: {detail}")]
    Broken {
        /// Whom was asked.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Answers on `socket` until `stop`; the socket's file is removed then.
///
/// # Errors
/// [`AdminError::InUse`], [`AdminError::Listen`].
#[boxed]
pub async fn serve(
    socket: PathBuf,
    router: Router,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, AdminError> {
    if UnixStream::connect(&socket).await.is_ok() {
        return Err(AdminError::InUse(socket));
    }
    let listen = |source| AdminError::Listen { socket: socket.clone(), source };
    // What a killed process left behind.
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(listen)?;
    let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&socket, only_owner).map_err(listen)?;
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::warn!(%error, "the admin socket failed");
        }
        let _ = std::fs::remove_file(&socket); // gone already is as good
    }))
}

/// Asks for `path`.
///
/// # Errors
/// [`AdminError`].
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AdminError> {
    read(socket, &ask(socket, Method::GET, path, Bytes::new()).await?)
}

/// Posts `body` to `path`.
///
/// # Errors
/// [`AdminError`].
pub async fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
) -> Result<T, AdminError> {
    let body = serde_json::to_vec(body).map_err(|e| broken(socket, &e))?;
    read(socket, &ask(socket, Method::POST, path, body.into()).await?)
}

fn read<T: DeserializeOwned>(socket: &Path, answer: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(answer).map_err(|e| broken(socket, &e))
}

fn broken(socket: &Path, detail: &dyn core::fmt::Display) -> AdminError {
    AdminError::Broken { socket: socket.to_owned(), detail: detail.to_string() }
}

#[boxed]
async fn ask(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Bytes, AdminError> {
    let answer = tokio::time::timeout(DEADLINE, exchange(socket, method, path, body));
    let (ok, body) = answer.await.map_err(|_| broken(socket, &"no answer in time"))??;
    if ok {
        return Ok(body);
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(AdminError::Refused(match said.get("error").and_then(|e| e.as_str()) {
        Some(error) => error.to_owned(),
        None => String::from_utf8_lossy(&body).into_owned(),
    }))
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(bool, Bytes), AdminError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AdminError::Connect { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(socket, &e))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "veil")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|e| broken(socket, &e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(socket, &e))?;
    let ok = response.status().is_success();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|e| broken(socket, &e))?
        .to_bytes();
    connection.abort();
    Ok((ok, body))
}

#[cfg(test)]
mod tests {
    use axum::{
        Json,
        http::StatusCode,
        routing::{get as on_get, post as on_post},
    };
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn questions_are_answered_and_refusals_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        assert!(matches!(
            get::<Value>(&socket, "/v1/status").await,
            Err(AdminError::Connect { .. })
        ));
        let router = Router::new()
            .route("/v1/status", on_get(|| async { Json(json!({"role": "worker"})) }))
            .route("/v1/echo", on_post(|Json(body): Json<Value>| async { Json(body) }))
            .route(
                "/v1/no",
                on_get(|| async { (StatusCode::CONFLICT, Json(json!({"error": "not now"}))) }),
            );
        let stop = CancellationToken::new();
        let served = serve(socket.clone(), router.clone(), stop.clone()).await.unwrap();
        assert_eq!(get::<Value>(&socket, "/v1/status").await.unwrap()["role"], "worker");
        assert_eq!(post::<Value>(&socket, "/v1/echo", &json!([1, 2])).await.unwrap()[1], 2);
        let refused = get::<Value>(&socket, "/v1/no").await;
        assert!(matches!(refused, Err(AdminError::Refused(error)) if error == "not now"));
        assert!(matches!(
            serve(socket.clone(), router, stop.clone()).await,
            Err(AdminError::InUse(_))
        ));
        stop.cancel();
        served.await.unwrap();
        assert!(!socket.exists());
    }
}
