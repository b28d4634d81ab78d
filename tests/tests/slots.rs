//! Whole slots of a cluster in the simulated world.

use veil_committee_world::{Partition, When};
use veil_tests::{
    plan::member,
    slot::{SlotBehaviour, SlotPlan, SlotReport},
};

/// A run of a few slots with one member that deviates.
fn with(behaviour: SlotBehaviour, seed: u64) -> SlotReport {
    SlotPlan::new(4).slots(6).behaves(3, behaviour).run(seed)
}

#[test]
fn a_cluster_at_work_places_and_never_ends_void() {
    let report = SlotPlan::new(4).slots(12).workers(20).jobs(12).run(1);
    assert_eq!((report.slots_ended, report.void), (12, 0), "{report:#?}");
    assert!(report.placed > 12, "{report:#?}");
    assert!(report.bodiless > 0, "a digest without a body stops nothing");
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let run = |seed| SlotPlan::new(4).slots(4).rough(50).run(seed).trace;
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn every_misbehaviour_of_one_member_is_survived() {
    for (seed, behaviour) in (1..).zip(SlotBehaviour::ALL) {
        let report = with(behaviour, seed);
        assert_eq!(report.void, 0, "{behaviour:?}: {report:#?}");
        let name = format!("{behaviour:?} in ");
        let occurred = report.occurred.keys().any(|what| what.starts_with(&name));
        assert!(occurred, "{behaviour:?} did not occur: {report:#?}");
    }
}

#[test]
fn one_member_of_seven_in_every_two_deviates() {
    for (seed, pair) in (1..).zip(SlotBehaviour::ALL.chunks_exact(2)) {
        let plan = SlotPlan::new(7).slots(4).behaves(2, pair[0]).behaves(6, pair[1]);
        let report = plan.run(seed);
        assert!(report.slots_ended >= 4, "{pair:?}: {report:#?}");
    }
}

#[test]
fn an_absent_member_and_a_bad_network_stop_nothing() {
    for seed in 1..4 {
        let report = SlotPlan::new(4).slots(5).absent(2).rough(60).run(seed);
        assert_eq!(report.slots_ended, 5, "{report:#?}");
    }
}

#[test]
fn a_partition_ends_and_slots_go_on() {
    let groups = vec![vec![member(1), member(2)], vec![member(3), member(4)]];
    let partition = Partition { groups, from: 20_000, until: 90_000 };
    let report = SlotPlan::new(4).slots(8).partition(partition).run(5);
    assert_eq!(report.slots_ended, 8, "{report:#?}");
}

/// "A slot that stays locked without certificate ends as void": when two of four members evaluate a
/// minute too long, nobody can open, and the timer decides.
#[test]
fn what_cannot_be_opened_in_time_ends_void() {
    let slow = SlotBehaviour::Slow;
    let report = SlotPlan::new(4).slots(3).behaves(1, slow).behaves(2, slow).run(6);
    assert!(report.void > 0, "{report:#?}");
    assert_eq!(report.slots_ended, 3);
}

#[test]
fn a_crash_after_any_effect_is_survived() {
    let mut crashes = 0;
    for effects in (0..).step_by(5) {
        let plan = SlotPlan::new(4).slots(2).crash(2, When::AfterEffects(effects), 3_000);
        let report = plan.run(100 + effects);
        let boots = report.occurred.get("boot").copied().unwrap_or_default();
        if boots <= 4 {
            break; // there was no such effect
        }
        crashes += 1;
    }
    assert!(crashes >= 8, "{crashes} crashes tested something");
}

#[test]
fn all_members_crash_and_go_on_where_they_were() {
    for at in [9_000, 12_000, 14_000, 15_000, 16_000] {
        let mut plan = SlotPlan::new(4).slots(4);
        for j in 1..=4 {
            plan = plan.crash(j, When::Time(at), 2_000);
        }
        let report = plan.run(at);
        assert_eq!(report.slots_ended, 4, "{at}: {report:#?}");
    }
}
