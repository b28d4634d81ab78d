//! Reads the host.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use sysinfo::{
    DiskRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, Pid, ProcessRefreshKind,
    ProcessesToUpdate, System,
};
use tokio::time::{Instant, sleep_until};
use veil_node_config::offer::{Offer, Standing};
use veil_node_containers::Held;
use veil_protocol_spec::scheduling::{LatencyClass, Reading, Resources, Scale, Share};

use super::{
    free::{Host, Level, free, share},
    gpus::Gpus,
};

/// Free capacity, in clear: for the encryption and nothing else.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    free: Resources,
    share: Share,
}

impl Sample {
    /// The units to encrypt. Neither log them nor send them.
    #[must_use]
    pub const fn expose(&self) -> &Resources {
        &self.free
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sample(secret)")
    }
}

impl Sample {
    /// What is encrypted, in the cluster's scale. `round_trip`: the median to its peers.
    #[must_use]
    pub fn reading(
        &self,
        scale: &Scale,
        standing: &Standing,
        round_trip: Option<Duration>,
    ) -> SecretReading {
        let micros = round_trip.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX));
        SecretReading(Reading {
            free: scale.free(&self.free),
            share: self.share,
            latency: LatencyClass::of_micros(micros),
            price: standing.price,
            priority: standing.priority,
        })
    }
}

/// A reading in clear: for the encryption and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretReading(Reading);

impl SecretReading {
    /// What to encrypt. Neither log it nor send it.
    #[must_use]
    pub const fn expose(&self) -> &Reading {
        &self.0
    }
}

impl fmt::Debug for SecretReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretReading(secret)")
    }
}

/// The system does not say how busy it is.
#[derive(Debug, thiserror::Error)]
#[error("this machine's load cannot be read: {0}; a worker needs Linux with /proc mounted")]
pub struct Unreadable(#[from] sysinfo::Error);

/// Samples one host, again and again.
pub struct Sampler {
    offer: Offer,
    /// Where the engine keeps containers.
    data: PathBuf,
    gpus: Gpus,
    system: System,
    process: Option<Pid>,
    read: CpuReading,
    /// Millicores that others use, smoothed.
    load: Option<u64>,
}

/// When the CPU was read, and how much the worker's containers had used by then.
struct CpuReading {
    at: Instant,
    containers: Option<Duration>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").field("offer", &self.offer).finish_non_exhaustive()
    }
}

impl Sampler {
    /// Takes a first reading of the CPU. `data` is the engine's
    /// [`data_root`](veil_node_containers::Docker::data_root).
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn new(offer: Offer, data: &Path) -> Result<Self, Unreadable> {
        let mut sampler = Self {
            offer,
            data: data.to_owned(),
            gpus: Gpus::open(),
            system: System::new()?,
            process: sysinfo::get_current_pid().ok(),
            read: CpuReading { at: Instant::now(), containers: None },
            load: None,
        };
        sampler.refresh();
        Ok(sampler)
    }

    /// What is free now. Right after [`Self::new`] it waits until the system's counters of CPU time
    /// have moved, a fifth of a second. While the engine is silent, nothing is free: it would start nothing.
    #[boxed]
    pub async fn sample(&mut self, held: &Held) -> Sample {
        if held.silence.is_some() {
            return Sample::default();
        }
        let next = self.read.at + MINIMUM_CPU_UPDATE_INTERVAL;
        if self.load.is_none() {
            sleep_until(next).await;
        }
        if Instant::now() >= next {
            self.read_load(held);
        }
        let cores = u64::try_from(self.system.cpus().len()).unwrap_or(0);
        let total = cores * 1000;
        let host = Host {
            cpu: Level { total, others: self.load.unwrap_or(total) },
            memory: Level {
                total: self.system.total_memory(),
                others: self
                    .system
                    .total_memory()
                    .saturating_sub(self.system.available_memory())
                    .saturating_sub(held.memory_bytes),
            },
            disk: self.disk(),
            gpus: self.gpus.usable(held),
        };
        let free = free(&self.offer, &host, &held.reserved);
        Sample { free, share: share(&self.offer, &host, &free) }
    }

    fn refresh(&mut self) {
        self.system.refresh_memory();
        self.system.refresh_cpu_usage();
        if let Some(pid) = self.process {
            let kind = ProcessRefreshKind::nothing().with_cpu();
            let this = ProcessesToUpdate::Some(&[pid]);
            self.system.refresh_processes_specifics(this, false, kind);
        }
        self.read.at = Instant::now();
    }

