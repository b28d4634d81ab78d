//! The circuit: a [`Plan`] run on encrypted readings.
//!
//! # Per replica and candidate
//! 1. **Fit** ([`crate::fit`]): 2 look-ups for a resource, 1 if the low digit of the request is 0.
//!    For `spread` the dominant resource is left out: the winner has the most of it, so that it is
//!    enough to check the winner's.
//! 2. **Score** ([`crate::score`]): linear in the free digits but for 2 look-ups that split them.
//! 3. **Mask**: the score's upper part and what speaks against the worker: one look-up. If a count
//!    of replicas or a previous worker decides first, a level takes its place: one or two look-ups.
//! 4. **Selection** ([`crate::select`]): 6 look-ups a match, 2/3 for the way down.
//! 5. **Deduction**, if a later replica can see it: one look-up for each resource.
//! 6. **Output**: the winner's number in digits of 4 bits.
//!
//! Under hard anti-affinity no replica of the job can go where an earlier one went, so fits and
//! scores are computed once for the job and the deduction is made after its last replica.
//!
//! [`Plan::lower_bound`] says what this style of circuit takes at least: 13.25 for `spread` with four
//! resources on 16 workers, where 14.0 are made, and 15.06 for `bin_pack`, where 16.75 are made: with
//! four flags one more gathers them. Splitting CPU and memory is done when a list is expanded, before
//! the manifest is known ([`crate::verify_and_expand`]).

use std::collections::BTreeMap;

use rayon::prelude::*;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{PolicyWeights, SchedulingPolicy},
};

use crate::{
    fit::{self, Fit, RequestDigits, deduct, masked},
    lookup::{Circuit, Digit, MAX_VARIANCE, Table, sum},
    plan::{Plan, Step},
    rules::{JobRules, Need, RESOURCES},
    score::{Score, View, score},
    select::{self, Condition, Contender},
};

/// An infeasible candidate, above a count of at most 7.
const UNFIT: i64 = 8;
/// What counts and flags may carry into a look-up with what joins them there.
const COUNT_VARIANCE: u32 = MAX_VARIANCE - 6;
/// What the selection may carry into a deduction: the weight 2 on a borrow takes 4.
const SELECTION_VARIANCE: u32 = MAX_VARIANCE - 4;

/// The first resources, which every job asks for: they are expanded and split with their list.
pub(crate) const SPLIT: usize = 2;

/// What the circuit knows of workers besides their readings.
pub(crate) struct Confidential {
    /// Encrypted requests by job.
    pub(crate) requests: BTreeMap<Blake3Digest, RequestDigits>,
    /// Encrypted weights: price, latency.
    pub(crate) weights: Option<[Digit; 2]>,
}

impl Confidential {
    /// Zeros in clear, to count look-ups with.
    pub(crate) fn blank(plan: &Plan) -> Self {
        let zero = || Digit::clear(0);
        let pair = || [zero(), zero()];
        let encrypted = |step: &&Step| matches!(plan.rules(step).need, Need::Encrypted);
        Self {
            requests: plan
                .steps
                .iter()
                .filter(encrypted)
                .map(|step| (step.job, RequestDigits::new([pair(), pair(), pair(), pair()])))
                .collect(),
            weights: matches!(plan.policy.weights, PolicyWeights::Encrypted(_)).then(pair),
        }
    }
}

/// One worker while a slot is evaluated.
#[derive(Default)]
pub(crate) struct Worker {
    /// Low and high digit; absent for a resource that no job asks for.
    free: [Option<[Digit; 2]>; RESOURCES],
    /// Of `free` as it is.
    views: [Option<View>; RESOURCES],
    /// Latency class + 4 * price class; absent if no job looks at it.
    pub(crate) classes: Option<Digit>,
    /// Own priority; absent if no job looks at it.
    pub(crate) priority: Option<Digit>,
    /// Of the current job, as long as `free` does not change.
    known: Option<(Fit, Score)>,
}

impl Worker {
    /// Zeros in clear, to count look-ups with.
    pub(crate) fn blank() -> Self {
        let zero = || Digit::clear(0);
        let mut worker = Self::default();
        (0..RESOURCES).for_each(|resource| worker.set_free(resource, [zero(), zero()]));
        worker.split_in_clear();
        Self { classes: Some(zero()), priority: Some(zero()), ..worker }
    }

