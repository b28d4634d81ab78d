//! The cleartext twin: the decision of the circuit, written as one would write it without
//! encryption. Tests hold the two against each other; simulators use the twin where readings are
//! known.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{PolicyWeights, Quantities, Quantity, Reading, SchedulingPolicy, Weights},
};

use crate::{
    plan::Plan,
    rules::{Need, RESOURCES, largest},
};

/// What the circuit gets encrypted besides readings.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Requests of the jobs that encrypt them; one that is missing asks for nothing.
    pub requests: BTreeMap<Blake3Digest, Quantities>,
    /// The policy's weights, if it encrypts them.
    pub weights: Weights,
}

/// The worker, as position in the manifest's telemetry, for every pending replica of the manifest,
/// in its order; `None` for pending. `readings` is by position in the manifest's telemetry; a
/// worker that is missing there has nothing free.
#[must_use]
pub fn place(plan: &Plan, readings: &[Reading], secrets: &Secrets) -> Vec<Option<usize>> {
    let mut readings = readings.to_vec();
    readings.resize(plan.workers, Reading::default());
    let mut free: Vec<_> = readings.iter().map(|reading| reading.free.to_array()).collect();
    let weights = match plan.policy.weights {
        PolicyWeights::Public(weights) => weights,
        PolicyWeights::Encrypted(_) => secrets.weights,
    };
    let mut outcome = vec![None; plan.replicas];
    // Replicas of the current job placed in this slot, by failure domain.
    let mut placed: Vec<u16> = Vec::new();
    for step in &plan.steps {
        let rules = plan.rules(step);
        if step.first_of_job {
            placed = vec![0; rules.running.len()];
        }
        let request = match rules.need {
            Need::Clear(request) => request,
            Need::Encrypted => {
                secrets.requests.get(&step.job).copied().unwrap_or_default().to_array()
            }
        };
        let best = step
            .candidates
            .iter()
            .copied()
            .filter(|worker| {
                let late = rules.max_latency.is_some_and(|max| readings[*worker].latency > max);
                let apart = !(rules.hard && placed[rules.domains[*worker]] > 0);
                fits(&free[*worker], &request) && apart && !late
            })
            .rev() // max_by_key takes the last of equals: make that the first in order
            .max_by_key(|worker| {
                let count = placed[rules.domains[*worker]];
                let level = rules.level(*worker, step.previous, count);
                let units = free[*worker][rules.dominant];
                (level, score(rules.policy, &weights, units, &readings[*worker]))
            });
        if let Some(worker) = best {
            placed[rules.domains[worker]] += 1;
            for (free, need) in free[worker].iter_mut().zip(request) {
                *free -= need;
            }
        }
        outcome[step.position] = best;
    }
    outcome
}

/// Where one replica without constraints goes, the first of equals winning: what [`place`] does for
/// a cluster of its own, for simulators that place one by one.
#[must_use]
pub fn choose(
    policy: SchedulingPolicy,
    weights: &Weights,
    request: &Quantities,
    readings: &[Reading],
) -> Option<usize> {
    let request = request.to_array();
    let dominant = largest(request);
    readings
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, reading)| fits(&reading.free.to_array(), &request))
        .max_by_key(|(_, reading)| {
            score(policy, weights, reading.free.to_array()[dominant], reading)
        })
        .map(|(worker, _)| worker)
}

/// The position of the highest bid, the first of equals: what the scheduler's auction decides.
/// `None` without bids.
#[must_use]
pub fn best_bid(bids: &[u16]) -> Option<usize> {
    // max_by_key takes the last of equals: make that the first in order.
    bids.iter().enumerate().rev().max_by_key(|(_, bid)| **bid).map(|(position, _)| position)
}

fn fits(free: &[u8; RESOURCES], request: &[u8; RESOURCES]) -> bool {
    free.iter().zip(request).all(|(free, need)| free >= need)
}

/// Rule 4.2 of [`Plan`]: higher is better.
fn score(policy: SchedulingPolicy, weights: &Weights, units: u8, reading: &Reading) -> u8 {
    match policy {
        SchedulingPolicy::Spread => units,
        SchedulingPolicy::BinPack => Quantity::MAX - units,
        SchedulingPolicy::PriorityRoundRobin => reading.priority.get(),
        SchedulingPolicy::Cost => {
            let price = weights.price.get() * reading.price.get();
            let latency = weights.latency.get() * reading.latency.get();
            11 - (price + latency).min(11)
        }
    }
}
