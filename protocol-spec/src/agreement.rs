//! Messages of the agreement on one manifest per slot.
//!
//! The protocol is Tendermint's: in each round a proposer proposes a manifest, members prevote for
//! it or for nothing, and precommit to what 2t+1 prevoted for. 2t+1 precommits of one round decide:
//! they are the slot's [`ManifestLock`].
//!
//! Everything is signed for one [`Binding`], slot and round. Proposals carry the manifest itself;
//! votes name it by digest.

pub mod record;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Bytes, Wire},
    committee::Committee,
    decryption::ManifestLock,
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, MAX_PARTICIPANTS, ParticipantIndex, PublicIdentity, Signature, Slot},
    scheduling::{Binding, Manifest},
};

/// Most manifests an [`AgreementMessage::Ask`] names.
pub const MAX_HELD: usize = 16;

/// Who proposes: members take turns by slot and round.
#[must_use]
pub fn proposer(committee: Committee, slot: Slot, round: u32) -> ParticipantIndex {
    let n = committee.n() as u64;
    let position = (slot.0 % n + u64::from(round) % n) % n;
    ParticipantIndex::from_one_based(position as u8 + 1)
}

/// The two votes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum VoteKind {
    /// The manifest is valid and may be locked.
    Prevote,
    /// 2t+1 members prevoted for it.
    Precommit,
}

/// A member's vote in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// The slot that is decided.
    pub slot: Slot,
    /// The round, from 0.
    pub round: u32,
    /// Which of the round's two votes it is.
    pub kind: VoteKind,
    /// Digest of the manifest; `None` for no manifest of this round.
    pub manifest: Option<Blake3Digest>,
    /// The member that votes.
    pub voter: ParticipantIndex,
}

/// A signed [`Vote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedVote {
    /// The signed part.
    pub vote: Vote,
    /// Made by the voter over [`Vote::digest`].
    pub signature: Signature,
}

/// A proposal without the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proposal {
    /// The slot that is decided.
    pub slot: Slot,
    /// The round, from 0.
    pub round: u32,
    /// The earlier round in which 2t+1 members prevoted for this manifest, if it is proposed again.
    pub locked_in: Option<u32>,
    /// Digest of the manifest.
    pub manifest: Blake3Digest,
}

/// A [`Proposal`] signed by the round's [`proposer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedProposal {
    /// The signed part.
    pub proposal: Proposal,
    /// Made by the round's proposer over [`Proposal::digest`].
    pub signature: Signature,
}

/// What members send each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgreementMessage {
    /// A proposal and the manifest's encoding.
    Proposal(SignedProposal, Bytes),
    /// A signed vote.
    Vote(SignedVote),
    /// Proof that 2t+1 members prevoted for one manifest in one round.
    Polka(Vec<SignedVote>),
    /// Proof that a round was reached: 2t+1 precommits of the round before, or t+1 votes of it.
    Round(Vec<SignedVote>),
    /// The sender is stuck in this round and holds these manifests. A member that knows more
    /// answers: with the decision, or with the proposals and proofs that the sender lacks.
    Ask {
        /// The slot that the sender is in.
        slot: Slot,
        /// The round that the sender is in.
        round: u32,
        /// Digests of the manifests that the sender holds.
        held: Vec<Blake3Digest>,
    },
    /// The slot is decided: 2t+1 precommits and the manifest's encoding.
    Decision(ManifestLock, Bytes),
}

impl Wire for AgreementMessage {
    const NAME: &'static str = "AgreementMessage";
    // The manifest, and the largest that comes with it: a lock.
    const MAX_BYTES: usize = Manifest::MAX_BYTES + ManifestLock::MAX_BYTES + 16;
}

/// Most votes of a proof: both kinds of every member.
pub const MAX_VOTES: usize = 2 * MAX_PARTICIPANTS;

impl Vote {
    /// What is signed. A precommit to a manifest is a vote of the [`ManifestLock`].
    #[must_use]
    pub fn digest(&self, binding: &Binding) -> [u8; 32] {
        let Self { slot, round, kind, manifest, voter } = self;
        if let (VoteKind::Precommit, Some(manifest)) = (kind, manifest) {
            return ManifestLock::vote_digest(binding, *slot, *round, manifest);
        }
        let kind = [*kind as u8, voter.get()];
        let manifest: &[u8] = manifest.as_ref().map_or(&[], |digest| &digest.0);
        let (slot, round) = (slot.0.to_le_bytes(), round.to_le_bytes());
        hash_parts(domain::AGREEMENT_VOTE, &[&binding.to_bytes(), &slot, &round, &kind, manifest])
    }

