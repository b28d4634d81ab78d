//! The handle to a running network.

use core::{fmt, time::Duration};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use async_recursion::async_recursion as boxed;
use futures::future::BoxFuture;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol as Part};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::{Blake3Digest, PeerIdHash};

use crate::{
    blob::{
        Blobs,
        fetch::{Fetch, FetchError, Progress},
    },
    command::{Command, Gossip, Incoming},
    directory::Directory,
    error::{PublishError, RequestError},
    kind::{Protocol, Topic},
    request::MAX_DEADLINE,
    round_trips::RoundTrips,
    stream::Streams,
    swim::{self, Liveness},
    traffic::{Counters, Traffic, on_the_wire},
};

/// A running network; cheap to clone.
#[derive(Clone)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) me: PeerIdHash,
    pub(crate) peer_id: PeerId,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) swim: mpsc::Sender<swim::Input>,
    pub(crate) liveness: watch::Receiver<Liveness>,
    pub(crate) connected: watch::Receiver<BTreeSet<PeerIdHash>>,
    pub(crate) addresses: watch::Receiver<Vec<Multiaddr>>,
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    pub(crate) counters: Counters,
    pub(crate) round_trips: RoundTrips,
    pub(crate) metrics: Metrics,
    pub(crate) blobs: Blobs,
    pub(crate) streams: Arc<Streams>,
    pub(crate) queue: usize,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) _stop_on_drop: DropGuard,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("me", &self.inner.me).finish_non_exhaustive()
    }
}

impl Network {
    /// The id of this node.
    #[must_use]
    pub fn me(&self) -> PeerIdHash {
        self.inner.me
    }

    /// The libp2p peer id of this node.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer_id
    }

    /// The addresses that this node listens on, with resolved ports, each ending in
    /// `/p2p/<peer id>`: another node can use them as bootstrap addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.inner.addresses.borrow().clone()
    }

    /// The IP addresses that this node listens on, those that only this machine reaches last.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        let ip = |part| match part {
            Part::Ip4(ip) => Some(IpAddr::V4(ip)),
            Part::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        };
        let addresses = self.addresses();
        let mut ips: Vec<_> =
            addresses.iter().filter_map(|address| address.iter().find_map(ip)).collect();
        ips.sort_by_key(IpAddr::is_loopback);
        ips
    }

    /// The registered peers, as the reader of the chain published them last.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.inner.directory.clone()
    }

    /// The peers with an open connection.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<BTreeSet<PeerIdHash>> {
        self.inner.connected.clone()
    }

    /// What SWIM knows of the other registered peers.
    #[must_use]
    pub fn liveness(&self) -> watch::Receiver<Liveness> {
        self.inner.liveness.clone()
    }

    /// Where this network counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The traffic since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let (wire_sent_bytes, wire_received_bytes) = on_the_wire(&self.inner.metrics.text());
        Traffic { wire_sent_bytes, wire_received_bytes, ..self.inner.counters.lock().clone() }
    }

    /// The median round trip to the connected peers, as libp2p's ping measures it.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.inner.round_trips.median()
    }

    /// When a peer was heard last: it answered a ping, or a connection was made. `None` if that is over an hour
    /// ago, or never was.
    #[must_use]
    pub fn heard(&self, peer: &PeerIdHash) -> Option<Instant> {
        self.inner.round_trips.heard(peer)
    }

    /// Publishes a message to the subscribers of a topic on all other nodes.
    ///
    /// # Errors
    /// [`PublishError`]; `NoPeers` as long as no connected peer subscribes to the topic.
    #[boxed]
    pub async fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        let (len, max) = (bytes.len(), topic.max_bytes());
        if len > max {
            return Err(PublishError::TooLarge { topic, len, max });
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Publish { topic, bytes, reply });
        answer.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// The messages on a topic from now on. Each subscriber gets all of them, but loses those that
    /// find its queue ([`Limits::queue`](crate::Limits::queue)) full.
    #[must_use = "an unread queue fills up"]
    pub fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Gossip> {
        let (queue, receiver) = mpsc::channel(self.inner.queue);
        self.send(Command::Subscribe { topic, queue });
        receiver
    }

    /// Sends a request and waits for its answer, at most `deadline` ([`MAX_DEADLINE`] if less).
    /// Dials the peer if there is no connection.
    ///
    /// # Errors
    /// [`RequestError`] names the peer and the reason.
    #[boxed]
    pub async fn request(
        &self,
        to: PeerIdHash,
        protocol: Protocol,
        bytes: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        let max = protocol.max_request();
        if bytes.len() > max {
            return Err(RequestError::TooLarge { protocol, max });
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { to, protocol, bytes, reply });
        match tokio::time::timeout(deadline.min(MAX_DEADLINE), answer).await {
            Err(_) => Err(RequestError::Timeout(to)),
            Ok(answer) => answer.unwrap_or(Err(RequestError::Stopped)),
        }
    }

    /// The requests on a protocol from now on; an earlier server of the protocol on this node gets
    /// no more. Requests that find the queue full are refused as busy.
    #[must_use = "an unread queue fills up"]
    pub fn serve(&self, protocol: Protocol) -> mpsc::Receiver<Incoming> {
        let (queue, receiver) = mpsc::channel(self.inner.queue);
        self.send(Command::Serve { protocol, queue });
        receiver
    }

    /// Offers a file to the registered peers under the BLAKE3 digest of its content. The file must
    /// not change from then on.
    pub fn provide(&self, digest: Blake3Digest, path: PathBuf) {
        self.inner.blobs.provide(digest, path);
    }

    /// Fetches the file with this digest from any of the peers in `from` and puts it at `into`.
    ///
    /// The bytes that have arrived stay in `<into>.part`: the next attempt resumes there, also after
    /// a restart or with another peer. The whole file is checked against `digest` before it is
    /// renamed to `into`. A file longer than `max_bytes` is refused before its transfer. Peers are
    /// tried in the order of `from`, in rounds until the deadline; callers should not all ask the
    /// same peer first.
    ///
    /// # Errors
    /// [`FetchError`] when the deadline passes, when every peer gave wrong content, or when the
    /// local file cannot be written.
    pub fn fetch<'a>(
        &'a self,
        from: &'a [PeerIdHash],
        digest: Blake3Digest,
        into: &'a Path,
        max_bytes: u64,
        deadline: Duration,
        progress: impl FnMut(Progress) + Send + 'a,
    ) -> BoxFuture<'a, Result<u64, FetchError>> {
        let fetch = Fetch { from, digest, into, max_bytes, deadline };
        self.inner.blobs.fetch(&self.inner.directory, fetch, Box::new(progress))
    }

    /// Leaves gracefully: the peers count this node as down at once, without a suspicion first. All
    /// but SWIM continues, for work in progress to finish.
    #[boxed]
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.inner.swim.send(swim::Input::Leave(done)).await.is_ok() {
            let _ = left.await; // an error means that the network has stopped
        }
    }

    /// Stops all tasks and waits for their end; then the ports are free again. Other handles get
    /// `Stopped` from then on.
    #[boxed]
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
    }

    fn send(&self, command: Command) {
        // When the network has stopped, the reply channel inside is dropped with the command.
        let _ = self.inner.commands.send(command);
    }
}
