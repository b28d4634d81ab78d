//! What a member's and a worker's process have in common: taking their data directory, answering the
//! command line, joining the cluster, waiting for the active key.
//!
//! # Flow
//! 1. [`Secrets::load`] reads what the configuration names, before anything is started.
//! 2. [`Node::start`] locks the data directory, opens the identity, answers on the admin socket
//!    from then on, connects to the chain and joins the cluster.
//! 3. [`Node::active_key`] and [`Node::prepare`] lead to the [`ActiveEpoch`].
//! 4. [`Node::leave`] leaves gracefully and ends everything.
//!
//! # State
//! [`Progress`] holds how far the process is. The epoch is a watched value: it begins as none.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use veil_node_api::progress::Progress;
use veil_node_chain::{AccountKey, AccountKeyError, Chain, ChainError, PublishedKey};
use veil_node_p2p::{InvalidIdentity, SwimConfig, peer_id};
use veil_node_process::metrics::Metrics;
use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    keystore::{KeystoreError, Passphrase, read_identity},
    retention::Retention,
};
use veil_protocol_spec::{PeerIdHash, identity::SecretIdentity, scheduling::UnixMillis};

use veil_node_config::{
    ApiSection, ChainSection, Environment, NetworkSection, NodeSection, process_environment,
};

use crate::{
    answering::{Answering, AnsweringError},
    challenges,
    cluster::{Cluster, ClusterError, ClusterOptions},
    epoch::{ActiveEpoch, EpochError, Material, weights},
    report::{Joined, Reporter},
    slots,
    sync::SyncSource,
};
use veil_node_api::{routes::Routes, status::Role};

/// Longest wait between two attempts to reach the chain at the start.
const CHAIN_RETRY: Duration = Duration::from_secs(10);

/// Why a process of either role ends.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The identity file or a passphrase file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// No passphrase is configured.
    #[error(
        "no passphrase for the identity: set `node.passphrase_file` or `node.passphrase_command` in the configuration, VEIL_PASSPHRASE_FILE or VEIL_PASSPHRASE, or give the systemd credential veil-passphrase"
    )]
    NoPassphrase,
    /// A keystore without a passphrase.
    #[error(
        "`chain.keystore` is set: set `chain.keystore_passphrase_file` or `chain.keystore_passphrase_command` too, or give the systemd credential veil-account-passphrase"
    )]
    NoKeystorePassphrase,
    /// Not a point of the curve.
    #[error(transparent)]
    InvalidIdentity(#[from] InvalidIdentity),
    /// Another identity than the configuration expects.
    #[error(
        "the identity in {path} has the peer id {found}, the configuration expects {expected}: name the right file in `node.identity`, or correct `node.peer_id`"
    )]
    OtherPeer {
        /// Which file.
        path: PathBuf,
        /// By the configuration.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The account's key.
    #[error(transparent)]
    Account(#[from] AccountKeyError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Joining.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The admin socket, or the address of the API.
    #[error(transparent)]
    Answering(#[from] AnsweringError),
    /// The active key.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// Told to stop before it was up.
    #[error("stopped before the node was up")]
    Stopped,
}

/// What a process needs besides its configuration.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Of the identity.
    pub passphrase: Passphrase,
    /// Pays for transactions.
    pub account: Option<AccountKey>,
}

impl Secrets {
    /// Reads what configuration and environment name.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn load(
        node: &NodeSection,
        chain: &ChainSection,
        env: Environment<'_>,
    ) -> Result<Self, StartError> {
        Ok(Self { passphrase: passphrase(node, env)?, account: account(chain)? })
    }
}

/// The identity's passphrase, from the first source that is there ([`NodeSection::passphrase`]).
///
/// # Errors
/// [`StartError::NoPassphrase`], [`StartError::Keystore`].
pub fn passphrase(node: &NodeSection, env: Environment<'_>) -> Result<Passphrase, StartError> {
    node.passphrase(env)?.ok_or(StartError::NoPassphrase)
}

/// The account's key: `VEIL_CHAIN_KEY` wins over the keystore; none if neither is set.
///
/// # Errors
/// [`StartError`].
pub fn account(chain: &ChainSection) -> Result<Option<AccountKey>, StartError> {
    if let Some(key) = AccountKey::from_environment()? {
        return Ok(Some(key));
    }
    let Some(keystore) = &chain.keystore else { return Ok(None) };
    let passphrase = chain.keystore_passphrase(&process_environment)?;
    let passphrase = passphrase.ok_or(StartError::NoKeystorePassphrase)?;
    Ok(Some(AccountKey::from_keystore(keystore, passphrase.expose())?))
}

/// The sections that both roles' configurations have.
#[derive(Clone, Copy, Debug)]
pub struct Sections<'a> {
    /// Files.
    pub node: &'a NodeSection,
    /// Peers.
    pub network: &'a NetworkSection,
    /// Contracts.
    pub chain: &'a ChainSection,
    /// Answering from afar.
    pub api: Option<&'a ApiSection>,
}

