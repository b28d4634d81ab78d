//! Replicas of batch jobs whose runs are over.
//!
//! # Flow
//! 1. A batch replica *ends* on its worker: with exit code 0, or for good with another one. The worker says so
//!    in its telemetry until a certificate says it too.
//! 2. A manifest that names the telemetry lists the replica as *done*. With the slot's certificate its room is
//!    free, and it never gets a place again.

use serde::{Deserialize, Serialize};

use crate::ids::{Blake3Digest, ReplicaIndex};

/// How the last run of a replica ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaExit {
    /// 0 for success; 128 + n for signal n; `None` if nobody saw it.
    pub code: Option<i32>,
    /// Whether the kernel ended it because it wanted more memory than it had asked for.
    pub out_of_memory: bool,
}

impl ReplicaExit {
    /// Whether the replica has done what it was for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A replica of a batch job that has ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedReplica {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// How its last run ended.
    pub exit: ReplicaExit,
}

impl EndedReplica {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 32 + 3 + (1 + 5) + 1;

    /// What lists of it are ordered by.
    #[must_use]
    pub const fn key(&self) -> (Blake3Digest, ReplicaIndex) {
        (self.job, self.replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    #[test]
    fn the_longest_one_is_as_long_as_lists_count_on() {
        let exit = ReplicaExit { code: Some(i32::MIN), out_of_memory: true };
        let (job, replica) = (Blake3Digest([9; 32]), ReplicaIndex(u16::MAX));
        let longest = encode(&EndedReplica { job, replica, exit });
        assert_eq!(longest.len(), EndedReplica::MAX_BYTES);
    }

    #[test]
    fn only_an_exit_with_code_0_is_a_success() {
        let exit = |code| ReplicaExit { code, out_of_memory: false };
        assert!(exit(Some(0)).is_success());
        assert!(!exit(Some(1)).is_success() && !exit(None).is_success());
    }
}
