//! What a member stores of a manifest's inputs before it precommits to it, so that after the lock nothing
//! needs the chain, the memory of peers, or luck.
//!
//! # Flow
//! The bundle is stored under the manifest's digest, with the bodies of the pending jobs and the telemetry
//! that the manifest lists, each under its own digest. Evaluating the locked manifest, before or after a
//! restart, and auditing it later read nothing else.
//!
//! # Caveats
//! Labels and organisations are what this member's chain endpoint says: no digest commits to them. So a bundle is for its
//! owner; peers are given the bodies and the telemetry, which their digests prove.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Wire,
    ids::{Address, Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
    scheduling::{ClusterPolicy, Draw, Label, Organisation, RunningReplica},
};

/// A pending replica and a worker: where it had its last place, or gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousPlace {
    /// [`JobSpec::digest`](crate::scheduling::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// The worker.
    pub worker: PeerIdHash,
}

/// What the chain says of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerLabels {
    /// Whose.
    pub worker: PeerIdHash,
    /// As of the manifest's block.
    pub labels: Vec<Label>,
    /// The organisation that the chain names as of that block; `None` if nobody vouches for it.
    pub organisation: Option<Organisation>,
}

/// The organisations of an account that has submitted a pending job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitterOrganisations {
    /// The account.
    pub account: Address,
    /// Those of the nodes that it has registered, as of the manifest's block: strictly ascending, not empty.
    pub organisations: Vec<Organisation>,
}

/// What is public besides a manifest and what it names by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputBundle {
    /// The manifest's slot.
    pub slot: Slot,
    /// The manifest's digest.
    pub manifest: Blake3Digest,
    /// The policy that the manifest names.
    pub policy: ClusterPolicy,
    /// Of the workers that matter: candidates, and those that run what is pending.
    pub labels: Vec<WorkerLabels>,
    /// Workers that are given nothing more, as of the manifest's block.
    pub closed: Vec<PeerIdHash>,
    /// What runs of the pending jobs, and stays.
    pub running: Vec<RunningReplica>,
    /// Where the pending replicas had their places.
    pub previous: Vec<PreviousPlace>,
    /// Hash of the last certificate that is not void.
    pub seed: KeccakDigest,
    /// Its slot.
    pub last_decided: Slot,
    /// [`ClusterState::draw`](crate::scheduling::ClusterState::draw) of the state that the manifest builds
    /// on.
    pub draw: Draw,
    /// By account in strictly ascending order.
    pub submitters: Vec<SubmitterOrganisations>,
    /// Workers that get a pending replica not, since they gave it back.
    pub barred: Vec<PreviousPlace>,
    /// [`ClusterState::late`](crate::scheduling::ClusterState::late) of that state.
    pub late: Vec<PeerIdHash>,
}

impl Wire for InputBundle {
    const NAME: &'static str = "InputBundle";
    // Version 1 knew no workers that are given nothing more, version 2 no organisations and none that gave
    // replicas back, version 3 no samples.
    const VERSION: u8 = 4;
    // Labels are the most of it: those of 9,216 workers with some of the longest.
    const MAX_BYTES: usize = 32 << 20;
    // Never hashed, and large.
    const CHECK_CANONICAL: bool = false;
}
