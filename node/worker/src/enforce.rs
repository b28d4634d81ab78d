//! What the last certificate assigns to this worker is made to run.
//!
//! # Flow
//! 1. With every new state, and at an interval, the enforcer puts together what it knows, and
//!    [`desired`](crate::desired) says what is to run and what stays. Nothing is waited for: bodies that
//!    are missing are asked for beside it.
//! 2. Each set is given to the executor in a call of its own, so that a certificate need not wait for
//!    an image that an earlier one pulls. `included` tells the telemetry which slot's replicas the
//!    executor reserves room for.
//! 3. What really runs is recorded in the progress. When everything that a slot placed here runs, or has
//!    ended, as batch jobs do, the phase ends, and the deployment is confirmed on chain. Looking goes on beside
//!    the rest: an engine that is slow to answer delays no lease and no certificate.
//! 4. When the engine tells that a container has ended or become unhealthy, and when the pause of one is over
//!    that is to be started again, the next reconciliation does not wait for its interval.
//! 5. While an exclusive replica runs, the age of the last contact is looked at every second, so that its
//!    lease ends on time, also when the machine has slept.
//! 6. A replica that has left for another worker runs here until it runs there ([`moves`](crate::moves)).
//! 7. What waits for another job before it starts ([`Waiting`]) is left out until then.
//! 8. What this worker gives back runs until its notice is over ([`evictions`](crate::evictions)).
//!
//! # Caveats
//! The deployment of a slot that this process found certified when it started is not confirmed
//! again: the chain would take a second confirmation.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;
use veil_node_api::progress::Progress;
use veil_node_api::status::{Observed, Phase};
use veil_node_containers::{DockerError, Executor, ObservedReplica, ReconcileReport};
use veil_node_core::{
    cluster::{Peers, Views},
    epoch::ActiveEpoch,
};
use veil_node_links::Listeners;
use veil_node_process::{Uptime, unix_now};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, PeerIdHash, Slot,
    scheduling::{EndedReplica, JobSpec, JobType, LeasePolicy, ReplicaHealth, UpdatePolicy},
};

use crate::{
    assigned::{Assigned, Replica},
    confirm::Confirmer,
    desired::{Desired, Included, Known, tell},
    evictions::Evictions,
    giving::{Giver, Giving, mine},
    lease::LastContact,
    links::{Links, Waiting, end, statuses, with_container, with_troubles},
    moves::{Asking, Moves},
    proving::{Look, Proving},
    terms::endpoints,
    unsealing::{Openings, Unsealing},
};

/// Between two reconciliations without a new state.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at containers that are about to run, and for how long after a certificate.
const POLLS: [(Duration, Duration); 2] = [
    (Duration::from_millis(250), Duration::from_secs(10)),
    (Duration::from_secs(1), Duration::from_secs(60)),
];
/// Between two looks at what was placed in an update, until it is decided how it fares.
const PROVING: Duration = Duration::from_secs(1);
/// Between two questions of one worker whether what moves to it runs there.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at whether a lease has ended.
const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// See the [module documentation](self).
pub(crate) struct Enforcer {
    pub(crate) me: PeerIdHash,
    pub(crate) peers: Peers,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) views: Views,
    pub(crate) progress: Arc<Progress>,
    pub(crate) confirmer: Confirmer,
    pub(crate) executor: Arc<Executor>,
    pub(crate) contact: watch::Receiver<Option<Uptime>>,
    pub(crate) last_contact: LastContact,
    /// What telemetry may claim; changes too when room has become free.
    pub(crate) included: watch::Sender<Option<Included>>,
    pub(crate) evictions: Arc<Evictions>,
    /// How those fare that were placed here in updates.
    pub(crate) health: watch::Sender<Vec<ReplicaHealth>>,
    pub(crate) links: Arc<Links>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) unsealing: Unsealing,
}

/// A slot that placed something here, until all of it runs.
struct Enforcing {
    since: Instant,
    replicas: BTreeSet<Replica>,
}

/// Looks at what runs, one at a time.
#[derive(Default)]
struct Looking<'a> {
    looks: FuturesUnordered<BoxFuture<'a, Result<Vec<ObservedReplica>, DockerError>>>,
    /// When the last one began.
    at: Option<tokio::time::Instant>,
    /// Something has happened since the look that is under way began.
    again: bool,
    /// Whether the engine did not answer the last one.
    is_silent: bool,
}

