//! From a worker's digits to what it is compared by.

use veil_protocol_spec::scheduling::{PolicyWeights, SchedulingPolicy, Weights};

use crate::{
    circuit::{Confidential, Worker},
    lookup::{Circuit, Digit, Table},
    rules::JobRules,
    select::Low,
};

/// Highest high digit of a quantity: 191 is 11 times 16 plus 15.
pub(crate) const MAX_HIGH: i64 = 11;
/// Costs from which on `cost` sees no difference.
pub(crate) const MAX_COST: i64 = 11;

/// The parts of a quantity by which workers are compared: one look-up for each digit.
#[derive(Clone)]
pub(crate) struct View {
    /// 0, 3, 6 or 9: of the high digit.
    top: Digit,
    /// 0, 2, 4 or 6: of the low digit.
    upper: Digit,
}

impl View {
    pub(crate) fn new(circuit: &Circuit<'_>, [low, high]: &[Digit; 2]) -> Self {
        let (top, upper) = rayon::join(
            || circuit.look_up(high, &Table::new(|x| x.min(MAX_HIGH) / 3 * 3)),
            || circuit.look_up(low, &Table::new(|x| x / 4 * 2)),
        );
        Self { top, upper }
    }
}

/// A score without feasibility: `top` is 0, 3, 6 or 9.
#[derive(Clone)]
pub(crate) struct Score {
    pub(crate) top: Digit,
    pub(crate) mid: Digit,
    pub(crate) low: Option<Low>,
}

/// By the job's policy; higher is better.
pub(crate) fn score(
    circuit: &Circuit<'_>,
    rules: &JobRules,
    weights: &PolicyWeights,
    confidential: &Confidential,
    worker: &mut Worker,
) -> Score {
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
fn in_two(circuit: &Circuit<'_>, digit: &Digit, score: impl Fn(i64) -> i64 + Sync) -> Score {
    let (top, mid) = rayon::join(
        || circuit.look_up(digit, &Table::new(|x| score(x) / 3 * 3)),
        || circuit.look_up(digit, &Table::new(|x| score(x) % 3)),
    );
    Score { top, mid, low: None }
}

/// Price class times its weight plus latency class times its weight, 0 to 12.
fn weighted(circuit: &Circuit<'_>, classes: &Digit, weights: &[Digit; 2]) -> Digit {
    let product = |class: fn(i64) -> i64, weight: &Digit| {
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
fn by_quantity(circuit: &Circuit<'_>, resource: usize, worker: &mut Worker, least: bool) -> Score {
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
