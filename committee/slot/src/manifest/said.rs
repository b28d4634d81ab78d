//! What telemetry says of replicas.

use std::sync::Arc;

use super::TelemetryRef;
use crate::lists::{Ended, Health, Words};

/// What messages of workers list, by worker.
#[derive(Default)]
pub(super) struct Said {
    pub(super) ended: Ended,
    pub(super) given_back: Words,
    pub(super) health: Health,
}

impl<'a> FromIterator<&'a TelemetryRef> for Said {
    fn from_iter<I: IntoIterator<Item = &'a TelemetryRef>>(messages: I) -> Self {
        let mut said = Self::default();
        for TelemetryRef { entry, ended, given_back, health, .. } in messages {
            if !ended.is_empty() {
                said.ended.insert(entry.sender, Arc::clone(ended));
            }
            if !given_back.is_empty() {
                said.given_back.insert(entry.sender, Arc::clone(given_back));
            }
            if !health.is_empty() {
                said.health.insert(entry.sender, Arc::clone(health));
            }
        }
        said
    }
}
