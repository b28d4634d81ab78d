//! A slot under the key of a ceremony: telemetry is encrypted and proven with the committee's public
//! key, replicas are placed on ciphertexts, and the committee decrypts what the cleartext twin says.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::sync::Arc;

use veil_keygen_ceremony::keyset::{ParameterSet, decode_block, squashed_blocks};
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        AntiAffinity, Binding, ClusterPolicy, Constraints, CpuUnits, DiskUnits, FailureDomain,
        GpuUnits, JobSpec, Manifest, MemoryUnits, Outcome, PendingReplica, ProofMetadata,
        Quantities, Reading, ResourceRequest, Resources, SAMPLE, Scale, SchedulingPolicy, Strength,
        TelemetryEntry,
    },
};
use veil_scheduler::{
    EvaluationKey, Inputs, ReferenceString, circuit_id, encrypt, evaluate, verify_and_expand,
};
use veil_scheduler_plan::{cleartext, outcome::decode, plan::Plan};
use veil_tests::{
    decryption::{DecryptionPlan, finished_ceremony},
    fixtures,
    malicious::wrong_partial::WrongPartial,
    plan::member,
};

fn job(policy: SchedulingPolicy, nonce: u64, [cpu, memory, disk, gpu]: [u16; 4]) -> JobSpec {
    JobSpec {
        replicas: 2,
        policy,
        constraints: Constraints {
            anti_affinity: Some(AntiAffinity {
                strength: Strength::Soft,
                domain: FailureDomain::Worker,
            }),
            ..Constraints::default()
        },
        ..JobSpec::new(
            fixtures::SCOPE,
            Address([5; 20]),
            nonce,
            "app".parse().unwrap(),
            format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
            ResourceRequest::Clear(Resources {
                cpu: CpuUnits(cpu),
                memory: MemoryUnits(memory),
                disk: DiskUnits(disk),
                gpu: GpuUnits(gpu),
            }),
        )
    }
}

#[test]
fn a_slot_under_a_ceremonys_key_is_what_the_twin_says() {
    let finished = finished_ceremony(4, 21);
    let (public_key, server_key) = finished.key_set.decompress().into_raw_parts();
    let key = EvaluationKey::new(public_key.clone(), server_key).unwrap();
    let parameters = ParameterSet::insecure_test();
    let string = ReferenceString::generate_insecure(*parameters.pke()).unwrap();

    let sender = |position: u8| PeerIdHash([position; 32]);
    let readings = [[30, 70, 9, 1], [9, 90, 9, 0], [31, 70, 20, 2]].map(|units| Reading {
        free: Quantities::from_array(units).unwrap(),
        ..Reading::default()
    });
    let mut inputs = Inputs::default();
    inputs.public.policy = ClusterPolicy { scale: Scale::FINEST, ..ClusterPolicy::default() };
    let mut telemetry = Vec::new();
    for (position, reading) in (1..).zip(&readings) {
        let metadata = ProofMetadata::new(&fixtures::SCOPE, &finished.digest, &sender(position), 1);
        let list = encrypt(reading, &public_key, &string, &metadata).unwrap();
        let expanded = verify_and_expand(&list, &metadata, &string, &key).unwrap();
        let digest = Blake3Digest([position; 32]);
        inputs.telemetry.insert(digest, Arc::new(expanded));
        telemetry.push(TelemetryEntry { sender: sender(position), digest });
    }
    // The second replica of the last job finds no worker with a GPU left.
    let jobs = [
        job(SchedulingPolicy::Spread, 1, [8, 9, 1, 0]),
        job(SchedulingPolicy::BinPack, 2, [5, 20, 3, 1]),
        job(SchedulingPolicy::Spread, 3, [1, 1, 1, 2]),
    ];
    inputs.public.jobs = jobs.iter().map(|job| (job.digest(), job.clone())).collect();
    let pending = jobs.iter().zip(0..).flat_map(|(job, submission)| {
        let of = |replica| PendingReplica {
            submission,
            job: job.digest(),
            replica: ReplicaIndex(replica),
            only: None,
            candidates: SAMPLE,
        };
        [of(0), of(1)]
    });
    let binding = Binding {
        scope: fixtures::SCOPE,
        key_set: finished.digest,
        epoch: finished.parameters.epoch,
    };
    let manifest = Manifest {
        circuit: circuit_id(),
        telemetry,
        pending: pending.collect(),
        ..fixtures::manifest(binding, Slot(1), member(1), 1)
    };

    let (outputs, _) = evaluate(&manifest, &inputs, &key).unwrap();
    let squashed = outputs.squash(&key).unwrap();
    let blocks: Vec<_> = squashed.as_slice().iter().flat_map(squashed_blocks).collect();
    let plan = DecryptionPlan::new(4).culprit(2, WrongPartial::Bit(120));
    let report = finished.decrypt(&blocks, &plan, 1);

    let plan = Plan::new(&manifest, &inputs.public).unwrap();
    let expected = cleartext::place(&plan, &readings, &cleartext::Secrets::default());
    assert!(expected.contains(&None) && expected.iter().any(Option::is_some), "{expected:?}");
    for j in [1, 3, 4].map(member) {
        let completion = report.member(j).completion.as_ref().unwrap();
        let digits: Option<Vec<_>> =
            completion.combined.phases.iter().map(|phase| decode_block(*phase)).collect();
        let assignments = decode(&manifest, &inputs.public, &digits.unwrap()).unwrap();
        for (pending, expected) in manifest.pending.iter().zip(&expected) {
            let found = assignments
                .as_slice()
                .iter()
                .find(|found| (found.job, found.replica) == (pending.job, pending.replica))
                .unwrap();
            let outcome = expected.map_or(Outcome::Pending, |worker| {
                Outcome::Node(manifest.telemetry[worker].sender)
            });
            assert_eq!(found.outcome, outcome, "{j}: {pending:?}");
        }
        assert_eq!(report.member(j).culprits, [member(2)].into());
    }
}
