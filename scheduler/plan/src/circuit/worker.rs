//! What a circuit knows of workers and jobs while it runs.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{PolicyWeights, SchedulingPolicy},
};

use super::{
    digit::{Digit, Value},
    in_clear::Clear,
    lookup::Circuit,
    table::Table,
};
use crate::{
    plan::{Plan, Step},
    rules::{JobRules, Need, RESOURCES},
};

/// The first resources, which every job asks for: a list's expansion computes their digits and
/// [views](View).
pub const SPLIT: usize = 2;
/// Highest high digit of a quantity: 191 is 11 times 16 plus 15.
pub const MAX_HIGH: i64 = 11;

/// What is encrypted besides readings.
pub struct Confidential<V> {
    /// Encrypted requests by job.
    pub requests: BTreeMap<Blake3Digest, RequestDigits<V>>,
    /// Encrypted weights: price, latency.
    pub weights: Option<[Digit<V>; 2]>,
}

impl Confidential<Clear> {
    /// Zeros, to count look-ups with.
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

/// An encrypted request, once per job.
#[derive(Clone)]
pub struct RequestDigits<V> {
    /// By resource: low and high digit.
    pub(crate) digits: [[Digit<V>; 2]; RESOURCES],
    /// Half of them, for deductions.
    pub(super) halves: Option<[[Digit<V>; 2]; RESOURCES]>,
}

impl<V> RequestDigits<V> {
    /// Low and high digit of each resource.
    #[must_use]
    pub const fn new(digits: [[Digit<V>; 2]; RESOURCES]) -> Self {
        Self { digits, halves: None }
    }
}

impl<V: Value> RequestDigits<V> {
    /// Computes what only deductions need.
    pub(super) fn halve(&mut self, circuit: &Circuit<'_, V>) {
        if self.halves.is_none() {
            let half = |digit: &Digit<V>| circuit.look_up(digit, &Table::halves(|x| x));
            self.halves = Some(self.digits.each_ref().map(|pair| pair.each_ref().map(half)));
        }
    }
}

/// The parts of a quantity by which workers are compared: one look-up for each digit.
#[derive(Clone)]
pub struct View<V> {
    /// 0, 3, 6 or 9: of the high digit.
    pub(super) top: Digit<V>,
    /// 0, 2, 4 or 6: of the low digit.
    pub(super) upper: Digit<V>,
}

impl<V: Value> View<V> {
    /// Of the low and the high digit.
    #[must_use]
    pub fn new(circuit: &Circuit<'_, V>, [low, high]: &[Digit<V>; 2]) -> Self {
        let (top, upper) = rayon::join(
            || circuit.look_up(high, &Table::new(|x| x.min(MAX_HIGH) / 3 * 3)),
            || circuit.look_up(low, &Table::new(|x| x / 4 * 2)),
        );
        Self { top, upper }
    }
}

/// What a request means for a worker.
#[derive(Clone)]
pub(super) struct Fit<V> {
    /// By resource, out of the low digit; absent where it is 0 or not known yet.
    pub(super) borrows: [Option<Digit<V>>; RESOURCES],
    /// How much speaks against the worker: 0 if it fits. Absent if nothing can.
    pub(super) unfit: Option<Digit<V>>,
}

/// A low digit in parts.
#[derive(Clone)]
pub(super) struct Low<V> {
    /// All of it, 0 to 15.
    pub(super) whole: Digit<V>,
    /// 0, 2, 4 or 6: twice the upper 2 bits.
    pub(super) upper: Digit<V>,
    /// 0 to 3: the lower 2 bits.
    pub(super) lower: Digit<V>,
}

/// A score without feasibility: `top` is 0, 3, 6 or 9.
#[derive(Clone)]
pub(super) struct Score<V> {
    pub(super) top: Digit<V>,
    pub(super) mid: Digit<V>,
    pub(super) low: Option<Low<V>>,
}

/// One worker while a slot is evaluated.
pub struct Worker<V> {
    /// Low and high digit; absent for a resource that no job asks for.
    free: [Option<[Digit<V>; 2]>; RESOURCES],
    /// Of `free` as it is.
    views: [Option<View<V>>; RESOURCES],
    /// Latency class + 4 * price class; absent if no job looks at it.
    pub classes: Option<Digit<V>>,
    /// Own priority; absent if no job looks at it.
    pub priority: Option<Digit<V>>,
    /// Of the current job, as long as `free` does not change.
    pub(super) known: Option<(Fit<V>, Score<V>)>,
}

impl<V> Default for Worker<V> {
    fn default() -> Self {
        Self {
            free: Default::default(),
            views: Default::default(),
            classes: None,
            priority: None,
            known: None,
        }
    }
}

impl Worker<Clear> {
    /// Zeros, to count look-ups with.
    #[must_use]
    pub fn blank() -> Self {
        let zero = || Digit::clear(0);
        let mut worker = Self::default();
        (0..RESOURCES).for_each(|resource| worker.set_free(resource, [zero(), zero()]));
        worker.split();
        Self { classes: Some(zero()), priority: Some(zero()), ..worker }
    }

    /// What the expansion of a list does before a slot begins.
    pub fn split(&mut self) {
        for resource in 0..SPLIT {
            let view = View::new(&Circuit::in_clear(), self.free(resource));
            self.set_view(resource, view);
        }
    }
}

impl<V> Worker<V> {
    pub(super) fn free(&self, resource: usize) -> &[Digit<V>; 2] {
        self.free[resource].as_ref().expect("every requested resource is expanded")
    }

    /// Sets the low and the high digit of what is free of a resource.
    pub fn set_free(&mut self, resource: usize, digits: [Digit<V>; 2]) {
        self.free[resource] = Some(digits);
        self.views[resource] = None;
    }

    /// Sets what is computed of the digits already.
    pub fn set_view(&mut self, resource: usize, view: View<V>) {
        self.views[resource] = Some(view);
    }

    pub(super) fn classes(&self) -> &Digit<V> {
        self.classes.as_ref().expect("classes are expanded if a job looks at them")
    }

    pub(super) fn priority(&self) -> &Digit<V> {
        self.priority.as_ref().expect("priorities are expanded if a job looks at them")
    }
}

impl<V: Value> Worker<V> {
    pub(super) fn view(&mut self, circuit: &Circuit<'_, V>, resource: usize) -> View<V> {
        match &self.views[resource] {
            Some(view) => view.clone(),
            None => {
                let view = View::new(circuit, self.free(resource));
                self.views[resource] = Some(view.clone());
                view
            }
        }
    }

    /// What the score will need and is not known yet.
    pub(super) fn missing_view(
        &self,
        circuit: &Circuit<'_, V>,
        rules: &JobRules,
    ) -> Option<View<V>> {
        let by_quantity =
            matches!(rules.policy, SchedulingPolicy::Spread | SchedulingPolicy::BinPack);
        let missing = by_quantity && self.views[rules.dominant].is_none();
        missing.then(|| View::new(circuit, self.free(rules.dominant)))
    }
}
