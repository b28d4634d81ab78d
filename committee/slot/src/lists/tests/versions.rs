//! Updates, slot after slot.

use proptest::prelude::*;
use veil_protocol_spec::scheduling::{RolloutPhase, VersionOutcome};

use super::{rules::Known, *};
use crate::rollout::{
    homes::predecessor,
    too_many_at_once,
    waits::{VersionWait, waits_for},
};

mod withdrawn;

const LINE: JobLine = JobLine([7; 32]);

/// Jobs of one line.
fn known() -> Known {
    let mut known = Known::new(LeasePolicy::Keep);
    known.demands.get_mut(&job(1)).unwrap().line = LINE;
    known
}

/// Another version, which changes `change` of job 1.
fn submit(known: &mut Known, position: u64, byte: u8, change: impl Fn(&mut JobDemand)) {
    known.submit(position, byte, 1, 0, 3);
    let demand = known.demands.get_mut(&job(byte)).unwrap();
    demand.line = LINE;
    change(demand);
    demand.terms.replicas = demand.replicas;
}

fn pending(next: &NextReplicas) -> Vec<(u8, u16)> {
    next.pending.iter().map(|p| (p.job.0[0], p.replica.0)).collect()
}

fn leaving(next: &NextReplicas) -> Vec<(u8, u16)> {
    next.leaving.iter().map(|l| (l.job.0[0], l.replica.0)).collect()
}

fn running(state: &ClusterState) -> Vec<(u8, u16)> {
    state.replicas().map(|(job, replica, _)| (job.0[0], replica.0)).collect()
}

/// Every worker says of what was placed in updates that it is healthy, or not.
fn all_say(known: &mut Known, state: &ClusterState, healthy: impl Fn(u8, u16) -> Option<bool>) {
    known.health.clear();
    for byte in 1..=4 {
        let said = state.unproven_at(worker(byte)).filter_map(|(job, replica, _)| {
            let healthy = healthy(job.0[0], replica.0)?;
            Some(ReplicaHealth { job, replica, healthy })
        });
        known.health.insert(worker(byte), said.collect());
    }
}

/// Slots until nothing is to be done; in each, every worker says how its replicas fare. `look` sees every state.
fn until_quiet(
    known: &mut Known,
    mut state: ClusterState,
    healthy: impl Fn(u8, u16) -> Option<bool>,
    mut look: impl FnMut(&ClusterState),
) -> ClusterState {
    for slot in 0..100u8 {
        all_say(known, &state, &healthy);
        let next = known.next(&state);
        let work = (next.pending.len(), next.leaving.len(), next.rollouts.is_empty());
        if work == (0, 0, true) {
            return state;
        }
        state = known.slot(&state, |i| Some(1 + (slot + i as u8) % 4));
        look(&state);
    }
    panic!("it does not come to an end");
}

/// Replicas that a client finds, by index: those that are healthy, and those that ran before.
fn serving(state: &ClusterState, healthy: impl Fn(u8, u16) -> Option<bool>) -> BTreeSet<u16> {
    let serves = |job: Blake3Digest, replica| {
        !state.is_unproven(job, replica) || healthy(job.0[0], replica.0) == Some(true)
    };
    let all = state.replicas().filter(|(job, replica, _)| serves(*job, *replica));
    all.map(|(_, replica, _)| replica.0).collect()
}

fn started() -> (Known, ClusterState) {
    let known = known();
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    (known, state)
}

fn outcome(state: &ClusterState, byte: u8) -> VersionOutcome {
    state.line(&LINE).unwrap().version(&job(byte)).unwrap().outcome
}

/// What an appeal says that lists nothing.
const EMPTY_APPEAL: Judged<'static> = Judged {
    pending: &BTreeSet::new(),
    done: &BTreeSet::new(),
    versions: &BTreeSet::new(),
    forgotten: &[],
    runs: &[],
    leaving: &[],
    in_appeal: true,
};

#[test]
fn a_job_of_the_same_name_is_a_version_and_takes_no_place_before() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let next = known.next(&state);
    let listed: Vec<_> = next.rollouts.versions.iter().map(|v| (v.submission, v.job)).collect();
    assert_eq!(listed, [(5, job(1)), (9, job(2))]);
    assert_eq!((pending(&next), leaving(&next)), (vec![], vec![]));
    let state = known.slot(&state, |_| None);
    let next = known.next(&state);
    assert_eq!((pending(&next), leaving(&next)), (vec![(2, 0)], vec![]));
    assert!(next.rollouts.is_empty());
}

