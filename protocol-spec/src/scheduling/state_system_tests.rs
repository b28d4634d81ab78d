//! Replicas that are for one worker.

use super::*;
use crate::scheduling::assignment::Assignments;

/// One replica of a job for each of workers 1 and 2.
fn two(state: &ClusterState) -> Manifest {
    let mut pending = pending(0, 1, 0..2);
    (pending[0].only, pending[1].only) = (Some(0), Some(1));
    manifest(state, pending, vec![], &[])
}

fn placed(at: [Outcome; 2]) -> Assignments {
    let of =
        |(replica, outcome)| Assignment { job: job(1), replica: ReplicaIndex(replica), outcome };
    [0, 1].into_iter().zip(at).map(of).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn what_is_for_one_worker_goes_to_no_other_and_waits_for_that_one() {
    let state = ClusterState::default();
    let manifest = two(&state);
    let (first, second) = (Outcome::Node(worker(1)), Outcome::Node(worker(2)));
    let both = state.apply(&manifest, &placed([first, second])).unwrap();
    assert_eq!(both.replicas().count(), 2);
    let swapped = state.apply(&manifest, &placed([second, first]));
    assert_eq!(swapped.unwrap_err(), StateError::NotCandidate(worker(2)));
    let one = state.apply(&manifest, &placed([first, Outcome::Pending])).unwrap();
    assert_eq!(one.tried_at(job(1)).collect::<Vec<_>>(), [(ReplicaIndex(1), worker(2))]);
    assert_eq!(one.last_place(job(1), ReplicaIndex(1)), Some(worker(2)));
    // One bit for each, not those of a choice among four workers.
    assert_eq!(one.told(&job(1), 1).0, 2);
    assert_eq!(state.void(&manifest).unwrap().told(&job(1), 1).0, 2);
}
