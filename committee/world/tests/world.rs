//! What the world promises to every machine.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_committee_world::{
    Conditions, Crash, End, Ended, Host, Mail, Partition, Physics, Schedule, Traffic, When, World,
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
    /// Who died, and whether a record was lost with it.
    died: Vec<(ParticipantIndex, bool)>,
}

impl Host for Counters {
    type Machine = Counter;
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

    fn crashed(&mut self, j: ParticipantIndex, _machine: &Counter, storing: bool) {
        self.died.push((j, storing));
    }

    fn store(&mut self, j: ParticipantIndex, record: u64) {
        self.disks[j.position()].push(record);
    }

    fn special(&mut self, j: ParticipantIndex, said: u64, schedule: &mut Schedule<Self>) {
        assert_eq!(self.disks[j.position()].last(), Some(&said), "said before it was durable");
        self.said[j.position()].push((schedule.now(), said));
    }
}

fn run(physics: Physics, crashes: Vec<Crash<()>>) -> Ended<Counters> {
    let physics = Physics { recorded: Some("counters".to_owned()), seed: [3; 32], ..physics };
    World::new(Counters::default(), COMMITTEE, physics, crashes).run()
}

fn crash(j: u8, at: When<()>, away: Option<Millis>) -> Vec<Crash<()>> {
    vec![Crash { participant: member(j), at, away }]
}

#[test]
fn a_record_is_durable_before_anything_after_it() {
    let ended = run(Physics { store: 5, ..Physics::default() }, Vec::new());
    assert_eq!(ended.end, End::Rest);
    for said in &ended.host.said {
        assert_eq!(*said, [(5, 0), (10, 1), (15, 2)]);
    }
    assert!(ended.machines.iter().flatten().all(|machine| machine.heard == 9));
    assert_eq!((ended.machines.len(), ended.effects), (4, vec![9; 4]));
    // Three messages of a byte to each of three others.
    assert_eq!(ended.traffic, [Traffic { messages: 9, bytes: 9, lost: 0, cut: 0 }; 4]);
}

#[test]
fn a_crash_loses_what_is_not_stored_and_nothing_else() {
    // Each number is three effects: stored, sent, said.
    for (effects, stored, said) in [(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 2, 1), (9, 3, 3)] {
        for away in [Some(100), None] {
            let ended = run(Physics::default(), crash(2, When::AfterEffects(effects), away));
            let host = ended.host;
            assert_eq!((ended.end, host.boots), (End::Rest, 5), "four starts and a return");
            assert_eq!(host.died, [(member(2), false)], "no record was on its way");
            assert_eq!(host.disks[1], [0, 1, 2], "after {effects} effects");
            // What was stored and not said before the crash is not said any more.
            let lost = stored - said;
            assert_eq!(host.said[1].len(), 3 - lost, "after {effects} effects");
            assert_eq!(host.said[0].len(), 3);
        }
    }
    // While the first record was under way.
    let host = run(Physics { store: 5, ..Physics::default() }, crash(2, When::Time(4), None)).host;
    assert_eq!(
        (host.disks[1].as_slice(), host.died.as_slice()),
        (&[0, 1, 2][..], &[(member(2), true)][..])
    );
    assert_eq!(host.said[1].len(), 3);
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let physics = || Physics {
        conditions: Conditions { drop: 300, duplicate: 300, ..Conditions::default() },
        ..Physics::default()
    };
    let log = |crashes| run(physics(), crashes).log;
    let (first, second) = (log(Vec::new()), log(Vec::new()));
    assert_eq!((first.trace(), first.text()), (second.trace(), second.text()));
    assert_ne!(first.trace(), log(crash(1, When::Time(3), None)).trace());
    assert!(first.text().contains("is lost: "), "{}", first.text());
}

#[test]
fn a_run_without_end_is_ended() {
    let physics = Physics { store: 50, limit: 120, ..Physics::default() };
    let ended = run(physics, Vec::new());
    assert_eq!(ended.end, End::Endless);
    assert!(ended.host.said.iter().all(|said| said.len() == 2));
}

// ---- the network ---------------------------------------------------------------------------------

/// Members that only hear what is planned for them.
#[derive(Default)]
struct Listeners(Vec<(Millis, char)>);

impl Host for Listeners {
    type Machine = Counter;
    type Moment = ();

    fn boot(&mut self, _: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Counter> {
        Some(Counter { effects: VecDeque::new(), heard: 0 })
    }

    fn special(&mut self, _: ParticipantIndex, _: u64, _: &mut Schedule<Self>) {}
}

fn listeners(
    conditions: Conditions,
    plan: impl FnOnce(&mut Schedule<Listeners>),
) -> Ended<Listeners> {
    let physics = Physics { conditions, seed: [1; 32], ..Physics::default() };
    let mut world = World::new(Listeners::default(), COMMITTEE, physics, Vec::new());
    plan(world.schedule());
    world.run()
}

#[test]
fn events_come_by_time_and_then_in_order() {
    let note = |name| {
        move |host: &mut Listeners, schedule: &mut Schedule<Listeners>| {
            host.0.push((schedule.now(), name));
        }
    };
    let ended = listeners(Conditions::default(), |schedule| {
        schedule.event(None, 5, note('c'));
        schedule.event(None, 3, move |host, schedule| {
            note('a')(host, schedule);
            schedule.event(None, 0, note('x'));
        });
        schedule.event(None, 3, note('b'));
    });
    assert_eq!(ended.host.0, [(3, 'a'), (3, 'b'), (3, 'x'), (5, 'c')]);
    assert_eq!(ended.now, 5);
}

#[test]
fn messages_are_lost_doubled_and_cut_off_as_told() {
    let mail = |j| Mail { from: member(1), to: member(j), bytes: Arc::new([0; 10]) };
    let heard = |conditions: Conditions, to: u8, delay: Millis| {
        let ended = listeners(conditions, |schedule| {
            (0..1000).for_each(|_| schedule.post(mail(to), delay));
        });
        let Traffic { messages, bytes, lost, cut } = ended.traffic[0];
        assert_eq!((messages, bytes), (1000, 10_000));
        let heard = ended.machines[usize::from(to) - 1].as_ref().map_or(0, |machine| machine.heard);
        (heard, lost, cut)
    };
    assert_eq!(heard(Conditions::default(), 2, 100), (1000, 0, 0));
    let (lossy, lost, _) = heard(Conditions { drop: 300, ..Conditions::default() }, 2, 100);
    assert!((600..800).contains(&lossy), "{lossy}");
    assert_eq!(lossy + lost, 1000);
    let (doubled, ..) = heard(Conditions { duplicate: 300, ..Conditions::default() }, 2, 100);
    assert!((1200..1400).contains(&doubled), "{doubled}");
    let groups = vec![vec![member(1), member(3)], vec![member(2)]];
    let partitions = vec![Partition { groups, from: 100, until: 200 }];
    let cut = Conditions { partitions, ..Conditions::default() };
    assert_eq!(heard(cut.clone(), 2, 100), (0, 0, 1000));
    assert_eq!(heard(cut.clone(), 2, 200), (1000, 0, 0));
    assert_eq!(heard(cut.clone(), 3, 150), (1000, 0, 0));
    let ended = listeners(cut, |schedule| {
        schedule.event(None, 150, |_, schedule| {
            assert!(schedule.way_to_commit_point(member(1)) < 55);
            assert!(schedule.way_to_commit_point(member(2)) >= 50);
        });
    });
    assert_eq!(ended.now, 150);
}
