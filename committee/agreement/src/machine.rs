//! The machine: the slot it is in, and its inputs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arc_malachitebft_core_types::TimeoutKind;
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot, Wire,
    agreement::{
        self, AgreementMessage, MAX_HELD,
        record::{Entry, Record},
    },
    codec::Bytes,
    identity::SecretIdentity,
    scheduling::Manifest,
};

use crate::{
    config::{AgreementConfig, SetupError, Timing},
    effect::{AgreementEffect, AgreementStatus, Fault, ProposeError, Skip, StartError, Validity},
    effect_queue::EffectQueue,
    engine::{Engine, Members},
    run::{Run, digest_of},
};

mod incoming;
mod outputs;
mod restart;

/// Slots whose decision is kept for members that ask.
pub const KEPT_DECISIONS: usize = 4;

/// One member's machine; see the [crate](crate).
pub struct Agreement {
    members: Members,
    timing: Timing,
    engine: Engine,
    /// Entries of the slot that was under way at a restart.
    resume: Vec<Entry>,
    /// The last slot that was started here.
    last: Slot,
    run: Option<Run>,
    out: EffectQueue,
    /// Messages of slots that have not started here, by who brought them.
    early: BTreeMap<ParticipantIndex, VecDeque<(Slot, Vec<u8>)>>,
    /// The latest slot each member has shown to be in.
    reached: BTreeMap<ParticipantIndex, Slot>,
    /// The slot last named in [`AgreementEffect::Behind`].
    behind: Slot,
    /// Encoded decisions, oldest first.
    decisions: VecDeque<(Slot, Arc<[u8]>)>,
    answered: BTreeMap<ParticipantIndex, Millis>,
}

impl core::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Members { committee, me, .. } = &self.members;
        write!(f, "Agreement(member {me} of {committee}, slot {}, <redacted>)", self.last)
    }
}

impl Agreement {
    /// A member's machine. `records` are all that are stored, in order; those of another binding
    /// are left aside.
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
        let last = mine().map(|record| record.slot).max().unwrap_or_default();
        let resume =
            mine().filter(|r| r.slot == last).flat_map(|r| r.entries.iter().cloned()).collect();
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
            behind: Slot(0),
            decisions: VecDeque::new(),
            answered: BTreeMap::new(),
        })
    }

    /// This member.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.members.me
    }

    /// The last slot that was started here, before a restart included; 0 before the first.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.last
    }

    /// Begins a slot, or resumes the one that was under way at a restart. The slot before need not
    /// be decided here; a host that leaves it must know its outcome from the certificates.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&mut self, slot: Slot, now: Millis) -> Result<(), StartError> {
        if slot == Slot(0) {
            return Err(StartError::SlotZero);
        }
        let entries = core::mem::take(&mut self.resume);
        let resumes = slot == self.last && !entries.is_empty();
        if slot <= self.last && !resumes {
            self.resume = entries;
            return Err(StartError::NotAfter { slot, last: self.last });
        }
        self.last = slot;
        self.run = Some(Run::new(slot));
        if resumes {
            self.replay(slot, &entries, now);
        } else {
            self.out.append(Entry::Started);
            let outputs = self.engine.start(slot);
            self.absorb(outputs, now);
        }
        self.flush();
        let mut waiting = Vec::new();
        for (from, messages) in &mut self.early {
            messages.retain(|(of, _)| *of >= slot);
            let later = messages.iter().filter(|(of, _)| *of > slot).cloned().collect();
            let now = core::mem::replace(messages, later).into_iter();
            waiting.extend(now.filter(|(of, _)| *of == slot).map(|(_, bytes)| (*from, bytes)));
        }
        for (from, bytes) in waiting {
            // Its verdict was given when it came.
            let _ = self.handle(from, &bytes, now);
        }
        Ok(())
    }

    /// Proposes a manifest, as [`AgreementEffect::GetValue`] asked.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing has happened then.
    pub fn propose(
        &mut self,
        slot: Slot,
        round: u32,
        manifest: Vec<u8>,
        now: Millis,
    ) -> Result<(), ProposeError> {
        let bytes = Bytes(manifest);
        let manifest = Manifest::parse(&bytes.0, self.members.committee)?;
        manifest
            .binding
            .check(&self.members.binding)
            .map_err(|mismatch| ProposeError::Elsewhere(mismatch.field))?;
        if manifest.slot != slot {
            return Err(ProposeError::Elsewhere("slot"));
        }
        if manifest.proposer != self.members.me {
            return Err(ProposeError::Elsewhere("proposer"));
        }
        let Some(run) = self.active(slot).filter(|_| self.engine.round() == round) else {
            return Err(ProposeError::NotNow { slot, round });
        };
        if !self.engine.needs_proposal() {
            return Err(ProposeError::NotNow { slot, round });
        }
        let digest = digest_of(&bytes);
        if !run.held.contains_key(&digest) {
            self.out.append(Entry::Manifest(bytes.clone()));
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

    /// What the host says of a manifest, as [`AgreementEffect::Validate`] asked. A manifest that was
    /// valid once stays so.
    pub fn validated(&mut self, digest: Blake3Digest, validity: Validity, now: Millis) {
        let valid = validity == Validity::Valid;
        let Some(run) = self.run.as_mut().filter(|r| r.decided.is_none() && !r.abstained) else {
            return;
        };
        let Some(held) = run.held.get_mut(&digest).filter(|held| held.manifest.is_some()) else {
            return;
        };
        if held.valid == Some(true) || held.valid == Some(valid) {
            return;
        }
        held.valid = Some(valid);
        let outputs = self.engine.validated(held.round, digest, valid);
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
        let message = AgreementMessage::Ask { slot: run.slot, round: self.engine.round(), held };
        self.out.stage(Effect::Broadcast(message.to_wire().into()));
    }

    /// Where the slot stands; `None` before the first.
    #[must_use]
    pub fn status(&self) -> Option<AgreementStatus> {
        let run = self.run.as_ref()?;
        let round = self.engine.round();
        Some(AgreementStatus {
            slot: run.slot,
            round,
            proposer: agreement::proposer(self.members.committee, run.slot, round),
            locked: run.decided,
            outstanding: self.engine.outstanding(),
            abstained: run.abstained,
        })
    }

    /// The slot if votes count in it.
    fn active(&self, slot: Slot) -> Option<&Run> {
        let active = |run: &&Run| run.slot == slot && run.decided.is_none() && !run.abstained;
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
