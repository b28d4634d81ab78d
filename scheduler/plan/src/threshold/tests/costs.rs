//! What questions take.

use super::*;

const TWO: [u8; 4] = [23, 37, 0, 0];
const FOUR: [u8; 4] = [23, 37, 5, 1];

fn look_ups(workers: usize, wanted: Wanted) -> Cost {
    let (plan, _) = of(workers, &[wanted], Some(Weights::default()));
    choice::cost(&plan, Course::new(&plan).stage().unwrap().question)
}

/// The model's counts, but for one look-up for each opening after the first, which it makes twice.
#[test]
fn look_ups_by_candidates_and_resources() {
    for (workers, two, four) in
        [(8, 36, 52), (15, 62, 92), (30, 0, 0), (64, 209, 337), (256, 0, 0), (1024, 2705, 4753)]
    {
        for (request, most, expected) in [
            (
                TWO,
                if workers < 64 {
                    4.5
                } else if workers < 1024 {
                    3.3
                } else {
                    2.8
                },
                two,
            ),
            (
                FOUR,
                if workers < 64 {
                    6.5
                } else if workers < 1024 {
                    5.3
                } else {
                    4.8
                },
                four,
            ),
        ] {
            let cost = look_ups(workers, Wanted::new(request, 1, SchedulingPolicy::Spread));
            let each = cost.look_ups() as f64 / workers as f64;
            println!(
                "{workers}: {} = {each:.2}, {} in a row, variance up to {}",
                cost.look_ups(),
                cost.depth(),
                cost.largest_variance()
            );
            assert!(each <= most, "{workers}: {each}");
            if workers == 15 {
                assert!(each <= if request == TWO { 4.2 } else { 6.2 });
            }
            if expected > 0 {
                assert_eq!(cost.look_ups(), expected, "{workers} {request:?}");
            }
            assert!(cost.largest_variance() <= 15);
        }
    }
}

/// Another policy, encrypted requests, one candidate.
#[test]
fn look_ups_of_other_questions() {
    for (policy, encrypted, most) in [
        (SchedulingPolicy::BinPack, false, 7.2),
        (SchedulingPolicy::PriorityRoundRobin, false, 6.2),
        (SchedulingPolicy::Cost, false, 8.6),
        (SchedulingPolicy::Spread, true, 12.2),
    ] {
        let wanted = Wanted { encrypted, ..Wanted::new(FOUR, 1, policy) };
        let each = look_ups(15, wanted).look_ups() as f64 / 15.0;
        println!("{policy:?} {encrypted}: {each:.2}");
        assert!(each <= most, "{policy:?} {encrypted}: {each}");
    }
    assert_eq!(look_ups(1, Wanted::new(TWO, 1, SchedulingPolicy::Spread)).look_ups(), 1);
}

/// In a batch each question takes what the first one takes, and one more for each worker whose level is lowered.
#[test]
fn a_batch_costs_no_more_than_its_questions() {
    let reading = Reading {
        free: Quantities::from_array([191, 191, 191, 191]).unwrap(),
        share: Share::new(7).unwrap(),
        ..Reading::default()
    };
    let wanted = vec![Wanted::new([6, 9, 3, 1], 1, SchedulingPolicy::Spread); 10];
    let (plan, secrets) = of(64, &wanted, Some(Weights::default()));
    let (_, cost) = run(&plan, &vec![reading; 64], &secrets);
    let first = choice::cost(&plan, Course::new(&plan).stage().unwrap().question);
    let most = 10 * first.look_ups() + (0..10).sum::<u64>();
    assert!(cost.look_ups() <= most, "{} {}", cost.look_ups(), first.look_ups());
    assert!(cost.largest_variance() <= 15, "{}", cost.largest_variance());
}
