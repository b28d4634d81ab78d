//! Storage of a job's replicas.

use serde::{Deserialize, Serialize};

use crate::{
    container::{ContainerPath, Mebibytes},
    names::Name,
};

/// What becomes of a replica whose volume is lost with its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// It waits for the volume.
    #[default]
    Pending,
    /// It starts elsewhere with an empty one.
    Empty,
}

/// What a volume is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VolumeKind {
    /// A folder that workers offer under the volume's name. The replica stays where it is.
    Host {
        /// What becomes of the replica if the volume is lost.
        on_loss: OnLoss,
    },
    /// An empty folder on the worker's disk, which goes with the replica.
    Ephemeral {
        /// How much fits in; part of the disk that the job asks for.
        size: Mebibytes,
    },
    /// An empty folder in memory, which goes with the container.
    Tmpfs {
        /// How much fits in; part of the memory that the job asks for.
        size: Mebibytes,
    },
}

/// A volume of each replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// What it is called; of a host volume, what workers offer it as.
    pub name: Name,
    /// Where the container has it.
    pub mount: ContainerPath,
    /// What it is made of.
    pub kind: VolumeKind,
    /// Whether the container can only read it.
    pub read_only: bool,
}
