//! A submission as the chain orders it, and the bits that it states.

use serde::{Deserialize, Serialize};

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

/// Bits that the answer to one replica in one slot can tell: a worker out of that many, or none.
#[must_use]
pub const fn bits_of_try(workers: usize) -> u32 {
    usize::BITS - workers.leading_zeros()
}

/// Bits that the answer to one replica can tell that is for one worker: whether that has room.
pub const BITS_OF_ONE_WORKER: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_worker_or_none() {
        // ceil(log2(workers + 1))
        for (workers, bits) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (1023, 10)]
        {
            assert_eq!(bits_of_try(workers), bits, "{workers} workers");
        }
    }
}
