//! Whether a request fits, and what is left when it was taken.
//!
//! # Fit
//! Of each requested resource the borrows of free - request, low digit first: one look-up each,
//! none where the request's low digit is 0. The borrow out of the high digit says that it does not
//! fit.
//!
//! # Deduction
//! With w = 1 for the winner and b the borrow out of the low digit, the low digit changes by
//! w (16 b - r) and the high one by -w (r' + b). In clear, w + 2 b is 0 to 3 and one look-up gives
//! both. An encrypted request takes one for each digit, r w = r/2 + f(r + 16 w) with f(r) = -r/2,
//! and one for both carries.

use rayon::prelude::*;

use super::{
    digit::{Digit, Value, sum},
    lookup::Circuit,
    table::Table,
    worker::{Fit, RequestDigits, Worker},
};
use crate::rules::{JobRules, Need, RESOURCES};

/// Where flags of 4 and the upper parts of a score, 0, 3, 6 and 9, find room side by side, the
/// padding bit used: for up to three flags.
const FLAG: i64 = 4;
/// See [`FLAG`].
const FLAGS: usize = 3;
/// What a digit may gather over deductions: it enters comparisons of two workers.
const CAPACITY_VARIANCE: u32 = 8;

/// `leveled` says which form [`Fit::unfit`] takes: a count of up to 5, or a multiple of [`FLAG`].
pub(super) fn fit<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    leveled: bool,
    request: Option<&RequestDigits<V>>,
    worker: &Worker<V>,
) -> Fit<V> {
    let skipped = rules.dominant_is_checked_last(leveled).then_some(rules.dominant);
    let checked: Vec<_> =
        (0..RESOURCES).filter(|r| rules.need.of(*r) && skipped != Some(*r)).collect();
    let many = checked.len() + usize::from(rules.max_latency.is_some()) > FLAGS;
    let scale = if leveled || many { 1 } else { FLAG };
    let (flags, late) = rayon::join(
        || -> Vec<_> {
            checked
                .par_iter()
                .map(|resource| {
                    let borrow = low_borrow(circuit, rules.need, request, worker, *resource);
                    let digits = worker.free(*resource);
                    let mut rest = match (rules.need, request) {
                        (Need::Clear(need), _) => {
                            digits[1].plus_constant(-i64::from(need[*resource] >> 4))
                        }
                        (Need::Encrypted, Some(request)) => {
                            digits[1].minus(&request.digits[*resource][1])
                        }
                        (Need::Encrypted, None) => unreachable!("requests are checked before"),
                    };
                    if let Some(borrow) = &borrow {
                        rest = rest.minus(borrow);
                    }
                    (borrow, circuit.scaled_if_negative(&rest, scale))
                })
                .collect()
        },
        || {
            let max = i64::from(rules.max_latency?.get());
            let table = Table::new(|x| if x % 4 > max { scale } else { 0 });
            Some(circuit.look_up(worker.classes(), &table))
        },
    );
    let unfit = sum(flags.iter().map(|(_, flag)| flag).chain(&late));
    let unfit = match unfit {
        Some(count) if many && !leveled => Some(circuit.any(&count, FLAG)),
        other => other,
    };
    let mut borrows: [Option<Digit<V>>; RESOURCES] = Default::default();
    checked.iter().zip(flags).for_each(|(resource, (borrow, _))| borrows[*resource] = borrow);
    Fit { borrows, unfit }
}

fn low_borrow<V: Value>(
    circuit: &Circuit<'_, V>,
    need: Need,
    request: Option<&RequestDigits<V>>,
    worker: &Worker<V>,
    resource: usize,
) -> Option<Digit<V>> {
    let [low, _] = worker.free(resource);
    match (need, request) {
        (Need::Clear(need), _) => {
            let need = i64::from(need[resource] & 0xf);
            (need > 0).then(|| circuit.is_negative(&low.plus_constant(-need)))
        }
        (Need::Encrypted, request) => {
            Some(circuit.is_negative(&low.minus(&request?.digits[resource][0])))
        }
    }
}

