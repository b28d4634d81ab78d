//! What really runs, apart from what is claimed.

use std::fmt;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use serde::Serialize;

use crate::{
    probe::Health,
    replica::{Placement, ReplicaId},
};

/// The state of a replica's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Observed {
    /// There is none.
    Missing,
    /// There is none yet: its image is on the way.
    Pulling,
    /// Created and not started; the next reconciliation starts it.
    Created,
    /// Runs, and its health check has not succeeded yet.
    Starting,
    /// Runs, and its health check succeeds, if it has one.
    Running,
    /// Runs, and its health check has failed as often as the job allows.
    Unhealthy,
    /// The engine is about to start it again.
    Restarting,
    /// Somebody paused it.
    Paused,
    /// Ended.
    Exited {
        /// 0 for success; 128 + n for signal n.
        code: i64,
    },
    /// The engine is removing it, or has failed to.
    Dead,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Pulling => "pulling",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Restarting => "restarting",
            Self::Paused => "paused",
            Self::Exited { code } => return write!(f, "exited ({code})"),
            Self::Dead => "dead",
        })
    }
}

/// One replica as claimed and as seen.
#[derive(Clone, Debug)]
pub struct ObservedReplica {
    /// Which one.
    pub id: ReplicaId,
    /// What placed it here; None if nothing does any more and it is yet to be stopped.
    pub claimed: Option<Placement>,
    /// What the engine says.
    pub observed: Observed,
    /// The engine's id of the container, if there is one.
    pub container: Option<String>,
    /// Why the last reconciliation could not do its part.
    pub error: Option<String>,
}

/// Reads the engine's answer; `probed` is the worker's own probe, if the job has one.
pub(crate) fn state(container: &ContainerInspectResponse, probed: Option<Health>) -> Observed {
    use ContainerStateStatusEnum as Status;
    let Some(state) = &container.state else { return Observed::Dead };
    match state.status {
        Some(Status::CREATED) => Observed::Created,
        Some(Status::RUNNING | Status::STOPPING) => {
            let checked = state.health.as_ref().and_then(|health| health.status);
            let checked = match checked {
                Some(HealthStatusEnum::STARTING) => Some(Health::Starting),
                Some(HealthStatusEnum::HEALTHY) => Some(Health::Healthy),
                Some(HealthStatusEnum::UNHEALTHY) => Some(Health::Unhealthy),
                _ => None,
            };
            match probed.or(checked) {
                None | Some(Health::Healthy) => Observed::Running,
                Some(Health::Starting) => Observed::Starting,
                Some(Health::Unhealthy) => Observed::Unhealthy,
            }
        }
        Some(Status::PAUSED) => Observed::Paused,
        Some(Status::RESTARTING) => Observed::Restarting,
        Some(Status::EXITED) => Observed::Exited { code: state.exit_code.unwrap_or(-1) },
        Some(Status::REMOVING | Status::DEAD | Status::EMPTY) | None => Observed::Dead,
    }
}
