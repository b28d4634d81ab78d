//! SWIM: which peers are alive, and at which addresses. `foca` implements the protocol; this module
//! sends its messages, keeps its timers, and publishes its view.
//!
//! A message is one [`Protocol::Swim`] request with an empty answer, sent only over a connection
//! that exists; SWIM expects loss. Each peer signs its own record (`record`). `foca` does not notify
//! of suspicions: this module reads them from its membership after each step.

mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map},
    num::{NonZeroU8, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foca::{
    AccumulatingRuntime, Codec, Foca, NoCustomBroadcast, OwnedNotification, PeriodicParams,
    PostcardCodec, State, Timer,
};
use libp2p::{Multiaddr, swarm::ConnectionId};
use rand::{RngCore, rngs::OsRng};
use rand_chacha_10::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use veil_node_process::unix_now;
use veil_protocol_spec::{PeerIdHash, identity::SecretIdentity, scheduling::UnixMillis};

use self::record::{Record, RecordCodec, Signer};
use crate::{
    command::Command,
    config::SwimConfig,
    directory::Directory,
    error::RequestError,
    kind::{Protocol, SWIM_BYTES},
};

/// How long SWIM remembers a dead peer.
const FORGET_DOWN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// This node announces itself again to connected peers that are not up after this many probe
/// periods: the first announcement may have been lost.
const ANNOUNCE_PERIODS: u32 = 5;
/// How long peers may take to confirm that this node leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What SWIM knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The peer answers.
    Alive,
    /// The peer did not answer a probe and may still refute the suspicion.
    Suspect,
    /// The peer was declared dead, or it left.
    Down {
        /// When this node learned it, by its own clock.
        since: UnixMillis,
    },
}

/// The health of the other registered peers, as SWIM knows it. A peer that was never seen is not in
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    peers: BTreeMap<PeerIdHash, Health>,
}

impl Liveness {
    /// The health of one peer; `None` if it was never seen.
    #[must_use]
    pub fn get(&self, peer: &PeerIdHash) -> Option<Health> {
        self.peers.get(peer).copied()
    }

    /// Whether the peer is alive, or suspected but not yet down.
    #[must_use]
    pub fn is_up(&self, peer: &PeerIdHash) -> bool {
        matches!(self.get(peer), Some(Health::Alive | Health::Suspect))
    }

    /// All peers that were seen, in the order of their ids.
    pub fn iter(&self) -> btree_map::Iter<'_, PeerIdHash, Health> {
        self.peers.iter()
    }
}

/// An input of the task.
#[derive(Debug)]
pub(crate) enum Input {
    /// A connection to a registered peer is open.
    Connected(PeerIdHash),
    /// A SWIM message has arrived.
    Packet { from: PeerIdHash, connection: ConnectionId, bytes: Vec<u8> },
    /// Leave, then confirm.
    Leave(oneshot::Sender<()>),
}

/// The arguments of [`run`].
pub(crate) struct Start {
    pub(crate) identity: SecretIdentity,
    pub(crate) scope: String,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) config: SwimConfig,
    pub(crate) directory: watch::Receiver<Arc<Directory>>,
    pub(crate) connected: watch::Receiver<BTreeSet<PeerIdHash>>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) liveness: watch::Sender<Liveness>,
}

type Machine = Foca<Record, RecordCodec, ChaCha20Rng, NoCustomBroadcast>;

struct Swim {
    me: PeerIdHash,
    foca: Machine,
    effects: AccumulatingRuntime<Record>,
    timers: BTreeMap<(Instant, u64), Timer<Record>>,
    timer_count: u64,
    own: Arc<Mutex<Record>>,
    directory: watch::Receiver<Arc<Directory>>,
    connected: watch::Receiver<BTreeSet<PeerIdHash>>,
    commands: mpsc::UnboundedSender<Command>,
    liveness: watch::Sender<Liveness>,
}

