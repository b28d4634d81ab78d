//! A worker: `veil worker run`.
//!
//! # Role
//! Offers one machine to the cluster: reports its load encrypted, audits evaluations that it is drawn for,
//! runs the containers that certificates place on it. It holds no share of any key. A light worker holds no
//! evaluation key either, and audits nothing.
//!
//! # Flow
//! 1. The steps of both roles up to the epoch: [`veil_node_core::lifecycle`].
//! 2. From then on, side by side: certificates ([`veil_node_core::follow`]) and bodies of jobs
//!    ([`veil_node_core::ingress`]); but for a light worker also telemetry of others, locked manifests
//!    (`evaluate`) and what is stated of them ([`veil_node_core::audit`]).
//! 3. When the Docker engine answers and the worker has caught up: containers (`enforce`) and its own
//!    telemetry (`report`). Without an engine the worker offers nothing, and does the rest.
//! 4. Operators reach their jobs by sessions with this worker ([`veil_node_reach`]), through whichever node they ask.
//! 5. Containers reach other jobs of their operators by sessions with the workers of these (`links`), and do not start
//!    before what they wait for.
//! 6. On a stop it leaves gracefully. Containers stay: their leases decide.
//!
//! # State
//! In the data directory: the ledger, the bodies of jobs, the key set, the highest telemetry number
//! (`sequence`), the last contact with the committee (`lease`), what it gives back (`given-back.json`), restarts and
//! images that the worker pulled (`containers.json`), images that are what the chain commits to (`approvals`), what is
//! sealed in its jobs, encrypted under its identity (`sealed/`). What runs is the engine's to say.
//!
//! # Restart
//! Start it again with the same data directory: it finds its containers by their labels, catches up
//! on certificates, and only then enforces them.

mod approvals;
mod assigned;
mod confirm;
mod desired;
mod enforce;
mod evaluate;
mod evictions;
mod giving;
mod images;
mod lease;
mod links;
mod moves;
mod profile;
mod proving;
mod reach;
mod report;
mod sequence;
pub mod telemetry;
mod terms;
mod unsealing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use veil_node_api::progress::Progress;
use veil_node_api::{
    evict::{self, GivesBack},
    status::Role,
};
use veil_node_config::{EgressFilter, WorkerConfig, WorkerSection};
use veil_node_containers::{self as containers, Docker, DockerError, Executor, Owner, Terms};
use veil_node_core::{
    audit::Audits,
    cluster::View,
    epoch::{ActiveEpoch, Material},
    evaluation::InputSource,
    follow::Follower,
    ingress,
    lifecycle::{Node, Secrets, Sections, StartError, link_to},
};
use veil_node_links::Listeners;
use veil_node_p2p::StreamKind;
use veil_node_process::BootId;
use veil_node_storage::durable::replace;
use veil_protocol_spec::{
    PeerIdHash,
    registry::{LIGHT_LABEL, is_light},
    scheduling::{ClusterState, ImageReference, UnixMillis},
};

pub use self::{approvals::ApprovalError, sequence::SequenceError};

use self::telemetry::{Sampler, Unreadable};
use self::{
    approvals::{Approvals, Said},
    confirm::Confirmer,
    enforce::Enforcer,
    evaluate::Evaluator,
    evictions::Evictions,
    lease::LastContact,
    links::{Carrier, Links, Waiting, Ways},
    report::Reporter,
    sequence::Sequence,
    unsealing::Unsealing,
};

