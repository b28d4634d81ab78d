//! The Unix socket of a process. Whoever may open it (its owner) may ask everything.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use async_recursion::async_recursion as boxed;
use axum::{Extension, Router};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::gate::Caller;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
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
}

/// Answers on `socket` until `stop`; the socket's file is removed then.
///
/// # Errors
/// [`SocketError`].
#[boxed]
pub async fn serve(
    socket: PathBuf,
    router: Router,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, SocketError> {
    if UnixStream::connect(&socket).await.is_ok() {
        return Err(SocketError::InUse(socket));
    }
    let listen = |source| SocketError::Listen { socket: socket.clone(), source };
    // What a killed process left behind.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(listen)?;
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).map_err(listen)?;
    let router = router.layer(Extension(Caller::Local));
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::warn!(%error, "the admin socket failed");
        }
        let _ = fs::remove_file(&socket); // gone already is as good
    }))
}