/// Opens the identity and checks it against the peer id that is expected, if one is.
///
/// # Errors
/// [`StartError`].
pub fn open_identity(
    node: &NodeSection,
    passphrase: &Passphrase,
) -> Result<SecretIdentity, StartError> {
    let path = node.identity_file();
    let identity = read_identity(&path, passphrase)?;
    let found = peer_id(&identity.public())?.to_string();
    match &node.peer_id {
        Some(expected) if *expected != found => {
            Err(StartError::OtherPeer { path, expected: expected.clone(), found })
        }
        _ => Ok(identity),
    }
}

/// A process that has joined its cluster.
pub struct Node {
    /// The cluster.
    pub cluster: Cluster,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Cancelled from outside when the process is to stop.
    pub stop: CancellationToken,
    retention: Retention,
    epoch: watch::Sender<Option<Arc<ActiveEpoch>>>,
    answering: Answering,
    /// The data directory, locked.
    pub data: Arc<DataDir>,
}

impl Node {
    /// Steps up to having joined. `own` are routes that this role alone has, on its socket only.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        role: Role,
        sections: Sections<'_>,
        secrets: Secrets,
        stop: CancellationToken,
        own: Routes,
    ) -> BoxFuture<'_, Result<Self, StartError>> {
        Self::start_and_join(role, sections, secrets, stop, own).boxed()
    }

    async fn start_and_join(
        role: Role,
        sections: Sections<'_>,
        secrets: Secrets,
        stop: CancellationToken,
        own: Routes,
    ) -> Result<Self, StartError> {
        let Sections { node, network, chain: on_chain, api } = sections;
        let data = DataDir::lock(&node.data_dir)?;
        let opening = (node.clone(), secrets.passphrase);
        // The passphrase is stretched for a second or so.
        let opened = tokio::task::spawn_blocking(move || open_identity(&opening.0, &opening.1));
        let identity = opened.await.map_err(|_| StartError::Stopped)??;
        let (public, name) = (identity.public(), peer_id(&identity.public())?.to_string());
        let progress = Arc::new(Progress::new(role, name, PeerIdHash::of(&public)));
        let (joined, epoch) = (watch::Sender::new(None), watch::Sender::new(None));
        let metrics = Metrics::default();
        progress.measure(&metrics);
        let (of, answers) = (Arc::clone(&progress), (joined.subscribe(), epoch.subscribe()));
        let reporter = Reporter::new(of, metrics.clone(), answers.0, answers.1);
        let answering = Answering::start(node, api, on_chain.cluster, (reporter, own)).await?;
        let joining = async {
            let chain = connect(on_chain, secrets.account, &progress).await?;
            progress
                .stage("waiting for the registry to list this node", [progress.peer().to_string()]);
            let options = ClusterOptions {
                chain,
                cluster: on_chain.cluster,
                identity,
                listen: network.listen.clone(),
                announce: network.announce.clone(),
                bootstrap: network.bootstrap.clone(),
                swim: SwimConfig { incarnation: data.incarnation()?, ..network.swim.timings() },
                metrics,
                data_dir: node.data_dir.clone(),
            };
            // Its own token: on a stop the work ends in order, after the peers are told.
            Ok::<_, StartError>(Cluster::join(options, CancellationToken::new()).await?)
        };
        let ended = tokio::select! {
            ended = joining => ended,
            () = stop.cancelled() => Err(StartError::Stopped),
        };
        let cluster = match ended {
            Ok(cluster) => cluster,
            Err(error) => {
                answering.end().await;
                return Err(error);
            }
        };
        joined.send_replace(Some(Joined::from(&cluster)));
        let source =
            SyncSource::new(Arc::clone(&cluster.jobs), epoch.subscribe(), Arc::clone(&progress));
        cluster.tasks.spawn(source.serve(cluster.network.clone()));
        let (retention, data) = (node.retention(), Arc::new(data));
        Ok(Self { cluster, progress, stop, retention, epoch, answering, data })
    }

    /// Waits for an active key whose committee is registered; nothing if told to stop.
    #[boxed]
    pub async fn active_key(&self) -> Option<PublishedKey> {
        self.progress.stage("waiting for an active key: the committee's ceremony makes it", []);
        let mut views = self.cluster.views.subscribe();
        let known = async {
            loop {
                {
                    let view = views.borrow_and_update();
                    if let Some(key) = view.key.filter(|_| view.roster.len() == view.committee.n())
                    {
                        return Some(key);
                    }
                }
                views.changed().await.ok()?;
            }
        };
        tokio::select! {
            key = known => key,
            () = self.stop.cancelled() => None,
        }
    }

    /// Prepares what follows from the key, and keeps it in step with the registry; nothing if told
    /// to stop.
    ///
    /// # Errors
    /// [`StartError::Epoch`].
    #[boxed]
    pub async fn prepare(
        &self,
        key: PublishedKey,
        material: Material,
        telemetry_max_age: UnixMillis,
    ) -> Result<Option<Arc<ActiveEpoch>>, StartError> {
        self.progress.stage("getting key set and reference string, and expanding them", []);
        let cluster = &self.cluster;
        let prepared =
            ActiveEpoch::prepare(cluster, key, material, telemetry_max_age, self.retention);
        let epoch = tokio::select! {
            epoch = prepared => epoch?,
            () = self.stop.cancelled() => return Ok(None),
        };
        self.epoch.send_replace(Some(Arc::clone(&epoch)));
        let metrics = cluster.network.metrics().clone();
        cluster.tasks.spawn(slots::count(metrics, Arc::clone(&epoch.ledger)));
        let held =
            challenges::hold(cluster.chain.clone(), cluster.scope.cluster, Arc::clone(&epoch));
        cluster.tasks.spawn(held);
        if epoch.keys.evaluation.is_some() {
            let (views, peers) = (cluster.views.clone(), cluster.peers.clone());
            let chain = cluster.chain.clone();
            cluster.tasks.spawn(weights::follow(views, peers, chain, Arc::clone(&epoch)));
        }
        let (mut views, following) = (cluster.views.subscribe(), Arc::clone(&epoch));
        let jobs = Arc::clone(&cluster.jobs);
        cluster.tasks.spawn(async move {
            while views.changed().await.is_ok() {
                let view = Arc::clone(&views.borrow_and_update());
                following.follow(&view);
                let placed = following.ledger.state().replicas().map(|(job, ..)| job).collect();
                let jobs = Arc::clone(&jobs);
                let forgotten = tokio::task::spawn_blocking(move || jobs.forget(&placed)).await;
                if let Ok(Err(error)) = forgotten {
                    tracing::warn!(%error, "bodies of cancelled jobs are kept");
                }
            }
        });
        Ok(Some(epoch))
    }

    /// Leaves gracefully, ends every task, answers no more.
    #[boxed]
    pub async fn leave(self) {
        self.progress.stage("leaving", []);
        self.cluster.leave().await;
        self.answering.end().await;
    }
}

