//! Whether a worker may run a system job.

use std::collections::BTreeMap;

use veil_protocol_spec::{PeerIdHash, ReplicaIndex};
use veil_scheduler_plan::unfit::Unfit;

/// The workers that may have a replica of a system job, by its index.
pub(crate) type Workers = BTreeMap<ReplicaIndex, PeerIdHash>;

/// Whether a worker may have a replica of a system job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may.
    Fits,
    /// It is given nothing more, and keeps what it has.
    Closed,
    /// It is not what the job asks for, or does not accept it: what it has of the job leaves.
    Unfit,
    /// It is not registered any more: the same.
    Gone,
    /// It is registered, and its telemetry is not here: it keeps what it has.
    Silent,
}

impl Fit {
    /// Of a registered worker with telemetry: what it lacks for the job, and whether it is given nothing more.
    #[must_use]
    pub const fn of(lacks: Option<Unfit>, is_closed: bool) -> Self {
        match (lacks, is_closed) {
            (Some(_), _) => Self::Unfit,
            (None, true) => Self::Closed,
            (None, false) => Self::Fits,
        }
    }

    /// Whether what the worker has of the job leaves it.
    pub(crate) const fn ends(self) -> bool {
        matches!(self, Self::Unfit | Self::Gone)
    }
}
