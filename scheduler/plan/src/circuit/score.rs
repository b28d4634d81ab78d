//! From a worker's digits to what it is compared by.

use veil_protocol_spec::scheduling::{PolicyWeights, SchedulingPolicy, Weights};

use super::{
    digit::{Digit, Value},
    lookup::Circuit,
    table::Table,
    worker::{Confidential, Low, MAX_HIGH, Score, View, Worker},
};
use crate::rules::JobRules;

/// Costs from which on `cost` sees no difference.
pub(crate) const MAX_COST: i64 = 11;

/// By the job's policy; higher is better.
pub(super) fn score<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    weights: &PolicyWeights,
    confidential: &Confidential<V>,
    worker: &mut Worker<V>,
) -> Score<V> {
    match rules.policy {
        SchedulingPolicy::Spread => by_quantity(circuit, rules.dominant, worker, false),
        SchedulingPolicy::BinPack => by_quantity(circuit, rules.dominant, worker, true),
        SchedulingPolicy::PriorityRoundRobin => {
            let priority = worker.priority();
            let top = circuit.look_up(priority, &Table::new(|x| x / 3 * 3));
            Score { mid: priority.minus(&top), top, low: None }
        }
        SchedulingPolicy::Cost => match (weights, &confidential.weights) {
            (PolicyWeights::Public(weights), _) => {
                let of_class = |class| MAX_HIGH - cost(weights, class).min(MAX_COST);
                in_two(circuit, worker.classes(), of_class)
            }
            (PolicyWeights::Encrypted(_), Some(weights)) => {
                let total = weighted(circuit, worker.classes(), weights);
                in_two(circuit, &total, |total| MAX_HIGH - total.min(MAX_COST))
            }
            (PolicyWeights::Encrypted(_), None) => {
                unreachable!("weights are checked before a circuit runs")
            }
        },
    }
}

/// What `cost` minimises, of the digit that holds latency and price.
pub(crate) fn cost(weights: &Weights, classes: i64) -> i64 {
    let (latency, price) = (classes % 4, classes / 4);
    i64::from(weights.price.get()) * price + i64::from(weights.latency.get()) * latency
}

/// A digit from which both parts of the score are looked up.
fn in_two<V: Value>(
    circuit: &Circuit<'_, V>,
    digit: &Digit<V>,
    score: impl Fn(i64) -> i64 + Sync,
) -> Score<V> {
    let (top, mid) = rayon::join(
        || circuit.look_up(digit, &Table::new(|x| score(x) / 3 * 3)),
        || circuit.look_up(digit, &Table::new(|x| score(x) % 3)),
    );
    Score { top, mid, low: None }
}

/// Price class times its weight plus latency class times its weight, 0 to 12.
pub(crate) fn weighted<V: Value>(
    circuit: &Circuit<'_, V>,
    classes: &Digit<V>,
    weights: &[Digit<V>; 2],
) -> Digit<V> {
    let product = |class: fn(i64) -> i64, weight: &Digit<V>| {
        // The class three times and a weight of 0 to 2 make 0 to 11.
        let tripled = circuit.look_up(classes, &Table::new(|x| 3 * class(x)));
        circuit.look_up(&tripled.plus(weight), &Table::new(|x| x / 3 * (x % 3)))
    };
    let [price, latency] = weights;
    let (price, latency) =
        rayon::join(|| product(|x| x / 4, price), || product(|x| x % 4, latency));
    price.plus(&latency)
}

/// By the free units of a resource, the most or the least first: all linear, given the view.
fn by_quantity<V: Value>(
    circuit: &Circuit<'_, V>,
    resource: usize,
    worker: &mut Worker<V>,
    least: bool,
) -> Score<V> {
    let View { top, upper } = worker.view(circuit, resource);
    let [low, high] = worker.free(resource);
    let mid = high.minus(&top);
    let lower = low.minus(&upper.times(2));
    if least {
        Score {
            top: top.subtracted_from(9),
            mid: mid.subtracted_from(2),
            low: Some(Low {
                whole: low.subtracted_from(15),
                upper: upper.subtracted_from(6),
                lower: lower.subtracted_from(3),
            }),
        }
    } else {
        Score { top, mid, low: Some(Low { whole: low.clone(), upper, lower }) }
    }
}
