//! Whether a worker has what is asked for, and its level.

use crate::{
    circuit::{
        digit::{Digit, Value, sum},
        lookup::Circuit,
        rotated::Rotated,
        score::{MAX_COST, cost, weighted},
        table::{ENTRIES, Table},
        worker::{Confidential, RequestDigits},
    },
    plan::Plan,
    rules::{JobRules, Need, RESOURCES},
};
use veil_protocol_spec::scheduling::{PolicyWeights, SchedulingPolicy};

use super::{
    question::{Candidate, levels, packed},
    reported::Reported,
};

/// Counts of comparisons from which on a resource lacks something.
const LACKS: i64 = 2;
/// Room of one such count beside another.
const WIDTH: i64 = 4;

/// `scale` if the worker does not fit, else 0; `None` if nothing is asked for.
pub(super) fn unfit<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    request: Option<&RequestDigits<V>>,
    candidate: &Candidate,
    reported: &Reported<V>,
    scale: i64,
) -> Option<Digit<V>> {
    match (rules.need, request) {
        (Need::Clear(need), _) => {
            let need = |resource: usize| need[resource] > 0;
            below_public(circuit, rules, need, candidate, reported, scale)
        }
        (Need::Encrypted, Some(request)) => {
            Some(below_encrypted(circuit, rules, request, reported, scale))
        }
        (Need::Encrypted, None) => unreachable!("requests are checked before a circuit runs"),
    }
}

fn below_public<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    need: impl Fn(usize) -> bool,
    candidate: &Candidate,
    reported: &Reported<V>,
    scale: i64,
) -> Option<Digit<V>> {
    let lack = |resource: usize| {
        need(resource)
            .then(|| lack(reported.rotated(resource), candidate.least[resource]))
            .flatten()
    };
    // Side by side by their scales, 1 and 4.
    let first: Vec<_> = (0..2).filter_map(lack).collect();
    let mut rest: Vec<_> = (2..RESOURCES).filter_map(lack).collect();
    rest.extend(late(circuit, rules, reported, LACKS));
    let both = |x: i64| x % WIDTH >= LACKS || x / WIDTH >= LACKS;
    let mut found = sum(&first).map(|lacks| {
        let scale = if rest.is_empty() { scale } else { WIDTH };
        circuit.look_up(&lacks, &Table::new(|x| if both(x) { scale } else { 0 }))
    });
    let count = rest.len();
    for (number, lacks) in rest.into_iter().enumerate() {
        let scale = if number + 1 == count { scale } else { WIDTH };
        let lacks = found.map_or_else(|| lacks.clone(), |found| lacks.plus(&found));
        let table = Table::new(|x| if x % WIDTH >= LACKS || x >= WIDTH { scale } else { 0 });
        found = Some(circuit.look_up(&lacks, &table));
    }
    found
}

/// Of the digits of a resource against a public number of units: 2 or 3 times their scale if there are fewer,
/// 0 or 1 times if not.
fn lack<V: Value>([low, high]: &[Rotated<V>; 2], least: u8) -> Option<Digit<V>> {
    let (least_high, least_low) = (i64::from(least >> 4), i64::from(least & 0xf));
    let highs = match least_high {
        0 => high.below(1),
        _ => high.below_both(least_high),
    };
    let low = (least_low > 0).then(|| low.below(least_low));
    Some(low.map_or(highs.clone(), |low| highs.plus(&low)))
}

/// `scale` if the worker's latency class is above the job's.
fn late<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    reported: &Reported<V>,
    scale: i64,
) -> Option<Digit<V>> {
    let max = i64::from(rules.max_latency?.get());
    let table = Table::new(|x| if x % 4 > max { scale } else { 0 });
    Some(circuit.look_up(reported.classes(), &table))
}

/// By the borrows of free - request.
fn below_encrypted<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    request: &RequestDigits<V>,
    reported: &Reported<V>,
    scale: i64,
) -> Digit<V> {
    let borrow = |(resource, [low, high]): (usize, &[Digit<V>; 2])| {
        let free = reported.digits(resource);
        let borrow = circuit.is_negative(&free[0].minus(low));
        circuit.is_negative(&free[1].minus(high).minus(&borrow))
    };
    let mut flags: Vec<_> = request.digits.iter().enumerate().map(borrow).collect();
    flags.extend(late(circuit, rules, reported, 1));
    let flags = sum(&flags).unwrap_or_else(|| unreachable!("a request has resources"));
    circuit.any(&flags, scale)
}

/// The worker's score plus 1 if it fits, else 0 or less: by less than there are levels.
pub(super) fn level<V: Value>(
    circuit: &Circuit<'_, V>,
    plan: &Plan,
    rules: &JobRules,
    confidential: &Confidential<V>,
    unfit: Option<&Digit<V>>,
    reported: &Reported<V>,
) -> Digit<V> {
    let score = match (rules.policy, &plan.policy.weights, &confidential.weights) {
        (SchedulingPolicy::Spread, ..) => reported.share().clone(),
        (SchedulingPolicy::BinPack, ..) => {
            let [_, high] = reported.digits(rules.dominant);
            circuit.look_up(high, &Table::new(packed))
        }
        (SchedulingPolicy::PriorityRoundRobin, ..) => reported.priority().clone(),
        (SchedulingPolicy::Cost, PolicyWeights::Public(weights), _) => {
            let cost = |classes| cost(weights, classes);
            return by_cost(circuit, reported.classes(), cost, unfit);
        }
        (SchedulingPolicy::Cost, PolicyWeights::Encrypted(_), Some(weights)) => {
            let total = weighted(circuit, reported.classes(), weights);
            return by_cost(circuit, &total, |total| total, unfit);
        }
        (SchedulingPolicy::Cost, PolicyWeights::Encrypted(_), None) => {
            unreachable!("weights are checked before a circuit runs")
        }
    };
    let above = score.plus_constant(1);
    unfit.map_or_else(|| above.clone(), |unfit| above.minus(unfit))
}

/// The same of more levels than have room below 0: half of it, and again half of it with a sign, which half
/// a turn changes.
fn by_cost<V: Value>(
    circuit: &Circuit<'_, V>,
    digit: &Digit<V>,
    cost: impl Fn(i64) -> i64 + Sync,
    unfit: Option<&Digit<V>>,
) -> Digit<V> {
    let half = Table::halves(|x| MAX_COST + 1 - cost(x).min(MAX_COST));
    let turned = unfit.map_or_else(|| digit.clone(), |unfit| digit.plus(unfit));
    let (half_of, signed) =
        rayon::join(|| circuit.look_up(digit, &half), || circuit.look_up(&turned, &half));
    half_of.plus(&signed)
}

/// What [`unfit`] must be worth for [`level`].
pub(super) const fn unfit_scale(policy: SchedulingPolicy) -> i64 {
    match policy {
        SchedulingPolicy::Cost => ENTRIES as i64,
        _ => levels(policy),
    }
}