#[test]
fn replicas_are_replaced_one_by_one_and_none_is_missing() {
    let (mut known, state) = started();
    for max_parallel in [1u16, 2, 3] {
        let mut known = known.clone();
        submit(&mut known, 9, 2, |of| of.terms.max_parallel = max_parallel);
        let healthy = |_, _| Some(true);
        let end = until_quiet(&mut known, state.clone(), healthy, |state| {
            assert_eq!(serving(state, healthy).len(), 3);
            let unproven = (1..=4).flat_map(|w| state.unproven_at(worker(w)));
            assert!(unproven.count() <= usize::from(max_parallel));
        });
        assert_eq!(running(&end), [(2, 0), (2, 1), (2, 2)]);
        assert_eq!(end.line(&LINE).unwrap().phase(), RolloutPhase::Settled);
    }
    // One that is never healthy holds the others up.
    submit(&mut known, 9, 2, |_| {});
    let end = until_quiet(&mut known, state, |_, _| None, |_| {});
    assert_eq!(running(&end), [(1, 0), (1, 1), (1, 2), (2, 0)]);
}

#[test]
fn a_version_that_was_nowhere_finds_where_the_one_before_has_its_data() {
    let (mut known, state) = started();
    let at = |state: &ClusterState, byte| {
        [0, 1, 2].map(|replica| {
            predecessor(state, state.line_of(&job(byte))?, job(byte), ReplicaIndex(replica))
        })
    };
    assert_eq!(at(&state, 1), [None; 3]);
    submit(&mut known, 9, 2, |_| {});
    let noted = known.slot(&state, |_| None);
    assert_eq!(at(&noted, 2), [1, 2, 3].map(|of| Some((job(1), worker(of)))));
    assert_eq!(at(&noted, 1), [None; 3], "what has a place has its own");
    // Each goes elsewhere. The third version looks where the second has its place, of which only some are placed.
    let placed = known.slot(&noted, |_| Some(4));
    assert_eq!(at(&placed, 2)[0], None);
    submit(&mut known, 12, 3, |_| {});
    let third = known.slot(&placed, |_| None);
    assert_eq!(at(&third, 3)[..2], [Some((job(2), worker(4))), Some((job(1), worker(2)))]);
}

#[test]
fn a_broken_version_ends_reverted_at_whatever_replica_it_breaks() {
    for broken in 0..3 {
        let (mut known, state) = started();
        submit(&mut known, 9, 2, |_| {});
        let healthy = |byte, replica| Some(byte == 1 || replica != broken);
        let end = until_quiet(&mut known, state, healthy, |state| {
            assert_eq!(serving(state, healthy).len(), 3);
        });
        assert_eq!(running(&end), [(1, 0), (1, 1), (1, 2)]);
        assert_eq!(outcome(&end, 2), VersionOutcome::Failed);
        assert!(known.next(&end).pending.is_empty(), "it is not tried again");
    }
}

#[test]
fn without_revert_what_was_healthy_stays_as_it_is() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| of.terms.auto_revert = false);
    let healthy = |_, replica| Some(replica != 1);
    let end = until_quiet(&mut known, state, healthy, |_| {});
    assert_eq!(running(&end), [(1, 1), (1, 2), (2, 0), (2, 1)]);
    assert_eq!(end.line(&LINE).unwrap().phase(), RolloutPhase::Halted);
    // The next one supersedes it.
    submit(&mut known, 11, 3, |_| {});
    let end = until_quiet(&mut known, end, |_, _| Some(true), |_| {});
    assert_eq!(running(&end), [(3, 0), (3, 1), (3, 2)]);
}

