//! What every node of a cluster does, whatever its role: follow the chain, keep the network's
//! directory in step with the registry, and answer peers that were away.
//!
//! # Flow
//! 1. [`Cluster::join`]: connects to the chain, waits until the registry lists this node, joins the
//!    network.
//! 2. A task reads the cluster's [`View`] again with every new block, and tells the network who is
//!    registered and the job store what is submitted.
//! 3. Another answers [`SyncRequest`]s from what [`Shelf`] holds.
//!
//! # Caveats
//! A view is read at one block, by its hash, so that two nodes that name a block mean the same facts.
//! The block is deep enough to act on ([`Chain::settled`]).

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use veil_node_chain::{Chain, ChainError};
use veil_node_p2p::{
    Directory, Multiaddr, Network, NetworkConfig, NetworkError, Protocol, SwimConfig,
};
use veil_node_storage::{
    jobs::{Jobs, JobsError},
    ledger::Ledger,
};
use veil_protocol_spec::{
    Blake3Digest, ClusterId, PeerIdHash, Wire,
    identity::SecretIdentity,
    scheduling::{BlockRef, ClusterScope, JobSpec, Telemetry},
    sync::{KeyFiles, SyncAnswer, SyncRequest},
};

mod view;

pub use view::View;

/// Views kept for manifests that name an earlier block.
const KEPT_VIEWS: usize = 64;
/// How often a block is asked for that this node's endpoint does not have yet.
const BLOCK_RETRIES: usize = 6;
/// For one answer of one peer.
const SYNC_DEADLINE: Duration = Duration::from_secs(20);

/// Finds telemetry by its digest.
pub type FindTelemetry = Box<dyn Fn(&Blake3Digest) -> Option<Telemetry> + Send + Sync>;

/// What this node can hand to peers; filled as it comes to be.
#[derive(Default)]
pub struct Shelf {
    /// The chain of certificates.
    pub ledger: OnceLock<Arc<Ledger>>,
    /// Key set and reference string.
    pub files: OnceLock<(veil_protocol_spec::KeySetDigest, KeyFiles)>,
    /// Finds telemetry by its digest.
    pub telemetry: OnceLock<FindTelemetry>,
}

/// How to join.
pub struct ClusterOptions {
    /// The chain, with the account of this node if it has one.
    pub chain: Chain,
    /// Which cluster.
    pub cluster: ClusterId,
    /// The node's key.
    pub identity: SecretIdentity,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Whom to find the others through.
    pub bootstrap: Vec<Multiaddr>,
    /// Failure detection.
    pub swim: SwimConfig,
    /// Where files go.
    pub data_dir: PathBuf,
}

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The job store.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// Told to stop meanwhile.
    #[error("stopped before the node had joined")]
    Stopped,
}

/// A node in its cluster. See the [module documentation](self).
pub struct Cluster {
    /// The chain.
    pub chain: Chain,
    /// The network.
    pub network: Network,
    /// Jobs.
    pub jobs: Arc<Jobs>,
    /// The node's key.
    pub identity: SecretIdentity,
    /// This node in the registry.
    pub me: PeerIdHash,
    /// Chain, contract, cluster.
    pub scope: ClusterScope,
    /// Where files go.
    pub data_dir: PathBuf,
    /// What peers are given.
    pub shelf: Arc<Shelf>,
    views: watch::Receiver<Arc<View>>,
    history: Mutex<VecDeque<Arc<View>>>,
    /// Ends everything this node does.
    pub stop: CancellationToken,
    /// What runs for this node.
    pub tasks: TaskTracker,
}

