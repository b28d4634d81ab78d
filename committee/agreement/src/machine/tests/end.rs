//! How a slot ends: the second instance.

use veil_protocol_spec::agreement::{SlotEnd, SlotOutcome};

use super::*;

// Member 2 proposes in round 0, member 3 in round 1, member 4 in round 2.
const END: Instance = Instance::end(SLOT);

/// Void, or an outcome with these bytes in it.
fn end(outcome: Option<u8>) -> SlotEnd {
    let outcome = outcome.map(|byte| SlotOutcome {
        evaluation: Blake3Digest([byte; 32]),
        assignments_root: KeccakDigest([byte; 32]),
        state_root: KeccakDigest([byte; 32]),
    });
    SlotEnd { binding: binding(), slot: SLOT, manifest: manifest(SLOT, 1).digest(), outcome }
}

fn proposal_of(instance: Instance, bytes: Vec<u8>, round: u32, by: u8) -> Vec<u8> {
    let bytes = Bytes(bytes);
    let value = digest_of(instance.subject, &bytes);
    let signed = Proposal { instance, round, locked_in: None, value }.sign(&binding(), &secret(by));
    AgreementMessage::Proposal(signed, bytes).to_wire()
}

fn proposed(end: &SlotEnd, round: u32, by: u8) -> Vec<u8> {
    proposal_of(END, end.to_wire(), round, by)
}

fn signed_end(round: u32, kind: VoteKind, end: Option<&SlotEnd>, j: u8) -> SignedVote {
    let value = end.map(SlotEnd::digest);
    Vote { instance: END, round, kind, value, voter: member(j) }.sign(&binding(), &secret(j))
}

fn end_vote(round: u32, kind: VoteKind, end: Option<&SlotEnd>, j: u8) -> Vec<u8> {
    AgreementMessage::Vote(signed_end(round, kind, end, j)).to_wire()
}

/// Member 3 in the end of [`SLOT`].
fn started_end(records: Vec<Record>) -> Agreement {
    let mut machine = machine(3, records);
    machine.start(END, 0).unwrap();
    machine
}

fn valid(machine: &mut Agreement, from: u8, bytes: &[u8]) {
    assert_eq!(machine.handle(member(from), bytes, 0), Verdict::Valid);
}

/// The values that the host is asked about.
fn asked(effects: &[EffectOf<Agreement>]) -> Vec<Value> {
    let value = |effect: &EffectOf<Agreement>| match effect {
        Effect::Special(AgreementEffect::Validate { value, by_quorum: false, .. }) => {
            Some(value.clone())
        }
        _ => None,
    };
    effects.iter().filter_map(value).collect()
}

/// t+1 members have reached the round.
fn enter(machine: &mut Agreement, round: u32) {
    let proof = [1, 2].map(|j| signed_end(round, VoteKind::Prevote, None, j)).to_vec();
    valid(machine, 1, &AgreementMessage::Round(proof).to_wire());
}

#[test]
fn an_end_is_valid_when_t_plus_1_others_have_voted_for_it() {
    let outcome = end(Some(1));
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 2, &proposed(&outcome, 0, 2));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!((asked(&effects), voted(&effects)), (vec![Value::End(outcome)], vec![]));
    // Two votes of one member are one member's.
    valid(&mut machine, 2, &end_vote(0, VoteKind::Prevote, Some(&outcome), 2));
    valid(&mut machine, 2, &end_vote(0, VoteKind::Precommit, Some(&outcome), 2));
    valid(&mut machine, 4, &end_vote(0, VoteKind::Prevote, Some(&end(None)), 4));
    assert_eq!(drain_all(&mut machine).1, []);
    // The host has not answered.
    valid(&mut machine, 1, &end_vote(0, VoteKind::Precommit, Some(&outcome), 1));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(outcome.digest()))]);
    // What it says now changes nothing.
    machine.validated(outcome.digest(), Validity::Invalid, 0);
    assert_eq!(drain_all(&mut machine), (Vec::new(), Vec::new()));
}

#[test]
fn votes_of_other_rounds_and_before_the_proposal_count() {
    let outcome = end(Some(1));
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 1, &end_vote(0, VoteKind::Prevote, Some(&outcome), 1));
    valid(&mut machine, 4, &end_vote(2, VoteKind::Prevote, Some(&outcome), 4));
    drain_all(&mut machine);
    valid(&mut machine, 2, &proposed(&outcome, 0, 2));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(asked(&effects), []);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(outcome.digest()))]);
}

