//! Listeners of links, one for each link of each container.
//!
//! # State
//! A port that is bound as long as the link is there, and a listener beside it as long as the link leads somewhere: while
//! nothing listens the kernel refuses connections, and the rule that leads to the port need not change.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use socket2::SockRef;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use veil_protocol_spec::{
    Address,
    link::LinkEnd,
    scheduling::{Link, Name},
};

use crate::{
    choice::{Choice, Target},
    frame::LinkFailure,
    stream::Duplex,
};

/// For one replica to take a connection: its worker has as long for the first messages, and its program half of it.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections of one link at once.
const AT_ONCE: usize = 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// As sockets say it.
const NO_SUCH_DEVICE: i32 = 19;
/// After a failure of this machine to listen or to accept.
const AGAIN: Duration = Duration::from_secs(1);

/// A link of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOf {
    /// The replica that has it.
    pub from: LinkEnd,
    /// Whose job that is.
    pub operator: Address,
    /// As its body says.
    pub link: Link,
}

/// Why a link leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// Nobody knows such a job.
    #[error("there is no job `{0}` of this account: submit it")]
    NoJob(Name),
    /// No replica has a place.
    #[error("no replica of `{0}` has a place yet: `veil job status` says what it waits for")]
    NotPlaced(Name),
    /// It has no such port.
    #[error("job `{job}` has no TCP port `{port}`: give it a [[port]] of that name")]
    NoPort {
        /// The job.
        job: Name,
        /// What the link calls the port.
        port: Name,
    },
}

/// Where links lead, and the way there.
pub trait Directory: Send + Sync + 'static {
    /// The replicas that a link leads to now; never none.
    ///
    /// # Errors
    /// [`Nowhere`].
    fn targets(&self, of: &LinkOf) -> Result<Vec<Target>, Nowhere>;

    /// A connection to one of them.
    fn connect(
        &self,
        of: &LinkOf,
        to: Target,
    ) -> BoxFuture<'static, Result<Box<dyn Duplex>, LinkFailure>>;

    /// Changes when the targets of links may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Which.
    pub of: LinkOf,
    /// Why connections are refused at the moment, if they are.
    pub trouble: Option<String>,
    /// Connections that a replica has taken.
    pub carried: u64,
    /// Connections that none has.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    trouble: Option<String>,
    carried: u64,
    failed: u64,
}

/// Whether a connection was on its way to that address.
type WasTo = fn(&TcpStream, SocketAddrV4) -> bool;

/// By the kernel's word: "the worker drops each connection that the kernel does not say to have been redirected from that
/// very address and number".
fn was_redirected(stream: &TcpStream, from: SocketAddrV4) -> bool {
    let original = SockRef::from(stream).original_dst_v4();
    original.is_ok_and(|original| original.as_socket_ipv4() == Some(from))
}

/// All links of this worker's containers.
pub struct Listeners {
    directory: Arc<dyn Directory>,
    was_to: WasTo,
    open: Mutex<BTreeMap<(LinkEnd, usize), Open>>,
}

impl core::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

struct Open {
    of: LinkOf,
    bridge: String,
    /// The system's number of it: an interface of the same name may be another by now.
    interface: u32,
    at: SocketAddrV4,
    port: u16,
    counts: Arc<Mutex<Counts>>,
    _task: AbortOnDropHandle<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// None yet.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>) -> Self {
        Self { directory, was_to: was_redirected, open: Mutex::default() }
    }

    /// The port of this machine to which connections from `bridge` to `at` are to be redirected, for the link of this
    /// index. The same one as before, if nothing has changed.
    ///
    /// # Errors
    /// What the system says, such as that there is no such interface.
    pub fn listen(
        &self,
        of: LinkOf,
        index: usize,
        bridge: &str,
        at: SocketAddrV4,
    ) -> io::Result<u16> {
        let mut open = locked(&self.open);
        let (key, interface) = ((of.from, index), interface(bridge)?);
        if let Some(known) = open.get(&key)
            && (&known.of, known.bridge.as_str(), known.interface, known.at)
                == (&of, bridge, interface, at)
        {
            return Ok(known.port);
        }
        let kept = bound(bridge, 0)?;
        let port = kept.local_addr()?.port();
        let counts = Arc::new(Mutex::new(Counts::default()));
        let task = Task {
            directory: Arc::clone(&self.directory),
            was_to: self.was_to,
            of: of.clone(),
            bridge: bridge.to_owned(),
            at,
            port,
            counts: Arc::clone(&counts),
            choice: Mutex::default(),
            failed: Notify::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            _kept: kept,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(Arc::new(task).run()));
        let bridge = bridge.to_owned();
        open.insert(key, Open { of, bridge, interface, at, port, counts, _task: task });
        Ok(port)
    }

    /// Ends the links of containers that are not to be kept, with their connections.
    pub fn retain(&self, keep: impl Fn(&LinkEnd) -> bool) {
        locked(&self.open).retain(|(from, _), _| keep(from));
    }

    /// How they all are.
    #[must_use]
    pub fn states(&self) -> Vec<LinkState> {
        let open = locked(&self.open);
        let state = |open: &Open| {
            let Counts { trouble, carried, failed } = &*locked(&open.counts);
            let (trouble, of) = (trouble.clone(), open.of.clone());
            LinkState { of, trouble, carried: *carried, failed: *failed }
        };
        open.values().map(state).collect()
    }
}

