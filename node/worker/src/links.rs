//! Links of this worker's containers, and of other workers' to what runs here (`links.md`).
//!
//! # Flow
//! 1. [`Links::follow`] keeps up what the [names] of jobs mean, by the newest certificate and the bodies that are known.
//! 2. For a connection of a container, a stream of a session with the worker that has the replica is opened; with this
//!    worker itself, too: the same is checked.
//! 3. [`Links::serve`] answers the streams of other workers.
//! 4. What a job waits for before it starts is asked for in the same way ([waiting]).
//!
//! # State and restart
//! One session with each worker that something here was linked to, as long as it lasts. A restart begins with none.

mod moved;
mod names;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use veil_node_api::status::LinkStatus;
use veil_node_containers::{
    Carry, Executor, LinkPoint, Observed, ObservedReplica, ReachError, ReplicaId,
};
use veil_node_core::epoch::ActiveEpoch;
use veil_node_links::{
    Directory, Duplex, Facts, Granted, LinkFailure, LinkOf, Listeners, Nowhere, Target, answer,
    connect, judge, state,
};
use veil_node_p2p::{ByteStream, End, IncomingStream, Network, Session, StreamKind};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    PeerIdHash,
    link::{LinkEnd, LinkRefusal, LinkRequest, LinkWish, ReplicaCondition},
};

pub(crate) use self::waiting::Waiting;

use self::{
    moved::Moved,
    names::{Listed, Names},
};

/// Between two looks at the names of jobs without a new certificate: bodies come by gossip.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Connections of other workers that are carried at once.
const AT_ONCE: usize = 4096;
/// Name of what is refused in counters.
const PROTOCOL: &str = "link";

/// See the [module documentation](self).
pub(crate) struct Links {
    me: PeerIdHash,
    network: Network,
    jobs: Arc<Jobs>,
    epoch: Arc<ActiveEpoch>,
    names: Mutex<Names>,
    /// Counts the changes of `names`.
    changed: watch::Sender<u64>,
    moved: Mutex<Moved>,
    /// How the containers here are, as they were last seen.
    seen: Mutex<BTreeMap<LinkEnd, ReplicaCondition>>,
    /// One with each worker, from its first use on; whoever opens another one waits for nobody else.
    sessions: Mutex<BTreeMap<PeerIdHash, Arc<Slot>>>,
}

/// Dropping a session ends its streams: it is replaced only once it is over.
type Slot = tokio::sync::Mutex<Option<Session>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const fn end(id: ReplicaId) -> LinkEnd {
    LinkEnd { job: id.job, replica: id.replica }
}

