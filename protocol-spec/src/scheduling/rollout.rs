//! What a manifest says of versions of jobs: which are new, and how those fare that take the place of others.
//!
//! # Flow
//! 1. A second job of one operator and name is known: a manifest lists both as [versions](NewVersion). From then
//!    on the [state](super::ClusterState::line) says which one is wanted.
//! 2. Replicas of the wanted version get places, a few at a time. The worker of each says in its telemetry that
//!    it is [healthy](ReplicaHealth), or will not be, until a certificate says it too.
//! 3. A manifest that names the telemetry lists that. What is healthy makes the replica before leave; what is not
//!    makes the version fail.
//!
//! The rules are in `slot.md`, "Updates".

use serde::{Deserialize, Serialize};
use veil_protocol_spec_job::version::VersionTerms;

use crate::ids::{Address, Blake3Digest, JobLine, ReplicaIndex};

/// Most versions that are new in one slot; the others follow.
pub const MAX_NEW_VERSIONS: usize = 128;
/// Most lines that are forgotten in one slot; the others follow.
pub const MAX_FORGOTTEN_LINES: usize = 128;
/// Most versions of which one slot says that they are withdrawn; the others follow.
pub const MAX_WITHDRAWN: usize = 128;
/// Most replicas of which one slot says how they fare; the others follow.
pub const MAX_HEALTH: usize = 512;

/// One job that is from now on a version of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// Position of the job in the chain's order of submissions.
    pub submission: u64,
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Who submitted it.
    pub operator: Address,
    /// [`JobSpec::line`](super::JobSpec::line).
    pub line: JobLine,
    /// [`JobSpec::template`](super::JobSpec::template).
    pub template: Blake3Digest,
    /// [`JobSpec::terms`](super::JobSpec::terms).
    pub terms: VersionTerms,
}

impl NewVersion {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 10 + 32 + 20 + 32 + 32 + VersionTerms::MAX_BYTES;
}

/// How a replica fares that was placed in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaHealth {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// Whether it was healthy for as long as its job asks for; else it was not in time, or has ended for good.
    pub healthy: bool,
}

impl ReplicaHealth {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 32 + 3 + 1;

    /// What lists of it are ordered by.
    #[must_use]
    pub const fn key(&self) -> (Blake3Digest, ReplicaIndex) {
        (self.job, self.replica)
    }
}

/// What a manifest says of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutChanges {
    /// By submission in strictly ascending order.
    pub versions: Vec<NewVersion>,
    /// Replicas that have a place and were placed in an update, by the telemetry of their workers: by (job,
    /// replica) in strictly ascending order.
    pub health: Vec<ReplicaHealth>,
    /// Lines of which every version is withdrawn, in strictly ascending order.
    pub forgotten: Vec<JobLine>,
    /// Versions that were healthy, and could come back but that their submission is withdrawn, and not that of the
    /// newest of their line: in strictly ascending order.
    pub withdrawn: Vec<Blake3Digest>,
}

impl RolloutChanges {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 12
        + MAX_NEW_VERSIONS * NewVersion::MAX_BYTES
        + MAX_HEALTH * ReplicaHealth::MAX_BYTES
        + MAX_FORGOTTEN_LINES * 32
        + MAX_WITHDRAWN * 32;

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { versions, health, forgotten, withdrawn } = self;
        versions.is_empty() && health.is_empty() && forgotten.is_empty() && withdrawn.is_empty()
    }
}
