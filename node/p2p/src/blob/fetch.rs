//! Files by digest: the fetching side.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::Stream;
use rand::Rng;
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt as _,
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use veil_protocol_spec::{Blake3Digest, PeerIdHash};

use super::{BUFFER_BYTES, Blobs, HEAD_BYTES, STALL_TIMEOUT, Status, VERSION};
use crate::{directory::Directory, identity::peer_id};

/// The longest pause after a round in which no peer delivered.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Progress of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received so far, those of earlier attempts included.
    pub bytes: u64,
    /// Length of the file, as the serving peer states it.
    pub total: u64,
    /// The serving peer.
    pub peer: PeerIdHash,
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum FetchError {
    /// The deadline passed after `bytes` bytes of the file, which stay for the next attempt; `last` is
    /// the last error of a peer.
    #[error("{digest} did not arrive in time ({bytes} bytes so far); last error: {last}")]
    Deadline { digest: Blake3Digest, bytes: u64, last: String },
    /// Every peer that was asked, all of `peers`, sent content with another digest.
    #[error("{digest} is offered with wrong content by {peers:?}; ask other peers")]
    Corrupted { digest: Blake3Digest, peers: Vec<PeerIdHash> },
    /// This node cannot write the unfinished file at `path`.
    #[error("cannot write {path}: {source}")]
    Local { path: PathBuf, source: io::Error },
}

/// The arguments of [`Network::fetch`](crate::Network::fetch).
pub(crate) struct Fetch<'a> {
    pub(crate) from: &'a [PeerIdHash],
    pub(crate) digest: Blake3Digest,
    pub(crate) into: &'a Path,
    pub(crate) max_bytes: u64,
    pub(crate) deadline: Duration,
}

/// Why an attempt with one peer failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("peer {0} is not registered")]
    NotRegistered(PeerIdHash),
    #[error("peer {0} cannot be reached: {1}")]
    Unreachable(PeerIdHash, String),
    #[error("peer {0} does not have it")]
    Unknown(PeerIdHash),
    #[error("peer {0} is busy")]
    Busy(PeerIdHash),
    #[error("peer {0} states a length of {1}, more than is allowed or less than was received")]
    Length(PeerIdHash, u64),
    #[error("peer {0} violates the protocol")]
    Protocol(PeerIdHash),
    #[error("the stream from peer {0} broke: {1}")]
    Broken(PeerIdHash, io::Error),
    #[error("peer {0} gave wrong content")]
    Content(PeerIdHash),
    #[error("the parts from several peers are wrong as a whole; starting over")]
    Mixed,
    #[error("cannot write: {0}")]
    Local(#[source] io::Error),
}

impl Blobs {
    /// See [`Network::fetch`](crate::Network::fetch).
    pub(crate) fn fetch<'a>(
        &'a self,
        directory: &'a watch::Receiver<Arc<Directory>>,
        fetch: Fetch<'a>,
        progress: Box<dyn FnMut(Progress) + Send + 'a>,
    ) -> BoxFuture<'a, Result<u64, FetchError>> {
        self.fetch_from_any(directory, fetch, progress).boxed()
    }

    async fn fetch_from_any(
        &self,
        directory: &watch::Receiver<Arc<Directory>>,
        fetch: Fetch<'_>,
        mut progress: Box<dyn FnMut(Progress) + Send + '_>,
    ) -> Result<u64, FetchError> {
        let end = Instant::now() + fetch.deadline;
        let digest = fetch.digest;
        let mut part = Part::of(fetch.into);
        let mut culprits = BTreeSet::new();
        let mut last = String::from("no peer was tried");
        loop {
            for &peer in fetch.from {
                if culprits.contains(&peer) {
                    continue;
                }
                let attempt = self.attempt(directory, &fetch, peer, &mut part, &mut *progress);
                let error = match timeout_at(end, attempt).await {
                    Ok(Ok(bytes)) => return Ok(bytes),
                    Ok(Err(AttemptError::Local(source))) => {
                        return Err(FetchError::Local { path: part.path, source });
                    }
                    Ok(Err(error)) => error,
                    Err(_) => {
                        let bytes = part.len().await.unwrap_or_default();
                        return Err(FetchError::Deadline { digest, bytes, last });
                    }
                };
                tracing::warn!(%digest, %error, "a fetch tries the next peer");
                last = error.to_string();
                if matches!(error, AttemptError::Content(_)) {
                    culprits.insert(peer);
                }
            }
            if fetch.from.iter().all(|peer| culprits.contains(peer)) {
                let peers = culprits.into_iter().collect();
                return Err(FetchError::Corrupted { digest, peers });
            }
            let pause = RETRY_DELAY.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
            if Instant::now() + pause >= end {
                let bytes = part.len().await.unwrap_or_default();
                return Err(FetchError::Deadline { digest, bytes, last });
            }
            sleep(pause).await;
        }
    }

    /// Fetches what is missing from one peer; checks and renames the whole.
    async fn attempt(
        &self,
        directory: &watch::Receiver<Arc<Directory>>,
        fetch: &Fetch<'_>,
        peer: PeerIdHash,
        part: &mut Part,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<u64, AttemptError> {
        let identity = directory.borrow().get(&peer).map(|peer| peer.identity);
        let id = identity.and_then(|identity| peer_id(&identity).ok());
        let id = id.ok_or(AttemptError::NotRegistered(peer))?;
        part.begin(peer).await.map_err(AttemptError::Local)?;
        let mut have = part.len().await.map_err(AttemptError::Local)?;

        let mut control = self.control.clone();
        let opened = timeout(STALL_TIMEOUT, control.open_stream(id, self.protocol.clone())).await;
        let unreachable = |reason: String| AttemptError::Unreachable(peer, reason);
        let mut stream = opened
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|e| unreachable(e.to_string()))?;
        let total = ask(&mut stream, fetch.digest, have, peer).await?;
        if total > fetch.max_bytes || total < have {
            // Less than is here: the content of some peer is wrong. The next attempt starts over.
            part.distrust();
            return Err(AttemptError::Length(peer, total));
        }

        let mut file = part.open().await.map_err(AttemptError::Local)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let before = have;
        while have < total {
            progress(Progress { bytes: have, total, peer });
            let read = timeout(STALL_TIMEOUT, stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let broken = |e| AttemptError::Broken(peer, e);
            let chunk = match read {
                Ok(0) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => Ok(buffer.get(..read).unwrap_or_default()),
                Err(e) => Err(broken(e)),
            };
            // A broken stream does not lose what has arrived.
            if chunk.is_err() {
                file.flush().await.map_err(AttemptError::Local)?;
            }
            let chunk = chunk?;
            if have + chunk.len() as u64 > total {
                return Err(AttemptError::Protocol(peer));
            }
            file.write_all(chunk).await.map_err(AttemptError::Local)?;
            have += chunk.len() as u64;
        }
        progress(Progress { bytes: have, total, peer });
        file.sync_all().await.map_err(AttemptError::Local)?;
        drop(file);
        self.counters.lock().blobs.receive(usize::try_from(have - before).unwrap_or(usize::MAX));

        if part.digest().await.map_err(AttemptError::Local)? == fetch.digest {
            fs::rename(&part.path, fetch.into).await.map_err(AttemptError::Local)?;
            return Ok(total);
        }
        let alone = part.is_from_one_peer(peer);
        part.distrust();
        part.discard().await.map_err(AttemptError::Local)?;
        if alone { Err(AttemptError::Content(peer)) } else { Err(AttemptError::Mixed) }
    }
}

