//! Makes the engine match what is desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use backon::{ExponentialBuilder, Retryable as _};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use futures::{StreamExt as _, future::join_all, stream};
use veil_protocol_spec::scheduling::JobSpec;

use crate::{
    container,
    engine::Docker,
    error::{DockerError, ReplicaError},
    keep::{Fate, Keep},
    labels,
    observe::{self, Observed, ObservedReplica},
    probe::Prober,
    replica::{DesiredReplica, Owner, ReplicaId},
};

/// Containers worked on at once.
pub(crate) const CONCURRENT: usize = 8;

/// Keeps the containers of one worker in one cluster.
pub struct Executor {
    pub(crate) docker: Docker,
    pub(crate) owner: Owner,
    memory: Mutex<Memory>,
}

/// What cannot be read from the engine.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) desired: BTreeMap<ReplicaId, DesiredReplica>,
    /// See [`Keep::held_back`].
    pub(crate) held_back: BTreeMap<ReplicaId, Arc<JobSpec>>,
    /// What a running reconciliation is at work on; true while it waits for the image.
    busy: BTreeMap<ReplicaId, bool>,
    errors: BTreeMap<ReplicaId, String>,
    /// Exited containers started again by this executor; the engine counts its own.
    restarts: BTreeMap<ReplicaId, u64>,
    prober: Prober,
}

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
    /// Left to another reconciliation that is at work on them, for instance waiting for an image.
    pub busy: Vec<ReplicaId>,
    /// Not as desired, each with the reason.
    pub failed: Vec<(ReplicaId, Arc<ReplicaError>)>,
}

impl ReconcileReport {
    /// Whether anything was started, stopped or failed.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        [&self.started, &self.restarted, &self.stopped, &self.suspended]
            .iter()
            .all(|list| list.is_empty())
            && self.failed.is_empty()
    }

    fn sort(&mut self) {
        for list in [
            &mut self.started,
            &mut self.restarted,
            &mut self.kept,
            &mut self.stopped,
            &mut self.suspended,
            &mut self.busy,
        ] {
            list.sort_unstable();
        }
        self.failed.sort_unstable_by_key(|(id, _)| *id);
    }
}

/// What was done about one container.
pub(crate) enum Change {
    Started,
    Restarted,
    Kept,
    Stopped,
    Suspended,
    /// There is no usable container yet.
    Absent,
}

pub(crate) type Outcome = (ReplicaId, Result<Change, Arc<ReplicaError>>);

impl Executor {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(docker: Docker, owner: Owner) -> Self {
        Self { docker, owner, memory: Mutex::default() }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the engine run exactly `desired`, and what [`Keep`] lets run if it runs already. What cannot
    /// be done for one replica is in the report and does not affect the others.
    ///
    /// It takes as long as the slowest pull. Calls may overlap, so that a certificate need not wait
    /// for an image: a later call leaves alone what an earlier one is at work on, and an earlier one
    /// no longer starts what a later one does not desire. It may be dropped at any await; a
    /// container that is created and not started then is started or removed by the next call.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say which containers there are; nothing was changed
    /// then.
    #[boxed]
    pub async fn reconcile(
        &self,
        desired: &[DesiredReplica],
        keep: &Keep,
    ) -> Result<ReconcileReport, DockerError> {
        let desired: BTreeMap<_, _> =
            desired.iter().map(|replica| (replica.id(), replica.clone())).collect();
        {
            let mut memory = self.memory();
            memory.restarts.retain(|id, _| desired.contains_key(id) || keep.replicas.contains(id));
            memory.errors.retain(|id, _| desired.contains_key(id));
            memory.desired.clone_from(&desired);
            memory.held_back.clone_from(&keep.held_back);
        }
        let mut existing = self.existing().await?;
        let mut report = ReconcileReport::default();

        let mut claims = BTreeMap::new();
        let ids: BTreeSet<_> = desired.keys().chain(existing.keys()).copied().collect();
        for id in ids {
            match Claim::new(self, id) {
                Some(claim) => _ = claims.insert(id, claim),
                None => report.busy.push(id),
            }
        }
        existing.retain(|id, _| claims.contains_key(id));

        // First stop: it makes room for what starts.
        let (mut surplus, mut lapsed) = (Vec::new(), Vec::new());
        for (id, containers) in &mut existing {
            if desired.contains_key(id) {
                surplus.extend(containers.split_off(1).into_iter().map(|other| (*id, other)));
                continue;
            }
            for container in core::mem::take(containers) {
                let Some(labels) = container.labels.as_ref().and_then(labels::read) else {
                    continue;
                };
                match keep.fate(&labels) {
                    Fate::Stays => {}
                    Fate::Stops => lapsed.push((*id, container)),
                    Fate::Goes => surplus.push((*id, container)),
                }
            }
        }
        let stops = surplus.into_iter().map(|(id, container)| self.stop(id, container));
        self.drain_all(&mut report, &mut claims, stops).await;
        let stops = lapsed.into_iter().map(|(id, container)| self.suspend(id, container));
        self.drain_all(&mut report, &mut claims, stops).await;
        claims.retain(|id, _| desired.contains_key(id));

        let keeps = existing.into_iter().filter_map(|(id, mut containers)| {
            Some(self.keep(desired.get(&id)?, containers.pop()?))
        });
        self.drain_all(&mut report, &mut claims, keeps).await;

        // Whatever is left has no container. One pull for all replicas of an image.
        let mut by_image = BTreeMap::<_, Vec<_>>::new();
        for (id, replica) in &desired {
            if let Some(claim) = claims.remove(id) {
                by_image.entry(&replica.spec.image).or_default().push((replica, claim));
            }
        }
        let groups = by_image.into_values().map(|group| self.run(group));
        for (id, outcome) in join_all(groups).await.into_iter().flatten() {
            self.record(&mut report, id, outcome);
        }
        report.sort();
        if let Err(error) = self.renew_probes().await {
            tracing::warn!(%error, "health checks of ports not renewed; the next call does it");
        }
        Ok(report)
    }

