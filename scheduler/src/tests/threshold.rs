//! The bits of the threshold circuit pinned, and how likely it fails.

use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::scheduling::{
    Quantities, Reading, SchedulingPolicy, Share, Strength, Weights,
};
use veil_scheduler_plan::{
    circuit::{lookup::Circuit, worker::Confidential},
    threshold::{choice, course::Course},
};

use super::slots::{Wanted, slot};
use crate::{outputs::Outputs, threshold::EncryptedReport};

/// 17 workers, so that there are two groups, by the first member of each group that is asked about.
#[test]
fn the_bits_of_an_answer_are_pinned() {
    let (_, key) = super::keys();
    let workers: Vec<_> = (0..17u8)
        .map(|number| {
            let free = Quantities::from_array([9 + number, 30 - number, 3, 1]).unwrap();
            let share = Share::new(number % 8).unwrap();
            let reading = Reading { free, share, ..Reading::default() };
            let list = key
                .public_key()
                .encrypt_iter_with_modulus_seeded(
                    crate::lists::messages_of(&reading).into_iter(),
                    1 << 4,
                    &[number; 16],
                )
                .unwrap();
            let used = veil_scheduler_plan::plan::Used {
                resources: [true, true, true, false],
                classes: false,
                priority: false,
            };
            EncryptedReport::expand(list, &key).unwrap().for_slot(&used, &key).unwrap()
        })
        .collect();
    let wanted = [
        Wanted::new([12, 16, 2, 0], 1, SchedulingPolicy::Spread),
        Wanted {
            apart: Some((Strength::Hard, true)),
            ..Wanted::new([9, 3, 1, 0], 1, SchedulingPolicy::BinPack)
        },
    ];
    let (plan, _) = slot(17, &wanted, &[], Some(Weights::default()));
    let confidential = Confidential { requests: Default::default(), weights: None };
    let circuit = Circuit::new(&key);
    let mut course = Course::new(&plan);
    let (mut held, mut digits) = (None, Vec::new());
    while let Some(stage) = course.stage() {
        let (question, path) = (stage.question, stage.path);
        digits.push(choice::evaluate(
            &plan,
            question,
            path,
            &workers,
            &confidential,
            &mut held,
            &circuit,
        ));
        course.opened(1).unwrap();
    }
    assert_eq!(digits.len(), 4, "two replicas, two openings each");
    let outputs = Outputs::new(key.id(), digits, circuit.cost());
    // Another digest is another circuit: raise `THRESHOLD_CIRCUIT_VERSION` with it.
    let digest = outputs.digest_under(&veil_protocol_spec::Blake3Digest([0; 32]));
    assert_eq!(digest.to_string(), PINNED);
}

const PINNED: &str = "122de4d1499d54443215c8e1f6dd7067e5371a1fc33d2063dbbffba8edc0c344";

/// A hundred jobs on the largest cluster, all of it as candidates: the union over all look-ups of the slot.
#[test]
fn the_failure_probability_of_a_slot_is_stated() {
    let wanted = Wanted::new([5, 0x12, 3, 1], 1, SchedulingPolicy::Cost);
    let (plan, _) = slot(1024, &[wanted], &[], Some(Weights::default()));
    let question = Course::new(&plan);
    let cost = choice::cost(&plan, question.stage().unwrap().question);
    assert!(cost.largest_variance() <= 15, "{}", cost.largest_variance());
    let jobs = 100f64.log2();
    for (members, bound) in [(1, -119.0), (4, -118.0), (7, -112.0), (10, -121.0), (13, -111.5)] {
        let committee = veil_protocol_spec::Committee::new(members).unwrap();
        let parameters = ParameterSet::production(committee);
        let one = parameters.log2_p_fail_at(cost.largest_variance().into());
        let slot = jobs + cost.log2_failure(|v| parameters.log2_p_fail_at(v));
        println!("n={members}: 2^{one:.1} for the worst look-up, 2^{slot:.1} for the slot");
        assert!(one <= -131.0, "n={members}: {one}");
        assert!(slot <= bound, "n={members}: {slot}");
    }
}
