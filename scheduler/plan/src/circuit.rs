//! The circuit: a [`Plan`] run on digits, which are ciphertexts or [numbers](in_clear).
//!
//! # Per replica and candidate
//! 1. **Fit** (`fit.rs`): 2 look-ups for a resource, 1 if the low digit of the request is 0.
//!    For `spread` the dominant resource is left out: the winner has the most of it, so that it is
//!    enough to check the winner's.
//! 2. **Score** (`score.rs`): linear in the free digits but for 2 look-ups that split them.
//! 3. **Mask**: the score's upper part and what speaks against the worker: one look-up. If a count
//!    of replicas or a previous worker decides first, a level takes its place: one or two look-ups.
//! 4. **Selection** (`select.rs`): 6 look-ups a match, 2/3 for the way down.
//! 5. **Deduction**, if a later replica can see it: one look-up for each resource.
//! 6. **Output**: the winner's number in digits of 4 bits.
//!
//! Under hard anti-affinity no replica of the job can go where an earlier one went, so fits and
//! scores are computed once for the job and the deduction is made after its last replica.
//!
//! [`Plan::without_overhead`] says what of that compares, chooses and deducts: 13.25 for `spread` with four
//! resources on 16 workers, where 14.0 are made, and 15.06 for `bin_pack`, where 16.75 are made: with
//! four flags one more gathers them. The expansion of a list, 8 or 12 look-ups more, splits CPU and memory
//! before the manifest is known. The [circuit of thresholds](crate::threshold) takes a third of it.

pub mod digit;
mod fit;
pub mod in_clear;
pub mod lookup;
pub mod rotated;
pub(crate) mod score;
mod select;
pub mod table;
pub mod worker;

use std::collections::BTreeMap;

use self::{
    digit::{Digit, Value, sum},
    fit::{deduct, masked},
    lookup::Circuit,
    score::score,
    select::{Condition, Contender},
    table::Table,
    worker::{Confidential, Fit, Score, Worker},
};
use crate::{
    cost::MAX_VARIANCE,
    plan::{Plan, Step},
    rules::{JobRules, Need, RESOURCES},
};
use rayon::prelude::*;

/// An infeasible candidate, above a count of at most 7.
const UNFIT: i64 = 8;
/// What counts and flags may carry into a look-up with what joins them there.
const COUNT_VARIANCE: u32 = MAX_VARIANCE - 6;
/// What the selection may carry into a deduction: the weight 2 on a borrow takes 4.
const SELECTION_VARIANCE: u32 = MAX_VARIANCE - 4;

/// Replicas of the current job placed in this slot.
struct Placed<V> {
    /// By failure domain; absent if none can be there.
    by_domain: Vec<Option<Digit<V>>>,
    /// Largest possible count: public.
    largest: i64,
    /// By worker, under hard anti-affinity.
    by_worker: Vec<Option<Digit<V>>>,
}

/// The output digits by position in the manifest's pending list.
pub fn run<V: Value>(
    plan: &Plan,
    mut workers: Vec<Worker<V>>,
    confidential: &mut Confidential<V>,
    circuit: &Circuit<'_, V>,
) -> Vec<Vec<Digit<V>>> {
    let last_use = last_use(plan);
    let mut outputs = vec![Vec::new(); plan.replicas];
    let mut placed = Placed { by_domain: Vec::new(), largest: 0, by_worker: Vec::new() };
    for (number, step) in plan.steps.iter().enumerate() {
        let rules = plan.rules(step);
        if step.first_of_job {
            workers.iter_mut().for_each(|worker| worker.known = None);
            placed = Placed {
                by_domain: vec![None; rules.running.len()],
                largest: 0,
                by_worker: vec![None; workers.len()],
            };
        }
        if step.candidates.is_empty() {
            continue;
        }
        let contenders = contenders(circuit, plan, step, confidential, &mut workers, &placed);
        let won = select::winner(circuit, contenders, &condition(rules, step, confidential));
        let mut selected = vec![None; workers.len()];
        step.candidates.iter().zip(won).for_each(|(worker, won)| selected[*worker] = Some(won));
        outputs[step.position] = numbers(circuit, plan, step, &selected);
        outputs[step.position].iter().for_each(|digit| circuit.output(digit));
        if !step.last_of_job || rules.hard {
            count(circuit, rules, &mut placed, &selected);
        }
        let taken = match (rules.hard, step.last_of_job) {
            (false, _) => &selected,
            (true, true) => &placed.by_worker,
            (true, false) => continue,
        };
        let is_needed = |worker: usize, resource: usize| last_use[worker][resource] > Some(number);
        let somewhere = (0..workers.len()).any(|w| (0..RESOURCES).any(|r| is_needed(w, r)));
        if let (Need::Encrypted, true, Some(request)) =
            (rules.need, somewhere, confidential.requests.get_mut(&step.job))
        {
            request.halve(circuit);
        }
        let request = confidential.requests.get(&step.job);
        workers.par_iter_mut().zip(taken).enumerate().for_each(|(index, (worker, won))| {
            let (Some((fit, _)), Some(won)) = (worker.known.take(), won) else { return };
            let won = circuit.refresh_above(SELECTION_VARIANCE, won.clone());
            let is_needed = |resource| is_needed(index, resource);
            deduct(circuit, rules.need, request, &fit, &won, worker, is_needed);
        });
    }
    outputs
}

