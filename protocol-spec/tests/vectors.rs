//! Known-answer vectors: a fixed sample of every message of a slot, of what nodes tell each other beside those, and
//! of what a member stores, each with its encoding and its digests.
//!
//! A difference means that this build would not understand, or not sign, what another one sent: raise the type's
//! `Wire::VERSION`, or put it right. `VEIL_BLESS=1 cargo test --release -p veil-protocol-spec --test vectors` blesses.
#![allow(clippy::unwrap_used)] // helpers of tests

mod jobs;
mod parties;
mod samples;
mod support;
mod updates;

use serde_json::{Value, json};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, CeremonyId, Committee, Epoch, KeccakDigest, ParticipantIndex,
    PeerIdHash, PublicIdentity, ReplicaIndex, Signature, Slot, Wire,
    agreement::{
        AgreementMessage, Instance, Lock, Proposal, SlotEnd, SlotOutcome, Subject, Vote, VoteKind,
        record::{Entry, Record, Step},
    },
    codec::Bytes,
    decryption::DecryptionCounter,
    evidence::{Evidence, Proof},
    publication::{ExchangeBody, ExchangeMessage, Facts, Publication},
    scheduling::*,
    slot::SlotEntry,
    snapshot::StateSnapshot,
    sync::{LockedManifest, SuspicionMessage, SyncAnswer, SyncRequest},
};

use jobs::{job, periodic_job};
use parties::{binding, secret};
use samples::{ended, input_bundle, key_files};
use support::{compare, hex};

/// Of ciphertexts that are none: what is pinned is everything around them.
fn encrypted_weights() -> EncryptedWeights {
    let Binding { scope, key_set, .. } = binding();
    let list = ProvenList::new(vec![5; 60]).unwrap();
    EncryptedWeights { scope, key_set, author: Address([7; 20]), nonce: 3, list }
}

fn telemetry() -> Telemetry {
    TelemetryBody {
        binding: binding(),
        identity: secret(1).public(),
        sequence: 300,
        includes_slot: Slot(6),
        sampled_at: UnixMillis(1_760_000_000_000),
        policy: KeccakDigest([0x70; 32]),
        profile: samples::profile(),
        ended: vec![ended()],
        list: ProvenList::new((0..48).collect()).unwrap(),
        given_back: vec![samples::given_back()],
        health: updates::health().to_vec(),
    }
    .sign(&secret(1))
}

