//! A slot whose manifest is locked: its outcome, its end, its certificate.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, Slot,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome, Subject},
    codec::Bytes,
    scheduling::{
        AssignmentCertificate, Assignments, CertificateBody, ClusterState, GroupSignature,
        SlotRecord,
    },
    slot::{OpenedStep, SlotEntry, evaluation_digest, opened_digest},
    sync::LockedManifest,
};
use veil_scheduler_plan::outcome::read;

use super::{Evaluated, Out, SlotConfig, SlotEffect, SlotStage};

/// Most openings of a slot. Each is an answer about one replica of at most 4,096, of which few need more than
/// three.
const MAX_STEPS: u16 = u16::MAX;

pub(super) struct LockedSlot {
    locked: LockedManifest,
    config: SlotConfig,
    /// The state that the slot builds on.
    state: Arc<ClusterState>,
    /// When this member accepts that the slot ends void; `None` once it does.
    void_at: Option<Millis>,
    /// The steps that were evaluated and opened.
    steps: Vec<OpenedStep>,
    /// Those after them that were opened before the restart.
    known: VecDeque<OpenedStep>,
    work: Work,
    end: End,
}

/// What this member finds out by itself, in the step that comes after those that are done.
enum Work {
    Evaluating,
    Failed {
        retry_at: Millis,
    },
    Opening(Box<Evaluated>),
    Known(Box<Known>),
    /// It cannot find out: the others do, or the slot ends void.
    Unknowable,
}

struct Known {
    assignments: Assignments,
    outcome: SlotOutcome,
}

#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum End {
    /// The END instance has not started here.
    Open,
    Agreeing {
        /// The last round for which the agreement wants a value of this member.
        wanted: Option<u32>,
        /// Proposed ends that this member has not judged yet.
        proposed: BTreeMap<Blake3Digest, SlotEnd>,
    },
    Decided {
        lock: Lock,
        end: SlotEnd,
        /// When to have it signed again.
        retry_at: Option<Millis>,
        /// The group's, until the record is complete.
        signature: Option<GroupSignature>,
    },
}

impl LockedSlot {
    pub(super) fn new(
        locked: LockedManifest,
        config: SlotConfig,
        state: Arc<ClusterState>,
        now: Millis,
    ) -> Self {
        let void_at = Some(now.saturating_add(config.timing.void_after));
        let (steps, known) = (Vec::new(), VecDeque::new());
        let (work, end) = (Work::Evaluating, End::Open);
        Self { locked, config, state, void_at, steps, known, work, end }
    }

    const fn retry_at(&self, now: Millis) -> Millis {
        now.saturating_add(self.config.timing.retry)
    }

    pub(super) const fn slot(&self) -> Slot {
        self.locked.manifest.slot
    }

    pub(super) const fn is_decided(&self) -> bool {
        matches!(self.end, End::Decided { .. })
    }

    /// Whether it is decided that the slot ends void: then nothing is evaluated or opened any more.
    const fn ends_void(&self) -> bool {
        matches!(self.end, End::Decided { end: SlotEnd { outcome: None, .. }, .. })
    }

    pub(super) const fn stage(&self) -> SlotStage {
        match (&self.end, &self.work) {
            (End::Decided { .. }, _) => SlotStage::Signing,
            (End::Agreeing { .. }, _) | (End::Open, Work::Known(_) | Work::Unknowable) => {
                SlotStage::AgreeingOnEnd
            }
            (End::Open, Work::Evaluating | Work::Failed { .. }) => SlotStage::Evaluating,
            (End::Open, Work::Opening(_)) => SlotStage::Opening,
        }
    }

    // ---- the outcome -----------------------------------------------------------------------

    /// The step that is under way.
    const fn step(&self) -> u16 {
        self.steps.len() as u16 // at most `MAX_STEPS`
    }

    /// Whether an answer is one to what was asked last, and of use still.
    fn awaits(&self, step: u16) -> bool {
        step == self.step() && !self.ends_void()
    }

    /// A step that was opened before the restart. It is evaluated again, since others may lack this member's share
    /// of it; what was opened need not be waited for.
    pub(super) fn was_opened(&mut self, step: OpenedStep) {
        self.known.push_back(step);
    }