#[test]
fn t_plus_1_votes_overrule_the_host() {
    let outcome = end(Some(1));
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 2, &proposed(&outcome, 0, 2));
    machine.validated(outcome.digest(), Validity::Invalid, 0);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
    for j in [1, 2] {
        valid(&mut machine, j, &end_vote(0, VoteKind::Prevote, Some(&outcome), j));
    }
    assert_eq!(voted(&drain_all(&mut machine).1), []);
    valid(&mut machine, 4, &end_vote(0, VoteKind::Prevote, Some(&outcome), 4));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Precommit, Some(outcome.digest()))]);
}

#[test]
fn votes_for_a_manifest_are_no_reason_to_vote_for_it() {
    let manifest = manifest(SLOT, 1);
    let mut machine = started();
    valid(&mut machine, 1, &proposal(&manifest.to_wire(), 0, 1));
    for j in [1, 2] {
        valid(&mut machine, j, &vote(0, VoteKind::Prevote, Some(&manifest), j));
    }
    assert_eq!(voted(&drain_all(&mut machine).1), []);
}

#[test]
fn a_refusal_of_an_end_holds_for_one_round() {
    let void = end(None);
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 2, &proposed(&void, 0, 2));
    assert_eq!(asked(&drain_all(&mut machine).1), [Value::End(void)]);
    machine.validated(void.digest(), Validity::Invalid, 0);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
    // Once is enough.
    machine.validated(void.digest(), Validity::Invalid, 0);
    assert_eq!(drain_all(&mut machine), (Vec::new(), Vec::new()));

    enter(&mut machine, 2);
    drain_all(&mut machine);
    // It is not what this round waits for.
    machine.validated(void.digest(), Validity::Invalid, 0);
    assert_eq!(drain_all(&mut machine), (Vec::new(), Vec::new()));
    valid(&mut machine, 4, &proposed(&void, 2, 4));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!((asked(&effects), voted(&effects)), (vec![Value::End(void)], vec![]));
    machine.validated(void.digest(), Validity::Valid, 0);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(void.digest()))]);
}

#[test]
fn an_end_that_becomes_valid_later_is_voted_for_in_later_rounds_unasked() {
    let void = end(None);
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 2, &proposed(&void, 0, 2));
    machine.validated(void.digest(), Validity::Invalid, 0);
    enter(&mut machine, 2);
    machine.validated(void.digest(), Validity::Valid, 0);
    drain_all(&mut machine);
    valid(&mut machine, 4, &proposed(&void, 2, 4));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(asked(&effects), []);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(void.digest()))]);
}

#[test]
fn what_is_said_of_one_instance_does_not_count_in_the_other() {
    let manifest = manifest(SLOT, 1);
    let mut machine = started_end(Vec::new());
    drain_all(&mut machine);
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        let mut replayed = signed(SLOT, 0, kind, Some(&manifest), 1);
        replayed.vote.instance = END;
        let replayed = AgreementMessage::Vote(replayed).to_wire();
        assert_eq!(skipped(&mut machine, 1, &replayed), Skip::BadSignature);
    }
    let said = vote(0, VoteKind::Prevote, Some(&manifest), 1);
    assert_eq!(skipped(&mut machine, 1, &said), Skip::Past(INSTANCE));
    let mut relabelled = lock(&manifest, &[1, 2, 4]);
    relabelled.instance = END;
    let decision = AgreementMessage::Decision(relabelled, Bytes(manifest.to_wire())).to_wire();
    let refused = skipped(&mut machine, 1, &decision);
    assert_eq!(refused, Skip::Lock(LockError::Signature(member(1))));
    assert_eq!(drain_all(&mut machine).1, []);
}

