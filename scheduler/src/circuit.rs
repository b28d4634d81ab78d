//! The circuit: a [`Plan`] run on encrypted capacities.
//!
//! # Per replica and candidate
//! 1. **Fit**: for every requested resource, the borrows of free - request, digit by digit from the
//!    lowest digit of the request that is not 0. A digit minus a clear digit minus a borrow is -16
//!    to 15, the borrow is its sign: one look-up. The borrow out of the top digit says that it
//!    does not fit.
//! 2. **Level**: 0 if something does not fit or hard anti-affinity forbids, else 7 minus the count
//!    of the job's replicas: one look-up, or two with earlier replicas in the slot.
//! 3. **Room**: the largest of what each digit stands for.
//! 4. **Selection**: [`crate::select`].
//! 5. **Deduction**, if a later replica can see it: with s the selection, b the borrows and r the
//!    request's digits, digit j changes by s (16 b_j - r_j - b_(j-1)): one look-up for each digit.
//! 6. **Output**: the winner's number in digits of 4 bits.
//!
//! Under hard anti-affinity no replica of the job can go where an earlier one went, so fits and
//! rooms are computed once for the job and the deduction is made after its last replica.

use rayon::prelude::*;

use crate::{
    key::EvaluationKey,
    lookup::{Digit, MAX_VARIANCE, Table},
    plan::{MAX_COUNT, Plan, Step, digit_room},
    select::{self, Contender},
    telemetry::{DIGITS, RESOURCES, digits},
};

/// An infeasible candidate, above a count of at most 7.
const UNFIT: i64 = 8;
/// Highest level: feasible and without a replica of the job.
const MAX_LEVEL: i64 = 7;
/// What a capacity's digit may gather over deductions; one borrow joins it in a look-up.
const CAPACITY_VARIANCE: u32 = MAX_VARIANCE - 1;
/// What the selection may carry into a deduction: weights 2 and 4 on two borrows take 20 of 25.
const SELECTION_VARIANCE: u32 = 5;
/// What a count may carry into a level: the flag [`UNFIT`] joins it.
const COUNT_VARIANCE: u32 = MAX_VARIANCE - 1;

/// Free capacity; absent for a resource that no job asks for.
pub(crate) type Capacity = [Option<[Digit; DIGITS]>; RESOURCES];

/// One worker while a slot is evaluated.
struct Worker {
    free: Capacity,
    /// Of the current job, as long as `free` does not change.
    fit: Option<Fit>,
    /// Of the current job: replicas placed in this slot. It exists from the second step on.
    placed: Option<Digit>,
}

/// What a request means for a worker.
struct Fit {
    /// By resource, then digit; absent below the request's lowest digit.
    borrows: [[Option<Digit>; DIGITS]; RESOURCES],
    /// Number of resources that do not suffice.
    lacking: Digit,
    room: Option<Digit>,
}

/// The output digits by position in the manifest's pending list.
pub(crate) fn run(plan: &Plan, capacities: Vec<Capacity>, key: &EvaluationKey) -> Vec<Vec<Digit>> {
    let mut workers: Vec<_> =
        capacities.into_iter().map(|free| Worker { free, fit: None, placed: None }).collect();
    let last_use = last_use(plan);
    let mut outputs = vec![Vec::new(); plan.replicas];
    // How large a count of placed replicas can be: public.
    let mut largest_count = 0;
    for (number, step) in plan.steps.iter().enumerate() {
        if !step.candidates.is_empty() {
            let won = select::winner(key, contenders(key, step, &mut workers));
            let mut selected = vec![None; workers.len()];
            step.candidates.iter().zip(won).for_each(|(worker, won)| selected[*worker] = Some(won));
            outputs[step.position] = numbers(key, plan, step, &selected);
            if !step.last_of_job || step.hard {
                largest_count = count(key, step, &mut workers, &selected, largest_count);
            }
            let is_needed =
                |worker: usize, resource: usize| last_use[worker][resource] > Some(number);
            if !step.hard {
                deduct(key, step, &mut workers, &selected, is_needed);
            } else if step.last_of_job {
                let placed: Vec<_> = workers.iter().map(|worker| worker.placed.clone()).collect();
                deduct(key, step, &mut workers, &placed, is_needed);
            }
        }
        if step.last_of_job {
            largest_count = 0;
            workers.iter_mut().for_each(|worker| {
                worker.placed = None;
                worker.fit = None;
            });
        }
    }
    outputs
}

