//! The circuit in clear against its twin on many inputs, at its limits, and its bits pinned.

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use veil_keygen_ceremony::keyset::{
    Layout, ParameterSet, assemble,
    reference::{self, ClearKeys},
    squashed_blocks,
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, Slot, scheduling::*,
};

use crate::{
    EncryptedTelemetry, EvaluationKey, Ledger, Outputs, Plan, PublicInputs,
    circuit::{self, Confidential, Worker},
    cleartext,
    fit::RequestDigits,
    lookup::{Circuit, Digit},
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

/// Whole steps, 0 to 31.
pub(crate) fn decrypt(clear: &ClearKeys, key: &EvaluationKey, digit: &Digit) -> i64 {
    let outputs = Outputs::new(key.id(), vec![digit.clone()], Ledger::default());
    let squashed = outputs.squash(key).unwrap();
    let block = squashed.as_slice().iter().flat_map(squashed_blocks).next().unwrap();
    (clear.phase(&block).wrapping_add(1 << 122) >> 123) as i64
}

const fn scope() -> ClusterScope {
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) }
}

/// What a test varies of a job.
#[derive(Clone, Debug)]
struct Wanted {
    request: [u8; 4],
    encrypted: bool,
    replicas: u16,
    priority: u8,
    policy: SchedulingPolicy,
    /// And whether by the label `zone`.
    apart: Option<(Strength, bool)>,
    max_latency: Option<u8>,
    prefer_previous: bool,
}

impl Wanted {
    fn new(request: [u8; 4], replicas: u16, policy: SchedulingPolicy) -> Self {
        Self {
            request,
            encrypted: false,
            replicas,
            priority: 0,
            policy,
            apart: None,
            max_latency: None,
            prefer_previous: false,
        }
    }

    fn spec(&self, nonce: u64) -> JobSpec {
        let [cpu, memory, disk, gpu] = self.request.map(u16::from);
        let zone = || FailureDomain::Label("zone".parse().unwrap());
        JobSpec {
            scope: scope(),
            operator: Address([5; 20]),
            nonce,
            image: format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
            command: Vec::new(),
            args: Vec::new(),
            request: if self.encrypted {
                ResourceRequest::Encrypted(EncryptedRequest {
                    key_set: KeySetDigest([3; 32]),
                    dominant: Resource::Memory,
                    list: ProvenList::new(vec![1]).unwrap(),
                })
            } else {
                ResourceRequest::Clear(Resources {
                    cpu: CpuUnits(cpu),
                    memory: MemoryUnits(memory),
                    disk: DiskUnits(disk),
                    gpu: GpuUnits(gpu),
                })
            },
            replicas: self.replicas,
            priority: Priority(self.priority),
            policy: self.policy,
            constraints: Constraints {
                anti_affinity: self.apart.map(|(strength, by_zone)| AntiAffinity {
                    strength,
                    domain: if by_zone { zone() } else { FailureDomain::Worker },
                }),
                max_latency: self.max_latency.map(|class| LatencyClass::new(class).unwrap()),
                prefer_previous: self.prefer_previous,
                ..Constraints::default()
            },
            lease: LeasePolicy::Keep,
            restart: RestartPolicy::Always,
            health: None,
        }
    }
}

fn worker(index: usize) -> PeerIdHash {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerIdHash(id)
}

