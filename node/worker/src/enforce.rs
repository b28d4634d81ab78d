//! What the last certificate assigns to this worker is made to run.
//!
//! # Flow
//! 1. With every new state, and at an interval, the desired replicas are put together: the state's,
//!    with their bodies, less those whose exclusive lease is over.
//! 2. Each set is given to the executor in a call of its own, so that a certificate need not wait for
//!    an image that an earlier one pulls. `included` tells the telemetry which slot's replicas the
//!    executor reserves room for.
//! 3. What really runs is recorded in the progress. When everything that a slot placed here runs,
//!    the phase ends, and the deployment is confirmed on chain.
//!
//! # Caveats
//! The deployment of a slot that this process found certified when it started is not confirmed
//! again: the chain would take a second confirmation.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;
use veil_node_containers::{
    DesiredReplica, DockerError, Executor, Keep, Placement, ReconcileReport, ReplicaId, lapsed,
};
use veil_node_core::{
    cluster::Peers,
    epoch::ActiveEpoch,
    progress::Progress,
    status::{Observed, Phase},
};
use veil_node_process::unix_now;
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{ClusterState, UnixMillis},
};

use crate::{confirm::Confirmer, lease::LastContact};

/// Between two reconciliations without a new state.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at containers that are about to run.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// For this long after a certificate.
const POLL_PERIOD: Duration = Duration::from_secs(60);
/// For getting bodies from peers before the others are reconciled without them.
const BODIES_TIMEOUT: Duration = Duration::from_secs(30);

type Replica = (Blake3Digest, ReplicaIndex);

/// See the [module documentation](self).
pub(crate) struct Enforcer {
    pub(crate) me: PeerIdHash,
    pub(crate) peers: Peers,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) confirmer: Confirmer,
    pub(crate) executor: Arc<Executor>,
    pub(crate) contact: watch::Receiver<Option<UnixMillis>>,
    pub(crate) last_contact: LastContact,
    /// The last slot whose replicas the executor knows; changes too when room has become free.
    pub(crate) included: watch::Sender<Option<Slot>>,
}

/// The replicas that the executor is to run, and why the others of this worker are not among them.
struct Desired {
    slot: Slot,
    replicas: Vec<DesiredReplica>,
    /// "It removes a container only against a verified certificate that says so, never for lack of
    /// knowledge."
    keep: Keep,
    left_out: BTreeMap<Replica, &'static str>,
}

/// A slot that placed something here, until all of it runs.
struct Enforcing {
    since: Instant,
    replicas: BTreeSet<Replica>,
}