/// Telemetry of others counts for this long after it was sampled.
const TELEMETRY_MAX_AGE: UnixMillis = UnixMillis(120_000);
/// How long to try to catch up before containers are reconciled with what is known.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait between two attempts to reach the engine.
const DOCKER_RETRY: Duration = Duration::from_secs(10);

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// What both roles need.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The key set that was brought by hand.
    #[error("worker.key_set = {path}: {source}")]
    KeySet {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What it has given back.
    #[error(
        "{path}: {source}; it says which replicas this worker has given back: remove it only if none of them is exclusive"
    )]
    GivenBack {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// Its telemetry numbers.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// What images are checked with.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The host.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Runs a worker until `stop`.
///
/// # Errors
/// [`WorkerError`]; not for what heals by waiting, which the status names.
#[boxed]
pub async fn run(
    config: &WorkerConfig,
    secrets: Secrets,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let WorkerConfig { node, network, chain, api, worker } = config;
    let sections = Sections { node, network, chain, api: api.as_ref() };
    let path = node.data_dir.join("given-back.json");
    let evictions = Evictions::open(&path);
    let evictions = Arc::new(evictions.map_err(|source| WorkerError::GivenBack { path, source })?);
    let own = evict::routes(Arc::clone(&evictions) as Arc<dyn GivesBack>);
    let node = match Node::start(Role::Worker, sections, secrets, stop, own).await {
        Ok(node) => node,
        Err(StartError::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ended = work(&node, worker, evictions).await;
    node.leave().await;
    ended
}

async fn work(
    node: &Node,
    section: &WorkerSection,
    evictions: Arc<Evictions>,
) -> Result<(), WorkerError> {
    let Some(key) = node.active_key().await else { return Ok(()) };
    let cluster = &node.cluster;
    warn_of_registration(&cluster.views.current(), cluster.me, section.light);
    if let Some(given) = &section.key_set {
        // Where it would be if it had been fetched; its digest is checked like a fetched one's.
        let link = cluster.data_dir.join(format!("keyset-{}.bin", key.key_set));
        std::fs::metadata(given)
            .and_then(|_| link_to(given, &link))
            .map_err(|source| WorkerError::KeySet { path: given.clone(), source })?;
    }
    let material = if section.light { Material::Light } else { Material::Fetched };
    let prepared = node.prepare(key, material, TELEMETRY_MAX_AGE).await?;
    let Some(epoch) = prepared else { return Ok(()) };

    let network = &cluster.network;
    let follower = Follower::new(network, &epoch);
    let tasks = &cluster.tasks;
    tasks.spawn(Arc::clone(&follower).run());
    let (views, peers) = (cluster.views.clone(), cluster.peers.clone());
    tasks.spawn(ingress::jobs(network.clone(), views, peers, Arc::clone(&cluster.jobs)));
    tasks.spawn(record_slots(Arc::clone(&epoch), Arc::clone(&node.progress)));
    // What a light worker does not take part in, it is not sent: gossip goes to subscribers.
    if !section.light {
        tasks.spawn(ingress::telemetry(network.clone(), tasks.clone(), Arc::clone(&epoch)));
        let (views, progress) = (cluster.views.clone(), Arc::clone(&node.progress));
        let audits = Audits::new(views, Arc::clone(&epoch), progress);
        tasks.spawn(Arc::clone(&audits).listen(network.clone()));
        let evaluator = Evaluator {
            network: network.clone(),
            identity: cluster.identity.clone(),
            inputs: InputSource {
                views: cluster.views.clone(),
                peers: cluster.peers.clone(),
                jobs: Arc::clone(&cluster.jobs),
                epoch: Arc::clone(&epoch),
            },
            epoch: Arc::clone(&epoch),
            progress: Arc::clone(&node.progress),
            follower: Arc::clone(&follower),
            audits,
        };
        tasks.spawn(evaluator.run());
    }
    tokio::select! {
        ended = contain(node, section, &epoch, &follower, evictions) => ended,
        () = node.stop.cancelled() => Ok(()),
    }
}

/// What the registry says and the configuration contradicts.
fn warn_of_registration(view: &View, me: PeerIdHash, light: bool) {
    if !view.workers().contains(&me) {
        tracing::warn!(
            "the registry lists this node without the role of a worker: nothing will be placed here"
        );
    }
    let is_light = view.nodes.get(&me).is_some_and(|node| is_light(&node.labels));
    if light && !is_light {
        tracing::warn!(
            "`worker.light` is set, but the registration lacks the label {LIGHT_LABEL}: this worker is drawn as an auditor and states nothing; register it anew with `veil chain register --label {LIGHT_LABEL}`"
        );
    }
    if is_light && !light {
        tracing::warn!(
            "the registration has the label {LIGHT_LABEL}: this worker is never drawn as an auditor; `worker.light = true` spares it the evaluation key"
        );
    }
}

/// Containers and what is said of them.
async fn contain(
    node: &Node,
    section: &WorkerSection,
    epoch: &Arc<ActiveEpoch>,
    follower: &Follower,
    evictions: Arc<Evictions>,
) -> Result<(), WorkerError> {
    let (cluster, progress) = (&node.cluster, &node.progress);
    let sequence = Sequence::open(&cluster.data_dir.join("telemetry-sequence"))?;
    let last_contact = LastContact::open(&cluster.data_dir.join("last-contact"), BootId::current());
    let views = cluster.views.clone();
    let said = move |image: &ImageReference| {
        let view = views.current();
        let images = &view.images;
        Said {
            refused: images.refuse(image).map(|refused| refused.to_string()),
            approval: images.approval(image).copied(),
            signed_only: images.signed_only(),
        }
    };
    let approvals = Approvals::open(section, &cluster.data_dir, said)?;
    let (docker, data_root) = engine(section, progress).await;
    let (network, jobs) = (cluster.network.clone(), Arc::clone(&cluster.jobs));
    let links = Links::new(cluster.me, network, jobs, Arc::clone(epoch));
    let listeners = Arc::new(Listeners::new(Arc::new(Ways(Arc::clone(&links)))));
    let waiting = Waiting::new(Arc::clone(&links));
    let terms = Terms {
        approve: approvals.approve(),
        links: containers::Links::by(Arc::new(Carrier(Arc::clone(&listeners)))),
        ..terms::terms(section, &data_root, &cluster.network.ips())
    };
    let sampler = Sampler::new(section.offer.offer(), &data_root)?;
    // What was placed elsewhere while this worker was away must not be started again here.
    progress.stage("catching up with the committee", []);
    let mut contact = follower.contact();
    if tokio::time::timeout(CATCH_UP_TIMEOUT, contact.wait_for(Option::is_some)).await.is_err() {
        tracing::warn!("the committee cannot be reached; going by the last certificate known here");
    }
    let owner = Owner { scope: cluster.scope, worker: cluster.me };
    let record = cluster.data_dir.join("containers.json");
    let saved = std::fs::read(&record).unwrap_or_default();
    let save = Box::new(move |bytes: &[u8]| replace(&record, bytes));
    let executor = Arc::new(Executor::remembering(docker, owner, &saved, save).on(terms));
    let (included, including) = watch::channel(None);
    evictions.know(cluster.me, Arc::clone(epoch));
    let (health, fares) = watch::channel(Vec::new());
    let enforcer = Enforcer {
        me: cluster.me,
        peers: cluster.peers.clone(),
        jobs: Arc::clone(&cluster.jobs),
        epoch: Arc::clone(epoch),
        views: cluster.views.clone(),
        progress: Arc::clone(progress),
        confirmer: Confirmer {
            chain: cluster.chain.clone(),
            cluster: cluster.scope.cluster,
            me: cluster.me,
            views: cluster.views.clone(),
            ledger: Arc::clone(&epoch.ledger),
            tasks: cluster.tasks.clone(),
        },
        executor: Arc::clone(&executor),
        contact,
        last_contact,
        included,
        evictions: Arc::clone(&evictions),
        health,
        links: Arc::clone(&links),
        listeners,
        waiting: Arc::clone(&waiting),
        unsealing: Unsealing::new(
            &cluster.data_dir,
            cluster.identity.clone(),
            cluster.peers.clone(),
            Arc::clone(epoch),
        ),
    };
    let reached = reach::serve(cluster, epoch, &executor, (progress, section.exec));
    let asked = cluster.network.accept_streams(StreamKind::Link);
    let serving = Arc::clone(&links).serve(Arc::clone(&executor), asked);
    let listening = Arc::clone(&executor);
    let following = approvals::follow(&cluster.views, &listening);
    let round = images::Rounds {
        kept: section.images_kept(),
        is_filtered: section.egress == EgressFilter::Filtered,
    };
    let collecting = images::collect(Arc::clone(&executor), round, progress);
    let reporter = Reporter {
        network: cluster.network.clone(),
        views: cluster.views.clone(),
        identity: cluster.identity.clone(),
        epoch: Arc::clone(epoch),
        executor,
        sampler,
        standing: section.offer.standing(),
        profile: section.profile(),
        sequence,
        interval: section.telemetry_interval(),
        included: including,
        evictions,
        health: fares,
    };
    tokio::join!(
        enforcer.run(),
        reporter.run(),
        collecting,
        listening.listen(),
        following,
        reached,
        links.follow(),
        serving,
        waiting.run(),
    );
    Ok(())
}

/// Waits for an engine.
async fn engine(section: &WorkerSection, progress: &Progress) -> (Docker, PathBuf) {
    let mut delays = ExponentialBuilder::default()
        .with_max_delay(DOCKER_RETRY)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        let connecting = async {
            let docker = Docker::connect(&section.docker_socket).await?;
            if let Some(runtime) = &section.runtime {
                docker.check_runtime(runtime).await?;
            }
            let data_root = docker.data_root().await?;
            Ok::<_, DockerError>((docker, data_root))
        };
        match connecting.await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%error, "waiting for the Docker engine");
                progress.stage("waiting for the Docker engine", [error.to_string()]);
                tokio::time::sleep(delays.next().unwrap_or(DOCKER_RETRY)).await;
            }
        }
    }
}

/// Puts what each new record says into the slot's report.
async fn record_slots(epoch: Arc<ActiveEpoch>, progress: Arc<Progress>) {
    let mut states = epoch.ledger.subscribe();
    while states.changed().await.is_ok() {
        let slot = ClusterState::last_slot(&states.borrow_and_update());
        let ledger = Arc::clone(&epoch.ledger);
        let read = tokio::task::spawn_blocking(move || ledger.record(slot)).await;
        let Ok(Ok(Some(record))) = read else { continue };
        let placed = record.assignments.as_slice().iter();
        let placed =
            placed.filter(|a| a.outcome != veil_protocol_spec::scheduling::Outcome::Pending);
        let (all, assigned) = (record.manifest.pending.len(), placed.count());
        progress.slot(slot, |report| {
            report.manifest = Some(record.certificate.body.manifest);
            report.candidates = record.manifest.telemetry.len();
            report.assigned = assigned;
            report.pending = all - assigned;
        });
    }
}
