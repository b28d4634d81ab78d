//! What a manifest says of the times of periodic jobs.
//!
//! # Flow
//! 1. A periodic job is wanted that the state does not know yet: a manifest *notes* it. Its times up to then are
//!    over.
//! 2. One of its times has come, by the clock of the manifest's block: a run *begins*, or is *left out*. Of several
//!    times that have come since the last slot, the last one counts.
//! 3. Nobody wants the job any more: it is *forgotten*.
//!
//! The rules are in `slot.md`, "Periodic jobs".

use serde::{Deserialize, Serialize};

use crate::ids::Blake3Digest;

/// Most periodic jobs of which one slot says something; the others follow.
pub const MAX_RUN_CHANGES: usize = 256;

/// What becomes of a periodic job in a slot. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RunStep {
    /// From now on its times count that are later than this one, its last.
    Noted {
        /// Its last time up to the manifest's block; 0 if there was none.
        time: u64,
    },
    /// All of its replicas run anew.
    Begins {
        /// The time at which it was to.
        time: u64,
    },
    /// The last run is under way, and the job asks that the next be left out.
    LeftOut {
        /// The time at which it was to begin.
        time: u64,
    },
    /// Nobody wants it any more.
    Forgotten,
}

impl RunStep {
    /// The time that is decided on.
    #[must_use]
    pub const fn time(self) -> Option<u64> {
        match self {
            Self::Noted { time } | Self::Begins { time } | Self::LeftOut { time } => Some(time),
            Self::Forgotten => None,
        }
    }
}

/// What becomes of one periodic job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunChange {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// What becomes of it.
    pub step: RunStep,
}

impl RunChange {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 32 + 1 + 10;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    #[test]
    fn the_longest_one_is_as_long_as_lists_count_on() {
        let step = RunStep::LeftOut { time: u64::MAX };
        let longest = encode(&RunChange { job: Blake3Digest([9; 32]), step });
        assert_eq!(longest.len(), RunChange::MAX_BYTES);
    }
}
