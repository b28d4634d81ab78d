//! A submission as the chain orders it, which states bits, and what tells them: how many workers a try asks.

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, PendingReplica};
use crate::ids::{Address, Blake3Digest};

/// Blocks of the chain after which what was told about a job's surroundings is counted anew.
pub const LEAK_WINDOW_BLOCKS: u64 = 7_200;

/// One submission as the chain orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Position in the chain's order.
    pub position: u64,
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Who submitted it.
    pub operator: Address,
    /// Bits that the placement of its replicas may tell about others' load, within
    /// [`LEAK_WINDOW_BLOCKS`].
    pub leak_bits: u32,
    /// Whether the operator has withdrawn it.
    pub cancelled: bool,
}

impl Manifest {
    /// How many workers the try of a pending replica asks at most, and tells of.
    #[must_use]
    pub fn asked(&self, pending: &PendingReplica) -> usize {
        let most = if pending.only.is_some() { 1 } else { pending.candidates.into() };
        self.telemetry.len().min(most)
    }
}
