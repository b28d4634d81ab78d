//! The key ceremony with members that deviate: no attempt makes two keys, none makes a wrong one,
//! and where the protocol can tell who did it, the honest members' reasons do.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use veil_committee_world::{Conditions, Partition, When};
use veil_keygen_ceremony::machine::{CommitPoint, Fault as Refused};
use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{AbortReason, Round, Stream},
};
use veil_tests::{
    ceremony::{CeremonyPlan, Milestone::Persisted},
    malicious::{BadDeal, Behaviour, WrongConfirm, WrongProof, WrongString},
    plan::member,
    report::Report,
};

const CULPRIT: u8 = 2;

fn culprit() -> Vec<ParticipantIndex> {
    vec![member(CULPRIT)]
}

fn bad_network() -> Conditions {
    Conditions { drop: 100, latency: (1, 300), duplicate: 50, ..Conditions::default() }
}

/// Runs the behaviour in a committee of 4 over some seeds and networks.
fn reports(behaviour: &Behaviour) -> impl Iterator<Item = Report> {
    let plan = CeremonyPlan::new(4).behaves(CULPRIT, behaviour.clone());
    let bad = plan.clone().network(bad_network());
    (0..6).map(move |seed| if seed < 4 { plan.run(seed) } else { bad.run(seed) })
}

fn aborts(behaviour: &Behaviour, expected: impl Fn(&AbortReason) -> bool) {
    reports(behaviour).for_each(|report| report.assert_aborted(&expected));
}

#[test]
fn a_wrong_deal_is_found_by_its_receiver() {
    for to in [1, 3, 4] {
        for wrong in [BadDeal::Contribution, BadDeal::Missing] {
            aborts(&Behaviour::BadDeal { to: member(to), wrong }, |reason| {
                *reason == AbortReason::WrongContribution { accused: member(CULPRIT) }
            });
        }
        let wrong = BadDeal::FrostShare;
        aborts(
            &Behaviour::BadDeal { to: member(to), wrong },
            |reason| matches!(reason, AbortReason::Frost { accused, .. } if *accused == culprit()),
        );
        let wrong = BadDeal::Garbled;
        aborts(&Behaviour::BadDeal { to: member(to), wrong }, |reason| {
            matches!(reason, AbortReason::InvalidMessage { accused, round: Round::Deal, .. }
                if *accused == member(CULPRIT))
        });
    }
}

#[test]
fn two_commitments_are_found_before_anything_is_dealt() {
    for second_to in [vec![1], vec![3, 4], vec![1, 4]] {
        let second_to: Vec<_> = second_to.into_iter().map(member).collect();
        for report in reports(&Behaviour::EquivocatingCommit { second_to }) {
            report.assert_aborted(|reason| match reason {
                AbortReason::EchoMismatch { accused, round: Round::Commit, .. }
                | AbortReason::Equivocation { accused, round: Round::Commit } => {
                    *accused == member(CULPRIT)
                }
                _ => false,
            });
            // Who has dealt has dealt under the same commitment as the others.
            let dealt = report.honest().filter(|m| m.disk.holds(m.participant, Round::Deal));
            let mut commits = dealt.filter_map(|m| {
                let place = (Round::Commit, member(CULPRIT));
                m.disk.messages().find(|m| (m.header.round, m.header.sender) == place)
            });
            let first = commits.next();
            assert!(commits.all(|other| Some(other) == first), "{report}");
        }
    }
}

/// Both versions reach one member, which crashes anywhere around that.
#[test]
fn a_member_that_crashes_over_an_equivocation_still_finds_it() {
    let mut found = 0;
    for count in 0..60 {
        let plan = CeremonyPlan::new(4)
            .behaves(CULPRIT, Behaviour::EquivocatingCommit { second_to: vec![member(1)] })
            .network(bad_network())
            .crash(1, When::AfterEffects(count), 500);
        let report = plan.run(5);
        report.assert_safe();
        found += u32::from(report.reasons().iter().any(|(j, reason)| {
            (j.get(), *reason)
                == (
                    1,
                    &AbortReason::Equivocation { accused: member(CULPRIT), round: Round::Commit },
                )
        }));
    }
    assert!(found > 0, "{found}");
}

