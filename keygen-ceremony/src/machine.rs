//! One participant of one attempt of the key ceremony, as a machine without I/O.
//!
//! Source: `ceremony.md`; each step is quoted where it is done.
//!
//! # Inputs
//! - [`Machine::handle`]: bytes from a peer whose index the transport has authenticated;
//! - [`Machine::handle_timeout`]: the time has come that [`Machine::poll_timeout`] named;
//! - [`Machine::work`]: one bounded piece of computation; the host calls it while it returns `true`;
//! - [`Ceremony::handle_commit_point`]: what the chain (or whatever stands for it) decided.
//!
//! There is no clock, no socket and no entropy inside: everything drawn comes from the
//! [`CeremonySeed`].
//!
//! # Effects
//! [`Machine::poll_effect`] after every input, in order: a [`Effect::Persist`] is complete before any
//! later effect is carried out. The machine waits for no acknowledgement. [`CeremonyEffect`] lists
//! what only a ceremony asks for.
//!
//! # Restart
//! [`Ceremony::resume`] takes the persisted records and replays them; the member sends the same
//! bytes again. After FINISH the seed is gone and the records alone are enough.
//!
//! # State
//! [`Stage`] names what the member waits for or computes, and the stage owns the secrets that it
//! needs: they are erased when the member goes on, aborts, or is dropped. Every wait has a deadline;
//! whatever goes wrong before this member signed FINISH ends in ABORT with a reason and the evidence
//! kept. After FINISH only the commit point decides: "a key is valid only with the FINISH signatures
//! of all n members over one root", published before the attempt's deadline.

use std::{collections::VecDeque, sync::Arc};

use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::key_share::KeyShare;
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{AbortReason, Header, Payload, Round, SignedMessage},
    identity::SecretIdentity,
};

use crate::{
    seed::CeremonySeed,
    setup::{Setup, Skip},
    store::ChunkStore,
};

mod computation;
mod end;
mod failure;
mod interface;
mod log;
mod messages;
mod state;
mod steps;
mod streams;
mod string;
#[cfg(test)]
pub(crate) mod tests;

pub use self::interface::{
    AbortReport, CeremonyEffect, CommitPoint, Fault, Outcome, Progress, Record, ResumeError, Stage,
};
use self::{
    failure::{Failed, Failure},
    log::MessageLog,
    state::{Finished, State},
};

/// One participant of one attempt; see the [module](self).
pub struct Ceremony {
    setup: Arc<Setup>,
    identity: SecretIdentity,
    store: Box<dyn ChunkStore>,
    state: State,
    log: MessageLog,
    /// Own messages of a former run, to compare with.
    replayed: Vec<SignedMessage>,
    evidence: Vec<SignedMessage>,
    /// A key share was made or is in the records, so that an abort has it erased.
    key_share_made: bool,
    deadline: Option<Millis>,
    /// By when the stream must be open whose chunks are awaited.
    stream_end: Option<Millis>,
    next_retry: Option<Millis>,
    effects: VecDeque<Effect<Record, CeremonyEffect>>,
    records: u64,
}

impl core::fmt::Debug for Ceremony {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ceremony(participant {}, {:?}, <redacted>)", self.setup.me, self.stage())
    }
}

impl Ceremony {
    /// Starts an attempt. The seed has been persisted before.
    #[must_use]
    pub fn new(
        setup: Arc<Setup>,
        identity: SecretIdentity,
        seed: CeremonySeed,
        store: Box<dyn ChunkStore>,
        now: Millis,
    ) -> Self {
        let mut machine = Self::idle(setup, identity, store);
        if let Err(failed) = machine.start(seed, now) {
            machine.end(failed);
        }
        machine
    }

    /// Goes on after a restart, from the records of the former run.
    ///
    /// # Errors
    /// [`ResumeError`] if they do not allow it; nothing is sent then.
    pub fn resume(
        setup: Arc<Setup>,
        identity: SecretIdentity,
        seed: Option<CeremonySeed>,
        store: Box<dyn ChunkStore>,
        records: Vec<Record>,
        now: Millis,
    ) -> Result<Self, ResumeError> {
        let mut machine = Self::idle(setup, identity, store);
        let me = machine.setup.me;
        let mut own = Vec::new();
        let mut key = Finished::default();
        for record in records {
            match record {
                Record::Message(message) if message.header.sender == me => own.push(*message),
                Record::Message(message) => {
                    let Header { round, sender, .. } = message.header;
                    // The first one counts, as it did before the restart.
                    match machine.log.get(round, sender).cloned() {
                        Some(first) if first == *message => {}
                        Some(first) => machine.evidence.extend([first, *message]),
                        None => machine.log.insert(*message),
                    }
                }
                Record::KeySet(key_set) => key.key_set = Some(key_set),
                Record::KeyShare(key_share) => key.key_share = Some(key_share),
            }
        }
        machine.key_share_made = key.key_share.is_some();
        let finished = own.iter().any(|message| message.header.round == Round::Finish);
        let aborted = own.iter().find_map(|message| match &message.payload {
            Payload::Abort(reason) => Some(reason.clone()),
            _ => None,
        });
        if finished {
            machine.resume_finished(own, key, now);
        } else if let Some(reason) = aborted {
            machine.resume_aborted(own, reason);
        } else {
            machine.replayed = own;
            machine.replay(seed.ok_or(ResumeError::NoSeed)?, now)?;
        }
        Ok(machine)
    }

