//! What was left out, and what that means.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    error::Pos,
    harmless::{self, Format},
};

/// Something of the file that is in no job file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Whose it was; empty if it was nobody's.
    pub service: String,
    /// The key.
    pub key: String,
    /// Why it is left out, and what to do instead.
    pub reason: String,
    /// Whether the job does not do what the file says.
    pub changes_behaviour: bool,
    /// Where it stands, from 1; 0 if the file does not say it.
    pub line: usize,
    /// The column of that.
    pub column: usize,
}

/// What was left out.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format, dropped: Vec::new(), notes: Vec::new() }
    }

    /// A key that is not used. It counts as changed behaviour unless the list has it.
    pub(crate) fn drop(&mut self, service: &str, key: &str, pos: Pos) {
        self.drop_as(service, key, key, pos);
    }

    /// The same of a key that the list has in another form.
    pub(crate) fn drop_as(&mut self, service: &str, listed: &str, key: &str, pos: Pos) {
        let known = harmless::reason(self.format, listed);
        let reason = known.unwrap_or("a job file cannot say it");
        self.push(service, key, pos, reason, known.is_none());
    }

    /// A key whose meaning is lost.
    pub(crate) fn changed(&mut self, service: &str, key: &str, pos: Pos, reason: impl AsRef<str>) {
        self.push(service, key, pos, reason.as_ref(), true);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn push(&mut self, service: &str, key: &str, pos: Pos, reason: &str, changes: bool) {
        let dropped = Dropped {
            service: service.to_owned(),
            key: key.to_owned(),
            reason: reason.to_owned(),
            changes_behaviour: changes,
            line: pos.line,
            column: pos.column,
        };
        // Two containers of one pod may say the same.
        if !self.dropped.contains(&dropped) {
            self.dropped.push(dropped);
        }
    }

    /// Whether each service does all that the file says.
    pub(crate) fn expressible<'a>(
        &self,
        services: impl Iterator<Item = &'a String>,
    ) -> BTreeMap<String, bool> {
        let is_lost = |service: &str| {
            self.dropped
                .iter()
                .any(|dropped| dropped.changes_behaviour && dropped.service == service)
        };
        services.map(|service| (service.clone(), !is_lost(service))).collect()
    }
}