#[test]
fn a_wrong_confirmation_is_attributed() {
    aborts(&Behaviour::WrongConfirm(WrongConfirm::Key), |reason| {
        *reason == AbortReason::KeyMismatch { with: culprit() }
    });
    aborts(&Behaviour::WrongConfirm(WrongConfirm::PublicSeed), |reason| {
        *reason == AbortReason::WrongSeedReveal { accused: member(CULPRIT) }
    });
    aborts(
        &Behaviour::WrongConfirm(WrongConfirm::Group),
        |reason| matches!(reason, AbortReason::Frost { accused, .. } if *accused == culprit()),
    );
}

#[test]
fn a_wrong_echo_names_both_sides() {
    for round in Round::ALL.into_iter().filter(|round| round.echoes().is_some()) {
        aborts(&Behaviour::WrongEcho { round, about: member(4) }, |reason| {
            let echoed_by = member(CULPRIT);
            let round = round.echoes().unwrap();
            *reason == AbortReason::EchoMismatch { accused: member(4), round, echoed_by }
        });
    }
}

#[test]
fn a_wrong_word_in_a_share_stream_is_found() {
    for stream in [Stream::Bits, Stream::Bodies] {
        for (chunk, word) in [(0, 0), (1, 100), (1, 4_000_000_007)] {
            aborts(&Behaviour::WrongShare { stream, chunk, word }, |reason| {
                matches!(reason, AbortReason::InconsistentShares { stream: s, index, .. }
                    if *s == stream && *index == chunk)
            });
        }
    }
}

#[test]
fn corrupt_and_withheld_chunks_come_from_relays() {
    for report in reports(&Behaviour::CorruptChunk { to: member(4) }) {
        report.assert_completed();
        let faults = &report.member(member(4)).verdicts.faults;
        assert!(!faults.is_empty(), "{report}");
        for (from, fault) in faults {
            assert_eq!(*from, member(CULPRIT));
            assert!(matches!(fault, Refused::Chunk { .. }), "{fault}");
        }
    }
    for stream in [Stream::Bits, Stream::Bodies] {
        for victims in [vec![1], vec![1, 4]] {
            let (of, victims) = (member(CULPRIT), victims.into_iter().map(member).collect());
            for report in reports(&Behaviour::Starve { stream, of, victims }) {
                report.assert_completed();
            }
        }
    }
}

#[test]
fn chunks_that_nobody_gets_are_named() {
    for stream in [Stream::Bits, Stream::Bodies] {
        let victims = [1, 3, 4].map(member).to_vec();
        aborts(&Behaviour::Starve { stream, of: member(CULPRIT), victims }, |reason| {
            matches!(reason, AbortReason::MissingChunk { stream: s, index: 0, missing }
                if *s == stream && *missing == culprit())
        });
    }
}

/// "Members relay chunks by hash, so that a member that starves one receiver does not split the
/// group": also when another corrupt member is among the relays.
#[test]
fn t_members_cannot_starve_a_third() {
    for stream in [Stream::Bits, Stream::Bodies] {
        let starve = || Behaviour::Starve { stream, of: member(1), victims: vec![member(7)] };
        let plan = CeremonyPlan::new(7).behaves(1, starve()).behaves(2, starve());
        plan.run(1).assert_completed();
    }
}

/// A message that one receiver gets only just in time, or not at all, makes the receiver late for the
/// others: they must not take it for the culprit.
#[test]
fn nobody_is_blamed_for_waiting_for_a_late_message() {
    for round in Round::ALL {
        for by in [9_600, 9_900, 10_050, 10_200, 60_000] {
            for seed in [3, 8] {
                let late = Behaviour::Late { round, to: member(4), by };
                let mut plan = CeremonyPlan::new(4);
                plan.conditions.latency = (50, 400);
                plan.scenario.retry = 100;
                plan.behaves(CULPRIT, late).run(seed).assert_safe();
            }
        }
    }
}

#[test]
fn silence_in_any_round_is_named() {
    for round in Round::ALL {
        let plan = CeremonyPlan::new(4).behaves(CULPRIT, Behaviour::Silent { round });
        for seed in 0..3 {
            let report = plan.run(seed);
            match round {
                Round::Abort => {
                    report.assert_completed();
                }
                Round::Finish => {
                    report.assert_aborted(|reason| *reason == AbortReason::Expired);
                }
                _ => report.assert_aborted(|reason| {
                    *reason == AbortReason::MissingMessage { round, missing: culprit() }
                }),
            }
        }
    }
}