    /// In clear, what the expansion of a list does before a slot begins.
    pub(crate) fn split_in_clear(&mut self) {
        for resource in 0..SPLIT {
            let view = View::new(&Circuit::in_clear(), self.free(resource));
            self.set_view(resource, view);
        }
    }

    pub(crate) fn free(&self, resource: usize) -> &[Digit; 2] {
        self.free[resource].as_ref().expect("every requested resource is expanded")
    }

    pub(crate) fn set_free(&mut self, resource: usize, digits: [Digit; 2]) {
        self.free[resource] = Some(digits);
        self.views[resource] = None;
    }

    /// With what is known of the digits already.
    pub(crate) fn set_view(&mut self, resource: usize, view: View) {
        self.views[resource] = Some(view);
    }

    pub(crate) fn view(&mut self, circuit: &Circuit<'_>, resource: usize) -> View {
        match &self.views[resource] {
            Some(view) => view.clone(),
            None => {
                let view = View::new(circuit, self.free(resource));
                self.views[resource] = Some(view.clone());
                view
            }
        }
    }

    /// What [`score`] will need and is not known yet.
    fn missing_view(&self, circuit: &Circuit<'_>, rules: &JobRules) -> Option<View> {
        let by_quantity =
            matches!(rules.policy, SchedulingPolicy::Spread | SchedulingPolicy::BinPack);
        let missing = by_quantity && self.views[rules.dominant].is_none();
        missing.then(|| View::new(circuit, self.free(rules.dominant)))
    }

    pub(crate) fn classes(&self) -> &Digit {
        self.classes.as_ref().expect("classes are expanded if a job looks at them")
    }

    pub(crate) fn priority(&self) -> &Digit {
        self.priority.as_ref().expect("priorities are expanded if a job looks at them")
    }
}

/// Replicas of the current job placed in this slot.
struct Placed {
    /// By failure domain; absent if none can be there.
    by_domain: Vec<Option<Digit>>,
    /// Largest possible count: public.
    largest: i64,
    /// By worker, under hard anti-affinity.
    by_worker: Vec<Option<Digit>>,
}

/// The output digits by position in the manifest's pending list.
pub(crate) fn run(
    plan: &Plan,
    mut workers: Vec<Worker>,
    confidential: &mut Confidential,
    circuit: &Circuit<'_>,
) -> Vec<Vec<Digit>> {
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

fn condition<'a>(rules: &JobRules, step: &Step, confidential: &'a Confidential) -> Condition<'a> {
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

fn contenders(
    circuit: &Circuit<'_>,
    plan: &Plan,
    step: &Step,
    confidential: &Confidential,
    workers: &mut [Worker],
    placed: &Placed,
) -> Vec<Contender> {
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
fn level(
    circuit: &Circuit<'_>,
    rules: &JobRules,
    step: &Step,
    worker: usize,
    fit: &Fit,
    placed: Option<&Digit>,
) -> Digit {
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
fn count(circuit: &Circuit<'_>, rules: &JobRules, placed: &mut Placed, selected: &[Option<Digit>]) {
    // One more must stay below the flag of an infeasible candidate. Levels are alike from
    // `MAX_COUNT` on, so nothing is lost.
    let limit = UNFIT - 1;
    let mut won: Vec<Vec<Digit>> = vec![Vec::new(); placed.by_domain.len()];
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
fn flags(circuit: &Circuit<'_>, mut flags: Vec<Digit>) -> Option<Digit> {
    loop {
        let mut sums: Vec<Digit> = Vec::new();
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
fn numbers(
    circuit: &Circuit<'_>,
    plan: &Plan,
    step: &Step,
    selected: &[Option<Digit>],
) -> Vec<Digit> {
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
fn groups(
    circuit: &Circuit<'_>,
    step: &Step,
    selected: &[Option<Digit>],
    position: usize,
) -> Vec<(Digit, Vec<i64>)> {
    let mut by_value: BTreeMap<i64, Vec<Digit>> = BTreeMap::new();
    for worker in &step.candidates {
        let value = (worker + 1) as i64 >> (4 * position) & 0xf;
        if let (1.., Some(Some(selected))) = (value, selected.get(*worker)) {
            by_value.entry(value).or_default().push(selected.clone());
        }
    }
    let mut groups: Vec<(Digit, Vec<i64>)> = Vec::new();
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
