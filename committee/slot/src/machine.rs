//! The slot as a machine: from work that waits to a certificate, slot after slot.
//!
//! # Roles
//! One machine for each member. It decides what a slot does next; the **host** carries that out with
//! agreement, evaluation, decryption, signing, ledger and network, and tells the machine what came of
//! it. The machine sees digests and public inputs, no ciphertext.
//!
//! # Flow of a slot (`protocol-spec/slot.md`)
//! 1. **Work.** [`observe`](SlotMachine::observe) finds a replica that wants a place, or one that is to
//!    leave. What could not be placed is tried again less and less often ([`pause`]). Then
//!    telemetry of the workers that are there is awaited, within a bound.
//! 2. **Manifest.** The agreement's MANIFEST instance fixes the inputs; the lock is stored.
//! 3. **Evaluation and opening**, by the host, step by step: the digits of a step, once opened and stored, are
//!    public inputs of the next, until nothing more is asked; the outcome follows from them. A step that fails is
//!    tried again, until the slot ends; answers to an earlier one are left aside.
//! 4. **END.** The agreement's END instance decides the outcome, or void. "An outcome is valid to
//!    whoever computed it or holds t+1 signed equal END statements; after the timer void is acceptable
//!    to every honest member too, also if it knows the outcome; honest proposers propose the outcome
//!    when they know it." The statements are votes, so the agreement counts them. The decision is
//!    stored.
//! 5. **Certificate.** The group signs what the end says, whether or not this member knows the
//!    assignments behind it.
//!
//! A certificate of the slot, whoever brings it, ends the slot
//! ([`certified`](SlotMachine::certified)). What shows that somebody broke the protocol is
//! [reported](SlotEffect::Report) in any stage, and changes nothing else ([`found`](SlotMachine::found)).
//! Anchoring goes on beside the slots: [`anchor`](crate::anchor).
//!
//! # State and restart
//! [`SlotEntry`] records hold the lock of the slot under way, what was opened in it, and its end; everything else is
//! done again. Steps that were opened are evaluated again too, as others may lack this member's share, but nothing is
//! waited for there. The void timer runs anew.
//!
//! # Caveats
//! The machine sends no messages of its own, so [`Machine::handle`] skips what comes.
//!
//! # Example
//! A slot that is locked and that nobody evaluates in time is brought to its end all the same:
//!
//! ```
//! # use std::sync::Arc;
//! # use veil_committee_slot::machine::{SlotConfig, SlotTiming};
//! # use veil_protocol_spec::{agreement::Lock, scheduling::*, *};
//! use veil_committee_machine::{Effect, Machine};
//! use veil_committee_slot::{SlotMachine, machine::SlotEffect};
//! use veil_protocol_spec::agreement::Instance;
//!
//! # let scope = ClusterScope {
//! #     chain_id: ChainId(1), contract: Address([2; 20]), cluster: ClusterId([3; 32]),
//! # };
//! # let binding = Binding { scope, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) };
//! # let me = ParticipantIndex::new(1).unwrap();
//! # let slot = Slot(1);
//! # let manifest = Manifest {
//! #     binding, slot, proposer: me, previous: KeccakDigest([0; 32]),
//! #     block: BlockRef { number: 1, hash: KeccakDigest([2; 32]) },
//! #     base: KeccakDigest([0; 32]), jobs_seen: 0, policy: KeccakDigest([3; 32]),
//! #     circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
//! #     telemetry: Vec::new(), pending: Vec::new(), leaving: Vec::new(), done: Vec::new(),
//! #     lost: Vec::new(), given_back: Vec::new(),
//! #     rollouts: RolloutChanges::default(),
//! #     runs: Vec::new(),
//! # };
//! # let instance = Instance::manifest(slot);
//! # let lock = Lock { binding, instance, round: 0, value: manifest.digest(), votes: Vec::new() };
//! # let (origin, timing) = (ReferenceStringOrigin::Committee, SlotTiming::default());
//! # let (config, state) = (SlotConfig { me, origin, timing }, Arc::default());
//! let mut machine = SlotMachine::new(config, state, Vec::new(), 0);
//! // The agreement has decided, and the host's evaluation never comes back.
//! machine.locked(lock, manifest, 0);
//! let at = machine.poll_timeout().unwrap();
//! machine.handle_timeout(at);
//!
//! let mut effects = std::iter::from_fn(|| machine.poll_effect());
//! let stored = |effect: &Effect<_, SlotEffect>| matches!(effect, Effect::Persist { .. });
//! assert!(effects.any(|effect| stored(&effect)), "the lock is stored before anything follows");
//! let end = Effect::Special(SlotEffect::Agree(Instance::end(slot)));
//! assert!(effects.any(|effect| effect == end));
//! ```

