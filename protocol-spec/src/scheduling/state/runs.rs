//! When periodic jobs were run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ClusterState, Done, Placement, StateError};
use crate::{
    ids::{Blake3Digest, ReplicaIndex, Slot},
    scheduling::{
        manifest::Manifest,
        runs::{RunChange, RunStep},
    },
};

/// Most periodic jobs of which a cluster remembers the times. Others do not begin.
pub const MAX_PERIODIC: usize = 1024;
/// Most of them that one operator has.
pub const MAX_PERIODIC_OF_OPERATOR: usize = MAX_PERIODIC / 4;

/// The last run of a periodic job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The time at which it was to begin, in Unix seconds.
    pub time: u64,
    /// The slot whose certificate says that it begins.
    pub slot: Slot,
}

/// What a cluster remembers of a periodic job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// The last of its times that was decided on, in Unix seconds: only later ones count.
    pub time: u64,
    /// Its last run; `None` before the first.
    pub last: Option<Run>,
    /// Whether a run was left out since.
    pub left_out: bool,
}

impl Runs {
    /// Most bytes that one takes in the encoding of a state, with its job.
    pub(super) const MAX_ENTRY_BYTES: usize = 32 + 10 + (1 + 10 + 10) + 1;
}

/// Why what a manifest says of periodic jobs does not continue the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RunError {
    /// It is known already.
    #[error("periodic job {0} is noted twice")]
    Known(Blake3Digest),
    /// It was not noted.
    #[error("periodic job {0} was never noted")]
    Unknown(Blake3Digest),
    /// The time was decided on before.
    #[error("a run of job {job} at {time} is not later than {last}, which was decided on before")]
    Time { job: Blake3Digest, time: u64, last: u64 },
    /// A run begins while replicas of the last one have a place.
    #[error("a run of job {0} begins while a replica of the last one has its place")]
    UnderWay(Blake3Digest),
    /// A replica is pending whose run begins in the same slot.
    #[error("a replica of job {0} is pending in the slot in which its run begins")]
    Pending(Blake3Digest),
    /// There are too many.
    #[error("{0} periodic jobs: at most {MAX_PERIODIC} are remembered")]
    TooMany(usize),
}

type ByReplica<T> = BTreeMap<(Blake3Digest, ReplicaIndex), T>;

impl ClusterState {
    /// What is remembered of a periodic job, once it is noted.
    #[must_use]
    pub fn runs_of(&self, job: &Blake3Digest) -> Option<Runs> {
        self.runs.get(job).copied()
    }

    /// The periodic jobs that are noted, in order.
    pub fn periodic(&self) -> impl Iterator<Item = (Blake3Digest, Runs)> + '_ {
        self.runs.iter().map(|(job, runs)| (*job, *runs))
    }

    /// What is remembered after a slot. Of a run that begins, `done` forgets the one before; `replicas` are those
    /// that have a place when what leaves has left.
    pub(super) fn runs_after(
        &self,
        manifest: &Manifest,
        slot: Slot,
        replicas: &ByReplica<Placement>,
        done: &mut ByReplica<Done>,
    ) -> Result<BTreeMap<Blake3Digest, Runs>, StateError> {
        let mut runs = self.runs.clone();
        let mut begun = BTreeSet::new();
        for &RunChange { job, step } in &manifest.runs {
            if let RunStep::Noted { time } = step {
                let new = Runs { time, last: None, left_out: false };
                if runs.insert(job, new).is_some() {
                    return Err(RunError::Known(job).into());
                }
                continue;
            }
            let known = runs.get_mut(&job).ok_or(RunError::Unknown(job))?;
            match step {
                RunStep::Noted { .. } => {}
                RunStep::Forgotten => _ = runs.remove(&job),
                RunStep::Begins { time } | RunStep::LeftOut { time } => {
                    if time <= known.time {
                        return Err(RunError::Time { job, time, last: known.time }.into());
                    }
                    known.time = time;
                    known.left_out = matches!(step, RunStep::LeftOut { .. });
                    if !known.left_out {
                        known.last = Some(Run { time, slot });
                        begun.insert(job);
                    }
                }
            }
        }
        if runs.len() > MAX_PERIODIC {
            return Err(RunError::TooMany(runs.len()).into());
        }
        if let Some((job, _)) = replicas.keys().find(|(job, _)| begun.contains(job)) {
            return Err(RunError::UnderWay(*job).into());
        }
        if let Some(pending) = manifest.pending.iter().find(|of| begun.contains(&of.job)) {
            return Err(RunError::Pending(pending.job).into());
        }
        done.retain(|(job, _), _| !begun.contains(job));
        Ok(runs)
    }
}
