use super::*;
use crate::{
    agreement::{Instance, Lock, Subject},
    committee::Committee,
    ids::{Address, ParticipantIndex, Signature},
    scheduling::{
        Assignment, AssignmentCertificate, BlockRef, CircuitId, GroupSignature, JobDemand,
        LeasePolicy, LostWorker, Priority, RecordError, ReferenceStringOrigin, ReplicaState,
        SignedSuspicion, TelemetryEntry,
        arbitrary::{assert_wire, binding},
    },
};

#[path = "state_history_tests.rs"]
mod history;
#[path = "state_tests/random.rs"]
mod random;
#[path = "state_tests/rules.rs"]
mod rules;

fn committee() -> Committee {
    Committee::new(4).unwrap()
}

fn job(byte: u8) -> Blake3Digest {
    Blake3Digest([byte; 32])
}

fn worker(byte: u8) -> PeerIdHash {
    PeerIdHash([byte; 32])
}

fn submission(position: u64, byte: u8) -> Submission {
    let (operator, leak_bits) = (Address([1; 20]), 1_000_000);
    Submission { position, job: job(byte), operator, leak_bits, cancelled: false }
}

/// Every job wants three replicas, except 9, whose body nobody has.
fn three(digest: &Blake3Digest) -> Option<JobDemand> {
    let (operator, priority) = (Address([1; 20]), Priority(0));
    let demand =
        JobDemand { operator, replicas: 3, priority, lease: LeasePolicy::Keep, refused: None };
    (*digest != job(9)).then_some(demand)
}

const POLICY: KeccakDigest = KeccakDigest([2; 32]);

/// What must be listed if these workers are lost, or to be left, and the others among 1 to 4 are there.
fn next(
    state: &ClusterState,
    submissions: &[Submission],
    lost: &[u8],
    draining: &[u8],
) -> NextReplicas {
    state.next_replicas(&NextInputs {
        submissions,
        jobs: &three,
        only: None,
        lost: &lost.iter().map(|w| (worker(*w), 0)).collect(),
        draining: &draining.iter().map(|w| worker(*w)).collect(),
        telemetry: &(1..=4).filter(|w| !lost.contains(w)).map(worker).collect(),
        block: 1,
        policy: POLICY,
    })
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
            member: ParticipantIndex::new(member).unwrap(),
            lost_for: 0,
            signature: Signature([0; 64]),
        })
        .to_vec();
    Manifest {
        binding: binding(),
        slot: Slot(state.last_slot().0 + 2),
        proposer: ParticipantIndex::new(1).unwrap(),
        previous: state.last_certificate(),
        block: BlockRef { number: 1, hash: KeccakDigest([1; 32]) },
        base: KeccakDigest([4; 32]),
        jobs_seen: submissions.len() as u64,
        policy: POLICY,
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([3; 32]) },
        telemetry: (1..=4)
            .filter(|w| !lost.contains(w))
            .map(|w| TelemetryEntry { sender: worker(w), digest: Blake3Digest([w; 32]) })
            .collect(),
        pending: next.pending,
        leaving: next.leaving,
        lost: lost
            .iter()
            .map(|w| LostWorker { worker: worker(*w), suspicions: suspicions.clone() })
            .collect(),
    }
}

fn assignments(manifest: &Manifest, choose: impl Fn(usize) -> Option<PeerIdHash>) -> Assignments {
    let mut list: Vec<_> = manifest
        .pending
        .iter()
        .enumerate()
        .map(|(i, p)| Assignment {
            job: p.job,
            replica: p.replica,
            outcome: choose(i).map_or(Outcome::Pending, Outcome::Node),
        })
        .collect();
    list.sort_by_key(|a| (a.job, a.replica));
    list.try_into().unwrap()
}

fn record(state: &ClusterState, manifest: Manifest, assignments: Assignments) -> SlotRecord {
    let after = state.apply(&manifest, &assignments).unwrap();
    certify(&after, manifest, assignments, Blake3Digest([5; 32]))
}