/// The number of an interface.
fn interface(name: &str) -> io::Result<u32> {
    let number = fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex"));
    let number = number.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::from_raw_os_error(NO_SUCH_DEVICE),
        _ => error,
    });
    number?.trim().parse().map_err(io::Error::other)
}

/// A socket on all addresses that only this interface reaches; without listening it refuses.
fn bound(bridge: &str, port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    // The one that keeps the port and the one that listens there.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(socket)
}

/// One link.
struct Task {
    directory: Arc<dyn Directory>,
    was_to: WasTo,
    of: LinkOf,
    bridge: String,
    at: SocketAddrV4,
    port: u16,
    counts: Arc<Mutex<Counts>>,
    choice: Mutex<Choice>,
    /// A replica has refused.
    failed: Notify,
    at_once: Arc<Semaphore>,
    _kept: TcpSocket,
}

/// Until when a link is closed, if that is known.
struct Closed(Option<Instant>);

impl Task {
    async fn run(self: Arc<Self>) {
        let mut changes = self.directory.changes();
        let mut carrying = JoinSet::new();
        loop {
            changes.mark_unchanged();
            let Err(Closed(until)) = self.look() else {
                if let Err(error) = self.serve(&mut changes, &mut carrying).await {
                    self.note(Some(format!("this worker cannot listen for it: {error}")));
                    sleep(AGAIN).await;
                }
                continue;
            };
            let over = async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = over => {}
                Some(_) = carrying.join_next() => {}
            }
        }
    }

    /// Accepts for as long as the link leads somewhere.
    async fn serve(
        self: &Arc<Self>,
        changes: &mut watch::Receiver<u64>,
        carrying: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let listener: TcpListener = bound(&self.bridge, self.port)?.listen(BACKLOG)?;
        loop {
            tokio::select! {
                accepted = listener.accept() => self.accepted(accepted?.0, carrying),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = self.failed.notified() => {}
                Some(_) = carrying.join_next() => continue,
            }
            if self.look().is_err() {
                return Ok(());
            }
        }
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, carrying: &mut JoinSet<()>) {
        if !(self.was_to)(&stream, self.at) {
            tracing::warn!(port = self.port, "a connection that no container made was dropped");
            return;
        }
        match Arc::clone(&self.at_once).try_acquire_owned() {
            Ok(permit) => drop(carrying.spawn(Arc::clone(self).carry(stream, permit))),
            Err(_) => self.give_up(&stream),
        }
    }

    fn note(&self, trouble: Option<String>) {
        let mut counts = locked(&self.counts);
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != counts.trouble) {
            let (link, job) = (self.of.link.address().to_string(), &self.of.from.job);
            tracing::info!(%job, link, "refused from now on: {trouble}");
        }
        counts.trouble = trouble;
    }

    /// Where the link leads, or that it is closed; says why.
    fn look(&self) -> Result<Vec<Target>, Closed> {
        let targets = match self.directory.targets(&self.of) {
            Ok(targets) => targets,
            Err(nowhere) => {
                self.note(Some(nowhere.to_string()));
                return Err(Closed(None));
            }
        };
        let mut choice = locked(&self.choice);
        choice.follow(&targets);
        match choice.all_pause(&targets, Instant::now()) {
            Some((until, why)) => {
                let (job, count) = (&self.of.link.job, targets.len());
                self.note(Some(match count {
                    1 => format!("the only replica of `{job}` does not take connections: {why}"),
                    _ => {
                        format!("none of the {count} replicas of `{job}` takes connections: {why}")
                    }
                }));
                Err(Closed(Some(until)))
            }
            None => {
                self.note(None);
                Ok(targets)
            }
        }
    }

    async fn carry(self: Arc<Self>, mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let Some(mut far) = self.reach().await else {
            self.give_up(&stream);
            return;
        };
        locked(&self.counts).carried += 1;
        let _ = stream.set_nodelay(true); // the programs decide what belongs together
        // How a connection ends is its programs' concern.
        let _ = copy_bidirectional(&mut stream, &mut far).await;
    }

    /// The first replica that takes a connection.
    async fn reach(&self) -> Option<Box<dyn Duplex>> {
        let targets = self.look().ok()?;
        let order = locked(&self.choice).order(&targets, Instant::now());
        for target in order {
            let failure = match timeout(CONNECT, self.directory.connect(&self.of, target)).await {
                Ok(Ok(far)) => {
                    locked(&self.choice).succeeded(&target);
                    return Some(far);
                }
                Ok(Err(failure)) => failure,
                Err(_) => LinkFailure::Silent,
            };
            tracing::debug!(worker = %target.worker, %failure, "the next replica is tried");
            locked(&self.choice).failed(target, Instant::now(), failure.to_string());
            self.failed.notify_one();
        }
        None
    }

    /// The program sees a reset, not an end.
    fn give_up(&self, stream: &TcpStream) {
        locked(&self.counts).failed += 1;
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests;