/// Runs the membership until `stop`.
pub(crate) async fn run(start: Start, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
    let mut directory = start.directory.clone();
    let mut announce_again = tokio::time::interval(start.config.probe_period * ANNOUNCE_PERIODS);
    announce_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swim = Swim::new(start);
    loop {
        let next_timer = swim.timers.keys().next().map(|(at, _)| *at);
        let timer = async {
            match next_timer {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = timer => swim.fire_timers(),
            _ = announce_again.tick() => swim.announce_again(),
            Ok(()) = directory.changed() => {}
            input = inputs.recv() => match input {
                None => return,
                Some(Input::Leave(done)) => {
                    swim.leave().await;
                    let _ = done.send(()); // the caller may have given up
                    // A node that has left ignores all further messages.
                    inputs.close();
                    stop.cancelled().await;
                    return;
                }
                Some(Input::Connected(peer)) => swim.announce_to(&peer),
                Some(Input::Packet { from, connection, bytes }) => {
                    swim.on_packet(from, connection, &bytes);
                }
            },
        }
        swim.publish();
    }
}

fn machine_config(config: &SwimConfig) -> foca::Config {
    let several = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    let periodic = |frequency, n| Some(PeriodicParams { frequency, num_members: several(n) });
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: several(config.indirect_probes),
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        suspect_to_down_after: config.suspicion,
        remove_down_after: Some(FORGET_DOWN_AFTER),
        max_packet_size: several(SWIM_BYTES),
        notify_down_members: true,
        periodic_announce: periodic(config.probe_period * 30, 1),
        periodic_announce_to_down_members: periodic(config.probe_period * 30, 2),
        periodic_gossip: periodic(config.probe_period / 5, 3),
    }
}

impl Swim {
    fn new(start: Start) -> Self {
        let Start { identity, scope, addresses, config, directory, connected, commands, liveness } =
            start;
        // The clock is later than at the previous start: the new record wins over the previous one.
        let signer = Signer { identity, scope: scope.clone() };
        let own = Record::own(signer, unix_now().0, &addresses);
        let me = own.peer();
        let shared = Arc::new(Mutex::new(own.clone()));
        let own_shared = Arc::clone(&shared);
        let checked = HashMap::new();
        let codec = RecordCodec { scope, own: own_shared, directory: directory.clone(), checked };
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let rng = ChaCha20Rng::from_seed(seed);
        Self {
            me,
            foca: Foca::new(own, machine_config(&config), rng, codec),
            effects: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timer_count: 0,
            own: shared,
            directory,
            connected,
            commands,
            liveness,
        }
    }

    fn announce_to(&mut self, peer: &PeerIdHash) {
        let Some(identity) = self.directory.borrow().get(peer).map(|peer| peer.identity) else {
            return;
        };
        let result = self.foca.announce(Record::addressee(identity), &mut self.effects);
        self.drain_effects(result, None);
    }

    fn announce_again(&mut self) {
        let known = self.liveness.borrow().clone();
        let missing: Vec<PeerIdHash> =
            self.connected.borrow().iter().filter(|peer| !known.is_up(peer)).copied().collect();
        for peer in missing {
            self.announce_to(&peer);
        }
    }

