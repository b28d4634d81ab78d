//! The machine against hand-made messages. Whole committees are in the tests crate.

use veil_committee_machine::EffectOf;
use veil_protocol_spec::{
    Address, ChainId, ClusterId, CodecError, Committee, Epoch, KeccakDigest, KeySetDigest,
    agreement::{Lock, LockError, Proposal, SignedVote, Vote, VoteKind},
    scheduling::{
        Binding, BlockRef, CircuitId, ClusterScope, Manifest, ManifestError, RolloutChanges,
    },
};

use super::*;
use crate::{effect::FaultKind, value::ValueError};

mod end;
mod restart;

const SLOT: Slot = Slot(4); // member 1 proposes in round 0, member 2 in round 1
const INSTANCE: Instance = Instance::manifest(SLOT);

fn binding() -> Binding {
    let (chain_id, contract, cluster) = (ChainId(1), Address([2; 20]), ClusterId([3; 32]));
    let scope = ClusterScope { chain_id, contract, cluster };
    Binding { scope, key_set: KeySetDigest([4; 32]), epoch: Epoch(5) }
}

fn member(j: u8) -> ParticipantIndex {
    ParticipantIndex::new(j).unwrap()
}

fn secret(j: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[j; 32]).unwrap()
}

fn config() -> AgreementConfig {
    AgreementConfig {
        committee: Committee::new(4).unwrap(),
        binding: binding(),
        roster: (1..=4).map(|j| secret(j).public()).collect(),
        timing: Timing::default(),
    }
}

fn machine(j: u8, records: Vec<Record>) -> Agreement {
    Agreement::new(config(), secret(j), records).unwrap()
}

/// Member 3 in [`INSTANCE`], with everything stored at once and nothing left to do.
fn started() -> Agreement {
    let mut machine = machine(3, Vec::new());
    machine.start(INSTANCE, 0).unwrap();
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(effects, []);
    machine
}

/// Stores and drains: the records, and everything else.
fn drain_all(machine: &mut Agreement) -> (Vec<Record>, Vec<EffectOf<Agreement>>) {
    let (mut records, mut effects) = (Vec::new(), Vec::new());
    while let Some(effect) = machine.poll_effect() {
        match effect {
            Effect::Persist { id, record } => {
                records.push(record);
                machine.persisted(id);
            }
            other => effects.push(other),
        }
    }
    (records, effects)
}

