//! What is listed, slot after slot.

use veil_protocol_spec::{
    Committee, JobLine, Signature, Slot, Wire,
    scheduling::{
        Assignments, BlockRef, LeasePolicy, LostWorker, Manifest, Priority, ReplicaState,
        RunningReplica, SignedSuspicion, SlotRecord, TelemetryEntry,
    },
};

use super::*;
use crate::fixtures::{self, BLOCK, CIRCUIT, POLICY, assignments, binding, member, terms, worker};

mod done;
mod due;
mod given_back;
mod random;
mod rules;
mod sealed;
mod system;
mod versions;

fn committee() -> Committee {
    Committee::new(4).unwrap()
}

fn job(byte: u8) -> Blake3Digest {
    Blake3Digest([byte; 32])
}

fn submission(position: u64, byte: u8) -> Submission {
    let (operator, leak_bits) = (Address([1; 20]), 1_000_000);
    Submission { position, job: job(byte), operator, leak_bits, cancelled: false }
}

/// Every job wants three replicas, except 9, whose body nobody has.
fn three(digest: &Blake3Digest) -> Option<JobDemand> {
    let (operator, priority) = (Address([1; 20]), Priority(0));
    let (lease, is_batch) = (LeasePolicy::Keep, false);
    let (line, template) = (JobLine(digest.0), *digest);
    let terms = terms(3);
    let demand = JobDemand {
        operator,
        replicas: 3,
        priority,
        lease,
        is_batch,
        timetable: None,
        refused: None,
        line,
        template,
        terms,
        is_sealed: false,
    };
    (*digest != job(9)).then_some(demand)
}

/// What must be listed if these workers are lost, or to be left, and the others among 1 to 4 are there.
fn next(
    state: &ClusterState,
    submissions: &[Submission],
    lost: &[u8],
    draining: &[u8],
) -> NextReplicas {
    let inputs = NextInputs {
        submissions,
        jobs: &three,
        judged: None,
        lost: &lost.iter().map(|w| (worker(*w), 0)).collect(),
        draining: &draining.iter().map(|w| worker(*w)).collect(),
        telemetry: &(1..=4).filter(|w| !lost.contains(w)).map(worker).collect(),
        ended: &Ended::new(),
        health: &Health::new(),
        block: 1,
        policy: POLICY,
        sampling: Sampling::default(),
        given_back: &Words::new(),
        owners: &BTreeMap::new(),
        committee: committee(),
        fit: &|_, _| Fit::Fits,
    };
    next_replicas(state, &inputs)
}

/// What the proposer writes for these submissions; workers 1 to 4 are there unless lost.
fn manifest(
    state: &ClusterState,
    submissions: &[Submission],
    lost: &[u8],
    draining: &[u8],
) -> Manifest {
    let next = next(state, submissions, lost, draining);
    let manifest = written(state, submissions, next, lost);
    assert_eq!(manifest.validate(committee()), Ok(()));
    manifest
}

fn written(
    state: &ClusterState,
    submissions: &[Submission],
    next: NextReplicas,
    lost: &[u8],
) -> Manifest {
    let suspicions: Vec<_> = [1, 2]
        .map(|member| SignedSuspicion {
            member: self::member(member),
            lost_for: 0,
            signature: Signature([0; 64]),
        })
        .to_vec();
    Manifest {
        binding: binding(),
        slot: Slot(state.last_slot().0 + 2),
        proposer: member(1),
        previous: state.last_certificate(),
        block: BlockRef { number: 1, ..BLOCK },
        base: KeccakDigest([4; 32]),
        jobs_seen: submissions.len() as u64,
        policy: POLICY,
        circuit: CIRCUIT,
        telemetry: (1..=4)
            .filter(|w| !lost.contains(w))
            .map(|w| TelemetryEntry { sender: worker(w), digest: Blake3Digest([w; 32]) })
            .collect(),
        pending: next.pending,
        leaving: next.leaving,
        done: next.done,
        lost: lost
            .iter()
            .map(|w| LostWorker { worker: worker(*w), suspicions: suspicions.clone() })
            .collect(),
        given_back: next.given_back,
        rollouts: next.rollouts,
        runs: next.runs,
    }
}

fn record(state: &ClusterState, manifest: Manifest, assignments: Assignments) -> SlotRecord {
    fixtures::record(state, manifest, Some(assignments))
}

fn void(state: &ClusterState, manifest: Manifest) -> SlotRecord {
    fixtures::record(state, manifest, None)
}

/// Job 1 placed on workers 1, 2 and 3.
fn placed() -> (ClusterState, SlotRecord) {
    let before = ClusterState::default();
    let manifest = manifest(&before, &[submission(5, 1)], &[], &[]);
    let assignments = assignments(&manifest, |i| Some(worker(i as u8 + 1)));
    let record = record(&before, manifest, assignments);
    (before.follow(&record).unwrap(), record)
}

fn pending_of(manifest: &Manifest) -> Vec<(Blake3Digest, u16)> {
    manifest.pending.iter().map(|p| (p.job, p.replica.0)).collect()
}

