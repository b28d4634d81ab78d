//! The threshold circuit against its twin, under test keys: every digit is squashed and decrypted, and the
//! next question follows from it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, encrypted_job, job, quantities, reading, resources};
use proptest::prelude::*;
use veil_protocol_spec::{
    scheduling::{
        CircuitId, DiskUnits, GpuUnits, LatencyClass, Manifest, Outcome, PriceClass, Reading,
        Resources, SchedulingPolicy, Share, Strength, Weight, Weights, WorkerPriority,
    },
    slot::evaluation_digest,
};
use veil_scheduler::{
    Cancellation, EvaluateError, circuit_id,
    slot::{SlotEvaluation, circuit_of},
    threshold::Evaluation,
};
use veil_scheduler_plan::{
    outcome::{openings, read},
    plan::Plan,
    threshold::twin,
};

/// What is placed, which must be what the twin says, and the look-ups that it took.
fn place(cluster: Cluster) -> (Vec<Option<usize>>, u64) {
    let keys = Keys::test();
    let (cluster, inputs) = cluster.reported(keys);
    let plan = Plan::new(&cluster.manifest, &inputs.public).unwrap();
    let expected = twin::place(&plan, &cluster.readings, &cluster.secrets);
    let mut evaluation = Evaluation::new(&cluster.manifest, &inputs, &keys.evaluation).unwrap();
    let mut look_ups = 0;
    while let Some((outputs, digest)) = evaluation.evaluate_next().unwrap() {
        assert_eq!(outputs.digest(&cluster.manifest), digest);
        assert!(outputs.cost().largest_variance() <= 15);
        look_ups += outputs.cost().look_ups();
        let digits = keys.decrypt(&outputs);
        assert_eq!(digits.len(), 1, "one digit is opened at a time");
        evaluation.opened(digits[0]).unwrap();
    }
    assert_eq!(evaluation.outcome(), expected);
    (expected, look_ups)
}

fn shared(cpu: u8, memory: u8, share: u8) -> Reading {
    Reading { share: Share::new(share).unwrap(), ..reading(cpu, memory) }
}

#[test]
fn the_last_room_is_taken_once() {
    // Two replicas fit exactly on one worker, the third nowhere.
    let jobs = vec![job(1, resources(20, 30), 3, None)];
    let readings = vec![shared(40, 60, 3), shared(19, 99, 7)];
    assert_eq!(place(Cluster::new(readings, jobs, 1)).0, [Some(0), Some(0), None]);
}

#[test]
fn edges_of_the_range() {
    let free = vec![reading(191, 191), reading(190, 191), reading(0, 0)];
    let jobs = vec![job(1, resources(191, 1), 2, None)];
    assert_eq!(place(Cluster::new(free, jobs, 1)).0, [Some(0), None]);
    for (request, free) in [((0x10, 0x10), 0x1f), ((1, 0x0f), 0x10)] {
        let jobs = vec![job(1, resources(request.0, request.1), 2, None)];
        let free = vec![reading(free, free); 2];
        let (placed, _) = place(Cluster::new(free, jobs, 1));
        assert!(placed.iter().all(Option::is_some) && placed[0] != placed[1]);
    }
}

#[test]
fn levels_groups_and_every_resource() {
    // Two groups; the best share has no GPU.
    let free: Vec<_> = (0..17u8)
        .map(|number| Reading {
            free: quantities([50, 50, 150, number % 2]),
            share: Share::new(number % 8).unwrap(),
            ..Reading::default()
        })
        .map(|reading| {
            if reading.share.get() == 7 {
                Reading { free: quantities([50, 50, 150, 0]), ..reading }
            } else {
                reading
            }
        })
        .collect();
    let request = Resources { disk: DiskUnits(100), gpu: GpuUnits(1), ..resources(1, 1) };
    let jobs = vec![job(1, request, 2, None)];
    let (placed, look_ups) = place(Cluster::new(free.clone(), jobs, 1));
    assert!(placed.iter().flatten().all(|worker| free[*worker].share.get() == 5));
    assert_ne!(placed[0], placed[1]);
    // 3 to fit, 1 for the levels, 8 for the ORs of each group and 8 of both, and what finds the first.
    assert!(look_ups <= 2 * (4 * 17 + 3 * 8 + 2 + 2 + 2 + 15 + 13), "{look_ups}");
}

