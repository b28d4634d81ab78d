//! What a worker offers, as people write it.

use serde::Deserialize;

use crate::telemetry::{CpuMeasure, Kept, Offer};

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
    /// Whether CPU that others use counts as free.
    pub cpu_measure: CpuMeasure,
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
            reserve: Kept {
                cpu_millicores: self.reserve_cpu_millicores.unwrap_or(kept.cpu_millicores),
                memory_bytes: mib(self.reserve_memory_mib, kept.memory_bytes),
                disk_bytes: gib(self.reserve_disk_gib, kept.disk_bytes),
            },
            cpu_measure: self.cpu_measure,
        }
    }
}