fn manifest(slot: Slot, proposer: u8) -> Manifest {
    Manifest {
        binding: binding(),
        slot,
        proposer: member(proposer),
        previous: KeccakDigest([1; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([2; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 0,
        policy: KeccakDigest([3; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
        telemetry: Vec::new(),
        pending: Vec::new(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    }
}

fn header(bytes: &[u8], round: u32, by: u8) -> SignedProposal {
    let value = digest_of(Subject::Manifest, &Bytes(bytes.to_vec()));
    Proposal { instance: INSTANCE, round, locked_in: None, value }.sign(&binding(), &secret(by))
}

fn proposal(bytes: &[u8], round: u32, by: u8) -> Vec<u8> {
    AgreementMessage::Proposal(header(bytes, round, by), Bytes(bytes.to_vec())).to_wire()
}

fn signed(
    slot: Slot,
    round: u32,
    kind: VoteKind,
    manifest: Option<&Manifest>,
    j: u8,
) -> SignedVote {
    let (instance, value) = (Instance::manifest(slot), manifest.map(Manifest::digest));
    Vote { instance, round, kind, value, voter: member(j) }.sign(&binding(), &secret(j))
}

fn vote(round: u32, kind: VoteKind, manifest: Option<&Manifest>, j: u8) -> Vec<u8> {
    AgreementMessage::Vote(signed(SLOT, round, kind, manifest, j)).to_wire()
}

fn lock(manifest: &Manifest, voters: &[u8]) -> Lock {
    let votes = voters
        .iter()
        .map(|j| (member(*j), signed(SLOT, 0, VoteKind::Precommit, Some(manifest), *j).signature));
    let (binding, votes) = (binding(), votes.collect());
    Lock { binding, instance: INSTANCE, round: 0, value: manifest.digest(), votes }
}

fn ask(instance: Instance) -> Vec<u8> {
    AgreementMessage::Ask { instance, round: 0, held: Vec::new() }.to_wire()
}

fn voted(effects: &[EffectOf<Agreement>]) -> Vec<(VoteKind, Option<Blake3Digest>)> {
    let vote = |effect: &EffectOf<Agreement>| match effect {
        Effect::Broadcast(bytes) => match AgreementMessage::from_wire(bytes) {
            Ok(AgreementMessage::Vote(signed)) => Some((signed.vote.kind, signed.vote.value)),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(vote).collect()
}

fn skipped(machine: &mut Agreement, from: u8, bytes: &[u8]) -> Skip {
    match machine.handle(member(from), bytes, 0) {
        Verdict::Skip(skip) => skip,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_setup_that_does_not_fit_is_refused() {
    let mut short = config();
    short.roster.pop();
    let refused = Agreement::new(short, secret(1), Vec::new()).unwrap_err();
    assert_eq!(refused, SetupError::Roster { found: 3, expected: 4 });
    let refused = Agreement::new(config(), secret(9), Vec::new()).unwrap_err();
    assert_eq!(refused, SetupError::NotAMember);
    assert!(format!("{:?}", machine(1, Vec::new())).contains("redacted"));
}

#[test]
fn the_machine_may_move_to_a_thread_of_its_own() {
    fn sent<T: Send>(_: &T) {}
    sent(&started());
}

#[test]
fn a_slot_that_takes_long_does_not_fill_memory() {
    let mut machine = started();
    for round in 0..20 {
        let turn = agreement::proposer(machine.members.committee, INSTANCE, round);
        if turn != member(3) {
            let written = Manifest {
                block: BlockRef { number: round.into(), hash: KeccakDigest([2; 32]) },
                ..manifest(SLOT, turn.get())
            };
            let bytes = proposal(&written.to_wire(), round, turn.get());
            assert_eq!(machine.handle(turn, &bytes, 0), Verdict::Valid);
        }
        let next = round + 1;
        let proof = [1, 2].map(|j| signed(SLOT, next, VoteKind::Prevote, None, j)).to_vec();
        let proof = AgreementMessage::Round(proof).to_wire();
        assert_eq!(machine.handle(member(1), &proof, 0), Verdict::Valid);
    }
    let run = machine.run.as_ref().unwrap();
    assert_eq!(machine.engine.round(), 20);
    assert!(run.held.len() <= 5 && run.proposals.len() <= 5, "{}", run.held.len());
}

#[test]
fn instances_only_go_forward() {
    let mut machine = started();
    for zero in [Instance::manifest(Slot(0)), Instance::end(Slot(0))] {
        assert_eq!(machine.start(zero, 0), Err(StartError::SlotZero));
    }
    let refuses = |machine: &mut Agreement, last| {
        for instance in [Instance::manifest(Slot(3)), Instance::end(Slot(3)), INSTANCE, last] {
            assert_eq!(machine.start(instance, 0), Err(StartError::NotAfter { instance, last }));
        }
    };
    refuses(&mut machine, INSTANCE);
    assert_eq!(machine.start(Instance::end(SLOT), 0), Ok(()));
    refuses(&mut machine, Instance::end(SLOT));
    assert_eq!(machine.start(Instance::end(Slot(9)), 0), Ok(()));
    assert_eq!(machine.instance(), Instance::end(Slot(9)));
}

#[test]
fn nothing_leaves_before_its_record_is_stored() {
    let mut machine = started();
    let valid = manifest(SLOT, 1);
    assert_eq!(machine.handle(member(1), &proposal(&valid.to_wire(), 0, 1), 0), Verdict::Valid);
    let Some(Effect::Persist { id: first, .. }) = machine.poll_effect() else { panic!() };
    assert_eq!(machine.poll_effect(), None);
    machine.persisted(first);
    assert!(matches!(
        machine.poll_effect(),
        Some(Effect::Special(AgreementEffect::Validate { by_quorum: false, .. }))
    ));
    machine.validated(valid.digest(), Validity::Valid, 0);
    let Some(Effect::Persist { id: second, .. }) = machine.poll_effect() else { panic!() };
    // What comes later waits, too, even if it changes nothing.
    let ask = ask(INSTANCE);
    assert_eq!(machine.handle(member(2), &ask, 0), Verdict::Valid);
    machine.persisted(first);
    assert_eq!(machine.poll_effect(), None);
    machine.persisted(second);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(valid.digest()))]);
    assert!(matches!(effects[1], Effect::Send { to, .. } if to == member(2)));
}

#[test]
fn messages_that_are_not_taken_are_named() {
    let mut machine = started();
    let valid = manifest(SLOT, 1);
    let bytes = valid.to_wire();
    let prevote = |j| vote(0, VoteKind::Prevote, Some(&valid), j);
    assert_eq!(skipped(&mut machine, 5, &prevote(1)), Skip::NotAMember(member(5)));
    assert_eq!(skipped(&mut machine, 3, &prevote(1)), Skip::Own);
    assert_eq!(skipped(&mut machine, 1, &prevote(3)), Skip::Own);
    let long = vec![1; AgreementMessage::MAX_BYTES + 1];
    let refused = skipped(&mut machine, 1, &long);
    assert!(matches!(refused, Skip::Codec(CodecError::TooLong { .. })));
    assert!(matches!(skipped(&mut machine, 1, &[1, 99]), Skip::Codec(_)));

    let mut forged = signed(SLOT, 0, VoteKind::Prevote, Some(&valid), 1);
    forged.vote.voter = member(2);
    let forged = AgreementMessage::Vote(forged).to_wire();
    assert_eq!(skipped(&mut machine, 2, &forged), Skip::BadSignature);
    let far = vote(11, VoteKind::Prevote, None, 1);
    assert_eq!(skipped(&mut machine, 1, &far), Skip::FarRound(11));
    assert_eq!(skipped(&mut machine, 1, &proposal(&bytes, 0, 2)), Skip::BadSignature);
    assert_eq!(skipped(&mut machine, 1, &proposal(&bytes, 2, 3)), Skip::Own);
    let other = AgreementMessage::Proposal(header(&bytes, 0, 1), Bytes(vec![1])).to_wire();
    assert_eq!(skipped(&mut machine, 1, &other), Skip::OtherValue);

    assert_eq!(machine.handle(member(4), &prevote(1), 0), Verdict::Valid);
    assert_eq!(skipped(&mut machine, 1, &prevote(1)), Skip::Duplicate);
    assert_eq!(machine.handle(member(1), &proposal(&bytes, 0, 1), 0), Verdict::Valid);
    assert_eq!(skipped(&mut machine, 4, &proposal(&bytes, 0, 1)), Skip::Duplicate);

    let past = AgreementMessage::Vote(signed(Slot(3), 0, VoteKind::Prevote, None, 1)).to_wire();
    assert_eq!(skipped(&mut machine, 1, &past), Skip::Past(Instance::manifest(Slot(3))));
    let ask = ask(Instance::manifest(Slot(3)));
    assert_eq!(skipped(&mut machine, 1, &ask), Skip::Past(Instance::manifest(Slot(3))));
}

#[test]
fn proofs_must_prove() {
    let mut machine = started();
    let valid = manifest(SLOT, 1);
    let prevote = |j| signed(SLOT, 1, VoteKind::Prevote, Some(&valid), j);
    let polka = |votes: &[SignedVote]| AgreementMessage::Polka(votes.to_vec()).to_wire();
    let round = |votes: &[SignedVote]| AgreementMessage::Round(votes.to_vec()).to_wire();
    let nil = |j| signed(SLOT, 1, VoteKind::Prevote, None, j);
    let elsewhere = signed(SLOT, 2, VoteKind::Prevote, Some(&valid), 4);
    let mut forged = prevote(4);
    forged.signature = prevote(2).signature;
    for wrong in [
        polka(&[]),
        polka(&[prevote(1), prevote(2)]),
        polka(&[prevote(1), prevote(2), prevote(2)]),
        polka(&[prevote(1), prevote(2), nil(4)]),
        polka(&[nil(1), nil(2), nil(4)]),
        polka(&[prevote(1), prevote(2), elsewhere]),
        polka(&[prevote(1), prevote(2), forged]),
        round(&[]),
        round(&[prevote(1)]),
        round(&[prevote(1), nil(1)]),
        round(&[prevote(1), elsewhere]),
        round(&[prevote(1), forged]),
    ] {
        assert_eq!(skipped(&mut machine, 1, &wrong), Skip::NoProof);
    }
    assert_eq!(machine.status().unwrap().round, 0);
    assert_eq!(machine.handle(member(1), &round(&[prevote(1), nil(2)]), 0), Verdict::Valid);
    assert_eq!(machine.status().unwrap().round, 1);
    let proof = polka(&[prevote(1), prevote(2), prevote(4)]);
    // Member 2 has not voted before, so its two votes convict it.
    assert!(matches!(machine.handle(member(1), &proof, 0), Verdict::Fault(_)));
}

#[test]
fn an_invalid_manifest_is_its_proposers_fault() {
    let invalid = Manifest { slot: Slot(0), ..manifest(SLOT, 1) };
    let elsewhere = Manifest { slot: Slot(5), ..manifest(SLOT, 1) };
    let mut foreign = manifest(SLOT, 1);
    foreign.binding.epoch = Epoch(6);
    for (bytes, kind) in [
        (invalid.to_wire(), FaultKind::Value(ValueError::Manifest(ManifestError::SlotZero))),
        (elsewhere.to_wire(), FaultKind::Value(ValueError::Elsewhere("slot"))),
        (foreign.to_wire(), FaultKind::Value(ValueError::Elsewhere("epoch"))),
    ] {
        let mut machine = started();
        let verdict = machine.handle(member(2), &proposal(&bytes, 0, 1), 0);
        assert_eq!(verdict, Verdict::Fault(Box::new(Fault { culprit: member(1), kind })));
        // It is voted down at once; nobody is asked.
        let (_, effects) = drain_all(&mut machine);
        assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
        assert!(
            !effects.iter().any(|e| matches!(e, Effect::Special(AgreementEffect::Validate { .. })))
        );
    }
}

#[test]
fn two_votes_in_one_place_are_reported_once() {
    let mut machine = started();
    let valid = manifest(SLOT, 1);
    let first = vote(0, VoteKind::Prevote, Some(&valid), 2);
    assert_eq!(machine.handle(member(2), &first, 0), Verdict::Valid);
    drain_all(&mut machine);
    let second = vote(0, VoteKind::Prevote, None, 2);
    for reports in [1, 0] {
        let Verdict::Fault(fault) = machine.handle(member(2), &second, 0) else { panic!() };
        assert_eq!(fault.culprit, member(2));
        let (_, effects) = drain_all(&mut machine);
        let reported = effects
            .iter()
            .filter(|e| matches!(e, Effect::Special(AgreementEffect::Equivocated { .. })))
            .count();
        assert_eq!(reported, reports);
    }
    // A round has two proposals at most: one, and the one that convicts.
    let with = |number| {
        let block = BlockRef { number, hash: KeccakDigest([2; 32]) };
        Manifest { block, ..manifest(SLOT, 1) }.to_wire()
    };
    assert_eq!(machine.handle(member(1), &proposal(&with(1), 0, 1), 0), Verdict::Valid);
    let verdict = machine.handle(member(1), &proposal(&with(2), 0, 1), 0);
    assert!(matches!(verdict, Verdict::Fault(_)), "{verdict:?}");
    let third = skipped(&mut machine, 1, &proposal(&with(3), 0, 1));
    assert_eq!(third, Skip::TooManyProposals(0));
}

#[test]
fn when_all_have_had_their_turn_manifests_are_validated_by_what_all_see_alike() {
    for (round, by, alike) in [(3, 4, false), (4, 1, true)] {
        let mut machine = started();
        let proof = [1, 2].map(|j| signed(SLOT, round, VoteKind::Prevote, None, j)).to_vec();
        let proof = AgreementMessage::Round(proof).to_wire();
        assert_eq!(machine.handle(member(1), &proof, 0), Verdict::Valid);
        let proposal = proposal(&manifest(SLOT, by).to_wire(), round, by);
        assert_eq!(machine.handle(member(by), &proposal, 0), Verdict::Valid);
        let asked = |effect: &EffectOf<Agreement>| matches!(effect, Effect::Special(AgreementEffect::Validate { by_quorum, .. }) if *by_quorum == alike);
        assert!(drain_all(&mut machine).1.iter().any(asked), "round {round}");
    }
}

#[test]
fn a_refused_manifest_is_validated_again_in_every_round_when_a_quorum_votes_for_it() {
    let mut machine = started();
    let valid = manifest(SLOT, 1);
    assert_eq!(machine.handle(member(1), &proposal(&valid.to_wire(), 0, 1), 0), Verdict::Valid);
    machine.validated(valid.digest(), Validity::Invalid, 0);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, None)]);
    for j in [1, 2, 4] {
        let prevote = vote(0, VoteKind::Prevote, Some(&valid), j);
        assert_eq!(machine.handle(member(j), &prevote, 0), Verdict::Valid);
    }
    let (_, effects) = drain_all(&mut machine);
    let asked = |e: &&EffectOf<Agreement>| {
        matches!(e, Effect::Special(AgreementEffect::Validate { by_quorum: true, .. }))
    };
    assert_eq!(effects.iter().filter(asked).count(), 1);
    // Refused again: nothing more in this round, but with t members away nobody decides without
    // this one, so it is asked again in the next.
    machine.validated(valid.digest(), Validity::Invalid, 0);
    assert_eq!(drain_all(&mut machine), (Vec::new(), Vec::new()));
    let proof = [1, 2].map(|j| signed(SLOT, 1, VoteKind::Prevote, None, j)).to_vec();
    let proof = AgreementMessage::Round(proof).to_wire();
    assert_eq!(machine.handle(member(1), &proof, 0), Verdict::Valid);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(effects.iter().filter(asked).count(), 1);
    machine.validated(valid.digest(), Validity::Valid, 0);
    let bytes = Bytes(valid.to_wire());
    let again = Proposal { round: 1, locked_in: Some(0), ..header(&bytes.0, 0, 1).proposal };
    let again = AgreementMessage::Proposal(again.sign(&binding(), &secret(2)), bytes).to_wire();
    assert_eq!(machine.handle(member(2), &again, 0), Verdict::Valid);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(effects.iter().filter(asked).count(), 0);
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(valid.digest()))]);
    // Valid stays valid.
    machine.validated(valid.digest(), Validity::Invalid, 0);
    assert_eq!(drain_all(&mut machine), (Vec::new(), Vec::new()));
}

#[test]
fn a_lock_is_a_decision() {
    let valid = manifest(SLOT, 1);
    let bytes = Bytes(valid.to_wire());
    let decision = |lock: Lock| AgreementMessage::Decision(lock, bytes.clone()).to_wire();
    let mut machine = started();
    let few = skipped(&mut machine, 1, &decision(lock(&valid, &[1, 2])));
    assert_eq!(few, Skip::Lock(LockError::TooFew { given: 2, needed: 3 }));
    let mut foreign = lock(&valid, &[1, 2, 4]);
    foreign.binding.epoch = Epoch(6);
    assert!(matches!(skipped(&mut machine, 1, &decision(foreign)), Skip::Binding(_)));
    let mut other = manifest(SLOT, 1);
    other.block.number = 2;
    let mismatch = decision(lock(&other, &[1, 2, 4]));
    assert_eq!(skipped(&mut machine, 1, &mismatch), Skip::OtherValue);

    // This member has refused the manifest; the others' lock stands all the same.
    assert_eq!(machine.handle(member(1), &proposal(&bytes.0, 0, 1), 0), Verdict::Valid);
    machine.validated(valid.digest(), Validity::Invalid, 0);
    drain_all(&mut machine);
    let valid_lock = lock(&valid, &[1, 2, 4]);
    let message = decision(valid_lock.clone());
    assert_eq!(machine.handle(member(2), &message, 0), Verdict::Valid);
    let (records, effects) = drain_all(&mut machine);
    let value = Value::Manifest(Box::new(valid.clone()));
    let decided = AgreementEffect::Decided { lock: Box::new(valid_lock), value };
    assert_eq!(effects, [Effect::Special(decided)]);
    assert_eq!((machine.poll_timeout(), records.len()), (None, 1));
    let late = vote(0, VoteKind::Precommit, Some(&valid), 4);
    assert_eq!(skipped(&mut machine, 4, &late), Skip::Decided(INSTANCE));

    // It answers others with it, in later slots too, but not all the time.
    machine.start(Instance::manifest(Slot(5)), 0).unwrap();
    drain_all(&mut machine);
    let ask = ask(INSTANCE);
    assert_eq!(machine.handle(member(1), &ask, 0), Verdict::Valid);
    let (_, effects) = drain_all(&mut machine);
    assert_eq!(effects, [Effect::Send { to: member(1), bytes: message.into() }]);
    assert_eq!(skipped(&mut machine, 1, &ask), Skip::TooOften);
}

#[test]
fn messages_of_a_later_slot_wait_for_it_and_call_for_it() {
    let mut machine = started();
    let nil =
        |slot, j| AgreementMessage::Vote(signed(slot, 0, VoteKind::Prevote, None, j)).to_wire();
    assert_eq!(
        skipped(&mut machine, 1, &nil(Slot(9), 1)),
        Skip::Ahead(Instance::manifest(Slot(9)))
    );
    assert_eq!(drain_all(&mut machine).1, []);
    // One member may lie about where it is, t+1 may not.
    assert_eq!(
        skipped(&mut machine, 2, &nil(Slot(7), 2)),
        Skip::Ahead(Instance::manifest(Slot(7)))
    );
    assert_eq!(
        drain_all(&mut machine).1,
        [Effect::Special(AgreementEffect::Behind { instance: Instance::manifest(Slot(7)) })]
    );
    assert_eq!(
        skipped(&mut machine, 4, &nil(Slot(7), 4)),
        Skip::Ahead(Instance::manifest(Slot(7)))
    );
    assert_eq!(drain_all(&mut machine).1, []);
    machine.start(Instance::manifest(Slot(7)), 0).unwrap();
    drain_all(&mut machine);
    assert_eq!(skipped(&mut machine, 4, &nil(Slot(7), 4)), Skip::Duplicate);
}

#[test]
fn only_the_proposer_proposes_and_only_once() {
    let mut machine = machine(1, Vec::new());
    machine.start(INSTANCE, 0).unwrap();
    let get = AgreementEffect::GetValue { instance: INSTANCE, round: 0 };
    assert_eq!(drain_all(&mut machine).1, [Effect::Special(get)]);
    let bytes = manifest(SLOT, 1).to_wire();
    let not_now = |round| Err(ProposeError::NotNow { instance: INSTANCE, round });
    let refused = machine.propose(INSTANCE, 0, vec![1], 0);
    assert!(matches!(refused, Err(ProposeError::Value(ValueError::Manifest(_)))));
    let foreign = manifest(SLOT, 2).to_wire();
    let refused = machine.propose(INSTANCE, 0, foreign, 0);
    assert_eq!(refused, Err(ProposeError::OtherProposer(member(2))));
    let refused = machine.propose(Instance::manifest(Slot(5)), 0, bytes.clone(), 0);
    assert_eq!(refused, Err(ProposeError::Value(ValueError::Elsewhere("slot"))));
    assert_eq!(machine.propose(INSTANCE, 1, bytes.clone(), 0), not_now(1));
    assert_eq!(machine.propose(INSTANCE, 0, bytes.clone(), 0), Ok(()));
    let (_, effects) = drain_all(&mut machine);
    let digest = manifest(SLOT, 1).digest();
    assert_eq!(voted(&effects), [(VoteKind::Prevote, Some(digest))]);
    assert_eq!(machine.propose(INSTANCE, 0, bytes.clone(), 0), not_now(0));
    assert_eq!(started().propose(INSTANCE, 0, manifest(SLOT, 3).to_wire(), 0), not_now(0));
}
