//! The key ceremony when the network and the members' machines fail: all honest members complete
//! with one key, or none does.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use proptest::prelude::*;
use veil_committee_machine::{Effect, Machine};
use veil_committee_world::{Conditions, Crash, Partition, When};
use veil_keygen_ceremony::{
    machine::{Ceremony, CommitPoint, Record, ResumeError, Stage},
    setup::Timing,
};
use veil_protocol_spec::ceremony::{AbortReason, Round, Stream};
use veil_tests::{
    ceremony::{CeremonyPlan, Milestone},
    fixtures,
    malicious::Behaviour,
    plan::member,
};

/// A bad network that still delivers within the deadlines.
fn bad_network(plan: CeremonyPlan) -> CeremonyPlan {
    let (latency, reorder, partitions) = ((1, 400), (200, 1_000), Vec::new());
    plan.network(Conditions { latency, drop: 150, duplicate: 100, reorder, partitions })
}

#[test]
fn loss_delay_reordering_and_duplication_do_not_matter() {
    for (n, seeds) in [(4, 15), (7, 2), (10, 1)] {
        for seed in 0..seeds {
            bad_network(CeremonyPlan::new(n)).run(seed).assert_completed();
        }
    }
    for permille in [300, 500] {
        let mut plan = CeremonyPlan::new(4);
        plan.conditions.drop = permille;
        plan.scenario.round = 60_000;
        for seed in 0..4 {
            plan.run(seed).assert_completed();
        }
    }
}

/// A crash between any two effects of a member, those of one input included: between Persist and
/// Send too.
#[test]
fn a_member_that_crashes_after_any_effect_resumes_and_all_complete() {
    let mut count = 0;
    while {
        let report = CeremonyPlan::new(4).crash(2, When::AfterEffects(count), 700).run(count);
        report.assert_completed();
        count += 1;
        report.member(member(2)).resumed == 1
    } {}
    assert!(count > 150, "a member carries out more effects than {count}");
}

#[test]
fn a_member_that_crashes_in_any_stage_resumes_and_all_complete() {
    let rounds = Round::ALL.into_iter().filter(|round| *round != Round::Abort);
    let stage = |round| match round {
        Round::ReferenceString => Stage::Raise(member(2)),
        round => Stage::Collect(round),
    };
    let mut stages: Vec<_> = rounds.map(stage).collect();
    stages.extend([Stage::Raise(member(3)), Stage::CheckReferenceString]);
    for stream in [Stream::Bits, Stream::Bodies] {
        stages.extend([0, 1].map(|chunk| Stage::Produce(stream, chunk)));
        stages.extend([0, 1].map(|chunk| Stage::Open(stream, chunk)));
    }
    stages.extend([Stage::Assemble, Stage::AwaitCommitPoint, Stage::Completed]);
    for (seed, stage) in (0..).zip(stages) {
        for away in [Some(1), Some(3_000), None] {
            let report =
                CeremonyPlan::new(4).crash(3, When::At(Milestone::Stage(stage)), away).run(seed);
            report.assert_safe();
            if report.member(member(3)).resumed != 1 {
                report.fail("the stage was never entered");
            }
            // Whoever is away for good before FINISH ends the attempt.
            let finished = matches!(
                stage,
                Stage::AwaitCommitPoint | Stage::Completed | Stage::Collect(Round::Finish)
            );
            if away.is_some() || finished {
                report.assert_completed();
            } else {
                report.assert_aborted(|reason| {
                    matches!(
                        reason,
                        AbortReason::MissingMessage { .. }
                            | AbortReason::MissingChunk { .. }
                            | AbortReason::Expired
                    )
                });
            }
        }
    }
}

#[test]
fn a_member_that_crashes_around_each_of_its_messages_sends_them_again() {
    for (seed, round) in (0..).zip(Round::ALL.into_iter().filter(|r| *r != Round::Abort)) {
        for at in [Milestone::Persisted(round), Milestone::Sent(round)] {
            let report = bad_network(CeremonyPlan::new(4)).crash(1, When::At(at), 2_000).run(seed);
            report.assert_completed();
            assert_eq!(report.member(member(1)).resumed, 1);
        }
    }
}

