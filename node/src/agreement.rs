//! Byzantine agreement of the committee on one manifest per slot.
//!
//! The algorithm is Tendermint (Buchman, Kwon, Milosevic, "The latest gossip on BFT consensus",
//! 2018), as Malachite's consensus core implements it (`docs/adr/0006-agreement.md`); messages and
//! signatures are [`veil_protocol_spec::agreement`]. This module makes a machine without I/O of the
//! core, like every other machine here.
//!
//! # Roles
//! Members of the committee take turns as proposer, by slot and round. The **owner** of the machine
//! writes manifests when it is asked to, judges those of others, stores records, carries messages.
//!
//! # Call order
//! [`Agreement::new`] with the records of before a restart, if any; [`Agreement::start`] for every
//! slot; then inputs in any order: [`handle`](Agreement::handle), [`propose`](Agreement::propose),
//! [`validated`](Agreement::validated), [`persisted`](Agreement::persisted),
//! [`handle_timeout`](Agreement::handle_timeout) at [`poll_timeout`](Agreement::poll_timeout).
//! After each, [`poll_effect`](Agreement::poll_effect) until it gives nothing.
//!
//! # Flow of a round
//! 1. The proposer is asked for a manifest ([`Effect::NeedProposal`]) unless one of an earlier
//!    round must be proposed again; it is sent to all with the manifest's encoding.
//! 2. Every member has its owner judge the manifest ([`Effect::Validate`]) and prevotes for it, or
//!    for none if it is refused, too late, or another one is locked.
//! 3. A member that sees 2t+1 prevotes for a manifest precommits to it and is locked on it.
//! 4. 2t+1 precommits of one round decide. They are the [`ManifestLock`] ([`Effect::Locked`]); the
//!    next step, decryption, needs no further message. Otherwise the next round begins.
//!
//! # Catching up
//! A member that is stuck sends its votes again after a while and asks all others
//! ([`AgreementMessage::Ask`]). Who has decided answers with the lock and the manifest, which the
//! asker takes for its own decision; who has not, with the proposals and proofs it may lack.
//! Decisions of the last [`KEPT_DECISIONS`] slots are kept for that; a member that is further
//! behind learns from [`Effect::Wanted`] that it is, and its owner fetches
//! [`SlotRecord`](veil_protocol_spec::scheduling::SlotRecord)s. Messages of later slots wait for
//! their start within a bound. Slots may be left out; they never go back.
//!
//! # Restart
//! Everything that changes the machine is stored before what follows from it leaves. A restarted
//! machine, started for the slot of its last records, takes them in again, derives the same votes,
//! and sends those of its present round again. If it would derive another vote than the one it has
//! stored it [abstains](Effect::Abstaining).
//!
//! # Caveats
//! - Owners may judge one manifest differently, since they received different telemetry. A member
//!   that refused a manifest for which 2t+1 others voted is asked again (`by_quorum`); owners that
//!   insist can keep the committee from agreeing.
//! - A slot that is not decided is not given up: a decision of the others may exist. With more than
//!   t members away it waits; [`Agreement::status`] names them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity, Slot, Wire,
    agreement::{self, AgreementMessage, MAX_HELD},
    ceremony::Bytes,
    decryption::ManifestLock,
    identity::SecretIdentity,
    scheduling::{Binding, Manifest},
};

mod context;
mod convert;
mod effect;
mod engine;
mod incoming;
mod outbox;
mod record;
mod restart;
mod run;

pub use effect::{
    AgreementStatus, Effect, Fault, FaultKind, Judgement, Millis, PersistId, ProposeError,
    SetupError, Skip, StartError, Verdict,
};
pub use record::Record;
pub use run::Timing;

use self::{
    engine::{Engine, Members, Output, Stopped},
    outbox::Outbox,
    record::Entry,
    run::{Run, digest_of},
};

/// Slots whose decision is kept for members that ask.
pub const KEPT_DECISIONS: usize = 4;

/// Rounds for which a manifest is kept that 2t+1 members did not vote for.
const KEPT_ROUNDS: u32 = 4;

/// What a member must know to take part.
#[derive(Clone, Debug)]
pub struct AgreementConfig {
    /// The committee's size.
    pub committee: Committee,
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// Identities in the order of participants.
    pub roster: Vec<PublicIdentity>,
    /// How long to wait for what.
    pub timing: Timing,
}

/// One member's machine; see the [module](self).
pub struct Agreement {
    members: Members,
    timing: Timing,
    engine: Engine,
    /// Entries of the slot that was under way at a restart.
    resume: Vec<Entry>,
    /// The last slot that was started here.
    last: Slot,
    run: Option<Run>,
    out: Outbox,
    /// Messages of slots that have not started here, by who brought them.
    early: BTreeMap<ParticipantIndex, VecDeque<(Slot, Vec<u8>)>>,
    /// The latest slot each member has shown to be in.
    reached: BTreeMap<ParticipantIndex, Slot>,
    wanted: Slot,
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
            out: Outbox::default(),
            early: BTreeMap::new(),
            reached: BTreeMap::new(),
            wanted: Slot(0),
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
    /// be decided here; whoever leaves it must know its outcome from the certificates.
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