    fn read_load(&mut self, held: &Held) {
        let before = self.read.at;
        self.refresh();
        let cores = self.system.cpus().len() as f64;
        let total = f64::from(self.system.global_cpu_usage()) * cores * 10.0;
        let own = self.process.and_then(|pid| self.system.process(pid));
        let own = own.map_or(0.0, |process| f64::from(process.cpu_usage()) * 10.0);
        let elapsed = self.read.at.duration_since(before).as_secs_f64();
        // A container that has gone in between takes its time with it: no less than nothing.
        let used = held.cpu_time.saturating_sub(self.read.containers.unwrap_or(held.cpu_time));
        let containers = used.as_secs_f64() * 1000.0 / elapsed;
        self.read.containers = Some(held.cpu_time);
        let others = (total - own - containers).max(0.0) as u64; // millicores: no fraction matters
        self.load = Some(self.load.map_or(others, |load| u64::midpoint(load, others)));
    }

    /// The file system that `data` is on: nothing if it is none of this machine's.
    fn disk(&self) -> Level {
        let nothing = Level { total: 0, others: 0 };
        let kind = DiskRefreshKind::nothing().with_storage();
        let Ok(disks) = Disks::new_with_refreshed_list_specifics(kind) else { return nothing };
        let on_it = disks.iter().filter(|disk| self.data.starts_with(disk.mount_point()));
        on_it.max_by_key(|disk| disk.mount_point().as_os_str().len()).map_or(nothing, |disk| {
            let total = disk.total_space();
            Level { total, others: total.saturating_sub(disk.available_space()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use veil_node_config::offer::{CpuMeasure, Kept};
    use veil_node_containers::DockerError;
    use veil_protocol_spec::scheduling::{CpuUnits, MemoryUnits};

    use super::*;

    const ALL: Offer = Offer {
        cpu_millicores: u64::MAX,
        memory_bytes: u64::MAX,
        disk_bytes: u64::MAX,
        gpus: u64::MAX,
        reserve: Kept { cpu_millicores: 0, memory_bytes: 0, disk_bytes: 0 },
        cpu_measure: CpuMeasure::Load,
    };

    #[tokio::test]
    async fn a_sample_of_this_machine_is_within_what_it_has() {
        let mut sampler = Sampler::new(ALL, Path::new("/")).unwrap();
        for _ in 0..2 {
            let sample = sampler.sample(&Held::default()).await;
            let Resources { cpu, memory, disk, gpu } = *sample.expose();
            let cores = sampler.system.cpus().len() as u64;
            assert!(cores > 0 && cpu <= CpuUnits::within(cores * 1000));
            assert!(memory > MemoryUnits(0));
            assert!(memory <= MemoryUnits::within(sampler.system.total_memory()));
            assert!(disk.amount() <= sampler.disk().total);
            assert_eq!(u64::from(gpu.0), sampler.gpus.usable(&Held::default()));
        }
    }

    #[tokio::test]
    async fn while_the_engine_is_silent_nothing_is_free() {
        let mut sampler = Sampler::new(ALL, Path::new("/")).unwrap();
        let deadline = Duration::from_secs(15);
        let silence = Arc::new(DockerError::Timeout { call: "list", deadline });
        let held = Held { silence: Some(silence), ..Held::default() };
        assert_eq!(*sampler.sample(&held).await.expose(), Resources::default());
        assert_ne!(*sampler.sample(&Held::default()).await.expose(), Resources::default());
    }

    #[tokio::test]
    async fn by_reservations_all_cores_less_the_reserved_are_free() {
        let offer = Offer { cpu_measure: CpuMeasure::Reservations, ..ALL };
        let mut sampler = Sampler::new(offer, Path::new("/")).unwrap();
        let mut held = Held::default();
        held.reserved.cpu = CpuUnits(3);
        let sample = sampler.sample(&held).await;
        let cores = sampler.system.cpus().len() as u64;
        assert_eq!(sample.expose().cpu, CpuUnits::within(cores * 1000 - 300));
    }

    #[tokio::test]
    async fn a_path_on_no_file_system_has_no_disk() {
        let mut sampler = Sampler::new(ALL, Path::new("elsewhere")).unwrap();
        assert_eq!(sampler.sample(&Held::default()).await.expose().disk.0, 0);
    }

    #[tokio::test]
    async fn printing_shows_no_figure() {
        let mut sampler = Sampler::new(ALL, Path::new("/")).unwrap();
        let sample = sampler.sample(&Held::default()).await;
        assert_eq!(format!("{sample:?}"), "Sample(secret)");
        let reading = sample.reading(&Scale::default(), &Standing::default(), None);
        assert_eq!(format!("{reading:?}"), "SecretReading(secret)");
        assert_eq!(reading.expose().latency, LatencyClass::of_micros(None));
        let shown = format!("{sampler:?}");
        assert!(!shown.contains("load") && !shown.contains("system"), "{shown}");
    }
}