/// Connects to the chain. An RPC that does not answer is waited for: nodes may start in any order.
async fn connect(
    section: &ChainSection,
    account: Option<AccountKey>,
    progress: &Progress,
) -> Result<Chain, ChainError> {
    let mut delays = ExponentialBuilder::default()
        .with_max_delay(CHAIN_RETRY)
        .without_max_times()
        .with_jitter()
        .build();
    progress.stage("connecting to the chain", section.rpc.as_slice().to_vec());
    loop {
        match Chain::connect(section.connection(account.clone())).await {
            Ok(chain) => return Ok(chain),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "waiting for the chain");
                progress.stage("waiting for the chain", [error.to_string()]);
                tokio::time::sleep(delays.next().unwrap_or(CHAIN_RETRY)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes `link` point to `target`, replacing an earlier link, not a file.
///
/// # Errors
/// What the system says.
pub fn link_to(target: &Path, link: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(link) {
        Ok(found) if found.is_symlink() => std::fs::remove_file(link)?,
        Ok(_) => return Ok(()),
        Err(_) => {}
    }
    std::os::unix::fs::symlink(std::path::absolute(target)?, link)
}

#[cfg(test)]
mod tests {
    use veil_node_storage::keystore::{write_identity, write_secret};

    use super::*;

    fn node(folder: &Path, peer_id: Option<String>) -> NodeSection {
        let Retention { days: archive_days, bytes: archive_bytes } = Retention::default();
        NodeSection {
            data_dir: folder.to_owned(),
            identity: None,
            passphrase_command: None,
            passphrase_file: None,
            peer_id,
            archive_days,
            archive_bytes,
        }
    }

    #[test]
    fn an_identity_is_checked_before_anything_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.age");
        let passphrase = Passphrase::random();
        let secret = SecretIdentity::from_bytes(&[7; 32]).unwrap();
        write_identity(&path, &secret, &passphrase).unwrap();
        let opened = open_identity(&node(folder.path(), None), &passphrase).unwrap();
        assert_eq!(opened.public(), secret.public());
        let right = peer_id(&secret.public()).unwrap().to_string();
        assert!(open_identity(&node(folder.path(), Some(right)), &passphrase).is_ok());
        let other = SecretIdentity::from_bytes(&[8; 32]).unwrap();
        let other = peer_id(&other.public()).unwrap().to_string();
        assert!(matches!(
            open_identity(&node(folder.path(), Some(other)), &passphrase),
            Err(StartError::OtherPeer { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        write_secret(&path, &[0; 32], &passphrase).unwrap();
        assert!(matches!(
            open_identity(&node(folder.path(), None), &passphrase),
            Err(StartError::Keystore(KeystoreError::Identity(_)))
        ));
    }

    #[test]
    fn a_link_gives_way_to_another_and_a_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| folder.path().join(name));
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&two, "2").unwrap();
        link_to(&one, &link).unwrap();
        link_to(&two, &link).unwrap();
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "2");
        link_to(&two, &one).unwrap();
        assert_eq!(std::fs::read_to_string(&one).unwrap(), "1");
    }
}
