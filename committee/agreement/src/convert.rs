//! Veil's messages to Malachite's and back.

use arc_malachitebft_core_consensus::Input;
use arc_malachitebft_core_types as bft;
use bft::{
    CommitCertificate, NilOrVal, PolkaCertificate, Round, RoundCertificate, TimeoutKind, VoteType,
};
use veil_protocol_spec::{
    Committee, Signature,
    agreement::{
        self, SignedProposal, SignedVote, VoteKind,
        record::{Entry, Step},
    },
};

use super::context::{Ballot, Ctx, Height, Member, Proposed, ValueDigest};

/// A kind of vote as it is sent.
pub(super) const fn kind_to_wire(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

/// A vote as it is sent.
pub(super) fn vote_to_wire(ballot: &Ballot) -> agreement::Vote {
    agreement::Vote {
        instance: ballot.height.0,
        round: ballot.round.as_u32().unwrap_or_default(),
        kind: kind_to_wire(ballot.kind),
        value: match ballot.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(ValueDigest(digest)) => Some(digest),
        },
        voter: ballot.voter.0,
    }
}

/// A signed vote as it is sent.
pub(super) fn signed_vote_to_wire(vote: &bft::SignedVote<Ctx>) -> agreement::SignedVote {
    agreement::SignedVote { vote: vote_to_wire(&vote.message), signature: vote.signature }
}

/// A signed vote for the engine.
pub(super) fn vote_from_wire(vote: &agreement::SignedVote) -> bft::SignedVote<Ctx> {
    let agreement::Vote { instance, round, kind, value, voter } = vote.vote;
    let ballot = Ballot {
        height: Height(instance),
        round: Round::new(round),
        kind: match kind {
            VoteKind::Prevote => VoteType::Prevote,
            VoteKind::Precommit => VoteType::Precommit,
        },
        value: value.map_or(NilOrVal::Nil, |digest| NilOrVal::Val(ValueDigest(digest))),
        voter: Member(voter),
    };
    bft::SignedVote::new(ballot, vote.signature)
}

/// A proposal as it is sent.
pub(super) fn proposal_to_wire(proposed: &Proposed) -> agreement::Proposal {
    agreement::Proposal {
        instance: proposed.height.0,
        round: proposed.round.as_u32().unwrap_or_default(),
        locked_in: proposed.locked_in.as_u32(),
        value: proposed.value.0,
    }
}

/// A signed proposal for the engine.
pub(super) fn proposal_from_wire(
    committee: Committee,
    signed: &agreement::SignedProposal,
) -> bft::SignedProposal<Ctx> {
    let agreement::Proposal { instance, round, locked_in, value } = signed.proposal;
    let proposed = Proposed {
        height: Height(instance),
        round: Round::new(round),
        value: ValueDigest(value),
        locked_in: Round::from(locked_in),
        proposer: Member(agreement::proposer(committee, instance, round)),
    };
    bft::SignedProposal::new(proposed, signed.signature)
}

pub(super) fn entry(input: &Input<Ctx>) -> Option<Entry> {
    Some(match input {
        Input::Vote(vote) => Entry::Vote(signed_vote_to_wire(vote)),
        Input::Proposal(proposal) => Entry::Proposal(signed_proposal(proposal)),
        Input::PolkaCertificate(certificate) => Entry::Polka(polka_to_wire(certificate)),
        Input::ProposedValue(value, _) => Entry::Validated {
            round: value.round.as_u32().unwrap_or_default(),
            value: value.value.0,
            valid: value.validity.is_valid(),
        },
        Input::TimeoutElapsed(timeout) => {
            let step = match timeout.kind {
                TimeoutKind::Propose => Step::Propose,
                TimeoutKind::Prevote => Step::Prevote,
                TimeoutKind::Precommit => Step::Precommit,
                TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return None,
            };
            Entry::Timeout(step, timeout.round.as_u32().unwrap_or_default())
        }
        // The core does not log these.
        Input::StartHeight(..)
        | Input::RoundCertificate(_)
        | Input::Propose(_)
        | Input::SyncValueResponse(_) => return None,
    })
}

pub(super) fn signed_proposal(signed: &bft::SignedProposal<Ctx>) -> SignedProposal {
    let proposal = proposal_to_wire(&signed.message);
    SignedProposal { proposal, signature: signed.signature }
}

pub(super) fn polka(votes: &[SignedVote]) -> Option<PolkaCertificate<Ctx>> {
    let first = votes.first()?.vote;
    let (height, round) = (Height(first.instance), Round::new(first.round));
    let votes = votes.iter().map(vote_from_wire).collect();
    Some(PolkaCertificate::new(height, round, ValueDigest(first.value?), votes))
}

pub(super) fn polka_to_wire(certificate: &PolkaCertificate<Ctx>) -> Vec<SignedVote> {
    let PolkaCertificate { height, round, value_id, polka_signatures } = certificate;
    let signed = |s: &bft::PolkaSignature<Ctx>| {
        to_wire(
            *height,
            *round,
            VoteType::Prevote,
            NilOrVal::Val(*value_id),
            s.address,
            s.signature,
        )
    };
    polka_signatures.iter().map(signed).collect()
}

pub(super) fn round_to_wire(certificate: &RoundCertificate<Ctx>) -> Vec<SignedVote> {
    let RoundCertificate { height, round, round_signatures, .. } = certificate;
    let signed = |s: &bft::RoundSignature<Ctx>| {
        to_wire(*height, *round, s.vote_type, s.value_id, s.address, s.signature)
    };
    round_signatures.iter().map(signed).collect()
}

pub(super) fn commit_to_wire(certificate: &CommitCertificate<Ctx>) -> Vec<SignedVote> {
    let CommitCertificate { height, round, value_id, commit_signatures } = certificate;
    let value = NilOrVal::Val(*value_id);
    let signed = |s: &bft::CommitSignature<Ctx>| {
        to_wire(*height, *round, VoteType::Precommit, value, s.address, s.signature)
    };
    commit_signatures.iter().map(signed).collect()
}

fn to_wire(
    height: Height,
    round: Round,
    kind: VoteType,
    value: NilOrVal<ValueDigest>,
    voter: Member,
    signature: Signature,
) -> SignedVote {
    let vote = agreement::Vote {
        instance: height.0,
        round: round.as_u32().unwrap_or_default(),
        kind: kind_to_wire(kind),
        value: match value {
            NilOrVal::Nil => None,
            NilOrVal::Val(ValueDigest(digest)) => Some(digest),
        },
        voter: voter.0,
    };
    SignedVote { vote, signature }
}
