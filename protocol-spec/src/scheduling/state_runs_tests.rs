//! When periodic jobs are run.

use super::*;
use crate::scheduling::{EndedReplica, ReplicaExit, RunChange, RunStep};

/// The state after a slot that says this of job 1, and places nothing.
fn after(state: &ClusterState, step: RunStep) -> Result<ClusterState, StateError> {
    let next = Manifest {
        runs: vec![RunChange { job: job(1), step }],
        ..manifest(state, vec![], vec![], &[])
    };
    let nothing = assignments(&next, |_| None);
    state.apply(&next, &nothing)?;
    state.follow(&record(state, next, nothing))
}

/// The same of all replicas of job 1, which have places.
fn ended(state: &ClusterState) -> ClusterState {
    let exit = ReplicaExit { code: Some(1), out_of_memory: false };
    let done = state.replicas_of(job(1)).map(|replica| EndedReplica { job: job(1), replica, exit });
    let next = Manifest { done: done.collect(), ..manifest(state, vec![], vec![], &[]) };
    let nothing = assignments(&next, |_| None);
    state.follow(&record(state, next, nothing)).unwrap()
}

#[test]
fn each_time_is_decided_on_once_and_in_order() {
    let noted = after(&ClusterState::default(), RunStep::Noted { time: 60 }).unwrap();
    assert_eq!(noted.runs_of(&job(1)), Some(Runs { time: 60, last: None, left_out: false }));
    assert_wire(&noted);
    let known = Err(StateError::Run(RunError::Known(job(1))));
    assert_eq!(after(&noted, RunStep::Noted { time: 120 }), known);
    for step in [RunStep::Begins { time: 60 }, RunStep::LeftOut { time: 59 }] {
        let (job, time) = (job(1), step.time().unwrap());
        let refused = RunError::Time { job, time, last: 60 };
        assert_eq!(after(&noted, step), Err(refused.into()));
    }
    let begun = after(&noted, RunStep::Begins { time: 120 }).unwrap();
    let last = Some(Run { time: 120, slot: begun.last_slot() });
    assert_eq!(begun.runs_of(&job(1)), Some(Runs { time: 120, last, left_out: false }));
    let left_out = after(&begun, RunStep::LeftOut { time: 180 }).unwrap();
    assert_eq!(left_out.runs_of(&job(1)), Some(Runs { time: 180, last, left_out: true }));
    let roots = [&noted, &begun, &left_out].map(ClusterState::state_root);
    assert!(roots.iter().collect::<BTreeSet<_>>().len() == 3, "the root commits to it");
    let forgotten = after(&left_out, RunStep::Forgotten).unwrap();
    assert_eq!((forgotten.runs_of(&job(1)), forgotten.periodic().count()), (None, 0));
    let unknown = Err(StateError::Run(RunError::Unknown(job(1))));
    assert_eq!(after(&forgotten, RunStep::Begins { time: 240 }), unknown);
    assert_eq!(after(&forgotten, RunStep::Forgotten), unknown);
}

#[test]
fn a_run_begins_when_the_one_before_has_left_and_forgets_how_that_ended() {
    let (placed, _) = placed();
    let noted = after(&placed, RunStep::Noted { time: 60 }).unwrap();
    let under_way = Err(StateError::Run(RunError::UnderWay(job(1))));
    assert_eq!(after(&noted, RunStep::Begins { time: 120 }), under_way);
    // What leaves in the same slot is not in its way, and what is to come waits for the next.
    let runs = vec![RunChange { job: job(1), step: RunStep::Begins { time: 120 } }];
    let leaving: Vec<_> = (0..3)
        .map(|replica| LeavingReplica { job: job(1), replica: ReplicaIndex(replica) })
        .collect();
    let replaced = Manifest { runs: runs.clone(), ..manifest(&noted, vec![], leaving, &[]) };
    let state = noted.apply(&replaced, &assignments(&replaced, |_| None)).unwrap();
    assert_eq!(state.replicas().count(), 0);

    let over = ended(&noted);
    assert_eq!(over.done().count(), 3);
    let again = Manifest { runs, ..manifest(&over, pending(5, 1, 3..4), vec![], &[]) };
    let refused = over.apply(&again, &assignments(&again, |_| None));
    assert_eq!(refused, Err(RunError::Pending(job(1)).into()));
    assert_eq!(after(&over, RunStep::LeftOut { time: 120 }).unwrap().done().count(), 3);
    let begun = after(&over, RunStep::Begins { time: 120 }).unwrap();
    assert_eq!((begun.done().count(), begun.replicas().count()), (0, 0));
    let next = manifest(&begun, pending(5, 1, 0..3), vec![], &[]);
    assert!(begun.apply(&next, &assignments(&next, |_| Some(worker(4)))).is_ok());
}

#[test]
fn only_so_many_are_remembered_and_the_largest_state_holds_them() {
    let mut state = ClusterState::default();
    let runs = Runs {
        time: u64::MAX,
        last: Some(Run { time: u64::MAX, slot: Slot(u64::MAX) }),
        left_out: true,
    };
    for i in 0..MAX_PERIODIC as u16 {
        let mut job = job(0xff);
        job.0[..2].copy_from_slice(&i.to_be_bytes());
        state.runs.insert(job, runs);
    }
    let bytes = crate::codec::encode(&state.runs).len();
    assert_eq!(bytes, 2 + MAX_PERIODIC * Runs::MAX_ENTRY_BYTES);
    let one_more = Err(StateError::Run(RunError::TooMany(MAX_PERIODIC + 1)));
    assert_eq!(after(&state, RunStep::Noted { time: 0 }), one_more);
}
