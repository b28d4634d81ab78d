//! Looking at what runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_recursion::async_recursion as boxed;
use bollard::models::ContainerSummary;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use veil_protocol_spec::scheduling::{HealthCheck, HealthProbe};

use crate::{
    error::DockerError,
    executor::{CONCURRENT, Executor, Memory, Work},
    look::Line,
    observe::{Observed, ObservedReplica, Seen, state},
    probe::{self, Health},
    replica::ReplicaId,
};

/// A container, and what the engine says of it.
type Looked = (String, Result<Seen, Arc<DockerError>>);

impl Executor {
    /// What there is to know of a container in the list.
    pub(crate) async fn look(
        &self,
        container: &ContainerSummary,
    ) -> Result<Seen, Arc<DockerError>> {
        let id = container.id.as_deref().unwrap_or_default();
        let line = Line::of(container);
        let known = self.memory().looks.known(id, &line, Instant::now());
        if let Some(known) = known {
            return known;
        }
        self.ask(id, line).await
    }

    /// The same, as it is now.
    pub(crate) async fn look_again(
        &self,
        container: &ContainerSummary,
    ) -> Result<Seen, Arc<DockerError>> {
        self.ask(container.id.as_deref().unwrap_or_default(), Line::of(container)).await
    }

    async fn ask(&self, id: &str, line: Line) -> Result<Seen, Arc<DockerError>> {
        let answer = self.docker.inspect(id).await.map(Seen::from).map_err(Arc::new);
        if matches!(&answer, Err(error) if error.status() == Some(404)) {
            return answer; // gone since the list
        }
        self.memory().looks.keep(id, line, answer, Instant::now())
    }

    /// Every replica that is claimed or has a container. Of a container about which the engine does not
    /// answer the state is [`Observed::Unknown`], with the reason.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say which containers there are.
    #[boxed]
    pub async fn observe(&self) -> Result<Vec<ObservedReplica>, DockerError> {
        let existing = self.existing().await?;
        self.learn_who_checks().await;
        let first =
            |(id, containers): (ReplicaId, Vec<_>)| Some((id, containers.into_iter().next()?));
        let listed: BTreeMap<_, _> = existing.into_iter().filter_map(first).collect();
        self.renew_probes(&listed);
        let looked: Vec<_> = stream::iter(listed)
            .map(async |(id, container)| {
                let seen = self.look(&container).await;
                (id, (container.id.unwrap_or_default(), seen))
            })
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        // What is gone since the list was made is missing.
        let gone = |looked: &Looked| matches!(&looked.1, Err(e) if e.status() == Some(404));
        let looked: BTreeMap<_, _> = looked.into_iter().filter(|(_, l)| !gone(l)).collect();
        let mut memory = self.memory();
        let containers: BTreeSet<_> = looked.values().map(|(id, _)| id.as_str()).collect();
        memory.looks.retain(&containers);
        let ids: BTreeSet<_> = memory.desired.keys().chain(looked.keys()).copied().collect();
        memory.exits.retain(|id, _| ids.contains(id));
        let mut observed: Vec<_> =
            ids.into_iter().map(|id| memory.observed(id, looked.get(&id))).collect();
        let on_all = observed.iter_mut().flat_map(|replica| &mut replica.endpoints);
        let on_all = on_all.filter(|endpoint| endpoint.host.is_unspecified());
        on_all.for_each(|endpoint| {
            endpoint.host = self.terms.announced_address.unwrap_or(endpoint.host);
        });
        Ok(observed)
    }

    /// Whether commands are run by the engine's clock depends on which engine it is.
    async fn learn_who_checks(&self) {
        let is_by_command = |check: &HealthCheck| matches!(check.probe, HealthProbe::Command(_));
        let depends = {
            let memory = self.memory();
            let mut checks = memory.desired.values().filter_map(|of| of.spec.health.as_ref());
            memory.facts.is_none() && checks.any(is_by_command)
        };
        if depends && let Err(error) = self.facts().await {
            tracing::warn!(%error, "which engine it is is not known");
        }
    }

    /// The worker probes what is desired and has a container, and nothing else.
    fn renew_probes(&self, listed: &BTreeMap<ReplicaId, ContainerSummary>) {
        let mut memory = self.memory();
        let Memory { desired, prober, facts, .. } = &mut *memory;
        let running = listed
            .iter()
            .filter_map(|(id, container)| Some((desired.get(id)?, container.id.clone()?)));
        prober.set(&self.docker, facts.as_ref(), &running.collect::<Vec<_>>());
    }
}

impl Memory {
    pub(crate) fn is_by_worker(&self, check: &HealthCheck) -> bool {
        probe::is_by_worker(check, self.facts.as_ref())
    }

    fn observed(&mut self, id: ReplicaId, looked: Option<&Looked>) -> ObservedReplica {
        let seen = looked.and_then(|(_, seen)| seen.as_ref().ok());
        let observed = match looked {
            Some((_, Ok(seen))) => {
                let probed = self.prober.health(&id).or_else(|| {
                    let check = self.desired.get(&id)?.spec.health.as_ref()?;
                    self.is_by_worker(check).then_some(Health::Starting) // it is not probed yet
                });
                match state(seen, probed) {
                    Observed::Exited { .. } if self.due.contains_key(&id) => Observed::Restarting,
                    // The engine calls it running until it has ended.
                    Observed::Running | Observed::Starting | Observed::Unhealthy
                        if self.is_at(Work::Stops, &id) =>
                    {
                        Observed::Stopping
                    }
                    state => state,
                }
            }
            Some((_, Err(_))) => Observed::Unknown,
            None if self.is_at(Work::AwaitsImage, &id) => Observed::Pulling,
            None => Observed::Missing,
        };
        if let (Some(seen), Observed::Exited { .. } | Observed::Restarting) = (seen, observed) {
            self.exits.insert(id, seen.exit);
        }
        let own = self.record.restarts(&id);
        let has = self.unshared.get(&id).filter(|_| looked.is_some());
        let endpoints = has.map(|of| of.ports.iter().map(|port| port.endpoint.clone()).collect());
        let silence = looked.and_then(|(_, seen)| seen.as_ref().err());
        let silence = silence.map(|error| format!("the engine does not say more: {error}"));
        let overfull = self.overfull.get(&id).map(|name| {
            format!("the volume `{name}` holds more than the job asked for, which this engine cannot limit")
        });
        let errors = [self.error(&id, Instant::now()), silence, self.usage.error(&id), overfull];
        let error = errors.into_iter().flatten().collect::<Vec<_>>().join("; ");
        ObservedReplica {
            id,
            claimed: self.desired.get(&id).map(|desired| desired.placement),
            observed,
            last_exit: self.exits.get(&id).copied().or(own.map(|own| own.last_exit)),
            restarts: seen.map_or(0, |seen| seen.restarts) + own.map_or(0, |own| own.count),
            process_limit: self.usage.process_limit(&id),
            container: looked.map(|(container, _)| container.clone()),
            endpoints: endpoints.unwrap_or_default(),
            error: Some(error).filter(|error| !error.is_empty()),
            is_hopeless: self.is_hopeless(&id),
        }
    }
}