/// The last step that looks at a resource of a worker.
fn last_use(plan: &Plan) -> Vec<[Option<usize>; RESOURCES]> {
    let mut last_use = vec![[None; RESOURCES]; plan.workers];
    for (number, step) in plan.steps.iter().enumerate() {
        for worker in &step.candidates {
            for (last, request) in last_use[*worker].iter_mut().zip(step.request) {
                if request > 0 {
                    *last = Some(number);
                }
            }
        }
    }
    last_use
}

fn contenders(key: &EvaluationKey, step: &Step, workers: &mut [Worker]) -> Vec<Contender> {
    let is_candidate = membership(step, workers.len());
    let mut levels: Vec<_> = workers
        .par_iter_mut()
        .zip(&step.running)
        .zip(&is_candidate)
        .map(|((worker, running), is_candidate)| {
            if !is_candidate {
                return None;
            }
            if worker.fit.is_none() {
                worker.fit = Some(fit(key, step, &worker.free));
            }
            contender(key, step, worker, *running)
        })
        .collect();
    step.candidates.iter().filter_map(|worker| levels.get_mut(*worker)?.take()).collect()
}

fn membership(step: &Step, workers: usize) -> Vec<bool> {
    let mut is_candidate = vec![false; workers];
    step.candidates.iter().for_each(|worker| is_candidate[*worker] = true);
    is_candidate
}

fn contender(key: &EvaluationKey, step: &Step, worker: &Worker, running: u16) -> Option<Contender> {
    let Fit { lacking, room, .. } = worker.fit.as_ref()?;
    let running = i64::from(running);
    let level = |count: i64| {
        if step.hard && count > 0 { 0 } else { MAX_LEVEL - count.min(i64::from(MAX_COUNT)) }
    };
    let level = match &worker.placed {
        None => {
            let table = Table::new(|lacking| if lacking > 0 { 0 } else { level(running) });
            key.look_up(lacking, &table)
        }
        Some(placed) => {
            let unfit =
                key.look_up(lacking, &Table::new(|lacking| if lacking > 0 { UNFIT } else { 0 }));
            let table = Table::new(|x| if x >= UNFIT { 0 } else { level(running + x) });
            key.look_up(&unfit.plus(placed), &table)
        }
    };
    Some(Contender { level, room: room.clone() })
}

fn fit(key: &EvaluationKey, step: &Step, free: &Capacity) -> Fit {
    let (borrows, room) = rayon::join(
        || {
            let of_resource: Vec<_> = free
                .par_iter()
                .zip(&step.request)
                .map(|(free, request)| borrows(key, free.as_ref(), *request))
                .collect();
            let mut all: [[Option<Digit>; DIGITS]; RESOURCES] = Default::default();
            all.iter_mut().zip(of_resource).for_each(|(slot, borrows)| *slot = borrows);
            all
        },
        || {
            let request = step.request[step.dominant];
            free[step.dominant].as_ref().and_then(|free| room(key, free, request))
        },
    );
    // Every job asks for CPU, so there is at least one.
    let lacking = borrows
        .iter()
        .filter_map(|of_resource| of_resource[DIGITS - 1].clone())
        .reduce(|sum, borrow| sum.plus(&borrow))
        .expect("a job requests at least one unit of CPU");
    Fit { borrows, lacking, room }
}

/// The borrows of free - request.
fn borrows(
    key: &EvaluationKey,
    free: Option<&[Digit; DIGITS]>,
    request: u16,
) -> [Option<Digit>; DIGITS] {
    let mut borrows: [Option<Digit>; DIGITS] = Default::default();
    let (Some(free), true) = (free, request > 0) else { return borrows };
    // -1/2 for 0 to 15 and 1/2 for -16 to -1; half a step above that is the borrow.
    let sign = Table::halves(|_| -1);
    let mut borrow: Option<Digit> = None;
    for (position, (digit, need)) in free.iter().zip(digits(request)).enumerate() {
        if borrow.is_none() && need == 0 {
            continue;
        }
        let mut difference = digit.plus_constant(-i64::from(need));
        if let Some(borrow) = &borrow {
            difference = difference.minus(borrow);
        }
        let next = key.look_up(&difference, &sign).plus_halves(1);
        borrows[position] = Some(next.clone());
        borrow = Some(next);
    }
    borrows
}

fn room(key: &EvaluationKey, free: &[Digit; DIGITS], request: u16) -> Option<Digit> {
    let rooms: Vec<_> = free
        .par_iter()
        .enumerate()
        .filter_map(|(position, digit)| {
            let table = Table::new(|x| i64::from(digit_room(x, position, request)));
            (!table.is_zero()).then(|| key.look_up(digit, &table))
        })
        .collect();
    rooms.into_iter().reduce(|best, room| select::larger(key, &best, &room))
}

