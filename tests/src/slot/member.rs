//! One member of the world: the slot's machine, the agreement, and what stands for opening and signing.
//!
//! Opening and signing are exchanges of signed statements here, complete with 2t+1 equal ones: their own
//! protocols have worlds of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use veil_committee_agreement::{Agreement, AgreementEffect, Validity, Value};
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_committee_slot::{
    SlotMachine,
    machine::{Evaluated, Observation, SlotEffect},
};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, Slot, Wire,
    agreement::{Instance, record::Record},
    evidence::Proof,
    scheduling::{ClusterState, Manifest, SlotRecord},
    slot::SlotEntry,
    sync::LockedManifest,
};

use super::{
    Phase, SlotBehaviour,
    messages::{AGREEMENT, ANSWER, Kind, RECORD, STATEMENT, decode, encode, of, signature},
    sight::Sight,
};

/// Between two statements of a member that waits for the others'.
const REPEAT: Millis = 1_500;
/// Slots whose statements are remembered, to answer members that are late.
const REMEMBERED: u64 = 3;

/// What a member stores.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Slot(Box<SlotEntry>),
    Agreement(Record),
}

/// What a member asks of what surrounds it.
pub(super) enum Asked {
    /// For a look at the cluster.
    Sight(Need),
    /// Whether a manifest is valid.
    Validate {
        digest: Blake3Digest,
        manifest: Box<Manifest>,
        author: ParticipantIndex,
        appeal: bool,
    },
    Evaluate {
        locked: Box<LockedManifest>,
        step: u16,
        opened: Vec<Vec<u8>>,
    },
    /// A record that this member has completed.
    Finished(Arc<SlotRecord>),
    /// A record that another has sent.
    Record(Arc<SlotRecord>),
    CatchUp,
    /// What shows that somebody broke the protocol.
    Report(Box<Proof>),
    Abstained(String),
    /// It has done something else than the others, in this phase.
    Deviated(&'static str),
    /// The agreement has decided.
    Decided(Instance, Blake3Digest),
}

/// What a look is for.
#[derive(Clone, Copy)]
pub(super) enum Need {
    Observe,
    GetValue(Instance, u32),
}

/// Equal statements about one thing.
#[derive(Default)]
struct Quorum {
    mine: Option<Blake3Digest>,
    said: BTreeMap<ParticipantIndex, Blake3Digest>,
    complete: bool,
}

pub(super) struct Member {
    me: ParticipantIndex,
    committee: Committee,
    behaviour: Option<SlotBehaviour>,
    slot: SlotMachine,
    agreement: Agreement,
    quorums: BTreeMap<(Slot, Kind), Quorum>,
    repeat_at: Option<Millis>,
    /// What was evaluated here last: a slot, its step, its digits.
    digits: Option<(Slot, u16, Vec<u8>)>,
    out: VecDeque<Effect<Stored, Asked>>,
    persists: BTreeMap<PersistId, (bool, PersistId)>,
    next: u64,
    now: Millis,
}

impl Member {
    pub(super) fn new(
        me: ParticipantIndex,
        committee: Committee,
        behaviour: Option<SlotBehaviour>,
        slot: SlotMachine,
        agreement: Agreement,
    ) -> Self {
        let mut member = Self {
            me,
            committee,
            behaviour,
            slot,
            agreement,
            quorums: BTreeMap::new(),
            repeat_at: None,
            digits: None,
            out: VecDeque::new(),
            persists: BTreeMap::new(),
            next: 0,
            now: 0,
        };
        member.settle();
        member
    }

    pub(super) const fn me(&self) -> ParticipantIndex {
        self.me
    }

    /// The slot that is under way here, or comes next.
    pub(super) fn slot(&self) -> Slot {
        self.slot.slot()
    }

    pub(super) fn phase(&self) -> Phase {
        self.slot.stage().into()
    }

    pub(super) fn see(&mut self, need: Need, sight: &Sight, now: Millis) {
        self.now = now;
        sight.with(|view, silent, interval| match need {
            Need::Observe => self.slot.observe(&Observation { view, silent, interval }, now),
            Need::GetValue(instance, round) => self.slot.get_value(instance, round, view, now),
        });
        self.settle();
    }