/// Of the upper part of a score, 0, 3, 6 or 9, and [`Fit::unfit`] in multiples of [`FLAG`]: 3 more,
/// or 0 if unfit.
pub(super) fn masked<V: Value>(
    circuit: &Circuit<'_, V>,
    top: &Digit<V>,
    unfit: Option<&Digit<V>>,
) -> Digit<V> {
    let Some(unfit) = unfit else { return top.plus_constant(3) };
    // What is not named is 0: every sum with a flag, those past the padding bit included.
    let table = Table::of_points([(0, 3), (3, 6), (6, 9), (9, 12)]);
    circuit.look_up(&top.plus(unfit), &table)
}

/// Takes the request from `worker` if `won` is 1, of the resources that are needed later.
pub(super) fn deduct<V: Value>(
    circuit: &Circuit<'_, V>,
    need: Need,
    request: Option<&RequestDigits<V>>,
    fit: &Fit<V>,
    won: &Digit<V>,
    worker: &mut Worker<V>,
    is_needed: impl Fn(usize) -> bool + Sync,
) {
    let taken: Vec<_> =
        (0..RESOURCES).filter(|resource| need.of(*resource) && is_needed(*resource)).collect();
    if taken.is_empty() {
        return;
    }
    // Half the torus, for encrypted requests.
    let turned = matches!(need, Need::Encrypted)
        .then(|| circuit.look_up(won, &Table::new(|x| 16 * (x & 1))));
    let rest: Vec<_> = taken
        .par_iter()
        .map(|resource| {
            let resource = *resource;
            let borrow = match &fit.borrows[resource] {
                Some(borrow) => Some(borrow.clone()),
                None => low_borrow(circuit, need, request, worker, resource),
            };
            let [low, high] = worker.free(resource);
            let (low, high) = match (need, request, &turned) {
                (Need::Clear(need), ..) => {
                    let (change_low, change_high) =
                        changes(circuit, need[resource], won, borrow.as_ref());
                    (
                        change_low.map_or_else(|| low.clone(), |change| low.plus(&change)),
                        high.plus(&change_high),
                    )
                }
                (Need::Encrypted, Some(request), Some(turned)) => {
                    take_encrypted(circuit, [low, high], request, resource, won, turned, borrow)
                }
                _ => unreachable!("requests are checked before"),
            };
            let limited = |digit| circuit.refresh_above(CAPACITY_VARIANCE, digit);
            let (low, high) = rayon::join(|| limited(low), || limited(high));
            (resource, [low, high])
        })
        .collect();
    rest.into_iter().for_each(|(resource, digits)| worker.set_free(resource, digits));
}

/// By how much the two digits change; the low one not at all if the request's is 0.
fn changes<V: Value>(
    circuit: &Circuit<'_, V>,
    need: u8,
    won: &Digit<V>,
    borrow: Option<&Digit<V>>,
) -> (Option<Digit<V>>, Digit<V>) {
    let (low, high) = (i64::from(need & 0xf), i64::from(need >> 4));
    let Some(borrow) = borrow else {
        return (None, circuit.look_up(won, &Table::new(|x| if x == 1 { -high } else { 0 })));
    };
    let index = won.plus(&borrow.times(2));
    let table = Table::of_points([(1, -low), (3, 16 - low), (9, -high), (11, -high - 1)]);
    let [change_low, change_high] = circuit.look_up_two(&index, &table);
    (Some(change_low), change_high)
}

fn take_encrypted<V: Value>(
    circuit: &Circuit<'_, V>,
    [low, high]: [&Digit<V>; 2],
    request: &RequestDigits<V>,
    resource: usize,
    won: &Digit<V>,
    turned: &Digit<V>,
    borrow: Option<Digit<V>>,
) -> (Digit<V>, Digit<V>) {
    let (Some(halves), Some(borrow)) = (&request.halves, borrow) else {
        unreachable!("an encrypted request is halved before deductions, and always has a borrow")
    };
    let taken = |position: usize| {
        let signed = circuit
            .look_up(&request.digits[resource][position].plus(turned), &Table::halves(|x| -x));
        halves[resource][position].plus(&signed)
    };
    let ([low_taken, high_taken], [carry_low, carry_high]) = rayon::join(
        || {
            let (low, high) = rayon::join(|| taken(0), || taken(1));
            [low, high]
        },
        || {
            let index = won.plus(&borrow.times(2));
            circuit.look_up_two(&index, &Table::of_points([(3, 16), (11, 1)]))
        },
    );
    (low.minus(&low_taken).plus(&carry_low), high.minus(&high_taken).minus(&carry_high))
}
