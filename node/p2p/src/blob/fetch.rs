//! The fetching side.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use rand::Rng;
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt as _,
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use veil_protocol_spec::{Blake3Digest, PeerIdHash};

use super::{BUFFER, Blobs, HEAD_BYTES, STALL, Status, VERSION};
use crate::{directory::Directory, identity::peer_id};

/// After a round in which no peer delivered.
const PAUSE: Duration = Duration::from_millis(500);

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes in all, as the serving peer states it.
    pub total: u64,
    /// Who serves.
    pub peer: PeerIdHash,
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The deadline passed. What has arrived is kept for the next attempt.
    #[error("{digest} did not arrive in time ({bytes} bytes so far); last trouble: {last}")]
    Deadline {
        /// What was wanted.
        digest: Blake3Digest,
        /// Bytes on disk.
        bytes: u64,
        /// What went wrong last.
        last: String,
    },
    /// Every peer gave content with another digest.
    #[error("{digest} is offered with wrong content by {peers:?}; ask other peers")]
    Corrupted {
        /// What was wanted.
        digest: Blake3Digest,
        /// Who gave something else.
        peers: Vec<PeerIdHash>,
    },
    /// The file cannot be written here.
    #[error("cannot write {path}: {source}")]
    Local {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What to fetch, see [`crate::Network::fetch`].
pub(crate) struct Fetch<'a> {
    pub(crate) from: &'a [PeerIdHash],
    pub(crate) digest: Blake3Digest,
    pub(crate) into: &'a Path,
    pub(crate) max_bytes: u64,
    pub(crate) deadline: Duration,
}

/// Why one peer did not deliver.
#[derive(Debug, thiserror::Error)]
enum Trouble {
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
    #[error("peer {0} does not keep to the protocol")]
    Protocol(PeerIdHash),
    #[error("the stream from peer {0} broke: {1}")]
    Broken(PeerIdHash, io::Error),
    #[error("peer {0} gave wrong content")]
    Content(PeerIdHash),
    #[error("what came from several peers is wrong as a whole; starting over")]
    Mixed,
    #[error("cannot write: {0}")]
    Local(#[source] io::Error),
}

impl Blobs {
    /// See [`crate::Network::fetch`].
    pub(crate) async fn fetch(
        &self,
        directory: &watch::Receiver<Arc<Directory>>,
        fetch: Fetch<'_>,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<u64, FetchError> {
        let end = Instant::now() + fetch.deadline;
        let digest = fetch.digest;
        let mut part = Part::of(fetch.into);
        let mut liars = BTreeSet::new();
        let mut last = String::from("no peer was tried");
        loop {
            for &peer in fetch.from {
                if liars.contains(&peer) {
                    continue;
                }
                let attempt = self.attempt(directory, &fetch, peer, &mut part, &mut progress);
                let trouble = match timeout_at(end, attempt).await {
                    Ok(Ok(bytes)) => return Ok(bytes),
                    Ok(Err(Trouble::Local(source))) => {
                        return Err(FetchError::Local { path: part.path, source });
                    }
                    Ok(Err(trouble)) => trouble,
                    Err(_) => {
                        let bytes = part.len().await.unwrap_or_default();
                        return Err(FetchError::Deadline { digest, bytes, last });
                    }
                };
                tracing::warn!(%digest, %trouble, "a fetch goes on elsewhere");
                last = trouble.to_string();
                if matches!(trouble, Trouble::Content(_)) {
                    liars.insert(peer);
                }
            }
            if fetch.from.iter().all(|peer| liars.contains(peer)) {
                let peers = liars.into_iter().collect();
                return Err(FetchError::Corrupted { digest, peers });
            }
            let pause = PAUSE.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
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
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<u64, Trouble> {
        let identity = directory.borrow().get(&peer).map(|peer| peer.identity);
        let id = identity.and_then(|identity| peer_id(&identity).ok());
        let id = id.ok_or(Trouble::NotRegistered(peer))?;
        part.begin(peer).await.map_err(Trouble::Local)?;
        let mut have = part.len().await.map_err(Trouble::Local)?;

        let mut control = self.control.clone();
        let opened = timeout(STALL, control.open_stream(id, self.protocol.clone())).await;
        let unreachable = |reason: String| Trouble::Unreachable(peer, reason);
        let mut stream = opened
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|e| unreachable(e.to_string()))?;
        let total = ask(&mut stream, fetch.digest, have, peer).await?;
        if total > fetch.max_bytes || total < have {
            // Less than we have: somebody's content is wrong. The next attempt starts over.
            part.distrust();
            return Err(Trouble::Length(peer, total));
        }

        let mut file = part.open().await.map_err(Trouble::Local)?;
        let mut buffer = vec![0; BUFFER];
        let before = have;
        while have < total {
            progress(Progress { bytes: have, total, peer });
            let read = timeout(STALL, stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let broken = |e| Trouble::Broken(peer, e);
            let chunk = match read {
                Ok(0) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => Ok(buffer.get(..read).unwrap_or_default()),
                Err(e) => Err(broken(e)),
            };
            // What has arrived counts even if the stream breaks now.
            if chunk.is_err() {
                file.flush().await.map_err(Trouble::Local)?;
            }
            let chunk = chunk?;
            if have + chunk.len() as u64 > total {
                return Err(Trouble::Protocol(peer));
            }
            file.write_all(chunk).await.map_err(Trouble::Local)?;
            have += chunk.len() as u64;
        }
        progress(Progress { bytes: have, total, peer });
        file.sync_all().await.map_err(Trouble::Local)?;
        drop(file);
        self.counters.lock().blobs.receive(usize::try_from(have - before).unwrap_or(usize::MAX));

        if part.digest().await.map_err(Trouble::Local)? == fetch.digest {
            fs::rename(&part.path, fetch.into).await.map_err(Trouble::Local)?;
            return Ok(total);
        }
        let alone = part.is_from_one_peer(peer);
        part.distrust();
        part.discard().await.map_err(Trouble::Local)?;
        if alone { Err(Trouble::Content(peer)) } else { Err(Trouble::Mixed) }
    }
}

async fn ask(
    stream: &mut Stream,
    digest: Blake3Digest,
    offset: u64,
    peer: PeerIdHash,
) -> Result<u64, Trouble> {
    let mut request = vec![VERSION];
    request.extend_from_slice(digest.as_bytes());
    request.extend_from_slice(&offset.to_le_bytes());
    let mut head = [0; HEAD_BYTES];
    let exchange = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        stream.read_exact(&mut head).await
    };
    let exchanged = timeout(STALL, exchange).await;
    exchanged
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|e| Trouble::Broken(peer, e))?;
    let [version, status, length @ ..] = head;
    match status {
        _ if version != VERSION => Err(Trouble::Protocol(peer)),
        s if s == Status::Here as u8 => Ok(u64::from_le_bytes(length)),
        s if s == Status::Unknown as u8 => Err(Trouble::Unknown(peer)),
        s if s == Status::Busy as u8 => Err(Trouble::Busy(peer)),
        _ => Err(Trouble::Protocol(peer)),
    }
}

/// The unfinished file. While all is well, several peers may add to it; once the whole turned out
/// wrong, each peer starts over, so that the next wrong content names its author.
struct Part {
    path: PathBuf,
    /// Who wrote to it; unknown if it is from an earlier run.
    sources: Sources,
    trusting: bool,
}

enum Sources {
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

    /// `peer` is about to write.
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

    /// Hashing a gigabyte takes a while, so it gets a thread of its own.
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