    pub(super) fn validated(&mut self, digest: Blake3Digest, validity: Validity, now: Millis) {
        self.now = now;
        self.agreement.validated(digest, validity, now);
        self.settle();
    }

    pub(super) fn evaluated(
        &mut self,
        (slot, step): (Slot, u16),
        result: Result<(Evaluated, Vec<u8>), String>,
        now: Millis,
    ) {
        self.now = now;
        // One of a slot that others have ended meanwhile is of no use.
        if slot != self.slot() {
            return;
        }
        let evaluated = result.map(|(evaluated, digits)| {
            self.digits = Some((slot, step, digits));
            evaluated
        });
        self.slot.evaluated(slot, step, evaluated, now);
        self.settle();
    }

    pub(super) fn certified(&mut self, state: Arc<ClusterState>, now: Millis) {
        self.now = now;
        let over = state.last_slot();
        self.quorums.retain(|(slot, _), _| slot.0 + REMEMBERED > over.0);
        self.slot.certified(state, now);
        self.settle();
    }

    fn ask(&mut self, asked: Asked) {
        self.out.push_back(Effect::Special(asked));
    }

    fn broadcast(&mut self, kind: u8, bytes: &[u8]) {
        self.out.push_back(Effect::Broadcast([&[kind], bytes].concat().into()));
    }

    fn store(&mut self, of_slot: bool, of: PersistId, record: Stored) {
        let id = PersistId(self.next);
        self.next += 1;
        self.persists.insert(id, (of_slot, of));
        self.out.push_back(Effect::Persist { id, record });
    }

    /// Passes on what the machines have to say to each other, until they are silent.
    fn settle(&mut self) {
        loop {
            if let Some(effect) = self.slot.poll_effect() {
                match effect {
                    Effect::Persist { id, record } => {
                        self.store(true, id, Stored::Slot(Box::new(record)))
                    }
                    Effect::Special(effect) => self.on_slot(effect),
                    Effect::Send { .. } | Effect::Broadcast(_) => {}
                }
            } else if let Some(effect) = self.agreement.poll_effect() {
                match effect {
                    Effect::Persist { id, record } => {
                        self.store(false, id, Stored::Agreement(record));
                    }
                    Effect::Special(effect) => self.on_agreement(effect),
                    Effect::Broadcast(bytes) => self.broadcast(AGREEMENT, &bytes),
                    Effect::Send { to, bytes } => {
                        let bytes = [&[AGREEMENT], &bytes[..]].concat().into();
                        self.out.push_back(Effect::Send { to, bytes });
                    }
                }
            } else {
                return;
            }
        }
    }

    fn on_slot(&mut self, effect: SlotEffect) {
        let now = self.now;
        match effect {
            SlotEffect::Observe => self.ask(Asked::Sight(Need::Observe)),
            SlotEffect::Prepare(_)
            | SlotEffect::Collect
            | SlotEffect::State { .. }
            | SlotEffect::Publish(_)
            | SlotEffect::Cancel(_)
            | SlotEffect::Certified { .. } => {}
            SlotEffect::Report(proof) => self.ask(Asked::Report(proof)),
            // One that was started before the restart goes on.
            SlotEffect::Agree(instance) => drop(self.agreement.start(instance, now)),
            SlotEffect::ProposeManifest { round, manifest } => {
                self.propose(Instance::manifest(manifest.slot), round, manifest.to_wire());
            }
            SlotEffect::ProposeEnd { round, end } => {
                self.propose(Instance::end(end.slot), round, end.to_wire());
            }
            SlotEffect::Validated { end, valid } => {
                let validity = if valid { Validity::Valid } else { Validity::Invalid };
                self.agreement.validated(end.digest(), validity, now);
            }
            SlotEffect::Evaluate { locked, step, opened } => {
                self.ask(Asked::Evaluate { locked, step, opened });
            }
            SlotEffect::Open { locked, step, before } => {
                let slot = locked.manifest.slot;
                if let Some(digits) = self.digits_of(slot, step) {
                    // "A request id is over everything before it."
                    let of_all = [before.as_bytes(), digits].concat();
                    let digest = Blake3Digest(*blake3::hash(&of_all).as_bytes());
                    self.state(slot, Kind::Opening(step), digest);
                }
            }
            SlotEffect::Sign { body, .. } => {
                let digest = Blake3Digest(*body.signing_digest().as_bytes());
                self.state(body.slot, Kind::Signing, digest);
            }
            SlotEffect::Finish(record) => {
                let slot = record.manifest.slot.0.to_le_bytes();
                self.broadcast(RECORD, &[&slot[..], &record.to_wire()].concat());
                self.ask(Asked::Finished(Arc::from(record)));
            }
            SlotEffect::CatchUp(_) => self.ask(Asked::CatchUp),
        }
    }

