//! Malachite's consensus core as a plain function: an input goes in, a list of outputs comes out.
//!
//! The core is a generator that yields an effect and waits for the answer. Every effect is answered
//! at once here: signatures are made and checked, everything else is recorded for the caller. So no
//! call waits for anything, and the core's state is a function of the inputs it was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use arc_malachitebft_core_consensus::{
    ConsensusMsg, Effect, Error, Input, LivenessMsg, LocallyProposedValue, Params, ProposedValue,
    Resumable as _, Resume, SignedConsensusMsg, State, ValuePayload, process,
};
use arc_malachitebft_core_types as bft;
use bft::{
    CertificateError, CommitCertificate, Round, RoundCertificate, RoundCertificateType,
    SignedMessage, Threshold, Timeout, TimeoutKind, Validity, ValueOrigin, Vote as _, VoteType,
};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity, Signature,
    agreement::{
        self, Instance, Lock, Proposal, SignedProposal, SignedVote, VoteKind,
        record::{Entry, Step},
    },
    identity::SecretIdentity,
    scheduling::Binding,
};

use super::{
    context::{Ctx, Height, Member, ValueDigest, Voter, Voters},
    convert::{
        commit_to_wire, entry, polka, polka_to_wire, proposal_from_wire, proposal_to_wire,
        round_to_wire, signed_proposal, signed_vote_to_wire, vote_from_wire, vote_to_wire,
    },
};

/// Who agrees, and on what deployment.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) committee: Committee,
    pub(super) binding: Binding,
    pub(super) roster: Vec<PublicIdentity>,
    pub(super) me: ParticipantIndex,
}

/// What the core wants done.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// To be stored before anything below it leaves.
    Append(Entry),
    Vote(SignedVote),
    Proposal(SignedProposal),
    Polka(Vec<SignedVote>),
    Round(Vec<SignedVote>),
    GetValue(u32),
    Schedule(Timeout),
    Cancel(Timeout),
    CancelAll,
    Decide(Lock),
}

/// The core cannot go on in this instance.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CoreError(String);

/// This member would contradict what it has signed.
#[derive(Debug, thiserror::Error)]
#[error("this member signed something else in this place before")]
struct Contradiction;

pub(super) struct Engine {
    state: State<Ctx>,
    handler: EffectHandler,
}

/// Answers the core's effects.
struct EffectHandler {
    members: Members,
    identity: SecretIdentity,
    /// What was voted in this instance. The core does not contradict itself; this makes certain.
    voted: BTreeMap<(u32, VoteKind), Option<Blake3Digest>>,
    proposed: BTreeMap<u32, Proposal>,
    outputs: Vec<Output>,
}