    /// Signs as the voter, whose secret key `secret` must be.
    #[must_use]
    pub fn sign(self, binding: &Binding, secret: &SecretIdentity) -> SignedVote {
        SignedVote { signature: secret.sign(&self.digest(binding)), vote: self }
    }
}

impl SignedVote {
    /// # Errors
    /// [`InvalidSignature`] if the voter is not a member or did not sign.
    pub fn verify(
        &self,
        binding: &Binding,
        roster: &[PublicIdentity],
    ) -> Result<(), InvalidSignature> {
        let identity = roster.get(self.vote.voter.position()).ok_or(InvalidSignature)?;
        identity.verify(&self.vote.digest(binding), &self.signature)
    }
}

impl Proposal {
    /// What is signed.
    #[must_use]
    pub fn digest(&self, binding: &Binding) -> [u8; 32] {
        let Self { slot, round, locked_in, manifest } = self;
        let locked_in = locked_in.map(u32::to_le_bytes);
        hash_parts(
            domain::AGREEMENT_PROPOSAL,
            &[
                &binding.to_bytes(),
                &slot.0.to_le_bytes(),
                &round.to_le_bytes(),
                locked_in.as_ref().map_or(&[], |round| &round[..]),
                &manifest.0,
            ],
        )
    }

    /// Signs as the round's proposer, whose secret key `secret` must be.
    #[must_use]
    pub fn sign(self, binding: &Binding, secret: &SecretIdentity) -> SignedProposal {
        SignedProposal { signature: secret.sign(&self.digest(binding)), proposal: self }
    }
}

impl SignedProposal {
    /// # Errors
    /// [`InvalidSignature`] if the round's proposer did not sign.
    pub fn verify(
        &self,
        binding: &Binding,
        committee: Committee,
        roster: &[PublicIdentity],
    ) -> Result<(), InvalidSignature> {
        let Proposal { slot, round, .. } = self.proposal;
        let proposer = proposer(committee, slot, round);
        let identity = roster.get(proposer.position()).ok_or(InvalidSignature)?;
        identity.verify(&self.proposal.digest(binding), &self.signature)
    }
}

/// Portable evidence that a member equivocated in the agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Equivocation {
    /// The member cast two votes of one kind in one round.
    Votes(SignedVote, SignedVote),
    /// The proposer made two proposals in one round.
    Proposals(SignedProposal, SignedProposal),
}

/// Evidence does not prove a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence does not prove a fault")]
pub struct InvalidEvidence;

impl Wire for Equivocation {
    const NAME: &'static str = "Equivocation";
    const MAX_BYTES: usize = 512;
}

