//! The circuit in clear against its twin, the twin against brute force and against the model's answers, and
//! what questions cost.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

mod answers;
mod brute;
mod costs;

use proptest::prelude::*;
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        ALL_CANDIDATES, AntiAffinity, Binding, BlockRef, CircuitId, ClusterPolicy, ClusterScope,
        Constraints, CpuUnits, DiskUnits, EncryptedRequest, FailureDomain, GpuUnits, JobSpec,
        LatencyClass, Manifest, MemoryUnits, PendingReplica, PolicyWeights, PriceClass, Priority,
        ProvenList, Quantities, Reading, Resource, ResourceRequest, Resources, RolloutChanges,
        Scale, SchedulingPolicy, Share, Strength, TelemetryEntry, Weight, Weights, WorkerPriority,
    },
};

use super::{choice, course::Course, reported::Reported, twin};
use crate::{
    circuit::{
        digit::Digit,
        in_clear::Clear,
        lookup::Circuit,
        worker::{Confidential, RequestDigits},
    },
    cleartext::Secrets,
    cost::Cost,
    inputs::PublicInputs,
    plan::Plan,
};

const SCOPE: ClusterScope =
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) };

/// What a test varies of a job.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    request: [u8; 4],
    encrypted: bool,
    replicas: u16,
    priority: u8,
    policy: SchedulingPolicy,
    /// And whether by the label `zone`.
    apart: Option<(Strength, bool)>,
    max_latency: Option<u8>,
    previous: bool,
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
            previous: false,
        }
    }

    fn spec(&self, nonce: u64) -> JobSpec {
        let [cpu, memory, disk, gpu] = self.request.map(u16::from);
        let domain = |by_zone| match by_zone {
            true => FailureDomain::Label("zone".parse().unwrap()),
            false => FailureDomain::Worker,
        };
        let request = if self.encrypted {
            ResourceRequest::Encrypted(EncryptedRequest {
                key_set: KeySetDigest([3; 32]),
                scale: Scale::FINEST,
                dominant: Resource::Memory,
                commitment: Blake3Digest([4; 32]),
                list: ProvenList::new(vec![1]).unwrap(),
            })
        } else {
            ResourceRequest::Clear(Resources {
                cpu: CpuUnits(cpu),
                memory: MemoryUnits(memory),
                disk: DiskUnits(disk),
                gpu: GpuUnits(gpu),
            })
        };
        JobSpec {
            replicas: self.replicas,
            priority: Priority(self.priority),
            constraints: Constraints {
                anti_affinity: self
                    .apart
                    .map(|(strength, by_zone)| AntiAffinity { strength, domain: domain(by_zone) }),
                max_latency: self.max_latency.map(|class| LatencyClass::new(class).unwrap()),
                prefer_previous: self.previous,
                ..Constraints::default()
            },
            policy: self.policy,
            ..JobSpec::new(
                SCOPE,
                Address([5; 20]),
                nonce,
                "app".parse().unwrap(),
                format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
                request,
            )
        }
    }
}

fn worker(index: usize) -> PeerIdHash {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerIdHash(id)
}