/// The last step that looks at a resource of a worker.
pub(crate) fn last_use(plan: &Plan) -> Vec<[Option<usize>; RESOURCES]> {
    let mut last_use = vec![[None; RESOURCES]; plan.workers];
    for (number, step) in plan.steps.iter().enumerate() {
        let need = plan.rules(step).need;
        for worker in &step.candidates {
            for (resource, last) in last_use[*worker].iter_mut().enumerate() {
                if need.of(resource) {
                    *last = Some(number);
                }
            }
        }
    }
    last_use
}

fn condition<'a, V>(
    rules: &JobRules,
    step: &Step,
    confidential: &'a Confidential<V>,
) -> Condition<'a, V> {
    if !rules.dominant_is_checked_last(step.leveled) {
        return Condition::Feasible;
    }
    match (rules.need, confidential.requests.get(&step.job)) {
        (Need::Clear(request), _) => {
            let units = request[rules.dominant];
            Condition::AtLeast([units & 0xf, units >> 4])
        }
        (Need::Encrypted, Some(request)) => {
            Condition::AtLeastEncrypted(&request.digits[rules.dominant])
        }
        (Need::Encrypted, None) => unreachable!("requests are checked before a circuit runs"),
    }
}

fn contenders<V: Value>(
    circuit: &Circuit<'_, V>,
    plan: &Plan,
    step: &Step,
    confidential: &Confidential<V>,
    workers: &mut [Worker<V>],
    placed: &Placed<V>,
) -> Vec<Contender<V>> {
    let rules = plan.rules(step);
    let request = confidential.requests.get(&step.job);
    let mut is_candidate = vec![false; workers.len()];
    step.candidates.iter().for_each(|worker| is_candidate[*worker] = true);
    let mut contenders: Vec<_> = workers
        .par_iter_mut()
        .zip(is_candidate)
        .enumerate()
        .map(|(index, (worker, is_candidate))| {
            if !is_candidate {
                return None;
            }
            if worker.known.is_none() {
                let (fit, view) = rayon::join(
                    || fit::fit(circuit, rules, step.leveled, request, worker),
                    || worker.missing_view(circuit, rules),
                );
                if let Some(view) = view {
                    worker.set_view(rules.dominant, view);
                }
                let score = score(circuit, rules, &plan.policy.weights, confidential, worker);
                worker.known = Some((fit, score));
            }
            let (fit, Score { top, mid, low }) = worker.known.clone()?;
            let placed = placed.by_domain.get(rules.domains[index]).and_then(Option::as_ref);
            let (level, top) = if step.leveled {
                (Some(level(circuit, rules, step, index, &fit, placed)), top)
            } else {
                let top = masked(circuit, &top, fit.unfit.as_ref());
                (
                    None,
                    match placed.filter(|_| rules.hard) {
                        None => top,
                        // Multiples of 3 and the same plus 1.
                        Some(placed) => circuit.look_up(
                            &top.plus(placed),
                            &Table::new(|x| if x % 3 == 0 { x } else { 0 }),
                        ),
                    },
                )
            };
            Some(Contender { level, top, mid, low })
        })
        .collect();
    step.candidates.iter().filter_map(|worker| contenders.get_mut(*worker)?.take()).collect()
}

/// 0 if infeasible, else [`JobRules::level`].
fn level<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    step: &Step,
    worker: usize,
    fit: &Fit<V>,
    placed: Option<&Digit<V>>,
) -> Digit<V> {
    let level = |count: i64| i64::from(rules.level(worker, step.previous, count as u16));
    let against = match placed.filter(|_| rules.hard) {
        None => fit.unfit.clone(),
        Some(placed) => sum(fit.unfit.iter().chain([placed])),
    };
    match (against, placed.filter(|_| !rules.hard)) {
        (None, None) => unreachable!("with levels every resource is checked, and CPU is requested"),
        (Some(against), None) => {
            let table = Table::new(|count| if count > 0 { 0 } else { level(0) });
            circuit.look_up(&against, &table)
        }
        (None, Some(placed)) => circuit.look_up(placed, &Table::new(level)),
        (Some(against), Some(placed)) => {
            let unfit = circuit.any(&against, UNFIT);
            let table = Table::new(|x| if x >= UNFIT { 0 } else { level(x) });
            circuit.look_up(&unfit.plus(placed), &table)
        }
    }
}

