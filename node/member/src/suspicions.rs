//! Which workers the members consider lost.
//!
//! # Flow
//! A member from which a worker has been gone for the policy's grace signs a suspicion for the next slot and
//! gossips it, again for every slot and as long as it lasts. t+1 of them make the worker lost in that
//! slot.
//!
//! "A member suspects a worker on its own evidence only": t+1 suspicions are worth something because
//! one of them is an honest member's own. What SWIM says is hearsay: any peer can bring it about. So a
//! worker to which this member has a connection is not gone, whatever SWIM says.
//!
//! A suspicion of a worker that counts as lost says for how long this member has had the certificate that
//! says so: exclusive replicas wait for it (`leases.md`, 5). A restart counts anew, and so does a clock that
//! stands still while the machine sleeps: both say less than is true, which is safe.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use veil_node_core::{cluster::Views, epoch::ActiveEpoch};
use veil_node_p2p::{Gossip, Health, Network, Topic};
use veil_protocol_spec::{
    ParticipantIndex, PeerIdHash, Slot, Wire,
    identity::SecretIdentity,
    scheduling::{ClusterState, SignedSuspicion, Suspicion},
    sync::SuspicionMessage,
};

/// Suspicions for one slot, by worker and member.
pub(crate) type BySlot = BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>;

/// How often a suspicion that lasts is gossiped again, for members that missed it.
const REGOSSIP_INTERVAL: Duration = Duration::from_secs(5);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Suspicions {
    by_slot: Mutex<BTreeMap<Slot, BySlot>>,
    changed: watch::Sender<u64>,
}

