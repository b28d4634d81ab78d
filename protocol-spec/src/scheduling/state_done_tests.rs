//! Replicas that have ended for good.

use super::*;
use crate::scheduling::{EndedReplica, ReplicaExit};

const FAILED: ReplicaExit = ReplicaExit { code: Some(-3), out_of_memory: true };

fn ended(replica: u16) -> EndedReplica {
    EndedReplica { job: job(1), replica: ReplicaIndex(replica), exit: FAILED }
}

/// The state after a slot in which these of job 1 are done.
fn after(state: &ClusterState, done: Vec<EndedReplica>) -> ClusterState {
    let mut next = manifest(state, vec![], vec![], &[]);
    next.done = done;
    let nothing = assignments(&next, |_| None);
    state.follow(&record(state, next, nothing)).unwrap()
}

/// Replica 2 of job 1 is done.
pub(super) fn one_done(state: &ClusterState) -> ClusterState {
    after(state, vec![ended(2)])
}

#[test]
fn what_is_done_leaves_its_place_and_gets_none_again() {
    let (before, _) = placed();
    let state = one_done(&before);
    let (key, slot) = ((job(1), ReplicaIndex(2)), state.last_slot());
    let done = Done { placement: before.replicas[&key], slot, exit: FAILED };
    assert_eq!(state.done().collect::<Vec<_>>(), [(key.0, key.1, done)]);
    assert_eq!((state.done_replica(key.0, key.1), state.is_done(key.0, key.1)), (Some(done), true));
    assert_eq!((state.replicas().count(), state.placement(key.0, key.1)), (2, None));
    assert_eq!((state.last_changed(), state.last_freed()), (slot, slot), "there is room now");
    assert_wire(&state);

    let again = manifest(&state, pending(5, 1, 2..3), vec![], &[]);
    let refused = Err(StateError::Done { job: key.0, replica: key.1 });
    assert_eq!(state.apply(&again, &assignments(&again, |_| Some(worker(1)))), refused);
    let not_running =
        |replica| Err(StateError::NotRunning { job: job(1), replica: ReplicaIndex(replica) });
    for replica in [2, 3] {
        let mut twice = manifest(&state, vec![], vec![], &[]);
        twice.done = vec![ended(replica)];
        let nothing = assignments(&twice, |_| None);
        assert_eq!(state.apply(&twice, &nothing), not_running(replica));
    }
}

#[test]
fn what_becomes_done_does_not_run_on() {
    let (state, _) = placed();
    let mut next = manifest(&state, vec![], vec![], &[]);
    next.done = vec![ended(1)];
    let runs: Vec<_> = state.running(&next).map(|running| running.replica.0).collect();
    assert_eq!(runs, [0, 2]);
}

#[test]
fn what_is_done_is_remembered_until_its_job_is_not_wanted() {
    let (state, _) = placed();
    let state = one_done(&state);
    let idle = manifest(&state, vec![], vec![], &[]);
    let nothing = assignments(&idle, |_| None);
    let state = state.follow(&record(&state, idle, nothing.clone())).unwrap();
    assert_eq!(state.done().count(), 1);
    let void = void(&state, manifest(&state, vec![], all_leave(), &[]));
    let state = state.follow(&void).unwrap();
    assert_eq!(state.done().count(), 1, "a void slot changes nothing");
    let next = manifest(&state, vec![], all_leave(), &[]);
    let state = state.follow(&record(&state, next, nothing)).unwrap();
    assert_eq!((state.done().count(), state.replicas().count()), (0, 0));
}

#[test]
fn no_more_is_done_than_is_remembered() {
    let (mut state, _) = placed();
    let of = Done { placement: state.replicas[&(job(1), ReplicaIndex(0))], ..of_nobody() };
    let others = (0..MAX_DONE - 1).map(|i| ((job(7), ReplicaIndex(i as u16)), of));
    state.done = others.collect();
    let next = |done| {
        let mut next = manifest(&state, vec![], vec![], &[]);
        next.done = done;
        state.apply(&next, &assignments(&next, |_| None)).map(|after| after.done().count())
    };
    assert_eq!(next(vec![ended(0)]), Ok(MAX_DONE));
    let refused = Err(StateError::TooManyDone(MAX_DONE + 1));
    assert_eq!(next(vec![ended(0), ended(1)]), refused);
}

fn of_nobody() -> Done {
    let placement = Placement { worker: worker(9), slot: Slot(1) };
    Done { placement, slot: Slot(2), exit: ReplicaExit::default() }
}

/// With the leaf that the chain can recompute, and what its last run ended with.
#[test]
fn the_root_says_what_is_done() {
    let (state, _) = placed();
    let state = one_done(&state);
    let purpose = |text: &str| {
        let bytes = keccak(text.as_bytes());
        Words::default().bytes32(bytes.as_bytes())
    };
    let leaf = |words: Words| keccak(words.keccak().as_bytes());
    let of_replica = |replica: u8, flags| {
        let words = purpose("veil v2 state replica leaf").bytes32(&[1; 32]).uint(replica.into());
        leaf(words.uint(0).bytes32(&[replica + 1; 32]).uint(2).uint(flags))
    };
    let replicas = [of_replica(0, 0), of_replica(1, 0), of_replica(2, 1)];
    let booked = (1..=3u8)
        .map(|worker| leaf(purpose("veil v1 state worker leaf").bytes32(&[worker; 32]).uint(2)));
    let exit = purpose("veil v1 state exit leaf").bytes32(&[1; 32]).uint(2).uint(4).uint(3);
    let exit = leaf(exit.uint(u64::from(u32::MAX - 2)));
    let tried = keccak(&crate::codec::encode(&state.tries));
    let tries = leaf(purpose("veil v1 state tries leaf").bytes32(tried.as_bytes()));
    // A slot's state is what its certificate names, yet without it.
    let (before, _) = placed();
    let history = purpose("veil v1 state history leaf").uint(2);
    let history = leaf(history.bytes32(before.last_certificate().as_bytes()).uint(4));
    let uncertified = ClusterState { decided: before.decided, ..state };
    let leaves = replicas.into_iter().chain(booked).chain([exit, tries, history]);
    assert_eq!(uncertified.state_root(), MerkleTree::new(leaves.collect()).root());
}