async fn ask(
    stream: &mut Stream,
    digest: Blake3Digest,
    offset: u64,
    peer: PeerIdHash,
) -> Result<u64, AttemptError> {
    let mut request = vec![VERSION];
    request.extend_from_slice(digest.as_bytes());
    request.extend_from_slice(&offset.to_le_bytes());
    let mut head = [0; HEAD_BYTES];
    let exchange = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        stream.read_exact(&mut head).await
    };
    let exchanged = timeout(STALL_TIMEOUT, exchange).await;
    exchanged
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|e| AttemptError::Broken(peer, e))?;
    let [version, status, length @ ..] = head;
    match status {
        _ if version != VERSION => Err(AttemptError::Protocol(peer)),
        s if s == Status::Found as u8 => Ok(u64::from_le_bytes(length)),
        s if s == Status::Unknown as u8 => Err(AttemptError::Unknown(peer)),
        s if s == Status::Busy as u8 => Err(AttemptError::Busy(peer)),
        _ => Err(AttemptError::Protocol(peer)),
    }
}

/// The unfinished file. At first several peers may add to it. Once the whole has turned out wrong,
/// each peer starts over: the next wrong content then has one culprit.
struct Part {
    path: PathBuf,
    /// The peers whose bytes are in it.
    sources: Sources,
    /// Whether a peer may add to the bytes of another.
    trusting: bool,
}

enum Sources {
    /// Unknown: an earlier run of this node wrote it.
    EarlierRun,
    Peers(BTreeSet<PeerIdHash>),
}

impl Part {
    fn of(into: &Path) -> Self {
        let mut path = OsString::from(into);
        path.push(".part");
        Self { path: path.into(), sources: Sources::EarlierRun, trusting: true }
    }

    async fn len(&self) -> io::Result<u64> {
        match fs::metadata(&self.path).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Records that `peer` is about to write.
    async fn begin(&mut self, peer: PeerIdHash) -> io::Result<()> {
        if !self.trusting && !self.is_from_one_peer(peer) {
            self.discard().await?;
        }
        if self.len().await? == 0 {
            self.sources = Sources::Peers(BTreeSet::new());
        }
        if let Sources::Peers(peers) = &mut self.sources {
            peers.insert(peer);
        }
        Ok(())
    }

    fn is_from_one_peer(&self, peer: PeerIdHash) -> bool {
        matches!(&self.sources, Sources::Peers(peers) if peers.iter().eq([&peer]))
    }

    fn distrust(&mut self) {
        self.trusting = false;
    }

    async fn discard(&self) -> io::Result<()> {
        match fs::remove_file(&self.path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    async fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path).await
    }

    /// The hash of a gigabyte takes a while: it gets a thread of its own.
    async fn digest(&self) -> io::Result<Blake3Digest> {
        let path = self.path.clone();
        let hash = tokio::task::spawn_blocking(move || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(std::fs::File::open(path)?)?;
            Ok::<_, io::Error>(*hasher.finalize().as_bytes())
        });
        hash.await.map_err(io::Error::other)?.map(Blake3Digest)
    }
}