mod effect;
mod locked;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use veil_committee_machine::{Effect, Machine, Millis, PersistId};
use veil_protocol_spec::{
    Blake3Digest, Slot,
    agreement::{Instance, Lock, SlotEnd, Subject},
    evidence::Proof,
    scheduling::{ClusterState, GroupSignature, Manifest},
    slot::SlotEntry,
    sync::LockedManifest,
};

pub use self::effect::{Evaluated, Observation, SlotConfig, SlotEffect, SlotStage, SlotTiming};
use self::locked::LockedSlot;
use crate::{
    manifest::{LocalView, Work},
    tries::pause,
};

/// One member's machine; see the [module](self).
pub struct SlotMachine {
    config: SlotConfig,
    state: Arc<ClusterState>,
    stage: Stage,
    out: Out,
}

enum Stage {
    /// For work, or for another try.
    Waiting {
        since: Millis,
        retry_at: Option<Millis>,
    },
    Collecting {
        until: Millis,
    },
    Agreeing {
        /// The round for which the agreement waits for a manifest that this member cannot write yet.
        wanted: Option<u32>,
    },
    Locked(Box<LockedSlot>),
}

impl Stage {
    fn locked_mut(&mut self, slot: Slot) -> Option<&mut LockedSlot> {
        match self {
            Self::Locked(locked) if locked.slot() == slot => Some(locked),
            _ => None,
        }
    }
}

/// Effects in order.
#[derive(Default)]
struct Out {
    effects: VecDeque<Effect<SlotEntry, SlotEffect>>,
    persists: u64,
}

impl Out {
    fn push(&mut self, effect: SlotEffect) {
        self.effects.push_back(Effect::Special(effect));
    }

    /// Later effects wait until this is durable.
    fn store(&mut self, record: SlotEntry) {
        let id = PersistId(self.persists);
        self.persists += 1;
        self.effects.push_back(Effect::Persist { id, record });
    }
}

impl core::fmt::Debug for SlotMachine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SlotMachine(slot {}, {:?})", self.slot(), self.stage())
    }
}

impl SlotMachine {
    /// A member's machine in the slot after the last certificate.
    ///
    /// `records` are all that are stored, in order; those of other slots are left aside.
    #[must_use]
    pub fn new(
        config: SlotConfig,
        state: Arc<ClusterState>,
        records: Vec<SlotEntry>,
        now: Millis,
    ) -> Self {
        let stage = Stage::Waiting { since: now, retry_at: None };
        let mut machine = Self { config, state, stage, out: Out::default() };
        let slot = machine.slot();
        for record in records {
            match record {
                SlotEntry::Locked(locked) if locked.manifest.slot == slot => {
                    machine.out.push(SlotEffect::Prepare(slot));
                    machine.enter(*locked, now);
                }
                SlotEntry::Opened { slot: of, step } => {
                    if let Some(locked) = machine.stage.locked_mut(of) {
                        locked.was_opened(step);
                    }
                }
                SlotEntry::Ended { lock, end } if end.slot == slot => {
                    if let Stage::Locked(locked) = &mut machine.stage {
                        locked.decided(lock, end, &mut machine.out);
                    }
                }
                SlotEntry::Locked(_) | SlotEntry::Ended { .. } => {}
            }
        }
        machine.evaluate();
        machine.out.push(SlotEffect::Observe);
        machine
    }

