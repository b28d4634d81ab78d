//! Makes the engine match what is desired.
//!
//! # Order
//! What is not desired stops first, since it makes room for what starts. A stop that takes longer than a
//! container's grace is not waited for: one container that does not go holds up nothing else. The rest goes
//! on side by side, and each is recorded when it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use backon::{ExponentialBuilder, Retryable as _};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join, join_all},
    stream,
};
use tokio::time::{Instant, sleep};

use crate::{
    batch::{attempts, is_of_earlier_run},
    container,
    error::{DockerError, ReplicaError},
    executor::{CONCURRENT, Change, Executor, Outcome, Work},
    keep::{Fate, Keep},
    labels,
    pause::Pause,
    pull::Had,
    replica::{DesiredReplica, ReplicaId},
    report::ReconcileReport,
};

type Claims<'a> = BTreeMap<ReplicaId, Arc<Claim<'a>>>;
/// A desired replica without a container.
type Absent<'a> = (&'a DesiredReplica, Arc<Claim<'a>>);

impl Executor {
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
        self.memory().desire(&desired, keep);
        let mut existing = self.existing().await?;
        self.clear_away(keep, existing.keys().copied());
        self.end_links(keep, existing.keys().copied());
        let report = Mutex::new(ReconcileReport::default());

        let mut claims = Claims::new();
        let ids: BTreeSet<_> = desired.keys().chain(existing.keys()).copied().collect();
        for id in ids {
            match Claim::new(self, id) {
                Some(claim) => _ = claims.insert(id, Arc::new(claim)),
                None => self.record(&report, id, Ok(Change::Busy)),
            }
        }
        existing.retain(|id, _| claims.contains_key(id));

        let stops = self.stops(&mut existing, &desired, &claims, keep);
        claims.retain(|id, _| desired.contains_key(id));
        let mut stops = stream::iter(stops).buffer_unordered(CONCURRENT);
        let patience = self.docker.deadlines.grace + self.docker.deadlines.look;
        let mut patience = std::pin::pin!(sleep(patience));
        loop {
            tokio::select! {
                stopped = stops.next() => match stopped {
                    Some((id, outcome)) => self.record(&report, id, outcome),
                    None => break,
                },
                () = &mut patience => break,
            }
        }
        let hanging = async {
            while let Some((id, outcome)) = stops.next().await {
                self.record(&report, id, outcome);
            }
        };

