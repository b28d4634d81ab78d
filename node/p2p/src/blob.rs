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
use libp2p::{Stream, StreamProtocol};
use libp2p_stream::Control;
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use veil_protocol_spec::Blake3Digest;

use crate::traffic::Counters;

const VERSION: u8 = 1;
const REQUEST_BYTES: usize = 1 + 32 + 8;
const HEAD_BYTES: usize = 1 + 1 + 8;
const BUFFER_BYTES: usize = 256 * 1024;
/// How long either side waits for the other's next bytes.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

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
    serves: Arc<Semaphore>,
    counters: Counters,
}

impl Blobs {
    pub(crate) fn new(scope: &str, control: Control, counters: Counters, serves: usize) -> Self {
        let name = format!("/veil/{scope}/blob/1");
        let protocol = StreamProtocol::try_from_owned(name);
        // libp2p refuses only a name without a leading slash.
        let protocol = protocol.unwrap_or(StreamProtocol::new("/veil/blob/1"));
        let serves = Arc::new(Semaphore::new(serves));
        Self { protocol, control, offers: Arc::default(), serves, counters }
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
                    let served = stop.run_until_cancelled(blobs.answer(stream)).await;
                    if let Some(Err(error)) = served {
                        tracing::debug!(%peer, %error, "a file stream broke");
                    }
                });
            }
        });
    }

    async fn answer(&self, mut stream: Stream) -> io::Result<()> {
        let mut request = [0; REQUEST_BYTES];
        timeout(STALL_TIMEOUT, stream.read_exact(&mut request)).await??;
        let [version, rest @ ..] = request;
        let (mut digest, mut offset) = ([0; 32], [0; 8]);
        digest.copy_from_slice(&rest[..32]);
        offset.copy_from_slice(&rest[32..]);
        let (digest, offset) = (Blake3Digest(digest), u64::from_le_bytes(offset));

        let path = self.offers().get(&digest).cloned();
        let Some(path) = path.filter(|_| version == VERSION) else {
            return refuse(&mut stream, Status::Unknown).await;
        };
        let Ok(_permit) = self.serves.try_acquire() else {
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
        loop {
            let read = file.read(&mut buffer).await?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            timeout(STALL_TIMEOUT, stream.write_all(chunk)).await??;
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
