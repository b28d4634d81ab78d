//! That what must not happen is seen when it does.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_protocol_spec::{
    Signature,
    agreement::{Instance, Lock},
    scheduling::{
        Assignment, AssignmentCertificate, Assignments, CertificateBody, GroupSignature, Manifest,
        PendingReplica, ReferenceStringOrigin, SAMPLE, SignedSuspicion, TelemetryEntry,
    },
};

use super::*;
use crate::{
    agreement::binding,
    fixtures,
    plan::member,
    slot::{Demand, SlotBehaviour, SlotScenario, worker::GRACE},
};

/// Workers and a chain on which one job is wanted.
fn around() -> Surroundings {
    let scenario = SlotScenario { demand: Demand::Unplaceable, ..SlotScenario::default() };
    let rng = || ChaCha20Rng::from_seed([1; 32]);
    let mut around = Surroundings::new(1, rng(), rng(), &scenario, 4);
    around.tick(0, &ClusterState::default(), &mut SlotReport::default());
    around
}

/// A slot that gives the wanted job's first replica to the first worker, and the state after it.
fn placed(around: &Surroundings) -> (SlotRecord, ClusterState) {
    let (job, replica) = (around.jobs.submissions()[0].job, ReplicaIndex(0));
    let worker = around.workers[0].id;
    let mut manifest = fixtures::manifest(binding(), Slot(1), member(1), 1);
    manifest.previous = CertificateBody::NO_PREVIOUS;
    manifest.block = around.chain.head().block;
    manifest.telemetry = vec![TelemetryEntry { sender: worker, digest: Blake3Digest([2; 32]) }];
    manifest.pending =
        vec![PendingReplica { submission: 1, job, replica, only: None, candidates: SAMPLE }];
    let outcome = Outcome::Node(worker);
    follow(&ClusterState::default(), manifest, vec![Assignment { job, replica, outcome }])
}

/// A slot with this manifest, and the state after it.
fn follow(
    before: &ClusterState,
    manifest: Manifest,
    placed: Vec<Assignment>,
) -> (SlotRecord, ClusterState) {
    let assignments = Assignments::try_from(placed).expect("few assignments");
    let state = before.apply(&manifest, &assignments).expect("it follows");
    let (instance, value) = (Instance::manifest(manifest.slot), manifest.digest());
    let lock = Lock { binding: binding(), instance, round: 0, value, votes: Vec::new() };
    let body = CertificateBody {
        binding: binding(),
        slot: manifest.slot,
        manifest: value,
        previous: manifest.previous,
        base: manifest.base,
        jobs_seen: manifest.jobs_seen,
        evaluation: Blake3Digest([3; 32]),
        members_only: CertificateBody::NO_SECTION,
        assignments_root: assignments.tree().root(),
        state_root: state.state_root(),
        reference_string: ReferenceStringOrigin::Committee,
    };
    let state = state.certified(&body).expect("of this state");
    let certificate = AssignmentCertificate { body, signature: GroupSignature([0; 65]) };
    (SlotRecord { manifest, lock, assignments, certificate }, state)
}

#[test]
fn a_slot_that_does_not_end_is_told_once_and_only_if_it_could() {
    let mut properties = Properties::default();
    let mut report = SlotReport::default();
    properties.reached(Slot(1), Phase::Collecting, 5);
    properties.check_end(Slot(0), 5 + ENDS_WITHIN * 2, &mut report);
    assert_eq!(report.violations, [""; 0], "it has not begun");
    properties.reached(Slot(1), Phase::Evaluating, 10);
    properties.check_end(Slot(0), 10 + ENDS_WITHIN, &mut report);
    properties.apart(100);
    properties.check_end(Slot(0), 100 + ENDS_WITHIN, &mut report);
    assert_eq!(report.violations, [""; 0], "there were too few members at 100");
    properties.check_end(Slot(0), 101 + ENDS_WITHIN, &mut report);
    properties.check_end(Slot(0), 102 + ENDS_WITHIN, &mut report);
    assert_eq!(report.violations.len(), 1);
}

