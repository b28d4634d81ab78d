//! Starts the tasks of a network.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    multiaddr::Protocol as Part,
    ping,
    swarm::SwarmEvent,
};
use socket2::{Domain, Socket, Type};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use veil_protocol_spec::PeerIdHash;

use super::{Actor, Behaviour, links::Links};
use crate::{
    address::told,
    admission::Admission,
    blob::{self, Blobs},
    config::NetworkConfig,
    dialer::Dialer,
    directory::Directory,
    error::NetworkError,
    gate::{Gate, split_peer},
    gossip, identity,
    kind::{Lane, scope_tag},
    measure::Measured,
    network::{Inner, Network},
    request,
    round_trips::RoundTrips,
    stream::Streams,
    swim::{self, Liveness},
    traffic::Counters,
    transport::tcp,
};

/// How long it may take to bind the listen addresses.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);
/// A listener on all addresses of the machine reports them one by one: those that come no later than this after
/// another are told to peers.
const MORE_ADDRESSES: Duration = Duration::from_millis(200);
/// How long that is waited for at most.
const ALL_ADDRESSES: Duration = Duration::from_secs(2);
/// Idle connections stay open; SWIM and the transports notice when one is dead.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Between two pings of a connection: how old the last sign of life of a healthy peer may be.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Simultaneous dials make two; a restart of either side adds one each.
const CONNECTIONS_PER_PEER: u32 = 4;
/// SWIM messages that wait for the membership task; further ones are lost, as SWIM expects.
const SWIM_QUEUE: usize = 1024;

