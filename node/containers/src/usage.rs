//! What containers use, as far as the engine says.

use std::{collections::BTreeMap, time::Duration};

use bollard::models::ContainerStatsResponse;
use tokio::time::Instant;

use crate::{error::DockerError, pause::Pause, replica::ReplicaId};

/// The last answers about one container.
#[derive(Debug)]
struct Usage {
    container: String,
    cpu_time: Duration,
    memory_bytes: u64,
    /// The most processes it may have, if it had as many.
    process_limit: Option<u64>,
    failure: Option<(String, Pause)>,
}

/// The last answers about all running containers; what has ended keeps only whether it had reached its
/// limit of processes.
#[derive(Debug, Default)]
pub(crate) struct Usages {
    running: BTreeMap<ReplicaId, Usage>,
    ended: BTreeMap<ReplicaId, u64>,
}

impl Usages {
    /// The others run no more.
    pub(crate) fn retain(&mut self, running: &[(ReplicaId, String)]) {
        let runs =
            |id: &ReplicaId, of: &Usage| running.iter().any(|(r, c)| r == id && *c == of.container);
        let ended = self.running.extract_if(.., |id, of| !runs(id, of));
        self.ended.extend(ended.filter_map(|(id, of)| Some((id, of.process_limit?))));
        self.ended.retain(|id, _| running.iter().all(|(other, _)| other != id));
    }

    /// Whether the engine is to be asked, which it is not right after it has failed to answer.
    pub(crate) fn is_due(&self, id: &ReplicaId, now: Instant) -> bool {
        let failure = self.running.get(id).and_then(|of| of.failure.as_ref());
        failure.is_none_or(|(_, pause)| pause.left(now).is_none())
    }

    /// `pids` is how many processes it may have, should the engine not say that, as Podman does not.
    pub(crate) fn read(
        &mut self,
        id: ReplicaId,
        container: String,
        said: &ContainerStatsResponse,
        pids: Option<u64>,
    ) {
        let limit = said.pids_stats.as_ref().and_then(|pids| pids.limit);
        let limit = limit.filter(|limit| *limit > 0).or(pids);
        let pids = said.pids_stats.as_ref();
        let current = pids.and_then(|pids| pids.current).unwrap_or(0);
        let process_limit = limit.filter(|limit| current >= *limit);
        let (cpu_time, memory_bytes) = (cpu_time(said), memory_bytes(said));
        let usage = Usage { container, cpu_time, memory_bytes, process_limit, failure: None };
        self.running.insert(id, usage);
    }

    /// What was read before goes on to count.
    pub(crate) fn fail(
        &mut self,
        id: ReplicaId,
        container: String,
        error: &DockerError,
        now: Instant,
    ) {
        let usage = self.running.entry(id).or_insert_with(|| Usage {
            container,
            cpu_time: Duration::ZERO,
            memory_bytes: 0,
            process_limit: None,
            failure: None,
        });
        let before = usage.failure.take().map(|(_, pause)| pause);
        let mut pause = before.unwrap_or_else(|| Pause::new(now));
        pause.fail(now, None);
        usage.failure = Some((format!("its use is not known: {error}"), pause));
    }

    pub(crate) fn error(&self, id: &ReplicaId) -> Option<String> {
        Some(self.running.get(id)?.failure.as_ref()?.0.clone())
    }

    pub(crate) fn process_limit(&self, id: &ReplicaId) -> Option<u64> {
        self.running.get(id).and_then(|of| of.process_limit).or(self.ended.get(id).copied())
    }

    /// CPU time and memory.
    pub(crate) fn sum(&self) -> (Duration, u64) {
        let all = self.running.values();
        all.fold((Duration::ZERO, 0), |(cpu, memory), of| {
            (cpu + of.cpu_time, memory + of.memory_bytes)
        })
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
