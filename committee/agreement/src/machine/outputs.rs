//! Carries out what the engine wants, up to the decision.

use veil_committee_machine::{Effect, Millis};
use veil_protocol_spec::{
    Blake3Digest, Wire,
    agreement::{self, AgreementMessage, Lock, Subject, record::Entry},
};

use super::{Agreement, KEPT_DECISIONS};
use crate::{
    effect::AgreementEffect,
    engine::{CoreError, Output},
    run::Run,
};

/// Rounds for which a value is kept that 2t+1 members did not vote for.
const KEPT_ROUNDS: u32 = 4;

impl Agreement {
    /// Carries out what the engine wants, and checks what the others' votes say of what this member
    /// does not take for valid.
    pub(super) fn absorb(&mut self, outputs: Result<Vec<Output>, CoreError>, now: Millis) {
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return self.abstain(&error, now),
        };
        for output in outputs {
            self.carry_out(output, now);
        }
        let Some(run) = self.run.as_mut().filter(|r| r.decided.is_none() && !r.abstained) else {
            return;
        };
        let (engine, round) = (&self.engine, self.engine.round());
        run.forget(|digest, proposed| {
            proposed.saturating_add(KEPT_ROUNDS) < round && !engine.has_polka(digest)
        });
        let unvoted = run.held.iter().filter(|(_, h)| h.value.is_some() && h.valid != Some(true));
        let unvoted: Vec<_> = unvoted.map(|(digest, _)| *digest).collect();
        for digest in unvoted {
            if let Some(lock) = self.engine.lock(digest) {
                return self.decide(lock);
            }
            if self.has_honest_vote(digest) {
                return self.take_for_valid(digest, now);
            }
            self.appeal(digest);
        }
    }

    /// "An outcome is valid to whoever computed it or holds t+1 signed equal END statements"
    /// (`agreement.md`, "Two instances"): a vote for the end of a slot is such a statement, and of
    /// t+1 members one is honest, so some honest member has found the end valid by itself. A vote
    /// for a manifest is none: that its telemetry is complete each member says for itself.
    fn has_honest_vote(&self, digest: Blake3Digest) -> bool {
        let honest = self.members.committee.reconstruction_threshold().get();
        let me = self.members.me;
        self.run.as_ref().is_some_and(|run| {
            run.instance.subject == Subject::End && run.supporters(digest, me) >= honest
        })
    }

    /// As if the host had said so. What follows from it is stored with it, so that a restart comes
    /// to the same votes.
    fn take_for_valid(&mut self, digest: Blake3Digest, now: Millis) {
        let held = self.run.as_mut().and_then(|run| run.held.get_mut(&digest));
        let Some(held) = held else { return };
        held.valid = Some(true);
        let outputs = self.engine.validated(held.round, digest, true);
        self.absorb(outputs, now);
    }

    /// "A refused manifest for which 2t+1 members prevoted is validated again, once in every round"
    /// (`agreement.md`, step 3): what this member lacked may have come meanwhile, and with t members
    /// away nobody decides without it.
    fn appeal(&mut self, digest: Blake3Digest) {
        let round = self.engine.round();
        let Some(run) = &self.run else { return };
        let Some(held) = run.held.get(&digest) else { return };
        let refused = run.instance.subject == Subject::Manifest && held.valid == Some(false);
        let due = held.appealed.is_none_or(|before| before < round);
        if refused && due && self.engine.has_polka(digest) {
            self.request_validation(digest, true);
        }
    }

    fn carry_out(&mut self, output: Output, now: Millis) {
        let Some(run) = &mut self.run else { return };
        let open = run.decided.is_none();
        let message = match output {
            Output::Append(entry) => return self.out.append(entry),
            Output::Vote(vote) => AgreementMessage::Vote(vote),
            Output::Proposal(signed) => match run.held.get(&signed.proposal.value) {
                Some(held) => {
                    let known = run.proposals.entry(signed.proposal.round).or_default();
                    if !known.contains(&signed) {
                        known.push(signed);
                    }
                    AgreementMessage::Proposal(signed, held.bytes.clone())
                }
                None => return,
            },
            Output::Polka(votes) => AgreementMessage::Polka(votes),
            Output::Round(votes) => AgreementMessage::Round(votes),
            Output::GetValue(round) => {
                if open {
                    let effect = AgreementEffect::GetValue { instance: run.instance, round };
                    self.out.stage(Effect::Special(effect));
                }
                return;
            }
            Output::Schedule(timeout) => {
                if open {
                    let wait = self.timing.wait(timeout, &self.members);
                    run.schedule(timeout, now.saturating_add(wait));
                }
                return;
            }
            Output::Cancel(timeout) => return run.cancel(timeout),
            Output::CancelAll => return run.cancel_all(),
            Output::Decide(lock) => return self.decide(lock),
        };
        self.out.stage(Effect::Broadcast(message.to_wire().into()));
    }

    pub(super) fn request_validation(&mut self, digest: Blake3Digest, by_quorum: bool) {
        let Some(run) = &mut self.run else { return };
        let Some(held) = run.held.get_mut(&digest) else { return };
        let Some(value) = held.value.clone() else { return };
        if by_quorum {
            held.appealed = Some(self.engine.round());
        }
        let (instance, round) = (run.instance, held.round);
        let proposer = agreement::proposer(self.members.committee, instance, round);
        // "And so is every manifest that is proposed when all members have had their turn"
        // (`agreement.md`, step 3).
        let all_had_a_turn = round as usize >= self.members.committee.n();
        let by_quorum = by_quorum || (instance.subject == Subject::Manifest && all_had_a_turn);
        let effect =
            AgreementEffect::Validate { instance, round, proposer, digest, value, by_quorum };
        self.out.stage(Effect::Special(effect));
    }

    pub(super) fn decide(&mut self, lock: Lock) {
        let open = |run: &Run| run.decided.is_none() && run.held.contains_key(&lock.value);
        if self.run.as_ref().is_some_and(open) {
            self.out.append(Entry::Decided(lock.clone()));
            self.conclude(lock);
        }
    }

    /// Ends the instance. The value is held; one that was forgotten comes with the answer to
    /// [`Self::ask`].
    pub(super) fn conclude(&mut self, lock: Lock) {
        let Some(run) = &mut self.run else { return };
        let Some(held) = run.held.get(&lock.value) else { return };
        let Some(value) = held.value.clone() else { return };
        let decision = AgreementMessage::Decision(lock.clone(), held.bytes.clone()).to_wire();
        // It is known already after a restart.
        self.decisions.retain(|(of, _)| *of != run.instance);
        self.decisions.push_back((run.instance, decision.into()));
        if self.decisions.len() > KEPT_DECISIONS {
            self.decisions.pop_front();
        }
        run.decided = Some(lock.value);
        run.cancel_all();
        let effect = AgreementEffect::Decided { lock: Box::new(lock), value };
        self.out.stage(Effect::Special(effect));
    }

    /// Casts no more votes in this instance.
    fn abstain(&mut self, error: &CoreError, now: Millis) {
        let round = self.engine.round();
        let Some(run) = &mut self.run else { return };
        run.abstained = true;
        run.cancel_all();
        let retry = arc_malachitebft_core_types::Timeout::rebroadcast(round.into());
        run.schedule(retry, now.saturating_add(self.timing.wait(retry, &self.members)));
        let (instance, reason) = (run.instance, error.to_string());
        self.out.stage(Effect::Special(AgreementEffect::Abstained { instance, reason }));
    }
}
