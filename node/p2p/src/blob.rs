//! Files by digest, over streams that resume at an offset: the serving side.
//!
//! The client opens a stream and sends a BLAKE3 digest and an offset; the server answers with the
//! file's length and the bytes from there. The client trusts nothing in a stream: it checks the
//! digest of the whole file.

pub(crate) mod fetch;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use veil_protocol_spec::Blake3Digest;

use crate::{
    admission::{Admission, Use},
    command::Command,
    refusal::Refusal,
    traffic::Counters,
};

const VERSION: u8 = 1;
const REQUEST_BYTES: usize = 1 + 32 + 8;
const HEAD_BYTES: usize = 1 + 1 + 8;
const BUFFER_BYTES: usize = 256 * 1024;
/// How long either side waits for the other's next bytes.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// A peer that reads slower than this on average is given up: it keeps a place from others.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;

/// The byte of an answer after the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Found = 0,
    Unknown = 1,
    Busy = 2,
}

/// The files that this node offers, and what it needs to fetch those of others.
#[derive(Clone)]
pub(crate) struct Blobs {
    protocol: StreamProtocol,
    control: Control,
    offers: Arc<Mutex<HashMap<Blake3Digest, PathBuf>>>,
    serving: Serving,
    counters: Counters,
}

/// Who may fetch how much.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) admission: Admission,
    /// For what is refused.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Files served at the same time.
    pub(crate) at_once: Arc<Semaphore>,
}

impl Blobs {
    pub(crate) fn new(scope: &str, control: Control, counters: Counters, serving: Serving) -> Self {
        let name = format!("/veil/{scope}/blob/1");
        let protocol = StreamProtocol::try_from_owned(name);
        // libp2p refuses only a name without a leading slash.
        let protocol = protocol.unwrap_or(StreamProtocol::new("/veil/blob/1"));
        Self { protocol, control, offers: Arc::default(), serving, counters }
    }

    fn offers(&self) -> MutexGuard<'_, HashMap<Blake3Digest, PathBuf>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn provide(&self, digest: Blake3Digest, path: PathBuf) {
        self.offers().insert(digest, path);
    }

    /// Serves the offered files until `stop`.
    pub(crate) fn serve(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let mut incoming = match self.control.clone().accept(self.protocol.clone()) {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::error!(%error, "cannot serve files");
                return;
            }
        };
        let (blobs, stop, serving) = (self.clone(), stop.clone(), tasks.clone());
        tasks.spawn(async move {
            // The stream ends with the swarm; `stop` may come first.
            while let Some(Some((peer, stream))) = stop.run_until_cancelled(incoming.next()).await {
                let (blobs, stop) = (blobs.clone(), stop.clone());
                serving.spawn(async move {
                    let served = stop.run_until_cancelled(blobs.answer(peer, stream)).await;
                    if let Some(Err(error)) = served {
                        tracing::debug!(%peer, %error, "a file stream broke");
                    }
                });
            }
        });
    }

    fn count(&self, peer: PeerId, refusal: Refusal) {
        // Fails only when the network has stopped.
        let _ = self.serving.commands.send(Command::Refused { peer, protocol: "blob", refusal });
    }

    async fn answer(&self, peer: PeerId, mut stream: Stream) -> io::Result<()> {
        let _of_peer = match self.serving.admission.stream(&peer) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.count(peer, refusal);
                return refuse(&mut stream, Status::Busy).await;
            }
        };
        let mut request = [0; REQUEST_BYTES];
        timeout(STALL_TIMEOUT, stream.read_exact(&mut request)).await??;
        let [version, rest @ ..] = request;
        let (mut digest, mut offset) = ([0; 32], [0; 8]);
        digest.copy_from_slice(&rest[..32]);
        offset.copy_from_slice(&rest[32..]);
        let (digest, offset) = (Blake3Digest(digest), u64::from_le_bytes(offset));

        if version != VERSION {
            self.count(peer, Refusal::Malformed);
        }
        let path = self.offers().get(&digest).cloned();
        let Some(path) = path.filter(|_| version == VERSION) else {
            return refuse(&mut stream, Status::Unknown).await;
        };
        let Ok(_permit) = self.serving.at_once.try_acquire() else {
            self.count(peer, Refusal::QueueFull);
            return refuse(&mut stream, Status::Busy).await;
        };
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "an offered file cannot be opened");
                return refuse(&mut stream, Status::Unknown).await;
            }
        };
        let length = file.metadata().await?.len();
        file.seek(io::SeekFrom::Start(offset.min(length))).await?;
        send_head(&mut stream, Status::Found, length).await?;

        let mut buffer = vec![0; BUFFER_BYTES];
        let mut sent = 0;
        let left = length.saturating_sub(offset);
        let end =
            Instant::now() + STALL_TIMEOUT + Duration::from_secs(left / SLOWEST_BYTES_PER_SECOND);
        loop {
            let read = file.read(&mut buffer).await?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            let stalled = Instant::now() + STALL_TIMEOUT;
            timeout_at(stalled.min(end), stream.write_all(chunk)).await??;
            self.serving.admission.charge(&peer, Use::Blobs, chunk.len());
            sent += chunk.len();
        }
        self.counters.lock().blobs.send(sent);
        timeout(STALL_TIMEOUT, stream.close()).await?
    }
}

async fn refuse(stream: &mut Stream, status: Status) -> io::Result<()> {
    send_head(stream, status, 0).await?;
    timeout(STALL_TIMEOUT, stream.close()).await?
}

async fn send_head(stream: &mut Stream, status: Status, length: u64) -> io::Result<()> {
    let mut head = vec![VERSION, status as u8];
    head.extend_from_slice(&length.to_le_bytes());
    timeout(STALL_TIMEOUT, stream.write_all(&head)).await?
}
