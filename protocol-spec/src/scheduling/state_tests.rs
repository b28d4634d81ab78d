use core::ops::Range;

use super::{
    tries::{Told, Tried},
    *,
};
use crate::{
    agreement::{Instance, Lock, SlotEnd, SlotOutcome, Subject},
    committee::Committee,
    ids::{ParticipantIndex, Signature},
    scheduling::{
        Assignment, AssignmentCertificate, BlockRef, CircuitId, GroupSignature, LostWorker,
        PendingReplica, RecordError, ReferenceStringOrigin, RolloutChanges, SAMPLE,
        SignedSuspicion, TelemetryEntry,
        abi::{Words, keccak},
        arbitrary::{assert_wire, binding},
        merkle::MerkleTree,
    },
};

#[path = "state_done_tests.rs"]
mod done;
#[path = "state_history_tests.rs"]
mod history;
#[path = "state_rollout_tests.rs"]
mod rollout;
#[path = "state_runs_tests.rs"]
mod runs;
#[path = "state_sampling_tests.rs"]
mod sampling;
#[path = "state_system_tests.rs"]
mod system;

fn committee() -> Committee {
    Committee::new(4).unwrap()
}

fn job(byte: u8) -> Blake3Digest {
    Blake3Digest([byte; 32])
}

fn worker(byte: u8) -> PeerIdHash {
    PeerIdHash([byte; 32])
}

/// These replicas of a job, which was submitted at that position.
fn pending(position: u64, byte: u8, replicas: Range<u16>) -> Vec<PendingReplica> {
    let one = |replica| PendingReplica {
        submission: position,
        job: job(byte),
        replica,
        only: None,
        candidates: SAMPLE,
    };
    replicas.map(ReplicaIndex).map(one).collect()
}

const POLICY: KeccakDigest = KeccakDigest([2; 32]);

/// A manifest that builds on the state and lists this; workers 1 to 4 are there unless lost.
fn manifest(
    state: &ClusterState,
    pending: Vec<PendingReplica>,
    leaving: Vec<LeavingReplica>,
    lost: &[u8],
) -> Manifest {
    let suspicions: Vec<_> = [1, 2]
        .map(|member| SignedSuspicion {
            member: ParticipantIndex::new(member).unwrap(),
            lost_for: 0,
            signature: Signature([0; 64]),
        })
        .to_vec();
    let manifest = Manifest {
        binding: binding(),
        slot: Slot(state.last_slot().0 + 2),
        proposer: ParticipantIndex::new(1).unwrap(),
        previous: state.last_certificate(),
        block: BlockRef { number: 1, hash: KeccakDigest([1; 32]) },
        base: KeccakDigest([4; 32]),
        jobs_seen: 2,
        policy: POLICY,
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([3; 32]) },
        telemetry: (1..=4)
            .filter(|w| !lost.contains(w))
            .map(|w| TelemetryEntry { sender: worker(w), digest: Blake3Digest([w; 32]) })
            .collect(),
        pending,
        leaving,
        done: vec![],
        lost: lost
            .iter()
            .map(|w| LostWorker { worker: worker(*w), suspicions: suspicions.clone() })
            .collect(),
        given_back: vec![],
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    };
    assert_eq!(manifest.validate(committee()), Ok(()));
    manifest
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
    certify(state, manifest, Some(assignments))
}

fn void(state: &ClusterState, manifest: Manifest) -> SlotRecord {
    certify(state, manifest, None)
}

/// These assignments, or void.
fn certify(
    state: &ClusterState,
    manifest: Manifest,
    assignments: Option<Assignments>,
) -> SlotRecord {
    let (binding, slot, value) = (manifest.binding, manifest.slot, manifest.digest());
    let outcome = assignments.as_ref().map(|assignments| {
        let after = state.apply(&manifest, assignments).unwrap();
        SlotOutcome::new(Blake3Digest([5; 32]), assignments, &after)
    });
    let end = SlotEnd { binding, slot, manifest: value, outcome };
    let body = CertificateBody::of(&manifest, &end, ReferenceStringOrigin::Committee, state);
    let instance = Instance::manifest(slot);
    let lock = Lock { binding, instance, round: 0, value, votes: Vec::new() };
    let certificate = AssignmentCertificate { body, signature: GroupSignature([2; 65]) };
    SlotRecord { manifest, lock, assignments: assignments.unwrap_or_default(), certificate }
}

