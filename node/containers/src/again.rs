//! Starting a container again: after it has ended, or because it is unhealthy.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{ContainerStateStatusEnum as Status, ContainerSummary};
use tokio::time::Instant;
use veil_protocol_spec::scheduling::{HealthCheck, Unhealthy};

use crate::{
    error::ReplicaError,
    executor::{Change, Executor},
    observe::{Exit, Seen},
    probe::Health,
    record::Restarts,
    replica::DesiredReplica,
    restart,
};

/// Restarts of what is unhealthy and is to be placed anew then, if its job does not say how many.
const RESTARTS_BEFORE_GIVING_UP: u16 = 3;

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Executor {
    /// If the job's policy says so, and when it says so.
    pub(crate) async fn start_again(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<Change, ReplicaError> {
        let id = desired.id();
        let now = Instant::now();
        let waits = self.memory().due.get(&id).is_some_and(|at| *at > now);
        if waits {
            return Ok(Change::Kept);
        }
        let policy = desired.spec.restart;
        let before = self.memory().record.restarts(&id);
        let seen = self.look(container).await?;
        if restart::due(policy, &seen, before).is_none() {
            return Ok(Change::Kept); // done, or failed for good: `observe` says which
        }
        // What was seen may be older than the last start by somebody else.
        let seen = self.look_again(container).await?;
        if seen.status == Some(Status::RUNNING) {
            return Ok(Change::Kept);
        }
        let Some(due) = restart::due(policy, &seen, before) else { return Ok(Change::Kept) };
        // However the clock was set meanwhile, it waits no longer than the pause.
        let left = Duration::from_millis(due.at.saturating_sub(unix_now())).min(due.pause);
        if !left.is_zero() {
            self.wait_for(id, left);
            return Ok(Change::Kept);
        }
        self.admit().await?;
        self.lay_out(desired).await?;
        tracing::info!(replica = %id, code = seen.exit.code, "starting again");
        self.docker.start(container.id.as_deref().unwrap_or_default()).await?;
        let new = Restarts::new(id, desired.placement.slot, seen.exit);
        let recorded = restart::recorded(policy, &seen, before, unix_now(), new);
        let mut memory = self.memory();
        memory.due.remove(&id);
        memory.record.restarted(recorded);
        Ok(Change::Restarted)
    }

    /// Stops what is unhealthy and whose job wants it started again then, "as after an exit with an error".
    pub(crate) async fn heal(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<Change, ReplicaError> {
        let id = desired.id();
        let check = desired.spec.health.as_ref();
        let Some(check) = check.filter(|check| check.unhealthy != Unhealthy::Nothing) else {
            return Ok(Change::Kept);
        };
        if !self.is_unhealthy(desired, check, container).await? {
            return Ok(Change::Kept);
        }
        let before = self.memory().record.restarts(&id);
        let failed = Seen {
            status: None,
            health: None,
            exit: Exit { code: 1, out_of_memory: false },
            restarts: 0,
            started: None,
            finished: Some(unix_now()),
        };
        let mut policy = desired.spec.restart;
        if check.unhealthy == Unhealthy::Reschedule {
            policy.attempts.get_or_insert(RESTARTS_BEFORE_GIVING_UP);
        }
        if restart::due(policy, &failed, before).is_none() {
            // As often as the job allows; it is shown as unhealthy.
            if check.unhealthy == Unhealthy::Reschedule {
                self.give_up(desired);
            }
            return Ok(Change::Kept);
        }
        tracing::info!(replica = %id, "stopping, to be started again: it is unhealthy");
        {
            // First, so that whoever finds it stopped knows why.
            let mut memory = self.memory();
            let new = || Restarts::new(id, desired.placement.slot, Exit::default());
            let known = before.unwrap_or_else(new);
            memory.record.restarted(Restarts { was_unhealthy: true, ..known });
            memory.prober.forget(&id);
        }
        self.docker.stop(container).await?;
        match self.start_again(desired, container).await? {
            Change::Kept => Ok(Change::Suspended),
            change => Ok(change),
        }
    }

    async fn is_unhealthy(
        &self,
        desired: &DesiredReplica,
        check: &HealthCheck,
        container: &ContainerSummary,
    ) -> Result<bool, ReplicaError> {
        if self.memory().is_by_worker(check) {
            return Ok(self.memory().prober.health(&desired.id()) == Some(Health::Unhealthy));
        }
        let line = container.status.as_deref().unwrap_or_default();
        if !line.contains("(unhealthy)") {
            return Ok(false);
        }
        Ok(self.look_again(container).await?.health == Some(Health::Unhealthy))
    }
}
