//! Sealed parts in the simulated world: an operator, t members and t workers that deviate together harm nobody but that
//! operator, and what nobody can open is pending after t+1 workers.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha20Rng;
use veil_committee_world::When;
use veil_protocol_spec::ParticipantIndex;
use veil_tests::{
    malicious::{wrong_deal::WrongDeal, wrong_release::WrongRelease},
    plan::member,
    sealed::SealedPlan,
};

fn members(indices: impl IntoIterator<Item = u8>) -> BTreeSet<ParticipantIndex> {
    indices.into_iter().map(member).collect()
}

const fn t(n: u8) -> u8 {
    (n - 1) / 3
}

#[test]
fn what_an_honest_operator_seals_opens_whatever_t_members_do() {
    for n in [4, 7] {
        for (seed, how) in (0..).zip(WrongRelease::ALL) {
            let plan = (1..=t(n)).fold(SealedPlan::new(n), |plan, j| plan.behaves(j, how));
            let report = plan.run(seed);
            report.assert_holds();
            assert_eq!((report.places().len(), report.closed), (2, None));
            assert_eq!(report.state.returned().count(), 0, "nobody gives it back");
            let times = report.deviations.get(&how).copied().unwrap_or_default();
            assert!(times >= usize::from(t(n)), "{how:?} deviated {times} times");
            let named = matches!(how, WrongRelease::Noise | WrongRelease::OffPolynomial);
            assert!(named || report.culprits.is_empty(), "{how:?}: {:?}", report.culprits);
            assert_eq!(report.log.trace(), plan.run(seed).log.trace(), "the same run again");
        }
    }
}

/// Members that were away when it was sealed, in place of those that deviate: 2t+1 shares, of which t+1 are needed.
#[test]
fn a_part_that_was_sealed_without_t_members_opens() {
    let plan = SealedPlan::new(7).without_share(6).without_share(7);
    let report = plan.clone().behaves(1, WrongRelease::SaysDealtWrongly).run(1);
    report.assert_holds();
    // They answer that they have no share, and two lie: that is no word of t+1.
    let lie = |plan: SealedPlan, j| plan.behaves(j, WrongRelease::SaysDealtWrongly);
    let report = [1, 2].into_iter().fold(plan, lie).run(2);
    report.assert_holds();
    assert_eq!((report.closed, report.reported), (None, BTreeSet::new()));
}

#[test]
fn lying_workers_that_are_t_make_no_honest_job_pending() {
    for (n, seed) in [(4, 1), (4, 2), (7, 3), (7, 4)] {
        let plan = (1..=t(n)).fold(SealedPlan::new(n), |plan, k| {
            plan.lies(k).behaves(k + 1, WrongRelease::SaysDealtWrongly)
        });
        let report = plan.run(seed);
        report.assert_holds();
        assert!(report.places().iter().all(|place| *place > t(n)), "{:?}", report.places());
    }
}

#[test]
fn a_wrong_deal_to_t_members_opens_and_one_to_more_is_pending_after_t_plus_1_workers() {
    for n in [4, 7] {
        for wrong in [WrongDeal::OffPolynomial, WrongDeal::Garbage] {
            let report = SealedPlan::new(n).deals(wrong(members(1..=t(n)))).run(5);
            report.assert_holds();
            assert_eq!((report.places().len(), report.closed), (2, None));
            // All but one: that one lists the job.
            let report = SealedPlan::new(n).deals(wrong(members(2..=n))).run(6);
            report.assert_holds();
            assert!(report.closed.is_some() && report.places().is_empty());
            // Two replicas may have been placed at once.
            assert!((t(n) + 1..=t(n) + 2).contains(&(report.reported.len() as u8)));
        }
        let report = SealedPlan::new(n).deals(WrongDeal::OtherCiphertext).run(7);
        report.assert_holds();
        assert!(report.closed.is_some() && report.opened.is_empty());
    }
}

