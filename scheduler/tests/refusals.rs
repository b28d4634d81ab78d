//! What is refused, by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, encrypted_job, job, metadata, quantities, reading, resources};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::scheduling::{
    Assignments, Outcome, PolicyWeights, ProvenList, SchedulingPolicy, Strength, Weights,
};
use veil_scheduler::{
    EvaluateError, ListError, ReferenceString, ReferenceStringError, SquashError, encrypt,
    encrypt_request, encrypt_weights, evaluate, request_agrees, verify, verify_and_expand,
    verify_request, verify_weights,
};
use veil_scheduler_plan::{
    cleartext,
    inputs::{JobRefusal, PlanError},
    outcome::{DecodeError, decode},
    plan::Plan,
};

#[test]
fn only_the_proven_list_verifies() {
    let keys = Keys::test();
    let other = Keys::new(ParameterSet::insecure_test(), 2);
    let (key, string) = (&keys.public_key, &keys.reference_string);
    let list = encrypt(&reading(1, 2), key, string, &metadata(7)).unwrap();
    verify(&list, &metadata(7), key, string).unwrap();
    let proof = |result| matches!(result, Err(ListError::Proof));
    assert!(proof(verify(&list, &metadata(8), key, string)), "another sequence number");
    assert!(proof(verify(&list, &metadata(7), &other.public_key, string)), "another key");
    assert!(proof(verify(&list, &metadata(7), key, &other.reference_string)), "another string");
    let refused = verify_and_expand(&list, &metadata(8), string, &keys.evaluation);
    assert!(matches!(refused, Err(ListError::Proof)));
}

#[test]
fn no_changed_byte_and_no_shortened_list_is_accepted() {
    let keys = Keys::test();
    let (key, string) = (&keys.public_key, &keys.reference_string);
    let list = encrypt(&reading(1, 2), key, string, &metadata(7)).unwrap();
    let bytes = list.as_bytes();
    for position in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut changed = bytes.to_vec();
        changed[position] ^= 0x10;
        let changed = ProvenList::new(changed).unwrap();
        assert!(verify(&changed, &metadata(7), key, string).is_err(), "byte {position}");
    }
    for len in [1, 16, bytes.len() / 2, bytes.len() - 1] {
        let short = ProvenList::new(bytes[..len].to_vec()).unwrap();
        let refused = verify(&short, &metadata(7), key, string);
        assert!(matches!(refused, Err(ListError::Malformed(_))), "{len} bytes");
    }
}

#[test]
fn a_list_under_other_parameters_is_refused_before_its_proof() {
    let keys = Keys::test();
    let list =
        encrypt(&reading(1, 2), &keys.public_key, &keys.reference_string, &metadata(7)).unwrap();
    let committee = veil_protocol_spec::Committee::new(4).unwrap();
    let parameters = *ParameterSet::production(committee).pke();
    let private = tfhe::shortint::CompactPrivateKey::new(parameters);
    let public = tfhe::shortint::CompactPublicKey::new(&private);
    let public = tfhe::CompactPublicKey::from_raw_parts(
        tfhe::integer::CompactPublicKey::from_raw_parts(public),
        tfhe::Tag::default(),
    );
    let refused = verify(&list, &metadata(7), &public, &keys.reference_string);
    assert!(matches!(refused, Err(ListError::Malformed(_))));
}

#[test]
fn a_reference_string_reads_back() {
    let keys = Keys::test();
    let string = &keys.reference_string;
    let mut bytes = Vec::new();
    string.write(&mut bytes).unwrap();
    let parameters = *keys.parameters.pke();
    let read = ReferenceString::read(&bytes[..], parameters).unwrap();
    assert_eq!(read.digest(), string.digest());
    let list = encrypt(&reading(1, 2), &keys.public_key, &read, &metadata(1)).unwrap();
    verify(&list, &metadata(1), &keys.public_key, string).unwrap();

    let refused = |bytes: &[u8]| ReferenceString::read(bytes, parameters).unwrap_err();
    assert!(matches!(refused(&[]), ReferenceStringError::Io(_)));
    assert!(matches!(refused(&bytes[..100]), ReferenceStringError::Refused(_)));
    let mut changed = bytes.clone();
    changed[0] = 9;
    assert!(matches!(refused(&changed), ReferenceStringError::Version(9)));
    let committee = veil_protocol_spec::Committee::new(4).unwrap();
    let production = *ParameterSet::production(committee).pke();
    let other = ReferenceString::read(&bytes[..], production);
    assert!(matches!(other, Err(ReferenceStringError::Refused(_))));
}

