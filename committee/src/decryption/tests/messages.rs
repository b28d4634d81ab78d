//! Messages that come early, twice, relayed, late, damaged, or not at all.

use std::sync::Arc;

use veil_protocol_spec::CodecError;

use super::*;

#[test]
fn of_two_different_shares_the_first_counts_and_both_convict() {
    let mut bench = Bench::new(4);
    let roster = roster(bench.committee);
    // Before and after authorisation.
    for (slot, early) in [(1, true), (2, false)] {
        let outputs = bench.outputs(slot);
        let (first, second) = (bench.share(2, &outputs), bench.wrong_share(2, &outputs, 5));
        if !early {
            bench.start(1, &outputs);
        }
        assert_eq!(bench.at(1).handle(index(2), &first.to_wire(), 0), Verdict::Valid);
        let again = bench.at(1).handle(index(2), &first.to_wire(), 0);
        assert_eq!(again, Verdict::Skip(Skip::Duplicate));
        let verdict = bench.at(1).handle(index(2), &second.to_wire(), 0);
        let Verdict::Fault(fault) = verdict else { panic!("{verdict:?}") };
        assert_eq!(fault.culprit, index(2));
        assert_eq!(fault.evidence.convict(&roster), Ok(index(2)));
        if early {
            bench.start(1, &outputs);
        }
        let share = bench.share(3, &outputs).to_wire();
        assert_eq!(bench.at(1).handle(index(3), &share, 0), Verdict::Valid);
        let effects = specials(bench.at(1));
        if !early {
            assert_eq!(completion(&effects).unwrap().combined.messages(), MESSAGES);
        }
        let status = &bench.at(1).status()[slot as usize - 1];
        assert!(status.complete && status.culprits.is_empty(), "{status:?}");
    }
}

#[test]
fn evidence_that_proves_nothing_convicts_nobody() {
    let mut bench = Bench::new(4);
    let (committee, roster) = (bench.committee, roster(bench.committee));
    let (outputs, other) = (bench.outputs(1), bench.outputs(2));
    let right = bench.share(2, &outputs);
    let wrong = bench.wrong_share(2, &outputs, 0);
    let convict = |first: &DecryptionMessage, second: &DecryptionMessage| {
        let (first, second) = (first.clone(), second.clone());
        Evidence::TwoPartials { first, second }.convict(&roster)
    };
    assert_eq!(convict(&right, &wrong), Ok(index(2)));
    assert_eq!(convict(&right, &right), Err(InvalidEvidence));
    assert_eq!(convict(&right, &bench.share(2, &other)), Err(InvalidEvidence));
    assert_eq!(convict(&right, &bench.wrong_share(3, &outputs, 0)), Err(InvalidEvidence));
    let ask = signed(id(&outputs), 2, DecryptionPayload::Request);
    assert_eq!(convict(&right, &ask), Err(InvalidEvidence));
    let mut forged = wrong.clone();
    forged.payload = DecryptionPayload::Partial(Bytes(vec![1; 96]));
    assert_eq!(convict(&right, &forged), Err(InvalidEvidence));

    let mut shares: Vec<_> = [1, 3, 4].map(|j| bench.share(j, &outputs)).to_vec();
    shares.push(wrong);
    assert_eq!(wrong_shares(committee, &roster, &shares), Ok(vec![index(2)]));
    assert_eq!(wrong_shares(committee, &roster, &shares[..2]), Err(InvalidEvidence));
    assert_eq!(wrong_shares(committee, &roster, &shares[1..]), Err(InvalidEvidence));
    assert_eq!(wrong_shares(committee, &roster, &[]), Err(InvalidEvidence));
    shares[3] = forged;
    assert_eq!(wrong_shares(committee, &roster, &shares), Err(InvalidEvidence));
    shares[3] = bench.share(2, &other);
    assert_eq!(wrong_shares(committee, &roster, &shares), Err(InvalidEvidence));
    shares[3] = shares[0].clone();
    assert_eq!(wrong_shares(committee, &roster, &shares), Err(InvalidEvidence));
}

