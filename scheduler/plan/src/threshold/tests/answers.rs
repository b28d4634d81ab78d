//! Known answers of an independent model, made with Python.

use super::*;
use crate::threshold::question::{Candidate, Question};

/// One instance a line: what is asked for; what is free of CPU, memory, disk and GPUs and the share digit of each
/// worker; who wins, the first of equals in the order of the workers, or -1.
const ANSWERS: &str = include_str!("answers.txt");

#[test]
fn the_circuit_gives_the_models_answers() {
    let mut instances = 0;
    for line in ANSWERS.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(';').collect();
        let [request, workers, winner] = parts.as_slice() else { panic!("{line}") };
        let numbers = |text: &str| -> Vec<u8> {
            text.split_whitespace().map(|number| number.parse().unwrap()).collect()
        };
        let request: [u8; 4] = numbers(request).try_into().unwrap();
        let readings: Vec<_> = numbers(workers)
            .chunks(5)
            .map(|worker| Reading {
                free: Quantities::from_array(worker[..4].try_into().unwrap()).unwrap(),
                share: Share::new(worker[4].min(7)).unwrap(),
                ..Reading::default()
            })
            .collect();
        let expected = usize::try_from(winner.trim().parse::<i64>().unwrap()).ok();
        let wanted = [Wanted::new(request, 1, SchedulingPolicy::Spread)];
        let (plan, _) = of(readings.len(), &wanted, Some(Weights::default()));
        let candidates = (0..readings.len())
            .map(|worker| Candidate { worker, least: request, lowered: 0 })
            .collect();
        let question = Question { step: 0, candidates };
        let circuit = Circuit::in_clear();
        let workers: Vec<_> = readings.iter().map(|r| Reported::in_clear(&circuit, r)).collect();
        let confidential = Confidential { requests: Default::default(), weights: None };
        let (mut held, mut path) = (None, Vec::new());
        let found = loop {
            let digit = choice::evaluate(
                &plan,
                &question,
                &path,
                &workers,
                &confidential,
                &mut held,
                &circuit,
            );
            let members = question.members(&path);
            let Some(member) = crate::threshold::first::member(members.len(), digit.steps() as u8)
            else {
                break None;
            };
            path.push(member);
            if path.len() == question.openings() {
                break Some(members.start + member);
            }
        };
        assert_eq!(found, expected, "{line}");
        instances += 1;
    }
    assert!(instances > 40, "{instances}");
}