fn manifest() -> Manifest {
    let member = |index| ParticipantIndex::new(index).unwrap();
    let lost = PeerIdHash::of(&secret(2).public());
    let suspicion = Suspicion { binding: binding(), slot: Slot(7), worker: lost, lost_for: 150 };
    Manifest {
        binding: binding(),
        slot: Slot(7),
        proposer: member(3),
        previous: KeccakDigest([0x77; 32]),
        block: BlockRef { number: 1_000_000, hash: KeccakDigest([0x88; 32]) },
        base: KeccakDigest([0x7b; 32]),
        jobs_seen: 300,
        policy: KeccakDigest([0x99; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([0xaa; 32]) },
        telemetry: vec![TelemetryEntry {
            sender: telemetry().body.sender(),
            digest: telemetry().body.digest(),
        }],
        pending: (0..2)
            .map(|replica| PendingReplica {
                submission: 12,
                job: job().digest(),
                replica: ReplicaIndex(replica),
                only: None,
                candidates: SAMPLE,
            })
            .collect(),
        leaving: vec![LeavingReplica { job: Blake3Digest([0xbb; 32]), replica: ReplicaIndex(0) }],
        done: vec![ended()],
        lost: vec![LostWorker {
            worker: lost,
            suspicions: [1, 4].map(|i| suspicion.sign(member(i), &secret(0x10 + i))).to_vec(),
        }],
        given_back: vec![samples::given_back()],
        rollouts: updates::changes(&job()),
        runs: updates::runs(RunStep::Begins { time: 1_790_000_000 }),
    }
}

fn assignments() -> Assignments {
    let outcomes = [Outcome::Node(telemetry().body.sender()), Outcome::Pending];
    let list = (0..).zip(outcomes).map(|(replica, outcome)| Assignment {
        job: job().digest(),
        replica: ReplicaIndex(replica),
        outcome,
    });
    list.collect::<Vec<_>>().try_into().unwrap()
}

fn certificate() -> AssignmentCertificate {
    let mut signature = [0xcc; 65];
    signature[0] = 2;
    AssignmentCertificate {
        body: CertificateBody {
            binding: binding(),
            slot: Slot(7),
            manifest: manifest().digest(),
            previous: KeccakDigest([0x77; 32]),
            base: manifest().base,
            jobs_seen: manifest().jobs_seen,
            evaluation: Blake3Digest([0xee; 32]),
            members_only: CertificateBody::NO_SECTION,
            assignments_root: assignments().tree().root(),
            state_root: KeccakDigest([0xdd; 32]),
            reference_string: ReferenceStringOrigin::Committee,
        },
        signature: GroupSignature(signature),
    }
}

/// The same slot, had it ended without an outcome.
fn void() -> CertificateBody {
    CertificateBody {
        evaluation: CertificateBody::VOID,
        assignments_root: MerkleTree::EMPTY_ROOT,
        ..certificate().body
    }
}

fn report() -> EvaluationReport {
    EvaluationBody {
        binding: binding(),
        slot: Slot(7),
        manifest: manifest().digest(),
        circuit: manifest().circuit,
        outputs: Blake3Digest([0xee; 32]),
        identity: secret(1).public(),
    }
    .sign(&secret(1))
}

/// The same, had its replica ended in the next slot.
fn done() -> ClusterState {
    let (state, replica) = (state(), ReplicaIndex(0));
    let next = Manifest {
        slot: Slot(8),
        pending: Vec::new(),
        done: vec![EndedReplica { job: job().digest(), replica, ..ended() }],
        previous: state.last_certificate(),
        ..only_pending()
    };
    state.apply(&next, &Assignments::default()).unwrap()
}

fn only_pending() -> Manifest {
    Manifest {
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
        ..manifest()
    }
}

/// The first slot of a cluster: one replica gets a place.
fn state() -> ClusterState {
    let first = Manifest { previous: CertificateBody::NO_PREVIOUS, ..only_pending() };
    ClusterState::default().apply(&first, &assignments()).unwrap()
}

const INSTANCE: Instance = Instance::manifest(Slot(7));
const COUNTER: DecryptionCounter = DecryptionCounter { blocks: 70_000 };

fn replica_leaf() -> ReplicaLeaf {
    ReplicaLeaf {
        job: job().digest(),
        replica: ReplicaIndex(1),
        worker: LeafWorker::Open(telemetry().body.sender()),
        slot: Slot(7),
        done: false,
        drained: false,
    }
}

fn vote(kind: VoteKind, value: Option<Blake3Digest>) -> Vote {
    let voter = ParticipantIndex::new(2).unwrap();
    Vote { instance: INSTANCE, round: 3, kind, value, voter }
}

fn proposal() -> Proposal {
    Proposal { instance: INSTANCE, round: 3, locked_in: Some(1), value: manifest().digest() }
}

/// The votes of three of four members for [`manifest`].
fn lock() -> Lock {
    let (instance, round, value) = (INSTANCE, 3, manifest().digest());
    let digest = Lock::vote_digest(&binding(), instance, round, &value);
    let vote = |i: u8| (ParticipantIndex::new(i).unwrap(), secret(0x10 + i).sign(&digest));
    Lock { binding: binding(), instance, round, value, votes: [1, 2, 4].map(vote).to_vec() }
}

fn end(outcome: Option<SlotOutcome>) -> SlotEnd {
    SlotEnd { binding: binding(), slot: Slot(7), manifest: manifest().digest(), outcome }
}

fn outcome() -> SlotOutcome {
    SlotOutcome {
        evaluation: report().body.outputs,
        assignments_root: certificate().body.assignments_root,
        state_root: certificate().body.state_root,
    }
}

fn roster() -> Vec<PublicIdentity> {
    (1..=4).map(|i| secret(0x10 + i).public()).collect()
}

fn locked_manifest() -> LockedManifest {
    LockedManifest { manifest: manifest(), lock: lock() }
}

fn suspicion() -> SuspicionMessage {
    let LostWorker { worker, suspicions } = manifest().lost.remove(0);
    SuspicionMessage { slot: Slot(7), worker, signed: suspicions[0] }
}

fn slot_record() -> SlotRecord {
    let (assignments, certificate) = (assignments(), certificate());
    SlotRecord { manifest: manifest(), lock: lock(), assignments, certificate }
}

/// Participant 2's for the certificate of the samples, or for another one.
fn certificate_vote(other: u8) -> SignedCertificateVote {
    let mut vote = CertificateVote::of(&certificate().body);
    vote.certificate.0[0] ^= other;
    vote.sign(ParticipantIndex::new(2).unwrap(), &secret(2))
}

fn evidence() -> Evidence {
    let proof = Proof::CertificateVotes(Box::new((certificate_vote(0), certificate_vote(1))));
    Evidence { binding: binding(), proof }
}

fn snapshot() -> StateSnapshot {
    StateSnapshot { record: slot_record(), state: state() }
}

fn publication() -> Publication {
    Publication {
        epoch: Epoch(4),
        attempt: Attempt(1),
        group: (0..200).collect(),
        key_set: binding().key_set,
        transcript_root: Blake3Digest([0xa4; 32]),
        reference_string: Blake3Digest([0xa3; 32]),
    }
}

fn agreement_record() -> Record {
    let vote = vote(VoteKind::Prevote, Some(manifest().digest())).sign(&binding(), &secret(0x12));
    let entries = vec![
        Entry::Started,
        Entry::Value(Bytes(manifest().to_wire())),
        Entry::Vote(vote),
        Entry::Proposal(proposal().sign(&binding(), &secret(0x13))),
        Entry::Polka(vec![vote; 3]),
        Entry::Validated { round: 3, value: manifest().digest(), valid: true },
        Entry::Timeout(Step::Propose, 0),
        Entry::Timeout(Step::Prevote, 1),
        Entry::Timeout(Step::Precommit, 2),
        Entry::Decided(lock()),
    ];
    Record { binding: binding(), instance: INSTANCE, entries }
}

/// The encoding, after a round trip.
fn encoding<T: Wire + PartialEq + std::fmt::Debug>(value: &T) -> String {
    let bytes = value.to_wire();
    assert_eq!(T::from_wire(&bytes).as_ref(), Ok(value));
    hex(&bytes)
}

#[test]
fn the_samples_are_sound() {
    assert_eq!(telemetry().verify(&binding()), Ok(()));
    assert_eq!(job().validate(), Ok(()));
    assert_eq!(periodic_job().validate(), Ok(()));
    assert_eq!(manifest().validate(Committee::new(4).unwrap()), Ok(()));
    assert_eq!(report().verify(&binding()), Ok(()));
    let committee = Committee::new(4).unwrap();
    assert_eq!(locked_manifest().verify(committee, &roster()), Ok(()));
    assert_eq!(suspicion().verify(binding(), &roster()), Ok(()));
}

#[test]
fn scheduling() {
    let worker = telemetry();
    let digest = |vote: Vote| hex(&vote.digest(&binding()));
    let leaves: Vec<_> =
        assignments().as_slice().iter().map(|a| Value::from(a.leaf().to_string())).collect();
    compare(
        "scheduling.json",
        &json!({
            "telemetry": {
                "encoding": hex(&worker.to_wire()),
                "digest": worker.body.digest().to_string(),
                "identity": worker.body.identity.to_string(),
                "sender": worker.body.sender().to_string(),
                "proof_metadata": hex(worker.body.proof_metadata().as_bytes()),
            },
            "job_spec": {
                "encoding": hex(&job().to_wire()),
                "digest": job().digest().to_string(),
                "json": serde_json::to_value(job()).unwrap(),
                "periodic_encoding": hex(&periodic_job().to_wire()),
            },
            "encrypted_weights": {
                "encoding": hex(&encrypted_weights().to_wire()),
                "digest": encrypted_weights().digest().to_string(),
                "proof_metadata": hex(encrypted_weights().proof_metadata().as_bytes()),
            },
            "cluster_policy": {
                "encoding": encoding(&ClusterPolicy::default()),
                "digest": ClusterPolicy::default().digest().to_string(),
            },
            "manifest": {
                "encoding": hex(&manifest().to_wire()),
                "digest": manifest().digest().to_string(),
                "no_outputs": manifest().no_outputs().to_string(),
            },
            "assignments": {
                "encoding": hex(&assignments().to_wire()),
                "leaves": leaves,
                "root": assignments().tree().root().to_string(),
            },
            "assignment_certificate": {
                "encoding": hex(&certificate().to_wire()),
                "signing_digest": certificate().body.signing_digest().to_string(),
                "signing_digest_of_void": void().signing_digest().to_string(),
            },
            "evaluation_report": {
                "encoding": hex(&report().to_wire()),
                "digest": report().body.digest().to_string(),
            },
            "replica_leaf": {
                "hash": replica_leaf().hash().to_string(),
                "hash_of_done": ReplicaLeaf { done: true, ..replica_leaf() }.hash().to_string(),
                "hidden_worker": hidden_worker(&telemetry().body.sender(), &[0x5a; 32]).to_string(),
            },
            "cluster_state": {
                "encoding": hex(&state().to_wire()),
                "root": state().state_root().to_string(),
                "encoding_of_done": hex(&done().to_wire()),
                "root_of_done": done().state_root().to_string(),
                "encoding_of_updated": hex(&updates::updated(&state(), manifest(), &job()).to_wire()),
                "root_of_updated": updates::updated(&state(), manifest(), &job()).state_root().to_string(),
            },
            "agreement": {
                "prevote": digest(vote(VoteKind::Prevote, Some(manifest().digest()))),
                "prevote_for_none": digest(vote(VoteKind::Prevote, None)),
                "precommit": digest(vote(VoteKind::Precommit, Some(manifest().digest()))),
                "precommit_to_none": digest(vote(VoteKind::Precommit, None)),
                "vote_encoding": hex(&AgreementMessage::Vote(
                    vote(VoteKind::Prevote, None).sign(&binding(), &secret(2)),
                ).to_wire()),
                "prevote_of_the_end": digest(Vote {
                    instance: Instance { subject: Subject::End, ..INSTANCE },
                    ..vote(VoteKind::Prevote, Some(end(None).digest()))
                }),
                "precommit_of_the_end": digest(Vote {
                    instance: Instance { subject: Subject::End, ..INSTANCE },
                    ..vote(VoteKind::Precommit, Some(end(None).digest()))
                }),
                "proposal": hex(&proposal().digest(&binding())),
                "proposal_encoding": hex(&AgreementMessage::Proposal(
                    proposal().sign(&binding(), &secret(2)),
                    Bytes(vec![1, 2, 3]),
                ).to_wire()),
            },
            "slot_end": {
                "outcome": encoding(&end(Some(outcome()))),
                "outcome_digest": end(Some(outcome())).digest().to_string(),
                "void": encoding(&end(None)),
                "void_digest": end(None).digest().to_string(),
            },
        }),
    );
}

#[test]
fn sync() {
    compare(
        "sync.json",
        &json!({
            "locked_manifest": encoding(&locked_manifest()),
            "suspicion_message": encoding(&suspicion()),
            "evidence": encoding(&evidence()),
            "certificate_vote": encoding(&certificate_vote(0)),
            "sync_request": {
                "records": encoding(&SyncRequest::Records { after: Slot(6) }),
                "telemetry": encoding(&SyncRequest::Telemetry(telemetry().body.digest())),
                "job": encoding(&SyncRequest::Job(job().digest())),
                "key_files": encoding(&SyncRequest::KeyFiles(binding().key_set)),
                "evidence_list": encoding(&SyncRequest::EvidenceList),
                "evidence": encoding(&SyncRequest::Evidence(evidence().digest())),
                "certificate_votes": encoding(&SyncRequest::CertificateVotes(Slot(6))),
                "public_key": encoding(&SyncRequest::PublicKey(binding().key_set)),
                "blocks_opened": encoding(&SyncRequest::BlocksOpened),
                "running": encoding(&SyncRequest::Running),
                "weights": encoding(&SyncRequest::Weights(encrypted_weights().digest())),
            },
            "sync_answer": {
                "records": encoding(&SyncAnswer::Records(vec![slot_record()])),
                "telemetry": encoding(&SyncAnswer::Telemetry(Some(telemetry().into()))),
                "no_telemetry": encoding(&SyncAnswer::Telemetry(None)),
                "job": encoding(&SyncAnswer::Job(Some(job().into()))),
                "no_job": encoding(&SyncAnswer::Job(None)),
                "key_files": encoding(&SyncAnswer::KeyFiles(Some(key_files()))),
                "no_key_files": encoding(&SyncAnswer::KeyFiles(None)),
                "evidence_list": encoding(&SyncAnswer::EvidenceList(vec![evidence().digest()])),
                "evidence": encoding(&SyncAnswer::Evidence(Some(evidence().into()))),
                "no_evidence": encoding(&SyncAnswer::Evidence(None)),
                "certificate_votes": encoding(&SyncAnswer::CertificateVotes(vec![certificate_vote(0)])),
                "public_key": encoding(&SyncAnswer::PublicKey(Some(Bytes(vec![1, 2, 3])))),
                "no_public_key": encoding(&SyncAnswer::PublicKey(None)),
                "snapshot": encoding(&SyncAnswer::Snapshot(snapshot().into())),
                "blocks_opened": encoding(&SyncAnswer::BlocksOpened(Some(COUNTER))),
                "weights": encoding(&SyncAnswer::Weights(Some(encrypted_weights().into()))),
                "no_weights": encoding(&SyncAnswer::Weights(None)),
            },
        }),
    );
}

#[test]
fn publications() {
    let facts = Facts {
        version: "0.1.0".into(),
        fingerprint: Blake3Digest([0xa5; 32]),
        free_disk: 500_000_000_000,
        free_memory: 16 << 30,
    };
    let exchange = |body| {
        let (ceremony, attempt) = (CeremonyId([0xa6; 32]), Attempt(1));
        encoding(&ExchangeMessage { ceremony, attempt, body })
    };
    let now = 1_760_000_000_000;
    let signature = ExchangeBody::Signature(KeccakDigest([0xa7; 32]), Signature([0xa8; 64]));
    compare(
        "publication.json",
        &json!({
            "exchange_message": {
                "ask_facts": exchange(ExchangeBody::AskFacts(now)),
                "facts": exchange(ExchangeBody::Facts(now, now + 20, facts)),
                "ask_signature": exchange(ExchangeBody::AskSignature),
                "signature": exchange(signature),
            },
            "publication": encoding(&publication()),
        }),
    );
}

#[test]
fn stored() {
    compare(
        "stored.json",
        &json!({
            "agreement_record": encoding(&agreement_record()),
            "decryption_counter": encoding(&COUNTER),
            "slot_entry": encoding(&SlotEntry::Locked(Box::new(locked_manifest()))),
            "state_snapshot": encoding(&snapshot()),
            "input_bundle": encoding(&input_bundle(&manifest())),
        }),
    );
}
