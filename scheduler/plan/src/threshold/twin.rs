//! The cleartext twin: the decisions of a [`Course`](super::course::Course), written as one would write them
//! without encryption.

use veil_protocol_spec::scheduling::{PolicyWeights, Reading, SchedulingPolicy};

use super::question::score;
use crate::{
    cleartext::Secrets,
    plan::Plan,
    rules::{Need, RESOURCES},
};

/// The worker, as position in the manifest's telemetry, for every pending replica of the manifest, in its
/// order; `None` for pending. `readings` is by position in the manifest's telemetry; a worker that is
/// missing there has nothing free.
#[must_use]
pub fn place(plan: &Plan, readings: &[Reading], secrets: &Secrets) -> Vec<Option<usize>> {
    let mut readings = readings.to_vec();
    readings.resize(plan.workers, Reading::default());
    let weights = match plan.policy.weights {
        PolicyWeights::Public(weights) => weights,
        PolicyWeights::Encrypted(_) => secrets.weights,
    };
    // What is left, how many replicas of this slot it got, and whether one of them has an encrypted request.
    let mut workers: Vec<([i16; RESOURCES], i64, bool)> =
        readings.iter().map(|reading| (reading.free.to_array().map(i16::from), 0, false)).collect();
    let mut outcome = vec![None; plan.replicas];
    let mut placed: Vec<u16> = Vec::new();
    for step in &plan.steps {
        let rules = plan.rules(step);
        if step.first_of_job {
            placed = vec![0; rules.running.len()];
        }
        let (need, encrypted) = match rules.need {
            Need::Clear(need) => (need, false),
            Need::Encrypted => {
                (secrets.requests.get(&step.job).copied().unwrap_or_default().to_array(), true)
            }
        };
        let need = need.map(i16::from);
        let best = step
            .candidates
            .iter()
            .copied()
            .filter(|worker| {
                let (left, got, unknown) = workers[*worker];
                let late = rules.max_latency.is_some_and(|max| readings[*worker].latency > max);
                let apart = !(rules.hard && placed[rules.domains[*worker]] > 0);
                let known = !(unknown || encrypted && got > 0);
                left.iter().zip(need).all(|(left, need)| need == 0 || *left >= need)
                    && known
                    && apart
                    && !late
            })
            .rev() // max_by_key takes the last of equals: make that the first in order
            .max_by_key(|worker| {
                let level = rules.level(*worker, step.previous, placed[rules.domains[*worker]]);
                let score = score(rules.policy, &weights, rules.dominant, &readings[*worker]);
                let lowered = match rules.policy {
                    SchedulingPolicy::Spread => (score - workers[*worker].1).max(0),
                    _ => score,
                };
                (level, lowered)
            });
        if let Some(worker) = best {
            placed[rules.domains[worker]] += 1;
            let (left, got, unknown) = &mut workers[worker];
            *got += 1;
            *unknown |= encrypted;
            left.iter_mut().zip(need).for_each(|(left, need)| *left -= need);
        }
        outcome[step.position] = best;
    }
    outcome
}
