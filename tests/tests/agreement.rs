//! All honest members lock the same manifest in every slot and end it in one way, whatever the
//! network, t others, and their own crashes do.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_world::{Partition, When};
use veil_protocol_spec::{ParticipantIndex, Slot};
use veil_tests::{
    agreement::{
        AgreementBehaviour::{Equivocate, Ignorant, ProposeInvalid, Strict},
        AgreementPlan, AgreementReport,
    },
    plan::member,
};

#[test]
fn every_committee_agrees_in_the_first_round() {
    for n in [1, 4, 7, 10, 13] {
        let report = AgreementPlan::new(n).slots(3).run(7);
        report.assert_agreed();
        for locks in report.locks.values() {
            assert!(locks.values().all(|(lock, _)| lock.round == 0), "n = {n}");
        }
        assert_eq!(report.fetched.len(), 0);
        assert!(report.abstained.is_empty());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = AgreementPlan::new(4).slots(3).rough(150).crash(2, When::AfterEffects(9), 700);
    assert_eq!(plan.run(3).log.trace(), plan.run(3).log.trace());
    assert_ne!(plan.run(3).log.trace(), plan.run(4).log.trace());
}

#[test]
fn lost_doubled_and_delayed_messages_do_no_harm() {
    for seed in 0..30 {
        let drop = (seed % 4) as u32 * 100;
        let n = if seed % 5 == 0 { 7 } else { 4 };
        let report = AgreementPlan::new(n).slots(4).rough(drop).run(seed);
        report.assert_agreed();
        assert!(report.convicted.is_empty());
    }
}

#[test]
fn t_silent_members_do_not_stop_the_others() {
    for (n, silent) in [(4, &[2][..]), (7, &[1, 4]), (10, &[1, 2, 3]), (13, &[2, 3, 4, 5])] {
        let plan = silent.iter().fold(AgreementPlan::new(n).slots(4), |p, j| p.absent(*j));
        plan.run(5).assert_agreed();
        plan.rough(100).run(6).assert_agreed();
    }
}

#[test]
fn more_than_t_silent_members_lock_nothing() {
    let report = AgreementPlan::new(4).absent(1).absent(2).run(1);
    assert!(report.locks.values().all(|locks| locks.is_empty()));
}

#[test]
fn a_silent_proposers_turn_passes_on() {
    // Member 2 proposes in the first round of slot 1.
    let report = AgreementPlan::new(4).absent(2).run(1);
    report.assert_agreed();
    assert_eq!(report.manifest(1).map(|m| m.proposer), Some(member(3)));
    assert!(report.locks.values().all(|locks| locks[&Slot(1)].0.round == 1));
}

#[test]
fn a_refused_manifest_is_never_locked() {
    for seed in 0..5 {
        let report = AgreementPlan::new(4).slots(6).behaves(2, ProposeInvalid).run(seed);
        report.assert_agreed();
        for slot in 1..=6 {
            assert_ne!(report.manifest(slot).map(|m| m.proposer), Some(member(2)));
        }
    }
}

#[test]
fn members_that_received_something_else_follow_the_quorum() {
    let mut appeals = 0;
    for seed in 0..10 {
        let report = AgreementPlan::new(4).slots(4).behaves(3, Strict).rough(100).run(seed);
        report.assert_agreed();
        appeals += report.appeals;
    }
    assert!(appeals > 0);
}

#[test]
fn an_equivocator_splits_nobody_and_is_convicted() {
    let mut convicted = 0;
    for seed in 0..20 {
        let culprit = 1 + (seed % 4) as u8;
        let plan = AgreementPlan::new(4).slots(5).behaves(culprit, Equivocate);
        let plan = if seed % 2 == 0 { plan } else { plan.rough(100) };
        let report = plan.run(seed);
        report.assert_agreed();
        convicted += usize::from(report.convicted.contains(&member(culprit)));
    }
    assert!(convicted > 10, "{convicted} of 20");
    let plan = AgreementPlan::new(7).slots(5).behaves(2, Equivocate).behaves(5, Equivocate);
    let report = plan.run(1);
    report.assert_agreed();
    assert!(!report.convicted.is_empty());
}

fn groups(groups: &[&[u8]]) -> Vec<Vec<ParticipantIndex>> {
    groups.iter().map(|group| group.iter().map(|j| member(*j)).collect()).collect()
}

#[test]
fn halves_lock_nothing_and_agree_when_they_meet_again() {
    let partition = Partition { groups: groups(&[&[1, 2], &[3, 4]]), from: 0, until: 30_000 };
    for seed in 0..5 {
        let report = AgreementPlan::new(4).slots(2).partition(partition.clone()).run(seed);
        report.assert_agreed();
        assert!(report.times.values().all(|time| *time >= 30_000), "{:?}", report.times);
    }
}

#[test]
fn a_member_that_was_cut_off_gets_the_decision_by_asking() {
    let partition = Partition { groups: groups(&[&[1, 2, 3], &[4]]), from: 0, until: 20_000 };
    let report = AgreementPlan::new(4).partition(partition).run(2);
    report.assert_agreed();
    assert!(report.times[&(member(1), Slot(1))] < 1_000);
    assert!(report.times[&(member(4), Slot(1))] >= 20_000);
    assert!(report.fetched.is_empty());
}

#[test]
fn a_member_that_was_away_for_long_is_told_so() {
    let report = AgreementPlan::new(4).slots(60).crash(4, When::AfterEffects(5), 5_000).run(2);
    report.assert_agreed();
    assert!(!report.fetched[&member(4)].is_empty());
    assert!(report.locks[&member(4)].contains_key(&Slot(60)));
}

#[test]
fn a_crash_at_any_effect_does_no_harm() {
    let smooth = AgreementPlan::new(4).slots(2).run(11);
    for j in 1..=4 {
        for at_effect in 0..=smooth.effects[member(j).position()] {
            for away in [1, 400, 4_000] {
                let plan =
                    AgreementPlan::new(4).slots(2).crash(j, When::AfterEffects(at_effect), away);
                let report = plan.run(11);
                report.assert_agreed();
                assert!(report.abstained.is_empty(), "{:?}", report.abstained);
            }
        }
    }
}

#[test]
fn many_crashes_on_a_bad_network_do_no_harm() {
    for seed in 0..40 {
        let mut plan = AgreementPlan::new(4).slots(3).rough(150);
        for j in 1..=4 {
            for k in 0..4 {
                let at_effect = (seed * 7 + u64::from(j) * 13 + k * 17) % 60;
                plan = plan.crash(
                    j,
                    When::AfterEffects(at_effect),
                    50 + (seed * 131 + k * 997) % 3_000,
                );
            }
        }
        let report = plan.run(seed);
        report.assert_agreed();
        assert!(report.abstained.is_empty(), "{:?}", report.abstained);
    }
}

#[test]
fn everything_at_once() {
    for seed in 0..20 {
        let plan = AgreementPlan::new(7)
            .slots(3)
            .rough(100)
            .absent(1 + (seed % 7) as u8)
            .behaves(1 + ((seed + 3) % 7) as u8, Equivocate)
            .behaves(1 + ((seed + 5) % 7) as u8, Strict)
            .crash(1 + ((seed + 1) % 7) as u8, When::AfterEffects(4 + seed), 1_000)
            .crash(1 + ((seed + 2) % 7) as u8, When::AfterEffects(2 * seed), 3_000);
        plan.run(seed).assert_agreed();
    }
}

#[test]
fn random_misfortunes_do_no_harm() {
    for seed in 0..40 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut any = || 1 + rng.gen_range(0..4u8);
        let (first, second, third, faulty, strict) = (any(), any(), any(), any(), any());
        let from = rng.gen_range(0..3_000);
        let until = 3_000 + rng.gen_range(0..8_000);
        let partition = Partition { groups: groups(&[&[first, second], &[third]]), from, until };
        let plan = AgreementPlan::new(4).slots(3).rough(rng.gen_range(0..250));
        let mut plan = plan.partition(partition);
        plan = match seed % 3 {
            0 => plan.absent(faulty),
            1 => plan.behaves(faulty, Equivocate),
            _ => plan.behaves(strict, Strict),
        };
        for _ in 0..rng.gen_range(0..10) {
            let (j, away) = (1 + rng.gen_range(0..4), rng.gen_range(10..6_000));
            plan = plan.crash(j, When::AfterEffects(rng.gen_range(0..80)), away);
        }
        let report = plan.run(seed);
        report.assert_agreed();
        assert!(report.abstained.is_empty(), "seed {seed}: {:?}", report.abstained);
    }
}