/// Adds the step's winner to the counts; returns the largest possible count.
fn count(
    key: &EvaluationKey,
    step: &Step,
    workers: &mut [Worker],
    selected: &[Option<Digit>],
    largest: i64,
) -> i64 {
    // One more must stay below the flag of an infeasible candidate. Levels are alike from
    // `MAX_COUNT` on, so nothing is lost.
    let limit = UNFIT - 1;
    let saturate = !step.hard && largest == limit;
    workers.par_iter_mut().zip(selected).for_each(|(worker, won)| {
        let Some(won) = won else { return };
        let before = worker.placed.take().map(|placed| {
            if saturate {
                key.look_up(&placed, &Table::new(|x| x.min(limit - 1)))
            } else {
                key.refresh_above(COUNT_VARIANCE.saturating_sub(won.variance()), placed)
            }
        });
        worker.placed = Some(before.map_or_else(|| won.clone(), |before| before.plus(won)));
    });
    // Under hard anti-affinity nobody wins twice.
    if step.hard { 1 } else { limit.min(largest + 1) }
}

/// Takes the request from the capacity of whoever was selected, where a later step looks.
fn deduct(
    key: &EvaluationKey,
    step: &Step,
    workers: &mut [Worker],
    selected: &[Option<Digit>],
    is_needed: impl Fn(usize, usize) -> bool + Sync,
) {
    workers.par_iter_mut().zip(selected).enumerate().for_each(|(index, (worker, selected))| {
        let (Some(fit), Some(selected)) = (worker.fit.take(), selected) else { return };
        let selected = key.refresh_above(SELECTION_VARIANCE, selected.clone());
        for (resource, free) in worker.free.iter_mut().enumerate() {
            let request = step.request[resource];
            if let (Some(free), true) = (free, request > 0 && is_needed(index, resource)) {
                take(key, free, request, &fit.borrows[resource], &selected);
            }
        }
    });
}

fn take(
    key: &EvaluationKey,
    free: &mut [Digit; DIGITS],
    request: u16,
    borrows: &[Option<Digit>; DIGITS],
    selected: &Digit,
) {
    let request = digits(request);
    free.par_iter_mut().enumerate().for_each(|(position, digit)| {
        let below = position.checked_sub(1).and_then(|below| borrows[below].as_ref());
        let Some(own) = &borrows[position] else { return };
        let mut index = selected.clone();
        if let Some(below) = below {
            index = index.plus(&below.times(2));
        }
        // Whoever is selected has enough: no borrow leaves its top digit.
        if position + 1 < DIGITS {
            index = index.plus(&own.times(4));
        }
        let need = i64::from(request[position]);
        let change = key
            .look_up(&index, &Table::new(|x| (x & 1) * (16 * (x >> 2 & 1) - need - (x >> 1 & 1))));
        *digit = key.refresh_above(CAPACITY_VARIANCE - 1, digit.clone()).plus(&change);
    });
}

/// 1 plus the winner's position in the telemetry, or 0, in digits of 4 bits.
fn numbers(
    key: &EvaluationKey,
    plan: &Plan,
    step: &Step,
    selected: &[Option<Digit>],
) -> Vec<Digit> {
    (0..plan.digits_per_replica())
        .into_par_iter()
        .filter_map(|position| {
            let groups = groups(step, selected, position);
            let found: Vec<_> = groups
                .par_iter()
                .map(|(sum, values)| {
                    let value = |x: i64| {
                        let group = usize::try_from(x - 1).ok().and_then(|x| values.get(x));
                        group.map_or(0, |value| i64::from(*value))
                    };
                    key.look_up(sum, &Table::new(value))
                })
                .collect();
            // At most one of them is not 0.
            found.into_iter().reduce(|sum, value| {
                key.refresh_above(MAX_VARIANCE - value.variance(), sum).plus(&value)
            })
        })
        .collect()
}

/// Selections gathered with weights 1, 2, 3, ... for as long as the noise allows, and which digit
/// each weight stands for.
fn groups(step: &Step, selected: &[Option<Digit>], position: usize) -> Vec<(Digit, Vec<u8>)> {
    let mut groups: Vec<(Digit, Vec<u8>)> = Vec::new();
    for worker in &step.candidates {
        let Some(selected) = selected.get(*worker).and_then(Option::as_ref) else { continue };
        let value = ((worker + 1) >> (4 * position)) as u8 & 0xf;
        if let Some((sum, values)) = groups.last_mut() {
            let weighted = selected.times(values.len() as u32 + 1);
            if sum.variance() + weighted.variance() <= MAX_VARIANCE {
                *sum = sum.plus(&weighted);
                values.push(value);
                continue;
            }
        }
        groups.push((selected.clone(), vec![value]));
    }
    groups
}
