//! The circuits in clear against the cleartext twin, on many inputs and at their limits.

use proptest::prelude::*;
use veil_protocol_spec::scheduling::*;
use veil_scheduler_plan::{
    circuit::{
        self,
        digit::Digit,
        in_clear::Clear,
        lookup::Circuit,
        worker::{Confidential, RequestDigits, Worker},
    },
    cleartext,
    cost::Cost,
    plan::Plan,
};

use super::slots::{Wanted, slot};

fn pair(units: u8) -> [Digit<Clear>; 2] {
    [Digit::clear(units & 0xf), Digit::clear(units >> 4)]
}

/// The circuit's tables on clear digits: what it puts out, and what that takes.
fn run_in_clear(
    plan: &Plan,
    readings: &[Reading],
    secrets: &cleartext::Secrets,
) -> (Vec<Option<usize>>, Cost) {
    let workers = readings
        .iter()
        .map(|reading| {
            let mut worker = Worker::blank();
            let free = reading.free.to_array().into_iter().enumerate();
            free.for_each(|(resource, units)| worker.set_free(resource, pair(units)));
            worker.split();
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
            let digits = digits.iter().rev().map(|digit| digit.steps() as usize);
            digits.fold(0, |number, digit| number << 4 | digit).checked_sub(1)
        })
        .collect();
    (placed, circuit.cost())
}

fn assert_agrees(
    plan: &Plan,
    readings: &[Reading],
    secrets: &cleartext::Secrets,
) -> Vec<Option<usize>> {
    let (found, cost) = run_in_clear(plan, readings, secrets);
    let expected = cleartext::place(plan, readings, secrets);
    assert_eq!(found, expected);
    assert_eq!(cost, plan.cost(), "the cost depends on public inputs only");
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
        keeps_data in prop_oneof![
            3 => Just(None),
            1 => prop_oneof![Just(OnLoss::Pending), Just(OnLoss::Empty)].prop_map(Some),
        ],
        candidates in prop_oneof![Just(ALL_CANDIDATES), Just(SAMPLE), 0..9u16],
    ) -> Wanted {
        let [cpu, memory] = first;
        let [disk, gpu] = others;
        let request = [cpu, memory, disk, gpu];
        Wanted {
            encrypted, priority, apart, max_latency, prefer_previous, keeps_data,
            candidates,
            ..Wanted::new(request, replicas, policy)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..Default::default() })]

    /// Every policy and constraint, batches, samples, edges of the range, no worker and one.
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
