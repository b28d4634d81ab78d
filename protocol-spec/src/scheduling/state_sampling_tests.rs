//! What follows from how many workers a try asks.

use super::*;
use crate::scheduling::{ALL_CANDIDATES, SAMPLE};

/// One replica, on this many workers.
fn among(state: &ClusterState, workers: u8, candidates: u16) -> Manifest {
    let mut pending = pending(0, 1, 0..1);
    pending[0].candidates = candidates;
    let mut manifest = manifest(state, pending, vec![], &[]);
    let entry = |w| TelemetryEntry { sender: worker(w), digest: Blake3Digest([w; 32]) };
    manifest.telemetry = (1..=workers).map(entry).collect();
    manifest
}

fn next(state: &ClusterState, manifest: Manifest, to: Option<PeerIdHash>) -> ClusterState {
    let assignments = assignments(&manifest, |_| to);
    state.follow(&record(state, manifest, assignments)).unwrap()
}

#[test]
fn an_answer_is_charged_by_what_the_try_asked() {
    let state = ClusterState::default();
    let told = |workers, candidates| {
        let manifest = among(&state, workers, candidates);
        state.void(&manifest).unwrap().told(&job(1), 1).0
    };
    assert_eq!([told(200, SAMPLE), told(200, 60), told(200, ALL_CANDIDATES)], [4, 6, 8]);
    assert_eq!([told(3, SAMPLE), told(1, SAMPLE), told(0, SAMPLE)], [2, 1, 0]);
}

#[test]
fn a_try_that_fails_widens_the_next_until_the_replica_has_a_place() {
    let mut state = ClusterState::default();
    let replica = ReplicaIndex(0);
    for failed in 1..=3 {
        // A worker more each time: the wait begins anew, the sample does not.
        let manifest = among(&state, failed, SAMPLE);
        state = next(&state, manifest, None);
        assert_eq!((state.failures(job(1), replica), state.failed(job(1), replica)), (1, failed));
    }
    // Nobody was asked.
    let manifest = among(&state, 0, SAMPLE);
    state = next(&state, manifest, None);
    assert_eq!(state.failed(job(1), replica), 3);
    let manifest = among(&state, 4, SAMPLE);
    state = next(&state, manifest, Some(worker(2)));
    assert_eq!(state.failed(job(1), replica), 0);
}

/// Whoever registers a worker after a draw is known could choose its name by it.
#[test]
fn a_worker_that_came_after_the_draw_is_late() {
    let state = ClusterState::default();
    let first = among(&state, 4, SAMPLE);
    assert_eq!(state.late(&first).count(), 0, "the draw is this manifest's own");
    let state = next(&state, first, None);
    let locked = among(&state, 5, SAMPLE);
    assert_eq!(state.late(&locked).count(), 0);
    let state = state.follow(&void(&state, locked.clone())).unwrap();
    let later = among(&state, 6, SAMPLE);
    assert_eq!(state.draw(&later), Draw::of(&locked));
    assert_eq!(state.late(&later).collect::<Vec<_>>(), [worker(5), worker(6)]);
    // An outcome draws anew.
    let state = next(&state, later, None);
    assert_eq!(state.late(&among(&state, 7, SAMPLE)).count(), 0);
}
