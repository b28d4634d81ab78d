//! What the world promises to every machine.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_committee_world::{
    Conditions, Crash, End, EventLog, Host, Physics, Schedule, When, World,
};
use veil_protocol_spec::{Committee, ParticipantIndex};

const COMMITTEE: Committee = Committee::ALL[1];

fn member(j: u8) -> ParticipantIndex {
    ParticipantIndex::new(j).expect("members of the committee")
}

/// Stores a number and says it, until it has said three.
struct Counter {
    effects: VecDeque<Effect<u64, u64>>,
    heard: u64,
}

impl Machine for Counter {
    type Record = u64;
    type Special = u64;
    type Skip = Infallible;
    type Fault = Infallible;

    fn handle(
        &mut self,
        _from: ParticipantIndex,
        _bytes: &[u8],
        _now: Millis,
    ) -> Verdict<Infallible, Infallible> {
        self.heard += 1;
        Verdict::Valid
    }

    fn handle_timeout(&mut self, _now: Millis) {}

    fn poll_timeout(&self) -> Option<Millis> {
        None
    }

    fn poll_effect(&mut self) -> Option<Effect<u64, u64>> {
        self.effects.pop_front()
    }
}

/// What each member has stored, and what it said, each with the time.
#[derive(Default)]
struct Counters {
    disks: [Vec<u64>; 4],
    said: [Vec<(Millis, u64)>; 4],
    boots: u32,
}

impl Host for Counters {
    type Machine = Counter;
    type Input = Infallible;
    type Event = Infallible;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, _schedule: &mut Schedule<Self>) -> Option<Counter> {
        self.boots += 1;
        let next = self.disks[j.position()].len() as u64;
        let effects = (next..3).flat_map(|k| {
            let bytes: Arc<[u8]> = Arc::new([k as u8]);
            [
                Effect::Persist { id: PersistId(k), record: k },
                Effect::Broadcast(bytes),
                Effect::Special(k),
            ]
        });
        Some(Counter { effects: effects.collect(), heard: 0 })
    }

    fn input(_machine: &mut Counter, input: Infallible, _now: Millis) {
        match input {}
    }

    fn store(&mut self, j: ParticipantIndex, record: u64) {
        self.disks[j.position()].push(record);
    }

    fn special(&mut self, j: ParticipantIndex, said: u64, schedule: &mut Schedule<Self>) {
        assert_eq!(self.disks[j.position()].last(), Some(&said), "said before it was durable");
        self.said[j.position()].push((schedule.now(), said));
    }
}

fn run(physics: Physics, crashes: Vec<Crash<()>>) -> (End, World<Counters>) {
    let counters = Counters::default();
    let mut world = World::new("counters", counters, COMMITTEE, physics, crashes, [3; 32]);
    (world.run(), world)
}

fn crash(j: u8, at: When<()>, away: Option<Millis>) -> Vec<Crash<()>> {
    vec![Crash { participant: member(j), at, away }]
}

#[test]
fn a_record_is_durable_before_anything_after_it() {
    let (end, mut world) = run(Physics { store: 5, ..Physics::default() }, Vec::new());
    assert_eq!(end, End::Rest);
    for said in &world.host().said {
        assert_eq!(*said, [(5, 0), (10, 1), (15, 2)]);
    }
    let mut heard = |j| world.take_machine(j).map(|machine| machine.heard);
    assert!(COMMITTEE.participants().all(|j| heard(j) == Some(9)));
}

#[test]
fn a_crash_loses_what_is_not_stored_and_nothing_else() {
    // Each number is three effects: stored, sent, said.
    for (effects, stored, said) in [(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 2, 1), (9, 3, 3)] {
        for away in [Some(100), None] {
            let (end, world) = run(Physics::default(), crash(2, When::AfterEffects(effects), away));
            assert_eq!((end, world.host().boots), (End::Rest, 5), "four starts and a return");
            let host = world.host();
            assert_eq!(host.disks[1], [0, 1, 2], "after {effects} effects");
            // What was stored and not said before the crash is not said any more.
            let lost = stored - said;
            assert_eq!(host.said[1].len(), 3 - lost, "after {effects} effects");
            assert_eq!(host.said[0].len(), 3);
        }
    }
    // While the first record was under way.
    let (_, world) = run(Physics { store: 5, ..Physics::default() }, crash(2, When::Time(4), None));
    assert_eq!(world.host().disks[1], [0, 1, 2]);
    assert_eq!(world.host().said[1].len(), 3);
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let physics = || Physics {
        conditions: Conditions { drop: 300, duplicate: 300, ..Conditions::default() },
        ..Physics::default()
    };
    let log = |crashes| -> EventLog { run(physics(), crashes).1.end().1 };
    let (first, second) = (log(Vec::new()), log(Vec::new()));
    assert_eq!((first.trace(), first.text()), (second.trace(), second.text()));
    assert_ne!(first.trace(), log(crash(1, When::Time(3), None)).trace());
    assert!(first.text().contains("is lost: "), "{}", first.text());
}

#[test]
fn a_run_without_end_is_ended() {
    let physics = Physics { store: 50, limit: 120, ..Physics::default() };
    let (end, world) = run(physics, Vec::new());
    assert_eq!(end, End::Endless);
    assert!(world.host().said.iter().all(|said| said.len() == 2));
}