/// A slot: of each replica that runs, the job's number, the replica and the worker.
fn slot(
    workers: usize,
    wanted: &[Wanted],
    running: &[(usize, u16, usize)],
    weights: Option<Weights>,
) -> (Plan, cleartext::Secrets) {
    let jobs: Vec<_> = (0..).zip(wanted).map(|(nonce, wanted)| wanted.spec(nonce)).collect();
    let digests: Vec<_> = jobs.iter().map(JobSpec::digest).collect();
    let runs = |job: usize, replica: u16| {
        running.iter().find(|(j, r, _)| (*j, *r) == (job, replica)).map(|(.., worker)| *worker)
    };
    let all = || {
        let replicas =
            |(job, wanted): (usize, &Wanted)| (0..wanted.replicas).map(move |r| (job, r));
        wanted.iter().enumerate().flat_map(replicas)
    };
    let mut runs_already: Vec<_> = all()
        .filter_map(|(job, replica)| {
            Some(RunningReplica {
                job: digests[job],
                replica: ReplicaIndex(replica),
                worker: worker(runs(job, replica)?),
                state: ReplicaState::Serving,
            })
        })
        .collect();
    runs_already.sort_by_key(|replica| (replica.job, replica.replica));
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
                sender: worker(index),
                digest: Blake3Digest(worker(index).0),
            })
            .collect(),
        pending: all()
            .filter(|(job, replica)| runs(*job, *replica).is_none())
            .map(|(job, replica)| PendingReplica {
                submission: job as u64,
                job: digests[job],
                replica: ReplicaIndex(replica),
            })
            .collect(),
        running: runs_already,
        lost: Vec::new(),
    };
    let zone = |index: usize| format!("zone={}", ["a", "b", "c"][index % 3]).parse().unwrap();
    let public = PublicInputs {
        policy: ClusterPolicy {
            scale: Scale::FINEST,
            weights: weights.map_or(PolicyWeights::Encrypted(Blake3Digest([9; 32])), |weights| {
                PolicyWeights::Public(weights)
            }),
            ..ClusterPolicy::default()
        },
        jobs: digests.iter().copied().zip(jobs).collect(),
        // Every fourth worker is in a failure domain of its own.
        labels: (0..workers)
            .filter(|index| index % 4 != 3)
            .map(|index| (worker(index), vec![zone(index)]))
            .collect(),
        previous: all()
            .map(|(job, replica)| {
                let held = worker((job + usize::from(replica)) % workers.max(1));
                ((digests[job], ReplicaIndex(replica)), held)
            })
            .collect(),
    };
    let requests = digests
        .iter()
        .zip(wanted)
        .map(|(digest, wanted)| (*digest, Quantities::from_array(wanted.request).unwrap()))
        .collect();
    let secrets = cleartext::Secrets { requests, weights: weights.unwrap_or_default() };
    (Plan::new(&manifest, &public).unwrap(), secrets)
}

fn pair(units: u8) -> [Digit; 2] {
    [Digit::clear(units & 0xf), Digit::clear(units >> 4)]
}

/// The circuit's tables on clear digits: what it puts out, and what that takes.
fn run_in_clear(
    plan: &Plan,
    readings: &[Reading],
    secrets: &cleartext::Secrets,
) -> (Vec<Option<usize>>, Ledger) {
    let workers = readings
        .iter()
        .map(|reading| {
            let mut worker = Worker::blank();
            let free = reading.free.to_array().into_iter().enumerate();
            free.for_each(|(resource, units)| worker.set_free(resource, pair(units)));
            worker.split_in_clear();
            worker.classes = Some(Digit::clear(reading.latency.get() + 4 * reading.price.get()));
            worker.priority = Some(Digit::clear(reading.priority.get()));
            worker
        })
        .collect();
    let of_request = |quantities: &Quantities| RequestDigits::new(quantities.to_array().map(pair));
    let mut confidential = Confidential {
        requests: secrets.requests.iter().map(|(job, q)| (*job, of_request(q))).collect(),
        weights: Some(
            [secrets.weights.price, secrets.weights.latency].map(|w| Digit::clear(w.get())),
        ),
    };
    let circuit = Circuit::in_clear();
    let outputs = circuit::run(plan, workers, &mut confidential, &circuit);
    let placed = outputs
        .iter()
        .map(|digits| {
            let digits = digits.iter().rev().map(|digit| digit.in_clear().unwrap() as usize);
            digits.fold(0, |number, digit| number << 4 | digit).checked_sub(1)
        })
        .collect();
    (placed, circuit.ledger())
}

