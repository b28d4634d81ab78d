//! A committee member at work: `veil committee run`.
//!
//! # Role
//! Holds one threshold share of the cluster's key: takes part in the ceremony that makes it, agrees
//! on what each slot decides, opens the assignments with others, signs them, anchors them on chain.
//!
//! # Flow
//! 1. Join the cluster ([`veil_node_core::lifecycle`]).
//! 2. While the chain publishes no key: take part in the ceremony that is proposed, attempt after
//!    attempt ([`veil_node_ceremony`]).
//! 3. Verify this member's key share; prepare the epoch.
//! 4. Catch up on certificates; pass the fence, if one is up; then slot after slot.
//!
//! # State
//! In the data directory: the ceremony's folders, and `slots/` with the journals of the slot, agreement,
//! decryption and signing. They exist before there is a key share, and a share without them does not
//! start.
//!
//! # Restart
//! Start it again with the same data directory. Each machine goes on where its journal ends, and says
//! nothing that contradicts what has left before.

mod anchor;
pub mod backup;
mod ballot;
mod counter;
mod evaluator;
mod evidence;
mod fence;
mod history;
mod local_view;
mod protocols;
mod share;
mod signer;
mod slot_loop;
mod suspicions;
mod validator;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use veil_committee::key_share::{KeyShare, KeyShareError};
use veil_committee_agreement::Timing;
use veil_committee_sealed::member::SealingKey;
use veil_committee_slot::{
    SlotMachine,
    anchor::{AnchorConfig, AnchorMachine},
    machine::{SlotConfig, SlotTiming},
    silence::Silence,
};
use veil_node_api::{
    routes::Routes,
    status::{Role, SlotClock},
};
use veil_node_ceremony::P2pTransports;
use veil_node_ceremony::{
    CeremonyError, CeremonyProgress, CeremonyTiming, ChainCommitPoint, CommitPointError,
    FinishedKey, MemberOptions, journals,
};
use veil_node_chain::PublishedKey;
use veil_node_config::MemberConfig;
use veil_node_core::{
    audit::Audits,
    epoch::{ActiveEpoch, Material, MaterialFiles},
    evaluation::InputSource,
    follow::Follower,
    ingress,
    lifecycle::{Node, Secrets, Sections, StartError},
    sealing::Sealing,
};
use veil_node_driver::Clock;
use veil_node_storage::{
    inputs::InputsError,
    journal::JournalError,
    keystore::{KeystoreError, Passphrase},
    ledger::LedgerError,
    slot_journal::SlotJournal,
    slot_stores::SlotStores,
};
use veil_protocol_spec::{
    Epoch as EpochNumber, ParticipantIndex,
    evidence::{Evidence, Proof},
    scheduling::UnixMillis,
    sealing::public_key_digest,
    slot::SlotEntry,
};
use veil_scheduler::{InvalidPublicKey, write_public_key};

pub use self::{
    fence::{FenceError, raise as raise_fence},
    protocols::ProtocolError,
    share::OriginError,
    slot_loop::SlotsEnded,
};

use self::{
    anchor::Anchorer,
    evaluator::Evaluator,
    evidence::EvidenceExchange,
    fence::Fence,
    history::History,
    protocols::{MAX_WAITING_PROOFS, Protocols},
    slot_loop::SlotLoop,
    suspicions::Suspicions,
    validator::Validator,
};

/// Attempts of a ceremony that a member takes part in before it waits for an operator.
const ATTEMPTS: u32 = 8;
/// Between two looks for a proposal.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Why a member stops.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Joining.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ceremony.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// The chain has a key that this member has no share of.
    #[error(
        "the chain publishes a key for epoch {0}, but this data directory holds no share of it: use the directory that took part in the ceremony; an older copy of it would vote a second time. If it is lost, `veil share import` takes the share from a backup; without one this seat stays empty until the next epoch"
    )]
    NoShare(EpochNumber),
    /// It could sign a second time.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The key share's file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The key share itself.
    #[error("the key share cannot be used: {0}")]
    KeyShare(#[from] KeyShareError),
    /// What the check of the key share needs of its ceremony.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The cluster's public key, which a member states.
    #[error("the cluster's public key: {0}")]
    PublicKey(#[from] InvalidPublicKey),
    /// Agreement, decryption, signing.
    #[error(transparent)]
    Protocols(#[from] ProtocolError),
    /// The slot's journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is kept of slots.
    #[error(transparent)]
    Stores(#[from] InputsError),
    /// The certificates of the last slots.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A protocol of this member ended by itself; the log says why.
    #[error(
        "{0}: this member takes no further part in any slot; see the log for the reason, and start the member again when it is gone"
    )]
    Ended(#[from] SlotsEnded),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are two processes with this member's identity, and the other one began anew.
    #[error(
        "this member was fenced or its share brought back in another data directory, and runs with it: this process has ended, so that the member has one voice. Do not start it with this data directory again, it would sign a second time"
    )]
    Superseded,
    /// Told to stop.
    #[error("stopped")]
    Stopped,
}

