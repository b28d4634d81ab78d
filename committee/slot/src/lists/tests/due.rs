//! Periodic jobs.

use proptest::prelude::*;
use veil_protocol_spec::scheduling::{
    MAX_PERIODIC_OF_OPERATOR, MAX_RUN_CHANGES, Overlap, ReplicaExit, Run, RunStep,
};

use super::{rules::Known, *};
use crate::demand::Timetable;

const MINUTE: u64 = 60;

/// Job 1 is a periodic one with two replicas, and none of its times has come.
fn periodic(overlap: Overlap) -> Known {
    let mut known = Known::new(LeasePolicy::Keep);
    make_periodic(&mut known, 1, overlap);
    known
}

fn make_periodic(known: &mut Known, byte: u8, overlap: Overlap) {
    let demand = known.demands.get_mut(&job(byte)).unwrap();
    (demand.is_batch, demand.replicas) = (true, 2);
    (demand.terms.rolls, demand.terms.stops_first, demand.terms.replicas) = (false, true, 2);
    demand.timetable = Some(Timetable { latest: 0, now: 0, overlap });
}

/// By the clock of the next manifest's block; a time is every hour.
fn at(known: &mut Known, now: u64) {
    for demand in known.demands.values_mut() {
        if let Some(timetable) = &mut demand.timetable {
            (timetable.now, timetable.latest) = (now, now - now % (60 * MINUTE));
        }
    }
}

const fn hour(hours: u64) -> u64 {
    hours * 60 * MINUTE
}

fn steps(known: &Known, state: &ClusterState) -> Vec<(Blake3Digest, RunStep)> {
    known.next(state).runs.iter().map(|change| (change.job, change.step)).collect()
}

fn pending(known: &Known, state: &ClusterState) -> Vec<u16> {
    known.next(state).pending.iter().map(|pending| pending.replica.0).collect()
}

/// Its replicas end, whose workers say so.
fn end(known: &mut Known, state: &ClusterState, byte: u8, code: i32) {
    known.ended.clear();
    for replica in state.replicas_of(job(byte)) {
        let worker = state.placement(job(byte), replica).unwrap().worker;
        let exit = ReplicaExit { code: Some(code), out_of_memory: false };
        let mut all = known.ended.get(&worker).map(|list| list.to_vec()).unwrap_or_default();
        all.push(EndedReplica { job: job(byte), replica, exit });
        known.ended.insert(worker, all.into());
    }
}

/// The job was submitted at 10:30 and its first run is placed, at 11:00, on workers 1 and 2.
fn running(overlap: Overlap) -> (Known, ClusterState) {
    let mut known = periodic(overlap);
    at(&mut known, hour(10) + 1800);
    let state = known.slot(&ClusterState::default(), |_| None);
    at(&mut known, hour(11) + 5);
    let state = known.slot(&state, |_| None);
    let state = known.slot(&state, |i| Some(i as u8 + 1));
    assert_eq!(state.replicas_of(job(1)).count(), 2);
    (known, state)
}

#[test]
fn the_first_run_is_at_the_first_time_after_the_job_is_noted() {
    let mut known = periodic(Overlap::Skip);
    at(&mut known, hour(10) + 1800);
    let state = ClusterState::default();
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Noted { time: hour(10) })]);
    assert_eq!(pending(&known, &state), [0; 0]);
    let state = known.slot(&state, |_| None);
    let next = known.next(&state);
    assert_eq!((next.runs.len(), next.pending.len()), (0, 0), "10:00 is over");
    assert_eq!(next.not_considered[&job(1)], NotConsidered::NotYet);
    at(&mut known, hour(11) - 1);
    assert_eq!(steps(&known, &state), []);
    at(&mut known, hour(11));
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Begins { time: hour(11) })]);
    let state = known.slot(&state, |_| None);
    assert_eq!((pending(&known, &state), steps(&known, &state)), (vec![0, 1], vec![]));
    let last = state.runs_of(&job(1)).unwrap().last;
    assert_eq!(last, Some(Run { time: hour(11), slot: state.last_slot() }));
}

#[test]
fn a_run_that_is_over_makes_room_for_the_next_and_is_remembered_until_then() {
    for code in [0, 1] {
        let (mut known, state) = running(Overlap::Skip);
        end(&mut known, &state, 1, code);
        let state = known.slot(&state, |_| None);
        known.ended.clear();
        assert_eq!((state.replicas().count(), state.done().count()), (0, 2));
        assert_eq!((steps(&known, &state).len(), pending(&known, &state).len()), (0, 0));
        at(&mut known, hour(12) + 1);
        assert_eq!(steps(&known, &state), [(job(1), RunStep::Begins { time: hour(12) })]);
        let state = known.slot(&state, |_| None);
        assert_eq!((state.done().count(), pending(&known, &state)), (0, vec![0, 1]));
    }
}

#[test]
fn of_times_that_were_missed_the_last_one_is_run() {
    let (mut known, state) = running(Overlap::Skip);
    end(&mut known, &state, 1, 0);
    let state = known.slot(&state, |_| None);
    known.ended.clear();
    at(&mut known, hour(17) + 60);
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Begins { time: hour(17) })]);
    let state = known.slot(&state, |_| None);
    assert_eq!(steps(&known, &state), []);
}