impl Enforcer {
    /// Runs until it is dropped; containers stay as they are then.
    pub(crate) async fn run(mut self) {
        let mut states = self.epoch.ledger.subscribe();
        let executor = Arc::clone(&self.executor);
        let mut running: FuturesUnordered<BoxFuture<'_, Result<ReconcileReport, DockerError>>> =
            FuturesUnordered::new();
        let mut enforcing: BTreeMap<Slot, Enforcing> = BTreeMap::new();
        let mut certificates = BTreeMap::new();
        let mut seen = states.borrow().last_slot();
        let mut tick = tokio::time::interval(RECONCILE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut left_out = BTreeMap::new();
        loop {
            let soon = enforcing.values().any(|slot| slot.since.elapsed() < POLL_PERIOD);
            let looks = async {
                if !soon {
                    std::future::pending::<()>().await; // the tick looks too
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
                Some(report) = running.next(), if !running.is_empty() => {
                    self.record(&report);
                    self.observe(&mut enforcing, &left_out).await;
                    continue;
                }
                () = looks => {
                    self.observe(&mut enforcing, &left_out).await;
                    continue;
                }
            }
            let since = Instant::now();
            let state = Arc::clone(&states.borrow_and_update());
            self.record_slots(&state, seen, since, &mut enforcing);
            seen = state.last_slot();
            self.renew_lease();
            let desired = self.desired(&state, &mut certificates).await;
            let Desired { slot, replicas, keep, left_out: without } = desired;
            left_out = without;
            let mut call: BoxFuture<'_, _> = {
                let executor = &executor;
                Box::pin(async move { executor.reconcile(&replicas, &keep).await })
            };
            // The executor takes the set over when the call is first polled, so that sets arrive
            // there in the order of the states.
            match futures::poll!(&mut call) {
                Poll::Ready(report) => self.record(&report),
                Poll::Pending => running.push(call),
            }
            let included = Some(slot);
            self.included.send_if_modified(|slot| core::mem::replace(slot, included) != included);
            self.observe(&mut enforcing, &left_out).await;
        }
    }

    fn record(&self, report: &Result<ReconcileReport, DockerError>) {
        match report {
            Ok(report) if report.is_unchanged() => {}
            Ok(report) => {
                tracing::info!(
                    started = report.started.len(),
                    restarted = report.restarted.len(),
                    stopped = report.stopped.len(),
                    failed = report.failed.len(),
                    "reconciled"
                );
                if !report.stopped.is_empty() {
                    self.included.send_modify(|_| {}); // they held room until now
                }
            }
            Err(error) => tracing::warn!(%error, "not reconciled; it is tried again"),
        }
    }

    fn renew_lease(&mut self) {
        let Some(at) = *self.contact.borrow_and_update() else { return };
        if let Err(error) = self.last_contact.renew(at) {
            tracing::warn!(%error, "the last contact with the committee is not on disk; after a restart exclusive leases may end too early");
        }
    }

    /// Takes down what the slots after `seen` have placed here.
    fn record_slots(
        &self,
        state: &ClusterState,
        seen: Slot,
        since: Instant,
        enforcing: &mut BTreeMap<Slot, Enforcing>,
    ) {
        for (job, replica, placement) in state.replicas() {
            if placement.worker == self.me && placement.slot > seen {
                let new = || Enforcing { since, replicas: BTreeSet::new() };
                let slot = enforcing.entry(placement.slot).or_insert_with(new);
                slot.replicas.insert((job, replica));
            }
        }
        // What a later slot took away again needs not run.
        let here: BTreeSet<_> = state.assigned_to(self.me).collect();
        for slot in enforcing.values_mut() {
            slot.replicas.retain(|replica| here.contains(replica));
        }
        enforcing.retain(|_, slot| !slot.replicas.is_empty());
    }

    async fn desired(
        &self,
        state: &ClusterState,
        certificates: &mut BTreeMap<Slot, KeccakDigest>,
    ) -> Desired {
        let me = self.me;
        let mine: Vec<_> = state.replicas().filter(|(_, _, p)| p.worker == me).collect();
        let slots: BTreeSet<_> = mine.iter().map(|(_, _, placement)| placement.slot).collect();
        certificates.retain(|slot, _| slots.contains(slot));
        for slot in slots {
            if certificates.contains_key(&slot) {
                continue;
            }
            let ledger = Arc::clone(&self.epoch.ledger);
            match tokio::task::spawn_blocking(move || ledger.record(slot)).await {
                Ok(Ok(Some(record))) => {
                    certificates.insert(slot, record.certificate.body.hash());
                }
                Ok(Err(error)) => tracing::error!(%error, "the ledger cannot be read"),
                Ok(Ok(None)) | Err(_) => {} // not of a state that the ledger gave
            }
        }
        let jobs: BTreeSet<_> = mine.iter().map(|(job, ..)| *job).collect();
        let bodies =
            futures::future::join_all(jobs.iter().map(|job| self.peers.job(&self.jobs, *job)));
        // A body is on disk since the job was placed, unless the data directory was lost.
        let bodies = tokio::time::timeout(BODIES_TIMEOUT, bodies).await.unwrap_or_default();
        let mut bodies: BTreeMap<_, _> =
            bodies.into_iter().flatten().map(|body| (body.digest(), Arc::new(body))).collect();
        for job in jobs {
            if let (Entry::Vacant(body), Some(stored)) = (bodies.entry(job), self.jobs.body(&job)) {
                body.insert(Arc::new(stored));
            }
        }
        let mut left_out = BTreeMap::new();
        let contact_age = self.last_contact.age(unix_now());
        let mut keep = Keep { as_of: state.last_slot(), replicas: BTreeSet::new(), contact_age };
        let mut replicas = Vec::new();
        for (job, replica, placement) in mine {
            let certificate = certificates.get(&placement.slot);
            let (Some(spec), Some(certificate)) = (bodies.get(&job), certificate) else {
                left_out.insert((job, replica), "no peer has the job's body");
                keep.replicas.insert(ReplicaId { job, replica });
                continue;
            };
            let placement = Placement { slot: placement.slot, certificate: *certificate };
            replicas.push(DesiredReplica { replica, spec: Arc::clone(spec), placement });
        }
        for over in lapsed(&replicas, contact_age) {
            tracing::warn!(replica = %over, "its exclusive lease is over: the committee was not reached in time");
            replicas.retain(|replica| replica.id() != over);
            left_out.insert((over.job, over.replica), "its exclusive lease is over");
        }
        Desired { slot: state.last_slot(), replicas, keep, left_out }
    }

    /// Notes what runs, and which slots are enforced with it.
    async fn observe(
        &self,
        enforcing: &mut BTreeMap<Slot, Enforcing>,
        left_out: &BTreeMap<Replica, &'static str>,
    ) {
        let seen = match self.executor.observe().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "the containers cannot be observed");
                self.progress.stage("waiting for the Docker engine", [error.to_string()]);
                return;
            }
        };
        self.progress.stage("working", []);
        let mut observed: BTreeMap<Replica, Observed> = left_out
            .iter()
            .map(|(replica, why)| {
                let state = format!("left out: {why}");
                (*replica, Observed { state, running: false, container: None })
            })
            .collect();
        let mut running = BTreeSet::new();
        for replica in seen {
            let key = (replica.id.job, replica.id.replica);
            let runs = replica.observed == veil_node_containers::Observed::Running;
            if runs && replica.claimed.is_some() {
                running.insert(key);
            }
            let state = match replica.error {
                Some(error) => format!("{}: {error}", replica.observed),
                None => replica.observed.to_string(),
            };
            observed.entry(key).or_insert(Observed {
                state,
                running: runs,
                container: replica.container,
            });
        }
        self.progress.observed(observed);
        enforcing.retain(|slot, enforcing| {
            if !enforcing.replicas.is_subset(&running) {
                return true;
            }
            let seconds = enforcing.since.elapsed().as_secs_f64();
            tracing::info!(%slot, seconds, "all that it placed here runs");
            self.progress.slot(*slot, |report| _ = report.phases.insert(Phase::Enforce, seconds));
            self.confirmer.spawn(*slot, enforcing.replicas.clone());
            false
        });
    }
}