impl Default for Suspicions {
    fn default() -> Self {
        Self { by_slot: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Suspicions {
    /// Those for one slot.
    pub(crate) fn of(&self, slot: Slot) -> BySlot {
        let by_slot = self.by_slot.lock().unwrap_or_else(PoisonError::into_inner);
        by_slot.get(&slot).cloned().unwrap_or_default()
    }

    /// Tells of every new one.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes one whose signature was checked; those of slots before `current` are forgotten.
    fn put(&self, message: SuspicionMessage, current: Slot) {
        let mut by_slot = self.by_slot.lock().unwrap_or_else(PoisonError::into_inner);
        *by_slot = by_slot.split_off(&current);
        let SuspicionMessage { slot, worker, signed } = message;
        let by_member = by_slot.entry(slot).or_default().entry(worker).or_default();
        let known = by_member.get(&signed.member).map(|known| known.lost_for);
        if known.is_none_or(|known| known < signed.lost_for) {
            by_member.insert(signed.member, signed);
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

fn next_slot(epoch: &ActiveEpoch) -> Slot {
    Slot(epoch.ledger.state().last_slot().0 + 1)
}

/// What this member sees of a worker.
#[derive(Clone, Copy, Debug)]
struct Sight {
    is_registered: bool,
    is_connected: bool,
    swim: Option<Health>,
    /// When it answered last.
    heard: Option<Instant>,
}

impl Sight {
    /// Whether this member takes the worker for present. No word of SWIM counts against a connection;
    /// without one, SWIM must say that the worker answers.
    fn is_there(&self) -> bool {
        self.is_registered && (self.is_connected || self.answers())
    }

    fn answers(&self) -> bool {
        self.swim == Some(Health::Alive)
    }
}

/// Whether a worker can be lost: of others there is nothing to lose, and a member could make what is
/// kept grow without end.
fn can_be_lost(worker: &PeerIdHash, is_registered: bool, state: &ClusterState) -> bool {
    is_registered || state.replicas().any(|(_, _, placement)| placement.worker == *worker)
}

/// The workers that are to be there: those that are registered, and those that have been given something to
/// run, which would wait for ever for a worker that has left the registry.
fn expected(registered: &BTreeSet<PeerIdHash>, state: &ClusterState) -> BTreeSet<PeerIdHash> {
    let assigned = state.replicas().map(|(_, _, placement)| placement.worker);
    registered.iter().copied().chain(assigned).collect()
}

/// What this member has seen of the workers itself.
#[derive(Debug, Default)]
struct OwnEvidence {
    /// Since when SWIM does not take them for alive.
    silent_since: BTreeMap<PeerIdHash, Instant>,
    gone_since: BTreeMap<PeerIdHash, Instant>,
}

impl OwnEvidence {
    /// The workers that have been gone for the grace, and how long it is until the next one has.
    ///
    /// A worker is gone while it is not registered, or there is no connection to it and SWIM does not
    /// take it for alive. A connection outlives its peer by some seconds, and SWIM, whose times stretch under
    /// load, waits long for a sign of life: so the grace begins when both had the last sign, not when both
    /// have given it up. `expected` are those that are registered or have been given something to run.
    fn lost(
        &mut self,
        expected: &BTreeSet<PeerIdHash>,
        sight: impl Fn(&PeerIdHash) -> Sight,
        now: Instant,
        grace: Duration,
    ) -> (Vec<PeerIdHash>, Option<Duration>) {
        self.silent_since.retain(|worker, _| expected.contains(worker));
        self.gone_since.retain(|worker, _| expected.contains(worker));
        for worker in expected {
            let sight = sight(worker);
            if sight.answers() {
                self.silent_since.remove(worker);
            } else {
                self.silent_since.entry(*worker).or_insert(now);
            }
            if sight.is_there() {
                self.gone_since.remove(worker);
                continue;
            }
            let last_sign = sight.heard.max(self.silent_since.get(worker).copied());
            let since = last_sign.filter(|_| sight.is_registered).unwrap_or(now);
            self.gone_since.entry(*worker).or_insert(since);
        }
        let left = |since: Instant| grace.saturating_sub(now.duration_since(since));
        let (lost, waiting): (Vec<_>, Vec<_>) =
            self.gone_since.iter().partition(|(_, since)| left(**since).is_zero());
        let next = waiting.into_iter().map(|(_, since)| left(*since)).min();
        (lost.into_iter().map(|(worker, _)| *worker).collect(), next)
    }
}

/// For how long this member has known that workers count as lost.
#[derive(Debug, Default)]
struct KnownLost {
    since: BTreeMap<PeerIdHash, (Slot, Instant)>,
}

impl KnownLost {
    /// Takes in who counts as lost by the last certificate, and since which slot.
    fn observe(&mut self, lost: &BTreeMap<PeerIdHash, Slot>, now: Instant) {
        self.since.retain(|worker, (since, _)| lost.get(worker) == Some(since));
        for (worker, since) in lost {
            self.since.entry(*worker).or_insert((*since, now));
        }
    }

    /// In whole seconds; 0 for a worker that does not count as lost.
    fn seconds(&self, worker: &PeerIdHash, now: Instant) -> u32 {
        let known = self.since.get(worker).map(|(_, at)| now.duration_since(*at).as_secs());
        known.map_or(0, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

/// Signs and gossips suspicions of the workers that are gone.
pub(crate) async fn suspect(
    network: Network,
    views: Views,
    identity: SecretIdentity,
    epoch: Arc<ActiveEpoch>,
    me: ParticipantIndex,
    suspicions: Arc<Suspicions>,
) {
    let mut blocks = views.subscribe();
    let mut liveness = network.liveness();
    let mut connected = network.connected();
    let (mut evidence, mut known) = (OwnEvidence::default(), KnownLost::default());
    let mut certificates = epoch.ledger.subscribe();
    loop {
        let state = epoch.ledger.state();
        let slot = Slot(state.last_slot().0 + 1);
        known.observe(&state.lost().collect(), Instant::now());
        let (lost, next) = {
            let (live, connected) = (liveness.borrow_and_update(), connected.borrow_and_update());
            let view = Arc::clone(&blocks.borrow_and_update());
            let grace = view.rules_or_default().loss_grace_seconds;
            let grace = Duration::from_secs(grace.into());
            let registered = view.workers();
            let expected = expected(&registered, &state);
            let sight = |worker: &PeerIdHash| Sight {
                is_registered: registered.contains(worker),
                is_connected: connected.contains(worker),
                swim: live.get(worker),
                heard: network.heard(worker),
            };
            evidence.lost(&expected, sight, Instant::now(), grace)
        };
        for worker in &lost {
            let lost_for = known.seconds(worker, Instant::now());
            let suspicion = Suspicion { binding: epoch.binding, slot, worker: *worker, lost_for };
            let signed = suspicion.sign(me, &identity);
            let message = SuspicionMessage { slot, worker: *worker, signed };
            if !suspicions.of(slot).get(worker).is_some_and(|by| by.contains_key(&me)) {
                tracing::warn!(%worker, slot = slot.0, "this worker is lost");
            }
            suspicions.put(message, slot);
            if let Err(error) = network.publish(Topic::Suspicions, message.to_wire()).await {
                tracing::debug!(%error, "a suspicion was not gossiped");
            }
        }
        tokio::select! {
            changed = liveness.changed() => if changed.is_err() { return },
            changed = connected.changed() => if changed.is_err() { return },
            changed = blocks.changed() => if changed.is_err() { return },
            changed = certificates.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
            () = tokio::time::sleep(REGOSSIP_INTERVAL), if !lost.is_empty() => {}
        }
    }
}

/// Takes the others' suspicions.
pub(crate) async fn listen(network: Network, epoch: Arc<ActiveEpoch>, suspicions: Arc<Suspicions>) {
    let mut gossip = network.subscribe(Topic::Suspicions);
    while let Some(message) = gossip.recv().await {
        accept(&epoch, &suspicions, &message);
    }
}

fn accept(epoch: &ActiveEpoch, suspicions: &Suspicions, message: &Gossip) {
    let suspicion = match SuspicionMessage::from_wire(&message.bytes) {
        Ok(suspicion) => suspicion,
        Err(error) => return message.reject_as("malformed", &error),
    };
    let next = next_slot(epoch);
    // A member that is one certificate behind or ahead is still right.
    if suspicion.slot < next || suspicion.slot > Slot(next.0 + 1) {
        return message.ignore_as("another_slot");
    }
    let is_registered = epoch.pool().is_worker(&suspicion.worker);
    if !can_be_lost(&suspicion.worker, is_registered, &epoch.ledger.state()) {
        return message.ignore_as("not_a_worker");
    }
    match suspicion.verify(epoch.binding, &epoch.roster) {
        Ok(()) => {
            suspicions.put(suspicion, next);
            message.accept();
        }
        Err(error) => message.reject_as("signature", &error),
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ReplicaIndex,
        scheduling::{
            Assignment, Assignments, Binding, BlockRef, CircuitId, ClusterScope, Manifest, Outcome,
            PendingReplica, RolloutChanges, SAMPLE, TelemetryEntry, UnixMillis,
        },
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn worker(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    fn set(workers: &[u8]) -> BTreeSet<PeerIdHash> {
        workers.iter().copied().map(worker).collect()
    }

    /// A registered worker without a connection.
    fn sight(swim: Option<Health>, heard: Option<Instant>) -> Sight {
        Sight { is_registered: true, is_connected: false, swim, heard }
    }

    #[test]
    fn hearsay_convicts_nobody_who_is_connected_and_acquits_nobody_who_is_silent() {
        let down = Health::Down { since: UnixMillis(0) };
        for swim in [None, Some(Health::Alive), Some(Health::Suspect), Some(down)] {
            let apart = sight(swim, None);
            assert!(Sight { is_connected: true, ..apart }.is_there());
            assert_eq!(apart.is_there(), swim == Some(Health::Alive), "{swim:?}");
            assert!(!Sight { is_registered: false, is_connected: true, ..apart }.is_there());
        }
    }

    /// A state in which a worker has a replica.
    fn holding(holder: PeerIdHash) -> ClusterState {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let (job, replica) = (Blake3Digest([6; 32]), ReplicaIndex(0));
        let manifest = Manifest {
            binding: Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) },
            slot: Slot(1),
            proposer: ParticipantIndex::new(1).unwrap(),
            previous: ClusterState::default().last_certificate(),
            block: BlockRef { number: 1, hash: KeccakDigest([4; 32]) },
            base: KeccakDigest([0; 32]),
            jobs_seen: 1,
            policy: KeccakDigest([5; 32]),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([7; 32]) },
            telemetry: vec![TelemetryEntry { sender: holder, digest: Blake3Digest([8; 32]) }],
            pending: vec![PendingReplica {
                submission: 0,
                job,
                replica,
                only: None,
                candidates: SAMPLE,
            }],
            leaving: Vec::new(),
            done: Vec::new(),
            lost: Vec::new(),
            given_back: Vec::new(),
            rollouts: RolloutChanges::default(),
            runs: Vec::new(),
        };
        let placed = Assignment { job, replica, outcome: Outcome::Node(holder) };
        let placed = Assignments::try_from(vec![placed]).unwrap();
        ClusterState::default().apply(&manifest, &placed).unwrap()
    }

    #[test]
    fn a_suspicion_of_whom_nobody_knows_is_not_kept() {
        let state = holding(worker(2));
        assert!(can_be_lost(&worker(1), true, &state));
        assert!(!can_be_lost(&worker(1), false, &state));
        assert!(can_be_lost(&worker(2), false, &state), "it has left, and has a replica");
    }

    /// Its replicas would have no other place for ever.
    #[test]
    fn a_worker_that_leaves_the_registry_with_a_replica_is_lost_after_the_grace() {
        let state = holding(worker(2));
        let expected = expected(&set(&[1]), &state);
        assert_eq!(expected, set(&[1, 2]));
        let (mut evidence, start) = (OwnEvidence::default(), Instant::now());
        let seen = |of: &PeerIdHash| Sight {
            is_registered: *of == worker(1),
            is_connected: true,
            ..sight(Some(Health::Alive), Some(start))
        };
        assert_eq!(evidence.lost(&expected, seen, start, GRACE), (vec![], Some(GRACE)));
        let lost = evidence.lost(&expected, seen, start + GRACE, GRACE);
        assert_eq!(lost, (vec![worker(2)], None));
    }

    #[test]
    fn a_worker_is_lost_when_it_has_been_gone_for_the_grace() {
        let (mut evidence, start) = (OwnEvidence::default(), Instant::now());
        let expected = set(&[1, 2, 3]);
        let mut lost = |there: &[u8], second: u64| {
            let there = set(there);
            let now = start + Duration::from_secs(second);
            let answers = |worker: &PeerIdHash| there.contains(worker).then_some(Health::Alive);
            evidence.lost(&expected, |worker| sight(answers(worker), None), now, GRACE)
        };
        assert_eq!(lost(&[1, 2], 0), (vec![], Some(GRACE)));
        assert_eq!(lost(&[1], 8), (vec![], Some(Duration::from_secs(12))));
        // Worker 2 is back in time, and loses nothing: its grace begins anew.
        assert_eq!(lost(&[1, 2], 16), (vec![], Some(Duration::from_secs(4))));
        assert_eq!(lost(&[1], 20), (vec![worker(3)], Some(GRACE)));
        assert_eq!(lost(&[1], 39), (vec![worker(3)], Some(Duration::from_secs(1))));
        assert_eq!(lost(&[1], 40), (vec![worker(2), worker(3)], None));
        // Withdrawn when it is back.
        assert_eq!(lost(&[1, 2, 3], 41), (vec![], None));
    }

    #[test]
    fn the_grace_begins_with_the_last_sign_of_life() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let expected = set(&[1]);
        // Killed at 4; a probe fails at 6, and the connection is given up at 14.
        let mut evidence = OwnEvidence::default();
        let mut lost = |is_connected, swim, heard: u64, second: u64| {
            let seen = Sight { is_connected, ..sight(Some(swim), Some(at(heard))) };
            evidence.lost(&expected, |_| seen, at(second), GRACE)
        };
        assert_eq!(lost(true, Health::Alive, 0, 5), (vec![], None));
        assert_eq!(lost(true, Health::Suspect, 3, 6), (vec![], None));
        assert_eq!(lost(false, Health::Suspect, 3, 14), (vec![], Some(Duration::from_secs(12))));
        assert_eq!(lost(false, Health::Suspect, 3, 26), (vec![worker(1)], None));
        // Of one that SWIM has long given up, and that answers pings, the grace begins with the last answer.
        let (mut evidence, suspect) = (OwnEvidence::default(), Some(Health::Suspect));
        let connected = Sight { is_connected: true, ..sight(suspect, Some(at(0))) };
        assert_eq!(evidence.lost(&expected, |_| connected, at(0), GRACE), (vec![], None));
        let apart = sight(suspect, Some(at(995)));
        let left = evidence.lost(&expected, |_| apart, at(1000), GRACE);
        assert_eq!(left, (vec![], Some(Duration::from_secs(15))));
        // One that is registered no more is there for whoever knows it: its grace begins now.
        let answered = Sight { swim: Some(Health::Alive), heard: Some(at(995)), ..connected };
        let removed = Sight { is_registered: false, ..answered };
        let left = OwnEvidence::default().lost(&expected, |_| removed, at(1000), GRACE);
        assert_eq!(left, (vec![], Some(GRACE)));
    }

    /// What a member signs must never be longer than it has had the certificate.
    #[test]
    fn how_long_a_worker_counts_as_lost_is_measured_from_the_certificate() {
        let (mut known, start) = (KnownLost::default(), Instant::now());
        let at = |second: u64| start + Duration::from_millis(1000 * second + 999);
        known.observe(&[(worker(1), Slot(4))].into(), start);
        assert_eq!((known.seconds(&worker(1), at(60)), known.seconds(&worker(2), at(60))), (60, 0));
        known.observe(&[(worker(1), Slot(4)), (worker(2), Slot(5))].into(), at(60));
        assert_eq!(
            (known.seconds(&worker(1), at(70)), known.seconds(&worker(2), at(70))),
            (70, 10)
        );
        // Back, and lost again: it begins anew, also if this member has seen no state between.
        known.observe(&[(worker(1), Slot(9))].into(), at(80));
        assert_eq!((known.seconds(&worker(1), at(80)), known.seconds(&worker(2), at(80))), (0, 0));
    }
}