    /// What a step of a slot has put out, if it is what was evaluated here last.
    fn digits_of(&self, slot: Slot, step: u16) -> Option<&[u8]> {
        let of = self.digits.as_ref().filter(|(of, at, _)| (*of, *at) == (slot, step));
        of.map(|(.., digits)| &digits[..])
    }

    fn propose(&mut self, instance: Instance, round: u32, value: Vec<u8>) {
        let changed = self.behaviour.map(|behaviour| behaviour.proposes(instance, &value));
        let changed = changed.filter(|changed| *changed != value);
        if changed.is_some() {
            self.ask(Asked::Deviated(of(instance)));
        }
        // The round may be over by now.
        let _ = self.agreement.propose(instance, round, changed.unwrap_or(value), self.now);
    }

    fn on_agreement(&mut self, effect: AgreementEffect) {
        let now = self.now;
        match effect {
            AgreementEffect::GetValue { instance, round } => {
                self.ask(Asked::Sight(Need::GetValue(instance, round)));
            }
            AgreementEffect::Validate { digest, proposer, value, by_quorum: appeal, .. } => {
                match value {
                    Value::End(end) => self.slot.validate_end(digest, end, now),
                    Value::Manifest(manifest) => {
                        let author = if appeal { manifest.proposer } else { proposer };
                        self.ask(Asked::Validate { digest, manifest, author, appeal });
                    }
                }
            }
            AgreementEffect::Decided { lock, value } => {
                self.ask(Asked::Decided(lock.instance, lock.value));
                match value {
                    Value::Manifest(manifest) => self.slot.locked(*lock, *manifest, now),
                    Value::End(end) => self.slot.ended(*lock, end),
                }
            }
            AgreementEffect::Behind { instance } => self.slot.behind(instance),
            AgreementEffect::Equivocated { evidence, .. } => {
                self.slot.found(Proof::Agreement(evidence));
            }
            AgreementEffect::Abstained { instance, reason } => {
                self.ask(Asked::Abstained(format!("{instance}: {reason}")));
            }
        }
    }

    // ---- statements ------------------------------------------------------------------------

    fn state(&mut self, slot: Slot, kind: Kind, digest: Blake3Digest) {
        let withholds = self.behaviour.is_some_and(|behaviour| behaviour.withholds(kind));
        let quorum = self.quorums.entry((slot, kind)).or_default();
        quorum.mine = Some(digest);
        quorum.said.insert(self.me, digest);
        if withholds {
            self.ask(Asked::Deviated(kind.phase()));
        } else {
            self.broadcast(STATEMENT, &encode(slot, kind, digest));
            self.repeat_at.get_or_insert(self.now + REPEAT);
        }
        self.complete(slot, kind);
    }

    fn on_statement(&mut self, from: ParticipantIndex, bytes: &[u8], answer: bool) {
        let Some((slot, kind, digest)) = decode(bytes) else { return };
        let (least, most) = (self.slot.slot().0.saturating_sub(REMEMBERED), self.slot.slot().0 + 1);
        if !(least..=most).contains(&slot.0) {
            return;
        }
        let quorum = self.quorums.entry((slot, kind)).or_default();
        quorum.said.insert(from, digest);
        // Whoever says it again lacks what this member said.
        let mine = quorum.mine.filter(|_| !answer && quorum.complete);
        let withholds = self.behaviour.is_some_and(|behaviour| behaviour.withholds(kind));
        if let Some(mine) = mine.filter(|_| !withholds) {
            let bytes = [&[ANSWER][..], &encode(slot, kind, mine)].concat().into();
            self.out.push_back(Effect::Send { to: from, bytes });
        }
        self.complete(slot, kind);
    }