#[test]
fn scaling_restarts_nothing() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| (of.template, of.replicas) = (job(1), 5));
    let up = until_quiet(
        &mut known,
        state,
        |_, _| Some(true),
        |state| {
            assert!(running(state).starts_with(&[(1, 0), (1, 1), (1, 2)]));
        },
    );
    assert_eq!(running(&up), [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]);
    submit(&mut known, 12, 3, |of| (of.template, of.replicas) = (job(1), 2));
    let down = until_quiet(&mut known, up, |_, _| None, |_| {});
    assert_eq!(running(&down), [(1, 0), (1, 1)]);
    // What loses its worker is placed as what it was.
    let held = down.placement(job(1), ReplicaIndex(1)).unwrap().worker;
    known.lose(held.0[0], 0);
    assert_eq!(pending(&known.next(&down)), [(1, 1)]);
    known.returns(held.0[0]);
    // An update of it all.
    submit(&mut known, 15, 4, |_| {});
    let end = until_quiet(&mut known, down, |_, _| Some(true), |_| {});
    assert_eq!(running(&end), [(4, 0), (4, 1), (4, 2)]);
}

#[test]
fn fewer_replicas_of_a_new_version_leave_last() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| of.replicas = 1);
    let end = until_quiet(
        &mut known,
        state,
        |_, _| Some(true),
        |state| {
            assert!(serving(state, |_, _| Some(true)).contains(&0));
        },
    );
    assert_eq!(running(&end), [(2, 0)]);
}

#[test]
fn a_later_version_supersedes_one_that_is_half_way() {
    let (mut known, mut state) = started();
    submit(&mut known, 9, 2, |_| {});
    let healthy = |_: u8, _: u16| Some(true);
    while !running(&state).contains(&(2, 1)) {
        all_say(&mut known, &state, healthy);
        state = known.slot(&state, |i| Some(i as u8 + 1));
    }
    submit(&mut known, 11, 3, |_| {});
    let end = until_quiet(&mut known, state, healthy, |state| {
        assert_eq!(serving(state, healthy).len(), 3);
    });
    assert_eq!(running(&end), [(3, 0), (3, 1), (3, 2)]);
    assert_eq!(outcome(&end, 2), VersionOutcome::Superseded);
    // It would come back to version 1: version 2 was never whole.
    submit(&mut known, 12, 4, |_| {});
    let end = until_quiet(&mut known, end, |byte, _| Some(byte != 4), |_| {});
    assert_eq!(running(&end), [(3, 0), (3, 1), (3, 2)]);
}

#[test]
fn a_worker_that_is_lost_half_way_takes_nothing_with_it_for_good() {
    for lost in 1..=4 {
        let (mut known, mut state) = started();
        submit(&mut known, 9, 2, |_| {});
        for _ in 0..4 {
            all_say(&mut known, &state, |_, _| Some(true));
            state = known.slot(&state, |i| Some(4 - i as u8));
        }
        known.lose(lost, 0);
        let away = worker(lost);
        let mut slots = 0;
        while running(&state) != [(2, 0), (2, 1), (2, 2)] || state.assigned_to(away).count() > 0 {
            all_say(&mut known, &state, |_, _| Some(true));
            known.health.remove(&away);
            let others: Vec<_> = (1..=4).filter(|byte| *byte != lost).collect();
            state = known.slot(&state, |i| Some(others[i % 3]));
            slots += 1;
            assert!(slots < 40, "{:?}", running(&state));
        }
    }
}

#[test]
fn what_runs_of_the_version_before_is_drained_like_anything_else() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let state = known.slot(&state, |_| None);
    let state = known.slot(&state, |_| Some(4));
    known.draining = [worker(2)].into();
    assert_eq!(pending(&known.next(&state)), [(1, 1)], "replica 0 of version 2 is not healthy yet");
    let state = known.slot(&state, |_| Some(3));
    let end = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
    assert!(running(&end).iter().all(|(byte, _)| *byte == 2));
}

#[test]
fn what_cannot_run_twice_stops_first_and_a_few_at_a_time() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| (of.terms.stops_first, of.terms.max_parallel) = (true, 2));
    let state = known.slot(&state, |_| None);
    let next = known.next(&state);
    assert_eq!((pending(&next), leaving(&next)), (vec![], vec![(1, 0), (1, 1)]));
    let state = known.slot(&state, |_| None);
    let next = known.next(&state);
    assert_eq!((pending(&next), leaving(&next)), (vec![(2, 0), (2, 1)], vec![]));
    // Nothing else leaves as long as these have no place, or are not healthy.
    let state = known.slot(&state, |i| (i == 0).then_some(4));
    assert!(known.next(&state).leaving.is_empty());
    let end = until_quiet(
        &mut known,
        state,
        |_, _| Some(true),
        |state| {
            assert!(!serving(state, |_, _| Some(true)).is_empty());
        },
    );
    assert_eq!(running(&end), [(2, 0), (2, 1), (2, 2)]);
}

