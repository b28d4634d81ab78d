//! The timers of the membership, in the order in which they are due.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use foca::Timer;
use tokio::time::Instant;
use veil_protocol_spec::PeerIdHash;

use super::record::Record;

type Key = (Instant, u64);

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Key, Timer<Record>>,
    /// The one that forgets a dead peer. A peer that dies again and again has one, not one each time.
    removals: HashMap<PeerIdHash, Key>,
    count: u64,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn add(&mut self, at: Instant, timer: Timer<Record>) {
        self.count += 1;
        let key = (at, self.count);
        if let Timer::RemoveDown(record) = &timer
            && let Some(earlier) = self.removals.insert(record.peer(), key)
        {
            self.due.remove(&earlier);
        }
        self.due.insert(key, timer);
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer<Record>> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let timer = entry.remove();
        if let Timer::RemoveDown(record) = &timer {
            self.removals.remove(&record.peer());
        }
        Some(timer)
    }

    /// All become due later.
    pub(super) fn delay(&mut self, by: Duration) {
        for key in self.removals.values_mut() {
            key.0 += by;
        }
        let before = core::mem::take(&mut self.due);
        self.due = before.into_iter().map(|((at, n), timer)| ((at + by, n), timer)).collect();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}