#[test]
fn while_a_run_is_under_way_the_next_is_left_out() {
    let (mut known, state) = running(Overlap::Skip);
    at(&mut known, hour(12));
    let next = known.next(&state);
    assert_eq!(steps(&known, &state), [(job(1), RunStep::LeftOut { time: hour(12) })]);
    assert!(next.leaving.is_empty() && next.pending.is_empty());
    assert!(!next.has_runs(), "that is no reason for a slot");
    // It has ended when the slot is, in which it is left out; so it does not begin afterwards.
    end(&mut known, &state, 1, 0);
    assert_eq!(steps(&known, &state), [(job(1), RunStep::LeftOut { time: hour(12) })]);
    let state = known.slot(&state, |_| None);
    let runs = state.runs_of(&job(1)).unwrap();
    assert_eq!((runs.time, runs.left_out, runs.last.unwrap().time), (hour(12), true, hour(11)));
    assert_eq!(steps(&known, &state), []);
    at(&mut known, hour(13));
    let state = known.slot(&state, |_| None);
    assert!(!state.runs_of(&job(1)).unwrap().left_out);
    // What waits for a place is under way, too.
    at(&mut known, hour(14));
    assert_eq!(steps(&known, &state), [(job(1), RunStep::LeftOut { time: hour(14) })]);
}

#[test]
fn a_run_that_is_replaced_leaves_before_the_next_begins() {
    let (mut known, state) = running(Overlap::Replace);
    at(&mut known, hour(12));
    let next = known.next(&state);
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Begins { time: hour(12) })]);
    assert_eq!(next.leaving.iter().map(|l| l.replica.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((next.pending.len(), next.staying), (0, 0));
    let state = known.slot(&state, |_| None);
    assert_eq!((state.replicas().count(), pending(&known, &state)), (0, vec![0, 1]));
    // One that has ended half leaves with what is left of it.
    let state = known.slot(&state, |_| Some(3));
    end(&mut known, &state, 1, 0);
    let first = known.ended[&worker(3)][0];
    known.ended.insert(worker(3), [first].into());
    let state = known.slot(&state, |_| None);
    known.ended.clear();
    at(&mut known, hour(13));
    assert_eq!(known.next(&state).leaving.len(), 1);
    let state = known.slot(&state, |_| None);
    assert_eq!((state.done().count(), pending(&known, &state)), (0, vec![0, 1]));
}

#[test]
fn what_is_withdrawn_is_forgotten_and_what_is_revoked_is_not() {
    let (mut known, state) = running(Overlap::Skip);
    let allowed = known.demands[&job(1)];
    at(&mut known, hour(12));
    let refused = Some(NotConsidered::Image);
    known.demands.insert(job(1), JobDemand { refused, ..allowed });
    assert_eq!((steps(&known, &state), known.next(&state).leaving.len()), (vec![], 2));
    known.demands.insert(job(1), allowed);
    known.submissions[0].cancelled = true;
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Forgotten)]);
    let state = known.slot(&state, |_| None);
    assert_eq!((state.runs_of(&job(1)), state.replicas().count()), (None, 0));
    assert_eq!(steps(&known, &state), []);
}

/// "What ends by itself is not waited for: its other versions leave at once." The new version has its own times.
#[test]
fn a_new_version_takes_over_at_its_first_time() {
    let (mut known, state) = running(Overlap::Skip);
    known.submit(6, 2, 1, 0, 2);
    make_periodic(&mut known, 2, Overlap::Skip);
    known.demands.get_mut(&job(2)).unwrap().line = known.demands[&job(1)].line;
    at(&mut known, hour(11) + 600);
    assert_eq!(steps(&known, &state), [(job(2), RunStep::Noted { time: hour(11) })]);
    let state = known.slot(&state, |_| None);
    let next = known.next(&state);
    assert_eq!(next.leaving.iter().map(|l| l.job).collect::<Vec<_>>(), [job(1); 2]);
    assert_eq!(steps(&known, &state), [(job(1), RunStep::Forgotten)]);
    let state = known.slot(&state, |_| None);
    assert_eq!(pending(&known, &state), [0; 0]);
    at(&mut known, hour(12));
    assert_eq!(steps(&known, &state), [(job(2), RunStep::Begins { time: hour(12) })]);
    let state = known.slot(&state, |_| None);
    let listed: Vec<_> = known.next(&state).pending.iter().map(|p| p.job).collect();
    assert_eq!(listed, [job(2); 2]);
}