    /// Has the step evaluated that is under way, unless the slot ends void.
    pub(super) fn evaluate(&mut self, out: &mut Out) {
        if self.ends_void() {
            return;
        }
        self.work = Work::Evaluating;
        let (locked, step) = (Box::new(self.locked.clone()), self.step());
        out.push(SlotEffect::Evaluate { locked, step, opened: self.digits() });
    }

    fn digits(&self) -> Vec<Vec<u8>> {
        self.steps.iter().map(|step| step.digits.0.clone()).collect()
    }

    pub(super) fn evaluated(
        &mut self,
        step: u16,
        evaluated: Result<Evaluated, String>,
        now: Millis,
        out: &mut Out,
    ) {
        if !matches!(self.work, Work::Evaluating) || !self.awaits(step) {
            return;
        }
        match evaluated {
            Ok(evaluated) if evaluated.outputs == 0 => self.know(&evaluated, out),
            Ok(evaluated) => {
                let before = opened_digest(&self.steps);
                let known = self.known.pop_front();
                let other =
                    known.as_ref().is_some_and(|known| known.evaluation != evaluated.digest);
                // Another evaluation than before the restart is none that this member may open.
                if other || step == MAX_STEPS {
                    self.work = Work::Unknowable;
                    return;
                }
                out.push(SlotEffect::Open { locked: Box::new(self.locked.clone()), step, before });
                if let Some(known) = known {
                    self.steps.push(known);
                    self.evaluate(out);
                } else {
                    self.work = Work::Opening(Box::new(evaluated));
                }
            }
            Err(_) => self.work = Work::Failed { retry_at: self.retry_at(now) },
        }
    }

    pub(super) fn opened(
        &mut self,
        step: u16,
        digits: Result<Vec<u8>, String>,
        now: Millis,
        out: &mut Out,
    ) {
        if !matches!(self.work, Work::Opening(_)) || !self.awaits(step) {
            return;
        }
        // Tried again from the step's evaluation, whose result the host may have kept.
        let failed = Work::Failed { retry_at: self.retry_at(now) };
        if let Work::Opening(evaluated) = core::mem::replace(&mut self.work, failed)
            && let Ok(digits) = digits
        {
            // "It is stored before the next step is evaluated."
            let step = OpenedStep { evaluation: evaluated.digest, digits: Bytes(digits) };
            out.store(SlotEntry::Opened { slot: self.slot(), step: step.clone() });
            self.steps.push(step);
            self.evaluate(out);
        }
    }

    /// Nothing more is asked. What was opened gives the same outcome to everybody, or to nobody: then the slot
    /// ends void.
    fn know(&mut self, evaluated: &Evaluated, out: &mut Out) {
        let manifest = &self.locked.manifest;
        let mut digests: Vec<_> = self.steps.iter().map(|step| step.evaluation).collect();
        if digests.is_empty() {
            digests.push(evaluated.digest);
        }
        let evaluation = evaluation_digest(&digests);
        out.push(SlotEffect::State { locked: Box::new(self.locked.clone()), evaluation });
        let read = read(manifest, &evaluated.public, &self.digits());
        let known = read.ok().and_then(|assignments| {
            let after = self.state.apply(manifest, &assignments).ok()?;
            let outcome = SlotOutcome::new(evaluation, &assignments, &after);
            Some(Known { assignments, outcome })
        });
        self.work = known.map_or(Work::Unknowable, |known| Work::Known(Box::new(known)));
    }

    const fn outcome(&self) -> Option<&SlotOutcome> {
        match &self.work {
            Work::Known(known) => Some(&known.outcome),
            _ => None,
        }
    }

    // ---- the end ---------------------------------------------------------------------------

    /// Starts the END instance, unless it is under way.
    pub(super) fn start_end(&mut self, out: &mut Out) {
        if matches!(self.end, End::Open) {
            self.end = End::Agreeing { wanted: None, proposed: BTreeMap::new() };
            let instance = Instance { slot: self.slot(), subject: Subject::End };
            out.push(SlotEffect::Agree(instance));
        }
    }

    pub(super) fn wanted(&mut self, of: u32) {
        if let End::Agreeing { wanted, .. } = &mut self.end {
            *wanted = Some(of);
        }
    }

    pub(super) fn proposed(&mut self, digest: Blake3Digest, end: SlotEnd) {
        if let End::Agreeing { proposed, .. } = &mut self.end {
            proposed.insert(digest, end);
        }
    }

