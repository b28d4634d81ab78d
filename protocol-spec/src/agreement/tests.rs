//! What is signed, what convicts, what decodes.

use super::*;
use crate::{
    ids::Slot,
    scheduling::arbitrary::{assert_wire, binding, secret},
};

const INSTANCE: Instance = Instance::manifest(Slot(6));

fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

fn committee() -> Committee {
    Committee::new(4).unwrap()
}

fn roster() -> Vec<PublicIdentity> {
    (1..=4).map(|i| secret(i).public()).collect()
}

fn vote(kind: VoteKind, value: Option<u8>) -> Vote {
    let value = value.map(|byte| Blake3Digest([byte; 32]));
    Vote { instance: INSTANCE, round: 2, kind, value, voter: member(3) }
}

fn proposal(value: u8) -> Proposal {
    let value = Blake3Digest([value; 32]);
    Proposal { instance: INSTANCE, round: 2, locked_in: None, value }
}

#[test]
fn a_precommit_is_a_vote_of_the_lock() {
    let signed = vote(VoteKind::Precommit, Some(7)).sign(&binding(), &secret(3));
    let mut votes = vec![(member(3), signed.signature)];
    for index in [1, 2] {
        let voter = member(index);
        let vote = Vote { voter, ..signed.vote }.sign(&binding(), &secret(index));
        votes.insert(usize::from(index) - 1, (voter, vote.signature));
    }
    let (instance, value) = (INSTANCE, Blake3Digest([7; 32]));
    let lock = Lock { binding: binding(), instance, round: 2, value, votes };
    assert_eq!(lock.verify(committee(), &roster()), Ok(()));
    // The votes are for one instance.
    let end = Lock { instance: Instance::end(Slot(6)), ..lock };
    assert_eq!(end.verify(committee(), &roster()), Err(LockError::Signature(member(1))));
}

#[test]
fn every_field_changes_what_is_signed() {
    let base = vote(VoteKind::Prevote, Some(7));
    let votes = [
        base,
        Vote { instance: Instance::manifest(Slot(5)), ..base },
        Vote { instance: Instance::end(Slot(6)), ..base },
        Vote { round: 1, ..base },
        Vote { voter: member(4), ..base },
        vote(VoteKind::Prevote, Some(8)),
        vote(VoteKind::Prevote, None),
        vote(VoteKind::Precommit, Some(7)),
        Vote { instance: Instance::end(Slot(6)), ..vote(VoteKind::Precommit, Some(7)) },
        vote(VoteKind::Precommit, None),
    ];
    let digests: std::collections::BTreeSet<_> =
        votes.iter().map(|vote| vote.digest(&binding())).collect();
    assert_eq!(digests.len(), votes.len());
    let base = proposal(7);
    let proposals = [
        base,
        Proposal { instance: Instance::manifest(Slot(5)), ..base },
        Proposal { instance: Instance::end(Slot(6)), ..base },
        Proposal { round: 1, ..base },
        Proposal { locked_in: Some(0), ..base },
        proposal(8),
    ];
    let digests: std::collections::BTreeSet<_> =
        proposals.iter().map(|proposal| proposal.digest(&binding())).collect();
    assert_eq!(digests.len(), proposals.len());
    let mut other = binding();
    other.scope.cluster.0[0] ^= 1;
    assert_ne!(base.digest(&other), base.digest(&binding()));
    assert_ne!(votes[0].digest(&other), votes[0].digest(&binding()));
}

#[test]
fn only_two_different_statements_in_one_place_convict() {
    let convict = |evidence: &Equivocation| evidence.convict(&binding(), committee(), &roster());
    let signed = |kind, manifest| vote(kind, manifest).sign(&binding(), &secret(3));
    let first = signed(VoteKind::Prevote, Some(7));
    for second in [Some(8), None] {
        let evidence = Equivocation::Votes(first, signed(VoteKind::Prevote, second));
        assert_eq!(convict(&evidence), Ok(member(3)));
        assert_wire(&evidence);
    }
    let forged = vote(VoteKind::Prevote, Some(8)).sign(&binding(), &secret(1));
    let elsewhere = Vote { round: 3, ..vote(VoteKind::Prevote, Some(8)) };
    let harmless = [
        first,
        signed(VoteKind::Precommit, Some(8)),
        forged,
        elsewhere.sign(&binding(), &secret(3)),
        // The other instance of the slot is another place.
        Vote { instance: Instance::end(Slot(6)), ..vote(VoteKind::Prevote, Some(8)) }
            .sign(&binding(), &secret(3)),
    ];
    for second in harmless {
        assert_eq!(convict(&Equivocation::Votes(first, second)), Err(InvalidEvidence));
    }

    // Member 1 proposes in round 2 of slot 6.
    let signed = |proposal: Proposal, by| proposal.sign(&binding(), &secret(by));
    let first = signed(proposal(7), 1);
    let evidence = Equivocation::Proposals(first, signed(proposal(8), 1));
    assert_eq!(convict(&evidence), Ok(member(1)));
    let harmless = [first, signed(proposal(8), 2), signed(Proposal { round: 6, ..proposal(8) }, 1)];
    for second in harmless {
        assert_eq!(convict(&Equivocation::Proposals(first, second)), Err(InvalidEvidence));
    }
}

#[test]
fn only_the_exact_bytes_decode() {
    let vote = vote(VoteKind::Prevote, Some(7)).sign(&binding(), &secret(3));
    let lock = Lock {
        binding: binding(),
        instance: INSTANCE,
        round: 2,
        value: Blake3Digest([7; 32]),
        votes: vec![(member(3), vote.signature)],
    };
    assert_wire(&lock);
    let bytes = Bytes(vec![1, 2, 3]);
    for message in [
        AgreementMessage::Proposal(proposal(7).sign(&binding(), &secret(1)), bytes.clone()),
        AgreementMessage::Vote(vote),
        AgreementMessage::Polka(vec![vote; 2]),
        AgreementMessage::Round(vec![vote; 2]),
        AgreementMessage::Ask { instance: INSTANCE, round: 2, held: vec![Blake3Digest([7; 32])] },
        AgreementMessage::Decision(lock, bytes),
    ] {
        assert_wire(&message);
    }
}