/// Adds the step's winner to the counts.
fn count<V: Value>(
    circuit: &Circuit<'_, V>,
    rules: &JobRules,
    placed: &mut Placed<V>,
    selected: &[Option<Digit<V>>],
) {
    // One more must stay below the flag of an infeasible candidate. Levels are alike from
    // `MAX_COUNT` on, so nothing is lost.
    let limit = UNFIT - 1;
    let mut won: Vec<Vec<Digit<V>>> = vec![Vec::new(); placed.by_domain.len()];
    for (selected, domain) in selected.iter().zip(&rules.domains) {
        if let (Some(selected), Some(won)) = (selected, won.get_mut(*domain)) {
            won.push(selected.clone());
        }
    }
    let saturate = !rules.hard && placed.largest == limit;
    placed.by_domain.par_iter_mut().zip(won).for_each(|(count, won)| {
        let Some(won) = flags(circuit, won) else { return };
        let before = count.take().map(|count| {
            if saturate {
                circuit.look_up(&count, &Table::new(|x| x.min(limit - 1)))
            } else {
                count
            }
        });
        let sum = match before {
            None => won,
            // What both carry together must still enter a look-up.
            Some(before) => {
                let won = circuit.refresh_above(MAX_VARIANCE - COUNT_VARIANCE, won);
                before.plus(&won)
            }
        };
        *count = Some(circuit.refresh_above(COUNT_VARIANCE, sum));
    });
    if rules.hard {
        placed.by_worker.par_iter_mut().zip(selected).for_each(|(placed, selected)| {
            let Some(selected) = selected else { return };
            let sum = placed.take().map_or_else(|| selected.clone(), |sum| sum.plus(selected));
            *placed = Some(circuit.refresh_above(COUNT_VARIANCE, sum));
        });
        placed.largest = 1;
    } else {
        placed.largest = limit.min(placed.largest + 1);
    }
}

/// The sum of flags of which at most one is set; in a tree, since it may be of all workers.
fn flags<V: Value>(circuit: &Circuit<'_, V>, mut flags: Vec<Digit<V>>) -> Option<Digit<V>> {
    loop {
        let mut sums: Vec<Digit<V>> = Vec::new();
        for flag in flags {
            match sums.last_mut() {
                Some(sum) if sum.variance() + flag.variance() <= COUNT_VARIANCE => {
                    *sum = sum.plus(&flag);
                }
                _ => sums.push(flag),
            }
        }
        if sums.len() <= 1 {
            return sums.pop();
        }
        flags = sums.par_iter().map(|sum| circuit.refresh(sum)).collect();
    }
}

/// 1 plus the winner's position in the telemetry, or 0, in digits of 4 bits.
fn numbers<V: Value>(
    circuit: &Circuit<'_, V>,
    plan: &Plan,
    step: &Step,
    selected: &[Option<Digit<V>>],
) -> Vec<Digit<V>> {
    (0..plan.digits_per_replica())
        .into_par_iter()
        .filter_map(|position| {
            let groups = groups(circuit, step, selected, position);
            let found: Vec<_> = groups
                .par_iter()
                .map(|(sum, values)| {
                    let value = |x: i64| {
                        let group = usize::try_from(x - 1).ok().and_then(|x| values.get(x));
                        group.copied().unwrap_or(0)
                    };
                    circuit.look_up(sum, &Table::new(value))
                })
                .collect();
            // At most one of them is not 0.
            flags(circuit, found)
        })
        .collect()
}

/// Selections by the value of the output digit that they stand for, gathered with weights 1, 2, 3,
/// ... for as long as the noise allows, and which value each weight stands for.
fn groups<V: Value>(
    circuit: &Circuit<'_, V>,
    step: &Step,
    selected: &[Option<Digit<V>>],
    position: usize,
) -> Vec<(Digit<V>, Vec<i64>)> {
    let mut by_value: BTreeMap<i64, Vec<Digit<V>>> = BTreeMap::new();
    for worker in &step.candidates {
        let value = (worker + 1) as i64 >> (4 * position) & 0xf;
        if let (1.., Some(Some(selected))) = (value, selected.get(*worker)) {
            by_value.entry(value).or_default().push(selected.clone());
        }
    }
    let mut groups: Vec<(Digit<V>, Vec<i64>)> = Vec::new();
    for (value, selected) in by_value {
        let Some(selected) = flags(circuit, selected) else { continue };
        if let Some((sum, values)) = groups.last_mut() {
            let weighted = selected.times(values.len() as u32 + 1);
            if sum.variance() + weighted.variance() <= MAX_VARIANCE {
                *sum = sum.plus(&weighted);
                values.push(value);
                continue;
            }
        }
        groups.push((selected, vec![value]));
    }
    groups
}
