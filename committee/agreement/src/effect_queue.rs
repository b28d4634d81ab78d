//! Effects in order, each held back until the records above it are stored.

use std::{collections::VecDeque, mem};

use veil_committee_machine::{Effect, PersistId};
use veil_protocol_spec::{
    agreement::{
        Instance,
        record::{Entry, Record},
    },
    scheduling::Binding,
};

use super::effect::AgreementEffect;

type Staged = Effect<Record, AgreementEffect>;

#[derive(Debug, Default)]
pub(super) struct EffectQueue {
    next: u64,
    /// Changes of the present input.
    entries: Vec<Entry>,
    staged: Vec<Staged>,
    /// Waiting for their record, oldest first.
    held: VecDeque<(PersistId, Vec<Staged>)>,
    ready: VecDeque<Staged>,
}

impl EffectQueue {
    pub(super) fn append(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn stage(&mut self, effect: Staged) {
        self.staged.push(effect);
    }

    /// Ends an input: what it changed becomes one record, and what follows from it waits for that.
    pub(super) fn flush(&mut self, binding: Binding, instance: Instance) {
        let staged = mem::take(&mut self.staged);
        if self.entries.is_empty() {
            match self.held.back_mut() {
                Some((_, effects)) => effects.extend(staged),
                None => self.ready.extend(staged),
            }
            return;
        }
        let id = PersistId(self.next);
        self.next += 1;
        let record = Record { binding, instance, entries: mem::take(&mut self.entries) };
        self.ready.push_back(Effect::Persist { id, record });
        self.held.push_back((id, staged));
    }

    /// Records are stored in order, so all before this one are, too.
    pub(super) fn persisted(&mut self, id: PersistId) {
        while let Some((_, effects)) = self.held.pop_front_if(|(held, _)| *held <= id) {
            self.ready.extend(effects);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Staged> {
        self.ready.pop_front()
    }
}