#[test]
fn a_value_of_the_other_subject_is_its_proposers_fault() {
    let refused = |machine: &mut Agreement, bytes: &[u8], by: u8| {
        let Verdict::Fault(fault) = machine.handle(member(4), bytes, 0) else { panic!() };
        let (_, effects) = drain_all(machine);
        assert_eq!((fault.culprit, asked(&effects)), (member(by), vec![]));
        assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
        fault.kind
    };
    let mut machine = started_end(Vec::new());
    let bytes = proposal_of(END, manifest(SLOT, 2).to_wire(), 0, 2);
    let kind = refused(&mut machine, &bytes, 2);
    assert!(matches!(kind, FaultKind::Value(ValueError::End(_))), "{kind}");

    let mut machine = started_end(Vec::new());
    let elsewhere = SlotEnd { slot: Slot(5), ..end(None) };
    let kind = refused(&mut machine, &proposed(&elsewhere, 0, 2), 2);
    assert_eq!(kind, FaultKind::Value(ValueError::Elsewhere("slot")));

    let mut machine = started();
    let bytes = proposal_of(INSTANCE, end(None).to_wire(), 0, 1);
    let kind = refused(&mut machine, &bytes, 1);
    assert!(matches!(kind, FaultKind::Value(ValueError::Manifest(_))), "{kind}");
}

/// Decides the manifest of [`SLOT`] by the others' lock.
fn decide_manifest(machine: &mut Agreement) -> Vec<u8> {
    let manifest = manifest(SLOT, 1);
    let lock = lock(&manifest, &[1, 2, 4]);
    let decision = AgreementMessage::Decision(lock, Bytes(manifest.to_wire())).to_wire();
    valid(machine, 1, &decision);
    decision
}

#[test]
fn a_member_in_the_manifest_is_called_to_the_end_and_answers_from_there() {
    let mut machine = started();
    let nil = |j| end_vote(0, VoteKind::Prevote, None, j);
    let decision = decide_manifest(&mut machine);
    drain_all(&mut machine);
    assert_eq!(skipped(&mut machine, 1, &nil(1)), Skip::Ahead(END));
    assert_eq!(drain_all(&mut machine).1, []);
    assert_eq!(skipped(&mut machine, 2, &nil(2)), Skip::Ahead(END));
    let behind = AgreementEffect::Behind { instance: END };
    assert_eq!(drain_all(&mut machine).1, [Effect::Special(behind)]);

    machine.start(END, 0).unwrap();
    drain_all(&mut machine);
    assert_eq!(skipped(&mut machine, 1, &nil(1)), Skip::Duplicate);
    assert_eq!(machine.status().unwrap().proposer, member(2));
    valid(&mut machine, 1, &ask(INSTANCE));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(effects, [Effect::Send { to: member(1), bytes: decision.into() }]);
}

#[test]
fn early_messages_of_one_member_are_bounded() {
    let mut machine = started();
    for round in 0..200 {
        let nil = end_vote(round, VoteKind::Prevote, None, 1);
        assert_eq!(skipped(&mut machine, 1, &nil), Skip::Ahead(END));
    }
    assert_eq!(machine.early[&member(1)].len(), 64);
}

#[test]
fn a_stuck_member_gets_the_proposal_of_a_value_that_it_holds() {
    let void = end(None);
    let mut machine = started_end(Vec::new());
    valid(&mut machine, 2, &proposed(&void, 0, 2));
    enter(&mut machine, 2);
    let again = proposed(&void, 2, 4);
    valid(&mut machine, 4, &again);
    drain_all(&mut machine);
    let held = vec![void.digest()];
    let ask = AgreementMessage::Ask { instance: END, round: 2, held }.to_wire();
    valid(&mut machine, 1, &ask);
    let (_, effects) = drain_all(&mut machine);
    let again = Effect::Send { to: member(1), bytes: again.into() };
    assert!(effects.contains(&again), "{effects:?}");
}

#[test]
fn an_end_resumes_with_what_followed_from_the_others_votes() {
    let outcome = end(Some(1));
    let mut before = started_end(Vec::new());
    let mut records = drain_all(&mut before).0;
    valid(&mut before, 2, &proposed(&outcome, 0, 2));
    is_asked_again_after_a_restart(&mut before, &mut records, outcome);
    valid(&mut before, 2, &end_vote(0, VoteKind::Prevote, Some(&outcome), 2));
    records.extend(drain_all(&mut before).0);
    valid(&mut before, 1, &end_vote(0, VoteKind::Prevote, Some(&outcome), 1));
    let (new, effects) = drain_all(&mut before);
    records.extend(new);
    // Three prevotes with its own.
    let value = Some(outcome.digest());
    let votes = |effects: &[_]| voted(effects).into_iter().collect::<BTreeMap<_, _>>();
    let both = BTreeMap::from([(VoteKind::Prevote, value), (VoteKind::Precommit, value)]);
    assert_eq!(votes(&effects), both);

    let mut after = started_end(records);
    let (new, again) = drain_all(&mut after);
    assert_eq!((new, votes(&again), asked(&again)), (Vec::new(), both, Vec::new()));
}