#[test]
fn apart_softly_and_strictly() {
    let soft = vec![job(1, resources(5, 8), 3, Some(Strength::Soft))];
    let (mut placed, _) = place(Cluster::new(vec![reading(40, 64); 3], soft, 1));
    placed.sort_unstable();
    assert_eq!(placed, [Some(0), Some(1), Some(2)]);
    let hard = vec![job(1, resources(5, 8), 3, Some(Strength::Hard))];
    let (placed, _) = place(Cluster::new(vec![reading(40, 64); 2], hard, 1));
    assert_eq!(placed.iter().filter(|worker| worker.is_some()).count(), 2);
}

#[test]
fn encrypted_requests_and_weights() {
    let keys = Keys::test();
    let request = quantities([7, 20, 0, 1]);
    let sealed = encrypted_job(keys, 1, request, 2);
    let mut cheapest = job(2, resources(1, 1), 1, None);
    cheapest.policy = SchedulingPolicy::Cost;
    cheapest.constraints.max_latency = Some(LatencyClass::new(1).unwrap());
    let mut free = vec![shared(12, 60, 4); 4];
    free[1].free = quantities([12, 60, 3, 1]);
    free[2].free = quantities([15, 70, 3, 1]);
    for (worker, (price, latency)) in [(3, 0), (1, 1), (0, 2), (2, 0)].into_iter().enumerate() {
        free[worker].price = PriceClass::new(price).unwrap();
        free[worker].latency = LatencyClass::new(latency).unwrap();
    }
    let weights = Weights { price: Weight::new(2).unwrap(), latency: Weight::new(1).unwrap() };
    let cluster = Cluster::new(free, vec![sealed.clone(), cheapest], 1)
        .with_request(keys, &sealed, request)
        .with_encrypted_weights(keys, weights);
    let (placed, _) = place(cluster);
    // Workers 1 and 2 have a GPU. They were promised what nobody knows, and so get nothing more in this slot.
    let mut sealed_to = placed[..2].to_vec();
    sealed_to.sort_unstable();
    assert_eq!(sealed_to, [Some(1), Some(2)]);
    assert_eq!(placed[2], Some(3));
}

#[test]
fn threads_and_restarts_do_not_change_the_bits() {
    let keys = Keys::test();
    let free = vec![shared(30, 70, 2), shared(9, 9, 5), shared(190, 40, 2), shared(31, 70, 1)];
    let jobs = vec![job(1, resources(5, 8), 3, None)];
    let (cluster, inputs) = Cluster::new(free, jobs, 1).reported(keys);
    let run = |threads: usize, restart: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let new = || Evaluation::new(&cluster.manifest, &inputs, &keys.evaluation).unwrap();
            let (mut evaluation, mut digests, mut opened) = (new(), Vec::new(), Vec::new());
            while let Some((outputs, digest)) = evaluation.evaluate_next().unwrap() {
                digests.push(digest);
                opened.push(keys.decrypt(&outputs)[0]);
                if restart {
                    evaluation = new();
                    opened.iter().for_each(|digit| evaluation.opened(*digit).unwrap());
                } else {
                    evaluation.opened(opened[opened.len() - 1]).unwrap();
                }
            }
            digests
        })
    };
    let once = run(1, false);
    assert!(once.len() == 3 && once[0] != once[1]);
    assert_eq!(run(2, false), once);
    assert_eq!(run(2, true), once);
}

