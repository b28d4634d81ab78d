//! What came of a reconciliation.

use std::sync::Arc;

use crate::{error::ReplicaError, replica::ReplicaId};

/// What a reconciliation did.
#[derive(Debug, Default)]
#[must_use]
pub struct ReconcileReport {
    /// Created and started.
    pub started: Vec<ReplicaId>,
    /// Had exited and were started again.
    pub restarted: Vec<ReplicaId>,
    /// Were as desired, which includes those that are done.
    pub kept: Vec<ReplicaId>,
    /// Stopped and removed.
    pub stopped: Vec<ReplicaId>,
    /// Stopped, and not removed.
    pub suspended: Vec<ReplicaId>,
    /// Replicas of batch jobs that have ended for good, which was not known before.
    pub ended: Vec<ReplicaId>,
    /// Left to another reconciliation that is at work on them, for instance waiting for an image.
    pub busy: Vec<ReplicaId>,
    /// Not as desired, and not tried again yet: the last attempt was too short a time ago, or another would
    /// bring the same.
    pub waiting: Vec<ReplicaId>,
    /// Not as desired, each with the reason.
    pub failed: Vec<(ReplicaId, Arc<ReplicaError>)>,
}

impl ReconcileReport {
    /// Whether anything was started, stopped, ended or failed.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        [&self.started, &self.restarted, &self.stopped, &self.suspended, &self.ended]
            .iter()
            .all(|list| list.is_empty())
            && self.failed.is_empty()
    }

    pub(crate) fn sort(&mut self) {
        for list in [
            &mut self.started,
            &mut self.restarted,
            &mut self.kept,
            &mut self.stopped,
            &mut self.suspended,
            &mut self.ended,
            &mut self.busy,
            &mut self.waiting,
        ] {
            list.sort_unstable();
        }
        self.failed.sort_unstable_by_key(|(id, _)| *id);
    }
}
