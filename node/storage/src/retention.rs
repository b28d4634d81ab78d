//! How long what belongs to ended slots is kept: so many days, and so many bytes, oldest first; a challenged
//! slot until its challenge has ended.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use veil_protocol_spec::{Slot, scheduling::UnixMillis};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days for which it is kept.
    pub days: u32,
    /// Bytes of content that are kept at most.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 14, bytes: 4 << 30 }
    }
}

/// Slots that are kept whatever their age and size. Until it is known which these are, nothing is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Option<BTreeSet<Slot>>>);

impl Held {
    pub(crate) fn set(&self, slots: BTreeSet<Slot>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(slots);
    }

    fn slots(&self) -> Option<BTreeSet<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one table of a database holds, by slot.
pub(crate) struct Account {
    slots: TableDefinition<'static, u64, (u64, u64)>,
    total: TableDefinition<'static, (), u64>,
}

impl Account {
    /// The tables' names: when the slots' first entries came and their bytes; the sum of the bytes.
    pub(crate) const fn new(slots: &'static str, total: &'static str) -> Self {
        Self { slots: TableDefinition::new(slots), total: TableDefinition::new(total) }
    }

    /// Takes down that `added` bytes of a slot are stored, instead of `removed` ones.
    pub(crate) fn add(
        &self,
        writing: &WriteTransaction,
        slot: u64,
        (added, removed): (u64, u64),
        now: UnixMillis,
    ) -> Result<(), redb::Error> {
        let mut slots = writing.open_table(self.slots)?;
        let (since, bytes) = slots.get(slot)?.map_or((now.0, 0), |known| known.value());
        slots.insert(slot, (since, (bytes + added).saturating_sub(removed)))?;
        let mut total = writing.open_table(self.total)?;
        let before = total.get(())?.map_or(0, |known| known.value());
        total.insert((), (before + added).saturating_sub(removed))?;
        Ok(())
    }

    /// Slots over the bounds, oldest first, all before `end` and not held; they are off the account then.
    pub(crate) fn expire(
        &self,
        writing: &WriteTransaction,
        (retention, held): (Retention, &Held),
        end: u64,
        now: UnixMillis,
    ) -> Result<Vec<u64>, redb::Error> {
        let Some(held) = held.slots() else { return Ok(Vec::new()) };
        let mut slots = writing.open_table(self.slots)?;
        let mut total = writing.open_table(self.total)?;
        let mut kept = total.get(())?.map_or(0, |known| known.value());
        let oldest = now.0.saturating_sub(u64::from(retention.days).saturating_mul(DAY_MILLIS));
        let mut expired = Vec::new();
        for entry in slots.range(..end)? {
            let (slot, known) = entry?;
            let (since, bytes) = known.value();
            if since >= oldest && kept <= retention.bytes {
                break;
            }
            if held.contains(&Slot(slot.value())) {
                continue;
            }
            kept = kept.saturating_sub(bytes);
            expired.push(slot.value());
        }
        for slot in &expired {
            slots.remove(slot)?;
        }
        total.insert((), kept)?;
        Ok(expired)
    }
}
