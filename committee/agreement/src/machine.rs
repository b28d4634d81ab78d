//! The machine: the instance it is in, and its inputs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arc_malachitebft_core_types::{Timeout, TimeoutKind};
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot, Wire,
    agreement::{
        self, AgreementMessage, Instance, MAX_HELD, SignedProposal, Subject,
        record::{Entry, Record},
    },
    codec::Bytes,
    identity::SecretIdentity,
};

use crate::{
    config::{AgreementConfig, SetupError, Timing},
    effect::{AgreementEffect, AgreementStatus, Fault, ProposeError, Skip, StartError, Validity},
    effect_queue::EffectQueue,
    engine::{Engine, Members},
    run::Run,
    value::{Value, digest_of},
};

mod incoming;
mod outputs;
mod restart;

/// Instances whose decision is kept for members that ask: those of four slots.
pub const KEPT_DECISIONS: usize = 8;

/// One member's machine; see the [crate].
pub struct Agreement {
    members: Members,
    timing: Timing,
    engine: Engine,
    /// Entries of the instance that was under way at a restart.
    resume: Vec<Entry>,
    /// The last instance that was started here.
    last: Instance,
    run: Option<Run>,
    out: EffectQueue,
    /// Messages of instances that have not started here, by who brought them.
    early: BTreeMap<ParticipantIndex, VecDeque<(Instance, Vec<u8>)>>,
    /// The latest instance each member has shown to be in.
    reached: BTreeMap<ParticipantIndex, Instance>,
    /// The instance last named in [`AgreementEffect::Behind`].
    behind: Instance,
    /// Encoded decisions, oldest first.
    decisions: VecDeque<(Instance, Arc<[u8]>)>,
    answered: BTreeMap<ParticipantIndex, Millis>,
}

impl core::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Members { committee, me, .. } = &self.members;
        write!(f, "Agreement(member {me} of {committee}, {}, <redacted>)", self.last)
    }
}