impl core::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cluster")
            .field("me", &self.me)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Waits until the registry lists this node, then joins the network.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn join(
        options: ClusterOptions,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, ClusterError> {
        let ClusterOptions { chain, cluster, identity, listen, bootstrap, swim, data_dir } =
            options;
        let me = PeerIdHash::of(&identity.public());
        let scope = chain.scope(cluster);
        let jobs = Arc::new(Jobs::open(&data_dir.join("jobs.redb"), scope)?);
        let first = tokio::select! {
            first = registered(&chain, cluster, me) => first?,
            () = stop.cancelled() => return Err(ClusterError::Stopped),
        };
        jobs.set_submissions(&first.submissions);
        let (directory, follow) = watch::channel(Arc::new(first.directory()));
        let config = NetworkConfig {
            listen,
            bootstrap,
            swim,
            ..NetworkConfig::new(identity.clone(), scope)
        };
        let network = Network::start(config, follow).await?;
        for address in network.addresses() {
            tracing::info!(%address, "listening");
        }
        let first = Arc::new(first);
        let (views, following) = watch::channel(Arc::clone(&first));
        let joined = Arc::new(Self {
            chain,
            network,
            jobs,
            identity,
            me,
            scope,
            data_dir,
            shelf: Arc::default(),
            views: following,
            history: Mutex::new(VecDeque::from([first])),
            stop,
            tasks: TaskTracker::new(),
        });
        joined.spawn(follow_chain(Arc::clone(&joined), views, directory));
        joined.spawn(answer_peers(Arc::clone(&joined)));
        Ok(joined)
    }

    /// Runs a task until it ends or the node stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// The last view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Tells of every new view.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    fn history(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<View>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view as of a block that somebody named. A block that this node's endpoint does not have
    /// yet is waited for a little: the one who named it may be ahead.
    ///
    /// # Errors
    /// [`ChainError`]; `UnknownBlock` if this node's chain has another block of that number, or
    /// still none.
    pub async fn view_at(&self, block: BlockRef) -> Result<Arc<View>, ChainError> {
        let known = self.history().iter().find(|view| view.block == block).cloned();
        if let Some(view) = known {
            return Ok(view);
        }
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(BLOCK_RETRIES)
            .with_jitter();
        let behind = |error: &ChainError| matches!(error, ChainError::UnknownBlock(_));
        let check = || self.chain.check_block(block);
        check.retry(backoff).when(behind).await?;
        let view = Arc::new(View::read(&self.chain, self.scope.cluster, block).await?);
        self.remember(&view);
        Ok(view)
    }

    /// Forgets views of blocks that are no longer in the chain, which a reorganisation deeper than
    /// the configured depth may have replaced.
    async fn forget_replaced(&self, now: BlockRef) -> Result<(), ChainError> {
        let last = self.view().block;
        if last.number < now.number && self.chain.check_block(last).await.is_ok() || last == now {
            return Ok(());
        }
        let known: Vec<_> = self.history().iter().map(|view| view.block).collect();
        for block in known {
            match self.chain.check_block(block).await {
                Ok(()) => {}
                Err(ChainError::UnknownBlock(_)) => {
                    tracing::warn!(
                        block = block.number,
                        "a block was replaced; what it said is void"
                    );
                    self.history().retain(|view| view.block != block);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remember(&self, view: &Arc<View>) {
        let mut history = self.history();
        if history.len() >= KEPT_VIEWS {
            history.pop_front();
        }
        history.push_back(Arc::clone(view));
    }

    /// Asks peers one after the other, in random order, until `useful` makes something of an
    /// answer.
    pub async fn ask<T>(
        &self,
        peers: impl IntoIterator<Item = PeerIdHash>,
        request: SyncRequest,
        mut useful: impl FnMut(PeerIdHash, SyncAnswer) -> Option<T>,
    ) -> Option<T> {
        let mut peers: Vec<_> = peers.into_iter().filter(|peer| *peer != self.me).collect();
        peers.shuffle(&mut rand::thread_rng());
        for peer in peers {
            let asked =
                self.network.request(peer, Protocol::Sync, request.to_wire(), SYNC_DEADLINE);
            let answer = match asked.await {
                Ok(bytes) => SyncAnswer::from_wire(&bytes),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no answer");
                    continue;
                }
            };
            match answer {
                Ok(answer) => {
                    if let Some(found) = useful(peer, answer) {
                        return Some(found);
                    }
                }
                Err(error) => tracing::warn!(%peer, %error, "an answer was refused"),
            }
        }
        None
    }

    /// The registered committee members' peers.
    #[must_use]
    pub fn members(&self) -> Vec<PeerIdHash> {
        let view = self.view();
        view.nodes.values().filter(|node| node.roles.member).map(|node| node.peer).collect()
    }

    /// Every other registered node.
    #[must_use]
    pub fn others(&self) -> Vec<PeerIdHash> {
        self.view().nodes.keys().copied().filter(|peer| *peer != self.me).collect()
    }

    /// The body of a job, from this node or from peers.
    pub async fn job(&self, digest: Blake3Digest) -> Option<JobSpec> {
        if let Some(job) = self.jobs.body(&digest) {
            return Some(job);
        }
        let others = self.others();
        self.ask(others, SyncRequest::Job(digest), |peer, answer| {
            let SyncAnswer::Job(Some(job)) = answer else { return None };
            if job.digest() != digest {
                tracing::warn!(%peer, %digest, "the peer brought another job's body");
                return None;
            }
            match self.jobs.offer((*job).clone()) {
                Ok(_) => Some(*job),
                Err(error) => {
                    tracing::warn!(%peer, %error, "a job's body was refused");
                    None
                }
            }
        })
        .await
    }

    /// Stops everything this node does, saying goodbye first, and waits until it has.
    pub async fn leave(&self) {
        self.network.leave().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.network.stop().await;
    }
}

/// Waits for this node's registration.
async fn registered(chain: &Chain, cluster: ClusterId, me: PeerIdHash) -> Result<View, ChainError> {
    let mut changes = chain.changes();
    let mut told = false;
    loop {
        let block = chain.settled().await?;
        let view = View::read(chain, cluster, block).await?;
        if view.nodes.contains_key(&me) {
            return Ok(view);
        }
        if !core::mem::replace(&mut told, true) {
            tracing::warn!(
                peer = %me,
                "the registry does not list this node; waiting: register it with `veil chain register`"
            );
        }
        if changes.changed().await.is_err() {
            return Err(ChainError::Unexpected("the end of the block watch"));
        }
    }
}

async fn follow_chain(
    cluster: Arc<Cluster>,
    views: watch::Sender<Arc<View>>,
    directory: watch::Sender<Arc<Directory>>,
) {
    let mut changes = cluster.chain.changes();
    while changes.changed().await.is_ok() {
        changes.mark_unchanged();
        let read = async {
            let block = cluster.chain.settled().await?;
            cluster.forget_replaced(block).await?;
            View::read(&cluster.chain, cluster.scope.cluster, block).await
        };
        let view = match read.await {
            Ok(view) => Arc::new(view),
            Err(error) => {
                tracing::warn!(%error, "the chain could not be read; what it said before stays");
                continue;
            }
        };
        cluster.jobs.set_submissions(&view.submissions);
        let now = view.directory();
        directory.send_if_modified(|before| {
            let changed = **before != now;
            *before = Arc::new(now);
            changed
        });
        cluster.remember(&view);
        views.send_replace(view);
    }
}

async fn answer_peers(cluster: Arc<Cluster>) {
    let mut requests = cluster.network.serve(Protocol::Sync);
    while let Some(request) = requests.recv().await {
        let asked = match SyncRequest::from_wire(&request.bytes) {
            Ok(asked) => asked,
            Err(error) => {
                request.refuse(error.to_string());
                continue;
            }
        };
        let shelf = Arc::clone(&cluster.shelf);
        let jobs = Arc::clone(&cluster.jobs);
        // Reading records waits for the disk.
        tokio::task::spawn_blocking(move || match answer(&shelf, &jobs, asked) {
            Ok(answer) => request.responder.respond(answer.to_wire()),
            Err(reason) => request.refuse(reason),
        });
    }
}

fn answer(shelf: &Shelf, jobs: &Jobs, asked: SyncRequest) -> Result<SyncAnswer, String> {
    Ok(match asked {
        SyncRequest::Records { after } => {
            let Some(ledger) = shelf.ledger.get() else {
                return Ok(SyncAnswer::Records(Vec::new()));
            };
            let records = ledger.records_after(after, SyncAnswer::RECORD_BYTES);
            SyncAnswer::Records(records.map_err(|_| "the ledger cannot be read here".to_owned())?)
        }
        SyncRequest::Telemetry(digest) => {
            let found = shelf.telemetry.get().and_then(|find| find(&digest));
            SyncAnswer::Telemetry(found.map(Box::new))
        }
        SyncRequest::Job(digest) => SyncAnswer::Job(jobs.body(&digest).map(Box::new)),
        SyncRequest::KeyFiles(key_set) => {
            let files = shelf.files.get().filter(|(of, _)| *of == key_set);
            SyncAnswer::KeyFiles(files.map(|(_, files)| *files))
        }
    })
}
