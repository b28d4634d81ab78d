//! What a worker's containers hold of its machine.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use bollard::{
    models::{ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum},
    query_parameters::StatsOptionsBuilder,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use veil_protocol_spec::scheduling::Resources;

use crate::{
    engine::{Docker, Kind},
    error::DockerError,
    executor::{CONCURRENT, Executor},
    labels,
    replica::ReplicaId,
};

/// What is reserved for a worker's replicas, and what they use of it.
#[derive(Clone, Default)]
pub struct Held {
    /// The replicas that are claimed or have a container.
    pub replicas: BTreeSet<ReplicaId>,
    /// By all of them.
    pub reserved: Resources,
    /// CPU time that the running containers have used so far.
    pub cpu_time: Duration,
    /// Memory in use, without what the kernel can take back.
    pub memory_bytes: u64,
    /// Ids of the GPUs that its containers have.
    pub devices: BTreeSet<String>,
    /// Whether the engine gives containers no GPUs, whatever the machine has: it is Podman.
    pub gives_no_gpus: bool,
    /// Why the engine does not say which containers there are. The rest is what it said last then, and
    /// nothing more can be placed here.
    pub silence: Option<Arc<DockerError>>,
}

/// Load is secret.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(secret)")
    }
}

impl Docker {
    /// Where the engine keeps images and containers.
    ///
    /// # Errors
    /// [`DockerError`] if it does not say.
    #[boxed]
    pub async fn data_root(&self) -> Result<PathBuf, DockerError> {
        let info = self.call(Kind::List, "info", self.client.info()).await?;
        Ok(info.docker_root_dir.unwrap_or_default().into())
    }

    async fn stats(&self, id: &str) -> Result<ContainerStatsResponse, DockerError> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut answers = std::pin::pin!(self.client.stats(id, Some(options)));
        let first = async { Ok(answers.try_next().await?.unwrap_or_default()) };
        self.call(Kind::Look, "stats", first).await
    }
}

impl Executor {
    /// What a sample of this machine's free capacity has to tell apart from the use by others. The
    /// replicas of the last certificate given to [`reconcile`](Self::reconcile) are included from
    /// the start of that call, started or not. A container of whose use the engine says nothing counts with
    /// what is reserved for it, and with the use that was read last.
    #[boxed]
    pub async fn held(&self) -> Held {
        let listed = self.list().await;
        let (containers, silence) = match listed {
            Ok(containers) => (containers, None),
            Err(error) => (Vec::new(), Some(Arc::new(error))),
        };
        let is_running = |container: &ContainerSummary| {
            use ContainerSummaryStateEnum::{PAUSED, RUNNING, STOPPING};
            matches!(container.state, Some(RUNNING | PAUSED | STOPPING))
        };
        let running: Vec<_> = containers
            .iter()
            .filter(|container| is_running(container))
            .filter_map(|container| {
                Some((labels::read(container.labels.as_ref()?)?.id, container.id.clone()?))
            })
            .collect();
        let now = Instant::now();
        let due: Vec<_> = {
            let usage = &mut self.memory().usage;
            if silence.is_none() {
                usage.retain(&running);
            }
            running.into_iter().filter(|(id, _)| usage.is_due(id, now)).collect()
        };
        let mut stats = stream::iter(due)
            .map(async |(id, container)| (id, self.docker.stats(&container).await, container))
            .buffer_unordered(CONCURRENT);
        while let Some((id, answer, container)) = stats.next().await {
            let mut memory = self.memory();
            match answer {
                Ok(answer) => {
                    let pids = memory.desired.get(&id).map(|of| of.spec.container.pids.into());
                    memory.usage.read(id, container, &answer, pids);
                }
                Err(error) if error.status() == Some(404) => {} // gone since
                Err(error) => {
                    tracing::warn!(replica = %id, %error, "its use is not known; what is reserved for it counts");
                    memory.usage.fail(id, container, &error, Instant::now());
                }
            }
        }
        if silence.is_none() {
            self.measure(&containers).await;
        }
        let gives_no_gpus = self.facts().await.is_ok_and(|facts| facts.is_podman());
        let memory = self.memory();
        let devices = memory.unshared.values().flat_map(|of| of.devices.iter().cloned()).collect();
        let reserved = memory.reservations();
        let (cpu_time, memory_bytes) = memory.usage.sum();
        let replicas = reserved.keys().copied().collect();
        let mut held = Held {
            replicas,
            cpu_time,
            memory_bytes,
            devices,
            gives_no_gpus,
            silence,
            ..Held::default()
        };
        for replica in reserved.values() {
            let sum = &mut held.reserved;
            sum.cpu.0 = sum.cpu.0.saturating_add(replica.cpu.0);
            sum.memory.0 = sum.memory.0.saturating_add(replica.memory.0);
            sum.disk.0 = sum.disk.0.saturating_add(replica.disk.0);
            sum.gpu.0 = sum.gpu.0.saturating_add(replica.gpu.0);
        }
        held
    }
}
