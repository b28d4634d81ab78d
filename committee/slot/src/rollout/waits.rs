//! Why replicas of versions have no place.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{ClusterState, Line, RolloutChanges, RolloutPhase},
};

use super::replicas::LineReplicas;

/// Why a replica of a job that is a version has no place, by what versions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum VersionWait {
    /// It needs none: another version is wanted, or has the replica.
    #[error("another version of it is wanted")]
    NotWanted,
    /// No certificate says yet that it is a version.
    #[error("it is an update: the next slot notes its version")]
    Unnoted,
    /// Others of its version come first.
    #[error(
        "waits for version {number}'s health: {unproven} of its replicas have a place and are not certified to be \
         healthy, and its update allows {most} at once"
    )]
    Health { number: u32, unproven: usize, most: u16 },
    /// The one before runs, and both cannot run at once.
    #[error("waits for the replica of the version before to leave: both cannot run at once")]
    Leaves,
    /// Its version has failed.
    #[error(
        "version {number} has failed and does not revert: submit another one, or the one before again with \
         `veil job revert`"
    )]
    Failed { number: u32 },
}

/// Why a replica without a place waits, if it is for other versions; `lines` are [those of the
/// state](ClusterState::lines_by_job), `next` is what the next manifest lists.
#[must_use]
pub fn waits_for(
    state: &ClusterState,
    lines: &BTreeMap<Blake3Digest, &Line>,
    next: &RolloutChanges,
    job: Blake3Digest,
    replica: ReplicaIndex,
) -> Option<VersionWait> {
    let Some(line) = lines.get(&job) else {
        let is_new = next.versions.iter().any(|version| version.job == job);
        return is_new.then_some(VersionWait::Unnoted);
    };
    let target = line.target()?;
    let of = LineReplicas::new(state, line, target);
    if target.job != job || of.current.contains_key(&replica) {
        return Some(VersionWait::NotWanted);
    }
    let number = target.number;
    match line.phase() {
        RolloutPhase::Halted => Some(VersionWait::Failed { number }),
        RolloutPhase::Rolling if target.terms.rolls && of.budget() == 0 => {
            let (unproven, most) = (of.unproven, target.terms.max_parallel);
            Some(VersionWait::Health { number, unproven, most })
        }
        RolloutPhase::Rolling if target.terms.stops_first && of.others.contains_key(&replica) => {
            Some(VersionWait::Leaves)
        }
        _ => None,
    }
}
