//! What a worker's file says of its own.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use veil_protocol_spec::scheduling::{PriceClass, WorkerPriority};

use crate::offer::{CpuMeasure, Kept, Offer, Standing};

/// `[worker.offer]`: the most a worker offers; the host's own capacity where nothing is said.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfferSection {
    /// CPU time in thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// Memory.
    pub memory_mib: Option<u64>,
    /// Disk.
    pub disk_gib: Option<u64>,
    /// What is never lent, in thousandths of a core.
    pub reserve_cpu_millicores: Option<u64>,
    /// Memory that is never lent.
    pub reserve_memory_mib: Option<u64>,
    /// Disk that is never lent.
    pub reserve_disk_gib: Option<u64>,
    /// GPUs.
    pub gpus: Option<u64>,
    /// Whether CPU that others use counts as free.
    pub cpu_measure: CpuMeasure,
    /// What is taken for it: 0 is cheapest. Sent encrypted.
    pub price: PriceClass,
    /// How much it wants to be used: 3 first. Sent encrypted.
    pub priority: WorkerPriority,
}

impl OfferSection {
    /// In the sampler's units.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let (all, kept) = (Offer::default(), Kept::default());
        let mib = |given: Option<u64>, other| given.map_or(other, |n| n.saturating_mul(1 << 20));
        let gib = |given: Option<u64>, other| given.map_or(other, |n| n.saturating_mul(1 << 30));
        Offer {
            cpu_millicores: self.cpu_millicores.unwrap_or(all.cpu_millicores),
            memory_bytes: mib(self.memory_mib, all.memory_bytes),
            disk_bytes: gib(self.disk_gib, all.disk_bytes),
            gpus: self.gpus.unwrap_or(all.gpus),
            reserve: Kept {
                cpu_millicores: self.reserve_cpu_millicores.unwrap_or(kept.cpu_millicores),
                memory_bytes: mib(self.reserve_memory_mib, kept.memory_bytes),
                disk_bytes: gib(self.reserve_disk_gib, kept.disk_bytes),
            },
            cpu_measure: self.cpu_measure,
        }
    }

    /// What the operator says of the worker.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        Standing { price: self.price, priority: self.priority }
    }
}

/// `[worker]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSection {
    /// The Docker engine's socket.
    pub docker_socket: PathBuf,
    /// The key set, if it was brought by hand.
    pub key_set: Option<PathBuf>,
    /// Between two telemetry messages.
    pub telemetry_interval_seconds: u64,
    /// Hold no evaluation key, and audit nothing. The registration must say so too.
    pub light: bool,
    /// Prove under a reference string made by one party.
    pub insecure_reference_string: bool,
    /// The most it offers.
    pub offer: OfferSection,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            key_set: None,
            telemetry_interval_seconds: 30,
            light: false,
            insecure_reference_string: false,
            offer: OfferSection::default(),
        }
    }
}

impl WorkerSection {
    /// Between two telemetry messages.
    #[must_use]
    pub const fn telemetry_interval(&self) -> Duration {
        Duration::from_secs(self.telemetry_interval_seconds)
    }
}