impl Links {
    pub(crate) fn new(
        me: PeerIdHash,
        network: Network,
        jobs: Arc<Jobs>,
        epoch: Arc<ActiveEpoch>,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            network,
            jobs,
            epoch,
            names: Mutex::default(),
            changed: watch::channel(0).0,
            moved: Mutex::default(),
            seen: Mutex::default(),
            sessions: Mutex::default(),
        })
    }

    /// Until it is dropped.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut states = self.epoch.ledger.subscribe();
        let mut tick = interval(FOLLOW_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.renew_names();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
        }
    }

    fn renew_names(&self) {
        let state = self.epoch.ledger.state();
        let lines = state.lines_by_job();
        let mut moved = locked(&self.moved);
        moved.follow(&state, Instant::now());
        let placed = |job: &_| {
            let target = |replica| {
                let worker = state.placement(*job, replica)?.worker;
                let replica = LinkEnd { job: *job, replica };
                let now = Target { is_former: false, replica, worker };
                Some([Some(now), moved.former(&replica)].into_iter().flatten())
            };
            state.replicas_of(*job).filter_map(target).flatten().collect()
        };
        let is_current = |job: &_| lines.get(job).is_some_and(|line| line.is_current(job));
        let names = Names::of(self.jobs.wanted(Listed::of), placed, is_current);
        let mut known = locked(&self.names);
        if *known != names {
            *known = names;
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// What the engine has said of the containers here.
    pub(crate) fn saw(&self, seen: &[ObservedReplica]) {
        let conditions = seen.iter().filter_map(|of| {
            let running =
                matches!(of.observed, Observed::Running | Observed::Starting | Observed::Unhealthy);
            let healthy = of.observed == Observed::Running;
            of.container.is_some().then_some((end(of.id), ReplicaCondition { running, healthy }))
        });
        *locked(&self.seen) = conditions.collect();
    }

    /// A stream to a worker, in the session that there is or a new one.
    async fn open(&self, worker: PeerIdHash) -> Result<ByteStream, LinkFailure> {
        let unreachable =
            |error: &dyn core::fmt::Display| LinkFailure::Unreachable(error.to_string());
        let slot = Arc::clone(locked(&self.sessions).entry(worker).or_default());
        let mut slot = slot.lock().await;
        if let Some(session) = &*slot
            && let Ok(stream) = session.opener.open().await
        {
            return Ok(stream);
        }
        let stream = self.network.open_stream(worker, StreamKind::Link).await;
        let stream = stream.map_err(|error| unreachable(&error))?;
        let session = slot.insert(Session::direct(stream, worker, End::Begins));
        session.opener.open().await.map_err(|error| unreachable(&error))
    }

    /// How a replica is, as its worker says to `from`, which waits for it.
    async fn condition(
        &self,
        from: LinkEnd,
        target: Target,
    ) -> Result<ReplicaCondition, LinkFailure> {
        let stream = self.open(target.worker).await?;
        state(stream, &LinkRequest { from, to: target.replica, wish: LinkWish::State }).await
    }

    /// Answers the streams of workers, this one among them, until it is dropped.
    pub(crate) async fn serve(
        self: Arc<Self>,
        executor: Arc<Executor>,
        mut sessions: mpsc::Receiver<IncomingStream>,
    ) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut serving = JoinSet::new();
        loop {
            tokio::select! {
                opened = sessions.recv() => match opened {
                    Some(IncomingStream { from, stream }) => {
                        let session = Session::direct(stream, from, End::Answers);
                        let (links, executor) = (Arc::clone(&self), Arc::clone(&executor));
                        serving.spawn(links.serve_session(executor, session, Arc::clone(&at_once)));
                    }
                    None => return,
                },
                Some(_) = serving.join_next() => {}
            }
        }
    }

    async fn serve_session(
        self: Arc<Self>,
        executor: Arc<Executor>,
        mut session: Session,
        at_once: Arc<Semaphore>,
    ) {
        let mut carrying = JoinSet::new();
        loop {
            tokio::select! {
                opened = session.incoming.recv() => match opened {
                    Some(stream) => {
                        let (links, executor) = (Arc::clone(&self), Arc::clone(&executor));
                        let (peer, permit) = (session.peer, Arc::clone(&at_once).try_acquire_owned());
                        carrying.spawn(async move {
                            links.answer(peer, &executor, stream, permit.is_ok()).await;
                            drop(permit);
                        });
                    }
                    None => return,
                },
                Some(_) = carrying.join_next() => {}
            }
        }
    }

    async fn answer(
        &self,
        asking: PeerIdHash,
        executor: &Arc<Executor>,
        stream: ByteStream,
        has_room: bool,
    ) {
        let decide = |request: &LinkRequest| {
            if has_room { self.judge(asking, request) } else { Err(LinkRefusal::Busy) }
        };
        let open = |request: &LinkRequest, port| -> BoxFuture<'static, Result<TcpStream, _>> {
            let (executor, to) = (Arc::clone(executor), request.to);
            Box::pin(async move {
                let id = ReplicaId { job: to.job, replica: to.replica };
                executor.connect(&id, port).await.map_err(|error| match error {
                    ReachError::NothingListens => LinkRefusal::NotListening,
                    ReachError::NoContainer | ReachError::NotRunning | ReachError::Engine(_) => {
                        LinkRefusal::NotRunning
                    }
                })
            })
        };
        match answer(stream, decide, open).await {
            Ok(None) => {}
            Ok(Some(refusal)) => {
                tracing::debug!(worker = %asking, %refusal, "a link was refused");
                self.network.metrics().refuse(PROTOCOL, refusal.name());
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(worker = %asking, %error, "no link's request");
                self.network.metrics().refuse(PROTOCOL, "malformed");
            }
            Err(error) => tracing::debug!(worker = %asking, %error, "a link broke off"),
        }
    }

    fn judge(&self, asking: PeerIdHash, request: &LinkRequest) -> Result<Granted, LinkRefusal> {
        let state = self.epoch.ledger.state();
        let place = |end: &LinkEnd| Some(state.placement(end.job, end.replica)?.worker);
        let (from, to) = (self.jobs.body(&request.from.job), self.jobs.body(&request.to.job));
        let condition = locked(&self.seen).get(&request.to).copied();
        let facts =
            Facts { me: self.me, place: &place, from: from.as_ref(), to: to.as_ref(), condition };
        judge(asking, request, &facts)
    }
}

/// The way to replicas, for the listeners.
pub(crate) struct Ways(pub(crate) Arc<Links>);

impl Directory for Ways {
    fn targets(&self, of: &LinkOf) -> Result<Vec<Target>, Nowhere> {
        locked(&self.0.names).targets(of)
    }

    fn connect(
        &self,
        of: &LinkOf,
        to: Target,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, LinkFailure>> {
        let wish = LinkWish::Connect(of.link.port.clone());
        let request = LinkRequest { from: of.from, to: to.replica, wish };
        let links = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = links.open(to.worker).await?;
            let connected = connect(stream, &request).await?;
            Ok(Box::new(connected) as Box<dyn Duplex>)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

/// The listeners, as the executor wants them.
pub(crate) struct Carrier(pub(crate) Arc<Listeners>);

impl Carry for Carrier {
    fn listen(&self, point: &LinkPoint) -> io::Result<u16> {
        let LinkPoint { of, spec, index, bridge, at } = point;
        let link = spec.links.get(*index).cloned().ok_or(io::ErrorKind::InvalidInput)?;
        let of = LinkOf { from: end(*of), operator: spec.operator, link };
        self.0.listen(of, *index, bridge, *at)
    }

    fn retain(&self, keep: &dyn Fn(&ReplicaId) -> bool) {
        self.0.retain(|from| keep(&ReplicaId { job: from.job, replica: from.replica }));
    }
}

/// How the links of each replica are.
pub(crate) fn statuses(listeners: &Listeners) -> BTreeMap<LinkEnd, Vec<LinkStatus>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for state in listeners.states() {
        let link = &state.of.link;
        all.entry(state.of.from).or_default().push(LinkStatus {
            address: link.address().to_string(),
            job: link.job.clone(),
            port: link.port.clone(),
            trouble: state.trouble,
            carried: state.carried,
            failed: state.failed,
        });
    }
    all
}

/// The state of a replica, with what its links have to say.
pub(crate) fn with_troubles(state: String, links: &[LinkStatus]) -> String {
    let troubles = links.iter().filter_map(|link| Some((&link.address, link.trouble.as_ref()?)));
    troubles.fold(state, |state, (address, trouble)| {
        format!("{state}; link {address} is refused: {trouble}")
    })
}

/// Replicas that have a container.
pub(crate) fn with_container(seen: &[ObservedReplica]) -> BTreeSet<LinkEnd> {
    seen.iter().filter(|of| of.container.is_some()).map(|of| end(of.id)).collect()
}