#[test]
fn what_is_no_message_of_a_member_is_left_aside() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let request = bench.start(1, &outputs);
    let share = bench.share(2, &outputs);
    let mut skipped = |from: u8, bytes: &[u8]| {
        let verdict = bench.at(1).handle(index(from), bytes, 0);
        assert_eq!(drain(bench.at(1)), []);
        let Verdict::Skip(skip) = verdict else { panic!("{verdict:?}") };
        skip
    };
    let name = DecryptionMessage::NAME;
    let max = DecryptionMessage::MAX_BYTES;
    let long = CodecError::TooLong { name, len: max + 1, max };
    assert_eq!(skipped(2, &vec![1; max + 1]), Skip::Codec(long));
    assert_eq!(skipped(2, &[]), Skip::Codec(CodecError::Malformed { name }));
    let mut bytes = share.to_wire();
    bytes[0] = 9;
    assert!(matches!(skipped(2, &bytes), Skip::Codec(CodecError::Version { version: 9, .. })));
    bytes = share.to_wire();
    assert_eq!(skipped(2, &bytes[..60]), Skip::Codec(CodecError::Malformed { name }));
    bytes.push(0);
    assert_eq!(skipped(2, &bytes), Skip::Codec(CodecError::NotCanonical { name }));

    // Another member's share under this one's name, or a share for another request.
    let mut forged = share.clone();
    forged.sender = index(3);
    assert_eq!(skipped(3, &forged.to_wire()), Skip::BadSignature);
    let mut forged = share.clone();
    forged.request = RequestId(Blake3Digest([1; 32]));
    assert_eq!(skipped(2, &forged.to_wire()), Skip::BadSignature);

    assert_eq!(skipped(13, &share.to_wire()), Skip::NotAMember(index(13)));
    let mut outsider = share.clone();
    outsider.sender = index(5);
    assert_eq!(skipped(2, &outsider.to_wire()), Skip::NotAMember(index(5)));
    let own = signed(request, 1, DecryptionPayload::Partial(Bytes(vec![0; 96])));
    assert_eq!(skipped(2, &own.to_wire()), Skip::Own);
    let ask = signed(request, 2, DecryptionPayload::Request);
    assert_eq!(skipped(3, &ask.to_wire()), Skip::RelayedRequest);
    assert_eq!(bench.at(1).status()[0].received, [index(1)]);
}

#[test]
fn shares_may_be_relayed_and_replays_change_nothing() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    bench.start(1, &outputs);
    let share = bench.share(2, &outputs).to_wire();
    assert_eq!(bench.at(1).handle(index(3), &share, 0), Verdict::Valid);
    for from in [2, 3, 4] {
        let verdict = bench.at(1).handle(index(from), &share, 0);
        assert_eq!(verdict, Verdict::Skip(Skip::Duplicate));
    }
    assert_eq!(bench.at(1).status()[0].received, [index(1), index(2)]);
}