fn assert_agrees(
    plan: &Plan,
    readings: &[Reading],
    secrets: &cleartext::Secrets,
) -> Vec<Option<usize>> {
    let (found, ledger) = run_in_clear(plan, readings, secrets);
    let expected = cleartext::place(plan, readings, secrets);
    assert_eq!(found, expected);
    assert_eq!(ledger, plan.cost(), "the cost depends on public inputs only");
    expected
}

fn reading(free: [u8; 4]) -> Reading {
    Reading { free: Quantities::from_array(free).unwrap(), ..Reading::default() }
}

fn any_quantity() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(191), 0..20u8, 10..70u8, 0..=191u8]
}

fn any_policy() -> impl Strategy<Value = SchedulingPolicy> {
    prop_oneof![
        Just(SchedulingPolicy::Spread),
        Just(SchedulingPolicy::BinPack),
        Just(SchedulingPolicy::PriorityRoundRobin),
        Just(SchedulingPolicy::Cost),
    ]
}

prop_compose! {
    fn any_reading()(
        free in prop::array::uniform4(any_quantity()),
        classes in prop::array::uniform3(0..=3u8),
    ) -> Reading {
        Reading {
            latency: LatencyClass::new(classes[0]).unwrap(),
            price: PriceClass::new(classes[1]).unwrap(),
            priority: WorkerPriority::new(classes[2]).unwrap(),
            ..reading(free)
        }
    }
}

prop_compose! {
    fn any_wanted()(
        first in prop::array::uniform2(prop_oneof![1..9u8, Just(16), Just(32), 1..80u8, 1..=191u8]),
        others in prop::array::uniform2(prop_oneof![4 => Just(0), 1 => 1..9u8, 1 => any_quantity()]),
        encrypted in prop::bool::weighted(0.3),
        replicas in prop_oneof![6 => 1..5u16, 1 => 8..14u16],
        priority in 0..3u8,
        policy in any_policy(),
        apart in prop_oneof![
            Just(None),
            (prop_oneof![Just(Strength::Soft), Just(Strength::Hard)], any::<bool>()).prop_map(Some),
        ],
        max_latency in prop_oneof![3 => Just(None), 1 => (0..=3u8).prop_map(Some)],
        prefer_previous in prop::bool::weighted(0.2),
    ) -> Wanted {
        let [cpu, memory] = first;
        let [disk, gpu] = others;
        let request = [cpu, memory, disk, gpu];
        Wanted {
            encrypted, priority, apart, max_latency, prefer_previous,
            ..Wanted::new(request, replicas, policy)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..Default::default() })]

    /// Every policy and constraint, batches, edges of the range, no worker and one.
    #[test]
    fn the_circuit_in_clear_agrees_with_the_twin(
        readings in prop::collection::vec(any_reading(), 0..24),
        equal in prop::bool::weighted(0.2),
        wanted in prop::collection::vec(any_wanted(), 1..4),
        runs in prop::collection::vec((0..4usize, 0..3u16, 0..24usize), 0..3),
        weights in prop::option::of((0..=2u8, 0..=2u8)),
    ) {
        let mut readings = readings;
        if equal && let Some(first) = readings.first().copied() {
            readings.fill(first);
        }
        let workers = readings.len();
        let runs: Vec<_> = runs.into_iter().filter(|run| run.2 < workers).collect();
        let weights = weights.map(|(price, latency)| Weights {
            price: Weight::new(price).unwrap(),
            latency: Weight::new(latency).unwrap(),
        });
        let (plan, secrets) = slot(workers, &wanted, &runs, weights);
        assert_agrees(&plan, &readings, &secrets);
    }
}

const FOUR: [u8; 4] = [5, 0x12, 3, 1];

fn cost(workers: usize, jobs: u16, wanted: &Wanted) -> Ledger {
    let wanted = vec![wanted.clone(); jobs.into()];
    slot(workers, &wanted, &[], Some(Weights::default())).0.cost()
}