impl Engine {
    pub(super) fn new(members: Members, identity: SecretIdentity) -> Self {
        let ctx = Ctx { committee: members.committee };
        let params = Params {
            address: Member(members.me),
            threshold_params: bft::ThresholdParams::default(),
            // Proposals arrive with their value, but its validity is said later.
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let handler = EffectHandler {
            members,
            identity,
            voted: BTreeMap::new(),
            proposed: BTreeMap::new(),
            outputs: Vec::new(),
        };
        // Messages of later instances are kept by the machine, not by the core.
        let state = State::new(ctx, Height::default(), handler.voters(), params, 1, 1);
        Self { state, handler }
    }

    /// Begins an instance anew.
    pub(super) fn start(&mut self, instance: Instance) -> Result<Vec<Output>, CoreError> {
        self.handler.voted.clear();
        self.handler.proposed.clear();
        self.begin(instance, false)
    }

    /// Begins an instance that was begun before a restart, and takes in again what was stored of it.
    pub(super) fn replay(
        &mut self,
        instance: Instance,
        entries: &[Entry],
    ) -> Result<Vec<Output>, CoreError> {
        for entry in entries {
            match entry {
                Entry::Vote(SignedVote { vote, .. }) if vote.voter == self.handler.members.me => {
                    self.handler.voted.entry((vote.round, vote.kind)).or_insert(vote.value);
                }
                Entry::Proposal(SignedProposal { proposal, .. }) if self.is_mine(proposal) => {
                    self.handler.proposed.entry(proposal.round).or_insert(*proposal);
                }
                _ => {}
            }
        }
        let mut outputs = self.begin(instance, true)?;
        let inputs: Vec<Input<Ctx>> =
            entries.iter().filter_map(|e| self.input(instance, e)).collect();
        self.state.index_wal_entries(&inputs);
        for input in inputs {
            match self.process(input) {
                Ok(more) => outputs.extend(more),
                Err(error) => {
                    self.state.reset_entries_index();
                    return Err(error);
                }
            }
        }
        self.state.reset_entries_index();
        Ok(outputs)
    }

    fn begin(&mut self, instance: Instance, again: bool) -> Result<Vec<Output>, CoreError> {
        let voters = self.handler.voters();
        self.process(Input::StartHeight(Height(instance), voters, again, None, Default::default()))
    }

    fn input(&self, instance: Instance, entry: &Entry) -> Option<Input<Ctx>> {
        let committee = self.handler.members.committee;
        Some(match entry {
            Entry::Started | Entry::Value(_) | Entry::Decided(_) => return None,
            Entry::Vote(vote) => Input::Vote(vote_from_wire(vote)),
            Entry::Proposal(proposal) => Input::Proposal(proposal_from_wire(committee, proposal)),
            Entry::Polka(votes) => Input::PolkaCertificate(polka(votes)?),
            Entry::Validated { round, value, valid } => {
                self.validated_input(instance, *round, *value, *valid)
            }
            Entry::Timeout(step, round) => {
                let kind = match step {
                    Step::Propose => TimeoutKind::Propose,
                    Step::Prevote => TimeoutKind::Prevote,
                    Step::Precommit => TimeoutKind::Precommit,
                };
                Input::TimeoutElapsed(Timeout::new(Round::new(*round), kind))
            }
        })
    }

    fn validated_input(
        &self,
        instance: Instance,
        round: u32,
        value: Blake3Digest,
        valid: bool,
    ) -> Input<Ctx> {
        let committee = self.handler.members.committee;
        let proposed = ProposedValue {
            height: Height(instance),
            round: Round::new(round),
            valid_round: Round::Nil,
            proposer: Member(agreement::proposer(committee, instance, round)),
            value: ValueDigest(value),
            validity: Validity::from_bool(valid),
        };
        Input::ProposedValue(proposed, ValueOrigin::Consensus)
    }

    pub(super) fn vote(&mut self, vote: &SignedVote) -> Result<Vec<Output>, CoreError> {
        self.process(Input::Vote(vote_from_wire(vote)))
    }

    pub(super) fn proposal(&mut self, proposal: &SignedProposal) -> Result<Vec<Output>, CoreError> {
        let committee = self.handler.members.committee;
        self.process(Input::Proposal(proposal_from_wire(committee, proposal)))
    }

    pub(super) fn validated(
        &mut self,
        round: u32,
        value: Blake3Digest,
        valid: bool,
    ) -> Result<Vec<Output>, CoreError> {
        self.process(self.validated_input(self.instance(), round, value, valid))
    }

    /// The votes must be in one place, of distinct members and enough, as the machine has checked.
    pub(super) fn polka(&mut self, votes: &[SignedVote]) -> Result<Vec<Output>, CoreError> {
        match polka(votes) {
            Some(certificate) => self.process(Input::PolkaCertificate(certificate)),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Self::polka`]. Precommits of 2t+1 members end their round; any other votes begin theirs.
    pub(super) fn round_proof(&mut self, votes: &[SignedVote]) -> Result<Vec<Output>, CoreError> {
        let Some(SignedVote { vote: first, .. }) = votes.first() else { return Ok(Vec::new()) };
        let quorum = self.handler.members.committee.signing_threshold().get();
        let precommits = votes.iter().all(|v| v.vote.kind == VoteKind::Precommit);
        let kind = if precommits && votes.len() >= quorum {
            RoundCertificateType::Precommit
        } else {
            RoundCertificateType::Skip
        };
        let (height, round) = (Height(first.instance), Round::new(first.round));
        let votes = votes.iter().map(vote_from_wire).collect();
        let certificate = RoundCertificate::new_from_votes(height, round, kind, votes);
        self.process(Input::RoundCertificate(certificate))
    }

    pub(super) fn timeout(&mut self, timeout: Timeout) -> Result<Vec<Output>, CoreError> {
        self.process(Input::TimeoutElapsed(timeout))
    }

    pub(super) fn propose(
        &mut self,
        round: u32,
        value: Blake3Digest,
    ) -> Result<Vec<Output>, CoreError> {
        let (height, round) = (Height(self.instance()), Round::new(round));
        let value = LocallyProposedValue::new(height, round, ValueDigest(value));
        self.process(Input::Propose(value))
    }

    fn process(&mut self, input: Input<Ctx>) -> Result<Vec<Output>, CoreError> {
        let handler = &mut self.handler;
        let result: Result<(), Error<Ctx>> = process!(
            input: input,
            state: &mut self.state,
            metrics: &(),
            with: effect => handler.handle(effect)
        );
        let outputs = mem::take(&mut handler.outputs);
        result.map(|()| outputs).map_err(|error| CoreError(error.to_string()))
    }

    fn instance(&self) -> Instance {
        self.state.height().0
    }

    pub(super) fn round(&self) -> u32 {
        self.state.round().as_u32().unwrap_or_default()
    }

    /// Whether this member is to propose now and has not.
    pub(super) fn needs_proposal(&self) -> bool {
        let round = self.round();
        let proposer = agreement::proposer(self.handler.members.committee, self.instance(), round);
        let turn = proposer == self.handler.members.me && self.awaits_proposal();
        turn && !self.handler.proposed.contains_key(&round)
    }

    /// Whether this round's prevote is still to come.
    pub(super) fn awaits_proposal(&self) -> bool {
        self.state.driver.step_is_propose()
    }

    fn is_mine(&self, proposal: &Proposal) -> bool {
        let Proposal { instance, round, .. } = *proposal;
        let Members { committee, me, .. } = self.handler.members;
        agreement::proposer(committee, instance, round) == me
    }

    pub(super) fn has_vote(&self, vote: &SignedVote) -> bool {
        self.state.driver.votes().has_vote(&vote_from_wire(vote))
    }

    /// Whether 2t+1 members have prevoted for the value in some round, as far as known.
    pub(super) fn has_polka(&self, value: Blake3Digest) -> bool {
        let id = ValueDigest(value);
        let votes = self.state.driver.votes();
        let threshold =
            |round| votes.is_threshold_met(round, VoteType::Prevote, Threshold::Value(id));
        self.state.driver.polka_certificates().iter().any(|polka| polka.value_id == id)
            || votes.all_rounds().keys().any(threshold)
    }

    /// The lock that the precommits here make, whatever this member holds of the value.
    pub(super) fn lock(&self, value: Blake3Digest) -> Option<Lock> {
        let quorum = self.handler.members.committee.signing_threshold().get();
        self.state.driver.votes().all_rounds().iter().find_map(|(round, votes)| {
            let precommits = votes.precommits_for_value(&ValueDigest(value));
            (precommits.len() >= quorum).then(|| {
                let votes =
                    precommits.iter().map(|v| (v.message.validator_address().0, v.signature));
                let round = round.as_u32().unwrap_or_default();
                self.handler.lock_of(self.instance(), round, value, votes.collect())
            })
        })
    }

    /// Proof of 2t+1 prevotes for what this member last saw them for.
    pub(super) fn best_polka(&self) -> Option<Vec<SignedVote>> {
        let valid = self.state.driver.valid_value()?;
        let certificate = self.state.polka_certificate(valid.round, &valid.value)?;
        Some(polka_to_wire(certificate))
    }

    /// Proof that this round was reached; none is needed for the first.
    pub(super) fn round_entered(&self) -> Option<Vec<SignedVote>> {
        let certificate = self.state.round_certificate()?;
        (certificate.enter_round == self.state.round())
            .then(|| round_to_wire(&certificate.certificate))
    }

    /// Members whose precommit of this round is not here.
    pub(super) fn outstanding(&self) -> Vec<ParticipantIndex> {
        let votes = self.state.driver.votes().per_round(self.state.round());
        let voted = |member: &Member| {
            votes.is_some_and(|votes| votes.get_vote(VoteType::Precommit, member).is_some())
        };
        let all = self.handler.members.committee.participants();
        all.filter(|member| !voted(&Member(*member))).collect()
    }
}

impl EffectHandler {
    fn voters(&self) -> Voters {
        let members = self.members.committee.participants().zip(&self.members.roster);
        let voter = |(member, identity): (_, &PublicIdentity)| Voter {
            member: Member(member),
            identity: *identity,
        };
        Voters(members.map(voter).collect())
    }

    fn handle(&mut self, effect: Effect<Ctx>) -> Result<Resume<Ctx>, Contradiction> {
        Ok(match effect {
            Effect::SignVote(ballot, resume) => {
                let vote = vote_to_wire(&ballot);
                let voted = self.voted.entry((vote.round, vote.kind)).or_insert(vote.value);
                if *voted != vote.value {
                    return Err(Contradiction);
                }
                let signature = vote.sign(&self.members.binding, &self.identity).signature;
                resume.resume_with(SignedMessage::new(ballot, signature))
            }
            Effect::SignProposal(proposed, resume) => {
                let proposal = proposal_to_wire(&proposed);
                let proposed_before = self.proposed.entry(proposal.round).or_insert(proposal);
                if *proposed_before != proposal {
                    return Err(Contradiction);
                }
                let signature = proposal.sign(&self.members.binding, &self.identity).signature;
                resume.resume_with(SignedMessage::new(proposed, signature))
            }
            Effect::VerifySignature(message, _, resume) => {
                resume.resume_with(self.is_signed(&message))
            }
            Effect::VerifyCommitCertificate(certificate, _, _, resume) => {
                resume.resume_with(self.check(&commit_to_wire(&certificate), self.quorum()))
            }
            Effect::VerifyPolkaCertificate(certificate, _, _, resume) => {
                resume.resume_with(self.check(&polka_to_wire(&certificate), self.quorum()))
            }
            Effect::VerifyRoundCertificate(certificate, _, _, resume) => {
                let needed = match certificate.cert_type {
                    RoundCertificateType::Skip => {
                        self.members.committee.reconstruction_threshold().get()
                    }
                    RoundCertificateType::Precommit => self.quorum(),
                };
                resume.resume_with(self.check(&round_to_wire(&certificate), needed))
            }
            // Neither vote extensions nor the core's own synchronisation are used, so these do not
            // come.
            Effect::VerifyExtendedCommitCertificate(_, _, _, _, resume) => {
                resume.resume_with(Err(CertificateError::VerificationError(None)))
            }
            Effect::VerifyVoteExtension(.., resume) => resume.resume_with(Ok(())),
            Effect::ExtendVote(.., resume) => resume.resume_with(None),
            other => {
                self.record(other);
                Resume::Continue
            }
        })
    }

    /// Records an effect that needs no answer.
    fn record(&mut self, effect: Effect<Ctx>) {
        let output = match effect {
            Effect::WalAppend(_, input, _) => match entry(&input) {
                Some(entry) => Output::Append(entry),
                None => return,
            },
            Effect::PublishConsensusMsg(SignedConsensusMsg::Vote(vote), _)
            | Effect::RepublishVote(vote, _)
            | Effect::PublishLivenessMsg(LivenessMsg::Vote(vote), _) => {
                Output::Vote(signed_vote_to_wire(&vote))
            }
            Effect::PublishConsensusMsg(SignedConsensusMsg::Proposal(proposal), _) => {
                Output::Proposal(signed_proposal(&proposal))
            }
            Effect::PublishLivenessMsg(LivenessMsg::PolkaCertificate(certificate), _) => {
                Output::Polka(polka_to_wire(&certificate))
            }
            Effect::PublishLivenessMsg(LivenessMsg::SkipRoundCertificate(certificate), _)
            | Effect::RepublishRoundCertificate(certificate, _) => {
                Output::Round(round_to_wire(&certificate))
            }
            Effect::GetValue(_, round, _, _) => {
                Output::GetValue(round.as_u32().unwrap_or_default())
            }
            Effect::ScheduleTimeout(timeout, _) => Output::Schedule(timeout),
            Effect::CancelTimeout(timeout, _) => Output::Cancel(timeout),
            Effect::CancelAllTimeouts(_) => Output::CancelAll,
            Effect::Decide(certificate, _, _) => {
                let CommitCertificate { height, round, value_id, commit_signatures } = certificate;
                let votes = commit_signatures.into_iter().map(|s| (s.address.0, s.signature));
                let round = round.as_u32().unwrap_or_default();
                Output::Decide(self.lock_of(height.0, round, value_id.0, votes.collect()))
            }
            // Proposals are always sent with their value, and a decision ends the instance here.
            _ => return,
        };
        self.outputs.push(output);
    }

    fn quorum(&self) -> usize {
        self.members.committee.signing_threshold().get()
    }

    fn lock_of(
        &self,
        instance: Instance,
        round: u32,
        value: Blake3Digest,
        mut votes: Vec<(ParticipantIndex, Signature)>,
    ) -> Lock {
        votes.sort_unstable_by_key(|(voter, _)| *voter);
        Lock { binding: self.members.binding, instance, round, value, votes }
    }

    fn is_signed(&self, message: &SignedMessage<Ctx, ConsensusMsg<Ctx>>) -> bool {
        let Members { committee, binding, roster, .. } = &self.members;
        let signature = message.signature;
        match &message.message {
            ConsensusMsg::Vote(ballot) => {
                let signed = SignedVote { vote: vote_to_wire(ballot), signature };
                signed.verify(binding, roster).is_ok()
            }
            ConsensusMsg::Proposal(proposed) => {
                let signed = SignedProposal { proposal: proposal_to_wire(proposed), signature };
                signed.verify(binding, *committee, roster).is_ok()
            }
        }
    }

    fn check(&self, votes: &[SignedVote], needed: usize) -> Result<(), CertificateError<Ctx>> {
        match is_proof(&self.members, votes, needed) {
            true => Ok(()),
            false => Err(CertificateError::VerificationError(None)),
        }
    }
}

/// Whether the votes are of one round, of distinct members, signed and enough.
pub(super) fn is_proof(members: &Members, votes: &[SignedVote], needed: usize) -> bool {
    let Some(SignedVote { vote: first, .. }) = votes.first() else { return false };
    let voters: BTreeSet<_> = votes.iter().map(|v| v.vote.voter).collect();
    let valid = |v: &SignedVote| {
        (v.vote.instance, v.vote.round) == (first.instance, first.round)
            && v.verify(&members.binding, &members.roster).is_ok()
    };
    voters.len() == votes.len() && votes.len() >= needed && votes.iter().all(valid)
}