#[test]
fn early_shares_are_used_later_within_bounds() {
    let mut bench = Bench::new(4);
    let all: Vec<_> = (0..=MAX_EARLY as u64).map(|slot| bench.outputs(slot)).collect();
    let shares = |bench: &Bench, j| all.iter().map(|o| bench.share(j, o).to_wire()).collect();
    let (second, third): (Vec<_>, Vec<_>) = (shares(&bench, 2), shares(&bench, 3));
    for share in &second {
        assert_eq!(bench.at(1).handle(index(2), share, 0), Verdict::Valid);
    }
    let newest = MAX_EARLY;
    let relayed = bench.at(1).handle(index(2), &third[newest], 0);
    assert_eq!(relayed, Verdict::Skip(Skip::RelayedEarly));
    assert_eq!(bench.at(1).handle(index(3), &third[newest], 0), Verdict::Valid);
    assert_eq!(drain(bench.at(1)), []);
    // The oldest was pushed out, the newest completes at once.
    bench.start(1, &all[0]);
    assert_eq!(bench.at(1).status()[0].received, [index(1)]);
    let lock = bench.lock(newest as u64);
    bench.at(1).authorise(all[newest].clone(), &lock, 0).unwrap();
    bench.at(1).persisted(PersistId(1));
    let effects = drain(bench.at(1));
    let position = |is: fn(&EffectOf<Decryptor>) -> bool| effects.iter().position(is).unwrap();
    let broadcast = position(|e| matches!(e, Effect::Broadcast(_)));
    let complete = position(|e| matches!(e, Effect::Special(DecryptionEffect::Complete(_))));
    assert!(broadcast < complete, "others wait for the share");
}

#[test]
fn absent_members_are_asked_in_rounds_then_named_and_asked_without_end() {
    let mut bench = Bench::new(7);
    let outputs = bench.outputs(1);
    let request = bench.start(1, &outputs);
    let retry = Retry { interval: 100, rounds: 3, longest: 450 };
    let first = bench.machines.remove(0).with_retry(retry);
    bench.machines.insert(0, first);
    let share = bench.share(2, &outputs).to_wire();
    assert_eq!(bench.at(1).handle(index(2), &share, 0), Verdict::Valid);
    bench.at(1).handle_timeout(1_999);
    let ask: Arc<[u8]> = signed(request, 1, DecryptionPayload::Request).to_wire().into();
    assert_eq!(drain(bench.at(1)), []);
    assert_eq!(bench.at(1).poll_timeout(), Some(2_000));
    let mut now = 2_000;
    for round in 1..=3 {
        bench.at(1).handle_timeout(now);
        let expected: Vec<_> =
            (3..=7).map(|j| Effect::Send { to: index(j), bytes: ask.clone() }).collect();
        assert_eq!(drain(bench.at(1)), expected);
        now += 100;
        assert_eq!(bench.at(1).poll_timeout(), Some(now));
        assert_eq!(bench.at(1).status()[0].asked, round);
    }
    // Named from now on, and asked after pauses that double up to the longest.
    let participants: Vec<_> = (3..=7).map(index).collect();
    for pause in [200, 400, 450, 450, 450] {
        bench.at(1).handle_timeout(now - 1);
        assert_eq!(drain(bench.at(1)), []);
        bench.at(1).handle_timeout(now);
        let participants = participants.clone();
        let outstanding = DecryptionEffect::Outstanding { request, participants };
        let mut expected = vec![Effect::Special(outstanding)];
        expected.extend((3..=7).map(|j| Effect::Send { to: index(j), bytes: ask.clone() }));
        assert_eq!(drain(bench.at(1)), expected);
        now += pause;
        assert_eq!(bench.at(1).poll_timeout(), Some(now));
    }
    assert_eq!(bench.at(1).status()[0].outstanding, participants);
    // Authorising again asks again.
    let lock = bench.lock(1);
    bench.at(1).authorise(outputs.clone(), &lock, now).unwrap();
    assert_eq!(drain(bench.at(1)), []);
    assert_eq!(bench.at(1).poll_timeout(), Some(now + 100));
    // It was not dropped.
    for j in 3..=5 {
        let share = bench.share(j, &outputs).to_wire();
        assert_eq!(bench.at(1).handle(index(j), &share, now), Verdict::Valid);
    }
    assert!(completion(&specials(bench.at(1))).is_some());
    bench.at(1).handle_timeout(now + 100);
    assert_eq!(drain(bench.at(1)), []);
}

