//! A node in its cluster: it follows the chain and keeps the network's directory in step with the
//! registry.
//!
//! # Flow
//! 1. [`Cluster::join`]: connects to the chain, waits until the registry lists this node, joins the
//!    network.
//! 2. A task reads the cluster's [`View`] again with every new block, and tells the network who is
//!    registered and the job store what is submitted.
//!
//! # State
//! [`Cluster`] holds the parts; tasks take the parts that they use: [`Views`], [`Peers`], [`Tasks`].
//!
//! # Caveats
//! A view is read at one block, by its hash: two nodes that name a block mean the same facts. The
//! block is deep enough to act on ([`Chain::settled`]).

mod peers;
mod tasks;
mod views;

use std::{path::PathBuf, sync::Arc};

use async_recursion::async_recursion as boxed;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use veil_node_chain::{Chain, ChainError};
use veil_node_p2p::{Directory, Multiaddr, Network, NetworkConfig, NetworkError, SwimConfig};
use veil_node_process::metrics::Metrics;
use veil_node_storage::jobs::{Jobs, JobsError};
use veil_protocol_spec::{
    ClusterId, PeerIdHash, identity::SecretIdentity, scheduling::ClusterScope,
};

pub use self::{peers::Peers, tasks::Tasks, views::Views};
pub use veil_node_view::View;

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
    /// Where others reach this node, if not there.
    pub announce: Vec<Multiaddr>,
    /// Whom to find the others through.
    pub bootstrap: Vec<Multiaddr>,
    /// Failure detection.
    pub swim: SwimConfig,
    /// Where the network counts.
    pub metrics: Metrics,
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
    /// The folder of this node's files.
    pub data_dir: PathBuf,
    /// The chain, block by block.
    pub views: Views,
    /// The other nodes, to ask.
    pub peers: Peers,
    /// What runs for this node.
    pub tasks: Tasks,
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
    #[boxed]
    pub async fn join(
        options: ClusterOptions,
        stop: CancellationToken,
    ) -> Result<Self, ClusterError> {
        let ClusterOptions {
            chain,
            cluster,
            identity,
            listen,
            announce,
            bootstrap,
            swim,
            metrics,
            data_dir,
        } = options;
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
            announce,
            bootstrap,
            swim,
            metrics,
            ..NetworkConfig::new(identity.clone(), scope)
        };
        let network = Network::start(config, follow).await?;
        for address in network.addresses() {
            tracing::info!(%address, "listening");
        }
        let (current, views) = Views::new(chain.clone(), cluster, first);
        let tasks = Tasks::new(stop);
        tasks.spawn(follow_chain(views.clone(), current, Arc::clone(&jobs), directory));
        let peers = Peers::new(network.clone(), views.clone(), me);
        Ok(Self { chain, network, jobs, identity, me, scope, data_dir, views, peers, tasks })
    }

    /// Leaves gracefully: tells the peers, then ends everything this node does, and waits until it
    /// has ended.
    #[boxed]
    pub async fn leave(&self) {
        self.network.leave().await;
        self.tasks.end().await;
        self.network.stop().await;
    }
}

/// Waits for this node's registration.
async fn registered(chain: &Chain, cluster: ClusterId, me: PeerIdHash) -> Result<View, ChainError> {
    let mut changes = chain.changes();
    let mut warned = false;
    loop {
        let block = chain.settled().await?;
        let view = View::read(chain, cluster, block).await?;
        if view.nodes.contains_key(&me) {
            return Ok(view);
        }
        if !core::mem::replace(&mut warned, true) {
            tracing::warn!(
                peer = %me,
                "the registry does not list this node; waiting: register it with `veil chain register`, for \
                 which a member, or a node of an organisation, needs the admin's `veil chain approve`"
            );
        }
        if changes.changed().await.is_err() {
            return Err(ChainError::Unexpected("the end of the block watch"));
        }
    }
}

/// Reads the view again with every new block.
async fn follow_chain(
    views: Views,
    current: watch::Sender<Arc<View>>,
    jobs: Arc<Jobs>,
    directory: watch::Sender<Arc<Directory>>,
) {
    let mut changes = views.chain().changes();
    while changes.changed().await.is_ok() {
        changes.mark_unchanged();
        let view = match views.read_settled().await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(%error, "the chain could not be read; the last view stays");
                continue;
            }
        };
        jobs.set_submissions(&view.submissions);
        let now = view.directory();
        directory.send_if_modified(|before| {
            let changed = **before != now;
            *before = Arc::new(now);
            changed
        });
        current.send_replace(view);
    }
}
