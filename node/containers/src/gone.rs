//! What a worker has given up for good.

use std::collections::BTreeSet;

use veil_protocol_spec::Slot;

use crate::{
    error::DockerError,
    executor::Executor,
    replica::{DesiredReplica, ReplicaId},
};

impl Executor {
    /// Those of the replicas that have no container, and get none as long as they are not desired again: nobody is at
    /// work on one.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say which containers there are.
    pub async fn gone(
        &self,
        replicas: BTreeSet<ReplicaId>,
    ) -> Result<BTreeSet<ReplicaId>, DockerError> {
        // First: what is neither desired nor worked on now gets no container after the engine was asked.
        let mut idle = {
            let memory = self.memory();
            let is_idle =
                |id: &ReplicaId| !memory.desired.contains_key(id) && !memory.busy.contains_key(id);
            let idle: BTreeSet<_> = replicas.into_iter().filter(is_idle).collect();
            idle
        };
        let existing = self.existing().await?;
        idle.retain(|id| !existing.contains_key(id));
        Ok(idle)
    }

    /// What stays unhealthy although it was started again as often as its job says, and the slot that placed it
    /// here: to be given back.
    #[must_use]
    pub fn given_up(&self) -> Vec<(ReplicaId, Slot)> {
        let memory = self.memory();
        let is_placed = |id: &ReplicaId, slot: Slot| {
            memory.desired.get(id).is_some_and(|desired| desired.placement.slot == slot)
        };
        let given_up = memory.given_up.iter().map(|(id, slot)| (*id, *slot));
        given_up.filter(|(id, slot)| is_placed(id, *slot)).collect()
    }

    /// It is to be given back.
    pub(crate) fn give_up(&self, desired: &DesiredReplica) {
        let id = desired.id();
        let before = self.memory().given_up.insert(id, desired.placement.slot);
        if before != Some(desired.placement.slot) {
            tracing::warn!(replica = %id, "it stays unhealthy: this worker gives it back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::sleep;
    use veil_protocol_spec::scheduling::{
        HealthCheck, HealthProbe, JobSpec, RestartMode, RestartPolicy, Unhealthy,
    };

    use super::*;
    use crate::{
        Keep,
        fake::{Fake, reconcile, replicas},
    };

    /// "It says that it has stopped only after the engine has none."
    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_gone_when_its_container_is() {
        let fake = Fake::default();
        let (worker, desired) = (fake.worker().await, replicas(1, 2));
        let _ = reconcile(&worker, &desired).await;
        let ids: BTreeSet<_> = desired.iter().map(DesiredReplica::id).collect();
        let gone = async || worker.gone(ids.clone()).await.unwrap();
        assert_eq!(gone().await, BTreeSet::new(), "both are desired");
        let given_back = desired[1].id();
        let keep = Keep { given_back: [given_back].into(), as_of: Slot(0), ..Keep::NOTHING };
        fake.ignore(&format!("POST /containers/{}/stop", fake.container(&desired[1])));
        let report = worker.reconcile(&desired[..1], &keep).await.unwrap();
        assert_eq!((report.stopped.len(), report.failed.len()), (0, 1));
        assert_eq!(gone().await, BTreeSet::new(), "the engine does not stop it");
        fake.state().ignores.clear();
        let report = worker.reconcile(&desired[..1], &keep).await.unwrap();
        assert_eq!(report.stopped, [given_back]);
        assert_eq!(gone().await, [given_back].into());
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_unhealthy_is_given_up_after_the_restarts_that_its_job_asks_for() {
        for (attempts, mode, restarts) in [
            (Some(2), RestartMode::Always, 2),
            (None, RestartMode::OnFailure, 3),
            (None, RestartMode::Never, 0),
        ] {
            let fake = Fake::default();
            let worker = fake.worker().await;
            let mut desired = replicas(1, 1);
            let health = HealthCheck {
                probe: HealthProbe::Command(vec!["check".to_owned()]),
                interval_seconds: 1,
                timeout_seconds: 1,
                retries: 1,
                start_period_seconds: 0,
                unhealthy: Unhealthy::Reschedule,
            };
            let restart = RestartPolicy { mode, attempts, ..RestartPolicy::default() };
            let spec = JobSpec { health: Some(health), restart, ..(*desired[0].spec).clone() };
            desired[0].spec = Arc::new(spec);
            let _ = reconcile(&worker, &desired).await;
            fake.change(&fake.container(&desired[0]), |container| container.unhealthy = true);
            for _ in 0..restarts {
                assert_eq!(worker.given_up(), []);
                let report = reconcile(&worker, &desired).await;
                assert_eq!(report.restarted.len(), 1, "{report:?}");
                sleep(Duration::from_secs(60)).await;
            }
            let report = reconcile(&worker, &desired).await;
            assert_eq!(report.kept.len(), 1, "{report:?}");
            assert_eq!(worker.given_up(), [(desired[0].id(), Slot(7))]);
            // It has another place.
            let _ = reconcile(&worker, &[]).await;
            assert_eq!(worker.given_up(), []);
        }
    }
}
