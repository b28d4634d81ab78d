//! Both ends of sessions, over streams in memory: who is let in, what is served, and how it ends.

mod authorising;
mod figures;
mod serving;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use veil_node_chain::AccountKey;
use veil_node_containers::{
    DockerError, Found, LogPart, LogParts, LogRange, ReachError, ReplicaId,
};
use veil_node_p2p::{ByteStream, IncomingStream};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, PeerIdHash, ReplicaIndex,
    identity::SecretIdentity,
    reach::{Action, Endpoints, PortEndpoint},
    registry::Delegation,
    scheduling::{ClusterScope, HostPort, Name, Port, Protocol, Submission},
};

use crate::{Command, Host, Place, Ran, ReachFailure, Reached, Server, Signer, World, reach};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const JOB: Blake3Digest = Blake3Digest([7; 32]);
pub(crate) const REPLICA: ReplicaIndex = ReplicaIndex(2);

pub(crate) fn scope(cluster: u8) -> ClusterScope {
    let cluster = ClusterId([cluster; 32]);
    ClusterScope { chain_id: ChainId(31_337), contract: Address([1; 20]), cluster }
}

pub(crate) fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

pub(crate) fn peer(byte: u8) -> PeerIdHash {
    PeerIdHash::of(&secret(byte).public())
}

pub(crate) fn key(byte: u8) -> AccountKey {
    AccountKey::from_bytes(&[byte; 32]).unwrap()
}

/// What the worker of the tests, of identity 1, knows: one job of the account of key 1.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: u64,
    pub(crate) submission: Option<Submission>,
    pub(crate) place: Place,
    pub(crate) exec: bool,
    /// Of key 2.
    pub(crate) delegation: Result<Delegation, String>,
}

impl Default for Facts {
    fn default() -> Self {
        let operator = key(1).address();
        let submission =
            Submission { position: 0, job: JOB, operator, leak_bits: 0, cancelled: false };
        let delegation = Ok(Delegation::Until(u64::MAX));
        Self { now: NOW, submission: Some(submission), place: Place::Here, exec: true, delegation }
    }
}

pub(crate) struct TestWorld(pub(crate) watch::Sender<Facts>);

impl TestWorld {
    pub(crate) fn new(facts: Facts) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(facts)))
    }
}

#[async_trait]
impl World for TestWorld {
    fn scope(&self) -> ClusterScope {
        scope(1)
    }

    fn me(&self) -> PeerIdHash {
        peer(1)
    }

    fn now(&self) -> u64 {
        match self.0.borrow().now {
            // The client's clock is the machine's.
            0 => veil_node_process::unix_now().0 / 1000,
            now => now,
        }
    }

    fn submission(&self, job: &Blake3Digest) -> Option<Submission> {
        self.0.borrow().submission.filter(|of| of.job == *job)
    }

    fn place(&self, _: Blake3Digest, replica: ReplicaIndex) -> Place {
        if replica == REPLICA { self.0.borrow().place } else { Place::Elsewhere }
    }

    fn port(&self, _: &Blake3Digest, name: &Name) -> Option<Port> {
        let protocol = match name.as_str() {
            "http" => Protocol::Tcp,
            "dns" => Protocol::Udp,
            _ => return None,
        };
        let container = 8080.try_into().unwrap();
        Some(Port { name: name.clone(), container, protocol, host: HostPort::None })
    }

    fn endpoints(&self, _: &Blake3Digest, _: ReplicaIndex) -> Endpoints {
        let port = PortEndpoint {
            name: "http".parse().unwrap(),
            container: 8080.try_into().unwrap(),
            protocol: Protocol::Tcp,
            published: None,
        };
        Endpoints { state: "running".to_owned(), running: true, ports: vec![port] }
    }

    fn allows_exec(&self) -> bool {
        self.0.borrow().exec
    }

    async fn delegation(&self, operator: Address, account: Address) -> Result<Delegation, String> {
        assert_eq!((operator, account), (key(1).address(), key(2).address()));
        self.0.borrow().delegation.clone()
    }

    async fn changed(&self) {
        let mut facts = self.0.subscribe();
        facts.mark_unchanged();
        facts.changed().await.unwrap();
    }
}

/// A host with one container, whose runs, and what each wrote, are told beforehand.
#[derive(Default)]
pub(crate) struct TestHost {
    /// When a run began, whether it goes on, and its log; the first is the current one.
    pub(crate) runs: Mutex<VecDeque<(String, bool, Vec<LogPart>)>>,
    pub(crate) ranges: Mutex<Vec<(u64, Option<u32>)>>,
    /// What connections lead to.
    pub(crate) listens: Option<SocketAddr>,
    pub(crate) resized: Arc<Mutex<Vec<(u16, u16)>>>,
    pub(crate) commands: Mutex<Vec<Vec<String>>>,
    /// How many commands were ended.
    pub(crate) ended: watch::Sender<u32>,
    /// What a log that goes on says later, if anything.
    pub(crate) live: Mutex<Option<mpsc::Receiver<LogPart>>>,
    /// Ended when whoever reads a log that goes on is gone.
    pub(crate) reading: Arc<()>,
}

