//! The twin against every order of what it could have done: no placement that it makes can be improved by a
//! rule, and none that it does not make was possible.

use std::collections::BTreeMap;

use super::*;
use crate::rules::Need;

/// Replays an outcome replica by replica, and compares each with all candidates by the rules alone.
fn check(plan: &Plan, readings: &[Reading], outcome: &[Option<usize>]) {
    let mut promised = vec![[0u16; 4]; readings.len()];
    let mut given = vec![0i64; readings.len()];
    let mut of_job: BTreeMap<Blake3Digest, Vec<usize>> = BTreeMap::new();
    for step in &plan.steps {
        let rules = plan.rules(step);
        let Need::Clear(need) = rules.need else { unreachable!("requests are in clear here") };
        let earlier = of_job.entry(step.job).or_default();
        let beside = |worker: usize| {
            earlier.iter().filter(|w| rules.domains[**w] == rules.domains[worker]).count()
        };
        let possible = |worker: usize| {
            let free = readings[worker].free.to_array();
            let enough = (0..4).all(|r| {
                need[r] == 0 || u16::from(free[r]) >= u16::from(need[r]) + promised[worker][r]
            });
            enough && !(rules.hard && beside(worker) > 0)
        };
        // Higher is better; the place in the order decides among equals.
        let rank = |place: usize| {
            let worker = step.candidates[place];
            let share = i64::from(readings[worker].share.get());
            let score = match rules.policy {
                SchedulingPolicy::Spread => (share - given[worker]).max(0),
                SchedulingPolicy::BinPack => {
                    let units = i64::from(readings[worker].free.to_array()[rules.dominant]);
                    -((units / 16) * 2 / 3)
                }
                SchedulingPolicy::PriorityRoundRobin => readings[worker].priority.get().into(),
                SchedulingPolicy::Cost => 0,
            };
            let few = if rules.soft { -(beside(worker).min(5) as i64) } else { 0 };
            (few, score, -(place as i64))
        };
        let places = (0..step.candidates.len()).filter(|p| possible(step.candidates[*p]));
        let best = places.max_by_key(|place| rank(*place)).map(|place| step.candidates[place]);
        assert_eq!(outcome[step.position], best);
        if let Some(winner) = best {
            given[winner] += 1;
            for r in 0..4 {
                promised[winner][r] += u16::from(need[r]);
            }
            earlier.push(winner);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..Default::default() })]

    #[test]
    fn the_twin_does_what_the_rules_say(
        readings in prop::collection::vec(any_reading(), 1..20),
        wanted in prop::collection::vec(any_wanted(), 1..4),
    ) {
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|wanted| Wanted { encrypted: false, max_latency: None, previous: false, ..wanted })
            .collect();
        // Every cost is 0.
        let weights = Weights { price: Weight::new(0).unwrap(), latency: Weight::new(0).unwrap() };
        let (plan, secrets) = of(readings.len(), &wanted, Some(weights));
        check(&plan, &readings, &twin::place(&plan, &readings, &secrets));
    }
}