    /// This owner's containers, those that run first.
    async fn existing(&self) -> Result<BTreeMap<ReplicaId, Vec<ContainerSummary>>, DockerError> {
        let mut existing = BTreeMap::<_, Vec<_>>::new();
        for container in self.docker.list(&self.owner).await? {
            match container.labels.as_ref().and_then(labels::read) {
                Some(labels) => existing.entry(labels.id).or_default().push(container),
                None => tracing::warn!(
                    container = container.id,
                    "labels of this worker that it did not write; left alone"
                ),
            }
        }
        for containers in existing.values_mut() {
            containers.sort_by_key(|container| container.state != Some(State::RUNNING));
        }
        Ok(existing)
    }

    async fn drain_all(
        &self,
        report: &mut ReconcileReport,
        claims: &mut BTreeMap<ReplicaId, Claim<'_>>,
        work: impl Iterator<Item = impl Future<Output = Outcome>>,
    ) {
        let mut outcomes = stream::iter(work).buffer_unordered(CONCURRENT);
        while let Some((id, outcome)) = outcomes.next().await {
            if !matches!(outcome, Ok(Change::Absent | Change::Stopped)) {
                claims.remove(&id);
            }
            self.record(report, id, outcome);
        }
    }

    fn record(
        &self,
        report: &mut ReconcileReport,
        id: ReplicaId,
        outcome: Result<Change, Arc<ReplicaError>>,
    ) {
        let list = match outcome {
            Ok(Change::Absent) => return,
            Ok(Change::Started) => &mut report.started,
            Ok(Change::Restarted) => &mut report.restarted,
            Ok(Change::Kept) => &mut report.kept,
            Ok(Change::Stopped) => &mut report.stopped,
            Ok(Change::Suspended) => &mut report.suspended,
            Err(error) => {
                tracing::warn!(replica = %id, %error, "not reconciled");
                self.memory().errors.insert(id, error.to_string());
                report.failed.push((id, error));
                return;
            }
        };
        list.push(id);
        self.memory().errors.remove(&id);
    }

    async fn stop(&self, id: ReplicaId, container: ContainerSummary) -> Outcome {
        tracing::info!(replica = %id, "stopping");
        let stopped = self.docker.stop_and_remove(&container.id.unwrap_or_default()).await;
        (id, stopped.map(|()| Change::Stopped).map_err(|error| Arc::new(error.into())))
    }

    async fn keep(&self, desired: &DesiredReplica, container: ContainerSummary) -> Outcome {
        let kept = self.try_keep(desired, &container).await;
        (desired.id(), kept.map_err(|error| Arc::new(error.into())))
    }

