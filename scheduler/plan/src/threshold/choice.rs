//! The answer to a question, on digits.

use rayon::prelude::*;

use crate::{
    circuit::{
        digit::{Digit, Value, sum},
        in_clear::Clear,
        lookup::Circuit,
        table::Table,
        worker::Confidential,
    },
    cost::Cost,
    plan::Plan,
};
use veil_protocol_spec::scheduling::Reading;

use super::{
    first::first,
    fit::{level, unfit, unfit_scale},
    question::{Candidate, GROUP, Question, levels},
    reported::Reported,
};

/// A candidate or a group.
#[derive(Clone)]
struct Node<V> {
    /// Its best level, 0 or less if it has none.
    level: Digit<V>,
    /// Whether a level is reached, by level from 1; absent where it cannot be.
    reached: Vec<Option<Digit<V>>>,
}

/// What is kept between the openings of one question; it can be computed again.
pub struct Held<V: Value> {
    question: Question,
    /// The candidates, and the groups by layer above them.
    layers: Vec<Vec<Node<V>>>,
}

/// The digit that names, among the members of the node that `path` leads to, the first that has the best level;
/// 0 for none. `workers` is by position in the manifest's telemetry.
///
/// # Panics
/// If what a question asks for is not in `workers` or `confidential`: the caller expands
/// [what the plan uses](Plan::used).
pub fn evaluate<V: Value>(
    plan: &Plan,
    question: &Question,
    path: &[usize],
    workers: &[Reported<V>],
    confidential: &Confidential<V>,
    held: &mut Option<Held<V>>,
    circuit: &Circuit<'_, V>,
) -> Digit<V> {
    let answer = match question.candidates() {
        [only] => alone(circuit, plan, question, only, &workers[only.worker], confidential),
        _ => {
            if held.as_ref().is_none_or(|held| held.question != *question) {
                *held = Some(Held::new(circuit, plan, question, workers, confidential));
            }
            let held = held.as_ref().unwrap_or_else(|| unreachable!("it was just made"));
            held.first(circuit, path)
        }
    };
    circuit.output(&answer);
    answer
}

/// 1 if the only candidate fits.
fn alone<V: Value>(
    circuit: &Circuit<'_, V>,
    plan: &Plan,
    question: &Question,
    only: &Candidate,
    reported: &Reported<V>,
    confidential: &Confidential<V>,
) -> Digit<V> {
    let step = &plan.steps[question.step];
    let request = confidential.requests.get(&step.job);
    let unfit = unfit(circuit, plan.rules(step), request, only, reported, 1);
    unfit.unwrap_or_else(|| unreachable!("every job asks for CPU")).subtracted_from(1)
}

impl<V: Value> Held<V> {
    fn new(
        circuit: &Circuit<'_, V>,
        plan: &Plan,
        question: &Question,
        workers: &[Reported<V>],
        confidential: &Confidential<V>,
    ) -> Self {
        let step = &plan.steps[question.step];
        let rules = plan.rules(step);
        let request = confidential.requests.get(&step.job);
        let (scale, levels) = (unfit_scale(rules.policy), levels(rules.policy));
        let candidate = |candidate: &Candidate| {
            let reported = &workers[candidate.worker];
            let unfit = unfit(circuit, rules, request, candidate, reported, scale);
            let level = level(circuit, plan, rules, confidential, unfit.as_ref(), reported);
            lowered(circuit, level, levels, candidate.lowered)
        };
        let mut layers = vec![question.candidates().par_iter().map(candidate).collect::<Vec<_>>()];
        while let Some(below) = layers.last().filter(|below| below.len() > 1) {
            let above = below.par_chunks(GROUP).map(|members| group(circuit, members)).collect();
            layers.push(above);
        }
        Self { question: question.clone(), layers }
    }

    fn first(&self, circuit: &Circuit<'_, V>, path: &[usize]) -> Digit<V> {
        let layer = self.layers.len() - 1 - path.len();
        let node = path.iter().fold(0, |node, member| node * GROUP + member);
        let (node, below) = (&self.layers[layer][node], &self.layers[layer - 1]);
        // Level 0 is for those that do not fit: nobody is at 1 or above then.
        let best = circuit.look_up(&node.level, &Table::new(|x| x.max(1)));
        let members = below[self.question.members(path)].iter().map(|member| member.level.clone());
        first(circuit, &members.collect::<Vec<_>>(), &best)
    }
}

/// A candidate whose level is lowered by so many, but not below 1.
fn lowered<V: Value>(
    circuit: &Circuit<'_, V>,
    level: Digit<V>,
    levels: i64,
    lowered: u8,
) -> Node<V> {
    let less = i64::from(lowered);
    let above = |k: i64| if k == 1 { 1 } else { k + less };
    let (rotated, level) = rayon::join(
        || circuit.rotate(&level, 1),
        || {
            if less == 0 {
                return level.clone();
            }
            let lowered = |x: i64| (x, if x > 0 { (x - less).max(1) } else { 0 });
            circuit.look_up(&level, &Table::of_points((1 - levels..=levels).map(lowered)))
        },
    );
    let reached = |k: i64| (above(k) <= levels).then(|| rotated.at_least(above(k)));
    Node { level, reached: (1..=levels).map(reached).collect() }
}

/// Up to 15 nodes together. What is added up here comes from one rotation of each, or from look-ups of its own:
/// comparisons from one rotation do not add up as if their noise were independent.
fn group<V: Value>(circuit: &Circuit<'_, V>, members: &[Node<V>]) -> Node<V> {
    if let [only] = members {
        return only.clone();
    }
    let levels = members.first().map_or(0, |member| member.reached.len());
    let reached: Vec<_> = (0..levels)
        .into_par_iter()
        .map(|k| {
            let flags = members.iter().filter_map(|member| member.reached[k].as_ref());
            sum(flags).map(|flags| circuit.any(&flags, 1))
        })
        .collect();
    let level = sum(reached.iter().flatten());
    let level = level.unwrap_or_else(|| unreachable!("level 1 can be reached"));
    Node { level, reached }
}

/// The look-ups of a question if the winner is in the first, and so the largest, of all groups.
#[must_use]
pub fn cost(plan: &Plan, question: &Question) -> Cost {
    let expansion = Circuit::in_clear();
    let blank = Reported::in_clear(&expansion, &Reading::default());
    let workers = vec![blank; plan.workers];
    let circuit = Circuit::in_clear();
    let confidential = Confidential::<Clear>::blank(plan);
    let mut held = None;
    let path = vec![0; question.openings()];
    for opened in 0..path.len() {
        let path = &path[..opened];
        let _ = evaluate(plan, question, path, &workers, &confidential, &mut held, &circuit);
    }
    circuit.cost()
}
