//! Versions of jobs.

use super::*;
use crate::{
    ids::{Address, JobLine},
    scheduling::{NewVersion, ReplicaHealth, VersionTerms},
};

const LINE: JobLine = JobLine([7; 32]);

/// Job number `byte`, of as many replicas.
pub(super) fn version(submission: u64, byte: u8, replicas: u16) -> NewVersion {
    NewVersion {
        submission,
        job: job(byte),
        operator: Address([3; 20]),
        line: LINE,
        template: job(byte),
        terms: VersionTerms {
            replicas,
            max_parallel: 1,
            auto_revert: true,
            rolls: true,
            stops_first: false,
        },
    }
}

fn next(state: &ClusterState, rollouts: RolloutChanges) -> Manifest {
    Manifest { rollouts, ..manifest(state, vec![], vec![], &[]) }
}

fn follow(state: &ClusterState, manifest: Manifest, to: Option<u8>) -> ClusterState {
    let placed = assignments(&manifest, |_| to.map(worker));
    state.follow(&record(state, manifest, placed)).unwrap()
}

fn changes(versions: Vec<NewVersion>) -> RolloutChanges {
    RolloutChanges { versions, ..RolloutChanges::default() }
}

fn health(byte: u8, replica: u16, healthy: bool) -> RolloutChanges {
    let health = ReplicaHealth { job: job(byte), replica: ReplicaIndex(replica), healthy };
    RolloutChanges { health: vec![health], ..RolloutChanges::default() }
}

/// Job 1, three replicas, and job 2, which takes its place.
pub(super) fn updated() -> ClusterState {
    let (state, _) = placed();
    follow(&state, next(&state, changes(vec![version(5, 1, 3), version(9, 2, 3)])), None)
}

fn outcomes(state: &ClusterState) -> (u64, RolloutPhase, Vec<(u32, VersionOutcome)>) {
    let line = state.line(&LINE).unwrap();
    let of = line.versions().iter().map(|version| (version.number, version.outcome));
    (line.target().unwrap().submission, line.phase(), of.collect())
}

use VersionOutcome::{Failed, Healthy, Rolling, Superseded};

#[test]
fn the_newest_version_is_wanted_and_what_ran_before_was_good() {
    let state = updated();
    let rolling = (9, RolloutPhase::Rolling, vec![(1, Healthy), (2, Rolling)]);
    assert_eq!(outcomes(&state), rolling);
    assert_eq!(state.line_of(&job(1)).map(Line::count), Some(2));
    let lines = state.lines_by_job();
    assert!(lines.keys().eq([&job(1), &job(2)]));
    assert!(
        [1, 2, 3].iter().all(|byte| lines.get(&job(*byte)).copied() == state.line_of(&job(*byte)))
    );
    assert_wire(&state);
    let again = next(&state, changes(vec![version(9, 2, 3)]));
    let refused = RolloutError::KnownVersion(job(2));
    assert_eq!(state.apply(&again, &Assignments::default()), Err(refused.into()));
}

#[test]
fn what_is_placed_in_an_update_is_unproven_until_a_certificate_says_otherwise() {
    let state = updated();
    let place = |state: &_, replica| {
        let listed = manifest(state, pending(9, 2, replica..replica + 1), vec![], &[]);
        follow(state, listed, Some(4))
    };
    let state = place(&state, 0);
    assert!(state.is_unproven(job(2), ReplicaIndex(0)));
    assert_eq!(state.unproven_at(worker(4)).count(), 1);
    assert_eq!(state.unproven_at(worker(1)).count(), 0);
    assert_wire(&state);
    let wrong = next(&state, health(1, 0, true));
    let refused = RolloutError::NotRolling(job(1), ReplicaIndex(0));
    assert_eq!(state.apply(&wrong, &Assignments::default()), Err(refused.into()));
    let mut state = follow(&state, next(&state, health(2, 0, true)), None);
    assert!(!state.is_unproven(job(2), ReplicaIndex(0)));
    for replica in 1..3 {
        state = place(&state, replica);
        state = follow(&state, next(&state, health(2, replica, true)), None);
        assert_eq!(outcomes(&state).1, RolloutPhase::Rolling, "the others have not left");
    }
    let leaves = manifest(&state, vec![], all_leave(), &[]);
    let state = follow(&state, leaves, None);
    assert_eq!(outcomes(&state), (9, RolloutPhase::Settled, vec![(1, Healthy), (2, Healthy)]));
}

#[test]
fn a_version_that_fails_reverts_to_the_last_one_that_was_healthy() {
    let state = updated();
    let listed = manifest(&state, pending(9, 2, 0..1), vec![], &[]);
    let state = follow(&state, listed, Some(4));
    let state = follow(&state, next(&state, health(2, 0, false)), None);
    assert_eq!(outcomes(&state), (5, RolloutPhase::Rolling, vec![(1, Healthy), (2, Failed)]));
    let left = LeavingReplica { job: job(2), replica: ReplicaIndex(0) };
    let state = follow(&state, manifest(&state, vec![], vec![left], &[]), None);
    assert_eq!(outcomes(&state), (5, RolloutPhase::Settled, vec![(1, Healthy), (2, Failed)]));
    assert_eq!(state.unproven_at(worker(4)).count(), 0);
}

