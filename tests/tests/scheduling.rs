//! A slot under the key of a ceremony: telemetry is encrypted and proven with the committee's public
//! key, replicas are placed on ciphertexts, and the committee decrypts what the cleartext twin says.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::{collections::BTreeSet, sync::Arc};

use veil_committee::decryption::{DecryptionEffect, RecomputedOutputs};
use veil_committee_machine::{Effect, Machine, Verdict};
use veil_keygen_ceremony::keyset::{ParameterSet, decode_block, squashed_blocks};
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    codec::Bytes,
    decryption::{DecryptionCounter, RequestContext},
    scheduling::{
        AntiAffinity, Assignments, Binding, ClusterPolicy, Constraints, CpuUnits, DiskUnits,
        FailureDomain, GpuUnits, JobSpec, Manifest, MemoryUnits, Outcome, PendingReplica,
        ProofMetadata, Quantities, Reading, ResourceRequest, Resources, SAMPLE, Scale,
        SchedulingPolicy, Share, Strength, TelemetryEntry,
    },
    slot::{OpenedStep, evaluation_digest, opened_digest},
};
use veil_scheduler::{
    EvaluationKey, ReferenceString, circuit_id, encrypt,
    slot::SlotEvaluation,
    threshold::{Inputs, verify_and_expand_report},
    threshold_circuit_id,
};
use veil_scheduler_plan::{
    cleartext::{self, Secrets},
    outcome::{openings, read},
    plan::Plan,
    threshold::twin,
};
use veil_tests::{
    decryption::{DecryptionPlan, Finished, finished_ceremony},
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

/// Whether replicas have their places.
fn assert_placed(assignments: &Assignments, manifest: &Manifest, expected: &[Option<usize>]) {
    for (pending, expected) in manifest.pending.iter().zip(expected) {
        let found = assignments
            .as_slice()
            .iter()
            .find(|found| (found.job, found.replica) == (pending.job, pending.replica))
            .unwrap();
        let outcome = expected
            .map_or(Outcome::Pending, |worker| Outcome::Node(manifest.telemetry[worker].sender));
        assert_eq!(found.outcome, outcome, "{pending:?}");
    }
}

/// Evaluates and opens step by step, as three of four members do it, each with one machine for all steps.
fn open_as_it_goes(
    finished: &Finished,
    manifest: &Manifest,
    inputs: &Inputs,
    key: &EvaluationKey,
) -> Vec<OpenedStep> {
    let mut slot = SlotEvaluation::new(manifest.clone(), inputs.clone(), key.clone());
    let counter = DecryptionCounter::default();
    let mut machines = [1, 3, 4].map(|j| finished.decryptor(member(j), counter));
    let (mut steps, mut opened) = (Vec::new(), Vec::new());
    loop {
        let (outputs, evaluation) = slot.step(&opened).unwrap();
        if outputs.is_empty() {
            return steps;
        }
        let squashed = outputs.squash(key).unwrap();
        let blocks: Vec<_> = squashed.as_slice().iter().flat_map(squashed_blocks).collect();
        let Binding { key_set, epoch, .. } = manifest.binding;
        let context = RequestContext {
            step: u16::try_from(steps.len()).unwrap(),
            before: opened_digest(&steps),
            ..RequestContext::first(key_set, epoch, manifest.slot, manifest.digest())
        };
        let lock = finished.lock(&context);
        let mut shares = Vec::new();
        for machine in &mut machines {
            let outputs = RecomputedOutputs { context, blocks: blocks.clone() };
            machine.authorise(outputs, &lock, 0).unwrap();
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::Persist { id, .. } => machine.persisted(id),
                    Effect::Broadcast(bytes) => shares.push((machine.participant(), bytes)),
                    Effect::Send { .. } | Effect::Special(_) => {}
                }
            }
        }
        let mut found = BTreeSet::new();
        for machine in &mut machines {
            let me = machine.participant();
            for (from, share) in shares.iter().filter(|(from, _)| *from != me) {
                assert!(matches!(machine.handle(*from, share, 0), Verdict::Valid));
            }
            while let Some(effect) = machine.poll_effect() {
                if let Effect::Special(DecryptionEffect::Complete(done)) = effect {
                    assert_eq!(done.context, context);
                    found.insert(done.combined.messages());
                }
            }
        }
        let digits = found.pop_first().unwrap();
        assert!(found.is_empty(), "all members open the same");
        steps.push(OpenedStep { evaluation, digits: Bytes(digits.clone()) });
        opened.push(digits);
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
        share: Share::new(units[3] + 2).unwrap(),
        ..Reading::default()
    });
    let mut inputs = Inputs::default();
    inputs.public.policy = ClusterPolicy { scale: Scale::FINEST, ..ClusterPolicy::default() };
    let mut telemetry = Vec::new();
    for (position, reading) in (1..).zip(&readings) {
        let metadata = ProofMetadata::new(&fixtures::SCOPE, &finished.digest, &sender(position), 1);
        let list = encrypt(reading, &public_key, &string, &metadata).unwrap();
        let expanded = verify_and_expand_report(&list, &metadata, &string, &key).unwrap();
        let digest = Blake3Digest([position; 32]);
        inputs.reports.insert(digest, Arc::new(expanded));
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

    let mut slot = SlotEvaluation::new(manifest.clone(), inputs.clone(), key.clone());
    let (outputs, _) = slot.step(&[]).unwrap();
    let squashed = outputs.squash(&key).unwrap();
    let blocks: Vec<_> = squashed.as_slice().iter().flat_map(squashed_blocks).collect();
    let plan = DecryptionPlan::new(4).culprit(2, WrongPartial::Bit(120));
    let report = finished.decrypt(&blocks, &plan, 1);

    let plan = Plan::new(&manifest, &inputs.public).unwrap();
    let expected = cleartext::place(&plan, &readings, &Secrets::default());
    assert!(expected.contains(&None) && expected.iter().any(Option::is_some), "{expected:?}");
    for j in [1, 3, 4].map(member) {
        let completion = report.member(j).completion.as_ref().unwrap();
        let digits: Option<Vec<_>> =
            completion.combined.phases.iter().map(|phase| decode_block(*phase)).collect();
        let assignments = read(&manifest, &inputs.public, &[digits.unwrap()]).unwrap();
        assert_placed(&assignments, &manifest, &expected);
        assert_eq!(report.member(j).culprits, [member(2)].into());
    }

    // The same by thresholds, opened as it goes, and evaluated again by an auditor from what the record says.
    let manifest = Manifest { circuit: threshold_circuit_id(), ..manifest };
    let steps = open_as_it_goes(&finished, &manifest, &inputs, &key);
    assert!(steps.len() >= jobs.len(), "one opening for each replica that somebody may take");
    let opened: Vec<_> = steps.iter().map(|step| step.digits.0.clone()).collect();
    let assignments = read(&manifest, &inputs.public, &opened).unwrap();
    let expected = twin::place(&plan, &readings, &Secrets::default());
    assert!(expected.contains(&None) && expected.iter().any(Option::is_some), "{expected:?}");
    assert_placed(&assignments, &manifest, &expected);
    let again = openings(&manifest, &inputs.public, &assignments).unwrap();
    assert_eq!(again, opened);
    let evaluations: Vec<_> = steps.iter().map(|step| step.evaluation).collect();
    let mut auditor = SlotEvaluation::new(manifest, inputs, key);
    assert_eq!(auditor.again(&again).unwrap(), evaluation_digest(&evaluations));
}
