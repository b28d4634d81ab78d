//! The membership of a few nodes in virtual time.

use std::collections::VecDeque;

use veil_protocol_spec::registry::Roles;

use super::*;
use crate::directory::Peer;

const STEP: Duration = Duration::from_millis(10);
/// One way. There and back it is a fifth of a probe's period: so often a pause begins while one is out.
const LATENCY: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(10);

struct Node {
    id: PeerIdHash,
    swim: Swim,
    sent: mpsc::UnboundedReceiver<Command>,
    liveness: watch::Receiver<Liveness>,
    /// Packets, and when they arrive; then they wait until it runs.
    waiting: VecDeque<(Instant, PeerIdHash, Vec<u8>)>,
    paused: bool,
}

struct Net {
    now: Instant,
    nodes: Vec<Node>,
    /// Whether what is sent to a paused node is lost, as when its connections break.
    lossy: bool,
    _directory: watch::Sender<Arc<Directory>>,
}

fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

impl Net {
    fn new(count: u8, config: SwimConfig) -> Self {
        let now = Instant::now();
        let peers = (1..=count)
            .map(|byte| Peer { identity: secret(byte).public(), roles: Roles::default() });
        let (directory_sender, directory) = watch::channel(Arc::new(peers.collect::<Directory>()));
        let nodes = (1..=count).map(|byte| {
            let (commands, sent) = mpsc::unbounded_channel();
            let (liveness_sender, liveness) = watch::channel(Liveness::default());
            let (_, connected) = watch::channel(BTreeSet::new());
            let start = Start {
                identity: secret(byte),
                scope: "here".to_owned(),
                addresses: vec![],
                config,
                directory: directory.clone(),
                connected,
                commands,
                liveness: liveness_sender,
            };
            let swim = Swim::new(start, now);
            let (id, waiting) = (swim.me, VecDeque::new());
            Node { id, swim, sent, liveness, waiting, paused: false }
        });
        let (nodes, lossy) = (nodes.collect(), false);
        let mut net = Self { now, nodes, lossy, _directory: directory_sender };
        let first = net.nodes[0].id;
        for node in &mut net.nodes[1..] {
            node.swim.announce_to(&first);
        }
        net
    }

    /// All nodes that are not paused run once.
    fn step(&mut self) {
        self.now += STEP;
        let mut packets = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| !node.paused) {
            node.swim.wake(self.now);
            let arrived = node.waiting.partition_point(|(at, ..)| *at <= self.now);
            for (_, from, bytes) in node.waiting.drain(..arrived) {
                node.swim.on_packet(from, &bytes);
            }
            node.swim.fire_timers();
            node.swim.publish();
            while let Ok(command) = node.sent.try_recv() {
                if let Command::Request { to, bytes, .. } = command {
                    packets.push((node.id, to, bytes));
                }
            }
        }
        for (from, to, bytes) in packets {
            let node = self.nodes.iter_mut().find(|node| node.id == to).unwrap();
            if !(node.paused && self.lossy) {
                node.waiting.push_back((self.now + LATENCY, from, bytes));
            }
        }
    }

    fn run(&mut self, time: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            check(self);
        }
    }

    fn all_alive(&self, by: usize) -> bool {
        let liveness = self.nodes[by].liveness.borrow();
        let others = self.nodes.iter().filter(|node| node.id != self.nodes[by].id);
        others.into_iter().all(|node| liveness.get(&node.id) == Some(Health::Alive))
    }
}

/// Whatever the probe was doing when the pause began, and whether or not what was sent meanwhile
/// arrives.
#[test]
fn a_node_that_was_paused_for_ten_seconds_suspects_nobody_when_it_is_back() {
    let begins = (0..20).map(|step| Duration::from_millis(step * 50));
    for (begins, nodes, lossy) in
        begins.flat_map(|at| [(at, 2, false), (at, 2, true), (at, 4, false), (at, 4, true)])
    {
        let mut net = Net::new(nodes, SwimConfig::default());
        net.run(Duration::from_secs(10) + begins, |_| {});
        assert!((0..nodes).all(|node| net.all_alive(node.into())), "all have met");
        (net.nodes[0].paused, net.lossy) = (true, lossy);
        net.run(PAUSE, |_| {});
        net.nodes[0].paused = false;
        net.run(Duration::from_secs(20), |net| {
            let known = net.nodes[0].liveness.borrow();
            let suspects = known.iter().filter(|(_, health)| **health != Health::Alive).count();
            assert_eq!(suspects, 0, "{nodes} nodes, {begins:?}, lossy: {lossy}");
        });
        assert!((1..nodes).all(|node| net.all_alive(node.into())), "the others took it back");
    }
}

#[test]
fn a_node_that_stops_is_down_for_the_others_within_the_time_that_is_configured() {
    let config = SwimConfig::default();
    let mut net = Net::new(4, config);
    net.run(Duration::from_secs(10), |_| {});
    net.nodes[3].paused = true;
    // Each of the others probes it in turn; then it may refute.
    let latest = config.probe_period * 8 + config.suspicion;
    net.run(latest, |_| {});
    let gone = net.nodes[3].id;
    for node in &net.nodes[..3] {
        let health = node.liveness.borrow().get(&gone);
        assert!(matches!(health, Some(Health::Down { .. })), "{health:?}");
        assert_eq!(node.swim.health.stretch(STEP), STEP, "nothing is wrong with this one");
    }
}

#[test]
fn a_node_that_nobody_answers_doubts_itself() {
    let config = SwimConfig::default();
    let mut net = Net::new(3, config);
    net.run(Duration::from_secs(10), |_| {});
    for other in [1, 2] {
        net.nodes[other].paused = true;
    }
    net.run(config.probe_period * 4, |_| {});
    assert!(net.nodes[0].swim.health.stretch(STEP) > STEP * 2);
}

#[test]
fn a_peer_that_dies_again_and_again_leaves_one_timer() {
    let signer = |byte| Signer { identity: secret(byte), scope: "here".to_owned() };
    let (mut timers, now) = (Timers::default(), Instant::now());
    for death in 0..100 {
        timers.add(now + STEP, Timer::RemoveDown(Record::own(signer(1), (0, death), &[])));
    }
    timers.add(now + STEP * 2, Timer::RemoveDown(Record::own(signer(2), (0, 0), &[])));
    assert_eq!(timers.len(), 2);
    timers.delay(PAUSE);
    assert!(timers.pop(now + PAUSE).is_none());
    assert!(timers.pop(now + PAUSE + STEP).is_some());
    timers.add(now, Timer::RemoveDown(Record::own(signer(1), (0, 101), &[])));
    assert_eq!(timers.len(), 2);
}
