//! Whole slots of a cluster in the simulated world.

use veil_committee_world::{Partition, When};
use veil_protocol_spec::scheduling::CircuitId;
use veil_tests::{
    plan::member,
    slot::{Demand, Outage, Phase, SlotBehaviour, SlotPlan, SlotReport, WorkerBehaviour, coverage},
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
    }
}

#[test]
fn everything_that_can_go_wrong_occurs_in_the_fixed_runs() {
    let occurred = coverage::run().occurred;
    let never: Vec<_> = occurred.iter().filter(|(_, times)| **times == 0).collect();
    assert!(never.is_empty(), "{never:#?} of {occurred:#?}");
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

/// Replica after replica is opened, and only whoever was given it right puts out what follows.
#[test]
fn slots_of_many_openings_place_and_never_end_void() {
    let many = || SlotPlan::new(4).slots(6).workers(40).jobs(60);
    let report = many().run(20);
    assert_eq!((report.slots_ended, report.void), (6, 0), "{report:#?}");
    assert!(report.placed > 0 && report.most_openings > 12, "{report:#?}");
    for (seed, behaviour) in (21..).zip([
        SlotBehaviour::WithholdOpening,
        SlotBehaviour::WrongEvaluation,
        SlotBehaviour::Slow,
    ]) {
        let report = many().behaves(3, behaviour).run(seed);
        assert_eq!((report.slots_ended, report.void), (6, 0), "{behaviour:?}: {report:#?}");
    }
    // Two members that are slow: the first step is not opened in time.
    let slow = SlotBehaviour::Slow;
    let report = many().slots(3).behaves(1, slow).behaves(2, slow).run(34);
    assert!(report.void > 0 && report.slots_ended == 3, "{report:#?}");
}

/// A member that crashes between two openings, after each effect of a slot, with another one that is never
/// there: the two that are left need its share of steps that it had opened before.
#[test]
fn a_crash_between_openings_is_survived_without_a_spare_member() {
    for effects in (0..).step_by(7) {
        let plan = SlotPlan::new(4).slots(1).workers(8).jobs(6).absent(4).rough(60);
        let plan = plan.crash(2, When::AfterEffects(effects), 3_000);
        let report = plan.run(200 + effects);
        assert_eq!((report.slots_ended, report.void), (1, 0), "{effects}: {report:#?}");
        if report.occurred.get("boot").copied().unwrap_or_default() <= 3 {
            assert!(effects > 40, "{effects} effects tested something");
            break; // there was no such effect
        }
    }
}

/// Slots go from one circuit to the other at the policy's block, with no slot void for it; whatever is pinned of a
/// slot is of one of them.
#[test]
fn the_circuit_changes_at_the_block_that_the_policy_names() {
    let report = SlotPlan::new(4).slots(12).thresholds_from(20).run(35);
    assert_eq!((report.slots_ended, report.void), (12, 0), "{report:#?}");
    let circuits = report.circuits.keys().copied().collect::<Vec<_>>();
    assert_eq!(circuits, [CircuitId::AT_ONCE, CircuitId::THRESHOLDS], "{report:#?}");
    let never = SlotPlan::new(4).slots(6).thresholds_from(u64::MAX).run(36);
    assert_eq!(never.circuits.keys().copied().collect::<Vec<_>>(), [CircuitId::AT_ONCE]);
    assert_eq!((never.slots_ended, never.most_openings), (6, 1), "{never:#?}");
}

#[test]
fn a_crash_after_any_effect_is_survived() {
    for j in 1..=4 {
        let mut crashes = 0;
        for effects in 0.. {
            let plan = SlotPlan::new(4).slots(2).crash(j, When::AfterEffects(effects), 3_000);
            let report = plan.run(100 + effects);
            let boots = report.occurred.get("boot").copied().unwrap_or_default();
            if boots <= 4 {
                break; // there was no such effect
            }
            crashes += 1;
        }
        assert!(crashes >= 20, "{crashes} crashes of member {j} tested something");
    }
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

/// All members crash as soon as the lock is stored, so no other can give it, and nobody has evaluated yet. Without
/// its own a member would lock the slot again, on what its agreement remembers.
#[test]
fn a_stored_lock_carries_the_slot_on_when_nobody_else_can_give_it() {
    for seed in 1..4 {
        let mut plan = SlotPlan::new(4).slots(3);
        for j in 1..=4 {
            plan = plan.crash(j, When::At(Phase::Evaluating), 3_000);
        }
        let report = plan.run(seed);
        let crashed = (1..=4).map(|j| format!("crash of {} in Evaluating", member(j)));
        for crash in crashed {
            assert_eq!(report.occurred.get(&crash), Some(&1), "{crash}: {report:#?}");
        }
        assert_eq!((report.slots_ended, report.void), (3, 0), "{report:#?}");
    }
}

// ---- workers -------------------------------------------------------------------------------------

#[test]
fn workers_that_are_hostile_in_one_way_stop_nothing() {
    for (seed, behaviour) in (1..).zip(WorkerBehaviour::ALL) {
        let mut plan = SlotPlan::new(4).slots(6).workers(12).hostile(128);
        plan.scenario.hostile_as = Some(behaviour);
        let report = plan.run(seed);
        assert_eq!(report.void, 0, "{behaviour:?}: {report:#?}");
        let times = report.occurred.get(&format!("worker: {behaviour:?}"));
        assert!(times.is_some(), "{behaviour:?}: {report:#?}");
    }
}

/// A3 of the review of the node: more live workers than a list holds ended the cluster.
#[test]
fn more_workers_than_a_slot_considers_are_cut_by_rank() {
    let report = SlotPlan::new(4).slots(2).workers(1_025).run(3);
    assert_eq!(report.slots_ended, 2, "{report:#?}");
    let mut plan = SlotPlan::new(4).slots(8).workers(20);
    plan.scenario.max_workers = 5;
    let report = plan.run(4);
    assert!(report.placed > 0, "{report:#?}");
    assert_eq!(report.void, 0, "{report:#?}");
}

/// A3: more lost workers than a list holds ended the cluster. The others follow in the next slot.
#[test]
fn more_lost_workers_than_a_list_holds_follow_in_the_next_slot() {
    let mut plan = SlotPlan::new(4).slots(20).workers(330).jobs(40);
    plan.scenario.outage = Some(Outage { at: 60_000, workers: 300, away: 600_000 });
    let report = plan.run(5);
    let lost = report.occurred["worker counted as lost"];
    assert!(lost >= 300, "{lost} workers were counted as lost: {report:#?}");
    assert!(report.occurred["replica of a lost worker"] > 0, "{report:#?}");
    // More were lost at once than a list holds, and slots went on all the same: the lost are candidates until
    // their telemetry is old, so a list without bound would be refused for as long.
    assert!(report.longest_slot_ms < 30_000, "{report:#?}");
    assert!(report.occurred.contains_key("list of lost workers full"), "{report:#?}");
}

/// Both bounds at once: more workers than a slot considers, and more lost at once than a list holds.
#[test]
fn most_of_1025_workers_are_lost_at_once_and_placement_goes_on() {
    let mut plan = SlotPlan::new(4).slots(40).workers(1_025).jobs(40);
    plan.scenario.recorded = false;
    plan.scenario.outage = Some(Outage { at: 60_000, workers: 700, away: 600_000 });
    let report = plan.run(11);
    assert!(report.longest_slot_ms < 30_000, "{report:#?}");
    let full = report.occurred.get("list of lost workers full").copied().unwrap_or_default();
    assert!(full >= 2, "700 are lost, 256 are listed: {report:#?}");
    assert!(report.occurred["replica of a lost worker"] > 0, "{report:#?}");
    assert_eq!(report.void, 0, "{report:#?}");
}

/// "Up to 1,000 workers and 100 jobs." The long form: `slot-world --workers 1000 --jobs 100 --slots 2000 --seed 7`.
#[test]
fn a_thousand_workers_and_a_hundred_jobs_for_a_hundred_slots() {
    let mut plan = SlotPlan::new(4).slots(100).workers(1_000).jobs(100);
    plan.scenario.recorded = false;
    plan.scenario.outage = Some(Outage { at: 300_000, workers: 400, away: 600_000 });
    let report = plan.run(7);
    assert_eq!((report.slots_ended, report.void), (100, 0), "{report:#?}");
    assert!(report.placed >= 100, "{report:#?}");
    assert!(report.occurred["replica of a lost worker"] > 0, "{report:#?}");
}

/// 5,120 replicas want a place, a manifest lists 4,096.
#[test]
fn more_replicas_than_a_list_holds_wait_for_the_next_slot() {
    let mut plan = SlotPlan::new(4).slots(2).workers(6).jobs(5).demand(Demand::Flood);
    plan.scenario.replicas = 1_024;
    let report = plan.run(6);
    assert!(report.placed > 0, "{report:#?}");
}

#[test]
fn clocks_that_differ_stop_nothing() {
    // Within what members allow: nothing is refused.
    let report = SlotPlan::new(4).slots(10).workers(12).skew(12_000).run(7);
    assert_eq!(report.void, 0, "{report:#?}");
    assert!(!report.occurred.keys().any(|what| what.starts_with("telemetry: ")), "{report:#?}");
    // Beyond it: members see different workers, and some see none.
    let report = SlotPlan::new(7).slots(10).workers(12).skew(100_000).run(8);
    assert!(report.occurred.keys().any(|what| what.starts_with("telemetry: ")), "{report:#?}");
}

/// Drains with and without a deadline, evictions and replicas that stay unhealthy, exclusive ones among them, while
/// workers come and go, messages are lost and members crash.
#[test]
fn what_is_given_back_or_drained_moves_and_never_runs_twice() {
    let plan = SlotPlan::new(4).workers(14).jobs(20).gives_back();
    let mut rough = plan.clone().slots(40).rough(50);
    for k in 0..8 {
        rough = rough.crash(1 + k % 4, When::Time(20_000 + 9_000 * u64::from(k)), 3_000);
    }
    let mut hostile = plan.clone().slots(40).hostile(64);
    hostile.scenario.hostile_as = Some(WorkerBehaviour::GiveAllBack);
    let mut all = SlotReport::default();
    for (seed, plan) in (20..).zip([plan.slots(80), rough, hostile]) {
        all.merge(&plan.run(seed));
    }
    for what in [
        "drain with a deadline",
        "replica drained",
        "replica evicted",
        "replica given back and moved",
        "replica given back and stopped",
        "unhealthy replica given back",
        "worker: GiveAllBack",
    ] {
        assert!(all.occurred.contains_key(what), "{what}: {all:#?}");
    }
}

/// What else goes wrong in each is in `drawn.rs`; the command for one of them is `slot-world --drawn --seed N`.
#[test]
fn clusters_that_are_drawn_survive_what_goes_wrong_in_them() {
    let mut all = SlotReport::default();
    for seed in 0..24 {
        all.merge(&SlotPlan::drawn(seed, (1_000, 100)).run(seed));
    }
    assert!(all.slots_ended >= 24 * 12, "{all:#?}");
    for what in ["message cut off by a partition", "message lost", "worker lost in an outage"] {
        assert!(all.occurred.contains_key(what), "{what}: {all:#?}");
    }
}

// ---- updates ------------------------------------------------------------------------------------

/// What must hold of them is judged at every certificate (`properties/rollout.rs`).
#[test]
fn jobs_are_updated_scaled_reverted_and_superseded_and_none_is_missing() {
    let mut all = SlotReport::default();
    for seed in 1..5 {
        let plan = SlotPlan::new(4).slots(150).workers(8).jobs(6).demand(Demand::Updates);
        let report = plan.run(seed);
        assert_eq!(report.void, 0, "{report:#?}");
        all.merge(&report);
    }
    for what in [
        "line noted",
        "line forgotten",
        "update complete",
        "update failed",
        "update reverted",
        "update superseded",
        "scaled",
        "replica certified healthy",
        "replica of a lost worker",
    ] {
        assert!(all.occurred.contains_key(what), "{what}: {all:#?}");
    }
}

#[test]
fn updates_survive_a_crash_at_every_point_and_members_that_deviate() {
    let updates = || SlotPlan::new(4).slots(40).workers(8).jobs(5).demand(Demand::Updates);
    let phases = Phase::ALL;
    for (seed, phase) in (20..).zip(phases) {
        let mut plan = updates();
        for k in 1..5 {
            plan = plan.crash(1 + k % 4, When::At(phase), 2_000);
        }
        let report = plan.run(seed);
        assert!(report.slots_ended >= 40, "{phase}: {report:#?}");
    }
    for (seed, behaviour) in (40..).zip(SlotBehaviour::ALL) {
        let report = updates().slots(12).behaves(3, behaviour).run(seed);
        assert!(report.slots_ended >= 12, "{behaviour:?}: {report:#?}");
    }
}

#[test]
fn a_worker_that_lies_about_health_fails_no_update_elsewhere() {
    let mut plan =
        SlotPlan::new(4).slots(80).workers(12).jobs(6).demand(Demand::Updates).hostile(64);
    plan.scenario.hostile_as = Some(WorkerBehaviour::ClaimEnded);
    let report = plan.run(60);
    assert!(report.occurred.contains_key("update complete"), "{report:#?}");
    let mut plan = SlotPlan::new(4).slots(60).workers(12).jobs(6).demand(Demand::Updates);
    plan.scenario.outage = Some(Outage { at: 200_000, workers: 5, away: 300_000 });
    let report = plan.run(61);
    assert!(report.occurred.contains_key("replica of a lost worker"), "{report:#?}");
}

#[test]
fn each_worker_has_one_replica_of_each_system_job_whatever_happens() {
    let mut all = SlotReport::default();
    for seed in 1..4 {
        let mut plan = SlotPlan::new(4).slots(120).workers(6).jobs(4).demand(Demand::System);
        plan.scenario.gives_back = true;
        let report = plan.run(seed);
        assert_eq!(report.void, 0, "{report:#?}");
        all.merge(&report);
    }
    for (seed, behaviour) in (70..).zip(SlotBehaviour::ALL) {
        let plan = SlotPlan::new(4).slots(10).workers(6).jobs(4).demand(Demand::System);
        let report = plan.behaves(3, behaviour).run(seed);
        assert!(report.slots_ended >= 10, "{behaviour:?}: {report:#?}");
    }
    for what in [
        "system job on every worker",
        "system replica given back",
        "system replica of another version",
        "system replica stays at a lost worker",
        "update complete",
        "update reverted",
    ] {
        assert!(all.occurred.contains_key(what), "{what}: {all:#?}");
    }
}

// ---- periodic jobs ------------------------------------------------------------------------------

/// What must hold of them is judged at every certificate (`properties/periodic.rs`): no time is run twice, runs overlap
/// only as their jobs say, what was missed is left out, and what has ended leaves its room.
#[test]
fn periodic_jobs_run_once_for_each_time_whatever_happens() {
    let periodic = || SlotPlan::new(4).workers(6).jobs(10).periodic(200);
    let mut plans: Vec<_> = (0..3).map(|_| periodic().slots(120)).collect();
    let mut rough = periodic().slots(60).rough(50).gives_back();
    for k in 0..8 {
        rough = rough.crash(1 + k % 4, When::Time(40_000 + 30_000 * u64::from(k)), 5_000);
    }
    plans.push(rough);
    // A minute passes and more while nobody decides.
    let groups = vec![vec![member(1), member(2)], vec![member(3), member(4)]];
    let partition = Partition { groups, from: 150_000, until: 400_000 };
    plans.push(periodic().slots(60).partition(partition));
    let mut outage = periodic().slots(60);
    outage.scenario.outage = Some(Outage { at: 150_000, workers: 3, away: 200_000 });
    plans.push(outage);
    let mut all = SlotReport::default();
    for (seed, plan) in (80..).zip(plans) {
        let report = plan.run(seed);
        assert_eq!(plan.run(seed).trace, report.trace, "seed {seed}");
        all.merge(&report);
    }
    for what in [
        "first run begins",
        "periodic job forgotten",
        "periodic job noted",
        "replica done",
        "replica of a lost worker",
        "replica of the run before stopped",
        "room of a run before is used",
        "run follows one that is over",
        "run left out",
        "run replaces the one before",
        "time passed over, since a later one has come",
    ] {
        assert!(all.occurred.contains_key(what), "{what}: {all:#?}");
    }
}

#[test]
fn members_that_lie_about_times_and_workers_about_ends_run_nothing_twice() {
    let periodic = || SlotPlan::new(4).workers(6).jobs(8).periodic(255).slots(40);
    for (seed, behaviour) in (90..).zip(SlotBehaviour::ALL) {
        let report = periodic().behaves(3, behaviour).run(seed);
        assert!(report.slots_ended >= 40, "{behaviour:?}: {report:#?}");
    }
    let mut lies = periodic().hostile(64);
    lies.scenario.hostile_as = Some(WorkerBehaviour::ClaimEnded);
    let report = lies.run(130);
    assert!(report.occurred.contains_key("run follows one that is over"), "{report:#?}");
}

// ---- long runs -----------------------------------------------------------------------------------

/// C2 of the review: one job that fits nowhere cost a slot and a transaction every 10 seconds.
#[test]
fn a_job_that_fits_nowhere_costs_little_in_a_day() {
    let mut plan = SlotPlan::new(4).slots(u64::MAX).workers(4).demand(Demand::Unplaceable);
    plan.scenario.recorded = false;
    plan.scenario.until = Some(86_400_000);
    plan.scenario.limit = 90_000_000;
    let report = plan.run(9);
    assert!((100..=200).contains(&report.slots_ended), "{report:#?}");
    assert!((1..=50).contains(&report.anchored), "{report:#?}");
}

/// The long form: `slot-world --slots 20000`.
#[test]
fn a_long_run_stores_no_more_than_a_short_one() {
    let run = |slots| {
        let mut plan = SlotPlan::new(4).slots(slots).workers(6).jobs(8);
        plan.scenario.recorded = false;
        plan.run(10)
    };
    let (short, long) = (run(30), run(240));
    assert_eq!(long.slots_ended, 240);
    assert!(long.largest_journal_bytes <= 2 * short.largest_journal_bytes, "{long:#?}");
    assert!(long.largest_record_bytes <= 2 * short.largest_record_bytes, "{long:#?}");
    assert!(long.void * 100 <= long.with_work, "{long:#?}");
}
