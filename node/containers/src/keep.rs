//! What stays although it is not desired.

use std::{collections::BTreeSet, time::Duration};

use veil_protocol_spec::Slot;

use crate::{labels::Labels, replica::ReplicaId};

/// What a worker does not know enough about to remove it.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The last slot whose certificate the worker has verified: what a later one placed here is not
    /// in what it desires, and stays all the same.
    pub as_of: Slot,
    /// Replicas that are assigned here, but cannot be desired because something of them is missing.
    pub replicas: BTreeSet<ReplicaId>,
    /// How long ago the committee was last in contact: an exclusive lease ends, whatever is known of
    /// the replica.
    pub contact_age: Duration,
}

impl Keep {
    /// Everything is known: whatever is not desired goes.
    pub const NOTHING: Self =
        Self { as_of: Slot(u64::MAX), replicas: BTreeSet::new(), contact_age: Duration::ZERO };

    /// Whether a container stays that is not desired.
    pub(crate) fn holds(&self, labels: &Labels) -> bool {
        let is_over = labels.lease.is_some_and(|lease| self.contact_age >= lease);
        !is_over && (labels.slot > self.as_of || self.replicas.contains(&labels.id))
    }
}