/// Job 1 placed on workers 1, 2 and 3.
fn placed() -> (ClusterState, SlotRecord) {
    let before = ClusterState::default();
    let manifest = manifest(&before, pending(5, 1, 0..3), vec![], &[]);
    let assignments = assignments(&manifest, |i| Some(worker(i as u8 + 1)));
    let record = record(&before, manifest, assignments);
    (before.follow(&record).unwrap(), record)
}

fn leaving(replica: u16) -> LeavingReplica {
    LeavingReplica { job: job(1), replica: ReplicaIndex(replica) }
}

/// All three of job 1 leave.
fn all_leave() -> Vec<LeavingReplica> {
    (0..3).map(leaving).collect()
}

#[test]
fn a_placed_job_runs() {
    let (state, record) = placed();
    assert_eq!(record.verify_structure(committee()), Ok(()));
    assert_eq!(state.last_slot(), Slot(2));
    assert_eq!(state.last_certificate(), record.certificate.body.hash());
    let here: Vec<_> = state.assigned_to(worker(2)).collect();
    assert_eq!(here, [(job(1), ReplicaIndex(1))]);
    assert_eq!(state.placement(job(1), ReplicaIndex(1)).unwrap().worker, worker(2));
    assert_eq!(state.placement(job(1), ReplicaIndex(3)), None);
    assert!(state.replicas_of(job(1)).eq((0..3).map(ReplicaIndex)));
    assert_eq!((state.replicas_of(job(0)).count(), state.replicas_of(job(2)).count()), (0, 0));
    let next = manifest(&state, vec![], vec![], &[]);
    assert_eq!(state.running(&next).count(), 3);
    assert_wire(&state);
}

#[test]
fn a_lost_worker_counts_as_lost_until_it_is_back() {
    let (state, _) = placed();
    let lost = manifest(&state, pending(5, 1, 1..2), vec![], &[2]);
    // With no room for it, its replica keeps its place, and the worker counts as lost.
    let nowhere = assignments(&lost, |_| None);
    let after = state.follow(&record(&state, lost.clone(), nowhere)).unwrap();
    assert_eq!(after.assigned_to(worker(2)).count(), 1);
    assert_eq!(after.lost_since(&worker(2)), Some(lost.slot));
    assert_eq!(after.lost().collect::<Vec<_>>(), [(worker(2), lost.slot)]);
    assert_ne!(
        after.state_root(),
        ClusterState { lost: BTreeMap::new(), ..after.clone() }.state_root()
    );
    // Its telemetry counts again once the worker knows that.
    assert!(!after.telemetry_counts(&worker(2), state.last_slot()));
    assert!(after.telemetry_counts(&worker(2), lost.slot));
    // Back in time, it is listed with its telemetry: nothing moves.
    let back = manifest(&after, vec![], vec![], &[]);
    assert_eq!(after.running(&back).count(), 3);
    let nothing = assignments(&back, |_| None);
    let after = after.follow(&record(&after, back, nothing)).unwrap();
    assert_eq!((after.lost_since(&worker(2)), after.replicas().count()), (None, 3));
    assert!(after.replicas().eq(state.replicas()));
}