    /// Before FINISH: computes and sends everything again.
    fn replay(&mut self, seed: CeremonySeed, now: Millis) -> Result<(), ResumeError> {
        match self.start(seed, now) {
            Err(Failed { failure: Failure::Diverged(round), .. }) => {
                return Err(ResumeError::Diverged(round));
            }
            Err(failed) => self.end(failed),
            Ok(()) => {}
        }
        if let Some(Header { sender: accused, round, .. }) =
            self.evidence.first().map(|first| first.header)
        {
            self.abort(AbortReason::Equivocation { accused, round });
        }
        if let Some(by) = self.log.any(Round::Abort).map(|abort| abort.header.sender) {
            self.abort(AbortReason::PeerAborted { by });
        }
        Ok(())
    }

    /// After FINISH: sends it again and waits for the decision.
    fn resume_finished(&mut self, own: Vec<SignedMessage>, key: Finished, now: Millis) {
        own.into_iter().for_each(|message| self.log.insert_own(message));
        self.ask(CeremonyEffect::EraseSeed);
        self.enter(State::Finish(key), now);
        if let Some(finish) = self.log.get(Round::Finish, self.setup.me).cloned() {
            self.broadcast(&finish);
        }
        if let Err(failed) = self.advance(now) {
            self.end(failed);
        }
    }

    fn idle(setup: Arc<Setup>, identity: SecretIdentity, store: Box<dyn ChunkStore>) -> Self {
        Self {
            setup,
            identity,
            store,
            state: State::Aborted,
            log: MessageLog::default(),
            replayed: Vec::new(),
            evidence: Vec::new(),
            key_share_made: false,
            deadline: None,
            stream_end: None,
            next_retry: None,
            effects: VecDeque::new(),
            records: 0,
        }
    }

    /// What this member waits for or does.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// The participant that this machine advances.
    #[must_use]
    pub fn participant(&self) -> ParticipantIndex {
        self.setup.me
    }

    /// The key share, from PROVE on. It is worth nothing before [`CeremonyEffect::Complete`].
    #[must_use]
    pub const fn key_share(&self) -> Option<&Arc<KeyShare>> {
        self.state.key_share()
    }

    /// The key set, once assembled.
    #[must_use]
    pub const fn key_set(&self) -> Option<&Arc<CompressedXofKeySet>> {
        self.state.key_set()
    }

    /// Every broadcast message taken or sent, for the transcript.
    pub fn broadcasts(&self) -> impl Iterator<Item = &SignedMessage> {
        self.log.broadcasts()
    }

    /// How far this member is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let others = |have: &dyn Fn(ParticipantIndex) -> bool| {
            self.setup.others().filter(|j| !have(*j)).collect::<Vec<_>>()
        };
        let stage = self.stage();
        let (done, total, outstanding) = match stage {
            Stage::Collect(round) => {
                let outstanding = others(&|j| self.log.get(round, j).is_some());
                let n = self.setup.committee().n() as u32;
                (n - outstanding.len() as u32, n, outstanding)
            }
            Stage::Produce(stream, next) => (next, self.setup.chunks(stream), Vec::new()),
            Stage::Open(stream, next) => {
                let window = self.state.window();
                let outstanding = others(&|j| window.is_some_and(|(_, w)| w.has(next, j)));
                (next, self.setup.chunks(stream), outstanding)
            }
            Stage::Raise(next) => {
                let here =
                    next == self.setup.me || self.log.get(Round::ReferenceString, next).is_some();
                let outstanding = if here { Vec::new() } else { vec![next] };
                (next.position() as u32, self.setup.committee().n() as u32, outstanding)
            }
            Stage::CheckReferenceString
            | Stage::Assemble
            | Stage::AwaitCommitPoint
            | Stage::Completed
            | Stage::Aborted => (0, 1, Vec::new()),
        };
        Progress { stage, done, total, outstanding }
    }

    fn persist(&mut self, record: Record) {
        self.effects.push_back(Effect::Persist { id: PersistId(self.records), record });
        self.records += 1;
    }

    fn ask(&mut self, effect: CeremonyEffect) {
        self.effects.push_back(Effect::Special(effect));
    }
}

impl Machine for Ceremony {
    type Record = Record;
    type Special = CeremonyEffect;
    type Skip = Skip;
    type Fault = Fault;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<Skip, Fault> {
        self.accept(from, bytes, now)
    }

    fn handle_timeout(&mut self, now: Millis) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let Progress { stage, outstanding: missing, .. } = self.progress();
            match stage {
                Stage::Collect(round) => self.abort(AbortReason::MissingMessage { round, missing }),
                Stage::Open(stream, index) => {
                    self.abort(AbortReason::MissingChunk { stream, index, missing });
                }
                // What is here is only to be computed.
                Stage::Raise(_) if missing.is_empty() => {}
                Stage::Raise(_) => {
                    self.abort(AbortReason::MissingMessage {
                        round: Round::ReferenceString,
                        missing,
                    });
                }
                // They wait for nobody, and have no deadline.
                Stage::CheckReferenceString
                | Stage::Produce(..)
                | Stage::Assemble
                | Stage::AwaitCommitPoint
                | Stage::Completed
                | Stage::Aborted => {}
            }
        } else if self.next_retry.is_some_and(|retry| now >= retry) {
            self.next_retry = Some(now + self.setup.timing.retry);
            self.request_missing(now);
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.deadline.into_iter().chain(self.next_retry).min()
    }

    fn work(&mut self, now: Millis) -> bool {
        self.compute(now)
    }

    fn poll_effect(&mut self) -> Option<Effect<Record, CeremonyEffect>> {
        self.effects.pop_front()
    }
}