impl Agreement {
    /// A member's machine. `records` are all that are stored, in order; those of another binding
    /// are left aside. If records of the last slots were forgotten, or are not read,
    /// [`abstain_through`](Self::abstain_through) says so.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        config: AgreementConfig,
        identity: SecretIdentity,
        records: Vec<Record>,
    ) -> Result<Self, SetupError> {
        let AgreementConfig { committee, binding, roster, timing } = config;
        let (found, expected) = (roster.len(), committee.n());
        if found != expected {
            return Err(SetupError::Roster { found, expected });
        }
        let public = identity.public();
        let me = committee
            .participants()
            .find(|j| roster[j.position()] == public)
            .ok_or(SetupError::NotAMember)?;
        let members = Members { committee, binding, roster, me };
        let mine = || records.iter().filter(|record| record.binding == binding);
        let last = mine().map(|record| record.instance).max().unwrap_or_default();
        let resume =
            mine().filter(|r| r.instance == last).flat_map(|r| r.entries.iter().cloned()).collect();
        let decisions = restart::decisions(mine);
        Ok(Self {
            engine: Engine::new(members.clone(), identity),
            members,
            timing,
            resume,
            last,
            run: None,
            out: EffectQueue::default(),
            early: BTreeMap::new(),
            reached: BTreeMap::new(),
            behind: Instance::default(),
            decisions,
            answered: BTreeMap::new(),
        })
    }

    /// Takes no part in the instances of the slots up to `slot`: what was said there may be forgotten. To
    /// be called before anything else.
    pub fn abstain_through(&mut self, slot: Slot) {
        if self.last.slot <= slot {
            self.last = Instance::end(slot);
            self.resume.clear();
        }
    }

    /// This member.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.members.me
    }

    /// The last instance that was started here, before a restart included; of slot 0 before the
    /// first.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        self.last
    }

    /// Begins an instance, or resumes the one that was under way at a restart. Instances may be left
    /// out, and the one before need not be decided here: a host that leaves a slot must know its
    /// end from the certificates.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&mut self, instance: Instance, now: Millis) -> Result<(), StartError> {
        if instance.slot == Slot(0) {
            return Err(StartError::SlotZero);
        }
        let entries = core::mem::take(&mut self.resume);
        let resumes = instance == self.last && !entries.is_empty();
        if instance <= self.last && !resumes {
            self.resume = entries;
            return Err(StartError::NotAfter { instance, last: self.last });
        }
        self.last = instance;
        self.run = Some(Run::new(instance));
        if resumes {
            self.replay(instance, &entries, now);
        } else {
            self.out.append(Entry::Started);
            let outputs = self.engine.start(instance);
            self.absorb(outputs, now);
        }
        self.flush();
        let mut waiting = Vec::new();
        for (from, messages) in &mut self.early {
            messages.retain(|(of, _)| *of >= instance);
            let later = messages.iter().filter(|(of, _)| *of > instance).cloned().collect();
            let now = core::mem::replace(messages, later).into_iter();
            waiting.extend(now.filter(|(of, _)| *of == instance).map(|(_, bytes)| (*from, bytes)));
        }
        for (from, bytes) in waiting {
            // Its verdict was given when it came.
            let _ = self.handle(from, &bytes, now);
        }
        Ok(())
    }

    /// Proposes a value, as [`AgreementEffect::GetValue`] asked.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing has happened then.
    pub fn propose(
        &mut self,
        instance: Instance,
        round: u32,
        value: Vec<u8>,
        now: Millis,
    ) -> Result<(), ProposeError> {
        let bytes = Bytes(value);
        let me = self.members.me;
        match Value::parse(&bytes, instance, &self.members)? {
            Value::Manifest(manifest) if manifest.proposer != me => {
                return Err(ProposeError::OtherProposer(manifest.proposer));
            }
            Value::Manifest(_) | Value::End(_) => {}
        }
        let Some(run) = self.active(instance).filter(|_| self.engine.round() == round) else {
            return Err(ProposeError::NotNow { instance, round });
        };
        if !self.engine.needs_proposal() {
            return Err(ProposeError::NotNow { instance, round });
        }
        let digest = digest_of(instance.subject, &bytes);
        if !run.held.contains_key(&digest) {
            self.out.append(Entry::Value(bytes.clone()));
        }
        if let Some(run) = &mut self.run {
            // It was parsed above.
            let _ = run.hold(bytes, round, &self.members);
            if let Some(held) = run.held.get_mut(&digest) {
                held.valid = Some(true);
            }
        }
        let outputs = self.engine.propose(round, digest);
        self.absorb(outputs, now);
        self.flush();
        Ok(())
    }

    /// What the host says of a value, as [`AgreementEffect::Validate`] asked, or later. A value that
    /// was valid once stays so.
    pub fn validated(&mut self, digest: Blake3Digest, validity: Validity, now: Millis) {
        let valid = validity == Validity::Valid;
        let Some(run) = self.run.as_mut().filter(|r| r.decided.is_none() && !r.abstained) else {
            return;
        };
        let subject = run.instance.subject;
        let Some(held) = run.held.get_mut(&digest).filter(|held| held.value.is_some()) else {
            return;
        };
        if held.valid == Some(true) || held.valid == Some(valid) {
            return;
        }
        let outputs = if !valid && subject == Subject::End {
            // It may be valid in the next round: of this one, that is all that is waited for.
            let round = self.engine.round();
            let proposed = |signed: &SignedProposal| signed.proposal.value == digest;
            let now_proposed = run.proposals.get(&round).is_some_and(|p| p.iter().any(proposed));
            if !now_proposed || !self.engine.awaits_proposal() {
                return;
            }
            self.engine.timeout(Timeout::propose(round.into()))
        } else {
            held.valid = Some(valid);
            self.engine.validated(held.round, digest, valid)
        };
        self.absorb(outputs, now);
        self.flush();
    }

    /// "Who knows more than this?"
    fn ask(&mut self) {
        let Some(run) = self.run.as_ref().filter(|run| run.decided.is_none()) else { return };
        let mut held: Vec<_> =
            run.held.iter().map(|(digest, held)| (held.round, *digest)).collect();
        held.sort_unstable();
        let held = held.into_iter().rev().take(MAX_HELD).map(|(_, digest)| digest).collect();
        let (instance, round) = (run.instance, self.engine.round());
        let message = AgreementMessage::Ask { instance, round, held };
        self.out.stage(Effect::Broadcast(message.to_wire().into()));
    }

    /// Where the instance stands; `None` before the first.
    #[must_use]
    pub fn status(&self) -> Option<AgreementStatus> {
        let run = self.run.as_ref()?;
        let round = self.engine.round();
        Some(AgreementStatus {
            instance: run.instance,
            round,
            proposer: agreement::proposer(self.members.committee, run.instance, round),
            decided: run.decided,
            outstanding: self.engine.outstanding(),
            abstained: run.abstained,
        })
    }

    /// The instance if votes count in it.
    fn active(&self, instance: Instance) -> Option<&Run> {
        let active =
            |run: &&Run| run.instance == instance && run.decided.is_none() && !run.abstained;
        self.run.as_ref().filter(active)
    }

    fn flush(&mut self) {
        self.out.flush(self.members.binding, self.last);
    }
}

impl Machine for Agreement {
    type Record = Record;
    type Special = AgreementEffect;
    type Skip = Skip;
    type Fault = Box<Fault>;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<Skip, Box<Fault>> {
        let outcome = self.accept(from, bytes, now);
        self.flush();
        match outcome {
            Ok(None) => Verdict::Valid,
            Ok(Some(fault)) => Verdict::Fault(Box::new(fault)),
            Err(skip) => Verdict::Skip(skip),
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        while let Some(timeout) = self.run.as_mut().and_then(|run| run.pop_due(now)) {
            let abstained = self.run.as_ref().is_some_and(|run| run.abstained);
            if !abstained {
                let outputs = self.engine.timeout(timeout);
                self.absorb(outputs, now);
            }
            if matches!(timeout.kind, TimeoutKind::Rebroadcast) {
                self.ask();
                if abstained && let Some(run) = &mut self.run {
                    run.schedule(timeout, now + self.timing.wait(timeout, &self.members));
                }
            }
            self.flush();
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.run.as_ref().and_then(Run::next_timer)
    }

    fn poll_effect(&mut self) -> Option<Effect<Record, AgreementEffect>> {
        self.out.pop()
    }

    fn persisted(&mut self, id: PersistId) {
        self.out.persisted(id);
    }
}

#[cfg(test)]
mod tests;
