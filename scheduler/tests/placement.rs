//! The circuit against its cleartext twin, under test keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, job, resources, worker};
use proptest::prelude::*;
use veil_protocol_spec::scheduling::{
    DiskUnits, GpuUnits, Outcome, Priority, ReplicaState, ResourceRequest, Resources, Strength,
};
use veil_scheduler::{Plan, cleartext, decode, evaluate};

/// Evaluates, squashes, decrypts and decodes; must be what the twin says, which is returned.
fn place(cluster: Cluster) -> Vec<Option<usize>> {
    let keys = Keys::test();
    let Cluster { manifest, inputs, free } = cluster.encrypt(keys);
    let plan = Plan::new(&manifest, &inputs.public).unwrap();
    let expected = cleartext::place(&plan, &free);
    let (outputs, digest) = evaluate(&manifest, &inputs, &keys.evaluation).unwrap();
    assert_eq!(outputs.digest(&manifest), digest);
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

fn equal(count: usize, cpu: u16, memory: u16) -> Vec<Resources> {
    vec![resources(cpu, memory); count]
}

#[test]
fn three_replicas_go_to_three_workers() {
    let jobs = vec![job(1, resources(5, 8), 3, Some(Strength::Soft))];
    let mut placed = place(Cluster::new(equal(3, 40, 64), jobs, 1));
    placed.sort_unstable();
    assert_eq!(placed, [Some(0), Some(1), Some(2)]);
}

#[test]
fn the_last_room_is_taken_once() {
    // Two replicas fit exactly on one worker, the third nowhere.
    let jobs = vec![job(1, resources(20, 30), 3, None)];
    let placed = place(Cluster::new(vec![resources(40, 60), resources(19, 99)], jobs, 1));
    assert_eq!(placed, [Some(0), Some(0), None]);
}

#[test]
fn edges_of_the_range() {
    let max = u16::MAX;
    let free = vec![resources(max, max), resources(max - 1, max), resources(0, 0)];
    let jobs = vec![job(1, resources(max, 1), 2, None)];
    assert_eq!(place(Cluster::new(free, jobs, 1)), [Some(0), None]);
    // Borrows through zeros: 0x1000 - 1 and 0x1000 - 0x0fff.
    let jobs = vec![job(1, resources(1, 0x0fff), 2, None)];
    assert_eq!(place(Cluster::new(equal(1, 0x1000, 0x1000), jobs, 1)), [Some(0), None]);
    let jobs = vec![job(1, resources(0x100, 0x10), 2, None)];
    assert_eq!(place(Cluster::new(equal(1, 0x1ff, 0x1ff), jobs, 1)), [Some(0), None]);
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
    let spread = vec![job(1, resources(1, 1), 2, None)];
    let placed = place(Cluster::new(equal(2, 10, 10), spread, 1).run(0, 0, 1));
    assert_eq!(placed, [Some(0)]);
    let hard = vec![job(1, resources(1, 1), 3, Some(Strength::Hard))];
    let cluster = Cluster::new(equal(2, 10, 10), hard, 1).run(0, 0, 1);
    assert_eq!(place(cluster).iter().flatten().collect::<Vec<_>>(), [&0]);
}

#[test]
fn a_draining_worker_gets_nothing() {
    let jobs = vec![job(1, resources(1, 1), 2, None)];
    let mut cluster = Cluster::new(equal(2, 10, 10), jobs, 1).run(0, 1, 1);
    cluster.manifest.running[0].state = ReplicaState::Draining;
    assert_eq!(place(cluster), [Some(0)]);
}

#[test]
fn many_replicas_saturate_the_count() {
    let jobs = vec![job(1, resources(1, 1), 10, None), job(2, resources(1, 1), 1, None)];
    let placed = place(Cluster::new(vec![resources(11, 30)], jobs, 1));
    assert_eq!(placed, [Some(0); 11]);
}

#[test]
fn no_worker_and_no_candidate() {
    assert_eq!(place(Cluster::new(vec![], vec![job(1, resources(1, 1), 2, None)], 1)), [None; 2]);
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
    free[1].disk = DiskUnits(300);
    free[1].gpu = GpuUnits(1);
    let request = Resources { disk: DiskUnits(200), gpu: GpuUnits(1), ..resources(1, 1) };
    let jobs = vec![job(1, request, 2, None)];
    assert_eq!(place(Cluster::new(free, jobs, 1)), [Some(1), None]);
}

#[test]
fn priority_goes_first() {
    let low = job(1, resources(8, 8), 1, None);
    let mut high = job(2, resources(8, 8), 1, None);
    high.priority = Priority(9);
    assert_eq!(place(Cluster::new(equal(1, 10, 10), vec![low, high], 1)), [None, Some(0)]);
}

#[test]
fn more_than_fifteen_workers_take_two_digits() {
    let mut free = equal(18, 1, 1);
    free[16] = resources(9, 9);
    let jobs = vec![job(1, resources(2, 2), 2, Some(Strength::Hard))];
    assert_eq!(place(Cluster::new(free, jobs, 1)), [Some(16), None]);
    let placed = place(Cluster::new(equal(17, 5, 5), vec![job(1, resources(2, 2), 1, None)], 5));
    assert!(placed[0].is_some());
}

#[test]
fn equals_take_turns_over_slots() {
    let jobs = || vec![job(1, resources(1, 1), 1, None)];
    let first = |slot| {
        let cluster = Cluster::new(equal(3, 10, 10), jobs(), slot);
        let plan = Plan::new(&cluster.manifest, &cluster.inputs.public).unwrap();
        cleartext::place(&plan, &cluster.free)[0].unwrap()
    };
    let mut seen: Vec<_> = (1..40).map(first).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
}

fn quantity() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(u16::MAX), 0..20u16, 0..400u16, any::<u16>()]
}

