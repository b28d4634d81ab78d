//! A worker at work.
//!
//! # Flow
//! 1. The steps of both roles up to the epoch: [`veil_node_core::lifecycle`].
//! 2. From then on, side by side: certificates ([`veil_node_core::follow`]), telemetry of others and bodies of
//!    jobs ([`veil_node_core::ingress`]), locked manifests (`evaluate`).
//! 3. When the Docker engine answers and the worker has caught up: containers (`enforce`) and its own
//!    telemetry (`report`). Without an engine the worker offers nothing, and does the rest.
//! 4. On a stop it says goodbye. Containers stay: their leases decide.
//!
//! # State
//! In the data directory: the ledger, the bodies of jobs, the key set, the highest telemetry number
//! (`sequence`), the last contact with the committee (`lease`). What runs is the engine's to say.

mod confirm;
mod enforce;
mod evaluate;
mod lease;
mod report;
mod sequence;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use veil_node_containers::{Docker, DockerError, Executor, Owner};
use veil_node_core::{
    board::StatusBoard,
    config::{WorkerConfig, WorkerSection},
    epoch::Epoch,
    follow::Follower,
    ingress,
    lifecycle::{RoleError, Running, Sections, link_to},
    status::Role,
};
use veil_protocol_spec::{
    Slot,
    scheduling::{ClusterState, UnixMillis},
};

pub use self::sequence::SequenceError;
pub use veil_node_core::lifecycle::Secrets;

use self::{
    enforce::Enforcer,
    evaluate::{Evaluator, Results},
    lease::LastContact,
    report::Reporter,
    sequence::Sequence,
};
use crate::telemetry::{Sampler, Unreadable};