/// A slot of those jobs on so many workers.
pub(super) fn of(workers: usize, wanted: &[Wanted], weights: Option<Weights>) -> (Plan, Secrets) {
    let specs: Vec<_> = (0..).zip(wanted).map(|(nonce, wanted)| wanted.spec(nonce)).collect();
    let entry = |index| TelemetryEntry { sender: worker(index), digest: Blake3Digest([0; 32]) };
    let mut manifest = Manifest {
        binding: Binding { scope: SCOPE, key_set: KeySetDigest([3; 32]), epoch: Epoch(1) },
        slot: Slot(1),
        proposer: ParticipantIndex::try_from(1).unwrap(),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 0,
        policy: KeccakDigest([7; 32]),
        circuit: CircuitId { version: 0, fingerprint: Blake3Digest([8; 32]) },
        telemetry: (0..workers).map(entry).collect(),
        pending: Vec::new(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    };
    let policy = ClusterPolicy {
        scale: Scale::FINEST,
        min_candidates: 1,
        weights: weights.map_or(PolicyWeights::Encrypted(Blake3Digest([9; 32])), |weights| {
            PolicyWeights::Public(weights)
        }),
        ..ClusterPolicy::default()
    };
    let mut public = PublicInputs { policy, ..PublicInputs::default() };
    let zone = |index: usize| format!("zone={}", ["a", "b", "c"][index % 3]).parse().unwrap();
    let labelled = (0..workers).filter(|index| index % 4 != 3);
    public.labels = labelled.map(|index| (worker(index), vec![zone(index)])).collect();
    let mut secrets = Secrets { weights: weights.unwrap_or_default(), ..Secrets::default() };
    for (submission, (spec, wanted)) in (0..).zip(specs.into_iter().zip(wanted)) {
        let job = spec.digest();
        for replica in (0..wanted.replicas).map(ReplicaIndex) {
            let (only, candidates) = (None, ALL_CANDIDATES);
            manifest.pending.push(PendingReplica { submission, job, replica, only, candidates });
            if wanted.previous {
                let held = (submission as usize + usize::from(replica.0)) % workers.max(1);
                public.previous.insert((job, replica), worker(held));
            }
        }
        secrets.requests.insert(job, Quantities::from_array(wanted.request).unwrap());
        public.jobs.insert(job, spec);
    }
    (Plan::new(&manifest, &public).unwrap(), secrets)
}

fn pair(units: u8) -> [Digit<Clear>; 2] {
    [Digit::clear(units & 0xf), Digit::clear(units >> 4)]
}

/// The circuit on numbers, question by question, each opened: what it places, and what that takes.
pub(super) fn run(
    plan: &Plan,
    readings: &[Reading],
    secrets: &Secrets,
) -> (Vec<Option<usize>>, Cost) {
    let expansion = Circuit::in_clear();
    let workers: Vec<_> =
        readings.iter().map(|reading| Reported::in_clear(&expansion, reading)).collect();
    let of_request = |quantities: &Quantities| RequestDigits::new(quantities.to_array().map(pair));
    let confidential = Confidential {
        requests: secrets.requests.iter().map(|(job, q)| (*job, of_request(q))).collect(),
        weights: Some(
            [secrets.weights.price, secrets.weights.latency].map(|w| Digit::clear(w.get())),
        ),
    };
    let circuit = Circuit::in_clear();
    let mut course = Course::new(plan);
    let mut held = None;
    let mut opened = Vec::new();
    while let Some(stage) = course.stage() {
        let (question, path) = (stage.question, stage.path);
        let digit =
            choice::evaluate(plan, question, path, &workers, &confidential, &mut held, &circuit);
        let digit = u8::try_from(digit.steps()).unwrap();
        assert!(digit < 16, "what is opened is 4 bits");
        course.opened(digit).unwrap();
        opened.push(digit);
    }
    let outcome = course.outcome().to_vec();
    // What is opened tells nothing more than who has won: it follows from that.
    assert_eq!(Course::answers(plan, &outcome), opened);
    assert_eq!(Course::after(plan, opened).unwrap().outcome(), outcome);
    (outcome, circuit.cost())
}

fn assert_agrees(plan: &Plan, readings: &[Reading], secrets: &Secrets) -> Vec<Option<usize>> {
    let (found, _) = run(plan, readings, secrets);
    let expected = twin::place(plan, readings, secrets);
    assert_eq!(found, expected);
    expected
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
        share in 0..=7u8,
    ) -> Reading {
        Reading {
            free: Quantities::from_array(free).unwrap(),
            latency: LatencyClass::new(classes[0]).unwrap(),
            price: PriceClass::new(classes[1]).unwrap(),
            priority: WorkerPriority::new(classes[2]).unwrap(),
            share: Share::new(share).unwrap(),
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
        previous in prop::bool::weighted(0.2),
    ) -> Wanted {
        let ([cpu, memory], [disk, gpu]) = (first, others);
        Wanted {
            encrypted, priority, apart, max_latency, previous,
            ..Wanted::new([cpu, memory, disk, gpu], replicas, policy)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// Every policy and constraint, batches, edges of the range, no worker and one, and more than a group.
    #[test]
    fn the_circuit_in_clear_agrees_with_the_twin(
        readings in prop::collection::vec(any_reading(), 0..40),
        equal in prop::bool::weighted(0.2),
        wanted in prop::collection::vec(any_wanted(), 1..4),
        weights in prop::option::of((0..=2u8, 0..=2u8)),
    ) {
        let mut readings = readings;
        if equal && let Some(first) = readings.first().copied() {
            readings.fill(first);
        }
        let weights = weights.map(|(price, latency)| Weights {
            price: Weight::new(price).unwrap(),
            latency: Weight::new(latency).unwrap(),
        });
        let (plan, secrets) = of(readings.len(), &wanted, weights);
        assert_agrees(&plan, &readings, &secrets);
    }
}

/// Three layers of groups, and a batch in which winners are asked again.
#[test]
fn the_largest_cluster() {
    let reading = |i: usize| Reading {
        free: Quantities::from_array([3 + i as u8 % 8, 4 + i as u8 % 8, 0, 0]).unwrap(),
        share: Share::new((i % 5) as u8).unwrap(),
        ..Reading::default()
    };
    let readings: Vec<_> = (0..1024).map(reading).collect();
    let wanted = [
        Wanted::new([5, 5, 0, 0], 3, SchedulingPolicy::Spread),
        Wanted {
            apart: Some((Strength::Hard, true)),
            ..Wanted::new([2, 9, 0, 0], 2, SchedulingPolicy::BinPack)
        },
        Wanted::new([2, 2, 0, 0], 2, SchedulingPolicy::Cost),
    ];
    let (plan, secrets) = of(1024, &wanted, Some(Weights::default()));
    let placed = assert_agrees(&plan, &readings, &secrets);
    assert!(placed.iter().all(Option::is_some));
}

/// A digit that names nobody is refused, and changes nothing.
#[test]
fn an_opened_digit_must_be_an_answer() {
    let wanted = [Wanted::new([5, 5, 0, 0], 1, SchedulingPolicy::Spread)];
    let (plan, _) = of(20, &wanted, Some(Weights::default()));
    let mut course = Course::new(&plan);
    // Two groups, of 15 and of 5.
    let refused = course.opened(3).unwrap_err();
    assert_eq!((refused.position, refused.digit, refused.members), (0, 3, 2));
    course.opened(2).unwrap();
    assert_eq!(course.stage().unwrap().path.len(), 1);
    assert_eq!(course.opened(0).unwrap_err().members, 5, "a group with a best level has a member");
    assert_eq!(course.opened(6).unwrap_err().members, 5);
    course.opened(5).unwrap();
    assert!(course.stage().is_none() && course.outcome()[0].is_some());
    // The 16th is alone in its group: there is nothing more to ask.
    let (plan16, _) = of(16, &wanted, Some(Weights::default()));
    assert!(Course::after(&plan16, [2]).unwrap().outcome()[0].is_some());
    // Nobody has room.
    assert_eq!(Course::after(&plan, [0]).unwrap().outcome(), [None]);
}