/// Runs a member until `stop`, or until it cannot go on.
///
/// # Errors
/// [`MemberError`]; being told to stop is none.
pub async fn run(
    config: &MemberConfig,
    secrets: Secrets,
    stop: CancellationToken,
) -> Result<(), MemberError> {
    let sections = Sections {
        node: &config.node,
        network: &config.network,
        chain: &config.chain,
        api: config.api.as_ref(),
    };
    let passphrase = secrets.passphrase.clone();
    let node = Node::start(Role::Member, sections, secrets, stop.clone(), Routes::default());
    let node = match node.await {
        Err(StartError::Stopped) => return Ok(()),
        joined => joined?,
    };
    let served = tokio::select! {
        served = serve(config, &node, &passphrase) => served,
        () = superseded(&node) => Err(MemberError::Superseded),
        () = stop.cancelled() => Ok(()),
    };
    node.leave().await;
    match served {
        Err(MemberError::Stopped | MemberError::Ceremony(CeremonyError::Interrupted)) => Ok(()),
        served => served,
    }
}

async fn serve(
    config: &MemberConfig,
    node: &Node,
    passphrase: &Passphrase,
) -> Result<(), MemberError> {
    let cluster = &node.cluster;
    let transports = P2pTransports::new(cluster.network.clone());
    let folder = journals::folder(&cluster.data_dir);
    let (key, finished) = obtain_key(config, node, passphrase, &transports).await?;
    fence::check_journals(&folder)?;
    let share = open_share(node, passphrase, &finished, &key).await?;
    let files = MaterialFiles {
        key_set: finished.key_set_file(),
        reference_string: finished.reference_string_file(),
    };
    // A share that was brought back comes alone: the others have the rest.
    let files = Some(files).filter(|of| of.key_set.exists() && of.reference_string.exists());
    let max_age = UnixMillis(config.committee.telemetry_max_age_seconds.saturating_mul(1000));
    let stores = Arc::new(SlotStores::open(&cluster.data_dir, config.node.retention())?);
    let material = Material::Own { files, stores: Arc::clone(&stores) };
    let Some(epoch) = node.prepare(key, material, max_age).await? else {
        return Ok(());
    };
    if let Some(threads) = config.committee.evaluation_threads {
        epoch.evaluators.limit(threads.into());
    }

    let (network, tasks) = (&cluster.network, &cluster.tasks);
    let follower = Follower::new(network, &epoch);
    tasks.spawn(Arc::clone(&follower).run());
    let exchange =
        EvidenceExchange::new(network.clone(), cluster.views.clone(), Arc::clone(&epoch));
    tasks.spawn(exchange.clone().run());
    tasks.spawn(exchange.run_votes());
    if let Some(fence) = Fence::find(&folder)? {
        fence.pass(&epoch, &follower, &node.progress).await?;
    }
    let timing = Timing {
        propose: config.committee.propose_timeout_seconds.saturating_mul(1000),
        ..Timing::default()
    };
    let (proofs, found) = mpsc::channel(MAX_WAITING_PROOFS);
    let (reports, reported) = mpsc::channel(MAX_WAITING_PROOFS);
    tasks.spawn(keep_reports(reported, Arc::clone(&epoch)));
    let (protocols, signer) =
        Protocols::start(&epoch, &transports, &folder, &cluster.identity, &share, timing, proofs)?;
    let key = SealingKey::derive(&share.sealing_seed(), epoch.binding, protocols.me);
    let public_key = public_key_digest(&write_public_key(&epoch.keys.public)?);
    let _ = epoch.sealing.set(Sealing::new(key, public_key, &cluster.identity)); // it was empty: once an epoch
    drop(share);
    let suspicions = Arc::new(Suspicions::default());
    tasks.spawn(suspicions::listen(network.clone(), Arc::clone(&epoch), Arc::clone(&suspicions)));
    tasks.spawn(suspicions::suspect(
        network.clone(),
        cluster.views.clone(),
        cluster.identity.clone(),
        Arc::clone(&epoch),
        protocols.me,
        Arc::clone(&suspicions),
    ));
    tasks.spawn(ingress::telemetry(network.clone(), tasks.clone(), Arc::clone(&epoch)));
    let (views, progress) = (cluster.views.clone(), Arc::clone(&node.progress));
    tasks.spawn(Audits::new(views, Arc::clone(&epoch), progress).listen(network.clone()));
    let (views, peers) = (cluster.views.clone(), cluster.peers.clone());
    let jobs = Arc::clone(&cluster.jobs);
    tasks.spawn(ingress::jobs(network.clone(), views.clone(), peers.clone(), Arc::clone(&jobs)));
    let pays = cluster.chain.account().is_some();
    let part = AnchorConfig { me: protocols.me, committee: epoch.committee, pays };
    let anchorer = Anchorer {
        machine: AnchorMachine::new(part),
        clock: Clock::start(),
        chain: cluster.chain.clone(),
        cluster: cluster.scope.cluster,
        ledger: Arc::clone(&epoch.ledger),
        views: views.clone(),
        progress: Arc::clone(&node.progress),
    };
    tasks.spawn(anchorer.run());
    let (signing, commands) = mpsc::unbounded_channel();
    let (outcomes, signed) = mpsc::unbounded_channel();
    tasks.spawn(signer.run(commands, outcomes));
    let inputs = InputSource { views, peers, jobs, epoch: Arc::clone(&epoch) };
    let (identity, clock) = (cluster.identity.clone(), Clock::start());
    let certified = epoch.ledger.state().last_slot();
    let (journal, records) = SlotJournal::open(&folder.join(journals::SLOT), certified)?;
    let history = History {
        ballot: protocols.ballot.clone(),
        records: protocols.records.clone(),
        slots: journal.clone(),
        nonces: protocols.nonces.clone(),
        stores,
        epoch: Arc::clone(&epoch),
    };
    let machine = slot_machine(config, &epoch, protocols.me, records, clock);
    let slots = SlotLoop {
        network: network.clone(),
        evaluator: Evaluator::new(network.clone(), identity, inputs.clone(), tasks.clone()),
        validator: Arc::new(Validator { inputs: inputs.clone(), telemetry_max_age: max_age }),
        phases: SlotClock::start(machine.slot()),
        inputs,
        follower,
        epoch,
        protocols,
        suspicions,
        progress: Arc::clone(&node.progress),
        tasks: tasks.clone(),
        telemetry_max_age: max_age,
        machine,
        silence: Silence::default(),
        awaited: Vec::new(),
        evidence: (found, reports),
        journal,
        history,
        clock,
        signing,
        signed,
        refused: mpsc::unbounded_channel(),
    };
    let ended = slots.run().await;
    // Told to stop, everything ends at once, in whatever order.
    if node.stop.is_cancelled() { Ok(()) } else { Err(ended.into()) }
}

