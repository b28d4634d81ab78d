//! What stored records make of a machine.

use super::*;

#[test]
fn a_restart_sends_the_same_again_and_another_epochs_records_count_for_nothing() {
    let valid = manifest(SLOT, 1);
    let mut before = machine(3, Vec::new());
    before.start(INSTANCE, 0).unwrap();
    let mut records = drain_all(&mut before).0;
    assert_eq!(before.handle(member(1), &proposal(&valid.to_wire(), 0, 1), 0), Verdict::Valid);
    records.extend(drain_all(&mut before).0);

    // Not validated yet: the host is asked again.
    let mut after = machine(3, records.clone());
    after.start(INSTANCE, 0).unwrap();
    let (new, effects) = drain_all(&mut after);
    assert_eq!(new, []);
    assert!(
        matches!(effects[..], [Effect::Special(AgreementEffect::Validate { .. })]),
        "{effects:?}"
    );

    before.validated(valid.digest(), Validity::Valid, 0);
    let (new, effects) = drain_all(&mut before);
    records.extend(new);
    let mut after = machine(3, records.clone());
    assert_eq!(after.instance(), INSTANCE);
    after.start(INSTANCE, 0).unwrap();
    assert_eq!(drain_all(&mut after), (Vec::new(), effects));

    records.iter_mut().for_each(|record| record.binding.epoch = Epoch(4));
    assert_eq!(machine(3, records).instance(), Instance::default());
}

/// Votes of a slot are forgotten, or not read: nothing is said in it, whatever else is known.
#[test]
fn a_member_takes_no_part_in_slots_whose_votes_may_be_forgotten() {
    let mut before = machine(3, Vec::new());
    before.start(INSTANCE, 0).unwrap();
    let records = drain_all(&mut before).0;
    let next = Instance::manifest(Slot(SLOT.0 + 1));
    for records in [records.clone(), Vec::new()] {
        let mut after = machine(3, records);
        after.abstain_through(SLOT);
        let last = Instance::end(SLOT);
        for instance in [INSTANCE, last] {
            assert_eq!(after.start(instance, 0), Err(StartError::NotAfter { instance, last }));
        }
        assert_eq!(drain_all(&mut after), (Vec::new(), Vec::new()));
        assert_eq!(after.start(next, 0), Ok(()));
    }
    // Those of the slot before are no longer needed.
    let mut after = machine(3, records);
    after.abstain_through(Slot(SLOT.0 - 1));
    assert_eq!(after.start(INSTANCE, 0), Ok(()));
    assert_eq!(drain_all(&mut after).0, [], "it resumes");
}

#[test]
fn records_that_contradict_what_follows_from_them_silence_a_member() {
    let valid = manifest(SLOT, 1);
    let bytes = valid.to_wire();
    let nil = signed(SLOT, 0, VoteKind::Prevote, None, 3);
    let entries = vec![
        Entry::Started,
        Entry::Value(Bytes(bytes.clone())),
        Entry::Proposal(header(&bytes, 0, 1)),
        Entry::Validated { round: 0, value: valid.digest(), valid: true },
        Entry::Vote(nil),
    ];
    let mut machine = machine(3, vec![Record { binding: binding(), instance: INSTANCE, entries }]);
    machine.start(INSTANCE, 0).unwrap();
    let (_, effects) = drain_all(&mut machine);
    assert!(
        matches!(
            effects[..],
            [Effect::Special(AgreementEffect::Abstained { instance: INSTANCE, .. })]
        ),
        "{effects:?}"
    );
    assert!(machine.status().unwrap().abstained);
    let other = vote(0, VoteKind::Prevote, Some(&valid), 1);
    assert_eq!(skipped(&mut machine, 1, &other), Skip::Abstained(INSTANCE));
    // It still asks for the outcome and takes it.
    machine.handle_timeout(machine.poll_timeout().unwrap());
    let (_, effects) = drain_all(&mut machine);
    assert!(matches!(effects[..], [Effect::Broadcast(_)]), "{effects:?}");
    let decision = AgreementMessage::Decision(lock(&valid, &[1, 2, 4]), Bytes(bytes)).to_wire();
    assert_eq!(machine.handle(member(1), &decision, 0), Verdict::Valid);
    assert!(matches!(
        drain_all(&mut machine).1[..],
        [Effect::Special(AgreementEffect::Decided { .. })]
    ));
}

#[test]
fn waits_grow_with_the_round_up_to_the_longest() {
    use arc_malachitebft_core_types::{Round, Timeout};

    let members = Members {
        committee: Committee::new(4).unwrap(),
        binding: binding(),
        roster: Vec::new(),
        me: member(3),
    };
    let timing = Timing::default();
    let wait = |timeout| timing.wait(timeout, &members);
    assert_eq!(wait(Timeout::propose(Round::new(0))), 10_000);
    assert_eq!(wait(Timeout::prevote(Round::new(2))), 4_000);
    assert_eq!(wait(Timeout::precommit(Round::new(1_000))), 60_000);
    assert_eq!(wait(Timeout::rebroadcast(Round::new(0))), 5_000 + 5_000 * 2 / 16);
}
