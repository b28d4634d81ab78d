//! Replicas of a job that was updated.

use std::time::Duration;

use veil_committee_slot::demand::AllowedImages;
use veil_node_chain::RegisteredNode;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    Slot,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome},
    identity::SecretIdentity,
    registry::{Eligibility, Roles},
    scheduling::{
        Assignment, AssignmentCertificate, Assignments, Binding, BlockRef, CertificateBody,
        ClusterPolicy, ClusterScope, CpuUnits, GroupSignature, LeavingReplica, Manifest,
        MemoryUnits, NewVersion, Outcome, PendingReplica, ReferenceStringOrigin, ReplicaHealth,
        ResourceRequest, Resources, RolloutChanges, SAMPLE, SlotRecord, Submission, TelemetryEntry,
    },
};
use veil_tests::fixtures;

use super::*;

const OPERATOR: Address = Address([3; 20]);
const FIRST: ReplicaIndex = ReplicaIndex(0);

const fn worker(byte: u8) -> PeerIdHash {
    PeerIdHash([byte; 32])
}

fn scope() -> ClusterScope {
    let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
    ClusterScope { chain_id: ChainId(31_337), contract, cluster }
}

/// A version of one job, whose programs differ.
fn version(nonce: u64) -> JobSpec {
    let (cpu, memory) = (CpuUnits(1), MemoryUnits(1));
    let request = ResourceRequest::Clear(Resources { cpu, memory, ..Resources::default() });
    let image = format!("a/b@sha256:{}", "0f".repeat(32)).parse().unwrap();
    let job = JobSpec::new(scope(), OPERATOR, nonce, "app".parse().unwrap(), image, request);
    JobSpec { args: vec![nonce.to_string()], ..job }
}

fn submission(position: u64, job: &JobSpec) -> Submission {
    let (job, operator) = (job.digest(), OPERATOR);
    Submission { position, job, operator, leak_bits: 1000, cancelled: false }
}

fn new(submission: u64, job: &JobSpec) -> NewVersion {
    let (line, template, terms) = (job.line(), job.template(), job.terms());
    NewVersion { submission, job: job.digest(), operator: OPERATOR, line, template, terms }
}

/// One slot on: what the manifest lists as pending gets a place at a worker.
fn slot(state: &ClusterState, to: u8, change: impl FnOnce(&mut Manifest)) -> ClusterState {
    let member = ParticipantIndex::new(1).unwrap();
    let binding = Binding { scope: scope(), key_set: KeySetDigest([3; 32]), epoch: Epoch(0) };
    let entry = |byte| TelemetryEntry { sender: worker(byte), digest: Blake3Digest([byte; 32]) };
    let mut manifest = Manifest {
        previous: state.last_certificate(),
        telemetry: [1, 2].map(entry).to_vec(),
        ..fixtures::manifest(binding, Slot(state.last_slot().0 + 1), member, 1)
    };
    change(&mut manifest);
    let placed = manifest.pending.iter().map(|of| Assignment {
        job: of.job,
        replica: of.replica,
        outcome: Outcome::Node(worker(to)),
    });
    let assignments: Assignments = placed.collect::<Vec<_>>().try_into().unwrap();
    let after = state.apply(&manifest, &assignments).unwrap();
    let outcome = Some(SlotOutcome::new(Blake3Digest([5; 32]), &assignments, &after));
    let (slot, value) = (manifest.slot, manifest.digest());
    let end = SlotEnd { binding, slot, manifest: value, outcome };
    let body = CertificateBody::of(&manifest, &end, ReferenceStringOrigin::Committee, state);
    let instance = Instance::manifest(slot);
    let lock = Lock { binding, instance, round: 0, value, votes: Vec::new() };
    let certificate = AssignmentCertificate { body, signature: GroupSignature([2; 65]) };
    state.follow(&SlotRecord { manifest, lock, assignments, certificate }).unwrap()
}

fn place(submission: u64, job: &JobSpec) -> PendingReplica {
    PendingReplica { submission, job: job.digest(), replica: FIRST, only: None, candidates: SAMPLE }
}

/// Of two workers, the second of which is drained.
fn view(submissions: Vec<Submission>) -> View {
    let node = |byte| RegisteredNode {
        peer: worker(byte),
        identity: SecretIdentity::from_bytes(&[byte; 32]).unwrap().public(),
        roles: Roles { worker: true, member: false },
        operator: OPERATOR,
        organisation: None,
        labels: Vec::new(),
        position: byte.into(),
        stake: 0,
        eligibility: if byte == 2 { Eligibility::Draining } else { Eligibility::Eligible },
        seat: None,
        drain_deadline: None,
    };
    View {
        block: BlockRef { number: 1, hash: KeccakDigest([9; 32]) },
        time: 0,
        committee: Committee::new(4).unwrap(),
        policy: KeccakDigest([8; 32]),
        rules: Ok(ClusterPolicy::default()),
        slot_interval: Duration::from_secs(5),
        nodes: [1, 2].map(|byte| (worker(byte), node(byte))).into(),
        submissions,
        images: AllowedImages::default(),
        head: None,
        key: None,
        roster: Vec::new(),
    }
}

#[test]
fn a_replica_of_an_updated_job_says_why_it_waits_to_leave_a_drained_worker() {
    let (one, two) = (version(1), version(2));
    let submissions = vec![submission(5, &one), submission(9, &two)];
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(&folder.path().join("jobs.redb"), scope()).unwrap();
    jobs.set_submissions(&submissions);
    for job in [&one, &two] {
        let _ = jobs.offer(job.clone()).unwrap();
    }

    let state = slot(&ClusterState::default(), 1, |next| next.pending = vec![place(5, &one)]);
    let versions = vec![new(5, &one), new(9, &two)];
    let noted = RolloutChanges { versions, ..RolloutChanges::default() };
    let state = slot(&state, 1, |next| next.rollouts = noted);
    let state = slot(&state, 2, |next| next.pending = vec![place(9, &two)]);
    let health = vec![ReplicaHealth { job: two.digest(), replica: FIRST, healthy: true }];
    let healthy = RolloutChanges { health, ..RolloutChanges::default() };
    let state = slot(&state, 1, |next| next.rollouts = healthy);
    let leaving = vec![LeavingReplica { job: one.digest(), replica: FIRST }];
    let state = slot(&state, 1, |next| next.leaving = leaving);
    assert_eq!(state.placement(two.digest(), FIRST).map(|place| place.worker), Some(worker(2)));

    let waits = unplaced(&view(submissions), &jobs, &state, &BTreeMap::new());
    let said: Vec<_> = waits.into_iter().collect();
    let [((job, FIRST), reason)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(*job, two.digest());
    assert!(reason.starts_with(&format!("its worker {} is drained; ", worker(2))), "{reason}");
}
