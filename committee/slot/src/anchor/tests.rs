//! Which certificate is due, whose turn it is, and what follows a try.

use veil_protocol_spec::scheduling::{
    ClusterState, Manifest, PendingReplica, RolloutChanges, SAMPLE, TelemetryEntry,
};
use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

use super::*;
use crate::fixtures::{BLOCK, CIRCUIT, POLICY, assignments, binding, job, member, record, worker};

const N: u64 = 4;
const EVERY: u16 = 4;
const ROUND: Millis = N * ANCHOR_TURN;

/// Certificates of slots from 1 on, by the base that they name, and what follows from them.
#[derive(Default)]
struct Certificates {
    bases: Vec<KeccakDigest>,
    state: ClusterState,
}

impl Certificates {
    fn of(bases: &[u8]) -> Self {
        let mut all = Self::default();
        bases.iter().for_each(|base| all.certify(*base, false));
        all
    }

    /// One more, which places a replica or nothing.
    fn certify(&mut self, of: u8, places: bool) {
        let pending = places.then_some(PendingReplica {
            submission: 1,
            job: job(1).digest(),
            replica: ReplicaIndex(0),
            only: None,
            candidates: SAMPLE,
        });
        let entry = TelemetryEntry { sender: worker(1), digest: Blake3Digest([1; 32]) };
        let manifest = Manifest {
            binding: binding(),
            slot: Slot(self.state.last_slot().0 + 1),
            proposer: member(1),
            previous: self.state.last_certificate(),
            block: BLOCK,
            base: base(of),
            jobs_seen: 1,
            policy: POLICY,
            circuit: CIRCUIT,
            telemetry: vec![entry],
            pending: pending.into_iter().collect(),
            leaving: Vec::new(),
            runs: Vec::new(),
            done: Vec::new(),
            lost: Vec::new(),
            given_back: Vec::new(),
            rollouts: RolloutChanges::default(),
        };
        let placed = assignments(&manifest, |_| Some(worker(1)));
        let record = record(&self.state, manifest, Some(placed));
        self.state = self.state.follow(&record).unwrap();
        self.bases.push(record.certificate.body.base);
    }

    fn base_of(&self, slot: Slot) -> Option<KeccakDigest> {
        self.bases.get(slot.0 as usize - 1).copied()
    }

    fn show(&self, machine: &mut AnchorMachine, head: Option<AnchorHead>, now: Millis) {
        let seen = AnchorSight { state: &self.state, head, every: EVERY };
        machine.observe(&seen, |slot| Ok::<_, ()>(self.base_of(slot)), now).unwrap();
    }
}

const fn base(byte: u8) -> KeccakDigest {
    KeccakDigest([byte; 32])
}

const fn head(byte: u8, slot: u64, count: u64) -> Option<AnchorHead> {
    Some(AnchorHead { hash: base(byte), slot: Slot(slot), count })
}

fn machine(me: u8) -> AnchorMachine {
    let committee = Committee::new(N as u8).unwrap();
    AnchorMachine::new(AnchorConfig { me: member(me), committee, pays: true })
}

/// What a machine asks for when its time has come.
fn called(machine: &mut AnchorMachine, now: Millis) -> Option<(KeccakDigest, u64)> {
    machine.handle_timeout(now);
    match machine.poll_effect()? {
        Effect::Special(AnchorEffect::Anchor { base, slot }) => Some((base, slot.0)),
        other => panic!("{other:?}"),
    }
}

/// The slot that is anchored on a head, of slots with these bases.
fn newest(head: (u8, u64), bases: &[u8]) -> Option<u64> {
    let base_of = |slot: Slot| Ok::<_, ()>(bases.get(slot.0 as usize - 1).copied().map(base));
    let last = Slot(bases.len() as u64);
    newest_on((base(head.0), Slot(head.1)), last, base_of).unwrap().map(|slot| slot.0)
}

#[test]
fn the_newest_certificate_on_the_head_is_anchored() {
    assert_eq!(newest((0, 0), &[]), None);
    assert_eq!(newest((0, 0), &[0, 0, 0]), Some(3), "those before it are skipped");
    // Slot 1 was anchored (9) while 2 and 3 named what was before it.
    assert_eq!(newest((9, 1), &[0, 0, 0]), None);
    assert_eq!(newest((9, 1), &[0, 0, 0, 9]), Some(4), "the next one carries on");
    assert_eq!(newest((9, 1), &[0, 0, 0, 9, 9]), Some(5));
    // The chain has replaced the block in which 3 was anchored (8).
    assert_eq!(newest((9, 1), &[0, 9, 9, 8]), Some(3));
    assert_eq!(newest((8, 3), &[0, 9, 9, 8]), Some(4));
    assert_eq!(newest((7, 6), &[0, 9, 9, 8]), None, "this member is behind");
}