#[test]
fn one_void_slot_in_a_hundred_is_the_most() {
    let violations = |void, with_work| {
        let mut report = SlotReport { with_work, ..SlotReport::default() };
        check_void(void, &mut report);
        report.violations.len()
    };
    assert_eq!((violations(1, 100), violations(0, 0)), (0, 0));
    assert_eq!((violations(1, 99), violations(3, 299)), (1, 1));
}

#[test]
fn what_leaves_without_a_reason_is_seen() {
    let around = around();
    let (record, state) = placed(&around);
    let violations = |before: &ClusterState, after: &ClusterState| {
        let (mut properties, mut report) = (Properties::default(), SlotReport::default());
        properties.check_change((before, after), &record, &around, 0, &mut report);
        report.violations.len()
    };
    let empty = ClusterState::default();
    assert_eq!(violations(&empty, &state), 0);
    assert_eq!(violations(&state, &state), 0);
    assert_eq!(violations(&state, &empty), 1, "its operator wants it and its worker is there");
}

#[test]
fn a_worker_that_an_honest_member_calls_lost_and_that_is_there_is_seen() {
    let around = around();
    let (mut record, state) = placed(&around);
    let suspicion =
        |j| SignedSuspicion { member: member(j), lost_for: 0, signature: Signature([0; 64]) };
    let suspicions = vec![suspicion(1), suspicion(3)];
    record.manifest.lost = vec![LostWorker { worker: around.workers[1].id, suspicions }];
    let plan = SlotPlan::new(4).behaves(3, SlotBehaviour::SuspectAll);
    let (mut properties, mut report) = (Properties::new(&plan), SlotReport::default());
    properties.check_change((&state, &state), &record, &around, 0, &mut report);
    assert_eq!(report.violations.len(), 1, "of member 3 nothing else is expected");
}

#[test]
fn a_replica_that_stays_lost_is_seen_while_there_is_room() {
    let mut around = around();
    let (_, state) = placed(&around);
    // Nobody has room for what the world calls unplaceable, so nothing is promised.
    let told = |around: &Surroundings| {
        let (mut properties, mut report) = (Properties::default(), SlotReport::default());
        for step in 0..20 {
            properties.check_lost(&state, around, 400_000 + step * 2_000, &mut report);
        }
        report.violations.len()
    };
    assert_eq!(told(&around), 0, "its worker is there");
    around.lose(0, 400_000);
    assert_eq!(told(&around), 0, "there is no room");
    around.jobs.shrink();
    assert_eq!(told(&around), 1, "at 420,000 it is due, and no slot begins");
}

/// What a slot lists of a replica whose worker is lost.
#[derive(Clone, Copy)]
enum Lists {
    Nothing,
    Worker,
    Both,
}

/// "Grace, the rest of the slot under way, and one slot": the one under way when the grace ends owes nothing.
#[test]
fn the_first_slot_that_begins_after_the_grace_lists_what_is_lost() {
    let mut around = around();
    let (record, state) = placed(&around);
    let lost_at = 400_000;
    around.lose(0, lost_at);
    around.jobs.shrink();
    let told = |begun, lists| {
        let (mut properties, mut report) = (Properties::default(), SlotReport::default());
        properties.check_lost(&state, &around, lost_at, &mut report);
        let mut next = record.clone();
        next.manifest.slot = Slot(2);
        if matches!(lists, Lists::Nothing | Lists::Worker) {
            next.manifest.pending.clear();
        }
        if matches!(lists, Lists::Worker | Lists::Both) {
            let lost = LostWorker { worker: around.workers[0].id, suspicions: Vec::new() };
            next.manifest.lost = vec![lost];
        }
        properties.reached(Slot(2), Phase::AgreeingOnManifest, begun);
        properties.check_listed((&state, &state), &next, &around, begun + 5_000, &mut report);
        report.violations
    };
    let due = lost_at + GRACE;
    assert_eq!(told(due - 1, Lists::Nothing), [""; 0], "it was under way");
    let violations = told(due, Lists::Nothing);
    assert!(matches!(&violations[..], [one] if one.contains("does not count")), "{violations:?}");
    let violations = told(due, Lists::Worker);
    assert!(matches!(&violations[..], [one] if one.contains("passes over")), "{violations:?}");
    assert_eq!(told(due, Lists::Both), [""; 0]);
}

mod periodic;