impl Equivocation {
    /// Checks the evidence and names the culprit. An honest member cannot be convicted: it
    /// stores a vote or proposal before it sends it and never signs another in its place.
    ///
    /// # Errors
    /// [`InvalidEvidence`] if it does not prove a fault.
    pub fn convict(
        &self,
        binding: &Binding,
        committee: Committee,
        roster: &[PublicIdentity],
    ) -> Result<ParticipantIndex, InvalidEvidence> {
        let ok = |holds: bool| if holds { Ok(()) } else { Err(InvalidEvidence) };
        match self {
            Self::Votes(a, b) => {
                let place = |v: &Vote| (v.slot, v.round, v.kind, v.voter);
                ok(place(&a.vote) == place(&b.vote) && a.vote.manifest != b.vote.manifest)?;
                ok(committee.contains(a.vote.voter))?;
                let signed = [a, b].map(|vote| vote.verify(binding, roster).is_ok());
                ok(signed == [true; 2])?;
                Ok(a.vote.voter)
            }
            Self::Proposals(a, b) => {
                let place = |p: &Proposal| (p.slot, p.round);
                ok(place(&a.proposal) == place(&b.proposal) && a.proposal != b.proposal)?;
                let signed = [a, b].map(|p| p.verify(binding, committee, roster).is_ok());
                ok(signed == [true; 2])?;
                Ok(proposer(committee, a.proposal.slot, a.proposal.round))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::arbitrary::{assert_wire, binding, secret};

    fn member(index: u8) -> ParticipantIndex {
        ParticipantIndex::new(index).unwrap()
    }

    fn committee() -> Committee {
        Committee::new(4).unwrap()
    }

    fn roster() -> Vec<PublicIdentity> {
        (1..=4).map(|i| secret(i).public()).collect()
    }

    fn vote(kind: VoteKind, manifest: Option<u8>) -> Vote {
        let manifest = manifest.map(|byte| Blake3Digest([byte; 32]));
        Vote { slot: Slot(6), round: 2, kind, manifest, voter: member(3) }
    }

    fn proposal(manifest: u8) -> Proposal {
        let manifest = Blake3Digest([manifest; 32]);
        Proposal { slot: Slot(6), round: 2, locked_in: None, manifest }
    }

    #[test]
    fn members_take_turns() {
        let turns: Vec<_> = (0..6).map(|r| proposer(committee(), Slot(6), r).get()).collect();
        assert_eq!(turns, [3, 4, 1, 2, 3, 4]);
        assert_eq!(proposer(committee(), Slot(7), 0), member(4));
        let one = Committee::new(1).unwrap();
        assert_eq!(proposer(one, Slot(u64::MAX), u32::MAX), member(1));
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
        let manifest = Blake3Digest([7; 32]);
        let lock = ManifestLock { binding: binding(), slot: Slot(6), round: 2, manifest, votes };
        assert_eq!(lock.verify(committee(), &roster()), Ok(()));
    }

    #[test]
    fn every_field_changes_what_is_signed() {
        let base = vote(VoteKind::Prevote, Some(7));
        let votes = [
            base,
            Vote { slot: Slot(5), ..base },
            Vote { round: 1, ..base },
            Vote { voter: member(4), ..base },
            vote(VoteKind::Prevote, Some(8)),
            vote(VoteKind::Prevote, None),
            vote(VoteKind::Precommit, Some(7)),
            vote(VoteKind::Precommit, None),
        ];
        let digests: std::collections::BTreeSet<_> =
            votes.iter().map(|vote| vote.digest(&binding())).collect();
        assert_eq!(digests.len(), votes.len());
        let base = proposal(7);
        let proposals = [
            base,
            Proposal { slot: Slot(5), ..base },
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
        let convict =
            |evidence: &Equivocation| evidence.convict(&binding(), committee(), &roster());
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
        ];
        for second in harmless {
            assert_eq!(convict(&Equivocation::Votes(first, second)), Err(InvalidEvidence));
        }

        // Member 1 proposes in round 2 of slot 6.
        let signed = |proposal: Proposal, by| proposal.sign(&binding(), &secret(by));
        let first = signed(proposal(7), 1);
        let evidence = Equivocation::Proposals(first, signed(proposal(8), 1));
        assert_eq!(convict(&evidence), Ok(member(1)));
        let harmless =
            [first, signed(proposal(8), 2), signed(Proposal { round: 6, ..proposal(8) }, 1)];
        for second in harmless {
            assert_eq!(convict(&Equivocation::Proposals(first, second)), Err(InvalidEvidence));
        }
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        let vote = vote(VoteKind::Prevote, Some(7)).sign(&binding(), &secret(3));
        let lock = ManifestLock {
            binding: binding(),
            slot: Slot(6),
            round: 2,
            manifest: Blake3Digest([7; 32]),
            votes: vec![(member(3), vote.signature)],
        };
        let bytes = Bytes(vec![1, 2, 3]);
        for message in [
            AgreementMessage::Proposal(proposal(7).sign(&binding(), &secret(1)), bytes.clone()),
            AgreementMessage::Vote(vote),
            AgreementMessage::Polka(vec![vote; 2]),
            AgreementMessage::Round(vec![vote; 2]),
            AgreementMessage::Ask { slot: Slot(6), round: 2, held: vec![Blake3Digest([7; 32])] },
            AgreementMessage::Decision(lock, bytes),
        ] {
            assert_wire(&message);
        }
    }
}
