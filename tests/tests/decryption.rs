//! Threshold decryption with the key shares of a ceremony: t culprits change nothing and are named, and
//! nobody decrypts what it has not recomputed.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::collections::BTreeSet;

use veil_committee::{
    decrypt::{LOG2_DELTA, SquashedBlock, combine},
    decryption::{AuthoriseError, RecomputedOutputs, Skip},
};
use veil_committee_world::{Conditions, When};
use veil_keygen_ceremony::keyset::decode_blocks;
use veil_protocol_spec::{
    ParticipantIndex,
    agreement::LockError,
    decryption::{DecryptionCounter, RequestId},
};
use veil_tests::{
    decryption::{
        DecryptionBehaviour, DecryptionPlan, DecryptionReport, Finished, finished_ceremony,
    },
    malicious::{crafted_ciphertext::crafted, wrong_partial::WrongPartial},
    plan::member,
};

const VALUE: u16 = 0xbeef;

/// All honest members have the plaintext and name the culprits, and nobody else.
#[track_caller]
fn assert_decrypts(report: &DecryptionReport) {
    let lies = |behaviour: &_| matches!(behaviour, DecryptionBehaviour::WrongPartial(_));
    let liars = report.plan.behaviours.iter().filter(|(_, behaviour)| lies(behaviour));
    let culprits: BTreeSet<_> = liars.map(|(j, _)| *j).collect();
    for (j, member) in report.honest() {
        if member.value() != Some(u128::from(VALUE)) {
            report.fail(&format!("{j} has another plaintext"));
        }
        if member.culprits != culprits {
            report.fail(&format!("{j} names {:?}", member.culprits));
        }
    }
}

#[test]
fn t_culprits_are_named_and_change_nothing() {
    let lies = [
        WrongPartial::Bit(0),
        WrongPartial::Bit(127),
        WrongPartial::Everything,
        WrongPartial::Truncated,
        WrongPartial::Different,
    ];
    for n in [4, 7, 10] {
        let finished = finished_ceremony(n, u64::from(n));
        let t = finished.parameters.committee.max_faulty().get() as u8;
        let blocks = finished.encrypt(VALUE);
        for (seed, lie) in (0..).zip(lies) {
            for first in [1, n - t + 1] {
                let plan =
                    (first..first + t).fold(DecryptionPlan::new(n), |plan, j| plan.culprit(j, lie));
                let report = finished.decrypt(&blocks, &plan, seed);
                assert_decrypts(&report);
                let again = finished.decrypt(&blocks, &plan, seed);
                assert_eq!(report.log.trace(), again.log.trace());
            }
        }
    }
}

#[test]
fn a_bad_network_only_delays() {
    let finished = finished_ceremony(4, 11);
    let blocks = finished.encrypt(VALUE);
    let (latency, reorder, partitions) = ((1, 800), (300, 3_000), Vec::new());
    let conditions = Conditions { latency, drop: 250, duplicate: 200, reorder, partitions };
    let plan = DecryptionPlan::new(4).absent(2).network(conditions);
    for seed in 0..10 {
        let report = finished.decrypt(&blocks, &plan, seed);
        assert_decrypts(&report);
    }
}

/// A crash between any two effects, those of one input included: whoever comes back decrypts, too.
#[test]
fn a_crash_at_any_effect_does_no_harm() {
    let finished = finished_ceremony(4, 17);
    let blocks = finished.encrypt(VALUE);
    let smooth = finished.decrypt(&blocks, &DecryptionPlan::new(4), 3);
    for j in 1..=4 {
        for effect in 0..=smooth.effects[usize::from(j) - 1] {
            for away in [Some(1), Some(2_000), None] {
                let plan = DecryptionPlan::new(4).crash(j, When::AfterEffects(effect), away);
                assert_decrypts(&finished.decrypt(&blocks, &plan, 3));
            }
        }
    }
}

/// With fewer than 2t+1 right shares nothing is decrypted, and nothing wrong either; who is away is
/// named.
#[test]
fn without_a_quorum_nothing_is_decrypted() {
    let finished = finished_ceremony(4, 12);
    let blocks = finished.encrypt(VALUE);
    let plan = DecryptionPlan::new(4).absent(2).culprit(3, WrongPartial::Everything);
    let report = finished.decrypt(&blocks, &plan, 1);
    for j in [1, 4].map(member) {
        assert_eq!(report.member(j).completion, None);
        assert_eq!(report.member(j).outstanding, [member(2)]);
    }
}

fn subsets(n: u8, size: usize) -> impl Iterator<Item = Vec<ParticipantIndex>> {
    (0..1u16 << n)
        .filter(move |bits| bits.count_ones() as usize == size)
        .map(move |bits| (1..=n).filter(|j| bits >> (j - 1) & 1 == 1).map(member).collect())
}

