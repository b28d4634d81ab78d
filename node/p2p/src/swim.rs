//! SWIM: which peers are alive, and at which addresses. `foca` implements the protocol; this module
//! sends its messages, keeps its timers, and publishes its view.
//!
//! A message is one [`Protocol::Swim`] request with an empty answer, sent only over a connection
//! that exists; SWIM expects loss. Each peer signs its own record (`record`). `foca` does not notify
//! of suspicions: this module reads them from its membership after each step.
//!
//! Of two processes with one identity the one with the larger incarnation is listened to, and the other one is told
//! ([`Liveness::is_superseded`]): whoever runs on a share that was brought back elsewhere has to end.
//!
//! A node that is slow itself must not take others for dead (`health`): it stretches its time-outs, does
//! not count time in which it did not run, and draws no conclusion from a probe in such a time.

mod health;
mod liveness;
mod record;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::{NonZeroU8, NonZeroUsize},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use foca::{
    AccumulatingRuntime, Codec, Foca, Header, Message, NoCustomBroadcast, OwnedNotification,
    PeriodicParams, PostcardCodec, ProbeNumber, State, Timer,
};
use libp2p::Multiaddr;
use rand::{RngCore, rngs::OsRng};
use rand_chacha_10::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use veil_node_process::unix_now;
use veil_protocol_spec::{PeerIdHash, identity::SecretIdentity};

pub use self::liveness::{Health, Liveness};

use self::{
    health::{LocalHealth, Pulse},
    record::{Record, RecordCodec, Signer},
    timers::Timers,
};
use crate::{
    command::Command,
    config::SwimConfig,
    directory::Directory,
    error::RequestError,
    identity::peer_id,
    kind::{Protocol, SWIM_BYTES},
    refusal::Refusal,
};

/// How long SWIM remembers a dead peer.
const FORGET_DOWN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// This node announces itself again to connected peers that are not up after this many probe
/// periods: the first announcement may have been lost.
const ANNOUNCE_PERIODS: u32 = 5;
/// How long peers may take to confirm that this node leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// An input of the task.
#[derive(Debug)]
pub(crate) enum Input {
    /// A connection to a registered peer is open.
    Connected(PeerIdHash),
    /// A SWIM message has arrived.
    Packet { from: PeerIdHash, bytes: Vec<u8> },
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
    /// When the task woke up last.
    now: Instant,
    timers: Timers,
    probe_rtt: Duration,
    health: LocalHealth,
    pulse: Pulse,
    probe: Option<Probe>,
    /// The incarnation under which this node speaks: it rises when the node refutes a suspicion.
    incarnation: u16,
    own: Arc<Mutex<Record>>,
    superseded: Arc<AtomicBool>,
    directory: watch::Receiver<Arc<Directory>>,
    connected: watch::Receiver<BTreeSet<PeerIdHash>>,
    commands: mpsc::UnboundedSender<Command>,
    liveness: watch::Sender<Liveness>,
}

/// The probe that goes on.
#[derive(Debug)]
struct Probe {
    target: Record,
    number: ProbeNumber,
    answered: bool,
    /// Whether any peer has sent anything since it began.
    heard: bool,
    /// How long this task did not run since it began.
    missed: Duration,
}

/// Runs the membership until `stop`.
pub(crate) async fn run(start: Start, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
    let mut directory = start.directory.clone();
    let mut announce_again = tokio::time::interval(start.config.probe_period * ANNOUNCE_PERIODS);
    announce_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swim = Swim::new(start, Instant::now());
    loop {
        let due = swim.timers.next().map_or(swim.pulse.due(), |at| at.min(swim.pulse.due()));
        let wake = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            input = inputs.recv() => Wake::Input(input),
            _ = announce_again.tick() => Wake::Announce,
            Ok(()) = directory.changed() => Wake::Time,
            () = tokio::time::sleep_until(due) => Wake::Time,
        };
        swim.wake(Instant::now());
        match wake {
            Wake::Time => {}
            Wake::Announce => swim.announce_again(),
            Wake::Input(input) => match input {
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
                Some(Input::Packet { from, bytes }) => {
                    swim.on_packet(from, &bytes);
                }
            },
        }
        swim.fire_timers();
        swim.publish();
    }
}