/// Members go step by step; auditors evaluate the same again from how the slot ended.
#[test]
fn auditors_come_to_the_digest_of_members_from_the_record() {
    let keys = Keys::test();
    let free = vec![shared(30, 70, 2), shared(9, 9, 5), shared(190, 40, 2)];
    let jobs = vec![job(1, resources(5, 8), 2, None), job(2, resources(191, 8), 1, None)];
    let (cluster, inputs) = Cluster::new(free, jobs, 1).reported(keys);
    for (version, openings_of_all) in [(CircuitId::AT_ONCE, 1), (CircuitId::THRESHOLDS, 3)] {
        let manifest = Manifest { circuit: circuit_of(version), ..cluster.manifest.clone() };
        let new = || SlotEvaluation::new(manifest.clone(), inputs.clone(), keys.evaluation.clone());
        let (mut member, mut opened, mut digests) = (new(), Vec::new(), Vec::new());
        loop {
            let (outputs, digest) = member.step(&opened).unwrap();
            if outputs.is_empty() {
                break;
            }
            digests.push(digest);
            opened.push(keys.decrypt(&outputs));
        }
        assert_eq!(opened.len(), openings_of_all);
        let ended = read(&manifest, &inputs.public, &opened).unwrap();
        assert_eq!(openings(&manifest, &inputs.public, &ended).unwrap(), opened);
        assert_eq!(new().again(&opened).unwrap(), evaluation_digest(&digests));
        // Two have room, the third replica fits nowhere.
        let pending = ended.as_slice().iter().filter(|place| place.outcome == Outcome::Pending);
        assert_eq!(pending.count(), 1);
    }
    let mut unknown = cluster.manifest.clone();
    unknown.circuit.version = 7;
    let mut evaluation = SlotEvaluation::new(unknown, inputs, keys.evaluation.clone());
    assert!(matches!(evaluation.step(&[]), Err(EvaluateError::Circuit { .. })));
}

#[test]
fn refusals() {
    let keys = Keys::test();
    let jobs = vec![job(1, resources(5, 8), 1, None)];
    let (cluster, inputs) = Cluster::new(vec![shared(30, 70, 2); 2], jobs, 1).reported(keys);
    let new = |manifest| Evaluation::new(manifest, &inputs, &keys.evaluation).map(drop);
    // The manifest is for the other circuit.
    let mut other = cluster.manifest.clone();
    other.circuit = circuit_id();
    let refused = new(&other).unwrap_err();
    assert!(matches!(refused, EvaluateError::Circuit { .. }), "{refused}");
    assert!(refused.to_string().contains("circuit 5.") && refused.to_string().contains("has 6."));
    let mut missing = cluster.manifest.clone();
    missing.telemetry[0].digest.0[0] ^= 1;
    assert!(matches!(new(&missing), Err(EvaluateError::MissingTelemetry(_))));
    let mut nobody = cluster.manifest.clone();
    nobody.telemetry.clear();
    assert!(matches!(new(&nobody), Err(EvaluateError::NoWorkers)));
    // Two workers: the digit 3 is no answer, and does not count.
    let mut evaluation = Evaluation::new(&cluster.manifest, &inputs, &keys.evaluation).unwrap();
    assert!(evaluation.opened(3).is_err());
    evaluation.opened(2).unwrap();
    assert!(evaluation.outcome()[0].is_some());
    let cancellation = Cancellation::default();
    let key = keys.evaluation.until(cancellation.clone());
    let mut evaluation = Evaluation::new(&cluster.manifest, &inputs, &key).unwrap();
    cancellation.cancel();
    assert!(matches!(evaluation.evaluate_next(), Err(EvaluateError::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 4, ..Default::default() })]

    /// Many more cases run in clear, in the plan's unit tests.
    #[test]
    fn the_circuit_agrees_with_the_twin(
        free in prop::collection::vec((prop::array::uniform4(0..=191u8), 0..=7u8), 1..7),
        jobs in prop::collection::vec((1..60u16, 1..90u16, 1..3u16, 0..4usize), 1..3),
        slot in 1..1000u64,
    ) {
        let policies = [
            SchedulingPolicy::Spread,
            SchedulingPolicy::BinPack,
            SchedulingPolicy::PriorityRoundRobin,
            SchedulingPolicy::Cost,
        ];
        let readings = free.into_iter().map(|(free, share)| Reading {
            free: quantities(free),
            price: PriceClass::new(free[2] % 4).unwrap(),
            latency: LatencyClass::new(free[3] % 4).unwrap(),
            priority: WorkerPriority::new(free[0] % 4).unwrap(),
            share: Share::new(share).unwrap(),
        });
        let jobs = jobs.into_iter().enumerate().map(|(nonce, (cpu, memory, replicas, policy))| {
            let mut job = job(nonce as u64, resources(cpu, memory), replicas, None);
            job.policy = policies[policy];
            job
        });
        place(Cluster::new(readings.collect(), jobs.collect(), slot));
    }
}