pub(crate) fn line(time: u64, text: &str) -> LogPart {
    LogPart { time, is_error: false, bytes: Bytes::from(format!("{text}\n")) }
}

/// A command: how its terminal was resized, and how often it was ended.
pub(crate) struct Ends(Arc<Mutex<Vec<(u16, u16)>>>, watch::Sender<u32>);

#[async_trait]
impl Command for Ends {
    async fn resize(&self, size: (u16, u16)) -> Result<(), DockerError> {
        self.0.lock().unwrap().push(size);
        Ok(())
    }

    async fn exit_code(&self) -> Result<Option<i64>, DockerError> {
        Ok(Some(42))
    }

    async fn end(&self) {
        self.1.send_modify(|ended| *ended += 1);
    }
}

#[async_trait]
impl Host for TestHost {
    async fn find(&self, id: &ReplicaId) -> Result<Option<Found>, DockerError> {
        assert_eq!((id.job, id.replica), (JOB, REPLICA));
        let mut runs = self.runs.lock().unwrap();
        let Some((started, running, _)) = runs.front().cloned() else { return Ok(None) };
        if !running && runs.len() > 1 {
            // The next look finds the next run.
            let (_, _, log) = &mut runs[0];
            if log.is_empty() {
                runs.pop_front();
            }
        }
        Ok(Some(Found::new("container".to_owned(), started, running)))
    }

    fn logs(&self, container: &str, range: LogRange) -> LogParts {
        assert_eq!(container, "container");
        self.ranges.lock().unwrap().push((range.since_seconds, range.tail));
        let mut runs = self.runs.lock().unwrap();
        let (_, running, log) = &mut runs[0];
        let parts = stream::iter(core::mem::take(log).into_iter().map(Ok));
        if let Some(live) = self.live.lock().unwrap().take() {
            let live = stream::unfold(live, async |mut live| Some((Ok(live.recv().await?), live)));
            return Box::pin(parts.chain(live));
        }
        if *running && range.follow {
            let reading = Arc::clone(&self.reading);
            let for_ever = stream::once(async move {
                let _reading = reading;
                std::future::pending().await
            });
            return Box::pin(parts.chain(for_ever));
        }
        Box::pin(parts)
    }

    async fn exec(
        &self,
        _: &str,
        command: Vec<String>,
        input: bool,
        _: Option<(u16, u16)>,
    ) -> Result<Ran, DockerError> {
        assert!(input);
        self.commands.lock().unwrap().push(command);
        // Repeats what it reads, until there is no more.
        let (near, far) = duplex(1024);
        let (mut reads, writes) = tokio::io::split(far);
        let (said, output) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = reads.read(&mut buffer).await {
                let said = said.send(Ok((false, Bytes::copy_from_slice(&buffer[..read])))).await;
                if said.is_err() {
                    return;
                }
            }
            let _ = said.send(Ok((true, Bytes::from_static(b"over")))).await;
            drop(writes);
        });
        let output = Box::pin(stream::unfold(output, async |mut output| {
            Some((output.recv().await?, output))
        }));
        let command = Arc::new(Ends(self.resized.clone(), self.ended.clone()));
        Ok(Ran { input: Box::pin(near), output, command })
    }

    async fn connect(&self, _: &ReplicaId, port: u16) -> Result<TcpStream, ReachError> {
        assert_eq!(port, 8080);
        let listens = self.listens.ok_or(ReachError::NothingListens)?;
        Ok(TcpStream::connect(listens).await.unwrap())
    }
}

pub(crate) struct Worker {
    pub(crate) world: Arc<TestWorld>,
    pub(crate) host: Arc<TestHost>,
    pub(crate) metrics: Metrics,
    streams: mpsc::Sender<IncomingStream>,
    _serving: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(host: TestHost) -> Self {
        let world = TestWorld::new(Facts { now: 0, ..Facts::default() });
        let (host, metrics) = (Arc::new(host), Metrics::default());
        let (streams, incoming) = mpsc::channel(8);
        let server = Server::new(world.clone(), host.clone(), secret(1), metrics.clone());
        Self { world, host, metrics, streams, _serving: tokio::spawn(server.run(incoming)) }
    }

    /// A stream to it, as an entry node opens it.
    pub(crate) async fn stream(&self) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        let stream = ByteStream::new(far);
        self.streams.send(IncomingStream { from: peer(9), stream }).await.unwrap();
        near
    }

    pub(crate) async fn reach(&self, by: u8, action: Action) -> Result<Reached, ReachFailure> {
        let signer = signer(by);
        reach(self.stream().await, &signer, peer(1), (JOB, REPLICA), action).await
    }

    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.metrics.refusals().remove("reach").unwrap_or_default()
    }
}

pub(crate) fn signer(by: u8) -> Signer {
    let key = key(by);
    Signer {
        scope: scope(1),
        account: key.address(),
        operator: self::key(1).address(),
        sign: Arc::new(move |digest| key.sign(digest).map_err(|error| error.to_string())),
    }
}

/// Everything that comes until the end.
pub(crate) async fn rest(mut stream: ByteStream) -> Vec<u8> {
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}