#[test]
fn a_wrong_proof_is_attributed() {
    for wrong in [WrongProof::TestShare, WrongProof::Truncated, WrongProof::KeySet] {
        aborts(
            &Behaviour::WrongProof(wrong),
            |reason| matches!(reason, AbortReason::WrongProof { accused, .. } if *accused == culprit()),
        );
    }
}

/// Whoever contributes what is no raised string is named: at once where the first powers or their proof show
/// it, by the next contributor or at the end where they do not.
#[test]
fn a_wrong_contribution_to_the_reference_string_is_attributed() {
    for wrong in [
        WrongString::Proof,
        WrongString::Truncated,
        WrongString::Structure,
        WrongString::SmallOrder,
        WrongString::Zero,
        WrongString::Replaced,
    ] {
        let named = |of: u8| {
            move |reason: &AbortReason| match reason {
                AbortReason::InvalidMessage { accused, round: Round::ReferenceString, .. } => {
                    *accused == member(of)
                }
                // Its own machine gives up when the next one raises something else than it thinks to have
                // sent, and it is silent from then on.
                AbortReason::MissingMessage { round: Round::ReferenceStringEcho, missing } => {
                    wrong == WrongString::Structure && *missing == [member(of)]
                }
                _ => false,
            }
        };
        aborts(&Behaviour::WrongString(wrong), named(CULPRIT));
        // The first one may contribute any exponent that it knows: there is nothing to replace yet.
        if wrong != WrongString::Replaced {
            let plan = CeremonyPlan::new(4).behaves(1, Behaviour::WrongString(wrong));
            plan.run(1).assert_aborted(named(1));
        }
        // Nobody raises what the last one sends: it is found for what it is.
        for n in [4, 7] {
            let plan = CeremonyPlan::new(n).behaves(n, Behaviour::WrongString(wrong));
            plan.run(1).assert_aborted(|reason| {
                matches!(reason, AbortReason::InvalidMessage { accused, round: Round::ReferenceString, .. }
                    if *accused == member(n))
            });
        }
    }
}

#[test]
fn a_contribution_to_another_string_names_both_sides() {
    aborts(&Behaviour::WrongString(WrongString::OtherBefore), |reason| {
        let (accused, echoed_by) = (member(1), member(CULPRIT));
        *reason == AbortReason::EchoMismatch { accused, round: Round::ReferenceString, echoed_by }
    });
    // There is nothing before the first one.
    let plan = CeremonyPlan::new(4).behaves(1, Behaviour::WrongString(WrongString::OtherBefore));
    plan.run(1).assert_aborted(|reason| {
        matches!(reason, AbortReason::InvalidMessage { accused, round: Round::ReferenceString, .. }
            if *accused == member(1))
    });
}

#[test]
fn two_contributions_of_one_member_are_found() {
    for second_to in [vec![1], vec![3], vec![1, 4]] {
        let second_to: Vec<_> = second_to.into_iter().map(member).collect();
        aborts(&Behaviour::TwoStrings { second_to }, |reason| match reason {
            AbortReason::EchoMismatch { accused, round: Round::ReferenceString, .. }
            | AbortReason::Equivocation { accused, round: Round::ReferenceString } => {
                *accused == member(CULPRIT)
            }
            _ => false,
        });
    }
}

#[test]
fn replayed_messages_do_nothing() {
    for report in reports(&Behaviour::Replay) {
        report.assert_completed();
        assert!(report.honest().all(|m| m.verdicts.faults.is_empty()), "{report}");
        assert!(report.honest().all(|m| m.verdicts.skipped > 20), "{report}");
    }
}

#[test]
fn malformed_messages_are_refused_and_do_nothing() {
    for report in reports(&Behaviour::Malformed) {
        report.assert_completed();
        for member in report.honest() {
            let count = |kind: fn(&Refused) -> bool| {
                member.verdicts.faults.iter().filter(|(_, fault)| kind(fault)).count()
            };
            assert!(count(|fault| matches!(fault, Refused::Malformed(_))) > 20);
            assert!(count(|fault| matches!(fault, Refused::Signature(_))) > 10);
            assert!(count(|fault| matches!(fault, Refused::NotAMember(_))) > 5);
            assert!(count(|fault| matches!(fault, Refused::Form(_))) > 5);
        }
    }
}