#[test]
fn a_placed_job_runs_and_is_not_placed_again() {
    let (state, record) = placed();
    assert_eq!(record.verify_structure(committee()), Ok(()));
    let here: Vec<_> = state.assigned_to(worker(2)).collect();
    assert_eq!(here, [(job(1), ReplicaIndex(1))]);
    let next = manifest(&state, &[submission(5, 1)], &[], &[]);
    assert_eq!((next.pending.len(), state.running(&next).count()), (0, 3));
}

#[test]
fn pending_is_in_the_chains_order_and_the_first_submission_of_a_job_counts() {
    let state = ClusterState::default();
    let submissions = [submission(7, 1), submission(3, 2), submission(4, 1), submission(8, 9)];
    let next = next(&state, &submissions, &[], &[]);
    let positions: Vec<_> = next.pending.iter().map(|p| (p.submission, p.job)).collect();
    assert_eq!(positions[..3], [(3, job(2)); 3]);
    assert_eq!(positions[3..], [(4, job(1)); 3]);
    assert_eq!(next.unknown, [job(9)]);
}

#[test]
fn a_lost_workers_replica_is_placed_again_and_its_return_makes_no_double() {
    let (state, _) = placed();
    let manifest = manifest(&state, &[submission(5, 1)], &[2], &[]);
    assert_eq!(pending_of(&manifest), [(job(1), 1)]);
    let moves = |r: &RunningReplica| r.state == ReplicaState::Draining;
    let draining = state.running(&manifest).filter(moves).map(|r| (r.job, r.replica.0));
    assert_eq!(draining.collect::<Vec<_>>(), pending_of(&manifest));
    assert_eq!((state.running(&manifest).count(), manifest.leaving.len()), (3, 0));
    let moved = assignments(&manifest, |_| Some(worker(4)));
    let after = state.follow(&record(&state, manifest.clone(), moved)).unwrap();
    assert_eq!(after.assigned_to(worker(2)).count(), 0);
    assert_eq!(after.assigned_to(worker(4)).count(), 1);
    assert_eq!(after.lost_since(&worker(2)), None, "it holds nothing");
}

#[test]
fn a_returning_worker_keeps_what_has_not_been_placed_elsewhere() {
    let (state, _) = placed();
    let submissions = [submission(5, 1)];
    let lost = manifest(&state, &submissions, &[2], &[]);
    // With no room for it, it keeps its place, and the worker counts as lost.
    let nowhere = assignments(&lost, |_| None);
    let after = state.follow(&record(&state, lost.clone(), nowhere)).unwrap();
    assert_eq!(after.assigned_to(worker(2)).count(), 1);
    assert_eq!(after.lost_since(&worker(2)), Some(lost.slot));
    assert_eq!(pending_of(&manifest(&after, &submissions, &[2], &[])), [(job(1), 1)]);
    // Back in time, it is listed with its telemetry: nothing moves.
    let back = manifest(&after, &submissions, &[], &[]);
    assert_eq!((back.pending.len(), after.running(&back).count()), (0, 3));
    let nothing = assignments(&back, |_| None);
    let after = after.follow(&record(&after, back, nothing)).unwrap();
    assert_eq!((after.lost_since(&worker(2)), after.replicas().count()), (None, 3));
    assert!(after.replicas().eq(state.replicas()));
}

#[test]
fn a_draining_replica_keeps_its_place_until_it_has_another() {
    let (state, _) = placed();
    let manifest = manifest(&state, &[submission(5, 1)], &[], &[3]);
    assert_eq!(pending_of(&manifest), [(job(1), 2)]);
    let running: Vec<_> = state.running(&manifest).map(|r| r.state).collect();
    let serving = ReplicaState::Serving;
    assert_eq!(running, [serving, serving, ReplicaState::Draining]);
    let stays = state.apply(&manifest, &assignments(&manifest, |_| None)).unwrap();
    assert_eq!(stays.assigned_to(worker(3)).count(), 1);
    let moves = state.apply(&manifest, &assignments(&manifest, |_| Some(worker(4)))).unwrap();
    assert_eq!(moves.assigned_to(worker(3)).count(), 0);
    assert_eq!(moves.replicas().count(), 3);
}

#[test]
fn cancelled_and_forgotten_jobs_leave_lost_workers_too() {
    let (state, _) = placed();
    let cancelled = Submission { cancelled: true, ..submission(5, 1) };
    for (submissions, lost) in [(&[cancelled][..], &[][..]), (&[], &[]), (&[cancelled], &[2])] {
        let manifest = manifest(&state, submissions, lost, &[]);
        assert_eq!((manifest.pending.len(), state.running(&manifest).count()), (0, 0));
        assert_eq!(manifest.leaving.len(), 3);
        let after = state.apply(&manifest, &assignments(&manifest, |_| None)).unwrap();
        assert_eq!((after.replicas().count(), after.lost().count()), (0, 0));
    }
}