    /// The slot that is under way, or comes next.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot(self.state.last_slot().0 + 1)
    }

    /// What this member is doing.
    #[must_use]
    pub fn stage(&self) -> SlotStage {
        match &self.stage {
            Stage::Waiting { retry_at: None, .. } => SlotStage::Ready,
            Stage::Waiting { .. } => SlotStage::BackingOff,
            Stage::Collecting { .. } => SlotStage::Collecting,
            Stage::Agreeing { .. } => SlotStage::AgreeingOnManifest,
            Stage::Locked(locked) => locked.stage(),
        }
    }

    // ---- 1: work and telemetry -------------------------------------------------------------

    /// Something that a member sees may have changed. Begins the slot if it would change something.
    ///
    /// A slot that would only try again what earlier ones could not place waits for an interval, doubled
    /// with each try; so does any slot after those that ended void.
    pub fn observe(&mut self, seen: &Observation<'_>, now: Millis) {
        let Observation { view, silent, interval } = *seen;
        // A view of another slot: the next one is on its way.
        if view.state.last_slot() != self.state.last_slot() {
            return;
        }
        if let Stage::Waiting { since, retry_at } = &mut self.stage {
            *retry_at = None;
            let failures = match view.work() {
                Work::Nothing => return,
                Work::Again(failures) => Some(failures.into()),
                Work::Now => None,
            };
            let voids = Some(self.state.voids()).filter(|voids| *voids > 0);
            let due = failures.max(voids).map(|tries| since.saturating_add(pause(tries, interval)));
            if let Some(due) = due.filter(|due| now < *due) {
                *retry_at = Some(due);
                return;
            }
            self.out.push(SlotEffect::Prepare(self.slot()));
            self.stage =
                Stage::Collecting { until: now.saturating_add(self.config.timing.collect) };
        }
        self.propose(view);
        if matches!(self.stage, Stage::Collecting { .. }) {
            if silent || view.fresh.is_empty() {
                self.out.push(SlotEffect::Collect);
            } else {
                self.agree();
            }
        }
    }

    // ---- 2: agreement on the manifest ------------------------------------------------------

    fn agree(&mut self) {
        self.stage = Stage::Agreeing { wanted: None };
        let instance = Instance { slot: self.slot(), subject: Subject::Manifest };
        self.out.push(SlotEffect::Agree(instance));
    }

    /// The agreement asks this member for a value.
    pub fn get_value(&mut self, instance: Instance, round: u32, view: &LocalView<'_>, now: Millis) {
        let last = self.state.last_slot();
        if instance.slot != self.slot() || view.state.last_slot() != last {
            return;
        }
        match (&mut self.stage, instance.subject) {
            (Stage::Agreeing { wanted }, Subject::Manifest) => {
                *wanted = Some(round);
                self.propose(view);
            }
            (Stage::Locked(locked), Subject::End) => {
                locked.wanted(round);
                locked.advance(now, &mut self.out);
            }
            _ => {}
        }
    }

    /// The manifest that the agreement waits for; once this member knows a block that others accept.
    fn propose(&mut self, view: &LocalView<'_>) {
        if let Stage::Agreeing { wanted } = &mut self.stage
            && view.is_current()
            && let Some(round) = wanted.take()
        {
            let manifest = Box::new(view.propose(self.config.me));
            self.out.push(SlotEffect::ProposeManifest { round, manifest });
        }
    }

    /// Another member proposes how the slot ends. A proposed manifest is validated by the host, with
    /// [`LocalView::validate_facts`] and [`LocalView::validate_lists`].
    pub fn validate_end(&mut self, digest: Blake3Digest, end: SlotEnd, now: Millis) {
        if let Some(locked) = self.stage.locked_mut(end.slot) {
            locked.proposed(digest, end);
            self.advance(now);
        }
    }

    /// Members are in a later instance than this one.
    pub fn behind(&mut self, instance: Instance) {
        if instance.slot > self.slot() {
            self.out.push(SlotEffect::CatchUp(instance.slot));
        } else if instance.slot == self.slot() {
            match (&mut self.stage, instance.subject) {
                // They see work that this member does not see yet.
                (Stage::Waiting { .. } | Stage::Collecting { .. }, Subject::Manifest) => {
                    self.out.push(SlotEffect::Prepare(instance.slot));
                    self.agree();
                }
                (Stage::Locked(locked), Subject::End) => locked.start_end(&mut self.out),
                _ => {}
            }
        }
    }

    /// The manifest is decided: 2t+1 members' votes, which the agreement has verified.
    pub fn locked(&mut self, lock: Lock, manifest: Manifest, now: Millis) {
        if manifest.slot != self.slot() || matches!(self.stage, Stage::Locked(_)) {
            return;
        }
        let locked = LockedManifest { manifest, lock };
        self.out.store(SlotEntry::Locked(Box::new(locked.clone())));
        self.enter(locked, now);
        self.evaluate();
    }

    fn enter(&mut self, locked: LockedManifest, now: Millis) {
        self.out.push(SlotEffect::Publish(Box::new(locked.clone())));
        let locked = LockedSlot::new(locked, self.config, Arc::clone(&self.state), now);
        self.stage = Stage::Locked(Box::new(locked));
    }

    fn evaluate(&mut self) {
        if let Stage::Locked(locked) = &mut self.stage {
            locked.evaluate(&mut self.out);
        }
    }

    // ---- 3: evaluation and opening ---------------------------------------------------------

    /// A step of a slot was evaluated, or could not be.
    pub fn evaluated(
        &mut self,
        slot: Slot,
        step: u16,
        evaluated: Result<Evaluated, String>,
        now: Millis,
    ) {
        let Self { stage, out, .. } = self;
        if let Some(locked) = stage.locked_mut(slot) {
            locked.evaluated(step, evaluated, now, out);
        }
        self.advance(now);
    }

    /// The committee has opened the digits that a step of a slot has put out; or could not.
    pub fn opened(&mut self, slot: Slot, step: u16, digits: Result<Vec<u8>, String>, now: Millis) {
        let Self { stage, out, .. } = self;
        if let Some(locked) = stage.locked_mut(slot) {
            locked.opened(step, digits, now, out);
        }
        self.advance(now);
    }

    // ---- 4 and 5: end and certificate ------------------------------------------------------

    fn advance(&mut self, now: Millis) {
        if let Stage::Locked(locked) = &mut self.stage {
            locked.advance(now, &mut self.out);
        }
    }

    /// How the slot ends is decided: 2t+1 members' votes, which the agreement has verified.
    pub fn ended(&mut self, lock: Lock, end: SlotEnd) {
        let Self { stage, out, .. } = self;
        if let Some(locked) = stage.locked_mut(end.slot)
            && !locked.is_decided()
        {
            out.store(SlotEntry::Ended { lock: lock.clone(), end });
            locked.decided(lock, end, out);
        }
    }

    /// The group has signed the certificate of a slot, or could not.
    pub fn signed(&mut self, slot: Slot, signature: Result<GroupSignature, String>, now: Millis) {
        let Self { stage, out, .. } = self;
        if let Some(locked) = stage.locked_mut(slot) {
            locked.signed(signature, now, out);
        }
    }

    /// Certificates were verified and applied, whoever brought them: `state` is what follows from them.
    pub fn certified(&mut self, state: Arc<ClusterState>, now: Millis) {
        if state.last_slot() <= self.state.last_slot() {
            return;
        }
        if let Stage::Locked(locked) = &self.stage {
            self.out.push(SlotEffect::Cancel(locked.slot()));
        }
        let (slot, void) = (state.last_slot(), state.voids() > 0);
        self.state = state;
        self.stage = Stage::Waiting { since: now, retry_at: None };
        self.out.push(SlotEffect::Certified { slot, void });
        self.out.push(SlotEffect::Observe);
    }

    // ---- beside the stages -----------------------------------------------------------------

    /// A protocol of this member has proved that somebody broke it, in this slot or in one that is over.
    pub fn found(&mut self, proof: Proof) {
        self.out.push(SlotEffect::Report(Box::new(proof)));
    }
}

impl Machine for SlotMachine {
    type Record = SlotEntry;
    type Special = SlotEffect;
    veil_committee_machine::no_messages!();

    fn handle_timeout(&mut self, now: Millis) {
        match &mut self.stage {
            Stage::Waiting { retry_at, .. } => {
                if retry_at.take_if(|at| *at <= now).is_some() {
                    self.out.push(SlotEffect::Observe);
                }
            }
            Stage::Collecting { until } => {
                if *until <= now {
                    self.agree();
                }
            }
            Stage::Agreeing { .. } => {}
            Stage::Locked(locked) => {
                locked.handle_timeout(now, &mut self.out);
                locked.advance(now, &mut self.out);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        match &self.stage {
            Stage::Waiting { retry_at, .. } => *retry_at,
            Stage::Collecting { until } => Some(*until),
            Stage::Agreeing { .. } => None,
            Stage::Locked(locked) => locked.poll_timeout(),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<SlotEntry, SlotEffect>> {
        self.out.effects.pop_front()
    }
}