/// A seed that is lost or another one cannot continue the attempt; nothing is sent then.
#[test]
fn a_member_resumes_only_with_its_seed() {
    let report = CeremonyPlan::new(4).run(8);
    let j = member(2);
    let disk = &report.member(j).disk;
    let is_own_root = |record: &Record| matches!(record, Record::Message(m) if (m.header.sender, m.header.round) == (j, Round::BitsRoot));
    let end = disk.records.iter().position(is_own_root).unwrap();
    let identity = fixtures::identity(8, j);
    let timing = Timing { round: 1_000, retry: 100 };
    let setup = fixtures::setup(&report.parameters, report.attempt, &identity, timing);
    let resume = |seed| {
        let (store, records) = (Box::new(disk.store.clone()), disk.records[..end].to_vec());
        Ceremony::resume(setup.clone(), identity.clone(), seed, store, records, 0)
    };
    assert_eq!(resume(None).err(), Some(ResumeError::NoSeed));
    let other = Some(fixtures::ceremony_seed(9, j));
    assert_eq!(resume(other).err(), Some(ResumeError::Diverged(Round::Commit)));
    let mut machine = resume(Some(fixtures::ceremony_seed(8, j))).unwrap();
    while machine.stage() != Stage::Produce(Stream::Bits, 0) && machine.work(0) {}
    assert_eq!(machine.stage(), Stage::Produce(Stream::Bits, 0));
    while let Some(effect) = machine.poll_effect() {
        assert!(matches!(effect, Effect::Send { .. } | Effect::Broadcast(_)), "{effect:?}");
    }
}

/// All at once, more than once, t and more of them: crashes are not corruptions.
#[test]
fn all_members_may_crash() {
    for seed in 0..6 {
        let mut plan = CeremonyPlan::new(4);
        let opening = Milestone::Stage(Stage::Open(Stream::Bodies, 2));
        for j in 1..=4u8 {
            let at = When::AfterEffects(20 + 30 * u64::from(j) + seed);
            plan = plan.crash(j, at, 500).crash(j, When::At(opening), 900);
        }
        let report = plan.run(seed);
        report.assert_completed();
        assert!(report.members.iter().all(|m| m.resumed == 2), "{report}");
    }
}

/// The commit point decides for those too who were not there: everybody signed FINISH, one crashed,
/// the certificate is published by the others.
#[test]
fn a_member_that_missed_the_publication_completes_when_it_comes_back() {
    let plan = CeremonyPlan::new(4).crash(4, When::At(Milestone::Sent(Round::Finish)), None);
    let report = plan.run(1);
    report.assert_completed();
    assert!(matches!(report.decision, Some(CommitPoint::Published(_))));
}

/// What a member learns of an attempt that expired, it still knows after a restart.
#[test]
fn a_member_that_crashes_after_the_attempt_failed_comes_back_to_that() {
    let silent = |round| CeremonyPlan::new(4).behaves(1, Behaviour::Silent { round });
    for round in [Round::Confirm, Round::Prove, Round::Finish] {
        for at in
            [When::At(Milestone::Stage(Stage::Aborted)), When::Time(290_000), When::Time(301_000)]
        {
            for away in [Some(1_000), None] {
                let report = silent(round).crash(2, at, away).run(1);
                report.assert_aborted(|reason| {
                    matches!(reason, AbortReason::MissingMessage { .. } | AbortReason::Expired)
                });
                assert_eq!(report.member(member(2)).resumed, 1);
            }
        }
    }
}

fn halves(from: u64, until: u64) -> Partition {
    let groups = vec![vec![member(1), member(2)], vec![member(3), member(4)]];
    Partition { groups, from, until }
}

#[test]
fn a_short_partition_heals_and_a_long_one_ends_the_attempt() {
    for seed in 0..4 {
        for from in [0, 60, 150, 300, 450, 600] {
            CeremonyPlan::new(4).partition(halves(from, from + 5_000)).run(seed).assert_completed();
        }
        for from in [0, 60, 150] {
            let report = CeremonyPlan::new(4).partition(halves(from, 400_000)).run(seed);
            report.assert_aborted(|reason| {
                matches!(
                    reason,
                    AbortReason::MissingMessage { .. } | AbortReason::MissingChunk { .. }
                )
            });
        }
    }
}