/// Whatever 2t+1..n shares arrive, and whichever t members lie: the outcome is right, or there is
/// none yet because fewer than 2t+1 of the shares are.
#[test]
fn every_subset_gives_the_right_plaintext_or_none() {
    for n in [4, 7] {
        let finished = finished_ceremony(n, 13);
        let committee = finished.parameters.committee;
        let (t, needed) = (committee.max_faulty().get(), committee.signing_threshold().get());
        let blocks = finished.encrypt(VALUE);
        let right: Vec<Vec<u8>> = finished
            .shares
            .iter()
            .map(|share| share.decryptor().partial(&blocks).unwrap())
            .collect();
        for culprits in subsets(n, t) {
            let mut shares = right.clone();
            for (i, culprit) in culprits.iter().enumerate() {
                // All culprits shift the plaintext in the same way.
                shares[culprit.position()][15] ^= 0x08;
                shares[culprit.position()][16] ^= i as u8;
            }
            for size in needed..=usize::from(n) {
                for subset in subsets(n, size) {
                    let given: Vec<_> =
                        subset.iter().map(|j| (*j, shares[j.position()].as_slice())).collect();
                    let wrong: Vec<_> =
                        culprits.iter().filter(|j| subset.contains(j)).copied().collect();
                    let place = format!("n = {n}, shares of {subset:?}, {culprits:?} lie");
                    match combine(committee, &given, blocks.len()) {
                        Ok(combined) => {
                            let value = decode_blocks(&combined.phases);
                            assert_eq!(value, Ok(u128::from(VALUE)), "{place}");
                            assert_eq!(combined.culprits, wrong, "{place}");
                            assert!(size - wrong.len() >= needed, "{place}");
                        }
                        Err(_) => assert!(size - wrong.len() < needed, "{place}"),
                    }
                }
            }
        }
    }
}

// ---- crafted ciphertexts -----------------------------------------------------------------------

fn crafted_request(finished: &Finished) -> (SquashedBlock, RequestId) {
    let block = crafted(finished.shares[0].dimension(), 0);
    let request = RequestId::of(&finished.context(1), &[block.digest()]);
    (block, request)
}

/// The attack is real: whoever gets 2t+1 shares of a crafted ciphertext has a bit of the key.
#[test]
fn shares_of_a_crafted_ciphertext_would_give_key_bits() {
    let finished = finished_ceremony(4, 14);
    let committee = finished.parameters.committee;
    let mut ones = 0;
    for i in 0..64 {
        let block = crafted(finished.shares[0].dimension(), i);
        let partials: Vec<_> = finished
            .shares
            .iter()
            .map(|s| {
                (
                    s.origin().participant,
                    s.decryptor().partial(std::slice::from_ref(&block)).unwrap(),
                )
            })
            .collect();
        let views: Vec<_> = partials.iter().map(|(j, bytes)| (*j, bytes.as_slice())).collect();
        let phase = combine(committee, &views, 1).unwrap().phases[0];
        let message = phase.wrapping_add(1 << (LOG2_DELTA - 1)) >> LOG2_DELTA;
        assert!(message == 0 || message == 16, "bit {i}: {message}");
        ones += u32::from(message == 16);
    }
    assert!((10..54).contains(&ones), "{ones} of 64 bits are 1");
}

#[test]
fn a_crafted_ciphertext_is_decrypted_by_nobody() {
    for n in [4, 7] {
        let finished = finished_ceremony(n, 15);
        let blocks = finished.encrypt(VALUE);
        let (_, request) = crafted_request(&finished);
        for seed in 0..4 {
            let plan = DecryptionPlan::new(n).behaves(2, DecryptionBehaviour::ProbeKey);
            let report = finished.decrypt(&blocks, &plan, seed);
            // The slot's own outputs are decrypted as always.
            assert_decrypts(&report);
            for (_, member) in report.honest() {
                assert!(!member.shared.contains(&request), "seed {seed}: {report:?}");
                let refusal = (self::member(2), request, Skip::NotAuthorised);
                assert!(member.refused.contains(&refusal), "seed {seed}: {report:?}");
            }
        }
    }
}

/// Nor can a member be made to by its own side: not without a lock, with one for something else, or
/// beside the outputs that the slot has.
#[test]
fn a_lock_authorises_one_evaluation() {
    let finished = finished_ceremony(4, 16);
    let (block, _) = crafted_request(&finished);
    let (context, other) = (finished.context(1), finished.context(2));
    let outputs = || RecomputedOutputs { context, blocks: vec![block.clone()] };
    let mut machine = finished.decryptor(member(1), DecryptionCounter::default());
    let mut short = finished.lock(&context);
    short.votes.truncate(2);
    assert_eq!(
        machine.authorise(outputs(), &short, 0),
        Err(AuthoriseError::Lock(LockError::TooFew { given: 2, needed: 3 }))
    );
    let mut forged = finished.lock(&context);
    forged.votes[1].1 = forged.votes[0].1;
    let refused = machine.authorise(outputs(), &forged, 0);
    assert_eq!(refused, Err(AuthoriseError::Lock(LockError::Signature(member(2)))));
    let refused = machine.authorise(outputs(), &finished.lock(&other), 0);
    assert!(matches!(refused, Err(AuthoriseError::OtherLock { .. })), "{refused:?}");

    let lock = finished.lock(&context);
    let real = RecomputedOutputs { context, blocks: finished.encrypt(VALUE) };
    machine.authorise(real, &lock, 0).unwrap();
    let refused = machine.authorise(outputs(), &lock, 0);
    assert!(matches!(refused, Err(AuthoriseError::SlotTaken { .. })), "{refused:?}");
}