#[test]
fn a_state_says_what_it_remembers_of_tries() {
    let (state, _) = placed();
    let known = BTreeSet::from([1, 2, 3, 4].map(worker));
    let more = BTreeSet::from([1, 5].map(worker));
    assert!(!state.is_woken_by(&known, POLICY) && state.is_woken_by(&more, POLICY));
    assert!(state.is_woken_by(&known, KeccakDigest([3; 32])));
    assert_eq!(state.told(&job(1), 7), (9, 1), "three times: a worker of four, or none");
    assert_eq!(state.told(&job(2), 7), (0, 7));
    let of = |state: &ClusterState| {
        let (failures, tried) =
            (state.failures(job(2), ReplicaIndex(0)), state.last_tried(job(2), ReplicaIndex(0)));
        (failures, tried, state.last_freed())
    };
    assert_eq!(of(&state), (0, None, Slot(0)));
    // Job 2 finds no place, twice; the second time job 1 leaves.
    let next = manifest(&state, pending(6, 2, 0..1), vec![], &[]);
    let none = assignments(&next, |_| None);
    let state = state.follow(&record(&state, next, none)).unwrap();
    assert_eq!(of(&state), (1, Some(Slot(4)), Slot(0)));
    let next = manifest(&state, pending(6, 2, 0..1), all_leave(), &[]);
    let none = assignments(&next, |_| None);
    let state = state.follow(&record(&state, next, none)).unwrap();
    assert_eq!(of(&state), (2, Some(Slot(6)), Slot(6)));
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
    let idle = manifest(&state, vec![], vec![], &[]);
    let none = assignments(&idle, |_| None);
    let state = state.follow(&record(&state, idle, none)).unwrap();
    assert_eq!(state.last_slot(), Slot(4));
    assert!(state.telemetry_counts(&worker(1), Slot(2)));
}

#[test]
fn what_does_not_continue_the_state_is_refused() {
    type Change = fn(&mut Manifest);

    let (state, first) = placed();
    let sound = manifest(&state, pending(6, 2, 0..3), vec![], &[]);
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
    let locked = manifest(&state, pending(6, 2, 0..3), all_leave(), &[2]);
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
    let next = manifest(&state, vec![], vec![], &[]);
    let next = Manifest { base: first.certificate.body.hash(), ..next };
    let none = assignments(&next, |_| None);
    let after = state.follow(&record(&state, next, none)).unwrap();
    assert_eq!((after.last_base(), after.last_changed()), (state.last_certificate(), Slot(2)));
    // A cancelled job leaves: that is a change.
    let removing = manifest(&after, vec![], all_leave(), &[]);
    let none = assignments(&removing, |_| None);
    let after = after.follow(&record(&after, removing, none)).unwrap();
    assert_eq!(after.last_changed(), Slot(6));
    // Nor does a void slot change anything, but it too names another.
    let locked = Manifest { base: KeccakDigest([7; 32]), ..manifest(&after, vec![], vec![], &[]) };
    let after = after.follow(&void(&after, locked)).unwrap();
    assert_eq!((after.last_base(), after.last_changed()), (KeccakDigest([7; 32]), Slot(6)));
}

#[test]
fn the_largest_state_fits() {
    let last = Slot(u64::MAX);
    let decided = (last, KeccakDigest([1; 32]));
    let mut state = ClusterState {
        last_slot: last,
        block: last.0,
        decided,
        changed: last,
        ..ClusterState::default()
    };
    for i in 0..MAX_RUNNING as u16 {
        let mut worker = worker(0xff);
        worker.0[..2].copy_from_slice(&i.to_be_bytes());
        let placement = Placement { worker, slot: Slot(u64::MAX) };
        state.replicas.insert((job(0xff), ReplicaIndex(u16::MAX - i)), placement);
        state.booked.insert(worker, Slot(u64::MAX));
        state.lost.insert(worker, Slot(u64::MAX));
    }
    for i in 0..MAX_TRIED as u16 {
        let (slot, previous) = (last, Some(worker(1)));
        let tried = Tried { failures: u8::MAX, failed: u8::MAX, slot, previous };
        state.tries.tried.insert((job(0xff), ReplicaIndex(u16::MAX - i)), tried);
    }
    for i in 0..MAX_TOLD as u16 {
        let mut job = job(0xff);
        job.0[..2].copy_from_slice(&i.to_be_bytes());
        state.tries.told.insert(job, Told { bits: u32::MAX, since: u64::MAX });
    }
    for i in 0..MAX_KNOWN as u16 {
        let mut worker = worker(0xff);
        worker.0[..2].copy_from_slice(&i.to_be_bytes());
        state.tries.known.insert(worker);
    }
    state.tries.freed = last;
    state.tries.policy = Some(POLICY);
    state.tries.draw = Some(Draw { block: POLICY, jobs_seen: u64::MAX });
    assert_eq!(ClusterState::from_wire(&state.to_wire()), Ok(state));
}