#[test]
fn whoever_asks_gets_the_share_alone_and_not_too_often() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let request = bench.start(1, &outputs);
    let bytes: Arc<[u8]> = bench.share(1, &outputs).to_wire().into();
    let ask = |j| signed(request, j, DecryptionPayload::Request).to_wire();
    for _ in 0..MAX_ANSWERS {
        assert_eq!(bench.at(1).handle(index(2), &ask(2), 0), Verdict::Valid);
        assert_eq!(drain(bench.at(1)), [Effect::Send { to: index(2), bytes: bytes.clone() }]);
    }
    let reason = Skip::TooOften;
    assert_eq!(bench.at(1).handle(index(2), &ask(2), 0), Verdict::Skip(reason));
    assert_eq!(
        specials(bench.at(1)),
        [DecryptionEffect::Refused { from: index(2), request, reason }]
    );
    // A member that was cut off for long is answered again after a pause.
    let pause = Retry::default().longest / 2;
    assert_eq!(bench.at(1).handle(index(2), &ask(2), pause - 1), Verdict::Skip(reason));
    drain(bench.at(1));
    assert_eq!(bench.at(1).handle(index(2), &ask(2), pause), Verdict::Valid);
    assert_eq!(bench.at(1).handle(index(2), &ask(2), pause + 1), Verdict::Skip(reason));
    drain(bench.at(1));
    assert_eq!(bench.at(1).handle(index(3), &ask(3), 0), Verdict::Valid);

    bench.at(1).forget(request);
    drain(bench.at(1));
    assert_eq!(bench.at(1).handle(index(3), &ask(3), 0), Verdict::Skip(Skip::Forgotten));
    let reason = Skip::Forgotten;
    assert_eq!(
        specials(bench.at(1)),
        [DecryptionEffect::Refused { from: index(3), request, reason }]
    );
    let share = bench.share(2, &outputs).to_wire();
    assert_eq!(bench.at(1).handle(index(2), &share, 0), Verdict::Skip(Skip::Forgotten));
}

#[test]
fn the_oldest_complete_requests_are_forgotten() {
    let mut bench = Bench::new(1);
    let me = index(1);
    for slot in 0..MAX_COMPLETE as u64 + 3 {
        let outputs = bench.outputs(slot);
        let outcome = bench.run(&outputs, &[me], |_, bytes| bytes);
        assert_eq!(completion(&outcome[0]).unwrap().combined.messages(), MESSAGES);
    }
    let kept: Vec<_> = bench.at(1).status().iter().map(|s| s.context.slot.0).collect();
    assert_eq!(kept, Vec::from_iter(3..MAX_COMPLETE as u64 + 3));
}

/// The openings of a slot come one after the other, and one member may be slower than the others.
#[test]
fn a_member_that_is_behind_in_a_slot_need_not_ask() {
    let mut bench = Bench::new(4);
    let lock = bench.lock(1);
    let step = |step: u16, mut outputs: RecomputedOutputs| {
        outputs.context.step = step;
        outputs.context.before = Blake3Digest([step as u8; 32]);
        outputs
    };
    let steps: Vec<_> = (0..MAX_EARLY as u16).map(|k| step(k, bench.outputs(1))).collect();
    for j in [2, 3] {
        for outputs in &steps {
            let share = bench.share(j, outputs).to_wire();
            assert_eq!(bench.at(1).handle(index(j), &share, 0), Verdict::Valid);
        }
    }
    for (number, outputs) in (0..).zip(&steps) {
        bench.at(1).authorise(outputs.clone(), &lock, 0).unwrap();
        bench.at(1).persisted(PersistId(number));
        let found = specials(bench.at(1));
        assert_eq!(completion(&found).unwrap().context, outputs.context);
    }
    // What comes after something else is another sequence, and the lock is for one.
    let mut other = steps[3].clone();
    other.context.before = Blake3Digest([0xff; 32]);
    let (slot, manifest) = (Slot(1), other.context.manifest);
    let taken = AuthoriseError::SlotTaken { slot, step: 3, manifest };
    assert_eq!(bench.at(1).authorise(other, &lock, 0), Err(taken));
}
