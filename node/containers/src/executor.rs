//! One worker's containers in one cluster: what is remembered of them, and what the engine says that there is.
//!
//! What is done with them is in modules of its own: `reconcile`, `batch`, `pull`, `suspend`, `watch`, `held`,
//! `collect`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_recursion::async_recursion as boxed;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use tokio::{sync::Notify, time::Instant};
use veil_protocol_spec::{
    Slot,
    scheduling::{JobSpec, Name, ResourceRequest, Resources},
};

use crate::{
    engine::Docker,
    error::{DockerError, ReplicaError},
    facts::EngineFacts,
    firewall::Way,
    image::Images,
    keep::Keep,
    labels,
    look::Looks,
    network::Networks,
    observe::Exit,
    owner::Owner,
    pause::Pause,
    place::Unshared,
    probe::Prober,
    record::{Record, Save},
    replica::{DesiredReplica, ReplicaId},
    terms::Terms,
    usage::Usages,
};

/// Containers worked on at once.
pub(crate) const CONCURRENT: usize = 8;

/// Keeps the containers of one worker in one cluster.
pub struct Executor {
    pub(crate) docker: Docker,
    pub(crate) owner: Owner,
    pub(crate) terms: Terms,
    /// Held while one is made or removed.
    pub(crate) networks: tokio::sync::Mutex<Networks>,
    /// Something has happened that the next reconciliation is not to be waited for.
    pub(crate) woken: Notify,
    memory: Mutex<Memory>,
}

/// What cannot be read from the engine, or is not read again and again.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) desired: BTreeMap<ReplicaId, DesiredReplica>,
    /// See [`Keep::held_back`].
    pub(crate) held_back: BTreeMap<ReplicaId, Arc<JobSpec>>,
    /// What a running reconciliation is at work on.
    pub(crate) busy: BTreeMap<ReplicaId, Work>,
    errors: BTreeMap<ReplicaId, Arc<ReplicaError>>,
    /// Of replicas that could not be started.
    pub(crate) starts: BTreeMap<ReplicaId, Pause>,
    pub(crate) images: Images,
    pub(crate) prober: Prober,
    pub(crate) looks: Looks,
    /// How runs ended that this process saw end.
    pub(crate) exits: BTreeMap<ReplicaId, Exit>,
    pub(crate) record: Record,
    /// What containers held when the engine last listed them.
    pub(crate) reserved: BTreeMap<ReplicaId, Resources>,
    /// What containers have, or are about to have, that no other can have at once.
    pub(crate) unshared: BTreeMap<ReplicaId, Unshared>,
    /// Where connections of links come from and go to.
    pub(crate) ways: BTreeMap<ReplicaId, Vec<Way>>,
    /// Whether a worker that does not filter has rules for them.
    pub(crate) leads: bool,
    /// When those that have ended are started again.
    pub(crate) due: BTreeMap<ReplicaId, Instant>,
    /// Whether the engine can limit volumes, once it was tried.
    pub(crate) has_quotas: Option<bool>,
    /// Volumes that hold more than their jobs asked for.
    pub(crate) overfull: BTreeMap<ReplicaId, Name>,
    pub(crate) usage: Usages,
    /// What stays unhealthy, and the slots that placed it.
    pub(crate) given_up: BTreeMap<ReplicaId, Slot>,
    pub(crate) facts: Option<EngineFacts>,
    /// Whether the engine did not say, when it was last asked, which containers there are.
    is_silent: bool,
}

/// What a reconciliation does about a replica at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Its image is on the way.
    AwaitsImage,
    /// Its container is being stopped, which may take as long as its grace.
    Stops,
    /// Anything else.
    Other,
}

/// What was done about one container.
pub(crate) enum Change {
    Started,
    Restarted,
    Kept,
    Stopped,
    Suspended,
    /// A batch replica is not run again.
    Ended,
    /// There is no usable container yet.
    Absent,
    /// Nothing: another call is at work on it.
    Busy,
    /// Nothing yet, for this reason.
    Waits(Arc<ReplicaError>),
}

pub(crate) type Outcome = (ReplicaId, Result<Change, Arc<ReplicaError>>);

impl Executor {
    /// Touches nothing yet. Restarts are counted from now on.
    #[must_use]
    pub fn new(docker: Docker, owner: Owner) -> Self {
        Self {
            docker,
            owner,
            terms: Terms::default(),
            networks: tokio::sync::Mutex::default(),
            woken: Notify::new(),
            memory: Mutex::default(),
        }
    }

