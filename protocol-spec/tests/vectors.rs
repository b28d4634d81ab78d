//! Known-answer vectors: one fixed sample of every scheduling message, its encoding and digests.
//!
//! A difference means that this build would not understand, or not sign, what another one sent:
//! raise the type's `Wire::VERSION` or put it right. `VEIL_BLESS=1 cargo test --release -p
//! veil-protocol-spec --test vectors` writes the files anew.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{env, fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
    ParticipantIndex, PeerIdHash, Slot, Wire,
    agreement::{AgreementMessage, Proposal, Vote, VoteKind},
    ceremony::Bytes,
    identity::SecretIdentity,
    scheduling::*,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Compares `actual` with `vectors/<file>`, or writes it with `VEIL_BLESS=1`.
fn compare(file: &str, actual: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    if env::var_os("VEIL_BLESS").is_some_and(|v| v == "1") {
        fs::write(&path, format!("{actual:#}\n")).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(*actual, expected, "{file} changed; see the head of this test");
}

fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0x11; 20]),
            cluster: ClusterId([0x22; 32]),
        },
        key_set: KeySetDigest([0x33; 32]),
        epoch: Epoch(4),
    }
}

fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

fn telemetry() -> Telemetry {
    TelemetryBody {
        binding: binding(),
        identity: secret(1).public(),
        sequence: 300,
        includes_slot: Slot(6),
        sampled_at: UnixMillis(1_760_000_000_000),
        list: ProvenList::new((0..48).collect()).unwrap(),
    }
    .sign(&secret(1))
}

fn job() -> JobSpec {
    JobSpec {
        scope: binding().scope,
        operator: Address([0x55; 20]),
        nonce: 9,
        image: format!("registry.example.org/team/app@sha256:{}", "6a".repeat(32)).parse().unwrap(),
        command: vec!["/bin/app".into()],
        args: vec!["--workers".into(), "4".into()],
        request: ResourceRequest::Clear(Resources {
            cpu: CpuUnits::covering(1500).unwrap(),
            memory: MemoryUnits::covering(1 << 30).unwrap(),
            disk: DiskUnits::covering(5_000_000_000).unwrap(),
            gpu: GpuUnits::covering(1).unwrap(),
        }),
        replicas: 2,
        priority: Priority(100),
        policy: SchedulingPolicy::BinPack,
        constraints: Constraints {
            allow: vec!["zone=eu-1".parse().unwrap(), "zone=eu-2".parse().unwrap()],
            deny: vec!["class=spot".parse().unwrap()],
            anti_affinity: Some(AntiAffinity {
                strength: Strength::Soft,
                domain: FailureDomain::Label("zone".parse().unwrap()),
            }),
            max_latency: Some(LatencyClass::new(2).unwrap()),
            prefer_previous: true,
        },
        lease: LeasePolicy::Exclusive { seconds: 300 },
        restart: RestartPolicy::OnFailure { max_retries: 5 },
        health: Some(HealthCheck {
            probe: HealthProbe::Http { port: 8080, path: "/healthz".into() },
            interval_seconds: 10,
            timeout_seconds: 2,
            retries: 3,
            start_period_seconds: 30,
        }),
    }
}

fn manifest() -> Manifest {
    let member = |index| ParticipantIndex::new(index).unwrap();
    let lost = PeerIdHash::of(&secret(2).public());
    let suspicion = Suspicion { binding: binding(), slot: Slot(7), worker: lost };
    Manifest {
        binding: binding(),
        slot: Slot(7),
        proposer: member(3),
        previous: KeccakDigest([0x77; 32]),
        block: BlockRef { number: 1_000_000, hash: KeccakDigest([0x88; 32]) },
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
            })
            .collect(),
        running: vec![RunningReplica {
            job: Blake3Digest([0xbb; 32]),
            replica: ReplicaIndex(0),
            worker: telemetry().body.sender(),
            state: ReplicaState::Serving,
        }],
        lost: vec![LostWorker {
            worker: lost,
            suspicions: [1, 4].map(|i| suspicion.sign(member(i), &secret(0x10 + i))).to_vec(),
        }],
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
            assignments_root: assignments().tree().root(),
            state_root: KeccakDigest([0xdd; 32]),
            reference_string: ReferenceStringOrigin::SingleParty,
        },
        signature: GroupSignature(signature),
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

/// The first slot of a cluster: one replica gets a place.
fn state() -> ClusterState {
    let first = Manifest {
        previous: CertificateBody::NO_PREVIOUS,
        running: Vec::new(),
        lost: Vec::new(),
        ..manifest()
    };
    ClusterState::default().apply(&first, &assignments()).unwrap()
}

fn vote(kind: VoteKind, manifest: Option<Blake3Digest>) -> Vote {
    let voter = ParticipantIndex::new(2).unwrap();
    Vote { slot: Slot(7), round: 3, kind, manifest, voter }
}

fn proposal() -> Proposal {
    Proposal { slot: Slot(7), round: 3, locked_in: Some(1), manifest: manifest().digest() }
}

#[test]
fn the_samples_are_sound() {
    assert_eq!(telemetry().verify(&binding()), Ok(()));
    assert_eq!(job().validate(), Ok(()));
    assert_eq!(manifest().validate(Committee::new(4).unwrap()), Ok(()));
    assert_eq!(report().verify(&binding()), Ok(()));
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
            },
            "manifest": {
                "encoding": hex(&manifest().to_wire()),
                "digest": manifest().digest().to_string(),
            },
            "assignments": {
                "encoding": hex(&assignments().to_wire()),
                "leaves": leaves,
                "root": assignments().tree().root().to_string(),
            },
            "assignment_certificate": {
                "encoding": hex(&certificate().to_wire()),
                "signing_digest": certificate().body.signing_digest().to_string(),
            },
            "evaluation_report": {
                "encoding": hex(&report().to_wire()),
                "digest": report().body.digest().to_string(),
            },
            "cluster_state": {
                "encoding": hex(&state().to_wire()),
                "root": state().state_root().to_string(),
            },
            "agreement": {
                "prevote": digest(vote(VoteKind::Prevote, Some(manifest().digest()))),
                "prevote_for_none": digest(vote(VoteKind::Prevote, None)),
                "precommit": digest(vote(VoteKind::Precommit, Some(manifest().digest()))),
                "precommit_to_none": digest(vote(VoteKind::Precommit, None)),
                "vote_encoding": hex(&AgreementMessage::Vote(
                    vote(VoteKind::Prevote, None).sign(&binding(), &secret(2)),
                ).to_wire()),
                "proposal": hex(&proposal().digest(&binding())),
                "proposal_encoding": hex(&AgreementMessage::Proposal(
                    proposal().sign(&binding(), &secret(2)),
                    Bytes(vec![1, 2, 3]),
                ).to_wire()),
            },
        }),
    );
}
