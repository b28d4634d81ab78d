//! Messages of a real attempt, of which one member signs one otherwise: it is named for it, and nobody
//! else is, also when messages are missing, come twice or in another order.

use veil_protocol_spec::{
    Blake3Digest, Committee,
    ceremony::{AbortReason, Finish, Header},
    identity::SecretIdentity,
};

use super::*;
use crate::machine::tests::Members;

const CULPRIT: u8 = 2;

fn culprit() -> ParticipantIndex {
    ParticipantIndex::new(CULPRIT).unwrap()
}

/// Signs in the culprit's name.
fn sign(header: Header, payload: Payload) -> SignedMessage {
    SignedMessage::sign(header, payload, &SecretIdentity::from_bytes(&[CULPRIT; 32]).unwrap())
}

fn judge(parameters: &CeremonyParameters, messages: &[&SignedMessage]) -> Vec<Proof> {
    proven(parameters, &ParameterSet::insecure_short(), Attempt(0), messages).unwrap()
}

fn names(proofs: &[Proof]) -> Vec<(Misdeed, Round)> {
    assert!(proofs.iter().all(|proof| proof.culprit == culprit()), "{proofs:?}");
    proofs.iter().map(|proof| (proof.misdeed, proof.round)).collect()
}

/// Each way to sign something else in a round, and what it is.
fn otherwise(payload: &Payload, me: usize) -> Vec<(Misdeed, Payload)> {
    match payload.clone() {
        Payload::Commit(commit) => {
            let (mut fewer, mut no_key) = (commit.clone(), commit);
            fewer.contributions.pop();
            no_key.channel_key.0.pop();
            vec![
                (Misdeed::Commit, Payload::Commit(fewer)),
                (Misdeed::Commit, Payload::Commit(no_key)),
            ]
        }
        Payload::Echo(echo) => {
            let (mut fewer, mut denied) = (echo.clone(), echo);
            fewer.digests.pop();
            denied.digests[me] = Blake3Digest([0xee; 32]);
            vec![(Misdeed::Echo, Payload::Echo(fewer)), (Misdeed::Echo, Payload::Echo(denied))]
        }
        Payload::Confirm(confirm) => {
            let (mut fewer, mut other) = (confirm.clone(), confirm);
            fewer.keys.pop();
            other.public_seed[0] ^= 1;
            vec![
                (Misdeed::Confirm, Payload::Confirm(fewer)),
                (Misdeed::SeedReveal, Payload::Confirm(other)),
            ]
        }
        Payload::ReferenceString(contribution) => {
            let (mut proof, mut powers) = (contribution.clone(), contribution);
            proof.proof.0[0] ^= 1;
            powers.powers.0.truncate(10);
            [proof, powers].map(|c| (Misdeed::ReferenceString, Payload::ReferenceString(c))).into()
        }
        Payload::StreamRoot(mut root) => {
            root.chunks.pop();
            vec![(Misdeed::StreamRoot, Payload::StreamRoot(root))]
        }
        Payload::Deal(_) | Payload::Prove(_) | Payload::Finish(_) | Payload::Abort(_) => vec![],
    }
}

#[test]
fn who_signs_what_no_honest_member_signs_is_named_and_nobody_else() {
    for committee in [Committee::ALL[1], Committee::ALL[2]] {
        let (parameters, honest) = Members::honest(committee);
        let everything: Vec<_> = honest.iter().collect();
        assert_eq!(judge(&parameters, &everything), []);
        let mut seen = 0;
        for own in honest.iter().filter(|message| message.header.sender == culprit()) {
            let place = |m: &&&SignedMessage| m.header != own.header;
            let others: Vec<_> = everything.iter().filter(place).copied().collect();
            for (misdeed, payload) in otherwise(&own.payload, culprit().position()) {
                let wrong = sign(own.header, payload);
                let round = own.header.round;
                let mut instead = others.clone();
                instead.push(&wrong);
                let proofs = judge(&parameters, &instead);
                assert!(names(&proofs).contains(&(misdeed, round)), "{misdeed:?}: {proofs:?}");
                seen += 1;
                if committee.n() > 4 {
                    continue;
                }
                // A proof stands on its own messages.
                for proof in &proofs {
                    let alone: Vec<_> = proof.messages.iter().collect();
                    assert!(judge(&parameters, &alone).contains(proof), "{proof:?}");
                }
                let doubled: Vec<_> = instead.iter().rev().chain(&instead).copied().collect();
                assert_eq!(judge(&parameters, &doubled), proofs);
                // With the honest message as well it is an equivocation.
                instead.push(own);
                let both = names(&judge(&parameters, &instead));
                assert!(both.contains(&(Misdeed::Equivocation, round)), "{both:?}");
                for withheld in [Round::Commit, Round::Confirm, Round::ReferenceString] {
                    let rest = instead.iter().filter(|m| m.header.round != withheld);
                    names(&judge(&parameters, &rest.copied().collect::<Vec<_>>()));
                }
            }
        }
        // Commit, confirm, reference string: two each; five echoes: two each; two roots.
        assert_eq!(seen, 3 * 2 + 5 * 2 + 2);
    }
}

#[test]
fn nobody_signs_both_abort_and_finish() {
    let (parameters, honest) = Members::honest(Committee::ALL[1]);
    let finish =
        honest.iter().find(|m| (m.header.sender, m.header.round) == (culprit(), Round::Finish));
    let finish = finish.unwrap();
    let header = Header { round: Round::Abort, ..finish.header };
    let abort = sign(header, Payload::Abort(AbortReason::Expired));
    let names = names(&judge(&parameters, &[finish, &abort]));
    assert_eq!(names, [(Misdeed::AbortAndFinish, Round::Abort)]);
}

#[test]
fn what_does_not_belong_to_a_round_is_a_misdeed_and_what_is_not_signed_is_nothing() {
    let (parameters, honest) = Members::honest(Committee::ALL[1]);
    let own = honest.iter().find(|m| m.header.sender == culprit()).unwrap();
    let misplaced = sign(own.header, Payload::Finish(Finish { root: Blake3Digest([1; 32]) }));
    assert_eq!(names(&judge(&parameters, &[&misplaced])), [(Misdeed::Form, own.header.round)]);
    let addressed = Header { recipient: Some(ParticipantIndex::new(1).unwrap()), ..own.header };
    let addressed = sign(addressed, own.payload.clone());
    assert_eq!(names(&judge(&parameters, &[&addressed])), [(Misdeed::Form, own.header.round)]);
    // In the name of another, and of another attempt.
    let sender = ParticipantIndex::new(1).unwrap();
    let forged = sign(Header { sender, ..own.header }, misplaced.payload.clone());
    let later = sign(Header { attempt: Attempt(1), ..own.header }, misplaced.payload.clone());
    assert_eq!(judge(&parameters, &[&forged, &later]), []);
    // Any flipped byte of a proof leaves none.
    let mut flipped = misplaced;
    flipped.signature.0[0] ^= 1;
    assert_eq!(judge(&parameters, &[&flipped]), []);
}