/// Waits until a later incarnation of this member has joined.
async fn superseded(node: &Node) {
    let mut liveness = node.cluster.network.liveness();
    if liveness.wait_for(|known| known.is_superseded()).await.is_err() {
        std::future::pending::<()>().await; // the network ends with the node
    }
}

/// Judges and stores what the slots report, one after the other.
async fn keep_reports(mut reported: mpsc::Receiver<Proof>, epoch: Arc<ActiveEpoch>) {
    while let Some(proof) = reported.recv().await {
        let evidence = Evidence { binding: epoch.binding, proof };
        veil_node_storage::evidence::keep(Arc::clone(&epoch.evidence), evidence).await;
    }
}

/// The machine in the slot after the last certificate.
fn slot_machine(
    config: &MemberConfig,
    epoch: &ActiveEpoch,
    me: ParticipantIndex,
    records: Vec<SlotEntry>,
    clock: Clock,
) -> SlotMachine {
    let state = epoch.ledger.state();
    let timing = SlotTiming {
        void_after: config.committee.void_timeout_seconds.saturating_mul(1000),
        ..SlotTiming::default()
    };
    let config = SlotConfig { me, origin: epoch.origin, timing };
    SlotMachine::new(config, state, records, clock.now())
}

/// The key in force and this member's part of it, from an earlier run or from a ceremony.
async fn obtain_key(
    config: &MemberConfig,
    node: &Node,
    passphrase: &Passphrase,
    transports: &P2pTransports,
) -> Result<(PublishedKey, FinishedKey), MemberError> {
    let cluster = &node.cluster;
    let mut views = cluster.views.subscribe();
    if views.borrow().key.is_none() {
        take_part(config, node, passphrase, transports).await?;
    }
    // The chain has it; this node's view may be a moment behind.
    let published = views.wait_for(|view| view.key.is_some()).await.map(|view| view.key);
    let key = published.ok().flatten().ok_or(MemberError::Stopped)?;
    let folder = cluster.data_dir.join("ceremony");
    let finished = FinishedKey::load(&cluster.data_dir, key.epoch)
        .map_err(|source| MemberError::Io { path: folder, source })?;
    match finished.filter(|finished| finished.key_set == key.key_set) {
        Some(finished) => Ok((key, finished)),
        None if ongoing(cluster, &key) => {
            // FINISH was signed before a restart, and the key was published meanwhile.
            let finished = take_part(config, node, passphrase, transports).await?;
            Ok((key, finished))
        }
        None => Err(MemberError::NoShare(key.epoch)),
    }
}

