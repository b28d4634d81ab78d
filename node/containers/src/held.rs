//! What a worker's containers hold of its machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptionsBuilder};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use veil_protocol_spec::scheduling::Resources;

use crate::{
    container,
    engine::Docker,
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
        let info = Self::within("info", self.deadlines.call, self.client.info()).await?;
        Ok(info.docker_root_dir.unwrap_or_default().into())
    }

    async fn stats(&self, id: &str) -> Result<ContainerStatsResponse, DockerError> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut answers = std::pin::pin!(self.client.stats(id, Some(options)));
        let first = async { Ok(answers.try_next().await?.unwrap_or_default()) };
        Self::within("stats", self.deadlines.call, first).await
    }
}

impl Executor {
    /// What a sample of this machine's free capacity has to tell apart from the use by others. The
    /// replicas of the last certificate given to [`reconcile`](Self::reconcile) are included from
    /// the start of that call, started or not.
    ///
    /// # Errors
    /// [`DockerError`] if the engine does not say.
    #[boxed]
    pub async fn held(&self) -> Result<Held, DockerError> {
        let containers = self.docker.list(&self.owner).await?;
        let mut reserved: BTreeMap<_, _> = containers
            .iter()
            .filter_map(|container| labels::read(container.labels.as_ref()?))
            .map(|labels| (labels.id, labels.reserved))
            .collect();
        {
            let memory = self.memory();
            let claimed = memory.desired.iter().map(|(id, desired)| (id, &desired.spec));
            for (id, spec) in claimed.chain(&memory.held_back) {
                if let Ok(resources) = container::reserved(spec) {
                    reserved.insert(*id, resources);
                }
            }
        }
        let mut held = Held { replicas: reserved.keys().copied().collect(), ..Held::default() };
        for replica in reserved.values() {
            let sum = &mut held.reserved;
            sum.cpu.0 = sum.cpu.0.saturating_add(replica.cpu.0);
            sum.memory.0 = sum.memory.0.saturating_add(replica.memory.0);
            sum.disk.0 = sum.disk.0.saturating_add(replica.disk.0);
            sum.gpu.0 = sum.gpu.0.saturating_add(replica.gpu.0);
        }
        let ids = containers.into_iter().filter_map(|container| container.id);
        let mut stats = stream::iter(ids)
            .map(async |id| self.docker.stats(&id).await)
            .buffer_unordered(CONCURRENT);
        while let Some(answer) = stats.next().await {
            match answer {
                Ok(answer) => {
                    held.cpu_time += cpu_time(&answer);
                    held.memory_bytes += memory_bytes(&answer);
                }
                Err(error) if error.status() == Some(404) => {} // gone since
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }
}

fn cpu_time(stats: &ContainerStatsResponse) -> Duration {
    let usage = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref());
    Duration::from_nanos(usage.and_then(|usage| usage.total_usage).unwrap_or(0))
}

fn memory_bytes(stats: &ContainerStatsResponse) -> u64 {
    let Some(memory) = &stats.memory_stats else { return 0 };
    // The page cache that the kernel can drop: named so by the first and by the second version of
    // control groups.
    let cache = memory.stats.as_ref().and_then(|figures| {
        figures.get("total_inactive_file").or_else(|| figures.get("inactive_file"))
    });
    memory.usage.unwrap_or(0).saturating_sub(cache.copied().unwrap_or(0))
}