/// Whenever the partition comes, and for however long: after it all honest members have the key or
/// none has.
#[test]
fn a_partition_never_splits_the_group() {
    let (mut completed, mut failed) = (0, 0);
    for (seed, from) in (0..).zip((0..1_800).step_by(30)) {
        let one = vec![vec![member(1), member(2), member(3)], vec![member(4)]];
        for groups in [one, vec![vec![member(2)], vec![member(1), member(3), member(4)]]] {
            let partition = Partition { groups, from, until: 350_000 };
            let report = CeremonyPlan::new(4).partition(partition).run(seed);
            report.assert_safe();
            match report.decision {
                Some(CommitPoint::Published(_)) => completed += 1,
                _ => failed += 1,
            }
        }
    }
    assert!(completed > 5 && failed > 5, "{completed} completed, {failed} failed");
}

/// A crash that the plan still has in store when the member comes back for the decision.
#[test]
fn a_member_that_crashes_again_when_it_comes_back_still_learns_the_decision() {
    let plan = CeremonyPlan::new(4)
        .network(Conditions { drop: 561, latency: (79, 517), ..Conditions::default() })
        .crash(1, When::AfterEffects(38), None)
        .crash(1, When::Time(2_796), None);
    for seed in 0..8 {
        let report = plan.clone().run(seed);
        report.assert_safe();
        assert!(report.member(member(1)).resumed >= 1);
    }
}

fn when() -> impl Strategy<Value = When<Milestone>> {
    let round = (0..Round::ALL.len() - 1).prop_map(|i| Round::ALL[i]);
    prop_oneof![
        (0..3_000u64).prop_map(When::Time),
        (0..250u64).prop_map(When::AfterEffects),
        round.clone().prop_map(|round| When::At(Milestone::Persisted(round))),
        round.prop_map(|round| When::At(Milestone::Sent(round))),
    ]
}

fn crash() -> impl Strategy<Value = Crash<Milestone>> {
    (1..=4u8, when(), prop::option::of(0..15_000u64)).prop_map(|(j, at, away)| Crash {
        participant: member(j),
        at,
        away,
    })
}

fn partition() -> impl Strategy<Value = Partition> {
    (0..15u8, 0..2_000u64, 0..20_000u64).prop_map(|(mask, from, length)| {
        let (a, b) = (1..=4).map(member).partition(|j| mask >> j.position() & 1 == 1);
        Partition { groups: vec![a, b], from, until: from + length }
    })
}

/// Networks with and without each defect.
fn network() -> impl Strategy<Value = Conditions> {
    let chance = |most: u32| prop_oneof![Just(0), 0..most];
    let slow = (0..100u64, 0..800u64).prop_map(|(min, more)| (min, min + more));
    let latency = prop_oneof![Just((5, 50)), slow];
    let reorder = (chance(500), 0..3_000u64);
    let partitions = prop::collection::vec(partition(), 0..3);
    (latency, chance(600), chance(400), reorder, partitions).prop_map(
        |(latency, drop, duplicate, reorder, partitions)| Conditions {
            latency,
            drop,
            duplicate,
            reorder,
            partitions,
        },
    )
}

/// 100 mixtures, unless `PROPTEST_CASES` asks for another number.
fn mixtures() -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { 100 };
    ProptestConfig { cases, failure_persistence: None, ..given }
}

proptest! {
    #![proptest_config(mixtures())]

    /// Any mixture of faults: the honest members agree, and nobody equivocates over a restart.
    #[test]
    fn any_mixture_of_faults_is_safe(
        seed: u64,
        conditions in network(),
        crashes in prop::collection::vec(crash(), 0..4),
    ) {
        let mut plan = CeremonyPlan::new(4).network(conditions);
        plan.crashes = crashes;
        plan.run(seed).assert_safe();
    }
}

/// Whoever reads a failure finds plan, seed, and the file with what happened.
#[test]
fn a_failed_run_names_its_plan_and_the_file_of_its_event_log() {
    let report = CeremonyPlan::new(4).behaves(2, Behaviour::Silent { round: Round::Deal }).run(5);
    let failure = std::panic::catch_unwind(|| report.assert_completed()).unwrap_err();
    let message = failure.downcast_ref::<String>().unwrap();
    let json = message.lines().find_map(|line| line.strip_prefix("seed 5, plan ")).unwrap();
    assert_eq!(CeremonyPlan::from_json(json).unwrap(), report.plan);
    let file = message.lines().find_map(|line| line.strip_prefix("event log: ")).unwrap();
    let log = std::fs::read_to_string(file).unwrap();
    assert_eq!(log, report.log.text());
    assert!(log.contains("aborts: "), "{log}");
    assert!(log.contains("1 -> 2 arrives: deal of 1"), "{log}");
}