/// "A job that is not listed is no objection." One that is must be judged, and in an appeal by no one's database.
#[test]
fn a_judge_compares_what_is_listed_and_in_an_appeal_no_time_zones() {
    let (mut known, state) = running(Overlap::Replace);
    at(&mut known, hour(12) + 30);
    let nothing = BTreeSet::new();
    let judge = |known: &Known, runs: &[RunChange], in_appeal| {
        let (pending, done, versions) = (&nothing, &nothing, &nothing);
        let judged =
            Judged { pending, done, versions, forgotten: &[], runs, leaving: &[], in_appeal };
        known.judges(&state, Some(judged))
    };
    let begins = |time| RunChange { job: job(1), step: RunStep::Begins { time } };
    assert_eq!(judge(&known, &[], false).runs, []);
    assert_eq!(judge(&known, &[], false).leaving, [], "nor does anything leave for it");
    assert_eq!(judge(&known, &[begins(hour(12))], false).runs, [begins(hour(12))]);
    for wrong in [hour(11) + 60, hour(12) - 60] {
        assert_eq!(judge(&known, &[begins(wrong)], false).runs, [begins(hour(12))]);
        assert_eq!(judge(&known, &[begins(wrong)], true).runs, [begins(wrong)]);
    }
    for never in [hour(12) + 60, hour(12) + 30, hour(11), 0] {
        assert_ne!(judge(&known, &[begins(never)], true).runs, [begins(never)], "{never}");
    }
    let skipped = RunChange { job: job(1), step: RunStep::LeftOut { time: hour(12) } };
    assert_eq!(judge(&known, &[skipped], true).runs, [begins(hour(12))]);
    known.demands.clear();
    assert_eq!(judge(&known, &[begins(hour(12))], true).unknown, [job(1)], "to be fetched");
    assert_eq!(judge(&known, &[], true).unknown, []);
}

#[test]
fn a_slot_says_so_much_of_periodic_jobs_and_an_operator_has_so_many() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.submissions.clear();
    let digest = |k: u16| {
        let mut digest = job(7);
        digest.0[..2].copy_from_slice(&k.to_be_bytes());
        digest
    };
    let most = MAX_PERIODIC_OF_OPERATOR as u16;
    let demand = periodic(Overlap::Skip).demands[&job(1)];
    for (operator, k) in (0..=most).map(|k| (1, k)).chain([(2, most + 1)]) {
        let (operator, job) = (Address([operator; 20]), digest(k));
        let position = u64::from(k) + 1;
        known.submissions.push(Submission { job, operator, ..submission(position, 1) });
        let line = JobLine(job.0);
        known.demands.insert(job, JobDemand { operator, line, template: job, ..demand });
    }
    let first = known.next(&ClusterState::default());
    assert_eq!(first.runs.len(), MAX_RUN_CHANGES);
    let state = known.slot(&ClusterState::default(), |_| None);
    let next = known.next(&state);
    let noted: Vec<_> = next.runs.iter().map(|change| change.job).collect();
    assert_eq!(noted, [digest(most + 1)], "another operator's has room");
    assert_eq!(next.not_considered[&digest(most)], NotConsidered::TooManyPeriodic);
}

proptest! {
    /// Whatever the blocks' times, whichever replicas end, and whenever slots take place: a run begins at one of the
    /// job's times that has come, each at most once and in order, and never beside the one before.
    #[test]
    fn each_time_begins_at_most_one_run_and_never_before_it(
        replaces in any::<bool>(),
        slots in prop::collection::vec((0u64..3 * 60, any::<u8>(), any::<bool>(), any::<bool>()), 1..40),
    ) {
        let overlap = if replaces { Overlap::Replace } else { Overlap::Skip };
        let mut known = periodic(overlap);
        let mut state = ClusterState::default();
        let (mut now, mut begun, mut noted) = (hour(10), Vec::new(), None);
        for (passed, ends, decided, places) in slots {
            now += passed * MINUTE;
            at(&mut known, now);
            end(&mut known, &state, 1, 0);
            for (_, list) in known.ended.iter_mut() {
                *list = list.iter().filter(|of| ends >> (of.replica.0 % 8) & 1 == 1).copied().collect();
            }
            if !decided {
                continue;
            }
            let before = state.clone();
            let next = known.next(&state);
            state = known.slot(&state, |i| places.then_some(i as u8 + 1));
            for change in &next.runs {
                let time = change.step.time().unwrap();
                prop_assert!(time <= now && time % hour(1) == 0);
                match change.step {
                    RunStep::Noted { .. } => prop_assert!(noted.replace(time).is_none()),
                    RunStep::Begins { .. } => {
                        prop_assert!(begun.last().or(noted.as_ref()).is_some_and(|last| *last < time));
                        begun.push(time);
                        prop_assert_eq!(state.replicas_of(job(1)).count(), 0);
                        prop_assert_eq!(state.done().count(), 0);
                        let under_way = before.replicas_of(job(1)).next().is_some();
                        prop_assert!(replaces || !under_way);
                    }
                    RunStep::LeftOut { .. } => prop_assert!(!replaces),
                    RunStep::Forgotten => prop_assert!(false, "it is wanted"),
                }
            }
            prop_assert_eq!(ClusterState::from_wire(&state.to_wire()), Ok(state.clone()));
            prop_assert!(begun.is_empty() || state.runs_of(&job(1)).unwrap().last.unwrap().time == *begun.last().unwrap());
        }
    }
}