    /// The same on other terms than the default.
    #[must_use]
    pub fn on(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// The same with what an earlier process has saved, if there is such, and saves for a later one.
    #[must_use]
    pub fn remembering(docker: Docker, owner: Owner, saved: &[u8], save: Save) -> Self {
        let executor = Self::new(docker, owner);
        executor.memory().record = Record::open(saved, save);
        executor
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine is, as it last said.
    ///
    /// # Errors
    /// [`DockerError`] if it does not say.
    #[boxed]
    pub async fn facts(&self) -> Result<EngineFacts, DockerError> {
        let known = self.memory().facts.clone();
        if let Some(facts) = known {
            return Ok(facts);
        }
        self.renew_facts().await
    }

    /// What the engine is now. If it is another than before, what could not succeed is tried again.
    ///
    /// # Errors
    /// [`DockerError`] if it does not say.
    #[boxed]
    pub async fn renew_facts(&self) -> Result<EngineFacts, DockerError> {
        let facts = self.docker.facts().await?;
        let mut memory = self.memory();
        if memory.facts.as_ref().is_some_and(|before| *before != facts) {
            memory.images.forget_final();
        }
        memory.facts = Some(facts.clone());
        Ok(facts)
    }

    /// This owner's containers as the engine lists them.
    pub(crate) async fn list(&self) -> Result<Vec<ContainerSummary>, DockerError> {
        let listed = self.docker.list(&self.owner).await;
        let mut memory = self.memory();
        let was_silent = core::mem::replace(&mut memory.is_silent, listed.is_err());
        if was_silent && listed.is_ok() {
            // It may be another by now.
            memory.facts = None;
            memory.has_quotas = None;
            memory.images.forget_final();
        }
        let listed = listed?;
        let labels = listed.iter().filter_map(|container| labels::read(container.labels.as_ref()?));
        let labels: Vec<_> = labels.collect();
        memory.reserved = labels.iter().map(|labels| (labels.id, labels.reserved)).collect();
        let Memory { busy, unshared, .. } = &mut *memory;
        // What is being made is not in the list yet.
        unshared.retain(|id, _| busy.contains_key(id));
        unshared.extend(labels.into_iter().map(|labels| (labels.id, labels.unshared)));
        Ok(listed)
    }

    /// The same by replica, those that run first.
    pub(crate) async fn existing(
        &self,
    ) -> Result<BTreeMap<ReplicaId, Vec<ContainerSummary>>, DockerError> {
        let mut existing = BTreeMap::<_, Vec<_>>::new();
        for container in self.list().await? {
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
}

impl Memory {
    /// Takes over what is desired now, and forgets what was remembered of anything else.
    pub(crate) fn desire(&mut self, desired: &BTreeMap<ReplicaId, DesiredReplica>, keep: &Keep) {
        self.record.retain_replicas(keep.as_of, |id| {
            desired.contains_key(id) || keep.replicas.contains(id)
        });
        self.errors.retain(|id, _| desired.contains_key(id));
        self.starts.retain(|id, _| desired.contains_key(id));
        self.due.retain(|id, _| desired.contains_key(id));
        self.given_up.retain(|id, _| desired.contains_key(id));
        let images: BTreeSet<_> = desired.values().map(|replica| &replica.spec.image).collect();
        self.images.retain(&images);
        self.desired.clone_from(desired);
        self.held_back.clone_from(&keep.held_back);
    }

    pub(crate) fn is_at(&self, work: Work, id: &ReplicaId) -> bool {
        self.busy.get(id) == Some(&work)
    }

    /// What is reserved for each replica that is claimed or has a container.
    pub(crate) fn reservations(&self) -> BTreeMap<ReplicaId, Resources> {
        let mut reserved = self.reserved.clone();
        let held_back = self.held_back.iter().filter_map(|(id, spec)| match spec.request {
            ResourceRequest::Clear(resources) => Some((*id, resources)),
            _ => None,
        });
        reserved.extend(held_back);
        let claimed = self.desired.iter();
        reserved.extend(claimed.filter_map(|(id, desired)| Some((*id, desired.limits().ok()?))));
        reserved
    }

    /// Notes why a replica is not as desired.
    pub(crate) fn fail(&mut self, id: ReplicaId, error: &Arc<ReplicaError>) {
        self.errors.insert(id, Arc::clone(error));
    }

    pub(crate) fn succeed(&mut self, id: &ReplicaId) {
        self.errors.remove(id);
        self.starts.remove(id);
    }

    /// Why a replica that could not be started waits before the next attempt.
    pub(crate) fn waits(&self, id: &ReplicaId, now: Instant) -> Option<Arc<ReplicaError>> {
        self.starts.get(id)?.left(now)?;
        self.errors.get(id).cloned()
    }

    /// Whether what went wrong goes wrong again, as long as job and engine are the same.
    pub(crate) fn is_hopeless(&self, id: &ReplicaId) -> bool {
        self.errors.get(id).is_some_and(|error| error.is_final())
    }

    /// What went wrong, and when it is tried again.
    pub(crate) fn error(&self, id: &ReplicaId, now: Instant) -> Option<String> {
        let error = self.errors.get(id)?;
        let of =
            |desired: &DesiredReplica| self.images.pause(&desired.spec.image, desired.puller());
        let image = self.desired.get(id).and_then(of);
        let pause = image.or_else(|| self.starts.get(id));
        Some(match pause.and_then(|pause| Some((pause.failures(), pause.left(now)?))) {
            Some((failures, left)) => {
                let seconds = left.as_secs() + 1;
                format!("{error} (attempt {failures}; the next in {seconds} s)")
            }
            None => error.to_string(),
        })
    }
}