// ---- how slots end -------------------------------------------------------------------------

/// How many of the slots end with an outcome.
fn outcomes(report: &AgreementReport) -> usize {
    let slots = 1..=report.plan.scenario.slots;
    slots.filter(|slot| report.end(*slot).is_some_and(|end| end.outcome.is_some())).count()
}

#[test]
fn slots_end_with_the_outcome_that_all_know() {
    for n in [1, 4, 7, 13] {
        let report = AgreementPlan::new(n).slots(3).ends(None).run(7);
        report.assert_agreed();
        assert_eq!(outcomes(&report), 3, "n = {n}");
        assert!(report.convicted.is_empty() && report.abstained.is_empty());
    }
}

/// Members n, n-1 ... come to know nothing.
fn ignorant(n: u8, count: u8) -> AgreementPlan {
    (n - count + 1..=n).fold(AgreementPlan::new(n), |plan, j| plan.behaves(j, Ignorant))
}

#[test]
fn an_outcome_that_t_plus_1_know_needs_no_word_of_the_others_hosts() {
    for (n, t, seeds) in [(4, 1, 6), (7, 2, 2), (10, 3, 1)] {
        // Void is never valid, so nothing else can end the slots.
        let plan = ignorant(n, n - t - 1).slots(3).ends(None);
        for seed in 0..seeds {
            let report = plan.clone().rough(seed as u32 * 30).run(seed);
            report.assert_agreed();
            assert_eq!(outcomes(&report), 3, "n = {n}");
        }
    }
}