    /// A record of a slot that is over here is not read: every member sends its own to all.
    fn on_record(&mut self, bytes: &[u8]) -> Verdict<String, String> {
        let Some((slot, bytes)) = bytes.split_first_chunk() else {
            return Verdict::Skip("no record".to_owned());
        };
        if u64::from_le_bytes(*slot) < self.slot.slot().0 {
            return Verdict::Skip("the slot is over".to_owned());
        }
        match SlotRecord::from_wire(bytes) {
            Ok(record) => {
                self.ask(Asked::Record(Arc::new(record)));
                Verdict::Valid
            }
            Err(error) => Verdict::Skip(error.to_string()),
        }
    }

    fn complete(&mut self, slot: Slot, kind: Kind) {
        let needed = self.committee.signing_threshold().get();
        let Some(quorum) = self.quorums.get_mut(&(slot, kind)) else { return };
        let Some(mine) = quorum.mine.filter(|_| !quorum.complete) else { return };
        if quorum.said.values().filter(|said| **said == mine).count() < needed {
            return;
        }
        quorum.complete = true;
        match kind {
            Kind::Opening(step) => {
                let digits = self.digits_of(slot, step).map(<[u8]>::to_vec);
                self.slot.opened(slot, step, digits.ok_or_else(String::new), self.now);
            }
            Kind::Signing => self.slot.signed(slot, Ok(signature(mine)), self.now),
        }
    }

    fn repeat(&mut self) {
        let due = self.repeat_at.take_if(|at| *at <= self.now).is_some();
        if !due {
            return;
        }
        let slot = self.slot.slot();
        let open: Vec<_> = self
            .quorums
            .iter()
            .filter(|((of, _), quorum)| *of == slot && !quorum.complete)
            .filter_map(|((of, kind), quorum)| Some((*of, *kind, quorum.mine?)))
            .collect();
        for (of, kind, mine) in &open {
            self.broadcast(STATEMENT, &encode(*of, *kind, *mine));
        }
        if !open.is_empty() {
            self.repeat_at = Some(self.now + REPEAT);
        }
    }
}

impl Machine for Member {
    type Record = Stored;
    type Special = Asked;
    type Skip = String;
    type Fault = String;

    fn handle(
        &mut self,
        from: ParticipantIndex,
        bytes: &[u8],
        now: Millis,
    ) -> Verdict<String, String> {
        self.now = now;
        let verdict = match bytes.split_first() {
            Some((&AGREEMENT, bytes)) => match self.agreement.handle(from, bytes, now) {
                Verdict::Valid => Verdict::Valid,
                Verdict::Skip(skip) => Verdict::Skip(skip.to_string()),
                Verdict::Fault(fault) => Verdict::Fault(fault.to_string()),
            },
            Some((kind @ &(STATEMENT | ANSWER), bytes)) => {
                self.on_statement(from, bytes, *kind == ANSWER);
                Verdict::Valid
            }
            Some((&RECORD, bytes)) => self.on_record(bytes),
            _ => Verdict::Skip("no message".to_owned()),
        };
        self.settle();
        verdict
    }

    fn handle_timeout(&mut self, now: Millis) {
        self.now = now;
        self.slot.handle_timeout(now);
        self.agreement.handle_timeout(now);
        self.repeat();
        self.settle();
    }

    fn poll_timeout(&self) -> Option<Millis> {
        [self.slot.poll_timeout(), self.agreement.poll_timeout(), self.repeat_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn poll_effect(&mut self) -> Option<Effect<Stored, Asked>> {
        self.out.pop_front()
    }

    fn persisted(&mut self, id: PersistId) {
        if let Some((of_slot, of)) = self.persists.remove(&id) {
            if of_slot {
                self.slot.persisted(of);
            } else {
                self.agreement.persisted(of);
            }
        }
        self.settle();
    }
}
