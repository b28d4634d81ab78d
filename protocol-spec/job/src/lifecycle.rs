//! What becomes of a replica once it is placed: restarts, health, updates, leases.

use serde::{Deserialize, Serialize};

/// What a worker does that is cut off from the committee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LeasePolicy {
    /// Keeps running; a double may exist until it returns.
    #[default]
    Keep,
    /// Stops when it has had no contact with the committee for `seconds`; its replacement waits longer
    /// (`leases.md`).
    Exclusive {
        /// Lease time, 30 to 86,400 s.
        seconds: u32,
    },
}

/// After which exits a worker starts a container again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartMode {
    /// After none: the replica is done.
    Never,
    /// After those with another code than 0.
    OnFailure,
    /// After all.
    #[default]
    Always,
}

/// What a worker does when the container exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    /// After which exits it starts the container again.
    pub mode: RestartMode,
    /// How often within the interval before the replica counts as failed; `None` for without end.
    pub attempts: Option<u16>,
    /// Seconds after which restarts are counted anew, at most 86,400; 0 for never.
    pub interval_seconds: u32,
    /// Seconds before each restart, at most 3,600; 0 for the engine's own pauses, which double from
    /// 0.1 s to a minute.
    pub delay_seconds: u16,
}

/// How a worker looks into a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthProbe {
    /// Healthy if this exits with 0 inside the container.
    Command(Vec<String>),
    /// Healthy if the port accepts a connection.
    Tcp {
        /// Port in the container, not 0.
        port: u16,
    },
    /// Healthy if a GET answers with a status of 200 to 399.
    Http {
        /// Port in the container, not 0.
        port: u16,
        /// Begins with `/`; printable ASCII without spaces.
        path: String,
    },
}

/// What follows when a replica is unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unhealthy {
    /// Nothing: it is shown.
    #[default]
    Nothing,
    /// The container is started again, as after an exit with an error.
    Restart,
    /// The replica is given back, and placed anew.
    Reschedule,
}

/// When and how often to probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// How to probe.
    pub probe: HealthProbe,
    /// Seconds from one probe to the next, 1 to 3600.
    pub interval_seconds: u16,
    /// Seconds after which a probe has failed, 1 to the interval.
    pub timeout_seconds: u16,
    /// Failures in a row that make the replica unhealthy, 1 to 100.
    pub retries: u16,
    /// Seconds after the start in which failures do not count, at most 3600.
    pub start_period_seconds: u16,
    /// What follows when it is unhealthy.
    pub unhealthy: Unhealthy,
}

/// How a new version of a job takes the place of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdatePolicy {
    /// Replicas that are replaced at once, 1 to 1024.
    pub max_parallel: u16,
    /// Seconds that a replica must be healthy before the next is replaced, at most 3600.
    pub min_healthy_seconds: u16,
    /// Seconds after its start by which it must be healthy, from the former to 3600.
    pub healthy_deadline_seconds: u16,
    /// Whether the version before comes back when one is not healthy in time.
    pub auto_revert: bool,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            max_parallel: 1,
            min_healthy_seconds: 10,
            healthy_deadline_seconds: 300,
            auto_revert: true,
        }
    }
}