#[test]
fn a_batch_job_that_is_submitted_again_runs_again() {
    let batch = |of: &mut JobDemand| {
        (of.is_batch, of.terms.rolls, of.terms.stops_first) = (true, false, true);
    };
    let (mut known, state) = started();
    batch(known.demands.get_mut(&job(1)).unwrap());
    let ended = |replica| EndedReplica {
        job: job(1),
        replica: ReplicaIndex(replica),
        exit: Default::default(),
    };
    known.ended.insert(worker(1), [ended(0)].into());
    let state = known.slot(&state, |_| None);
    known.ended.clear();
    submit(&mut known, 9, 2, batch);
    let state = known.slot(&state, |_| None);
    assert_eq!(leaving(&known.next(&state)), [(1, 0), (1, 1), (1, 2)], "what is done is forgotten");
    let state = known.slot(&state, |_| None);
    let end = until_quiet(&mut known, state, |_, _| None, |_| {});
    assert_eq!((running(&end), end.done().count()), (vec![(2, 0), (2, 1), (2, 2)], 0));
}

/// "A job that is not listed is no objection": a judge that knows more agrees, and one that knows less asks.
#[test]
fn whoever_judges_goes_by_what_is_listed_and_lets_no_second_one_beside_the_first() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let (nothing, both) = (BTreeSet::new(), BTreeSet::from([job(1), job(2)]));
    let judge = |known: &Known, pending: &BTreeSet<_>, versions: &BTreeSet<_>| {
        known.judges(&state, Some(Judged { pending, versions, ..EMPTY_APPEAL }))
    };
    let listed = judge(&known, &nothing, &both);
    assert_eq!((listed.rollouts.versions.len(), listed.unknown.len()), (2, 0));
    assert!(judge(&known, &nothing, &nothing).rollouts.is_empty(), "its proposer may not know it");
    assert!(judge(&known, &[job(2)].into(), &nothing).pending.is_empty(), "beside job 1");
    let one = judge(&known, &nothing, &[job(2)].into());
    assert!(one.rollouts.is_empty(), "one job is no line");
    known.demands.remove(&job(1));
    assert_eq!(judge(&known, &nothing, &both).unknown, [job(1)]);
    assert_eq!(judge(&known, &[job(2)].into(), &nothing).unknown, [job(1)]);
    assert!(known.next(&state).pending.is_empty(), "job 1 could be one with it");
}

#[test]
fn a_manifest_that_replaces_too_many_at_once_is_named() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| of.terms.max_parallel = 2);
    let state = known.slot(&state, |_| None);
    let mut written = manifest(&state, &known.submissions, &[], &[]);
    let listed = known.next(&state).pending;
    assert_eq!(listed.len(), 2);
    written.pending.clone_from(&listed);
    assert_eq!(too_many_at_once(&state, &written), None);
    let third = PendingReplica { replica: ReplicaIndex(2), ..listed[0] };
    written.pending.push(third);
    let over = too_many_at_once(&state, &written).unwrap();
    assert_eq!((over.job, over.found, over.most), (job(2), 3, 2));
}

#[test]
fn what_waits_for_other_versions_is_told_why() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |of| of.terms.auto_revert = false);
    let waits = |known: &Known, state: &ClusterState, byte: u8, replica| {
        waits_for(
            state,
            &state.lines_by_job(),
            &known.next(state).rollouts,
            job(byte),
            ReplicaIndex(replica),
        )
    };
    assert_eq!(waits(&known, &state, 2, 0), Some(VersionWait::Unnoted));
    let state = known.slot(&state, |_| None);
    assert_eq!(waits(&known, &state, 2, 0), None, "for room, as anything else");
    let state = known.slot(&state, |_| Some(4));
    let health = VersionWait::Health { number: 2, unproven: 1, most: 1 };
    assert_eq!(waits(&known, &state, 2, 1), Some(health));
    assert!(health.to_string().contains("waits for version 2's health"));
    assert_eq!(waits(&known, &state, 1, 7), Some(VersionWait::NotWanted));
    let end = until_quiet(&mut known, state, |_, _| Some(false), |_| {});
    assert_eq!(waits(&known, &end, 2, 1), Some(VersionWait::Failed { number: 2 }));
}

