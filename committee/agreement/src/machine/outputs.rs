//! Carries out what the engine wants, up to the decision.

use veil_committee_machine::{Effect, Millis};
use veil_protocol_spec::{
    Blake3Digest, Wire,
    agreement::{self, AgreementMessage, record::Entry},
    decryption::ManifestLock,
};

use super::{Agreement, KEPT_DECISIONS};
use crate::{
    effect::AgreementEffect,
    engine::{CoreError, Output},
    run::Run,
};

/// Rounds for which a manifest is kept that 2t+1 members did not vote for.
const KEPT_ROUNDS: u32 = 4;

impl Agreement {
    /// Carries out what the engine wants, and checks whether the others agreed on what the host
    /// refused.
    pub(super) fn absorb(&mut self, outputs: Result<Vec<Output>, CoreError>, now: Millis) {
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return self.abstain(&error, now),
        };
        for output in outputs {
            self.carry_out(output, now);
        }
        let Some(run) = self.run.as_mut().filter(|run| run.decided.is_none()) else { return };
        let (engine, round) = (&self.engine, self.engine.round());
        run.forget(|digest, proposed| {
            proposed.saturating_add(KEPT_ROUNDS) < round && !engine.has_polka(digest)
        });
        let unvoted =
            run.held.iter().filter(|(_, h)| h.manifest.is_some() && h.valid != Some(true));
        let unvoted: Vec<_> = unvoted.map(|(digest, held)| (*digest, held.valid)).collect();
        for (digest, valid) in unvoted {
            if let Some(lock) = self.engine.lock(digest) {
                return self.decide(lock);
            }
            if valid == Some(false) && self.engine.has_polka(digest) {
                self.request_validation(digest, true);
            }
        }
    }

    fn carry_out(&mut self, output: Output, now: Millis) {
        let Some(run) = &mut self.run else { return };
        let open = run.decided.is_none();
        let message = match output {
            Output::Append(entry) => return self.out.append(entry),
            Output::Vote(vote) => AgreementMessage::Vote(vote),
            Output::Proposal(signed) => match run.held.get(&signed.proposal.manifest) {
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
                    let effect = AgreementEffect::GetValue { slot: run.slot, round };
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
        let Some(manifest) = held.manifest.clone() else { return };
        if by_quorum && core::mem::replace(&mut held.appealed, true) {
            return;
        }
        let (slot, round) = (run.slot, held.round);
        let proposer = agreement::proposer(self.members.committee, slot, round);
        let effect =
            AgreementEffect::Validate { slot, round, proposer, digest, manifest, by_quorum };
        self.out.stage(Effect::Special(effect));
    }

    pub(super) fn decide(&mut self, lock: ManifestLock) {
        let open = |run: &Run| run.decided.is_none() && run.held.contains_key(&lock.manifest);
        if self.run.as_ref().is_some_and(open) {
            self.out.append(Entry::Decided(lock.clone()));
            self.conclude(lock);
        }
    }

    /// Ends the slot. The manifest is held; one that was forgotten comes with the answer to
    /// [`Self::ask`].
    pub(super) fn conclude(&mut self, lock: ManifestLock) {
        let Some(run) = &mut self.run else { return };
        let Some(held) = run.held.get(&lock.manifest) else { return };
        let Some(manifest) = held.manifest.clone() else { return };
        let decision = AgreementMessage::Decision(lock.clone(), held.bytes.clone()).to_wire();
        self.decisions.push_back((run.slot, decision.into()));
        if self.decisions.len() > KEPT_DECISIONS {
            self.decisions.pop_front();
        }
        run.decided = Some(lock.manifest);
        run.cancel_all();
        let effect = AgreementEffect::Locked { lock: Box::new(lock), manifest };
        self.out.stage(Effect::Special(effect));
    }

    /// Casts no more votes in this slot.
    fn abstain(&mut self, error: &CoreError, now: Millis) {
        let round = self.engine.round();
        let Some(run) = &mut self.run else { return };
        run.abstained = true;
        run.cancel_all();
        let retry = arc_malachitebft_core_types::Timeout::rebroadcast(round.into());
        run.schedule(retry, now.saturating_add(self.timing.wait(retry, &self.members)));
        let (slot, reason) = (run.slot, error.to_string());
        self.out.stage(Effect::Special(AgreementEffect::Abstained { slot, reason }));
    }
}
