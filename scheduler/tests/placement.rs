//! The circuit against its cleartext twin, under test keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, encrypted_job, job, quantities, reading, resources, worker};
use proptest::prelude::*;
use veil_protocol_spec::{
    ReplicaIndex,
    scheduling::{
        DiskUnits, GpuUnits, LatencyClass, Outcome, PriceClass, Priority, Reading, ReplicaState,
        Resources, SchedulingPolicy, Strength, Weight, Weights, WorkerPriority,
    },
};
use veil_scheduler::evaluate;
use veil_scheduler_plan::{cleartext, outcome::decode, plan::Plan};

/// Evaluates, squashes, decrypts and decodes; must be what the twin says, which is returned.
fn place(cluster: Cluster) -> Vec<Option<usize>> {
    let keys = Keys::test();
    let Cluster { manifest, inputs, readings, secrets } = cluster.encrypt(keys);
    let plan = Plan::new(&manifest, &inputs.public).unwrap();
    let expected = cleartext::place(&plan, &readings, &secrets);
    let (outputs, digest) = evaluate(&manifest, &inputs, &keys.evaluation).unwrap();
    assert_eq!(outputs.digest(&manifest), digest);
    assert_eq!(outputs.cost(), &plan.cost(), "what was made is what the plan says");
    let blocks = keys.decrypt(&outputs);
    let assignments = decode(&manifest, &inputs.public, &blocks).unwrap();
    let found: Vec<_> = manifest
        .pending
        .iter()
        .map(|pending| {
            let is_it = |a: &&veil_protocol_spec::scheduling::Assignment| {
                a.job == pending.job && a.replica == pending.replica
            };
            match assignments.as_slice().iter().find(is_it).unwrap().outcome {
                Outcome::Pending => None,
                Outcome::Node(node) => manifest.telemetry.iter().position(|t| t.sender == node),
            }
        })
        .collect();
    assert_eq!(found, expected);
    expected
}

fn equal(count: usize, cpu: u8, memory: u8) -> Vec<Reading> {
    vec![reading(cpu, memory); count]
}

#[test]
fn soft_anti_affinity_takes_three_workers() {
    let jobs = vec![job(1, resources(5, 8), 3, Some(Strength::Soft))];
    let mut placed = place(Cluster::new(equal(3, 40, 64), jobs, 1));
    placed.sort_unstable();
    assert_eq!(placed, [Some(0), Some(1), Some(2)]);
}

#[test]
fn the_last_room_is_taken_once() {
    // Two replicas fit exactly on one worker, the third nowhere.
    let jobs = vec![job(1, resources(20, 30), 3, None)];
    let placed = place(Cluster::new(vec![reading(40, 60), reading(19, 99)], jobs, 1));
    assert_eq!(placed, [Some(0), Some(0), None]);
}

#[test]
fn edges_of_the_range() {
    let free = vec![reading(191, 191), reading(190, 191), reading(0, 0)];
    let jobs = vec![job(1, resources(191, 1), 2, None)];
    assert_eq!(place(Cluster::new(free, jobs, 1)), [Some(0), None]);
    // Borrows through zeros: 0x10 - 1 and 0x10 - 0x0f.
    let jobs = vec![job(1, resources(1, 0x0f), 2, None)];
    assert_eq!(place(Cluster::new(equal(1, 0x10, 0x10), jobs, 1)), [Some(0), None]);
    let jobs = vec![job(1, resources(0x10, 0x10), 2, None)];
    assert_eq!(place(Cluster::new(equal(1, 0x1f, 0x1f), jobs, 1)), [Some(0), None]);
}

#[test]
fn hard_anti_affinity_leaves_replicas_pending_and_deducts_for_the_next_job() {
    let jobs = vec![
        job(1, resources(5, 8), 3, Some(Strength::Hard)),
        job(2, resources(6, 1), 2, Some(Strength::Soft)),
    ];
    // After job 1 each worker has 5 units left: job 2 fits nowhere.
    let placed = place(Cluster::new(equal(2, 10, 20), jobs, 3));
    assert_eq!(placed.iter().filter(|p| p.is_some()).count(), 2);
    assert_eq!(placed[2..], [None, None, None]);
}

#[test]
fn running_replicas_count() {
    let soft = vec![job(1, resources(1, 1), 2, Some(Strength::Soft))];
    let placed = place(Cluster::new(equal(2, 10, 10), soft, 1).run(0, 0, 1));
    assert_eq!(placed, [Some(0)]);
    let hard = vec![job(1, resources(1, 1), 3, Some(Strength::Hard))];
    let cluster = Cluster::new(equal(2, 10, 10), hard, 1).run(0, 0, 1);
    assert_eq!(place(cluster).iter().flatten().collect::<Vec<_>>(), [&0]);
}

#[test]
fn a_draining_worker_gets_nothing() {
    let jobs = vec![job(1, resources(1, 1), 2, None)];
    let mut cluster = Cluster::new(equal(2, 10, 10), jobs, 1).run(0, 1, 1);
    cluster.inputs.public.running[0].state = ReplicaState::Draining;
    cluster.inputs.public.closed = [worker(1)].into();
    assert_eq!(place(cluster), [Some(0)]);
}

