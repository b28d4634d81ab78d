//! Replicas that end by themselves.
//!
//! # Rules
//! A run is in the executor's record before it begins: a worker that dies in between rather counts one too many
//! than runs one twice.
//!
//! - Without a container and without a run on record, the first run begins.
//! - An exit with code 0 ends the replica, and so does another one after as many runs as the job allows; else
//!   the same container is started again.
//! - A container that is gone, although a run is on record, was removed by hand, or with its engine's data: the
//!   replica has ended, and nobody knows how.
//! - A run that the end of a lease or a revocation stopped is begun again with the container, and not counted.
//! - A start that the engine refuses is no run. One that it did not answer may be one: the container stays as it
//!   is, and the next look at it decides.
//! - A container that another slot placed is of an earlier run of a periodic job: it is stopped and removed, and the run
//!   begins in a new one.

use bollard::models::{ContainerStateStatusEnum as Status, ContainerSummary};
use veil_protocol_spec::{
    Slot,
    scheduling::{EndedReplica, JobSpec, JobType, ReplicaExit},
};

use crate::{
    error::{DockerError, ReplicaError},
    executor::{Change, Executor},
    labels,
    observe::Exit,
    record::Restarts,
    replica::{DesiredReplica, ReplicaId},
};

/// How often a replica of a batch job may be run; `None` for another kind of job.
pub(crate) const fn attempts(spec: &JobSpec) -> Option<u16> {
    spec.kind.attempts()
}

/// An engine that does not know an exit code says -1.
fn exit(seen: Exit) -> ReplicaExit {
    let code = i32::try_from(seen.code).ok().filter(|code| *code != -1);
    ReplicaExit { code, out_of_memory: seen.out_of_memory }
}

/// Whether a container is of an earlier run of a periodic job than the one that is to be here.
pub(crate) fn is_of_earlier_run(desired: &DesiredReplica, container: &ContainerSummary) -> bool {
    let labels = container.labels.as_ref().and_then(labels::read);
    matches!(desired.spec.kind, JobType::Periodic { .. })
        && labels.is_some_and(|labels| labels.slot < desired.placement.slot)
}

impl Executor {
    /// What of batch jobs has its place here and has ended for good, in order.
    #[must_use]
    pub fn ended(&self) -> Vec<EndedReplica> {
        let memory = self.memory();
        let placed = |id: &ReplicaId, slot: Slot| {
            memory.desired.get(id).is_some_and(|desired| desired.placement.slot == slot)
        };
        memory.record.ended(placed)
    }

    /// Whether no container is to be made for a replica that has none, since it was run before.
    pub(crate) fn has_run(&self, desired: &DesiredReplica) -> Option<Change> {
        attempts(&desired.spec)?;
        let (id, slot) = (desired.id(), desired.placement.slot);
        let mut memory = self.memory();
        if memory.record.has_ended(&id, slot) {
            return Some(Change::Kept);
        }
        if memory.record.begun(&id, slot) == 0 {
            return None;
        }
        tracing::warn!(replica = %id, "its container is gone: it has ended, and nobody knows how");
        memory.record.end(id, slot, ReplicaExit::default());
        Some(Change::Ended)
    }

    /// A container that was made is about to be started for the first time.
    pub(crate) fn begin(&self, desired: &DesiredReplica) {
        if attempts(&desired.spec).is_some() {
            self.memory().record.begin(desired.id(), desired.placement.slot, 1);
        }
    }

    /// Whether a container that could not be started for the first time is to be removed.
    pub(crate) fn take_back(&self, desired: &DesiredReplica, error: &DockerError) -> bool {
        if attempts(&desired.spec).is_none() {
            return true;
        }
        let is_refused = error.status().is_some();
        if is_refused {
            self.memory().record.begin(desired.id(), desired.placement.slot, 0);
        }
        is_refused
    }

    /// What follows when the container of a batch replica has exited.
    pub(crate) async fn run_again(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
        attempts: u16,
    ) -> Result<Change, ReplicaError> {
        let (id, slot) = (desired.id(), desired.placement.slot);
        if self.memory().record.has_ended(&id, slot) {
            return Ok(Change::Kept);
        }
        // What was seen before may be older than the last start.
        let seen = self.look_again(container).await?;
        if seen.status != Some(Status::EXITED) {
            return Ok(Change::Kept);
        }
        let exit = exit(seen.exit);
        // The container is there, so it was run, whatever became of the record.
        let begun = self.memory().record.begun_ever(&id).max(1);
        if exit.is_success() || begun >= attempts {
            tracing::info!(replica = %id, ?exit, begun, "ended");
            self.memory().record.end(id, slot, exit);
            return Ok(Change::Ended);
        }
        self.admit().await?;
        self.lay_out(desired).await?;
        tracing::info!(replica = %id, ?exit, begun, "starting again");
        self.memory().record.begin(id, slot, begun + 1);
        let started = self.docker.start(container.id.as_deref().unwrap_or_default()).await;
        if let Err(error) = started {
            if error.status().is_some() {
                self.memory().record.begin(id, slot, begun);
            }
            return Err(error.into());
        }
        let mut memory = self.memory();
        let before = memory.record.restarts(&id).map_or(0, |before| before.count);
        let now = Restarts { count: before + 1, ..Restarts::new(id, slot, seen.exit) };
        memory.record.restarted(now);
        Ok(Change::Restarted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_that_the_engine_does_not_know_is_unknown() {
        for (code, known) in [(0, Some(0)), (137, Some(137)), (-1, None), (i64::MAX, None)] {
            let exit = exit(Exit { code, out_of_memory: true });
            assert_eq!(exit, ReplicaExit { code: known, out_of_memory: true });
        }
    }
}