    /// Proposes a manifest, as [`Effect::NeedProposal`] asked.
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
                held.sound = Some(true);
            }
        }
        let outputs = self.engine.propose(round, digest);
        self.absorb(outputs, now);
        self.flush();
        Ok(())
    }

    /// The owner's word on a manifest, as [`Effect::Validate`] asked. Sound stays sound.
    pub fn validated(&mut self, digest: Blake3Digest, judgement: Judgement, now: Millis) {
        let sound = judgement == Judgement::Sound;
        let Some(run) = self.run.as_mut().filter(|r| r.decided.is_none() && !r.abstaining) else {
            return;
        };
        let Some(held) = run.held.get_mut(&digest).filter(|held| held.manifest.is_some()) else {
            return;
        };
        if held.sound == Some(true) || held.sound == Some(sound) {
            return;
        }
        held.sound = Some(sound);
        let outputs = self.engine.judged(held.round, digest, sound);
        self.absorb(outputs, now);
        self.flush();
    }

    /// The record is stored.
    pub fn persisted(&mut self, id: PersistId) {
        self.out.persisted(id);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.run.as_ref().and_then(Run::next_timer)
    }

    /// To be called at [`Self::poll_timeout`]; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Millis) {
        while let Some(timeout) = self.run.as_mut().and_then(|run| run.take_due(now)) {
            let abstaining = self.run.as_ref().is_some_and(|run| run.abstaining);
            if !abstaining {
                let outputs = self.engine.timeout(timeout);
                self.absorb(outputs, now);
            }
            if matches!(timeout.kind, arc_malachitebft_core_types::TimeoutKind::Rebroadcast) {
                self.ask();
                if abstaining && let Some(run) = &mut self.run {
                    run.schedule(timeout, now + self.timing.wait(timeout, &self.members));
                }
            }
            self.flush();
        }
    }

    /// "Who knows more than this?"
    fn ask(&mut self) {
        let Some(run) = self.run.as_ref().filter(|run| run.decided.is_none()) else { return };
        let mut held: Vec<_> =
            run.held.iter().map(|(digest, held)| (held.round, *digest)).collect();
        held.sort_unstable();
        let held = held.into_iter().rev().take(MAX_HELD).map(|(_, digest)| digest).collect();
        let message = AgreementMessage::Ask { slot: run.slot, round: self.engine.round(), held };
        self.out.stage(Effect::Broadcast(message.to_wire()));
    }

    /// The next thing to do, if any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop()
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
            abstaining: run.abstaining,
        })
    }

    /// The slot if votes count in it.
    fn active(&self, slot: Slot) -> Option<&Run> {
        let active = |run: &&Run| run.slot == slot && run.decided.is_none() && !run.abstaining;
        self.run.as_ref().filter(active)
    }

    /// Carries out what the engine wants, and looks whether what the owner refused was agreed on
    /// by the others.
    fn absorb(&mut self, outputs: Result<Vec<Output>, Stopped>, now: Millis) {
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(stopped) => return self.abstain(&stopped, now),
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
            run.held.iter().filter(|(_, h)| h.manifest.is_some() && h.sound != Some(true));
        let unvoted: Vec<_> = unvoted.map(|(digest, held)| (*digest, held.sound)).collect();
        for (digest, sound) in unvoted {
            if let Some(lock) = self.engine.lock(digest) {
                return self.decide(lock);
            }
            if sound == Some(false) && self.engine.has_polka(digest) {
                self.ask_owner(digest, true);
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
            Output::NeedProposal(round) => {
                if open {
                    self.out.stage(Effect::NeedProposal { slot: run.slot, round });
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
        self.out.stage(Effect::Broadcast(message.to_wire()));
    }

    fn ask_owner(&mut self, digest: Blake3Digest, by_quorum: bool) {
        let Some(run) = &mut self.run else { return };
        let Some(held) = run.held.get_mut(&digest) else { return };
        let Some(manifest) = held.manifest.clone() else { return };
        if by_quorum && core::mem::replace(&mut held.appealed, true) {
            return;
        }
        let (slot, round) = (run.slot, held.round);
        let proposer = agreement::proposer(self.members.committee, slot, round);
        self.out.stage(Effect::Validate { slot, round, proposer, digest, manifest, by_quorum });
    }

    fn decide(&mut self, lock: ManifestLock) {
        let open = |run: &Run| run.decided.is_none() && run.held.contains_key(&lock.manifest);
        if self.run.as_ref().is_some_and(open) {
            self.out.append(Entry::Decided(lock.clone()));
            self.conclude(lock);
        }
    }

    /// Ends the slot. The manifest is held; one that was forgotten comes with the answer to
    /// [`Self::ask`].
    fn conclude(&mut self, lock: ManifestLock) {
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
        self.out.stage(Effect::Locked { lock: Box::new(lock), manifest });
    }

    /// Casts no more votes in this slot.
    fn abstain(&mut self, stopped: &Stopped, now: Millis) {
        let round = self.engine.round();
        let Some(run) = &mut self.run else { return };
        run.abstaining = true;
        run.cancel_all();
        let retry = arc_malachitebft_core_types::Timeout::rebroadcast(round.into());
        run.schedule(retry, now.saturating_add(self.timing.wait(retry, &self.members)));
        let (slot, reason) = (run.slot, stopped.to_string());
        self.out.stage(Effect::Abstaining { slot, reason });
    }

    fn flush(&mut self) {
        self.out.flush(self.members.binding, self.last);
    }
}

#[cfg(test)]
mod tests;