fn swarm(
    config: &NetworkConfig,
    directory: &Directory,
    topics: &gossip::Topics,
    admission: &Admission,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let transport = |error: &dyn core::fmt::Display| NetworkError::Transport(error.to_string());
    let key = identity::keypair(&config.identity).ok_or(NetworkError::Identity)?;
    let bootstrap = config
        .bootstrap
        .iter()
        .map(|address| split_peer(address).ok_or_else(|| NetworkError::Bootstrap(address.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let me = key.public().to_peer_id();
    let mut gate = Gate::new(me, bootstrap, config.limits.half_open_per_address);
    gate.update(directory);
    admission.update(directory);
    let scope = scope_tag(&config.scope);
    let limits = ConnectionLimits::default()
        .with_max_established(Some(config.limits.connections))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
        .with_max_pending_incoming(Some(config.limits.half_open));
    let behaviour = Behaviour {
        gate,
        limits: connection_limits::Behaviour::new(limits),
        gossip: gossip::behaviour(&key, &scope, topics, directory.len())?,
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        requests: request::behaviour(&scope, Lane::Bulk, admission.clone()),
        swim: request::behaviour(&scope, Lane::Swim, admission.clone()),
        streams: libp2p_stream::Behaviour::new(),
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_quic()
        .with_other_transport(|key| Ok(tcp(key)?))
        .map_err(|e| transport(&e))?
        .with_dns()
        .map_err(|e| transport(&e))?
        .with_bandwidth_metrics(&mut config.metrics.registry())
        .with_behaviour(|_| behaviour)
        .map_err(|e| transport(&e))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT))
        .build();
    Ok(swarm)
}

impl Network {
    /// Starts listening and joins the cluster through the bootstrap peers. Returns when all listen
    /// addresses are bound; connections follow on their own.
    ///
    /// # Errors
    /// [`NetworkError`] if an address, the identity or a bootstrap address is invalid.
    #[boxed]
    pub async fn start(
        config: NetworkConfig,
        directory: watch::Receiver<Arc<Directory>>,
    ) -> Result<Self, NetworkError> {
        let scope = scope_tag(&config.scope);
        let topics = gossip::Topics::new(&scope);
        let now = directory.borrow().clone();
        let admission = Admission::new(config.limits.rates.clone());
        let swarm = swarm(&config, &now, &topics, &admission)?;
        let streams = swarm.behaviour().streams.new_control();
        let peer_id = *swarm.local_peer_id();

        let counters = Counters::default();
        let round_trips = RoundTrips::default();
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (to_swim, swim_queue) = mpsc::channel(SWIM_QUEUE);
        let (connected_sender, connected) = watch::channel(BTreeSet::new());
        let (address_sender, addresses) = watch::channel(Vec::new());
        let (liveness_sender, liveness) = watch::channel(Liveness::default());
        let mut actor = Actor {
            swarm,
            topics,
            admission: admission.clone(),
            metrics: config.metrics.clone(),
            directory: directory.clone(),
            commands: command_queue,
            commands_back: commands.clone(),
            to_swim: to_swim.clone(),
            subscribers: HashMap::new(),
            servers: HashMap::new(),
            pending: HashMap::new(),
            lanes: HashMap::new(),
            links: Links::default(),
            shunned_by: BTreeSet::new(),
            dialer: Dialer::default(),
            connected: connected_sender,
            addresses: address_sender,
            counters: counters.clone(),
            round_trips: round_trips.clone(),
            last_refusal_log: None,
        };
        actor.listen(&config.listen).await?;

        let announced = if config.announce.is_empty() {
            told(addresses.borrow().clone())
        } else {
            config.announce.clone()
        };
        // A membership record already names its peer.
        let announced: Vec<Multiaddr> = announced
            .into_iter()
            .map(|address| split_peer(&address).map_or(address, |(_, address)| address))
            .collect();
        let membership = swim::Start {
            identity: config.identity.clone(),
            scope: scope.clone(),
            addresses: announced,
            config: config.swim,
            directory: directory.clone(),
            connected: connected.clone(),
            commands: commands.clone(),
            liveness: liveness_sender,
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let admitting = (admission.clone(), commands.clone());
        let opening = Streams::new(&scope, streams.clone(), admitting, config.limits.streams);
        let serving = blob::Serving {
            admission,
            commands: commands.clone(),
            at_once: Arc::new(Semaphore::new(config.limits.blob_serves)),
        };
        let blobs = Blobs::new(&scope, streams, counters.clone(), serving);
        Measured {
            counters: counters.clone(),
            liveness: liveness.clone(),
            connected: connected.clone(),
        }
        .register(&config.metrics);
        tasks.spawn(swim::run(membership, swim_queue, stop.clone()));
        blobs.serve(&tasks, &stop);
        tasks.spawn(actor.run(stop.clone()));
        tasks.close();

        let inner = Inner {
            me: PeerIdHash::of(&config.identity.public()),
            peer_id,
            commands,
            swim: to_swim,
            liveness,
            connected,
            addresses,
            directory,
            counters,
            round_trips,
            metrics: config.metrics,
            blobs,
            streams: Arc::new(opening),
            queue: config.limits.queue.max(1),
            tasks,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        let network = Self { inner: Arc::new(inner) };
        tracing::info!(me = %network.me(), id = %peer_id, "the network is up");
        Ok(network)
    }
}

impl Actor {
    /// Binds all addresses. Returns when each listener has reported one.
    async fn listen(&mut self, listen: &[Multiaddr]) -> Result<(), NetworkError> {
        let failed = |address: &Multiaddr, reason: String| NetworkError::Listen {
            address: address.clone(),
            reason,
        };
        let mut waiting = HashMap::new();
        for address in listen {
            check_port(address).map_err(|e| failed(address, e.to_string()))?;
            let listener = self.swarm.listen_on(address.clone());
            let listener = listener.map_err(|e| failed(address, e.to_string()))?;
            waiting.insert(listener, address);
        }
        let bound = async {
            while !waiting.is_empty() {
                let event = self.swarm.select_next_some().await;
                match &event {
                    SwarmEvent::NewListenAddr { listener_id, .. } => {
                        waiting.remove(listener_id);
                    }
                    SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                        if let Some(address) = waiting.get(listener_id) {
                            return Err(failed(address, format!("{reason:?}")));
                        }
                    }
                    _ => {}
                }
                self.on_event(event);
            }
            Ok(())
        };
        match tokio::time::timeout(BIND_TIMEOUT, bound).await {
            Ok(bound) => bound?,
            Err(_) => {
                let address = waiting.into_values().next().cloned();
                let address = address.unwrap_or_else(Multiaddr::empty);
                return Err(failed(&address, "the system did not answer in time".to_owned()));
            }
        }
        if listen.iter().any(is_wildcard) {
            let more = async {
                loop {
                    let event = self.swarm.select_next_some();
                    match tokio::time::timeout(MORE_ADDRESSES, event).await {
                        Ok(event) => self.on_event(event),
                        Err(_) => break,
                    }
                }
            };
            let _ = tokio::time::timeout(ALL_ADDRESSES, more).await; // what has come is told
        }
        Ok(())
    }
}

/// libp2p lets several sockets share a TCP port: two nodes with the same port would each get some of
/// the connections. The system refuses a taken port to a socket that does not ask to share it.
fn check_port(address: &Multiaddr) -> io::Result<()> {
    let parts: Vec<_> = address.iter().collect();
    let socket = match parts.as_slice() {
        [Part::Ip4(ip), Part::Tcp(port)] => SocketAddr::from((*ip, *port)),
        [Part::Ip6(ip), Part::Tcp(port)] => SocketAddr::from((*ip, *port)),
        _ => return Ok(()),
    };
    let probe = Socket::new(Domain::for_address(socket), Type::STREAM, None)?;
    if socket.is_ipv6() {
        // As libp2p does: both families may have a listener of their own on one port.
        probe.set_only_v6(true)?;
    }
    probe.set_reuse_address(true)?; // as the standard library does, for ports that were just in use
    probe.bind(&socket.into())?;
    probe.listen(1)
}

fn is_wildcard(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Part::Ip4(ip)) => ip.is_unspecified(),
        Some(Part::Ip6(ip)) => ip.is_unspecified(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_families_may_have_one_port_and_no_two_nodes() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let check = |ip: &str| check_port(&format!("{ip}/tcp/{port}").parse().unwrap());
        check("/ip6/::").unwrap();
        assert_eq!(check("/ip4/0.0.0.0").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(check("/ip4/127.0.0.1").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        check("/ip4/0.0.0.0").unwrap();
    }
}