/// What the documentation promises, and that nothing gets dearer unnoticed.
#[test]
fn look_ups_per_worker_and_job() {
    let per_worker = |workers: usize, jobs: u16, wanted: &Wanted| {
        let ledger = cost(workers, jobs, wanted);
        ledger.look_ups() as f64 / (workers * usize::from(jobs)) as f64
    };
    for (policy, encrypted, one, four) in [
        (SchedulingPolicy::Spread, false, 14.5, 20.0),
        (SchedulingPolicy::BinPack, false, 17.5, 22.5),
        (SchedulingPolicy::Spread, true, 14.5, 29.0),
        (SchedulingPolicy::BinPack, true, 17.5, 31.5),
    ] {
        let wanted = Wanted { encrypted, ..Wanted::new(FOUR, 1, policy) };
        for workers in [16, 64, 256] {
            let (single, batch) =
                (per_worker(workers, 1, &wanted), per_worker(workers, 4, &wanted));
            println!("{policy:?} encrypted {encrypted} N={workers}: {single:.2} and {batch:.2}");
            assert!(single <= one && batch <= four, "{policy:?} {workers}: {single} {batch}");
        }
    }
}

#[test]
fn the_lower_bound_is_near() {
    let figures = |workers, jobs: u16, wanted: &Wanted| {
        let wanted = vec![wanted.clone(); jobs.into()];
        let (plan, _) = slot(workers, &wanted, &[], Some(Weights::default()));
        (plan.lower_bound(), plan.cost().look_ups())
    };
    // 6 to fit, 1 to mask, 6 a match, 2/3 down; bin_pack 2 more to fit, 3 less in the last match.
    let spread = Wanted::new(FOUR, 1, SchedulingPolicy::Spread);
    assert_eq!(figures(16, 1, &spread).0, 16 * 7 + 15 * 6 + 10);
    let bin_pack = Wanted::new(FOUR, 1, SchedulingPolicy::BinPack);
    assert_eq!(figures(16, 1, &bin_pack).0, 16 * 9 + 15 * 6 - 3 + 10);
    for policy in [
        SchedulingPolicy::Spread,
        SchedulingPolicy::BinPack,
        SchedulingPolicy::PriorityRoundRobin,
        SchedulingPolicy::Cost,
    ] {
        for (encrypted, apart, jobs, replicas) in [
            (false, None, 1, 1),
            (false, None, 4, 1),
            (true, None, 4, 1),
            (false, Some((Strength::Soft, false)), 2, 3),
            (false, Some((Strength::Hard, true)), 2, 3),
        ] {
            let wanted = Wanted { encrypted, apart, ..Wanted::new(FOUR, replicas, policy) };
            for workers in [1, 2, 16, 64] {
                let (bound, cost) = figures(workers, jobs, &wanted);
                println!(
                    "{policy:?} {encrypted} {apart:?} {jobs}x{replicas} N={workers}: {cost} / {bound}"
                );
                assert!(bound <= cost, "{cost} below the bound of {bound}");
                // One worker has no match, and of little that is done much is not in the bound.
                assert!(workers < 16 || cost as f64 <= 1.3 * bound as f64, "{cost} over {bound}");
            }
        }
    }
}

/// Four jobs on the largest cluster: the union over all look-ups of the slot.
#[test]
fn the_failure_probability_of_a_slot_is_stated() {
    let wanted = Wanted::new(FOUR, 1, SchedulingPolicy::BinPack);
    let ledger = cost(1024, 4, &wanted);
    assert!(ledger.largest_variance() <= 25);
    for (members, bound) in [(1, -122.0), (4, -120.0), (7, -114.0), (10, -122.0), (13, -112.5)] {
        let committee = veil_protocol_spec::Committee::new(members).unwrap();
        let parameters = ParameterSet::production(committee);
        let one = parameters.log2_p_fail_at(ledger.largest_variance().into());
        let slot = ledger.log2_failure(|v| parameters.log2_p_fail_at(v));
        println!("n={members}: 2^{one:.1} for the worst look-up, 2^{slot:.1} for the slot");
        assert!(one <= -128.0, "n={members}: {one}");
        assert!(slot <= bound, "n={members}: {slot}");
    }
}

