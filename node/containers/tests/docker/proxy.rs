//! A socket before the engine's own that lets some calls hang, and counts.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{UnixListener, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::common::socket;

#[derive(Debug, Default)]
struct State {
    /// Parts of calls that are never answered.
    ignores: Vec<String>,
    calls: usize,
}

/// See the [module documentation](self). The worker has a connection for each call.
pub(crate) struct Proxy {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    _serving: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, Arc::clone(&shared)));
            }
        });
        Self { folder, state, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    pub(crate) fn ignore(&self, calls: &[String]) {
        self.state.lock().unwrap().ignores = calls.to_vec();
    }

    /// Since the last time that this was asked.
    pub(crate) fn calls(&self) -> usize {
        core::mem::take(&mut self.state.lock().unwrap().calls)
    }
}

async fn pass(mut stream: UnixStream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(2).any(|two| two == b"\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let is_ignored = {
        let mut state = state.lock().unwrap();
        state.calls += 1;
        state.ignores.iter().any(|part| line.contains(part))
    };
    if is_ignored {
        // As long as somebody waits.
        while stream.read_buf(&mut head).await? > 0 {}
        return Ok(());
    }
    let mut engine = UnixStream::connect(socket()).await?;
    engine.write_all(&head).await?;
    copy_bidirectional(&mut stream, &mut engine).await?;
    Ok(())
}
