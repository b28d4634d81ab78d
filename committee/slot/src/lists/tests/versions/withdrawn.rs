//! Versions whose submissions are withdrawn one by one, as the contract allows.

use super::*;

fn withdraw(known: &mut Known, byte: u8) {
    let own = known.submissions.iter_mut().find(|submission| submission.job == job(byte)).unwrap();
    own.cancelled = true;
}

/// Version 1, healthy, is followed by version 2, which is.
fn twice() -> (Known, ClusterState) {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let state = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
    assert_eq!(running(&state), [(2, 0), (2, 1), (2, 2)]);
    (known, state)
}

#[test]
fn a_version_that_fails_reverts_past_one_that_is_withdrawn() {
    let (mut known, state) = twice();
    submit(&mut known, 12, 3, |_| {});
    withdraw(&mut known, 2);
    let state = until_quiet(&mut known, state, |byte, _| Some(byte != 3), |_| {});
    assert_eq!(running(&state), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(state.line(&LINE).unwrap().phase(), RolloutPhase::Settled);
}

#[test]
fn one_that_came_back_and_is_withdrawn_gives_way_to_the_one_before() {
    let (mut known, state) = twice();
    submit(&mut known, 12, 3, |_| {});
    let healthy = |byte: u8, _| Some(byte != 3);
    let state = until_quiet(&mut known, state, healthy, |_| {});
    assert_eq!(running(&state), [(2, 0), (2, 1), (2, 2)]);
    withdraw(&mut known, 2);
    let state = until_quiet(&mut known, state, healthy, |_| {});
    assert_eq!(running(&state), [(1, 0), (1, 1), (1, 2)]);
    // And nothing is left to come back to.
    withdraw(&mut known, 1);
    let state = until_quiet(&mut known, state, healthy, |_| {});
    assert_eq!(running(&state), []);
    assert_eq!(state.line(&LINE).unwrap().phase(), RolloutPhase::Halted);
    let waits = waits_for(
        &state,
        &state.lines_by_job(),
        &RolloutChanges::default(),
        job(3),
        ReplicaIndex(0),
    );
    assert_eq!(waits, Some(VersionWait::Failed { number: 3 }));
}

#[test]
fn withdrawing_the_newest_version_stops_the_job_and_the_rest_is_forgotten() {
    let (mut known, state) = started();
    submit(&mut known, 9, 2, |_| {});
    let state = known.slot(&state, |_| None);
    let state = known.slot(&state, |_| Some(4));
    known.submissions[1].cancelled = true;
    let end = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
    assert_eq!((running(&end), end.lines().count()), (vec![], 1), "version 1 must not come back");
    // A judge that has not the body of an open one asks for it.
    let judge = |known: &Known, forgotten: &[JobLine]| {
        known.judges(&end, Some(Judged { forgotten, ..EMPTY_APPEAL }))
    };
    let mut other = known.clone();
    other.submissions.push(submission(7, 8));
    other.submissions[0].cancelled = true;
    assert_eq!(judge(&other, &[LINE]).unknown, [job(8)]);
    assert_eq!(judge(&other, &[]).unknown, []);
    known.submissions[0].cancelled = true;
    assert_eq!(judge(&known, &[LINE]).rollouts.forgotten, [LINE]);
    assert!(judge(&known, &[]).rollouts.is_empty());
    let end = until_quiet(&mut known, end.clone(), |_, _| None, |_| {});
    assert_eq!((running(&end), end.lines().count()), (vec![], 0));
}