fn void(state: &ClusterState, manifest: Manifest) -> SlotRecord {
    let after = state.void(&manifest).unwrap();
    certify(&after, manifest, Assignments::default(), CertificateBody::VOID)
}

fn certify(
    after: &ClusterState,
    manifest: Manifest,
    assignments: Assignments,
    evaluation: Blake3Digest,
) -> SlotRecord {
    let body = CertificateBody {
        binding: manifest.binding,
        slot: manifest.slot,
        manifest: manifest.digest(),
        previous: manifest.previous,
        base: manifest.base,
        jobs_seen: manifest.jobs_seen,
        evaluation,
        members_only: CertificateBody::NO_SECTION,
        assignments_root: assignments.tree().root(),
        state_root: after.state_root(),
        reference_string: ReferenceStringOrigin::Committee,
    };
    let (binding, instance) = (manifest.binding, Instance::manifest(manifest.slot));
    let lock = Lock { binding, instance, round: 0, value: manifest.digest(), votes: Vec::new() };
    let certificate = AssignmentCertificate { body, signature: GroupSignature([2; 65]) };
    SlotRecord { manifest, lock, assignments, certificate }
}

/// Job 1 placed on workers 1, 2 and 3.
fn placed() -> (ClusterState, SlotRecord) {
    let before = ClusterState::default();
    let manifest = manifest(&before, &[submission(5, 1)], &[], &[]);
    let assignments = assignments(&manifest, |i| Some(worker(i as u8 + 1)));
    let record = record(&before, manifest, assignments);
    (before.follow(&record).unwrap(), record)
}

fn leaving(replica: u16) -> LeavingReplica {
    LeavingReplica { job: job(1), replica: ReplicaIndex(replica) }
}

fn pending_of(manifest: &Manifest) -> Vec<(Blake3Digest, u16)> {
    manifest.pending.iter().map(|p| (p.job, p.replica.0)).collect()
}