#[test]
fn an_outcome_that_t_know_ends_no_slot() {
    let report = ignorant(4, 3).ends(None).run(1);
    assert!(report.locks.values().all(|locks| !locks.is_empty()));
    assert_eq!(report.ends.len(), 0);
}

#[test]
fn slots_whose_outcome_nobody_knows_end_void() {
    for seed in 0..6 {
        let report = ignorant(4, 4).slots(3).ends(Some(2_500)).rough(seed as u32 * 30).run(seed);
        report.assert_agreed();
        assert_eq!(outcomes(&report), 0);
    }
}

#[test]
fn slots_end_in_one_way_whoever_knows_what() {
    let (mut with_outcome, mut slots) = (0, 0);
    for seed in 0..40 {
        let (n, t) = if seed % 4 == 0 { (7, 2) } else { (4, 1) };
        let count = (seed / 4) as u8 % (n + 1);
        let after = [0, 600, 1_500, 4_000][seed as usize % 4];
        let mut plan = ignorant(n, count).slots(3).ends(Some(after));
        if seed % 2 == 0 {
            plan = plan.rough(120);
        }
        // t more do not answer at all, of those that know or of those that do not.
        if seed % 3 == 0 {
            plan = (1..=t).fold(plan, |plan, j| plan.absent(j));
        }
        let report = plan.run(seed);
        report.assert_agreed();
        assert!(report.convicted.is_empty() && report.abstained.is_empty());
        with_outcome += outcomes(&report);
        slots += 3;
    }
    assert!(with_outcome > 0 && with_outcome < slots, "{with_outcome} of {slots}");
}

#[test]
fn byzantine_members_end_no_slot_in_two_ways_or_wrongly() {
    let mut convicted = 0;
    for seed in 0..24 {
        let (n, t) = if seed % 3 == 0 { (7, 2) } else { (4, 1) };
        let mut plan =
            ignorant(n, (seed % 3) as u8).slots(4).ends(Some([800, 3_000][seed as usize % 2]));
        for j in 1..=t {
            let bad = if seed % 4 < 2 { Equivocate } else { ProposeInvalid };
            plan = plan.behaves(j, bad);
        }
        if seed % 5 == 0 {
            plan = plan.rough(100);
        }
        let report = plan.run(seed);
        report.assert_agreed();
        convicted += report.convicted.len();
    }
    assert!(convicted > 5, "{convicted}");
}

#[test]
fn a_crash_at_any_effect_of_an_end_does_no_harm() {
    for (ignorants, away) in [(0, 1), (2, 1), (2, 900), (4, 900)] {
        let plan = || ignorant(4, ignorants).ends(Some(1_200));
        let smooth = plan().run(11);
        for j in [1, 2, 4] {
            for at_effect in 0..=smooth.effects[member(j).position()] {
                let report = plan().crash(j, When::AfterEffects(at_effect), away).run(11);
                report.assert_agreed();
                assert!(report.abstained.is_empty(), "{:?}", report.abstained);
            }
        }
    }
}

#[test]
fn a_member_that_missed_an_end_gets_it_by_asking() {
    let partition = Partition { groups: groups(&[&[1, 2, 3], &[4]]), from: 300, until: 20_000 };
    let report = AgreementPlan::new(4).ends(None).partition(partition).run(2);
    report.assert_agreed();
    assert!(report.fetched.is_empty() && report.elapsed >= 20_000);
}

#[test]
fn everything_at_once_in_the_ends() {
    for seed in 0..8 {
        let plan = AgreementPlan::new(7)
            .slots(3)
            .ends(Some(1_000 + 100 * seed))
            .rough(100)
            .absent(1 + (seed % 7) as u8)
            .behaves(1 + ((seed + 3) % 7) as u8, [Equivocate, ProposeInvalid][seed as usize % 2])
            .behaves(1 + ((seed + 5) % 7) as u8, Ignorant)
            .behaves(1 + ((seed + 6) % 7) as u8, Ignorant)
            .crash(1 + ((seed + 1) % 7) as u8, When::AfterEffects(14 + seed), 1_000)
            .crash(1 + ((seed + 2) % 7) as u8, When::AfterEffects(2 * seed), 3_000);
        plan.run(seed).assert_agreed();
    }
}
