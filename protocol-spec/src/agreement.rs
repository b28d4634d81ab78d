//! Messages of the agreement: a slot's manifest, then how the slot ends.
//!
//! The protocol is Tendermint's: in each round a proposer proposes a value, members prevote for
//! it or for nothing, and precommit to what 2t+1 prevoted for. 2t+1 precommits of one round decide:
//! they are the [`Lock`] of the [`Instance`].
//!
//! Everything is signed for one [`Binding`], instance and round. Proposals carry the value itself;
//! votes name it by digest.

mod end;
mod instance;
mod lock;
pub mod record;

use serde::{Deserialize, Serialize};

pub use self::{
    end::{SlotEnd, SlotOutcome},
    instance::{Instance, Subject, proposer},
    lock::{Lock, LockError},
};
use crate::{
    codec::{Bytes, Wire},
    committee::Committee,
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, MAX_PARTICIPANTS, ParticipantIndex, PublicIdentity, Signature},
    scheduling::{Binding, Manifest},
};

/// Most values an [`AgreementMessage::Ask`] names.
pub const MAX_HELD: usize = 16;

/// The two votes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum VoteKind {
    /// The value is valid and may be locked.
    Prevote,
    /// 2t+1 members prevoted for it.
    Precommit,
}

/// A member's vote in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// What is decided.
    pub instance: Instance,
    /// The round, from 0.
    pub round: u32,
    /// Which of the round's two votes it is.
    pub kind: VoteKind,
    /// Digest of the value; `None` for no value of this round.
    pub value: Option<Blake3Digest>,
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

/// A proposal without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proposal {
    /// What is decided.
    pub instance: Instance,
    /// The round, from 0.
    pub round: u32,
    /// The earlier round in which 2t+1 members prevoted for this value, if it is proposed again.
    pub locked_in: Option<u32>,
    /// Digest of the value.
    pub value: Blake3Digest,
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
    /// A proposal and the value's encoding.
    Proposal(SignedProposal, Bytes),
    /// A signed vote.
    Vote(SignedVote),
    /// Proof that 2t+1 members prevoted for one value in one round.
    Polka(Vec<SignedVote>),
    /// Proof that a round was reached: 2t+1 precommits of the round before, or t+1 votes of it.
    Round(Vec<SignedVote>),
    /// The sender is stuck in this round and holds these values. A member that knows more
    /// answers: with the decision, or with the proposals and proofs that the sender lacks.
    Ask {
        /// The instance that the sender is in.
        instance: Instance,
        /// The round that the sender is in.
        round: u32,
        /// Digests of the values that the sender holds.
        held: Vec<Blake3Digest>,
    },
    /// The instance is decided: 2t+1 precommits and the value's encoding.
    Decision(Lock, Bytes),
}

impl Wire for AgreementMessage {
    const NAME: &'static str = "AgreementMessage";
    // Version 1 decided manifests only and named a slot in place of an instance.
    const VERSION: u8 = 2;
    // A manifest, the longer of the values, and the largest that comes with it: a lock.
    const MAX_BYTES: usize = Manifest::MAX_BYTES + Lock::MAX_BYTES + 16;
}

/// Most votes of a proof: both kinds of every member.
pub const MAX_VOTES: usize = 2 * MAX_PARTICIPANTS;

impl Vote {
    /// What is signed. A precommit to a value is a vote of the [`Lock`].
    #[must_use]
    pub fn digest(&self, binding: &Binding) -> [u8; 32] {
        let Self { instance, round, kind, value, voter } = self;
        if let (VoteKind::Precommit, Some(value)) = (kind, value) {
            return Lock::vote_digest(binding, *instance, *round, value);
        }
        let kind = [*kind as u8, voter.get()];
        let value: &[u8] = value.as_ref().map_or(&[], |digest| &digest.0);
        let (instance, round) = (instance.to_bytes(), round.to_le_bytes());
        hash_parts(domain::AGREEMENT_VOTE, &[&binding.to_bytes(), &instance, &round, &kind, value])
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
        let Self { instance, round, locked_in, value } = self;
        let locked_in = locked_in.map(u32::to_le_bytes);
        hash_parts(
            domain::AGREEMENT_PROPOSAL,
            &[
                &binding.to_bytes(),
                &instance.to_bytes(),
                &round.to_le_bytes(),
                locked_in.as_ref().map_or(&[], |round| &round[..]),
                &value.0,
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
        let Proposal { instance, round, .. } = self.proposal;
        let proposer = proposer(committee, instance, round);
        let identity = roster.get(proposer.position()).ok_or(InvalidSignature)?;
        identity.verify(&self.proposal.digest(binding), &self.signature)
    }
}

/// Portable evidence that a member equivocated in an instance of the agreement.
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
    // Version 1 named a slot in place of an instance.
    const VERSION: u8 = 2;
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
                let place = |v: &Vote| (v.instance, v.round, v.kind, v.voter);
                ok(place(&a.vote) == place(&b.vote) && a.vote.value != b.vote.value)?;
                ok(committee.contains(a.vote.voter))?;
                let signed = [a, b].map(|vote| vote.verify(binding, roster).is_ok());
                ok(signed == [true; 2])?;
                Ok(a.vote.voter)
            }
            Self::Proposals(a, b) => {
                let place = |p: &Proposal| (p.instance, p.round);
                ok(place(&a.proposal) == place(&b.proposal) && a.proposal != b.proposal)?;
                let signed = [a, b].map(|p| p.verify(binding, committee, roster).is_ok());
                ok(signed == [true; 2])?;
                Ok(proposer(committee, a.proposal.instance, a.proposal.round))
            }
        }
    }
}

#[cfg(test)]
mod tests;