    fn on_packet(&mut self, from: PeerIdHash, connection: ConnectionId, bytes: &[u8]) {
        let header: Result<foca::Header<Record>, _> = PostcardCodec.decode_header(bytes);
        match header {
            Ok(header) if header.src.peer() == from => {
                let result = self.foca.handle_data(bytes, &mut self.effects);
                self.drain_effects(result, Some((from, connection)));
            }
            Ok(_) => tracing::warn!(%from, "refused a membership message in another peer's name"),
            Err(_) => tracing::warn!(%from, "refused a malformed membership message"),
        }
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            let result = self.foca.handle_timer(timer, &mut self.effects);
            self.drain_effects(result, None);
        }
    }

    /// Carries out the effects of a step.
    fn drain_effects(
        &mut self,
        result: Result<(), foca::Error>,
        cause: Option<(PeerIdHash, ConnectionId)>,
    ) {
        if let Err(error) = result {
            match cause {
                Some((from, _)) => tracing::warn!(%from, %error, "refused a membership message"),
                None => tracing::debug!(%error, "a membership step failed"),
            }
        }
        while let Some((after, timer)) = self.effects.to_schedule() {
            self.timer_count += 1;
            self.timers.insert((Instant::now() + after, self.timer_count), timer);
        }
        while let Some(notification) = self.effects.to_notify() {
            self.on_notification(notification, cause);
        }
        while let Some((to, bytes)) = self.effects.to_send() {
            self.send(to.peer(), bytes.to_vec());
        }
    }

    fn on_notification(
        &mut self,
        notification: OwnedNotification<Record>,
        cause: Option<(PeerIdHash, ConnectionId)>,
    ) {
        match notification {
            OwnedNotification::MemberUp(record) => {
                tracing::info!(peer = %record.peer(), "peer is up");
                self.command(Command::Learn { peer: record.peer(), addresses: record.addresses() });
            }
            OwnedNotification::Rename(before, record) => {
                let peer = record.peer();
                if peer == self.me {
                    return; // an earlier run of this node
                }
                if !record.is_same_run(&before) {
                    // Connections to the previous run are dead, but the transport may notice it late.
                    let from_itself = cause.filter(|(from, _)| *from == peer);
                    let keep = from_itself.map(|(_, connection)| connection);
                    self.command(Command::Restarted { peer, keep });
                }
                self.command(Command::Learn { peer, addresses: record.addresses() });
            }
            // Its connections stay: it may be overloaded only, and transfer bulk.
            OwnedNotification::MemberDown(record) => {
                tracing::warn!(peer = %record.peer(), "peer is down");
            }
            OwnedNotification::Rejoin(record) => {
                tracing::warn!("peers had declared this node down; it joined again");
                *self.own.lock().unwrap_or_else(PoisonError::into_inner) = record;
            }
            OwnedNotification::Active | OwnedNotification::Idle => {}
            OwnedNotification::Defunct => tracing::debug!("left the membership"),
        }
    }

    async fn leave(&mut self) {
        if let Err(error) = self.foca.leave_cluster(&mut self.effects) {
            tracing::warn!(%error, "could not leave gracefully");
        }
        let mut confirmations = Vec::new();
        while let Some((to, bytes)) = self.effects.to_send() {
            confirmations.push(self.send(to.peer(), bytes.to_vec()));
        }
        let confirmed = futures::future::join_all(confirmations);
        if tokio::time::timeout(LEAVE_TIMEOUT, confirmed).await.is_err() {
            tracing::warn!("not every peer confirmed in time that this node leaves");
        }
    }

    fn send(
        &self,
        to: PeerIdHash,
        bytes: Vec<u8>,
    ) -> oneshot::Receiver<Result<Vec<u8>, RequestError>> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Request { to, protocol: Protocol::Swim, bytes, reply });
        answer
    }

    fn command(&self, command: Command) {
        let _ = self.commands.send(command); // fails only when the network has stopped
    }

    /// Publishes the liveness if it has changed.
    fn publish(&mut self) {
        let directory = self.directory.borrow_and_update().clone();
        let mut states = BTreeMap::new();
        for member in self.foca.iter_membership_state() {
            let peer = member.id().peer();
            if peer != self.me && directory.contains(&peer) {
                states.insert(peer, member.state());
            }
        }
        self.liveness.send_if_modified(|liveness| {
            let mut peers = BTreeMap::new();
            for (peer, state) in &states {
                let health = match (state, liveness.get(peer)) {
                    (State::Alive, _) => Health::Alive,
                    (State::Suspect, _) => Health::Suspect,
                    (State::Down, Some(down @ Health::Down { .. })) => down,
                    (State::Down, _) => Health::Down { since: unix_now() },
                };
                peers.insert(*peer, health);
            }
            // A peer that SWIM has forgotten after a long time down is still down.
            for (peer, health) in &liveness.peers {
                if matches!(health, Health::Down { .. }) && directory.contains(peer) {
                    peers.entry(*peer).or_insert(*health);
                }
            }
            let changed = peers != liveness.peers;
            liveness.peers = peers;
            changed
        });
    }
}
