//! What telemetry says of replicas.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use veil_protocol_spec::{PeerIdHash, scheduling::Profile};

use super::TelemetryRef;
use crate::lists::{Ended, Health, Words};

/// What messages of workers list, by worker.
#[derive(Default)]
pub(super) struct Said {
    pub(super) ended: Ended,
    pub(super) given_back: Words,
    pub(super) health: Health,
    /// What each says of itself.
    pub(super) profiles: BTreeMap<PeerIdHash, Arc<Profile>>,
}

impl Said {
    /// What a worker says of itself whose telemetry a manifest names; nothing special if the message is not here.
    pub(super) fn profile(
        &self,
        worker: &PeerIdHash,
        telemetry: &BTreeSet<PeerIdHash>,
    ) -> Option<Arc<Profile>> {
        telemetry.contains(worker).then(|| self.profiles.get(worker).cloned().unwrap_or_default())
    }
}

impl<'a> FromIterator<&'a TelemetryRef> for Said {
    fn from_iter<I: IntoIterator<Item = &'a TelemetryRef>>(messages: I) -> Self {
        let mut said = Self::default();
        for TelemetryRef { entry, ended, given_back, health, profile, .. } in messages {
            said.profiles.insert(entry.sender, Arc::clone(profile));
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
