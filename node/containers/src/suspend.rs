//! Stopping a container so that it can be started again as it was left.
//!
//! # State
//! The container's name ([`container::suspended_name`]). It is given before the container is stopped and
//! taken away after it is started, so that a worker that dies in between never takes the stop for the
//! replica's own end.

use std::sync::Arc;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};

use crate::{
    container,
    error::DockerError,
    executor::{Change, Executor, Outcome},
    replica::ReplicaId,
};

impl Executor {
    /// "An exclusive replica is stopped, not removed, when its lease lapses."
    pub(crate) async fn suspend(&self, id: ReplicaId, container: ContainerSummary) -> Outcome {
        let suspended = self.try_suspend(&id, &container).await;
        (id, suspended.map_err(|error| Arc::new(error.into())))
    }

    async fn try_suspend(
        &self,
        replica: &ReplicaId,
        container: &ContainerSummary,
    ) -> Result<Change, DockerError> {
        use State::{CREATED, DEAD, EMPTY, EXITED, REMOVING};
        if matches!(container.state, Some(CREATED | EXITED | DEAD | REMOVING | EMPTY) | None) {
            return Ok(Change::Kept); // it does not run
        }
        let id = container.id.as_deref().unwrap_or_default();
        if !container::is_suspended(container) {
            let name = container::suspended_name(&self.owner, replica);
            self.docker.rename(id, &name).await?;
        }
        tracing::info!(%replica, "stopping; it stays, to be started again");
        self.docker.stop(container).await?;
        Ok(Change::Suspended)
    }

    /// The opposite of [`Self::suspend`].
    pub(crate) async fn resume(
        &self,
        replica: &ReplicaId,
        container: &ContainerSummary,
    ) -> Result<Change, DockerError> {
        let id = container.id.as_deref().unwrap_or_default();
        if container.state != Some(State::EXITED) {
            // The engine may be at it still, for a worker that has died meanwhile.
            self.docker.stop(container).await?;
        }
        tracing::info!(%replica, "starting again what the end of its lease had stopped");
        self.docker.start(id).await?;
        self.docker.rename(id, &container::name(&self.owner, replica)).await?;
        Ok(Change::Restarted)
    }
}