#[test]
fn what_nobody_waits_for_is_due_after_so_many_slots() {
    let (mut machine, mut all) = (machine(1), Certificates::of(&[0, 0, 0]));
    all.show(&mut machine, None, 10);
    assert_eq!(machine.poll_timeout(), None, "three of four slots have passed");
    all.certify(0, false);
    all.show(&mut machine, None, 20);
    assert_eq!(machine.poll_timeout(), Some(20));
    assert_eq!(called(&mut machine, 19), None);
    assert_eq!(called(&mut machine, 20), Some((base(0), 4)));
    assert_eq!((called(&mut machine, 21), machine.poll_timeout()), (None, None), "asked for once");
    // The chain has it: nothing is due until four more slots name it.
    all.show(&mut machine, head(9, 4, 1), 30);
    machine.tried(base(0), true, 31);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn what_somebody_waits_for_is_due_at_once() {
    let (mut machine, mut all) = (machine(1), Certificates::of(&[0]));
    all.certify(0, true);
    all.show(&mut machine, None, 10);
    assert_eq!(called(&mut machine, 10), Some((base(0), 2)));
    // A later head says that the replica has its place.
    all.certify(9, false);
    all.show(&mut machine, head(9, 2, 1), 20);
    assert_eq!(machine.poll_timeout(), None);
    // An anchor that a reorganisation took back is due again.
    all.show(&mut machine, None, 30);
    assert_eq!(called(&mut machine, 30), Some((base(0), 2)));
}

#[test]
fn each_head_has_another_first_member() {
    for anchored in 0..2 * N + 1 {
        let all = Certificates::of(&[7; 5]);
        let turns: Vec<_> = (1..=N as u8)
            .map(|j| {
                let mut machine = machine(j);
                all.show(&mut machine, head(7, 1, anchored), 100);
                machine.poll_timeout().unwrap() - 100
            })
            .collect();
        let first = turns.iter().position(|turn| *turn == 0).unwrap();
        assert_eq!(first as u64, anchored % N);
        let mut sorted = turns;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3].map(|turn| turn * ANCHOR_TURN));
    }
}

#[test]
fn a_turn_is_not_put_off_by_later_slots_and_takes_the_newest() {
    let (mut machine, mut all) = (machine(3), Certificates::of(&[0; 4]));
    all.show(&mut machine, None, 100);
    let due = 100 + 2 * ANCHOR_TURN;
    assert_eq!(machine.poll_timeout(), Some(due));
    all.certify(0, false);
    all.show(&mut machine, None, 20_000);
    assert_eq!(machine.poll_timeout(), Some(due));
    assert_eq!(called(&mut machine, due), Some((base(0), 5)));
    // Others have anchored meanwhile: what was asked for is taken back.
    let mut late = self::machine(1);
    all.show(&mut late, None, 0);
    late.handle_timeout(0);
    all.show(&mut late, head(9, 5, 1), 1);
    assert_eq!(late.poll_effect(), None);
}

#[test]
fn a_try_that_fails_is_repeated_ever_later_and_then_the_others_have_their_turns() {
    let (mut machine, all) = (machine(1), Certificates::of(&[0; 4]));
    all.show(&mut machine, None, 0);
    let mut now = 0;
    for turn in 0..2 {
        for pause in [RETRY, 2 * RETRY, 4 * RETRY] {
            assert_eq!(called(&mut machine, now), Some((base(0), 4)), "turn {turn}");
            // A look in between starts nothing over.
            all.show(&mut machine, None, now);
            assert_eq!(machine.poll_timeout(), None);
            machine.tried(base(0), false, now);
            now += pause;
            assert_eq!(machine.poll_timeout(), Some(now));
        }
        assert_eq!(called(&mut machine, now), Some((base(0), 4)));
        machine.tried(base(0), false, now);
        now += ROUND;
        assert_eq!(machine.poll_timeout(), Some(now), "the others come first");
    }
    // So they do after a try that the chain took, should the head not move.
    assert_eq!(called(&mut machine, now), Some((base(0), 4)));
    machine.tried(base(0), true, now);
    assert_eq!(machine.poll_timeout(), Some(now + ROUND));
    // An answer that comes twice, or on another head, changes nothing.
    machine.tried(base(0), false, now + 1);
    machine.tried(base(9), false, now + 1);
    assert_eq!(machine.poll_timeout(), Some(now + ROUND));
}

#[test]
fn who_cannot_pay_or_cannot_read_anchors_nothing() {
    let all = Certificates::of(&[0; 4]);
    let committee = Committee::new(N as u8).unwrap();
    let mut poor = AnchorMachine::new(AnchorConfig { me: member(1), committee, pays: false });
    all.show(&mut poor, None, 0);
    assert_eq!(poor.poll_timeout(), None);

    let mut blind = machine(1);
    all.show(&mut blind, None, 0);
    assert_eq!(blind.poll_timeout(), Some(0));
    let more = Certificates::of(&[0; 5]);
    let seen = AnchorSight { state: &more.state, head: None, every: EVERY };
    assert_eq!(blind.observe(&seen, |_| Err("the disk is full"), 1), Err("the disk is full"));
    assert_eq!(blind.poll_timeout(), None);
    more.show(&mut blind, None, 2);
    assert_eq!(called(&mut blind, 2), Some((base(0), 5)), "it is read again");
}