impl<'a> Looking<'a> {
    fn look(&mut self, executor: &'a Executor) {
        self.again = !self.looks.is_empty();
        if !self.again {
            self.at = Some(tokio::time::Instant::now());
            self.looks.push(Box::pin(executor.observe()));
        }
    }
}

/// Bodies that are asked for.
#[derive(Default)]
struct Fetching {
    asked: BTreeSet<Blake3Digest>,
    answers: FuturesUnordered<BoxFuture<'static, (Blake3Digest, bool)>>,
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
        let mut contact = self.contact.clone();
        let mut fetching = Fetching::default();
        // What was placed before this process began is not news.
        let mut assigned = Assigned::to(self.me, &states.borrow());
        let mut tick = tokio::time::interval(RECONCILE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // It goes on beside the looks, which are more frequent.
        let mut lease_tick = tokio::time::interval(LEASE_INTERVAL);
        lease_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut left_out = BTreeMap::new();
        let (mut moves, mut asking) = (Moves::default(), Asking::default());
        let (mut proving, mut openings) = (Proving::default(), Openings::new());
        let mut ask_tick = tokio::time::interval(ASK_INTERVAL);
        ask_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut views = self.views.subscribe();
        let mut evicting = self.evictions.subscribe();
        let mut waiting = self.waiting.subscribe();
        let mut giving = Giving::default();
        let (mut shortest_lease, mut contact_helps, mut busy) = (None, true, false);
        let mut looking = Looking::default();
        loop {
            let images = self.views.current().images.clone();
            let (me, due) = (self.me, giving.due(&self.evictions));
            let own = mine(me, &self.views.current());
            let since = enforcing.values().map(|slot| slot.since.elapsed()).min();
            let poll = POLLS.into_iter().find(|(_, period)| since.is_some_and(|age| age < *period));
            // The tick looks too.
            let poll = poll.map(|(interval, _)| interval);
            let poll = poll.or_else(|| proving.waits().then_some(PROVING));
            let next = poll.and_then(|interval| Some(looking.at? + interval));
            let looks = wait_until(next.filter(|_| looking.looks.is_empty()));
            let unseal = wait_until(self.unsealing.due(Instant::now()).map(Into::into));
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = contact.changed(), if contact_helps => if changed.is_err() { return },
                Ok(_) = views.wait_for(|view| view.images != images || mine(me, view) != own) => {}
                Ok(()) = evicting.changed() => {}
                Ok(()) = waiting.changed() => {}
                _ = tick.tick() => {}
                () = executor.wake() => {}
                Some(report) = running.next(), if !running.is_empty() => {
                    self.record(&report);
                    looking.look(&executor);
                    giving.look(&executor, &self.evictions);
                    let was_busy = report.is_ok_and(|report| !report.busy.is_empty());
                    busy |= was_busy;
                    // What one call was at work on, another had to leave alone.
                    if was_busy || !core::mem::take(&mut busy) {
                        continue;
                    }
                }
                Some((job, found)) = fetching.answers.next(), if !fetching.asked.is_empty() => {
                    fetching.asked.remove(&job);
                    if !found {
                        continue; // asked for again at the next tick
                    }
                }
                Some((job, opened)) = openings.next(), if !openings.is_empty() => {
                    self.unsealing.took(job, opened, Instant::now());
                }
                () = unseal => {}
                _ = lease_tick.tick(), if shortest_lease.is_some() => {
                    let at = *self.contact.borrow();
                    self.renew_lease(at, self.epoch.ledger.state().lost_since(&self.me).is_some());
                    let age = self.last_contact.age(Uptime::now());
                    if shortest_lease.is_none_or(|lease| age < lease) {
                        continue;
                    }
                }
                Some(gone) = giving.looks.next(), if !giving.looks.is_empty() => {
                    giving.stopped(gone, &self.evictions);
                    continue;
                }
                () = wait_until(due) => {}
                _ = ask_tick.tick(), if !moves.is_empty() => {
                    moves.destinations().into_iter().for_each(|to| asking.ask(&self.peers, to));
                    if !moves.expire(Instant::now()) {
                        continue;
                    }
                }
                Some((worker, running)) = asking.answers.next(), if !asking.asked.is_empty() => {
                    asking.asked.remove(&worker);
                    if !moves.run_there(worker, &running) {
                        continue;
                    }
                }
                Some(seen) = looking.looks.next(), if !looking.looks.is_empty() => {
                    let silent = seen.is_err();
                    if silent != core::mem::replace(&mut looking.is_silent, silent) {
                        self.included.send_modify(|_| {}); // whether anything can be placed here
                    }
                    if let Ok(seen) = &seen {
                        self.prove(&mut proving, seen);
                    }
                    self.observed(seen, &mut enforcing, &left_out);
                    if looking.again {
                        looking.look(&executor);
                    }
                    continue;
                }
                () = looks => {
                    looking.look(&executor);
                    continue;
                }
            }
            let since = Instant::now();
            // Before the state: contact comes after the last certificate that was missed.
            let at = *contact.borrow_and_update();
            let caught_up = at.is_some();
            let state = Arc::clone(&states.borrow_and_update());
            let now = Assigned::to(self.me, &state);
            let place = |&(job, replica): &Replica| Some(state.placement(job, replica)?.worker);
            let may_double = |(job, _): &Replica| {
                let kind = |body: &JobSpec| (body.kind == JobType::Service, body.lease);
                self.jobs.read(job, kind) == Some((true, LeasePolicy::Keep))
            };
            moves.follow(&assigned, &now, place, may_double, since);
            proving.follow(self.me, &state, since);
            // Before telemetry may claim to include the state: what was said of an earlier placement is no word
            // about this one.
            self.health.send_if_modified(|said| {
                *said = proving.said();
                false
            });
            record_slots(&now, assigned.slot, since, &mut enforcing);
            let view = self.views.current();
            let evictions = &*self.evictions;
            let giver = Giver { me, view: &view, executor: &executor, jobs: &self.jobs, evictions };
            giver.give_back(&now, &moves, (caught_up, &self.unsealing), may_double);
            let given_back = giving.done(self.evictions.due(unix_now()));
            self.renew_lease(at, now.is_lost);
            let (bodies, known) = self.look_up(&now, &mut certificates, &mut fetching).await;
            let contact_age = self.last_contact.age(Uptime::now());
            let opening = (&openings, since);
            self.unsealing.follow(now.here.keys(), &bodies, caught_up, opening);
            self.waiting.follow(&now.here, &bodies);
            let known = Known {
                assigned: &now,
                bodies: &bodies,
                certificates: known,
                caught_up,
                contact_age,
                moving: &moves,
                given_back: &given_back,
                allows: &|image| view.images.allow(image),
                contents: &|job| self.unsealing.contents(job),
                waits: &|replica| self.waiting.why(replica),
            };
            let Desired { replicas, keep, left_out: without, included, shortest_lease: shortest } =
                known.desired();
            (left_out, shortest_lease) = (without, shortest);
            contact_helps = !caught_up || !left_out.is_empty();
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
            tell(&self.included, &assigned, &now, included);
            assigned = now;
            looking.look(&executor);
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
                    suspended = report.suspended.len(),
                    ended = report.ended.len(),
                    failed = report.failed.len(),
                    "reconciled"
                );
                // What was stopped held room until now; what has ended is to be certified.
                if !report.stopped.is_empty() || !report.ended.is_empty() {
                    self.included.send_modify(|_| {});
                }
            }
            Err(error) => tracing::warn!(%error, "not reconciled; it is tried again"),
        }
    }

    /// "A worker that counts as lost renews nothing" (`leases.md`, 2), by a state that was read after the
    /// contact.
    fn renew_lease(&mut self, contact: Option<Uptime>, is_lost: bool) {
        let Some(at) = contact.filter(|_| !is_lost) else { return };
        if let Err(error) = self.last_contact.renew(at) {
            tracing::warn!(%error, "the last contact with the committee is not on disk; after a restart exclusive leases may end too early");
        }
    }

    /// Bodies and certificates of what is assigned here, as far as they are here; asks peers for the other
    /// bodies.
    async fn look_up<'a>(
        &self,
        assigned: &Assigned,
        certificates: &'a mut BTreeMap<Slot, KeccakDigest>,
        fetching: &mut Fetching,
    ) -> (BTreeMap<Blake3Digest, Arc<JobSpec>>, &'a BTreeMap<Slot, KeccakDigest>) {
        let slots: BTreeSet<_> = assigned.here.values().copied().collect();
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
                // The record is not kept any more, or was never here: the last certificate commits to the
                // state that says so too.
                Ok(Ok(None)) => {
                    certificates.insert(slot, self.epoch.ledger.state().last_certificate());
                }
                Err(_) => {} // the runtime is shutting down
            }
        }
        let mut bodies = BTreeMap::new();
        let jobs: BTreeSet<_> = assigned.here.keys().map(|(job, _)| *job).collect();
        for job in jobs {
            // A body is on disk since the job was placed, unless the data directory was lost.
            if let Some(body) = self.jobs.body(&job) {
                bodies.insert(job, Arc::new(body));
            } else if fetching.asked.insert(job) {
                let (peers, jobs) = (self.peers.clone(), Arc::clone(&self.jobs));
                fetching
                    .answers
                    .push(Box::pin(async move { (job, peers.job(&jobs, job).await.is_some()) }));
            }
        }
        (bodies, certificates)
    }

    /// Says how those fare that were placed here in updates.
    fn prove(&self, proving: &mut Proving, seen: &[ObservedReplica]) {
        let look = |&(job, replica): &Replica| {
            if self.waiting.why(&(job, replica)).is_some() {
                return Look::Held;
            }
            let of = seen.iter().find(|of| (of.id.job, of.id.replica) == (job, replica));
            of.filter(|of| of.claimed.is_some()).map_or(Look::Waits, Look::at)
        };
        let policy = |(job, _): &Replica| -> UpdatePolicy {
            self.jobs.read(job, |body: &JobSpec| body.update).unwrap_or_default()
        };
        if proving.look(look, policy, Instant::now()) {
            self.health.send_replace(proving.said());
        }
    }

    /// Notes what runs, and which slots are enforced with it.
    fn observed(
        &self,
        seen: Result<Vec<ObservedReplica>, DockerError>,
        enforcing: &mut BTreeMap<Slot, Enforcing>,
        left_out: &BTreeMap<Replica, Cow<'static, str>>,
    ) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "the containers cannot be observed");
                self.progress.stage("waiting for the Docker engine", [error.to_string()]);
                return;
            }
        };
        self.progress.takes_part("working", []);
        self.links.saw(&seen);
        self.waiting.started(&with_container(&seen));
        let mut links = statuses(&self.listeners);
        let mut observed: BTreeMap<Replica, Observed> = left_out
            .iter()
            .map(|(replica, why)| {
                let state = format!("left out: {why}");
                (*replica, Observed { state, ..Observed::default() })
            })
            .collect();
        let ended = self.executor.ended();
        let ended: BTreeSet<_> = ended.iter().map(EndedReplica::key).collect();
        // What has ended has run, whether or not a look saw it.
        let (mut running, mut serving) = (ended.clone(), BTreeSet::new());
        for replica in seen {
            let key = (replica.id.job, replica.id.replica);
            let runs = replica.observed == veil_node_containers::Observed::Running;
            if runs && replica.claimed.is_some() {
                running.insert(key);
                serving.insert(key);
            }
            let state = match &replica.error {
                None if replica.container.is_none() && ended.contains(&key) => {
                    "ended, its container is gone".to_owned()
                }
                Some(error) => format!("{replica}: {error}"),
                None => replica.to_string(),
            };
            let links = links.remove(&end(replica.id)).unwrap_or_default();
            let state = with_troubles(state, &links);
            observed.entry(key).or_insert(Observed {
                state,
                running: runs,
                container: replica.container,
                restarts: replica.restarts,
                exit_code: replica.last_exit.map(|exit| exit.code),
                out_of_memory: replica.last_exit.is_some_and(|exit| exit.out_of_memory),
                endpoints: endpoints(replica.endpoints),
                links,
            });
        }
        self.progress.observed(observed, serving);
        enforcing.retain(|slot, enforcing| {
            if !enforcing.replicas.is_subset(&running) {
                return true;
            }
            let seconds = enforcing.since.elapsed().as_secs_f64();
            tracing::info!(%slot, seconds, "all that it placed here runs, or has ended");
            self.progress.slot(*slot, |report| _ = report.phases.insert(Phase::Enforce, seconds));
            self.confirmer.spawn(*slot, enforcing.replicas.clone());
            false
        });
    }
}

/// For ever without a time.
async fn wait_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Takes down what the slots after `seen` have placed here.
fn record_slots(
    assigned: &Assigned,
    seen: Slot,
    since: Instant,
    enforcing: &mut BTreeMap<Slot, Enforcing>,
) {
    for (replica, slot) in assigned.here.iter().filter(|(_, slot)| **slot > seen) {
        let new = || Enforcing { since, replicas: BTreeSet::new() };
        enforcing.entry(*slot).or_insert_with(new).replicas.insert(*replica);
    }
    // What a later slot took away again needs not run.
    for slot in enforcing.values_mut() {
        slot.replicas.retain(|replica| assigned.here.contains_key(replica));
    }
    enforcing.retain(|_, slot| !slot.replicas.is_empty());
}