/// Why the task runs. What has arrived comes before what is due: an answer may be among it.
enum Wake {
    Input(Option<Input>),
    Announce,
    Time,
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
    fn new(start: Start, now: Instant) -> Self {
        let Start { identity, scope, addresses, config, directory, connected, commands, liveness } =
            start;
        // The clock is later than at the previous start: the new record wins over the previous one.
        let signer = Signer { identity, scope: scope.clone() };
        let own = Record::own(signer, (config.incarnation, unix_now().0), &addresses);
        let me = own.peer();
        let shared = Arc::new(Mutex::new(own.clone()));
        let own_shared = Arc::clone(&shared);
        let superseded = Arc::<AtomicBool>::default();
        let codec = RecordCodec {
            scope,
            own: own_shared,
            directory: directory.clone(),
            checked: HashMap::new(),
            superseded: Arc::clone(&superseded),
        };
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let rng = ChaCha20Rng::from_seed(seed);
        Self {
            me,
            foca: Foca::new(own, machine_config(&config), rng, codec),
            effects: AccumulatingRuntime::new(),
            now,
            timers: Timers::default(),
            probe_rtt: config.probe_rtt,
            health: LocalHealth::default(),
            pulse: Pulse::start(config.probe_rtt / 2, now),
            probe: None,
            incarnation: 0,
            own: shared,
            superseded,
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

    /// The task runs. Time in which it did not run is no time in which others were silent.
    fn wake(&mut self, now: Instant) {
        self.now = now;
        let Some(gap) = self.pulse.beat(now) else { return };
        tracing::debug!(?gap, "this node did not run; its time-outs begin later");
        self.timers.delay(gap);
        self.health.worsen();
        if let Some(probe) = &mut self.probe {
            probe.missed += gap;
        }
    }

    fn on_packet(&mut self, from: PeerIdHash, bytes: &[u8]) {
        let header: Result<Header<Record>, _> = PostcardCodec.decode_header(bytes);
        match header {
            Ok(header) if header.src.peer() == from => {
                if let Some(later) = self.later_incarnation(&header.src) {
                    // An earlier incarnation is not listened to; it learns from the address of this what it is.
                    let result = self.foca.announce(later, &mut self.effects);
                    return self.drain_effects(result, None);
                }
                self.hear(&header);
                let result = self.foca.handle_data(bytes, &mut self.effects);
                self.drain_effects(result, Some(from));
            }
            Ok(_) => self.refuse(from, Refusal::Forged),
            Err(_) => self.refuse(from, Refusal::Malformed),
        }
    }

    fn later_incarnation(&self, of: &Record) -> Option<Record> {
        let known = self.foca.iter_membership_state().map(|member| member.id());
        known.into_iter().find(|known| known.is_later_incarnation_of(of)).cloned()
    }

    fn hear(&mut self, header: &Header<Record>) {
        if let Some(probe) = &mut self.probe {
            probe.heard = true;
            probe.answered |= match &header.message {
                Message::Ack(number) => *number == probe.number && header.src == probe.target,
                Message::ForwardedAck { origin, probe_number } => {
                    *probe_number == probe.number && *origin == probe.target
                }
                _ => false,
            };
        }
    }

    fn refuse(&self, from: PeerIdHash, refusal: Refusal) {
        let identity = self.directory.borrow().get(&from).map(|peer| peer.identity);
        let Some(peer) = identity.and_then(|identity| peer_id(&identity).ok()) else { return };
        self.command(Command::Refused { peer, protocol: Protocol::Swim.name(), refusal });
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            if matches!(timer, Timer::ProbeRandomMember(_)) {
                self.judge_probe();
            }
            let result = self.foca.handle_timer(timer, &mut self.effects);
            self.drain_effects(result, None);
        }
    }

    /// The time of a probe is over: what it says of this node, before `foca` draws its conclusion for
    /// the probed peer.
    fn judge_probe(&mut self) {
        let Some(probe) = self.probe.take() else { return };
        if probe.answered {
            self.health.improve();
        } else if probe.missed >= self.probe_rtt {
            self.excuse(&probe);
        } else if !probe.heard {
            self.health.worsen();
        }
    }

    /// This node did not run for as long as an answer may take: that there is none says nothing of the
    /// peer. `foca` takes the probe as answered, by a message that this node writes to itself.
    fn excuse(&mut self, probe: &Probe) {
        let known = self.foca.iter_membership_state().find(|member| *member.id() == probe.target);
        let Some(member) = known.filter(|member| member.state() != State::Down) else { return };
        let header = Header {
            src: member.id().clone(),
            src_incarnation: member.incarnation(),
            dst: self.foca.identity().clone(),
            message: Message::Ack(probe.number),
        };
        let mut bytes = Vec::new();
        if PostcardCodec.encode_header(&header, &mut bytes).is_ok() {
            let result = self.foca.handle_data(&bytes, &mut self.effects);
            self.drain_effects(result, None);
        }
    }

    /// Carries out the effects of a step.
    fn drain_effects(&mut self, result: Result<(), foca::Error>, from: Option<PeerIdHash>) {
        if let Err(error) = result {
            tracing::debug!(?from, %error, "a membership step failed");
            if let (Some(from), foca::Error::Decode(_) | foca::Error::MalformedPacket) =
                (from, &error)
            {
                self.refuse(from, Refusal::Malformed);
            }
        }
        while let Some((after, timer)) = self.effects.to_schedule() {
            let after = match &timer {
                Timer::ProbeRandomMember(_)
                | Timer::SendIndirectProbe { .. }
                | Timer::ChangeSuspectToDown { .. } => self.health.stretch(after),
                _ => after,
            };
            self.timers.add(self.now + after, timer);
        }
        while let Some(notification) = self.effects.to_notify() {
            self.on_notification(notification);
        }
        while let Some((to, bytes)) = self.effects.to_send() {
            self.note_sent(&bytes);
            self.send(to.peer(), bytes.to_vec());
        }
    }

    /// What `foca` sends says what it does: it keeps its probe and its refutations to itself.
    fn note_sent(&mut self, bytes: &[u8]) {
        let header: Result<Header<Record>, _> = PostcardCodec.decode_header(bytes);
        let Ok(Header { src_incarnation, dst: target, message, .. }) = header else { return };
        if src_incarnation > self.incarnation {
            self.health.worsen(); // somebody suspects this node
        }
        self.incarnation = src_incarnation;
        if let Message::Ping(number) = message {
            let missed = Duration::ZERO;
            self.probe = Some(Probe { target, number, answered: false, heard: false, missed });
        }
    }

    fn on_notification(&mut self, notification: OwnedNotification<Record>) {
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
                    self.command(Command::Restarted(peer));
                }
                self.command(Command::Learn { peer, addresses: record.addresses() });
            }
            // Its connections stay: it may be overloaded only, and transfer bulk.
            OwnedNotification::MemberDown(record) => {
                tracing::warn!(peer = %record.peer(), "peer is down");
            }
            OwnedNotification::Rejoin(record) => {
                tracing::warn!("peers had declared this node down; it joined again");
                self.health.worsen();
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
        let superseded = self.superseded.load(Ordering::Relaxed);
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
            let changed = (&peers, superseded) != (&liveness.peers, liveness.superseded);
            (liveness.peers, liveness.superseded) = (peers, superseded);
            changed
        });
    }
}
