//! Messages of other members.

use std::sync::Arc;

use veil_committee_machine::{Effect, Millis};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Wire,
    agreement::{
        self, AgreementMessage, Equivocation, Instance, Lock, MAX_HELD, MAX_VOTES, SignedProposal,
        SignedVote, Subject, VoteKind, record::Entry,
    },
    codec::Bytes,
    scheduling::Manifest,
};

use super::Agreement;
use crate::{
    effect::{AgreementEffect, Fault, FaultKind, Skip},
    engine::is_proof,
    value::digest_of,
};

/// Rounds ahead of this member's in which votes and proposals count: the core's bound.
const MAX_ROUNDS_AHEAD: u32 = arc_malachitebft_core_consensus::MAX_FUTURE_ROUND_LOOKAHEAD;
/// Proposals kept of one round: the proposer's, and the one that convicts it.
const MAX_PROPOSALS: usize = 2;
/// Messages of later instances kept of each member, in number and bytes.
const MAX_EARLY: usize = 64;
const MAX_EARLY_BYTES: usize = Manifest::MAX_BYTES + (64 << 10);

type Outcome = Result<Option<Fault>, Skip>;

impl Agreement {
    /// Accepts what peer `from` brought; the transport has authenticated it.
    pub(super) fn accept(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> Outcome {
        if !self.members.committee.contains(from) {
            return Err(Skip::NotAMember(from));
        }
        if from == self.members.me {
            return Err(Skip::Own);
        }
        let message = AgreementMessage::from_wire(bytes)?;
        let instance = instance_of(&message).ok_or(Skip::NoProof)?;
        let started = self.run.as_ref().map(|run| run.instance);
        if started.is_none_or(|current| instance > current) {
            if instance > self.last || started.is_none() && instance == self.last {
                self.keep_for_later(from, instance, bytes);
                return Err(Skip::Ahead(instance));
            }
            return Err(Skip::Past(instance));
        }
        if let AgreementMessage::Ask { round, held, .. } = &message {
            if held.len() > MAX_HELD {
                return Err(Skip::NoProof);
            }
            return self.answer(from, instance, *round, held, now).map(|()| None);
        }
        let Some(run) = self.run.as_ref().filter(|run| run.instance == instance) else {
            return Err(Skip::Past(instance));
        };
        if run.decided.is_some() {
            return Err(Skip::Decided(instance));
        }
        if let AgreementMessage::Decision(lock, bytes) = message {
            return self.accept_decision(lock, bytes).map(|()| None);
        }
        if run.abstained {
            return Err(Skip::Abstained(instance));
        }
        match message {
            AgreementMessage::Proposal(signed, bytes) => self.accept_proposal(signed, bytes, now),
            AgreementMessage::Vote(vote) => self.accept_vote(vote, now),
            AgreementMessage::Polka(votes) => self.accept_polka(&votes, now),
            AgreementMessage::Round(votes) => self.accept_round(&votes, now),
            AgreementMessage::Ask { .. } | AgreementMessage::Decision(..) => Ok(None),
        }
    }

    /// Keeps a message of an instance that has not started here; the oldest make room.
    fn keep_for_later(&mut self, from: ParticipantIndex, instance: Instance, bytes: &[u8]) {
        let kept = self.early.entry(from).or_default();
        kept.push_back((instance, bytes.to_vec()));
        while kept.len() > MAX_EARLY
            || kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MAX_EARLY_BYTES
        {
            kept.pop_front();
        }
        let reached = self.reached.entry(from).or_default();
        *reached = instance.max(*reached);
        let mut latest: Vec<_> = self.reached.values().copied().collect();
        latest.sort_unstable_by(|a, b| b.cmp(a));
        let honest = self.members.committee.max_faulty().get();
        if let Some(&instance) = latest.get(honest)
            && instance > self.last.max(self.behind)
        {
            self.behind = instance;
            self.out.stage(Effect::Special(AgreementEffect::Behind { instance }));
        }
    }

    fn accept_vote(&mut self, vote: SignedVote, now: Millis) -> Outcome {
        let voter = vote.vote.voter;
        if !self.members.committee.contains(voter) {
            return Err(Skip::NotAMember(voter));
        }
        if voter == self.members.me {
            return Err(Skip::Own);
        }
        self.check_round(vote.vote.round)?;
        if self.engine.has_vote(&vote) {
            return Err(Skip::Duplicate);
        }
        vote.verify(&self.members.binding, &self.members.roster).map_err(|_| Skip::BadSignature)?;
        let fault = self.record_vote(&vote);
        let outputs = self.engine.vote(&vote);
        self.absorb(outputs, now);
        Ok(fault)
    }

    fn check_round(&self, round: u32) -> Result<(), Skip> {
        if round > self.engine.round().saturating_add(MAX_ROUNDS_AHEAD) {
            return Err(Skip::FarRound(round));
        }
        Ok(())
    }

    /// Records a vote that is signed.
    fn record_vote(&mut self, vote: &SignedVote) -> Option<Fault> {
        let evidence = self.run.as_mut()?.record_vote(vote)?;
        Some(self.report(vote.vote.voter, evidence))
    }

    fn report(&mut self, culprit: ParticipantIndex, evidence: Equivocation) -> Fault {
        let evidence = Box::new(evidence);
        if self.run.as_mut().is_some_and(|run| run.reported.insert(culprit)) {
            let effect = AgreementEffect::Equivocated { culprit, evidence: evidence.clone() };
            self.out.stage(Effect::Special(effect));
        }
        Fault { culprit, kind: FaultKind::Equivocation(evidence) }
    }

    fn accept_proposal(&mut self, signed: SignedProposal, bytes: Bytes, now: Millis) -> Outcome {
        let proposal = signed.proposal;
        let (instance, round, digest) = (proposal.instance, proposal.round, proposal.value);
        self.check_round(round)?;
        if digest_of(instance.subject, &bytes) != digest {
            return Err(Skip::OtherValue);
        }
        let committee = self.members.committee;
        let proposer = agreement::proposer(committee, instance, round);
        if proposer == self.members.me {
            return Err(Skip::Own);
        }
        let Some(run) = &mut self.run else { return Ok(None) };
        let known = run.proposals.get(&round).map_or(&[][..], Vec::as_slice);
        if known.iter().any(|known| known.proposal == proposal) {
            return Err(Skip::Duplicate);
        }
        let full = known.len() >= MAX_PROPOSALS;
        if full && !self.engine.has_polka(digest) {
            return Err(Skip::TooManyProposals(round));
        }
        signed
            .verify(&self.members.binding, committee, &self.members.roster)
            .map_err(|_| Skip::BadSignature)?;
        let other = run.other_proposal(&signed);
        run.proposals.entry(round).or_default().push(signed);
        let mut fault = None;
        let mut asks = true;
        match run.held.get_mut(&digest) {
            // It names no author, so any proposer may propose it anew, and what the host refused in
            // one round it may find valid in the next.
            Some(held) if instance.subject == Subject::End => held.round = held.round.max(round),
            Some(_) => asks = false,
            None => {
                self.out.append(Entry::Value(bytes.clone()));
                let held = run.hold(bytes, round, &self.members);
                let kind = held.err().map(FaultKind::Value);
                fault = kind.map(|kind| Fault { culprit: proposer, kind });
            }
        }
        let outputs = self.engine.proposal(&signed);
        self.absorb(outputs, now);
        if fault.is_some() && self.active(instance).is_some() {
            let outputs = self.engine.validated(round, digest, false);
            self.absorb(outputs, now);
        } else if asks && self.is_open(instance, digest) {
            self.request_validation(digest, false);
        }
        let equivocation = other.map(|evidence| self.report(proposer, evidence));
        Ok(equivocation.or(fault))
    }

    /// Whether the validity of a value is not known yet.
    fn is_open(&self, instance: Instance, digest: Blake3Digest) -> bool {
        let held = self.active(instance).and_then(|run| run.held.get(&digest));
        held.is_some_and(|held| held.valid.is_none())
    }

    fn accept_polka(&mut self, votes: &[SignedVote], now: Millis) -> Outcome {
        let value = votes.first().and_then(|first| first.vote.value);
        let for_one = value.is_some()
            && votes.iter().all(|v| v.vote.kind == VoteKind::Prevote && v.vote.value == value);
        let quorum = self.members.committee.signing_threshold().get();
        if !for_one || !self.proves(votes, quorum) {
            return Err(Skip::NoProof);
        }
        let fault = self.record_votes(votes);
        let outputs = self.engine.polka(votes);
        self.absorb(outputs, now);
        Ok(fault)
    }

    fn accept_round(&mut self, votes: &[SignedVote], now: Millis) -> Outcome {
        let honest = self.members.committee.reconstruction_threshold().get();
        if !self.proves(votes, honest) {
            return Err(Skip::NoProof);
        }
        let fault = self.record_votes(votes);
        let outputs = self.engine.round_proof(votes);
        self.absorb(outputs, now);
        Ok(fault)
    }

    fn proves(&self, votes: &[SignedVote], needed: usize) -> bool {
        votes.len() <= MAX_VOTES && is_proof(&self.members, votes, needed)
    }

    fn record_votes(&mut self, votes: &[SignedVote]) -> Option<Fault> {
        let faults: Vec<_> = votes.iter().filter_map(|vote| self.record_vote(vote)).collect();
        faults.into_iter().next()
    }

    /// A lock is a decision, whatever this member has seen and what its host said.
    fn accept_decision(&mut self, lock: Lock, bytes: Bytes) -> Result<(), Skip> {
        lock.binding.check(&self.members.binding)?;
        lock.verify(self.members.committee, &self.members.roster)?;
        let Some(run) = &mut self.run else { return Ok(()) };
        if digest_of(lock.instance.subject, &bytes) != lock.value {
            return Err(Skip::OtherValue);
        }
        if !run.held.contains_key(&lock.value) {
            run.hold(bytes.clone(), lock.round, &self.members).map_err(|_| Skip::OtherValue)?;
            self.out.append(Entry::Value(bytes));
        }
        self.decide(lock);
        Ok(())
    }

    /// Answers a member that is stuck with what it may lack.
    fn answer(
        &mut self,
        from: ParticipantIndex,
        instance: Instance,
        round: u32,
        held: &[Blake3Digest],
        now: Millis,
    ) -> Result<(), Skip> {
        let pause = self.timing.retry / 2;
        if self.answered.get(&from).is_some_and(|at| now < at.saturating_add(pause)) {
            return Err(Skip::TooOften);
        }
        let mut answers: Vec<Arc<[u8]>> = Vec::new();
        if let Some((_, decision)) = self.decisions.iter().find(|(of, _)| *of == instance) {
            answers.push(Arc::clone(decision));
        } else if let Some(run) = self.run.as_ref().filter(|run| run.instance == instance) {
            let mut give = |message: AgreementMessage| answers.push(message.to_wire().into());
            let mine = self.engine.round();
            if mine > round
                && let Some(votes) = self.engine.round_entered()
            {
                give(AgreementMessage::Round(votes));
            }
            let polka = self.engine.best_polka();
            let locked = polka.as_ref().and_then(|votes| votes.first()).map(|v| v.vote);
            if let Some(votes) = polka {
                give(AgreementMessage::Polka(votes));
            }
            let mut rounds = vec![round, mine];
            rounds.extend(locked.map(|vote| vote.round));
            rounds.sort_unstable();
            rounds.dedup();
            let lacking = rounds
                .iter()
                .filter_map(|round| run.proposals.get(round))
                .flat_map(|proposals| {
                    let agreed = proposals.iter().find(|signed| {
                        locked.is_some_and(|v| v.value == Some(signed.proposal.value))
                    });
                    agreed.or_else(|| proposals.first())
                })
                .filter(|signed| {
                    // A value that is proposed again is held already, its proposal may not be. An
                    // end may be proposed again by anyone.
                    let again = signed.proposal.locked_in.is_some();
                    let end = instance.subject == Subject::End;
                    again || end || !held.contains(&signed.proposal.value)
                });
            for signed in lacking {
                if let Some(held) = run.held.get(&signed.proposal.value) {
                    give(AgreementMessage::Proposal(*signed, held.bytes.clone()));
                }
            }
        } else {
            return Err(Skip::Past(instance));
        }
        self.answered.insert(from, now);
        for bytes in answers {
            self.out.stage(Effect::Send { to: from, bytes });
        }
        Ok(())
    }
}

fn instance_of(message: &AgreementMessage) -> Option<Instance> {
    Some(match message {
        AgreementMessage::Proposal(signed, _) => signed.proposal.instance,
        AgreementMessage::Vote(vote) => vote.vote.instance,
        AgreementMessage::Polka(votes) | AgreementMessage::Round(votes) => {
            votes.first()?.vote.instance
        }
        AgreementMessage::Ask { instance, .. } => *instance,
        AgreementMessage::Decision(lock, _) => lock.instance,
    })
}