    /// Does what has become possible: starts END, proposes, judges.
    pub(super) fn advance(&mut self, now: Millis, out: &mut Out) {
        self.void_at = self.void_at.filter(|at| now < *at);
        let (outcome, may_void) = (self.outcome().copied(), self.void_at.is_none());
        if outcome.is_some() || may_void {
            self.start_end(out);
        }
        let (slot, manifest) = (self.slot(), self.locked.lock.value);
        let binding = self.locked.manifest.binding;
        let End::Agreeing { wanted, proposed } = &mut self.end else { return self.finish(out) };
        // "Honest proposers propose the outcome when they know it."
        if let Some(round) = wanted.take_if(|_| outcome.is_some() || may_void) {
            let end = SlotEnd { binding, slot, manifest, outcome };
            out.push(SlotEffect::ProposeEnd { round, end });
        }
        proposed.retain(|_, end| {
            let valid = match end.outcome {
                _ if end.manifest != manifest => Some(false),
                // "An outcome is valid to whoever computed it."
                Some(theirs) => outcome.map(|mine| mine == theirs),
                // "After the timer void is acceptable to every honest member too."
                None => may_void.then_some(true),
            };
            if let Some(valid) = valid {
                out.push(SlotEffect::Validated { end: *end, valid });
            }
            valid.is_none()
        });
    }

    // ---- the certificate -------------------------------------------------------------------

    /// "A FROST share leaves only after the END decision is stored, one message per (key, slot)."
    pub(super) fn decided(&mut self, lock: Lock, end: SlotEnd, out: &mut Out) {
        if end.outcome.is_none() {
            out.push(SlotEffect::Cancel(end.slot));
        }
        self.end = End::Decided { lock, end, retry_at: None, signature: None };
        self.sign(out);
    }

    fn sign(&self, out: &mut Out) {
        if let End::Decided { lock, end, .. } = &self.end {
            let body = Box::new(self.body(end));
            // Whoever voted for the end is there, and signs.
            let ready = lock.votes.iter().map(|(voter, _)| *voter).collect();
            out.push(SlotEffect::Sign { body, ready });
        }
    }

    /// "Every signed field comes from the manifest or END, never from what a member happens to know."
    fn body(&self, end: &SlotEnd) -> CertificateBody {
        CertificateBody::of(&self.locked.manifest, end, self.config.origin, &self.state)
    }

    pub(super) fn signed(
        &mut self,
        signed: Result<GroupSignature, String>,
        now: Millis,
        out: &mut Out,
    ) {
        let again = self.retry_at(now);
        if let End::Decided { retry_at, signature, .. } = &mut self.end {
            match signed {
                Ok(signed) => *signature = Some(signed),
                Err(_) => *retry_at = Some(again),
            }
        }
        self.finish(out);
    }

    /// Completes the record as soon as signature and assignments are here. Others may know the
    /// assignments earlier; then theirs comes.
    fn finish(&mut self, out: &mut Out) {
        let End::Decided { end, signature, .. } = &mut self.end else { return };
        let assignments = match (end.outcome, &self.work) {
            (None, _) => Assignments::default(),
            (Some(outcome), Work::Known(known)) if known.outcome == outcome => {
                known.assignments.clone()
            }
            (Some(_), _) => return,
        };
        let Some(signature) = signature.take() else { return };
        let end = *end;
        let certificate = AssignmentCertificate { body: self.body(&end), signature };
        let LockedManifest { manifest, lock } = self.locked.clone();
        let record = SlotRecord { manifest, lock, assignments, certificate };
        out.push(SlotEffect::Finish(Box::new(record)));
    }

    // ---- time ------------------------------------------------------------------------------

    pub(super) fn handle_timeout(&mut self, now: Millis, out: &mut Out) {
        if self.evaluates_at().is_some_and(|at| at <= now) {
            self.evaluate(out);
        }
        if let End::Decided { retry_at, .. } = &mut self.end
            && retry_at.take_if(|at| *at <= now).is_some()
        {
            self.sign(out);
        }
    }

    /// When the step is tried again: not in a slot that ends void.
    const fn evaluates_at(&self) -> Option<Millis> {
        match &self.work {
            Work::Failed { retry_at } if !self.ends_void() => Some(*retry_at),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        let end = match &self.end {
            End::Decided { retry_at, .. } => *retry_at,
            End::Open | End::Agreeing { .. } => self.void_at,
        };
        end.into_iter().chain(self.evaluates_at()).min()
    }
}