#[test]
fn manifests_that_the_circuit_cannot_evaluate() {
    let keys = Keys::test();
    let spec = job(1, resources(1, 1), 1, None);
    let cluster = || Cluster::new(vec![reading(5, 5)], vec![spec.clone()], 1);
    let refusal = |cluster: Cluster| {
        evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation).unwrap_err()
    };
    assert!(matches!(refusal(cluster()), EvaluateError::MissingTelemetry(_)));

    let mut newer = cluster();
    newer.manifest.circuit.version += 1;
    assert!(matches!(refusal(newer), EvaluateError::Circuit { .. }));

    let mut missing = cluster();
    missing.inputs.public.jobs.clear();
    let expected = PlanError::MissingJob(spec.digest());
    assert_eq!(refusal(missing), EvaluateError::Plan(expected));

    let mut swapped = cluster();
    let other = job(2, resources(1, 1), 1, None);
    swapped.inputs.public.jobs.insert(spec.digest(), other);
    assert_eq!(refusal(swapped), EvaluateError::Plan(PlanError::WrongJob(spec.digest())));

    let mut invalid = spec.clone();
    invalid.request = veil_protocol_spec::scheduling::ResourceRequest::Clear(resources(0, 1));
    let invalid = Cluster::new(vec![], vec![invalid], 1);
    assert!(matches!(refusal(invalid), EvaluateError::Plan(PlanError::InvalidJob { .. })));

    let mut crowded = cluster();
    crowded.inputs.public.policy.max_workers = 0;
    let expected = PlanError::TooManyWorkers { found: 1, max: 0 };
    assert_eq!(refusal(crowded), EvaluateError::Plan(expected));

    let mut twice = cluster();
    twice.manifest.telemetry = vec![twice.manifest.telemetry[0]; 2];
    let expected = PlanError::DuplicateWorker(harness::worker(0));
    assert_eq!(refusal(twice), EvaluateError::Plan(expected));

    let sealed = encrypted_job(keys, 9, quantities([1, 1, 0, 0]), 1);
    let unopened = Cluster::new(vec![reading(5, 5)], vec![sealed.clone()], 1).encrypt(keys);
    assert_eq!(refusal(unopened), EvaluateError::MissingRequest(sealed.digest()));

    let mut by_cost = spec.clone();
    by_cost.policy = SchedulingPolicy::Cost;
    let mut unweighted = Cluster::new(vec![reading(5, 5)], vec![by_cost], 1).encrypt(keys);
    let weights = veil_protocol_spec::Blake3Digest([4; 32]);
    unweighted.inputs.public.policy.weights = PolicyWeights::Encrypted(weights);
    assert_eq!(refusal(unweighted), EvaluateError::MissingWeights(weights));

    let mut beyond = cluster();
    beyond.manifest.pending[0].replica.0 = 1;
    assert!(matches!(refusal(beyond), EvaluateError::Plan(PlanError::NoSuchReplica { .. })));

    let other = Keys::new(ParameterSet::insecure_test(), 3);
    let mixed = cluster().encrypt(&other);
    assert!(matches!(refusal(mixed), EvaluateError::OtherKey { .. }));

    let right = cluster().encrypt(keys);
    let (outputs, _) = evaluate(&right.manifest, &right.inputs, &keys.evaluation).unwrap();
    let squashed = outputs.squash(&other.evaluation);
    assert!(matches!(squashed, Err(SquashError::OtherKey { .. })));
}

#[test]
fn without_workers_nothing_is_evaluated_and_all_stays_pending() {
    let keys = Keys::test();
    let cluster = Cluster::new(vec![], vec![job(1, resources(1, 1), 2, None)], 1);
    let refused = evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation).unwrap_err();
    assert_eq!(refused, EvaluateError::NoWorkers);
    let plan = Plan::new(&cluster.manifest, &cluster.inputs.public).unwrap();
    assert_eq!(cleartext::place(&plan, &[], &cluster.secrets), [None; 2]);
    let decoded = decode(&cluster.manifest, &cluster.inputs.public, &[]).unwrap();
    assert_eq!(decoded.as_slice().len(), 2);
    assert!(decoded.as_slice().iter().all(|a| a.outcome == Outcome::Pending));
    // Nothing pending is no reason to refuse.
    let idle = Cluster::new(vec![], vec![], 1);
    let (outputs, _) = evaluate(&idle.manifest, &idle.inputs, &keys.evaluation).unwrap();
    assert!(outputs.is_empty());
}

