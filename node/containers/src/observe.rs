//! What really runs, apart from what is claimed.

use std::fmt;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use serde::{Deserialize, Serialize};

use veil_node_process::moment::unix_millis;

use crate::{
    port::Endpoint,
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
    /// It has ended, and is started again after a pause.
    Restarting,
    /// Runs, and is being stopped: it has its grace to end by itself.
    Stopping,
    /// Somebody paused it.
    Paused,
    /// Ended.
    Exited {
        /// 0 for success; 128 + n for signal n.
        code: i64,
    },
    /// The engine is removing it, or has failed to.
    Dead,
    /// The engine has it, and does not say more.
    Unknown,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 for success; 128 + n for signal n.
    pub code: i64,
    /// Whether the kernel killed it because it wanted more memory than it had asked for.
    pub out_of_memory: bool,
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
            Self::Stopping => "stopping",
            Self::Paused => "paused",
            Self::Exited { code } => return write!(f, "exited ({code})"),
            Self::Dead => "dead",
            Self::Unknown => "unknown",
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
    /// How its last run that is over has ended; nothing if that was not seen.
    pub last_exit: Option<Exit>,
    /// How often it was started again, by the engine and by this worker.
    pub restarts: u64,
    /// The most processes it may have, if it had as many when the engine was last asked.
    pub process_limit: Option<u64>,
    /// The engine's id of the container, if there is one.
    pub container: Option<String>,
    /// Where its ports are reached.
    pub endpoints: Vec<Endpoint>,
    /// Why the last reconciliation could not do its part, or the engine does not say all.
    pub error: Option<String>,
    /// Whether that cannot get better as long as job and engine are the same.
    pub is_hopeless: bool,
}

/// Such as `exited (137, out of memory)` or `restarting (4 restarts, last exit 1)`.
impl fmt::Display for ObservedReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut details = Vec::new();
        let restarts = match self.restarts {
            0 => None,
            1 => Some("1 restart".to_owned()),
            many => Some(format!("{many} restarts")),
        };
        let memory =
            self.last_exit.is_some_and(|exit| exit.out_of_memory).then_some("out of memory");
        if let Observed::Exited { code } = self.observed {
            details.push(code.to_string());
            details.extend(memory.map(str::to_owned));
            details.extend(restarts);
        } else if restarts.is_some() || self.observed == Observed::Restarting {
            details.extend(restarts);
            if let Some(exit) = self.last_exit {
                details.push(format!("last exit {}", exit.code));
                details.extend(memory.map(str::to_owned));
            }
        }
        if let Some(limit) = self.process_limit {
            details.push(format!("at its limit of {limit} processes"));
        }
        match self.observed {
            Observed::Exited { .. } => f.write_str("exited")?,
            state => write!(f, "{state}")?,
        }
        if details.is_empty() { Ok(()) } else { write!(f, " ({})", details.join(", ")) }
    }
}

/// What there is to know of one container.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) status: Option<ContainerStateStatusEnum>,
    /// By the engine's own check.
    pub(crate) health: Option<Health>,
    /// Of the last run that has ended, as far as the engine keeps it.
    pub(crate) exit: Exit,
    /// By the engine, since somebody else last started it.
    pub(crate) restarts: u64,
    /// When the last run began, in milliseconds of Unix time.
    pub(crate) started: Option<u64>,
    /// When it ended.
    pub(crate) finished: Option<u64>,
}

impl From<ContainerInspectResponse> for Seen {
    fn from(said: ContainerInspectResponse) -> Self {
        let state = said.state.unwrap_or_default();
        Self {
            status: state.status,
            health: state.health.and_then(|health| checked(health.status?)),
            exit: Exit {
                code: state.exit_code.unwrap_or(-1),
                out_of_memory: state.oom_killed.unwrap_or(false),
            },
            restarts: said.restart_count.and_then(|count| count.try_into().ok()).unwrap_or(0),
            started: state.started_at.as_deref().and_then(unix_millis),
            finished: state.finished_at.as_deref().and_then(unix_millis),
        }
    }
}

const fn checked(status: HealthStatusEnum) -> Option<Health> {
    match status {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        _ => None,
    }
}

/// `probed` is by the worker's own probe, if the job has one.
pub(crate) fn state(seen: &Seen, probed: Option<Health>) -> Observed {
    use ContainerStateStatusEnum as Status;
    match seen.status {
        Some(Status::CREATED) => Observed::Created,
        Some(Status::STOPPING) => Observed::Stopping,
        Some(Status::RUNNING) => match probed.or(seen.health) {
            None | Some(Health::Healthy) => Observed::Running,
            Some(Health::Starting) => Observed::Starting,
            Some(Health::Unhealthy) => Observed::Unhealthy,
        },
        Some(Status::PAUSED) => Observed::Paused,
        Some(Status::RESTARTING) => Observed::Restarting,
        Some(Status::EXITED) => Observed::Exited { code: seen.exit.code },
        Some(Status::REMOVING | Status::DEAD | Status::EMPTY) | None => Observed::Dead,
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

    use super::*;

    #[test]
    fn why_a_container_ended_and_how_often_is_said() {
        let exit = |code, out_of_memory| Some(Exit { code, out_of_memory });
        let exited = |code| Observed::Exited { code };
        for (observed, last_exit, restarts, process_limit, text) in [
            (Observed::Running, None, 0, None, "running"),
            (Observed::Running, exit(137, true), 0, None, "running"),
            (
                Observed::Running,
                exit(137, true),
                1,
                None,
                "running (1 restart, last exit 137, out of memory)",
            ),
            (Observed::Running, None, 2, None, "running (2 restarts)"),
            (Observed::Running, None, 0, Some(512), "running (at its limit of 512 processes)"),
            (Observed::Restarting, exit(1, false), 4, None, "restarting (4 restarts, last exit 1)"),
            (Observed::Restarting, exit(1, false), 0, None, "restarting (last exit 1)"),
            (exited(0), exit(0, false), 0, None, "exited (0)"),
            (exited(137), exit(137, true), 0, None, "exited (137, out of memory)"),
            (exited(137), exit(137, true), 2, None, "exited (137, out of memory, 2 restarts)"),
            (exited(1), exit(1, false), 0, Some(64), "exited (1, at its limit of 64 processes)"),
            (Observed::Unknown, None, 0, None, "unknown"),
        ] {
            let replica = ObservedReplica {
                id: ReplicaId { job: Blake3Digest([1; 32]), replica: ReplicaIndex(0) },
                claimed: None,
                observed,
                last_exit,
                restarts,
                process_limit,
                container: None,
                endpoints: Vec::new(),
                error: None,
                is_hopeless: false,
            };
            assert_eq!(replica.to_string(), text);
        }
    }
}
