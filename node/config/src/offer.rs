//! What a worker lends to the cluster, and what its operator says of it.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::scheduling::{PriceClass, WorkerPriority};

/// The most that a worker's operator lends to the cluster. The default is all but a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offer {
    /// CPU in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes, of the file system that the engine keeps containers on.
    pub disk_bytes: u64,
    /// GPUs, whole devices.
    pub gpus: u64,
    /// What is never lent.
    pub reserve: Kept,
    /// Whether CPU that others use counts.
    pub cpu_measure: CpuMeasure,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            cpu_millicores: u64::MAX,
            memory_bytes: u64::MAX,
            disk_bytes: u64::MAX,
            gpus: u64::MAX,
            reserve: Kept::default(),
            cpu_measure: CpuMeasure::default(),
        }
    }
}

/// What the host keeps for itself and for Veil's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kept {
    /// CPU in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes.
    pub disk_bytes: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { cpu_millicores: 200, memory_bytes: 512 << 20, disk_bytes: 5 << 30 }
    }
}

/// How free CPU is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuMeasure {
    /// What others use is not free.
    #[default]
    Load,
    /// Only what is reserved is not free. For machines whose other work gives way, such as a
    /// cluster on one machine whose members and workers compete for its cores while they compute.
    Reservations,
}

/// What a worker's operator says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is taken for it.
    pub price: PriceClass,
    /// How much it wants to be used.
    pub priority: WorkerPriority,
}