#[test]
fn no_candidate() {
    let mut constrained = job(1, resources(1, 1), 1, None);
    constrained.constraints.allow = vec!["zone=a".parse().unwrap()];
    let mut cluster = Cluster::new(equal(2, 9, 9), vec![constrained], 1);
    assert_eq!(place(cluster.clone()), [None]);
    cluster.inputs.public.labels.insert(worker(1), vec!["zone=a".parse().unwrap()]);
    assert_eq!(place(cluster), [Some(1)]);
    let mut denied = job(1, resources(1, 1), 1, None);
    denied.constraints.deny = vec!["zone=a".parse().unwrap()];
    let mut cluster = Cluster::new(equal(2, 9, 9), vec![denied], 1);
    cluster.inputs.public.labels.insert(worker(1), vec!["zone=a".parse().unwrap()]);
    assert_eq!(place(cluster), [Some(0)]);
}

#[test]
fn disk_and_gpu_are_compared_and_deducted() {
    let mut free = equal(2, 50, 50);
    free[1].free = quantities([50, 50, 150, 1]);
    let request = Resources { disk: DiskUnits(100), gpu: GpuUnits(1), ..resources(1, 1) };
    let jobs = vec![job(1, request, 2, None)];
    assert_eq!(place(Cluster::new(free, jobs, 1)), [Some(1), None]);
}

#[test]
fn priority_goes_first() {
    let low = job(1, resources(8, 8), 1, None);
    let mut high = job(2, resources(8, 8), 1, None);
    high.priority = Priority(1);
    let placed = place(Cluster::new(equal(1, 10, 10), vec![low, high], 1));
    assert_eq!(placed, [None, Some(0)]);
}

#[test]
fn equals_are_not_always_taken_in_order() {
    let taken = |slot| {
        let cluster = Cluster::new(equal(3, 9, 9), vec![job(1, resources(1, 1), 1, None)], slot);
        let plan = Plan::new(&cluster.manifest, &cluster.inputs.public).unwrap();
        cleartext::place(&plan, &cluster.readings, &cluster.secrets)[0].unwrap()
    };
    let mut seen: Vec<_> = (1..40).map(taken).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_replica_goes_back_to_where_it_was() {
    let mut again = job(1, resources(1, 1), 1, None);
    again.constraints.prefer_previous = true;
    let mut cluster = Cluster::new(vec![reading(9, 9), reading(90, 90)], vec![again.clone()], 1);
    cluster.inputs.public.previous.insert((again.digest(), ReplicaIndex(0)), worker(0));
    assert_eq!(place(cluster.clone()), [Some(0)]);
    cluster.readings[0] = reading(0, 9);
    assert_eq!(place(cluster), [Some(1)]);
}

#[test]
fn encrypted_requests_and_weights() {
    let keys = Keys::test();
    let request = quantities([7, 20, 0, 1]);
    let sealed = encrypted_job(keys, 1, request, 2);
    let mut cheapest = job(2, resources(1, 1), 1, None);
    cheapest.policy = SchedulingPolicy::Cost;
    cheapest.constraints.max_latency = Some(LatencyClass::new(1).unwrap());
    let mut free = equal(3, 12, 60);
    free[1].free = quantities([12, 60, 3, 1]);
    free[2].free = quantities([15, 70, 3, 1]);
    for (worker, (price, latency)) in [(3, 0), (1, 1), (0, 2)].into_iter().enumerate() {
        free[worker].price = PriceClass::new(price).unwrap();
        free[worker].latency = LatencyClass::new(latency).unwrap();
    }
    let weights = Weights { price: Weight::new(2).unwrap(), latency: Weight::new(1).unwrap() };
    let cluster = Cluster::new(free, vec![sealed.clone(), cheapest], 1)
        .with_request(keys, &sealed, request)
        .with_encrypted_weights(keys, weights);
    assert_eq!(place(cluster), [Some(2), Some(1), Some(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 4, ..Default::default() })]

    /// Many more cases run in clear, in the crate's unit tests.
    #[test]
    fn the_circuit_agrees_with_the_twin(
        free in prop::collection::vec(prop::array::uniform4(0..=191u8), 1..6),
        jobs in prop::collection::vec((1..60u16, 1..90u16, 1..3u16, 0..4usize), 1..3),
        slot in 1..1000u64,
    ) {
        let policies = [
            SchedulingPolicy::Spread,
            SchedulingPolicy::BinPack,
            SchedulingPolicy::PriorityRoundRobin,
            SchedulingPolicy::Cost,
        ];
        let readings = free.into_iter().map(|free| Reading {
            free: quantities(free),
            price: PriceClass::new(free[2] % 4).unwrap(),
            latency: LatencyClass::new(free[3] % 4).unwrap(),
            priority: WorkerPriority::new(free[0] % 4).unwrap(),
            ..Reading::default()
        });
        let jobs = jobs.into_iter().enumerate().map(|(nonce, (cpu, memory, replicas, policy))| {
            let mut job = job(nonce as u64, resources(cpu, memory), replicas, None);
            job.policy = policies[policy];
            job
        });
        let placed = place(Cluster::new(readings.collect(), jobs.collect(), slot));
        prop_assert!(placed.len() <= 4);
    }
}