#[test]
fn depth_is_logarithmic() {
    let depth =
        |workers| cost(workers, 1, &Wanted::new(FOUR, 1, SchedulingPolicy::BinPack)).depth();
    let depths: Vec<_> = (4..=10).map(|log2| depth(1 << log2)).collect();
    println!("{depths:?}");
    // Three for the way up, one for two rounds down, and now and then a refresh.
    assert!(depths.windows(2).all(|pair| pair[1] <= pair[0] + 6), "{depths:?}");
}

#[test]
fn the_largest_cluster_stays_within_the_noise_budget() {
    let readings: Vec<_> =
        (0..1024).map(|i| reading([3 + i as u8 % 8, 4 + i as u8 % 8, 0, 0])).collect();
    for by_zone in [false, true] {
        let wanted = [
            Wanted::new([5, 5, 0, 0], 2, SchedulingPolicy::Spread),
            Wanted {
                apart: Some((Strength::Hard, by_zone)),
                ..Wanted::new([2, 9, 0, 0], 2, SchedulingPolicy::BinPack)
            },
            Wanted {
                apart: Some((Strength::Soft, by_zone)),
                ..Wanted::new([2, 2, 0, 0], 3, SchedulingPolicy::Spread)
            },
        ];
        let (plan, secrets) = slot(1024, &wanted, &[], Some(Weights::default()));
        let placed = assert_agrees(&plan, &readings, &secrets);
        assert!(placed.iter().all(Option::is_some));
    }
}

#[test]
fn many_deductions_stay_within_the_noise_budget() {
    for (encrypted, apart) in [(false, None), (true, None), (false, Some((Strength::Soft, true)))] {
        let first =
            Wanted { encrypted, apart, ..Wanted::new([3, 5, 0, 0], 60, SchedulingPolicy::Spread) };
        let second = Wanted::new([1, 1, 1, 1], 12, SchedulingPolicy::BinPack);
        let (plan, secrets) = slot(2, &[first, second], &[], Some(Weights::default()));
        let readings = [reading([180, 170, 9, 9]), reading([190, 180, 9, 9])];
        let placed = assert_agrees(&plan, &readings, &secrets);
        // Memory has room for 34 and 36.
        assert!(placed[..60].iter().all(Option::is_some));
    }
}

#[test]
fn the_bits_of_an_evaluation_are_pinned() {
    let readings = [[30, 70, 9, 1], [9, 9, 9, 9], [31, 70, 20, 2]].map(reading);
    let wanted = [
        Wanted {
            apart: Some((Strength::Soft, false)),
            ..Wanted::new([5, 8, 1, 0], 2, SchedulingPolicy::Spread)
        },
        Wanted {
            apart: Some((Strength::Hard, true)),
            ..Wanted::new([9, 3, 0, 1], 2, SchedulingPolicy::BinPack)
        },
    ];
    let (_, key) = keys();
    let (plan, _) = slot(3, &wanted, &[], Some(Weights::default()));
    let workers = readings
        .iter()
        .enumerate()
        .map(|(seed, reading)| {
            let telemetry = EncryptedTelemetry::unproven(reading, seed as u8, &key);
            let mut worker = Worker::default();
            for resource in 0..4 {
                worker.set_free(resource, telemetry.quantity(resource, &key).unwrap());
            }
            worker
        })
        .collect();
    let circuit = Circuit::new(&key);
    let mut confidential = Confidential { requests: Default::default(), weights: None };
    let digits = circuit::run(&plan, workers, &mut confidential, &circuit);
    let outputs = Outputs::new(key.id(), digits.into_iter().flatten().collect(), circuit.ledger());
    // Another digest is another circuit: raise `CIRCUIT_VERSION` with it.
    assert_eq!(outputs.digest_under(&Blake3Digest([0; 32])).to_string(), PINNED);
}

const PINNED: &str = "b590586e9f28cf15b67e05d59bb44fff657d08560bf6988c1410ce13383b972e";
