//! The circuit at its limits, and its bits pinned, on telemetry without proofs.

use rand::{SeedableRng as _, rngs::StdRng};
use veil_keygen_ceremony::keyset::{
    Layout, ParameterSet, assemble, decode_block,
    reference::{self, ClearKeys},
    squashed_blocks,
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, Slot,
    scheduling::{
        AntiAffinity, Binding, BlockRef, CircuitId, ClusterScope, Constraints, CpuUnits, DiskUnits,
        FailureDomain, GpuUnits, JobSpec, LeasePolicy, Manifest, MemoryUnits, PendingReplica,
        Priority, ReplicaIndex, ResourceRequest, Resources, RestartPolicy, SchedulingPolicy,
        Strength, TelemetryEntry,
    },
};

use crate::{
    EncryptedTelemetry, EvaluationKey, Outputs, Plan, PublicInputs,
    circuit::{self, Capacity},
    cleartext,
};

pub(crate) fn keys() -> (ClearKeys, EvaluationKey) {
    let parameters = ParameterSet::insecure_test();
    let layout = Layout::of(&parameters);
    let clear = ClearKeys::random(&layout, &mut StdRng::seed_from_u64(1));
    let bodies = reference::bodies(&parameters, &layout, &[1; 32], &clear, &[2; 32]);
    let key_set = assemble(&parameters, [1; 32], bodies).unwrap();
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    (clear, EvaluationKey::new(public_key, server_key).unwrap())
}

fn resources(cpu: u16, memory: u16) -> Resources {
    Resources {
        cpu: CpuUnits(cpu),
        memory: MemoryUnits(memory),
        disk: DiskUnits(0),
        gpu: GpuUnits(0),
    }
}

fn job(nonce: u64, request: Resources, replicas: u16, apart: Option<Strength>) -> JobSpec {
    JobSpec {
        scope: scope(),
        operator: Address([5; 20]),
        nonce,
        image: format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
        command: Vec::new(),
        args: Vec::new(),
        request: ResourceRequest::Clear(request),
        replicas,
        priority: Priority(0),
        policy: SchedulingPolicy::Spread,
        constraints: Constraints {
            anti_affinity: apart
                .map(|strength| AntiAffinity { strength, domain: FailureDomain::Worker }),
            ..Constraints::default()
        },
        lease: LeasePolicy::Keep,
        restart: RestartPolicy::Always,
        health: None,
    }
}

const fn scope() -> ClusterScope {
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) }
}

fn plan(workers: usize, jobs: &[JobSpec]) -> Plan {
    let id = |index: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(index as u64).to_be_bytes());
        id
    };
    let manifest = Manifest {
        binding: Binding { scope: scope(), key_set: KeySetDigest([3; 32]), epoch: Epoch(1) },
        slot: Slot(1),
        proposer: ParticipantIndex::try_from(1).unwrap(),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
        policy: KeccakDigest([7; 32]),
        // Not the one of this machine: the order among equals must not depend on it here.
        circuit: CircuitId { version: 0, fingerprint: Blake3Digest([8; 32]) },
        telemetry: (0..workers)
            .map(|index| TelemetryEntry {
                sender: PeerIdHash(id(index)),
                digest: Blake3Digest(id(index)),
            })
            .collect(),
        pending: jobs
            .iter()
            .enumerate()
            .flat_map(|(submission, job)| {
                let digest = job.digest();
                (0..job.replicas).map(move |replica| PendingReplica {
                    submission: submission as u64,
                    job: digest,
                    replica: ReplicaIndex(replica),
                })
            })
            .collect(),
        running: Vec::new(),
        lost: Vec::new(),
    };
    let jobs = jobs.iter().map(|job| (job.digest(), job.clone())).collect();
    Plan::new(&manifest, &PublicInputs { jobs, ..PublicInputs::default() }).unwrap()
}

fn run(plan: &Plan, free: &[Resources], key: &EvaluationKey) -> Outputs {
    // Few lists, cloned: encrypting a thousand takes longer than the circuit.
    let lists: Vec<_> = free
        .iter()
        .take(8)
        .enumerate()
        .map(|(seed, free)| EncryptedTelemetry::unproven(free, seed as u8, key))
        .collect();
    let capacity = |list: &EncryptedTelemetry| -> Capacity {
        [Some(list.digits(0, key).unwrap()), Some(list.digits(1, key).unwrap()), None, None]
    };
    let capacities = lists.iter().cycle().take(plan.workers).map(capacity).collect();
    Outputs::new(key.id(), circuit::run(plan, capacities, key).into_iter().flatten().collect())
}

fn assert_placed(plan: &Plan, free: &[Resources]) -> Vec<Option<usize>> {
    let (clear, key) = keys();
    let outputs = run(plan, free, &key);
    let squashed = outputs.squash(&key).unwrap();
    let digits: Vec<_> = squashed
        .as_slice()
        .iter()
        .flat_map(squashed_blocks)
        .map(|block| usize::from(decode_block(clear.phase(&block)).unwrap()))
        .collect();
    let found: Vec<_> = digits
        .chunks(plan.digits_per_replica())
        .map(|digits| digits.iter().rev().fold(0, |sum, digit| sum << 4 | digit).checked_sub(1))
        .collect();
    let free: Vec<_> = free.iter().take(8).copied().cycle().take(plan.workers).collect();
    let expected = cleartext::place(plan, &free);
    assert_eq!(found, expected);
    expected
}

#[test]
fn the_largest_cluster_stays_within_the_noise_budget() {
    let free: Vec<_> = (0..8).map(|i| resources(3 + i, 4 + i)).collect();
    let jobs = [
        job(1, resources(5, 5), 2, None),
        job(2, resources(2, 9), 2, Some(Strength::Hard)),
        job(3, resources(2, 2), 1, None),
    ];
    let placed = assert_placed(&plan(1024, &jobs), &free);
    assert!(placed.iter().all(Option::is_some));
}

#[test]
fn many_deductions_stay_within_the_noise_budget() {
    let jobs = [job(1, resources(0x11, 0x123), 60, None), job(2, resources(1, 1), 12, None)];
    let placed = assert_placed(&plan(2, &jobs), &[resources(500, 9000), resources(560, 9500)]);
    // CPU has room for 29 on one worker and 32 on the other, memory for 30 and 32.
    assert!(placed[..60].iter().all(Option::is_some));
}

#[test]
fn the_bits_of_an_evaluation_are_pinned() {
    let free = [resources(30, 70), resources(9, 9), resources(31, 70)];
    let jobs = [
        job(1, resources(5, 8), 2, Some(Strength::Soft)),
        job(2, resources(9, 3), 2, Some(Strength::Hard)),
    ];
    let (_, key) = keys();
    let outputs = run(&plan(3, &jobs), &free, &key);
    // Another digest is another circuit: raise `CIRCUIT_VERSION` with it.
    assert_eq!(outputs.digest_under(&Blake3Digest([0; 32])).to_string(), PINNED);
}

const PINNED: &str = "9a66dfbc607d906ec1cd98d88c50c2b15f206b0b4f229676cecba47305cfa4ff";