/// By how many shares are wrong: up to t harm nobody. With more, a worker may hear of t+1 wrong ones before it has t+1 right
/// ones, and reports it. With fewer than t+1 right ones, whoever has one lists the job until t+1 workers have reported it;
/// without any, nobody does.
#[test]
fn what_comes_of_a_wrong_deal_follows_from_how_many_members_got_it() {
    for n in [4, 7] {
        for k in 0..=n {
            let seed = u64::from(n) << 8 | u64::from(k);
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let wrong = members((1..=n).choose_multiple(&mut rng, k.into()));
            let report = SealedPlan::new(n).deals(WrongDeal::OffPolynomial(wrong)).run(seed);
            report.assert_holds();
            let (opened, closed) = (!report.opened.is_empty(), report.closed.is_some());
            let expected = match k {
                _ if k <= t(n) => (true, false),
                _ if k == n => (false, false),
                _ if n - k <= t(n) => (false, true),
                _ => (opened, closed),
            };
            assert_eq!((opened, closed), expected, "{k} of {n}");
            assert!(opened || closed || k == n, "{k} of {n}");
            assert_eq!(report.placements.is_empty(), k == n, "{k} of {n}");
            assert!(closed || report.places().len() == if k == n { 0 } else { 2 });
            assert!(!closed || report.reported.len() > usize::from(t(n)));
        }
    }
}

/// Nobody lists what was dealt wrongly to everybody.
#[test]
fn a_wrong_deal_to_all_costs_no_slot() {
    let report = SealedPlan::new(4).deals(WrongDeal::Garbage(members(1..=4))).run(8);
    report.assert_holds();
    assert!(report.placements.is_empty() && report.reported.is_empty());
}

/// What the properties look for is found when more deviate than may.
#[test]
fn more_than_t_that_deviate_are_seen() {
    let early = |plan: SealedPlan, j| plan.behaves(j, WrongRelease::Early);
    let report = [1, 2].into_iter().fold(SealedPlan::new(4), early).run(9);
    assert!(report.thief_opened, "t+1 members together open everything");
    assert!(!report.violations().is_empty());
    let liars = (1..=6).fold(SealedPlan::new(4), SealedPlan::lies);
    let report = liars.run(10);
    assert!(report.closed.is_some());
    assert!(report.violations().iter().any(|what| what.contains("honest operator")));
    let lie = |plan: SealedPlan, j| plan.behaves(j, WrongRelease::SaysDealtWrongly);
    let report = [1, 2, 3].into_iter().fold(SealedPlan::new(4), lie).run(11);
    assert!(report.closed.is_some() && !report.violations().is_empty());
}

/// Any of it at once.
fn drawn(seed: u64) -> SealedPlan {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let n = *[4, 7].iter().choose(&mut rng).unwrap();
    let most = t(n);
    let mut plan = SealedPlan::new(n);
    plan.scenario.workers = rng.gen_range(most + 4..=10);
    plan.scenario.replicas = rng.gen_range(1..=3);
    let deviate = rng.gen_range(0..=most);
    for j in (1..=n).choose_multiple(&mut rng, deviate.into()) {
        plan = if rng.gen_ratio(1, 6) {
            plan.absent(j)
        } else {
            plan.behaves(j, *WrongRelease::ALL.iter().choose(&mut rng).unwrap())
        };
    }
    for worker in (1..=plan.scenario.workers).choose_multiple(&mut rng, most.into()) {
        plan = if rng.gen_ratio(1, 2) { plan.lies(worker) } else { plan };
    }
    if rng.gen_ratio(1, 4) {
        plan = plan.without_share(rng.gen_range(1..=n));
    }
    for _ in 0..rng.gen_range(0..3) {
        let (at, away): (u64, u64) = (rng.gen_range(0..300_000), rng.gen_range(1_000..30_000));
        plan = plan.crash(rng.gen_range(1..=n), When::Time(at), away);
    }
    let wrong = (1..=n).filter(|_| rng.gen_ratio(1, 2)).collect::<Vec<_>>();
    match rng.gen_range(0..8) {
        0 | 1 => plan.deals(WrongDeal::OffPolynomial(members(wrong))),
        2 => plan.deals(WrongDeal::Garbage(members(wrong))),
        3 => plan.deals(WrongDeal::OtherCiphertext),
        _ => plan,
    }
}

#[test]
fn whatever_operator_members_and_workers_do_together() {
    let (mut closed, mut open, mut named) = (0, 0, 0);
    let mut deviations = BTreeMap::<_, usize>::new();
    for seed in 0..96 {
        let report = drawn(seed).run(seed);
        report.assert_holds();
        closed += usize::from(report.closed.is_some());
        open += usize::from(!report.opened.is_empty());
        named += usize::from(!report.culprits.is_empty());
        for how in report.deviations.keys() {
            *deviations.entry(*how).or_default() += 1;
        }
    }
    assert!(closed > 5 && open > 40 && named > 5, "{closed} {open} {named}");
    for how in WrongRelease::ALL {
        let runs = deviations.get(&how).copied().unwrap_or_default();
        assert!(runs >= 3, "{how:?} came to pass in {runs} runs: {deviations:?}");
    }
}