/// A restart before the end is known to be valid asks the host again, also when it has refused.
fn is_asked_again_after_a_restart(
    machine: &mut Agreement,
    records: &mut Vec<Record>,
    value: SlotEnd,
) {
    records.extend(drain_all(machine).0);
    let mut refusing = started_end(records.clone());
    let mut refused = records.clone();
    assert_eq!(asked(&drain_all(&mut refusing).1), [Value::End(value)]);
    refusing.validated(value.digest(), Validity::Invalid, 0);
    let (new, effects) = drain_all(&mut refusing);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
    refused.extend(new);
    let mut after = started_end(refused);
    let (_, effects) = drain_all(&mut after);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
    assert_eq!(asked(&effects), [Value::End(value)]);
}

#[test]
fn the_end_may_be_started_after_a_restart_in_the_manifest() {
    let mut before = machine(3, Vec::new());
    before.start(INSTANCE, 0).unwrap();
    let mut records = drain_all(&mut before).0;
    // Undecided, and a host that knows the slot's lock from elsewhere.
    let mut after = started_end(records.clone());
    let (new, effects) = drain_all(&mut after);
    assert_eq!(new.iter().map(|r| r.instance).collect::<Vec<_>>(), [END]);
    assert_eq!(effects, []);
    assert_eq!(skipped(&mut after, 1, &ask(INSTANCE)), Skip::Past(INSTANCE));

    // Decided: others still get the decision.
    let decision = decide_manifest(&mut before);
    records.extend(drain_all(&mut before).0);
    let mut after = started_end(records.clone());
    drain_all(&mut after);
    valid(&mut after, 1, &ask(INSTANCE));
    let (_, effects) = drain_all(&mut after);
    assert_eq!(effects, [Effect::Send { to: member(1), bytes: decision.into() }]);

    // A restart in the end leaves the manifest's records aside.
    records.extend(new);
    let mut after = machine(3, records);
    assert_eq!(after.instance(), END);
    let refused = after.start(INSTANCE, 0);
    assert_eq!(refused, Err(StartError::NotAfter { instance: INSTANCE, last: END }));
    after.start(END, 0).unwrap();
    assert_eq!(drain_all(&mut after), (Vec::new(), Vec::new()));
}

#[test]
fn the_decisions_of_four_slots_are_kept() {
    let mut machine = started();
    for slot in 5..11 {
        for instance in [Instance::manifest(Slot(slot)), Instance::end(Slot(slot))] {
            machine.start(instance, 0).unwrap();
            let bytes = match instance.subject {
                Subject::Manifest => manifest(instance.slot, 1).to_wire(),
                Subject::End => SlotEnd { slot: instance.slot, ..end(None) }.to_wire(),
            };
            let value = digest_of(instance.subject, &Bytes(bytes.clone()));
            let digest = Lock::vote_digest(&binding(), instance, 0, &value);
            let votes = [1, 2, 4].map(|j| (member(j), secret(j).sign(&digest))).to_vec();
            let lock = Lock { binding: binding(), instance, round: 0, value, votes };
            valid(&mut machine, 1, &AgreementMessage::Decision(lock, Bytes(bytes)).to_wire());
        }
    }
    let kept: Vec<_> = machine.decisions.iter().map(|(instance, _)| instance.slot.0).collect();
    assert_eq!(kept, [7, 7, 8, 8, 9, 9, 10, 10]);
}

#[test]
fn any_member_proposes_an_end_and_only_one_of_this_slot() {
    let mut machine = machine(2, Vec::new());
    machine.start(END, 0).unwrap();
    let get = AgreementEffect::GetValue { instance: END, round: 0 };
    assert_eq!(drain_all(&mut machine).1, [Effect::Special(get)]);
    let refused = machine.propose(END, 0, manifest(SLOT, 2).to_wire(), 0);
    assert!(matches!(refused, Err(ProposeError::Value(ValueError::End(_)))), "{refused:?}");
    let elsewhere = SlotEnd { slot: Slot(5), ..end(None) }.to_wire();
    let refused = machine.propose(END, 0, elsewhere, 0);
    assert_eq!(refused, Err(ProposeError::Value(ValueError::Elsewhere("slot"))));
    assert_eq!(machine.propose(END, 0, end(None).to_wire(), 0), Ok(()));
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(end(None).digest()))]);
}