/// Telemetry of others counts for this long after it was sampled.
const TELEMETRY_MAX_AGE: UnixMillis = UnixMillis(120_000);
/// How long to try to catch up before containers are reconciled with what is known.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Longest wait between two attempts to reach the engine.
const DOCKER_RETRY: Duration = Duration::from_secs(10);

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// What both roles need.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The key set that was brought by hand.
    #[error("worker.key_set = {path}: {source}")]
    KeySet {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its telemetry numbers.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The host.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Runs a worker until `stop`.
///
/// # Errors
/// [`WorkerError`]; not for what heals by waiting, which the status names.
pub async fn run(
    config: &WorkerConfig,
    secrets: Secrets,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let WorkerConfig { node, network, chain, worker } = config;
    let sections = Sections { node, network, chain };
    let running = match Running::start(Role::Worker, sections, secrets, Router::new(), stop).await {
        Ok(running) => running,
        Err(RoleError::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ended = work(&running, worker).await;
    running.leave().await;
    ended
}

async fn work(running: &Running, section: &WorkerSection) -> Result<(), WorkerError> {
    let Some(key) = running.key_in_force().await else { return Ok(()) };
    let cluster = &running.cluster;
    if !cluster.view().workers().contains(&cluster.me) {
        tracing::warn!(
            "the registry lists this node without the role of a worker: nothing will be placed here"
        );
    }
    if let Some(given) = &section.key_set {
        // Where it would be if it had been fetched; its digest is checked like a fetched one's.
        let link = cluster.data_dir.join(format!("keyset-{}.bin", key.key_set));
        std::fs::metadata(given)
            .and_then(|_| link_to(given, &link))
            .map_err(|source| WorkerError::KeySet { path: given.clone(), source })?;
    }
    let insecure = section.insecure_reference_string;
    let prepared = running.prepare(key, None, insecure, TELEMETRY_MAX_AGE).await?;
    let Some(epoch) = prepared else { return Ok(()) };

    let follower = Follower::new(cluster, &epoch);
    cluster.spawn(Arc::clone(&follower).run());
    cluster.spawn(intake::telemetry(Arc::clone(cluster), Arc::clone(&epoch)));
    cluster.spawn(intake::jobs(Arc::clone(cluster)));
    cluster.spawn(note_slots(Arc::clone(&epoch), Arc::clone(&running.board)));
    let evaluator = Evaluator {
        cluster: Arc::clone(cluster),
        epoch: Arc::clone(&epoch),
        board: Arc::clone(&running.board),
        follower: Arc::clone(&follower),
        results: std::sync::Mutex::new(Results::default()),
    };
    cluster.spawn(evaluator.run());
    tokio::select! {
        ended = contain(running, section, &epoch, &follower) => ended,
        () = running.stop.cancelled() => Ok(()),
    }
}

/// Containers and what is said of them.
async fn contain(
    running: &Running,
    section: &WorkerSection,
    epoch: &Arc<Epoch>,
    follower: &Follower,
) -> Result<(), WorkerError> {
    let (cluster, board) = (&running.cluster, &running.board);
    let sequence = Sequence::open(&cluster.data_dir.join("telemetry-sequence"))?;
    let last_contact = LastContact::open(&cluster.data_dir.join("last-contact"));
    let (docker, data_root) = engine(section, board).await;
    let sampler = Sampler::new(section.offer.offer(), &data_root)?;
    // What was placed elsewhere while this worker was away must not be started again here.
    board.stage("catching up with the committee", []);
    let mut contact = follower.contact();
    if tokio::time::timeout(CATCH_UP, contact.wait_for(Option::is_some)).await.is_err() {
        tracing::warn!("the committee cannot be reached; going by the last certificate known here");
    }
    let owner = Owner { scope: cluster.scope, worker: cluster.me };
    let executor = Arc::new(Executor::new(docker, owner));
    let (included, including) = watch::channel(None::<Slot>);
    let enforcer = Enforcer {
        cluster: Arc::clone(cluster),
        epoch: Arc::clone(epoch),
        board: Arc::clone(board),
        executor: Arc::clone(&executor),
        contact,
        last_contact,
        included,
    };
    let reporter = Reporter {
        cluster: Arc::clone(cluster),
        epoch: Arc::clone(epoch),
        executor,
        sampler,
        standing: section.offer.standing(),
        sequence,
        interval: section.telemetry_interval(),
        included: including,
    };
    tokio::join!(enforcer.run(), reporter.run());
    Ok(())
}

/// Waits for an engine.
async fn engine(section: &WorkerSection, board: &StatusBoard) -> (Docker, PathBuf) {
    let mut delays = ExponentialBuilder::default()
        .with_max_delay(DOCKER_RETRY)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        let connecting = async {
            let docker = Docker::connect(&section.docker_socket).await?;
            let data_root = docker.data_root().await?;
            Ok::<_, DockerError>((docker, data_root))
        };
        match connecting.await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%error, "waiting for the Docker engine");
                board.stage("waiting for the Docker engine", [error.to_string()]);
                tokio::time::sleep(delays.next().unwrap_or(DOCKER_RETRY)).await;
            }
        }
    }
}

/// Puts what each new record says into the slot's report.
async fn note_slots(epoch: Arc<Epoch>, board: Arc<StatusBoard>) {
    let mut states = epoch.ledger.subscribe();
    while states.changed().await.is_ok() {
        let slot = ClusterState::last_slot(&states.borrow_and_update());
        let ledger = Arc::clone(&epoch.ledger);
        let read = tokio::task::spawn_blocking(move || ledger.record(slot)).await;
        let Ok(Ok(Some(record))) = read else { continue };
        let placed = record.assignments.as_slice().iter();
        let placed =
            placed.filter(|a| a.outcome != veil_protocol_spec::scheduling::Outcome::Pending);
        let (all, assigned) = (record.assignments.as_slice().len(), placed.count());
        board.slot(slot, |report| {
            report.manifest = Some(record.certificate.body.manifest);
            report.candidates = record.manifest.telemetry.len();
            report.assigned = assigned;
            report.pending = all - assigned;
        });
    }
}