#[test]
fn refused_jobs_stay_pending_and_do_not_harm_others() {
    let keys = Keys::test();
    let huge = job(1, resources(192, 1), 1, None);
    let mut lonely = job(2, resources(1, 1), 1, None);
    lonely.constraints.allow = vec!["zone=a".parse().unwrap()];
    let good = job(3, resources(1, 1), 1, None);
    let jobs = vec![huge.clone(), lonely.clone(), good];
    let mut cluster = Cluster::new(vec![reading(5, 5)], jobs, 1).encrypt(keys);
    cluster.inputs.public.labels.insert(harness::worker(0), vec!["zone=a".parse().unwrap()]);
    cluster.inputs.public.policy.min_candidates = 2;
    let plan = Plan::new(&cluster.manifest, &cluster.inputs.public).unwrap();
    assert!(matches!(plan.refusals()[&huge.digest()], JobRefusal::TooLarge(_)));
    let refusal = &plan.refusals()[&lonely.digest()];
    assert!(matches!(refusal, JobRefusal::TooFewCandidates { found: 1, min: 2, .. }), "{refusal}");
    let (outputs, _) = evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation).unwrap();
    assert_eq!(keys.decrypt(&outputs), [1]);
    let placed = cleartext::place(&plan, &cluster.readings, &cluster.secrets);
    assert_eq!(placed, [None, None, Some(0)]);
}

#[test]
fn lists_of_one_purpose_do_not_serve_another() {
    let keys = Keys::test();
    let (key, string) = (&keys.public_key, &keys.reference_string);
    let request =
        encrypt_request(&quantities([1; 4]), &[5; 32], key, string, &metadata(1)).unwrap();
    verify_request(&request, &metadata(1), key, string).unwrap();
    assert!(verify(&request, &metadata(1), key, string).is_err());
    let weights = encrypt_weights(&Weights::default(), key, string, &metadata(1)).unwrap();
    verify_weights(&weights, &metadata(1), key, string).unwrap();
    assert!(verify_request(&weights, &metadata(1), key, string).is_err());
    assert!(verify_weights(&weights, &metadata(2), key, string).is_err());
}

#[test]
fn who_knows_quantities_and_randomness_sees_whether_a_request_is_theirs() {
    let keys = Keys::test();
    let (key, string) = (&keys.public_key, &keys.reference_string);
    let encrypted = |randomness: u8| {
        let request = quantities([5, 8, 191, 0]);
        encrypt_request(&request, &[randomness; 32], key, string, &metadata(1)).unwrap()
    };
    let list = encrypted(7);
    verify_request(&list, &metadata(1), key, string).unwrap();
    let agrees = |list: &ProvenList, units, randomness: u8| {
        request_agrees(list, &quantities(units), &[randomness; 32], key)
    };
    assert!(agrees(&list, [5, 8, 191, 0], 7).unwrap());
    assert!(!agrees(&list, [5, 8, 191, 1], 7).unwrap(), "other quantities");
    assert!(!agrees(&list, [5, 8, 191, 0], 8).unwrap(), "other randomness");
    assert!(!agrees(&encrypted(8), [5, 8, 191, 0], 7).unwrap());
    let garbage = ProvenList::new(vec![1; 100]).unwrap();
    let telemetry = encrypt(&reading(1, 2), key, string, &metadata(1)).unwrap();
    for other in [garbage, telemetry] {
        assert!(matches!(agrees(&other, [5, 8, 191, 0], 7), Err(ListError::Malformed(_))));
    }
}

#[test]
fn plaintexts_that_are_no_outcome() {
    let spec = job(1, resources(1, 1), 2, Some(Strength::Hard));
    let mut away = spec.clone();
    away.nonce = 2;
    away.replicas = 1;
    away.constraints.allow = vec!["zone=a".parse().unwrap()];
    let mut cluster = Cluster::new(vec![reading(5, 5); 3], vec![spec.clone(), away.clone()], 1);
    cluster.inputs.public.labels.insert(harness::worker(2), vec!["zone=a".parse().unwrap()]);
    let decode = |blocks: &[u8]| decode(&cluster.manifest, &cluster.inputs.public, blocks);
    assert_eq!(decode(&[1]), Err(DecodeError::Count { found: 1, expected: 3 }));
    assert_eq!(decode(&[1, 16, 0]), Err(DecodeError::Digit(1)));
    assert!(matches!(decode(&[4, 0, 0]), Err(DecodeError::NoSuchWorker { number: 4, .. })));
    assert!(matches!(decode(&[1, 2, 1]), Err(DecodeError::NoCandidate { number: 1, .. })));
    assert!(matches!(decode(&[2, 2, 0]), Err(DecodeError::Together { number: 2, .. })));
    let outcomes = |assignments: Assignments| {
        let pending = assignments.as_slice().iter().filter(|a| a.outcome == Outcome::Pending);
        (assignments.as_slice().len(), pending.count())
    };
    assert_eq!(decode(&[1, 2, 3]).map(outcomes), Ok((3, 0)));
    assert_eq!(decode(&[0, 2, 0]).map(outcomes), Ok((3, 2)));
}
