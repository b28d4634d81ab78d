//! The machine against hand-made messages. Whole committees are in the tests crate.

use veil_protocol_spec::{
    Address, ChainId, ClusterId, CodecError, Epoch, KeccakDigest, KeySetDigest,
    agreement::{Proposal, SignedProposal, SignedVote, Vote, VoteKind},
    decryption::LockError,
    scheduling::{BlockRef, CircuitId, ClusterScope, ManifestError},
};

use super::*;

mod restart;

const SLOT: Slot = Slot(4); // member 1 proposes in round 0, member 2 in round 1

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

/// Member 3 in [`SLOT`], with everything stored at once and nothing left to do.
fn started() -> Agreement {
    let mut machine = machine(3, Vec::new());
    machine.start(SLOT, 0).unwrap();
    let (_, effects) = settle(&mut machine);
    assert_eq!(effects, []);
    machine
}

/// Stores and drains: the records, and everything else.
fn settle(machine: &mut Agreement) -> (Vec<Record>, Vec<Effect>) {
    let (mut records, mut effects) = (Vec::new(), Vec::new());
    while let Some(effect) = machine.poll_effect() {
        match effect {
            Effect::Persist { id, record } => {
                records.push(*record);
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
        policy: KeccakDigest([3; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
        telemetry: Vec::new(),
        pending: Vec::new(),
        running: Vec::new(),
        lost: Vec::new(),
    }
}

fn header(bytes: &[u8], round: u32, by: u8) -> SignedProposal {
    let manifest = digest_of(&Bytes(bytes.to_vec()));
    Proposal { slot: SLOT, round, locked_in: None, manifest }.sign(&binding(), &secret(by))
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
    let manifest = manifest.map(Manifest::digest);
    Vote { slot, round, kind, manifest, voter: member(j) }.sign(&binding(), &secret(j))
}

fn vote(round: u32, kind: VoteKind, manifest: Option<&Manifest>, j: u8) -> Vec<u8> {
    AgreementMessage::Vote(signed(SLOT, round, kind, manifest, j)).to_wire()
}

fn lock(manifest: &Manifest, voters: &[u8]) -> ManifestLock {
    let votes = voters
        .iter()
        .map(|j| (member(*j), signed(SLOT, 0, VoteKind::Precommit, Some(manifest), *j).signature));
    let (binding, votes) = (binding(), votes.collect());
    ManifestLock { binding, slot: SLOT, round: 0, manifest: manifest.digest(), votes }
}

fn said(effects: &[Effect]) -> Vec<(VoteKind, Option<Blake3Digest>)> {
    let vote = |effect: &Effect| match effect {
        Effect::Broadcast(bytes) => match AgreementMessage::from_wire(bytes) {
            Ok(AgreementMessage::Vote(signed)) => Some((signed.vote.kind, signed.vote.manifest)),
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
    let mut round = 0;
    for _ in 0..20 {
        let turn = agreement::proposer(machine.members.committee, SLOT, round);
        if turn != member(3) {
            let written = Manifest {
                block: BlockRef { number: round.into(), hash: KeccakDigest([2; 32]) },
                ..manifest(SLOT, turn.get())
            };
            let bytes = proposal(&written.to_wire(), round, turn.get());
            assert_eq!(machine.handle(turn, &bytes, 0), Verdict::Valid);
        }
        round += 1;
        let proof = [1, 2].map(|j| signed(SLOT, round, VoteKind::Prevote, None, j)).to_vec();
        let proof = AgreementMessage::Round(proof).to_wire();
        assert_eq!(machine.handle(member(1), &proof, 0), Verdict::Valid);
    }
    let run = machine.run.as_ref().unwrap();
    assert_eq!(machine.engine.round(), 20);
    assert!(run.held.len() <= 5 && run.proposals.len() <= 5, "{}", run.held.len());
}

#[test]
fn slots_only_go_forward() {
    let mut machine = started();
    assert_eq!(machine.start(Slot(0), 0), Err(StartError::SlotZero));
    for slot in [Slot(3), SLOT] {
        assert_eq!(machine.start(slot, 0), Err(StartError::NotAfter { slot, last: SLOT }));
    }
    assert_eq!(machine.start(Slot(9), 0), Ok(()));
    assert_eq!(machine.slot(), Slot(9));
}

#[test]
fn nothing_leaves_before_its_record_is_stored() {
    let mut machine = started();
    let sound = manifest(SLOT, 1);
    assert_eq!(machine.handle(member(1), &proposal(&sound.to_wire(), 0, 1), 0), Verdict::Valid);
    let Some(Effect::Persist { id: first, .. }) = machine.poll_effect() else { panic!() };
    assert_eq!(machine.poll_effect(), None);
    machine.persisted(first);
    assert!(matches!(machine.poll_effect(), Some(Effect::Validate { by_quorum: false, .. })));
    machine.validated(sound.digest(), Judgement::Sound, 0);
    let Some(Effect::Persist { id: second, .. }) = machine.poll_effect() else { panic!() };
    // What comes later waits, too, even if it changes nothing.
    let ask = AgreementMessage::Ask { slot: SLOT, round: 0, held: Vec::new() }.to_wire();
    assert_eq!(machine.handle(member(2), &ask, 0), Verdict::Valid);
    machine.persisted(first);
    assert_eq!(machine.poll_effect(), None);
    machine.persisted(second);
    let (_, effects) = settle(&mut machine);
    assert_eq!(said(&effects), [(VoteKind::Prevote, Some(sound.digest()))]);
    assert!(matches!(effects[1], Effect::Send { to, .. } if to == member(2)));
}

#[test]
fn messages_that_are_not_taken_are_named() {
    let mut machine = started();
    let sound = manifest(SLOT, 1);
    let bytes = sound.to_wire();
    let prevote = |j| vote(0, VoteKind::Prevote, Some(&sound), j);
    assert_eq!(skipped(&mut machine, 5, &prevote(1)), Skip::Stranger(member(5)));
    assert_eq!(skipped(&mut machine, 3, &prevote(1)), Skip::Own);
    assert_eq!(skipped(&mut machine, 1, &prevote(3)), Skip::Own);
    let long = vec![1; AgreementMessage::MAX_BYTES + 1];
    let refused = skipped(&mut machine, 1, &long);
    assert!(matches!(refused, Skip::Codec(CodecError::TooLong { .. })));
    assert!(matches!(skipped(&mut machine, 1, &[1, 99]), Skip::Codec(_)));

    let mut forged = signed(SLOT, 0, VoteKind::Prevote, Some(&sound), 1);
    forged.vote.voter = member(2);
    let forged = AgreementMessage::Vote(forged).to_wire();
    assert_eq!(skipped(&mut machine, 2, &forged), Skip::BadSignature);
    let far = vote(11, VoteKind::Prevote, None, 1);
    assert_eq!(skipped(&mut machine, 1, &far), Skip::FarRound(11));
    assert_eq!(skipped(&mut machine, 1, &proposal(&bytes, 0, 2)), Skip::BadSignature);
    assert_eq!(skipped(&mut machine, 1, &proposal(&bytes, 2, 3)), Skip::Own);
    let other = AgreementMessage::Proposal(header(&bytes, 0, 1), Bytes(vec![1])).to_wire();
    assert_eq!(skipped(&mut machine, 1, &other), Skip::OtherManifest);

    assert_eq!(machine.handle(member(4), &prevote(1), 0), Verdict::Valid);
    assert_eq!(skipped(&mut machine, 1, &prevote(1)), Skip::Duplicate);
    assert_eq!(machine.handle(member(1), &proposal(&bytes, 0, 1), 0), Verdict::Valid);
    assert_eq!(skipped(&mut machine, 4, &proposal(&bytes, 0, 1)), Skip::Duplicate);

    let past = AgreementMessage::Vote(signed(Slot(3), 0, VoteKind::Prevote, None, 1)).to_wire();
    assert_eq!(skipped(&mut machine, 1, &past), Skip::Past(Slot(3)));
    let ask = AgreementMessage::Ask { slot: Slot(3), round: 0, held: Vec::new() }.to_wire();
    assert_eq!(skipped(&mut machine, 1, &ask), Skip::Past(Slot(3)));
}

#[test]
fn proofs_must_prove() {
    let mut machine = started();
    let sound = manifest(SLOT, 1);
    let prevote = |j| signed(SLOT, 1, VoteKind::Prevote, Some(&sound), j);
    let polka = |votes: &[SignedVote]| AgreementMessage::Polka(votes.to_vec()).to_wire();
    let round = |votes: &[SignedVote]| AgreementMessage::Round(votes.to_vec()).to_wire();
    let nil = |j| signed(SLOT, 1, VoteKind::Prevote, None, j);
    let elsewhere = signed(SLOT, 2, VoteKind::Prevote, Some(&sound), 4);
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
    // Member 2 has said nothing before, so its two words convict it.
    assert!(matches!(machine.handle(member(1), &proof, 0), Verdict::Fault(_)));
}

#[test]
fn an_unsound_manifest_is_its_proposers_fault() {
    let unsound = Manifest { slot: Slot(0), ..manifest(SLOT, 1) };
    let elsewhere = Manifest { slot: Slot(5), ..manifest(SLOT, 1) };
    let mut foreign = manifest(SLOT, 1);
    foreign.binding.epoch = Epoch(6);
    for (bytes, kind) in [
        (unsound.to_wire(), FaultKind::Manifest(ManifestError::SlotZero)),
        (elsewhere.to_wire(), FaultKind::Elsewhere("slot")),
        (foreign.to_wire(), FaultKind::Elsewhere("epoch")),
    ] {
        let mut machine = started();
        let verdict = machine.handle(member(2), &proposal(&bytes, 0, 1), 0);
        assert_eq!(verdict, Verdict::Fault(Box::new(Fault { culprit: member(1), kind })));
        // It is voted down at once; nobody is asked.
        let (_, effects) = settle(&mut machine);
        assert_eq!(said(&effects), [(VoteKind::Prevote, None)]);
        assert!(!effects.iter().any(|e| matches!(e, Effect::Validate { .. })));
    }
}

#[test]
fn two_words_in_one_place_are_reported_once() {
    let mut machine = started();
    let sound = manifest(SLOT, 1);
    let first = vote(0, VoteKind::Prevote, Some(&sound), 2);
    assert_eq!(machine.handle(member(2), &first, 0), Verdict::Valid);
    settle(&mut machine);
    let second = vote(0, VoteKind::Prevote, None, 2);
    for reports in [1, 0] {
        let Verdict::Fault(fault) = machine.handle(member(2), &second, 0) else { panic!() };
        assert_eq!(fault.culprit, member(2));
        let (_, effects) = settle(&mut machine);
        let reported = effects.iter().filter(|e| matches!(e, Effect::Equivocated { .. })).count();
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
fn a_refused_manifest_is_judged_again_when_a_quorum_votes_for_it() {
    let mut machine = started();
    let sound = manifest(SLOT, 1);
    assert_eq!(machine.handle(member(1), &proposal(&sound.to_wire(), 0, 1), 0), Verdict::Valid);
    machine.validated(sound.digest(), Judgement::Refused, 0);
    let (_, effects) = settle(&mut machine);
    assert_eq!(said(&effects), [(VoteKind::Prevote, None)]);
    for j in [1, 2, 4] {
        let prevote = vote(0, VoteKind::Prevote, Some(&sound), j);
        assert_eq!(machine.handle(member(j), &prevote, 0), Verdict::Valid);
    }
    let (_, effects) = settle(&mut machine);
    let asked = |e: &&Effect| matches!(e, Effect::Validate { by_quorum: true, .. });
    assert_eq!(effects.iter().filter(asked).count(), 1);
    machine.validated(sound.digest(), Judgement::Sound, 0);
    let (_, effects) = settle(&mut machine);
    assert_eq!(said(&effects), [(VoteKind::Precommit, Some(sound.digest()))]);
    // Sound stays sound.
    machine.validated(sound.digest(), Judgement::Refused, 0);
    assert_eq!(settle(&mut machine), (Vec::new(), Vec::new()));
}

#[test]
fn a_lock_is_a_decision() {
    let sound = manifest(SLOT, 1);
    let bytes = Bytes(sound.to_wire());
    let decision = |lock: ManifestLock| AgreementMessage::Decision(lock, bytes.clone()).to_wire();
    let mut machine = started();
    let few = skipped(&mut machine, 1, &decision(lock(&sound, &[1, 2])));
    assert_eq!(few, Skip::Lock(LockError::TooFew { given: 2, needed: 3 }));
    let mut foreign = lock(&sound, &[1, 2, 4]);
    foreign.binding.epoch = Epoch(6);
    assert!(matches!(skipped(&mut machine, 1, &decision(foreign)), Skip::Binding(_)));
    let mut other = manifest(SLOT, 1);
    other.block.number = 2;
    let mismatch = decision(lock(&other, &[1, 2, 4]));
    assert_eq!(skipped(&mut machine, 1, &mismatch), Skip::OtherManifest);

    // This member has refused the manifest; the others' lock stands all the same.
    assert_eq!(machine.handle(member(1), &proposal(&bytes.0, 0, 1), 0), Verdict::Valid);
    machine.validated(sound.digest(), Judgement::Refused, 0);
    settle(&mut machine);
    let sound_lock = lock(&sound, &[1, 2, 4]);
    let message = decision(sound_lock.clone());
    assert_eq!(machine.handle(member(2), &message, 0), Verdict::Valid);
    let (records, effects) = settle(&mut machine);
    let locked = Effect::Locked { lock: Box::new(sound_lock), manifest: Box::new(sound.clone()) };
    assert_eq!(effects, [locked]);
    assert_eq!((machine.poll_timeout(), records.len()), (None, 1));
    let late = vote(0, VoteKind::Precommit, Some(&sound), 4);
    assert_eq!(skipped(&mut machine, 4, &late), Skip::Decided(SLOT));

    // It answers others with it, in later slots too, but not all the time.
    machine.start(Slot(5), 0).unwrap();
    settle(&mut machine);
    let ask = AgreementMessage::Ask { slot: SLOT, round: 0, held: Vec::new() }.to_wire();
    assert_eq!(machine.handle(member(1), &ask, 0), Verdict::Valid);
    let (_, effects) = settle(&mut machine);
    assert_eq!(effects, [Effect::Send { to: member(1), bytes: message }]);
    assert_eq!(skipped(&mut machine, 1, &ask), Skip::TooOften);
}

#[test]
fn messages_of_a_later_slot_wait_for_it_and_call_for_it() {
    let mut machine = started();
    let nil =
        |slot, j| AgreementMessage::Vote(signed(slot, 0, VoteKind::Prevote, None, j)).to_wire();
    assert_eq!(skipped(&mut machine, 1, &nil(Slot(9), 1)), Skip::Ahead(Slot(9)));
    assert_eq!(settle(&mut machine).1, []);
    // One member may lie about where it is, t+1 may not.
    assert_eq!(skipped(&mut machine, 2, &nil(Slot(7), 2)), Skip::Ahead(Slot(7)));
    assert_eq!(settle(&mut machine).1, [Effect::Wanted { slot: Slot(7) }]);
    assert_eq!(skipped(&mut machine, 4, &nil(Slot(7), 4)), Skip::Ahead(Slot(7)));
    assert_eq!(settle(&mut machine).1, []);
    machine.start(Slot(7), 0).unwrap();
    settle(&mut machine);
    assert_eq!(skipped(&mut machine, 4, &nil(Slot(7), 4)), Skip::Duplicate);
}

#[test]
fn only_the_proposer_proposes_and_only_once() {
    let mut machine = machine(1, Vec::new());
    machine.start(SLOT, 0).unwrap();
    let need = Effect::NeedProposal { slot: SLOT, round: 0 };
    assert_eq!(settle(&mut machine).1, [need]);
    let bytes = manifest(SLOT, 1).to_wire();
    let not_now = |slot, round| Err(ProposeError::NotNow { slot, round });
    let refused = machine.propose(SLOT, 0, vec![1], 0);
    assert!(matches!(refused, Err(ProposeError::Manifest(_))));
    let foreign = manifest(SLOT, 2).to_wire();
    let refused = machine.propose(SLOT, 0, foreign, 0);
    assert_eq!(refused, Err(ProposeError::Elsewhere("proposer")));
    let refused = machine.propose(Slot(5), 0, bytes.clone(), 0);
    assert_eq!(refused, Err(ProposeError::Elsewhere("slot")));
    assert_eq!(machine.propose(SLOT, 1, bytes.clone(), 0), not_now(SLOT, 1));
    assert_eq!(machine.propose(SLOT, 0, bytes.clone(), 0), Ok(()));
    let (_, effects) = settle(&mut machine);
    let digest = manifest(SLOT, 1).digest();
    assert_eq!(said(&effects), [(VoteKind::Prevote, Some(digest))]);
    assert_eq!(machine.propose(SLOT, 0, bytes.clone(), 0), not_now(SLOT, 0));
    assert_eq!(started().propose(SLOT, 0, manifest(SLOT, 3).to_wire(), 0), not_now(SLOT, 0));
}