/// Whether this member has records of the attempt that made the key.
fn ongoing(cluster: &veil_node_core::cluster::Cluster, key: &PublishedKey) -> bool {
    FinishedKey::attempt_folder(&cluster.data_dir, key.epoch, key.attempt).is_dir()
}

async fn take_part(
    config: &MemberConfig,
    node: &Node,
    passphrase: &Passphrase,
    transports: &P2pTransports,
) -> Result<FinishedKey, MemberError> {
    let cluster = &node.cluster;
    let chain = ChainCommitPoint::new(cluster.chain.clone(), cluster.scope.cluster);
    let status = CeremonyProgress::default();
    let _watching = watch_ceremony(node, &status);
    let member = veil_node_ceremony::Member {
        options: MemberOptions {
            identity: cluster.identity.clone(),
            passphrase: passphrase.clone(),
            scope: cluster.scope,
            parameters: config.committee.parameters.clone(),
            timing: CeremonyTiming::default(),
        },
        data: Arc::clone(&node.data),
        transports: transports.clone(),
        chain: Arc::new(chain),
        status,
    };
    let mut changes = cluster.chain.changes();
    loop {
        match veil_node_ceremony::join(&member, ATTEMPTS, &node.stop).await {
            Ok(finished) => return Ok(finished),
            Err(CeremonyError::Chain(CommitPointError::NotProposed { .. })) => {
                node.progress.stage("waiting for a ceremony to be proposed", Vec::new());
                tokio::select! {
                    changed = changes.changed() => changed.map_err(|_| MemberError::Stopped)?,
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
            }
            Err(error @ (CeremonyError::OutOfDate { .. } | CeremonyError::Aborted(_))) => {
                tracing::warn!(%error, "this attempt made no key; waiting for the next");
                node.progress.stage("waiting for the next attempt", vec![error.to_string()]);
                changes.changed().await.map_err(|_| MemberError::Stopped)?;
            }
            Err(CeremonyError::Preflight(report)) => {
                tracing::warn!(%report, "not everybody is ready; looking again");
                node.progress.stage("pre-flight", vec![report.to_string()]);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows the ceremony's steps as this process's stage until the ceremony's status is dropped.
fn watch_ceremony(node: &Node, status: &CeremonyProgress) -> AbortOnDropHandle<()> {
    let (mut steps, progress) = (status.subscribe(), Arc::clone(&node.progress));
    AbortOnDropHandle::new(tokio::spawn(async move {
        while steps.changed().await.is_ok() {
            let now = steps.borrow_and_update().clone();
            if now.step.is_empty() {
                continue;
            }
            let mut stage = format!("ceremony attempt {}: {}", now.attempt, now.step);
            if now.total > 1 {
                stage.push_str(&format!(" {}/{}", now.done, now.total));
            }
            let outstanding = now.outstanding.iter().map(|of| of.participant);
            progress.progress(&stage, outstanding.map(|j| format!("participant {j}")));
        }
    }))
}

async fn open_share(
    node: &Node,
    passphrase: &Passphrase,
    finished: &FinishedKey,
    key: &PublishedKey,
) -> Result<KeyShare, MemberError> {
    node.progress.stage("opening the key share", Vec::new());
    let (finished, passphrase, key_set) = (finished.clone(), passphrase.clone(), key.key_set);
    let committee = node.cluster.views.current().committee;
    let opened = tokio::task::spawn_blocking(move || {
        share::open(&finished, &passphrase, committee, key_set)
    });
    opened.await.map_err(|_| MemberError::Stopped)?
}