#[test]
fn only_the_worker_that_has_a_replica_says_how_it_fares() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let state = known.slot(&state, |_| None);
    let state = known.slot(&state, |_| Some(4));
    let said =
        |byte: u8, healthy| ReplicaHealth { job: job(byte), replica: ReplicaIndex(0), healthy };
    known.health.insert(worker(3), [said(2, false)].into());
    assert!(known.next(&state).rollouts.is_empty());
    known.health.insert(worker(1), [said(1, false)].into());
    assert!(known.next(&state).rollouts.is_empty(), "it was not placed in an update");
    known.health.insert(worker(4), [said(2, true)].into());
    assert_eq!(known.next(&state).rollouts.health, [said(2, true)]);
}

proptest! {
    /// Whatever is submitted, lost and said, and whichever bodies the proposer lacks: a judge that has all agrees, what
    /// is listed continues the state, and no more is replaced at once than may be.
    #[test]
    fn a_judge_agrees_with_every_honest_proposer(
        jobs in prop::collection::vec((0u8..3, 0u8..3, 1u16..5, any::<bool>()), 1..10),
        slots in prop::collection::vec((any::<u64>(), any::<u16>(), 0u8..4, any::<u16>()), 1..20),
    ) {
        let mut all = Known::new(LeasePolicy::Keep);
        all.submissions.clear();
        let mut state = ClusterState::default();
        let mut left = (10u8..).zip(&jobs);
        for (choice, hidden, lost, said) in slots {
            if choice & 3 != 0
                && let Some((byte, (line, template, replicas, stops_first))) = left.next()
            {
                all.submit(byte.into(), byte, 1, 0, *replicas);
                let demand = all.demands.get_mut(&job(byte)).unwrap();
                (demand.line, demand.template) = (JobLine([*line; 32]), job(100 + template));
                (demand.terms.replicas, demand.terms.stops_first) = (*replicas, *stops_first);
            }
            if choice >> 60 == 0 && !all.submissions.is_empty() {
                let at = said as usize % all.submissions.len();
                all.submissions[at].cancelled = true;
            }
            (1..=4).for_each(|byte| all.returns(byte));
            if lost > 0 {
                all.lose(lost, 0);
            }
            all_say(&mut all, &state, |byte, replica| match said >> ((byte + replica as u8) % 16) & 3 {
                0 => None,
                said => Some(said > 1),
            });
            all.health.retain(|worker, _| worker.0[0] != lost);
            let mut proposer = all.clone();
            for (byte, _) in (10u8..).zip(&jobs).filter(|(byte, _)| hidden >> (byte % 16) & 1 == 1) {
                proposer.demands.remove(&job(byte));
            }
            let proposed = proposer.next(&state);
            let pending: BTreeSet<_> = proposed.pending.iter().map(|p| p.job).collect();
            let versions: BTreeSet<_> = proposed.rollouts.versions.iter().map(|v| v.job).collect();
            let judged = Judged {
                pending: &pending,
                versions: &versions,
                forgotten: &proposed.rollouts.forgotten,
                runs: &proposed.runs,
                ..EMPTY_APPEAL
            };
            let judged = all.judges(&state, Some(judged));
            prop_assert_eq!(&judged.unknown, &vec![]);
            prop_assert_eq!(&judged.pending, &proposed.pending);
            prop_assert_eq!(&judged.leaving, &proposed.leaving);
            prop_assert_eq!(&judged.rollouts, &proposed.rollouts);
            let lost: Vec<_> = (lost > 0).then_some(lost).into_iter().collect();
            let listed = written(&state, &all.submissions, proposed, &lost);
            prop_assert_eq!(too_many_at_once(&state, &listed), None);
            state = proposer.slot(&state, |i| {
                let worker = 1 + (choice >> (i % 30)) as u8 % 4;
                (!lost.contains(&worker)).then_some(worker)
            });
        }
    }
}