        // After what has to stop has been told so: nothing waits for rules but what starts.
        self.guard().await;
        let kept: Vec<_> = existing
            .into_iter()
            .filter_map(|(id, mut containers)| {
                Some((desired.get(&id)?, claims.remove(&id)?, containers.pop()?))
            })
            .collect();
        let absent: Vec<_> =
            claims.into_iter().filter_map(|(id, claim)| Some((desired.get(&id)?, claim))).collect();
        let keeping = async {
            let unusable = self.keep_all(&report, kept).await;
            self.run_all(&report, unusable).await;
        };
        join(hanging, join(keeping, self.run_all(&report, absent))).await;

        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !report.stopped.is_empty() {
            self.may_be_untidy().await;
        }
        self.tidy_networks().await;
        report.sort();
        Ok(report)
    }

    /// Takes out of `existing` what is not to run.
    fn stops<'a>(
        &'a self,
        existing: &mut BTreeMap<ReplicaId, Vec<ContainerSummary>>,
        desired: &BTreeMap<ReplicaId, DesiredReplica>,
        claims: &Claims<'a>,
        keep: &Keep,
    ) -> Vec<BoxFuture<'a, Outcome>> {
        let mut stops: Vec<BoxFuture<'a, Outcome>> = Vec::new();
        for (id, containers) in existing {
            let Some(claim) = claims.get(id) else { continue };
            let surplus = usize::from(desired.contains_key(id));
            for container in containers.split_off(surplus.min(containers.len())) {
                let labels = container.labels.as_ref().and_then(labels::read);
                let fate = match labels {
                    _ if desired.contains_key(id) => Fate::Goes,
                    Some(labels) => keep.fate(&labels),
                    None => continue,
                };
                let (id, claim) = (*id, Arc::clone(claim));
                if fate != Fate::Stays && surplus == 0 {
                    claim.does(Work::Stops);
                }
                match fate {
                    Fate::Stays => {}
                    Fate::Stops => stops.push(
                        async move {
                            let _claim = claim;
                            self.suspend(id, container).await
                        }
                        .boxed(),
                    ),
                    Fate::Goes => stops.push(
                        async move {
                            let _claim = claim;
                            self.stop(id, container).await
                        }
                        .boxed(),
                    ),
                }
            }
        }
        stops
    }

    fn record(
        &self,
        report: &Mutex<ReconcileReport>,
        id: ReplicaId,
        outcome: Result<Change, Arc<ReplicaError>>,
    ) {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = self.memory();
        let list = match outcome {
            Ok(Change::Absent) => return,
            Ok(Change::Busy) => return report.busy.push(id),
            Ok(Change::Waits(error)) => {
                memory.fail(id, &error);
                return report.waiting.push(id);
            }
            Err(error) => {
                tracing::warn!(replica = %id, %error, "not reconciled");
                memory.fail(id, &error);
                return report.failed.push((id, error));
            }
            Ok(Change::Started) => &mut report.started,
            Ok(Change::Restarted) => &mut report.restarted,
            Ok(Change::Kept) => &mut report.kept,
            Ok(Change::Stopped) => &mut report.stopped,
            Ok(Change::Suspended) => &mut report.suspended,
            Ok(Change::Ended) => &mut report.ended,
        };
        list.push(id);
        memory.succeed(&id);
    }

    async fn stop(&self, id: ReplicaId, container: ContainerSummary) -> Outcome {
        tracing::info!(replica = %id, "stopping");
        let stopping = async {
            self.docker.stop(&container).await?;
            self.docker.remove(container.id.as_deref().unwrap_or_default()).await
        };
        let stopped = stopping.await;
        if stopped.is_ok() {
            self.clear_of(&id);
        }
        (id, stopped.map(|()| Change::Stopped).map_err(|error| Arc::new(error.into())))
    }

    /// What turns out to have no usable container is left over.
    async fn keep_all<'a>(
        &'a self,
        report: &Mutex<ReconcileReport>,
        kept: Vec<(&'a DesiredReplica, Arc<Claim<'a>>, ContainerSummary)>,
    ) -> Vec<Absent<'a>> {
        let keep = |(desired, claim, container): (&'a DesiredReplica, _, _)| {
            let keeping = async move {
                let outcome = self.start_unless_waiting(desired, &container).await;
                (desired, claim, outcome)
            };
            keeping.boxed()
        };
        let keeps: Vec<BoxFuture<'_, _>> = kept.into_iter().map(keep).collect();
        let mut keeps = stream::iter(keeps).buffer_unordered(CONCURRENT);
        let mut absent = Vec::new();
        while let Some((desired, claim, outcome)) = keeps.next().await {
            if matches!(outcome, Ok(Change::Absent)) {
                absent.push((desired, claim));
            } else {
                self.record(report, desired.id(), outcome);
            }
        }
        absent
    }

    async fn start_unless_waiting(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<Change, Arc<ReplicaError>> {
        let id = desired.id();
        let waits = self.memory().waits(&id, Instant::now());
        if let Some(error) = waits.filter(|_| container.state != Some(State::RUNNING)) {
            return Ok(Change::Waits(error));
        }
        let kept = self.try_keep(desired, container).await;
        kept.map_err(|error| self.failed_to_start(id, error))
    }

    /// The next attempt comes after a pause.
    fn failed_to_start(&self, id: ReplicaId, error: ReplicaError) -> Arc<ReplicaError> {
        let now = Instant::now();
        self.memory().starts.entry(id).or_insert_with(|| Pause::new(now)).fail(now, None);
        Arc::new(error.of_start())
    }

    async fn try_keep(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<Change, ReplicaError> {
        let id = container.id.as_deref().unwrap_or_default();
        if is_of_earlier_run(desired, container) {
            self.docker.stop(container).await?;
            self.docker.remove(id).await?;
            return Ok(Change::Absent);
        }
        self.keep_linked(desired, container).await?;
        if container::is_suspended(container) {
            self.admit().await?;
            self.lay_out(desired).await?;
            return Ok(self.resume(&desired.id(), container).await?);
        }
        match container.state {
            Some(State::CREATED) => {
                self.admit().await?;
                self.lay_out(desired).await?;
                self.start_or_remove(desired, id).await?;
                Ok(Change::Started)
            }
            Some(State::EXITED) => match attempts(&desired.spec) {
                Some(attempts) => self.run_again(desired, container, attempts).await,
                None => self.start_again(desired, container).await,
            },
            Some(State::DEAD | State::REMOVING | State::EMPTY) | None => {
                self.docker.remove(id).await?;
                Ok(Change::Absent)
            }
            Some(State::RUNNING) => self.heal(desired, container).await,
            // Is about to run, or somebody paused it on purpose.
            Some(State::RESTARTING | State::PAUSED | State::STOPPING) => Ok(Change::Kept),
        }
    }

    /// One pull for all replicas of an image.
    async fn run_all(&self, report: &Mutex<ReconcileReport>, absent: Vec<Absent<'_>>) {
        let mut by_image = BTreeMap::<_, Vec<_>>::new();
        for (desired, claim) in absent {
            by_image.entry(&desired.spec.image).or_default().push((desired, claim));
        }
        join_all(by_image.into_values().map(|group| self.run(report, group))).await;
    }

    /// Creates and starts the replicas of one image.
    async fn run(&self, report: &Mutex<ReconcileReport>, group: Vec<Absent<'_>>) {
        let (mut ready, mut replicas) = (Vec::new(), Vec::new());
        for (desired, claim) in group {
            if let Some(change) = self.has_run(desired) {
                self.record(report, desired.id(), Ok(change));
                continue;
            }
            let waits = self.memory().waits(&desired.id(), Instant::now());
            if let Some(error) = waits {
                self.record(report, desired.id(), Ok(Change::Waits(error)));
                continue;
            }
            claim.does(Work::AwaitsImage);
            replicas.push(desired);
            ready.push((desired, claim));
        }
        let had = &self.have_image(&replicas).await;
        let starts = ready.into_iter().map(|(desired, claim)| {
            let had = had.get(&desired.puller());
            self.start_new(desired, claim, had).boxed()
        });
        let starts: Vec<BoxFuture<'_, _>> = starts.collect();
        let mut starts = stream::iter(starts).buffer_unordered(CONCURRENT);
        while let Some((id, outcome)) = starts.next().await {
            self.record(report, id, outcome);
        }
    }

    async fn start_new(
        &self,
        desired: &DesiredReplica,
        claim: Arc<Claim<'_>>,
        had: Option<&Had>,
    ) -> Outcome {
        claim.does(Work::Other);
        let id = desired.id();
        let outcome = match had {
            // The wait may have been long.
            Some(Had::Yes) if !self.memory().desired.contains_key(&id) => Ok(Change::Absent),
            Some(Had::Yes) => {
                self.create(desired).await.map_err(|error| self.failed_to_start(id, error))
            }
            Some(Had::Busy) | None => Ok(Change::Busy),
            Some(Had::Waits(error)) => Ok(Change::Waits(Arc::clone(error))),
            Some(Had::No(error)) => Err(Arc::clone(error)),
        };
        (id, outcome)
    }

    async fn create(&self, desired: &DesiredReplica) -> Result<Change, ReplicaError> {
        let id = desired.id();
        let name = container::name(&self.owner, &id);
        let place = self.place(desired).await?;
        let mut body = container::body(&self.owner, desired, &place)?;
        self.adapt(&mut body).await?;
        self.lay_out(desired).await?;
        let links = place.unshared.links;
        self.link_before(desired, &place.bridge, links).await?;
        let created = self.docker.create(&name, body).await;
        let container = match created {
            Ok(container) => container,
            Err(error) if error.is_name_taken() => {
                // The engine may still be creating it for an earlier call that was cut off.
                let backoff = ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(50))
                    .with_max_times(6)
                    .with_jitter();
                let is_not_yet = |error: &ReplicaError| matches!(error, ReplicaError::Docker(error) if error.status() == Some(404));
                let holder = (|| self.holder(&id, &name)).retry(backoff).when(is_not_yet).await?;
                return self.try_keep(desired, &holder).await;
            }
            Err(error) => return Err(error.into()),
        };
        self.start_or_remove(desired, &container).await?;
        let confined = match self.is_filtered(&place.bridge) {
            Ok(()) => self.link(desired, &place.bridge, links).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = confined {
            self.docker.remove(&container).await?;
            if attempts(&desired.spec).is_some() {
                self.memory().record.begin(id, desired.placement.slot, 0); // it is no run
            }
            return Err(error);
        }
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
    async fn start_or_remove(
        &self,
        desired: &DesiredReplica,
        container: &str,
    ) -> Result<(), DockerError> {
        self.begin(desired);
        let started = self.docker.start(container).await;
        if started.as_ref().is_err_and(|error| self.take_back(desired, error))
            && let Err(error) = self.docker.remove(container).await
        {
            tracing::warn!(container, %error, "not removed; the next reconciliation does it");
        }
        started
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
        memory.busy.insert(id, Work::Other);
        Some(Self { executor, id })
    }

    fn does(&self, work: Work) {
        self.executor.memory().busy.insert(self.id, work);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.executor.memory().busy.remove(&self.id);
    }
}
