//! What slots cost, and how likely one fails.

use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::scheduling::*;
use veil_scheduler_plan::cost::Cost;

use super::slots::{Wanted, slot};

const FOUR: [u8; 4] = [5, 0x12, 3, 1];

fn cost(workers: usize, jobs: u16, wanted: &Wanted) -> Cost {
    let wanted = vec![wanted.clone(); jobs.into()];
    slot(workers, &wanted, &[], Some(Weights::default())).0.cost()
}

/// What the documentation promises, and that nothing gets dearer unnoticed.
#[test]
fn look_ups_per_worker_and_job() {
    let per_worker = |workers: usize, jobs: u16, wanted: &Wanted| {
        let cost = cost(workers, jobs, wanted);
        cost.look_ups() as f64 / (workers * usize::from(jobs)) as f64
    };
    for (policy, encrypted, one, four) in [
        (SchedulingPolicy::Spread, false, 14.5, 20.0),
        (SchedulingPolicy::BinPack, false, 17.5, 22.5),
        (SchedulingPolicy::Spread, true, 14.5, 29.0),
        (SchedulingPolicy::BinPack, true, 17.5, 31.5),
    ] {
        let wanted = Wanted { encrypted, ..Wanted::new(FOUR, 1, policy) };
        for workers in [16, 64, 256] {
            let (single, batch) =
                (per_worker(workers, 1, &wanted), per_worker(workers, 4, &wanted));
            println!("{policy:?} encrypted {encrypted} N={workers}: {single:.2} and {batch:.2}");
            assert!(single <= one && batch <= four, "{policy:?} {workers}: {single} {batch}");
        }
    }
}

#[test]
fn the_overhead_is_small() {
    let figures = |workers, jobs: u16, wanted: &Wanted| {
        let wanted = vec![wanted.clone(); jobs.into()];
        let (plan, _) = slot(workers, &wanted, &[], Some(Weights::default()));
        (plan.without_overhead(), plan.cost().look_ups())
    };
    // 6 to fit, 1 to mask, 6 a match, 2/3 down; bin_pack 2 more to fit, 3 less in the last match.
    let spread = Wanted::new(FOUR, 1, SchedulingPolicy::Spread);
    assert_eq!(figures(16, 1, &spread).0, 16 * 7 + 15 * 6 + 10);
    let bin_pack = Wanted::new(FOUR, 1, SchedulingPolicy::BinPack);
    assert_eq!(figures(16, 1, &bin_pack).0, 16 * 9 + 15 * 6 - 3 + 10);
    for policy in [
        SchedulingPolicy::Spread,
        SchedulingPolicy::BinPack,
        SchedulingPolicy::PriorityRoundRobin,
        SchedulingPolicy::Cost,
    ] {
        for (encrypted, apart, jobs, replicas) in [
            (false, None, 1, 1),
            (false, None, 4, 1),
            (true, None, 4, 1),
            (false, Some((Strength::Soft, false)), 2, 3),
            (false, Some((Strength::Hard, true)), 2, 3),
        ] {
            let wanted = Wanted { encrypted, apart, ..Wanted::new(FOUR, replicas, policy) };
            for workers in [1, 2, 16, 64] {
                let (bound, cost) = figures(workers, jobs, &wanted);
                println!(
                    "{policy:?} {encrypted} {apart:?} {jobs}x{replicas} N={workers}: {cost} / {bound}"
                );
                assert!(bound <= cost, "{cost} below what it takes without overhead, {bound}");
                // One worker has no match, and of little that is done much is not in the bound.
                assert!(workers < 16 || cost as f64 <= 1.3 * bound as f64, "{cost} over {bound}");
            }
        }
    }
}

/// Four jobs on the largest cluster: the union over all look-ups of the slot.
#[test]
fn the_failure_probability_of_a_slot_is_stated() {
    let wanted = Wanted::new(FOUR, 1, SchedulingPolicy::BinPack);
    let cost = cost(1024, 4, &wanted);
    assert!(cost.largest_variance() <= 25);
    for (members, bound) in [(1, -122.0), (4, -120.0), (7, -114.0), (10, -122.0), (13, -112.5)] {
        let committee = veil_protocol_spec::Committee::new(members).unwrap();
        let parameters = ParameterSet::production(committee);
        let one = parameters.log2_p_fail_at(cost.largest_variance().into());
        let slot = cost.log2_failure(|v| parameters.log2_p_fail_at(v));
        println!("n={members}: 2^{one:.1} for the worst look-up, 2^{slot:.1} for the slot");
        assert!(one <= -128.0, "n={members}: {one}");
        assert!(slot <= bound, "n={members}: {slot}");
    }
}

#[test]
fn depth_is_logarithmic() {
    let depth =
        |workers| cost(workers, 1, &Wanted::new(FOUR, 1, SchedulingPolicy::BinPack)).depth();
    let depths: Vec<_> = (4..=10).map(|log2| depth(1 << log2)).collect();
    println!("{depths:?}");
    // Three for the way up, one for two rounds down, and now and then a refresh.
    assert!(depths.windows(2).all(|pair| pair[1] <= pair[0] + 6), "{depths:?}");
}