#[test]
fn a_version_whose_submission_is_withdrawn_does_not_come_back() {
    let withdrawn = |jobs: &[u8]| {
        let withdrawn = jobs.iter().map(|byte| job(*byte)).collect();
        RolloutChanges { withdrawn, ..RolloutChanges::default() }
    };
    let state = updated();
    for (wrong, why) in [(2, "the newest"), (3, "no version")] {
        let refused = RolloutError::NoFallback(job(wrong));
        let listed = next(&state, withdrawn(&[wrong]));
        assert_eq!(state.apply(&listed, &Assignments::default()), Err(refused.into()), "{why}");
    }
    let listed = manifest(&state, pending(9, 2, 0..1), vec![], &[]);
    let placed = follow(&state, listed, Some(4));
    // Before the newest fails, and after.
    let before = follow(&placed, next(&placed, withdrawn(&[1])), None);
    assert_eq!(outcomes(&before), (9, RolloutPhase::Rolling, vec![(1, Superseded), (2, Rolling)]));
    let before = follow(&before, next(&before, health(2, 0, false)), None);
    let after = follow(&placed, next(&placed, health(2, 0, false)), None);
    assert_eq!(outcomes(&after).0, 5);
    let after = follow(&after, next(&after, withdrawn(&[1])), None);
    for state in [before, after] {
        assert_eq!(outcomes(&state), (9, RolloutPhase::Halted, vec![(1, Superseded), (2, Failed)]));
        assert_wire(&state);
    }
}

#[test]
fn without_revert_a_version_that_fails_stops_until_the_next() {
    let (state, _) = placed();
    let mut stops = version(9, 2, 3);
    stops.terms.auto_revert = false;
    let state = follow(&state, next(&state, changes(vec![version(5, 1, 3), stops])), None);
    let listed = manifest(&state, pending(9, 2, 0..1), vec![], &[]);
    let state = follow(&state, listed, Some(4));
    let state = follow(&state, next(&state, health(2, 0, false)), None);
    assert_eq!(outcomes(&state), (9, RolloutPhase::Halted, vec![(1, Healthy), (2, Failed)]));
    // The same again is tried anew.
    let again = NewVersion { template: job(2), ..version(12, 3, 3) };
    let state = follow(&state, next(&state, changes(vec![again])), None);
    let all = vec![(1, Healthy), (2, Failed), (3, Rolling)];
    assert_eq!(outcomes(&state), (12, RolloutPhase::Rolling, all));
    assert!(!state.line(&LINE).unwrap().is_current(&job(2)));
}

#[test]
fn scaling_is_no_rollout_and_a_later_version_supersedes() {
    let state = updated();
    let scaled = NewVersion { template: job(2), ..version(10, 3, 5) };
    let rolls = follow(&state, next(&state, changes(vec![scaled])), None);
    assert_eq!(outcomes(&rolls).2, [(1, Healthy), (2, Rolling), (3, Rolling)].to_vec());
    let line = rolls.line(&LINE).unwrap();
    assert!(line.is_current(&job(2)) && !line.is_current(&job(1)));
    let later = follow(&rolls, next(&rolls, changes(vec![version(11, 4, 3)])), None);
    let superseded = [(1, Healthy), (2, Superseded), (3, Superseded), (4, Rolling)];
    assert_eq!(outcomes(&later), (11, RolloutPhase::Rolling, superseded.to_vec()));
    let (state, _) = placed();
    let scaled = NewVersion { template: job(1), ..version(9, 2, 5) };
    let state = follow(&state, next(&state, changes(vec![version(5, 1, 3), scaled])), None);
    assert_eq!(outcomes(&state), (9, RolloutPhase::Settled, vec![(1, Healthy), (2, Healthy)]));
    assert!(state.line(&LINE).unwrap().is_current(&job(1)));
}

#[test]
fn few_versions_are_remembered_and_what_runs_is_never_forgotten() {
    let mut state = updated();
    for k in 0..20u8 {
        let new = changes(vec![version(20 + u64::from(k), 30 + k, 3)]);
        state = follow(&state, next(&state, new), None);
        let line = state.line(&LINE).unwrap();
        assert!(line.versions().len() <= MAX_VERSIONS && line.version(&job(1)).is_some());
        assert_eq!(line.count(), 3 + u32::from(k));
        assert_wire(&state);
    }
    let forgotten = RolloutChanges { forgotten: vec![LINE], ..RolloutChanges::default() };
    let state = follow(&state, next(&state, forgotten.clone()), None);
    assert_eq!(state.lines().count(), 0);
    let refused = RolloutError::NoSuchLine(LINE);
    let twice = next(&state, forgotten);
    assert_eq!(state.apply(&twice, &Assignments::default()), Err(refused.into()));
}

#[test]
fn the_root_commits_to_versions_and_a_void_slot_changes_none() {
    let (before, _) = placed();
    let state = updated();
    let idle = follow(&before, next(&before, RolloutChanges::default()), None);
    assert_ne!(state.state_root(), idle.state_root());
    let listed = next(&state, health(2, 0, true));
    let after = state.follow(&void(&state, listed)).unwrap();
    assert_eq!(outcomes(&after), outcomes(&state));
}

#[test]
fn the_fullest_versions_are_as_long_as_the_state_counts_on() {
    let mut fullest = Rollouts::default();
    let terms =
        VersionTerms { replicas: u16::MAX, max_parallel: u16::MAX, ..version(1, 1, 1).terms };
    for (i, line) in (0..64u8).enumerate() {
        for k in 0..MAX_VERSIONS as u8 {
            let line = JobLine([line; 32]);
            let submission = u64::MAX - 8 + u64::from(k);
            let new = NewVersion { line, terms, ..version(submission, k, 1) };
            let of = fullest.lines.entry(line).or_insert_with(|| Line::new(&new));
            of.add(&new, &|_| true);
        }
        assert_eq!(fullest.lines.len(), i + 1);
    }
    let of_line = (crate::codec::encode(&fullest).len() - 2) / 64;
    assert!(of_line * MAX_LINES + MAX_RUNNING * 35 + 6 <= Rollouts::MAX_BYTES, "{of_line}");
}