    async fn try_keep(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<Change, DockerError> {
        let id = container.id.as_deref().unwrap_or_default();
        if container::is_suspended(container) {
            return self.resume(&desired.id(), container).await;
        }
        match container.state {
            Some(State::CREATED) => {
                self.start_or_remove(id).await?;
                Ok(Change::Started)
            }
            Some(State::EXITED) => {
                let seen = self.docker.inspect(id).await?;
                let code = seen.state.and_then(|state| state.exit_code).unwrap_or(-1);
                let by_engine = u64::try_from(seen.restart_count.unwrap_or(0)).unwrap_or(0);
                let replica = desired.id();
                let own = self.memory().restarts.get(&replica).copied().unwrap_or(0);
                if !container::starts_again(desired.spec.restart, code, by_engine + own) {
                    return Ok(Change::Kept); // done, or failed for good: `observe` says which
                }
                tracing::info!(%replica, code, "starting again");
                self.docker.start(id).await?;
                *self.memory().restarts.entry(replica).or_default() += 1;
                Ok(Change::Restarted)
            }
            Some(State::DEAD | State::REMOVING | State::EMPTY) | None => {
                self.docker.remove(id).await?;
                Ok(Change::Absent)
            }
            // Runs, is about to, or somebody paused it on purpose.
            Some(State::RUNNING | State::RESTARTING | State::PAUSED | State::STOPPING) => {
                Ok(Change::Kept)
            }
        }
    }

    /// Creates and starts the replicas of one image.
    async fn run(&self, group: Vec<(&DesiredReplica, Claim<'_>)>) -> Vec<Outcome> {
        let Some((first, _)) = group.first() else { return Vec::new() };
        for (_, claim) in &group {
            claim.waits_for_image(true);
        }
        let pulled = self.docker.ensure_image(&first.spec.image).await.map_err(Arc::new);
        let mut outcomes = Vec::with_capacity(group.len());
        for (desired, claim) in group {
            claim.waits_for_image(false);
            let outcome = match &pulled {
                // The wait may have been long.
                Ok(()) if !self.memory().desired.contains_key(&desired.id()) => Ok(Change::Absent),
                Ok(()) => self.create(desired).await.map_err(Arc::new),
                Err(error) => Err(Arc::clone(error)),
            };
            outcomes.push((desired.id(), outcome));
        }
        outcomes
    }

    async fn create(&self, desired: &DesiredReplica) -> Result<Change, ReplicaError> {
        let id = desired.id();
        let name = container::name(&self.owner, &id);
        let created = self.docker.create(&name, container::body(&self.owner, desired)?).await;
        let container = match created {
            Ok(container) => container,
            Err(error) if error.status() == Some(409) => {
                // The engine may still be creating it for an earlier call that was cut off.
                let backoff = ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(50))
                    .with_max_times(6)
                    .with_jitter();
                let is_not_yet = |error: &ReplicaError| matches!(error, ReplicaError::Docker(error) if error.status() == Some(404));
                let holder = (|| self.holder(&id, &name)).retry(backoff).when(is_not_yet).await?;
                return Ok(self.try_keep(desired, &holder).await?);
            }
            Err(error) => return Err(error.into()),
        };
        self.start_or_remove(&container).await?;
        tracing::info!(replica = %id, name, "started");
        Ok(Change::Started)
    }

    /// The replica's container under a name that is taken.
    async fn holder(&self, id: &ReplicaId, name: &str) -> Result<ContainerSummary, ReplicaError> {
        self.docker.inspect(name).await?;
        let own = self.existing().await?.remove(id).and_then(|mut containers| containers.pop());
        own.ok_or_else(|| ReplicaError::NameTaken { name: name.to_owned() })
    }

    /// Leaves nothing half done.
    async fn start_or_remove(&self, container: &str) -> Result<(), DockerError> {
        let started = self.docker.start(container).await;
        if started.is_err()
            && let Err(error) = self.docker.remove(container).await
        {
            tracing::warn!(container, %error, "not removed; the next reconciliation does it");
        }
        started
    }

    async fn renew_probes(&self) -> Result<(), DockerError> {
        let existing = self.existing().await?;
        let mut memory = self.memory();
        let Memory { desired, prober, .. } = &mut *memory;
        let running: Vec<_> = existing
            .iter()
            .filter_map(|(id, containers)| {
                let container = containers.first()?.id.clone()?;
                Some((desired.get(id)?, container))
            })
            .collect();
        prober.set(&self.docker, &running);
        Ok(())
    }

    /// Every replica that is claimed or has a container.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say.
    #[boxed]
    pub async fn observe(&self) -> Result<Vec<ObservedReplica>, DockerError> {
        let existing = self.existing().await?;
        let ids: Vec<_> = existing
            .iter()
            .filter_map(|(id, containers)| Some((*id, containers.first()?.id.clone()?)))
            .collect();
        let inspected: Vec<_> = stream::iter(ids)
            .map(async |(id, container)| (id, self.docker.inspect(&container).await))
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        let mut seen = BTreeMap::new();
        for (id, answer) in inspected {
            match answer {
                Ok(answer) => _ = seen.insert(id, answer),
                Err(error) if error.status() == Some(404) => {} // gone since
                Err(error) => return Err(error),
            }
        }
        let memory = self.memory();
        let ids: BTreeSet<_> = memory.desired.keys().chain(seen.keys()).copied().collect();
        let replica = |id: ReplicaId| ObservedReplica {
            id,
            claimed: memory.desired.get(&id).map(|desired| desired.placement),
            observed: match (seen.get(&id), memory.busy.get(&id)) {
                (Some(container), _) => observe::state(container, memory.prober.health(&id)),
                (None, Some(true)) => Observed::Pulling,
                (None, _) => Observed::Missing,
            },
            container: seen.get(&id).and_then(|container| container.id.clone()),
            error: memory.errors.get(&id).cloned(),
        };
        Ok(ids.into_iter().map(replica).collect())
    }
}

/// A replica that one reconciliation is at work on, until it is done or dropped.
struct Claim<'a> {
    executor: &'a Executor,
    id: ReplicaId,
}

impl<'a> Claim<'a> {
    /// None if another reconciliation has it.
    fn new(executor: &'a Executor, id: ReplicaId) -> Option<Self> {
        let mut memory = executor.memory();
        if memory.busy.contains_key(&id) {
            return None;
        }
        memory.busy.insert(id, false);
        Some(Self { executor, id })
    }

    fn waits_for_image(&self, waits: bool) {
        self.executor.memory().busy.insert(self.id, waits);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.executor.memory().busy.remove(&self.id);
    }
}
