//! What a plan takes, and what of that is no overhead.
//!
//! A look-up reads one sum of digits, 32 points. A circuit that compares and chooses digit by digit, as that of
//! [`circuit::run`] does, makes for n candidates of a replica at least what follows. It bounds no other
//! construction: [by thresholds](crate::threshold) a third is enough.
//!
//! | step | look-ups |
//! |---|---|
//! | fit | each digit of free capacity is compared with one of the request: 2 a resource, 1 if the request's low digit is 0. For `spread` without a level none for the dominant resource, of which the winner has the most |
//! | score | 2 to split the two digits of a quantity that a deduction changed; what a look-up must give of classes and priority for the other policies |
//! | mask | 1: the score and what speaks against the worker are two inputs |
//! | match | each digit of the score is compared, the level as well: 1 each. A choice between two unknown digits of 4 bits by an unknown bit is not a negacyclic function of any one sum of them, so it takes two parts for each, but 1 for a level. Nothing but feasibility is chosen in a last match whose score is not used |
//! | way down | 2 for 3 matches: the flags of four grandchildren are four functions of three bits, and one table of 16 entries has room for two |
//! | deduction | 1 for each resource that is looked at later; of an encrypted request 3, since each of two digits is multiplied with the selection |
//!
//! Not in it: gathering more than three flags, refreshing what has gathered noise, counting
//! replicas by failure domain, the check of the winner's dominant resource, the winner's number.

use veil_protocol_spec::scheduling::{PolicyWeights, SchedulingPolicy};

use crate::{
    circuit::{
        self, last_use,
        lookup::Circuit,
        worker::{Confidential, SPLIT, Worker},
    },
    cost::Cost,
    plan::{Plan, Step, Used},
    rules::{JobRules, Need, RESOURCES},
};

impl Plan {
    /// The look-ups of the circuit, without those that expand lists (for each telemetry 8, and one
    /// for each digit of disk, GPUs, classes and priority that a job looks at): what the slot will
    /// cost, known before anything is evaluated.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let circuit = Circuit::in_clear();
        let workers = (0..self.workers).map(|_| Worker::blank()).collect();
        circuit::run(self, workers, &mut Confidential::blank(self), &circuit);
        circuit.cost()
    }

    /// The look-ups that expand the lists of a slot's telemetry, each once, which are not in [`Self::cost`].
    #[must_use]
    pub fn expansion(&self) -> u64 {
        let Used { resources, classes, priority } = self.used();
        // CPU and memory: 2 digits each, and as many look-ups that split them.
        let late = resources.into_iter().skip(SPLIT).map(|used| 2 * u64::from(used));
        let of_one = 8 + late.sum::<u64>() + u64::from(classes) + u64::from(priority);
        self.workers as u64 * of_one
    }

    /// The look-ups of [`Self::cost`] without what this construction takes beside comparing, choosing and
    /// deducting, by the table in the source of this module: each step of the plan counted apart.
    #[must_use]
    pub fn without_overhead(&self) -> u64 {
        let last_use = last_use(self);
        // Whether a deduction may have changed the worker since its list was expanded.
        let mut changed = vec![false; self.workers];
        let mut total = 0;
        for (number, step) in self.steps.iter().enumerate() {
            let rules = self.rules(step);
            let candidates = step.candidates.len() as u64;
            if candidates == 0 {
                continue;
            }
            // Under hard anti-affinity the job's first step does it for all.
            if step.first_of_job || !rules.hard {
                total += candidates * fit(rules, step);
                let of_changed = |worker: &&usize| changed[**worker];
                let changed = step.candidates.iter().filter(of_changed).count() as u64;
                total += score(rules, &self.policy.weights, candidates, changed);
            }
            total += candidates + matches(rules, step, candidates) + 2 * (candidates - 1) / 3;
            if !rules.hard || step.last_of_job {
                for worker in &step.candidates {
                    let later = last_use[*worker].iter().enumerate();
                    let taken = later.filter(|(resource, last)| {
                        rules.need.of(*resource) && **last > Some(number)
                    });
                    let taken = taken.count() as u64;
                    changed[*worker] |= taken > 0;
                    total += taken * if matches!(rules.need, Need::Encrypted) { 3 } else { 1 };
                }
            }
        }
        total
    }
}

fn fit(rules: &JobRules, step: &Step) -> u64 {
    let checked_last = rules.dominant_is_checked_last(step.leveled).then_some(rules.dominant);
    let digits = |resource: usize| match rules.need {
        _ if !rules.need.of(resource) || checked_last == Some(resource) => 0,
        Need::Clear(request) if request[resource] & 0xf == 0 => 1,
        Need::Clear(_) | Need::Encrypted => 2,
    };
    (0..RESOURCES).map(digits).sum::<u64>() + u64::from(rules.max_latency.is_some())
}

/// Of all candidates.
fn score(rules: &JobRules, weights: &PolicyWeights, candidates: u64, changed: u64) -> u64 {
    match (rules.policy, weights) {
        (SchedulingPolicy::Spread | SchedulingPolicy::BinPack, _) => 2 * changed,
        (SchedulingPolicy::PriorityRoundRobin, _) => candidates,
        (SchedulingPolicy::Cost, PolicyWeights::Public(_)) => 2 * candidates,
        // Two products of a class and a weight, 2 each.
        (SchedulingPolicy::Cost, PolicyWeights::Encrypted(_)) => 6 * candidates,
    }
}

fn matches(rules: &JobRules, step: &Step, candidates: u64) -> u64 {
    let low = matches!(rules.policy, SchedulingPolicy::Spread | SchedulingPolicy::BinPack);
    let level = u64::from(step.leveled);
    let digits = 1 + u64::from(low);
    let (compared, chosen) = (digits + level, 2 * digits + level);
    let Some(before_last) = (candidates - 1).checked_sub(1) else { return 0 };
    let chosen_last = if rules.dominant_is_checked_last(step.leveled) { chosen } else { 1 };
    before_last * (compared + chosen) + compared + chosen_last
}