fn request() -> impl Strategy<Value = u16> {
    prop_oneof![1..12u16, 1..300u16, Just(0x1000), Just(u16::MAX)]
}

fn free() -> impl Strategy<Value = Resources> {
    (quantity(), quantity()).prop_map(|(cpu, memory)| resources(cpu, memory))
}

fn jobs() -> impl Strategy<Value = Vec<(Resources, u16, u8, Option<Strength>)>> {
    let apart = prop_oneof![Just(None), Just(Some(Strength::Soft)), Just(Some(Strength::Hard))];
    let request = (request(), request()).prop_map(|(cpu, memory)| resources(cpu, memory));
    prop::collection::vec((request, 1..4u16, 0..3u8, apart), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..Default::default() })]

    #[test]
    fn the_circuit_agrees_with_the_twin(
        free in prop::collection::vec(free(), 0..6),
        jobs in jobs(),
        slot in 1..1000u64,
    ) {
        let jobs = jobs
            .into_iter()
            .enumerate()
            .map(|(nonce, (request, replicas, priority, apart))| {
                let mut job = job(nonce as u64, request, replicas, apart);
                job.priority = Priority(priority);
                job
            })
            .collect::<Vec<_>>();
        let placed = place(Cluster::new(free, jobs, slot));
        prop_assert!(placed.len() <= 9);
    }
}

#[test]
fn no_capacity_is_ever_overdrawn() {
    // The twin subtracts with overflow checks of its own: here by hand.
    let jobs = vec![job(1, resources(7, 3), 3, None), job(2, resources(2, 9), 3, None)];
    let cluster = Cluster::new(vec![resources(15, 20), resources(9, 30)], jobs, 7);
    let (free, manifest, public) =
        (cluster.free.clone(), cluster.manifest.clone(), cluster.inputs.public.clone());
    let placed = place(cluster);
    for (index, free) in free.iter().enumerate() {
        let taken = manifest.pending.iter().zip(&placed).filter(|(_, p)| **p == Some(index));
        let (mut cpu, mut memory) = (0, 0);
        for (pending, _) in taken {
            let ResourceRequest::Clear(request) = public.jobs[&pending.job].request else {
                continue;
            };
            cpu += request.cpu.0;
            memory += request.memory.0;
        }
        assert!(cpu <= free.cpu.0 && memory <= free.memory.0);
    }
}