#[test]
fn a_placed_job_runs_and_is_not_placed_again() {
    let (state, record) = placed();
    assert_eq!(record.verify_structure(committee()), Ok(()));
    assert_eq!(state.last_slot(), Slot(2));
    assert_eq!(state.last_certificate(), record.certificate.body.hash());
    let here: Vec<_> = state.assigned_to(worker(2)).collect();
    assert_eq!(here, [(job(1), ReplicaIndex(1))]);
    let next = manifest(&state, &[submission(5, 1)], &[], &[]);
    assert_eq!((next.pending.len(), state.running(&next).count()), (0, 3));
    assert_wire(&state);
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
    assert_eq!(after.lost().collect::<Vec<_>>(), [(worker(2), lost.slot)]);
    assert_ne!(
        after.state_root(),
        ClusterState { lost: BTreeMap::new(), ..after.clone() }.state_root()
    );
    assert_eq!(pending_of(&manifest(&after, &submissions, &[2], &[])), [(job(1), 1)]);
    // Its telemetry counts again once the worker knows that.
    assert!(!after.telemetry_counts(&worker(2), state.last_slot()));
    assert!(after.telemetry_counts(&worker(2), lost.slot));
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

#[test]
fn telemetry_counts_if_it_includes_the_workers_last_assignment() {
    let (state, _) = placed();
    assert!(state.telemetry_counts(&worker(1), Slot(2)));
    assert!(!state.telemetry_counts(&worker(1), Slot(1)));
    assert!(state.telemetry_counts(&worker(4), Slot(0)));
    // A claim about the future would outlive every assignment.
    assert!(!state.telemetry_counts(&worker(4), Slot(3)));
    // A slot that gives the worker nothing leaves its older telemetry good.
    let idle = manifest(&state, &[submission(5, 1)], &[], &[]);
    let none = assignments(&idle, |_| None);
    let state = state.follow(&record(&state, idle, none)).unwrap();
    assert_eq!(state.last_slot(), Slot(4));
    assert!(state.telemetry_counts(&worker(1), Slot(2)));
}

#[test]
fn what_does_not_continue_the_state_is_refused() {
    type Change = fn(&mut Manifest);

    let (state, first) = placed();
    let sound = manifest(&state, &[submission(5, 1), submission(6, 2)], &[], &[]);
    let outcome = |m: &Manifest| assignments(m, |_| Some(worker(1)));
    let (slot, last) = (Slot(2), Slot(2));
    let not_running =
        |replica| StateError::NotRunning { job: job(1), replica: ReplicaIndex(replica) };
    let cases: [(Change, StateError); 4] = [
        (|m| m.slot = Slot(2), StateError::Slot { slot, last }),
        (
            |m| m.previous.0[0] ^= 1,
            StateError::Previous {
                found: {
                    let mut other = sound.previous;
                    other.0[0] ^= 1;
                    other
                },
                expected: sound.previous,
            },
        ),
        (|m| m.leaving = vec![leaving(3)], not_running(3)),
        (
            |m| {
                m.telemetry.remove(0);
            },
            StateError::NotCandidate(worker(1)),
        ),
    ];
    for (change, error) in cases {
        let mut manifest = sound.clone();
        change(&mut manifest);
        assert_eq!(state.apply(&manifest, &outcome(&manifest)), Err(error));
    }
    let other = first.assignments.clone();
    assert_eq!(state.apply(&sound, &other), Err(StateError::Assignments));

    // The uncertified state takes neither another manifest nor another slot's certificate.
    let after = state.apply(&sound, &outcome(&sound)).unwrap();
    let body = record(&state, sound.clone(), outcome(&sound)).certificate.body;
    let next = Manifest { slot: Slot(9), previous: body.hash(), ..sound };
    assert!(matches!(after.apply(&next, &outcome(&next)), Err(StateError::Previous { .. })));
    let wrong = CertificateBody { slot: Slot(5), ..body };
    assert!(matches!(after.clone().certified(&wrong), Err(StateError::Chain(_))));
    let wrong = CertificateBody { previous: KeccakDigest([9; 32]), ..body };
    assert!(matches!(after.clone().certified(&wrong), Err(StateError::Chain(_))));
    let wrong = CertificateBody { state_root: KeccakDigest([9; 32]), ..body };
    assert!(matches!(after.clone().certified(&wrong), Err(StateError::Root { .. })));
    assert_eq!(after.certified(&body).unwrap().last_certificate(), body.hash());
}

#[test]
fn a_record_is_refused_if_a_link_is_missing() {
    type Change = fn(&mut SlotRecord);

    let (_, sound) = placed();
    assert_wire(&sound);
    let cases: [(Change, RecordError); 14] = [
        (
            |r| r.lock.binding.scope.cluster.0[0] ^= 1,
            RecordError::Lock("cluster, key set or epoch"),
        ),
        (|r| r.lock.instance.slot = Slot(1), RecordError::Lock("slot")),
        (|r| r.lock.instance.subject = Subject::End, RecordError::Lock("slot")),
        (|r| r.lock.value.0[0] ^= 1, RecordError::Lock("manifest")),
        (
            |r| r.certificate.body.binding.key_set.0[0] ^= 1,
            RecordError::Certificate("cluster, key set or epoch"),
        ),
        (|r| r.certificate.body.slot = Slot(1), RecordError::Certificate("slot")),
        (|r| r.certificate.body.manifest.0[0] ^= 1, RecordError::Certificate("manifest")),
        (|r| r.certificate.body.previous.0[0] ^= 1, RecordError::Certificate("predecessor")),
        (|r| r.certificate.body.base.0[0] ^= 1, RecordError::Certificate("anchored certificate")),
        (|r| r.certificate.body.jobs_seen += 1, RecordError::Certificate("number of jobs")),
        (|r| r.certificate.body.members_only.0[0] ^= 1, RecordError::MembersOnly),
        (|r| r.certificate.body.evaluation = CertificateBody::VOID, RecordError::Void),
        (|r| r.certificate.body.assignments_root.0[0] ^= 1, RecordError::Root),
        (
            |r| {
                r.assignments = Assignments::default();
                r.certificate.body.assignments_root = MerkleTree::EMPTY_ROOT;
            },
            RecordError::Assignments,
        ),
    ];
    for (change, error) in cases {
        let mut record = sound.clone();
        change(&mut record);
        assert_eq!(record.verify_structure(committee()), Err(error));
    }
}

#[test]
fn a_void_slot_changes_nothing_but_the_chain_of_certificates() {
    let (state, first) = placed();
    // Worker 2 is lost, job 1 is cancelled, job 2 is new: none of it happens.
    let cancelled = Submission { cancelled: true, ..submission(5, 1) };
    let locked = manifest(&state, &[cancelled, submission(6, 2)], &[2], &[]);
    let record = void(&state, locked.clone());
    assert_eq!(record.verify_structure(committee()), Ok(()));
    assert!(record.certificate.body.is_void() && !first.certificate.body.is_void());
    let after = state.follow(&record).unwrap();
    assert_eq!((after.last_slot(), after.last_decided()), (locked.slot, state.last_slot()));
    assert_eq!(after.last_certificate(), record.certificate.body.hash());
    assert_eq!((after.seed(), after.voids()), (state.seed(), 2));
    assert_eq!(after.last_changed(), state.last_changed());
    // Its tries are charged, and it draws nothing anew.
    assert_ne!(after.state_root(), state.state_root());
    let later =
        Manifest { block: BlockRef { number: 2, hash: KeccakDigest([9; 32]) }, ..locked.clone() };
    assert_eq!(after.draw(&later), Draw::of(&locked));
    assert_eq!(state.draw(&later), Draw::of(&later));
    assert!(after.lost().eq(state.lost()));
    assert!(after.replicas().eq(state.replicas()));
    // What an outcome would have changed gives another root, so it does not pass for void.
    let applied = state.apply(&locked, &assignments(&locked, |_| Some(worker(1)))).unwrap();
    let refused = applied.certified(&record.certificate.body);
    assert!(matches!(refused, Err(StateError::Root { .. })));
    let late = Manifest { slot: Slot(2), ..locked };
    assert!(matches!(state.void(&late), Err(StateError::Slot { .. })));
}

#[test]
fn a_state_says_what_its_last_certificate_can_be_anchored_on() {
    let (state, first) = placed();
    assert_eq!((state.last_base(), state.last_changed()), (first.manifest.base, Slot(2)));
    assert_eq!(state.last_block(), first.manifest.block.number);
    // It places nothing, but names another one.
    let next = manifest(&state, &[submission(5, 1)], &[], &[]);
    let next = Manifest { base: first.certificate.body.hash(), ..next };
    let none = assignments(&next, |_| None);
    let after = state.follow(&record(&state, next, none)).unwrap();
    assert_eq!((after.last_base(), after.last_changed()), (state.last_certificate(), Slot(2)));
    // A cancelled job leaves: that is a change.
    let removing = manifest(&after, &[], &[], &[]);
    let none = assignments(&removing, |_| None);
    let after = after.follow(&record(&after, removing, none)).unwrap();
    assert_eq!(after.last_changed(), Slot(6));
    // Nor does a void slot change anything, but it too names another.
    let locked = Manifest { base: KeccakDigest([7; 32]), ..manifest(&after, &[], &[], &[]) };
    let after = after.follow(&void(&after, locked)).unwrap();
    assert_eq!((after.last_base(), after.last_changed()), (KeccakDigest([7; 32]), Slot(6)));
}