/// ABORT after FINISH: whichever comes first at whom, all honest members have the key or none has.
#[test]
fn going_back_on_finish_does_not_split_the_group() {
    let (mut completed, mut failed) = (0, 0);
    for seed in 0..30 {
        let plan = CeremonyPlan::new(4).behaves(CULPRIT, Behaviour::AbortAfterFinish).network(
            Conditions { latency: (1, 200), reorder: (300, 500), ..Conditions::default() },
        );
        let report = plan.run(seed);
        report.assert_safe();
        match report.decision {
            Some(CommitPoint::Published(_)) => completed += 1,
            _ => failed += 1,
        }
    }
    assert!(completed > 0 && failed > 0, "{completed} completed, {failed} failed");
}

#[test]
fn finish_over_another_root_makes_no_key_and_two_roots_do_not_split_the_group() {
    let all = [1, 3, 4].map(member).to_vec();
    aborts(&Behaviour::FinishOtherRoot { to: all }, |reason| *reason == AbortReason::Expired);
    for to in [vec![1], vec![1, 4]] {
        let to: Vec<_> = to.into_iter().map(member).collect();
        for report in reports(&Behaviour::FinishOtherRoot { to }) {
            report.assert_safe();
        }
    }
    // Only the culprit has all signatures, and publishes them.
    for report in reports(&Behaviour::FinishInSecret) {
        report.assert_completed();
    }
    // A member that has seen only the other root completes when the right one is published.
    CeremonyPlan::new(4)
        .behaves(CULPRIT, Behaviour::FinishOtherRoot { to: vec![member(1)] })
        .run(1)
        .assert_completed();
}

#[test]
fn t_members_of_a_larger_committee_are_named_together() {
    let silent = |round| CeremonyPlan::new(7).behaves(2, Behaviour::Silent { round });
    for round in [Round::Commit, Round::Prove] {
        let report = silent(round).behaves(5, Behaviour::Silent { round }).run(1);
        report.assert_aborted(|reason| {
            let missing = vec![member(2), member(5)];
            *reason == AbortReason::MissingMessage { round, missing }
        });
    }
    let wrong = || Behaviour::WrongProof(WrongProof::TestShare);
    let report = CeremonyPlan::new(7).behaves(2, wrong()).behaves(5, wrong()).run(1);
    report.assert_aborted(|reason| {
        matches!(reason, AbortReason::WrongProof { accused, .. }
            if *accused == [member(2), member(5)])
    });
    let share = |chunk| Behaviour::WrongShare { stream: Stream::Bodies, chunk, word: 7 };
    let report = CeremonyPlan::new(7).behaves(1, share(2)).behaves(7, share(2)).run(1);
    report.assert_aborted(|reason| {
        matches!(reason, AbortReason::InconsistentShares { stream: Stream::Bodies, index: 2, .. })
    });
}

/// Misbehaviour, a bad network, partitions and crashes together: agreement holds.
#[test]
fn misbehaviour_with_faults_of_the_others_is_safe() {
    let behaviours = [
        Behaviour::AbortAfterFinish,
        Behaviour::FinishOtherRoot { to: vec![member(1)] },
        Behaviour::EquivocatingCommit { second_to: vec![member(3)] },
        Behaviour::CorruptChunk { to: member(3) },
        Behaviour::Replay,
        Behaviour::Malformed,
        Behaviour::WrongProof(WrongProof::TestShare),
        Behaviour::BadDeal { to: member(1), wrong: BadDeal::Contribution },
        Behaviour::WrongEcho { round: Round::BitsRootEcho, about: member(1) },
    ];
    for (i, behaviour) in (0..).zip(behaviours) {
        for seed in 0..5u64 {
            let partition = Partition {
                groups: vec![vec![member(1), member(2)], vec![member(3), member(4)]],
                from: 300 * seed,
                until: 300 * seed + 4_000 * (1 + seed % 3),
            };
            let plan = CeremonyPlan::new(4)
                .behaves(CULPRIT, behaviour.clone())
                .network(Conditions { drop: 100, reorder: (100, 700), ..Conditions::default() })
                .partition(partition)
                .crash(1, When::AfterEffects(25 * seed + 5 * i), 800)
                .crash(4, When::At(Persisted(Round::Finish)), 2_000);
            plan.run(seed).assert_safe();
        }
    }
}
