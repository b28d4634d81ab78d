//! Why something does not continue the state.

use super::{MAX_DONE, MAX_RETURNED, RolloutError, RunError};
use crate::{
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
    scheduling::{certificate::ChainError, manifest::MAX_RUNNING},
};

/// Why a manifest, its outcome or its certificate does not continue the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum StateError {
    /// The slot is not after the last certified one.
    #[error("slot {slot} is not after slot {last}, the last one certified")]
    Slot { slot: Slot, last: Slot },
    /// The manifest builds on another certificate.
    #[error("the manifest builds on certificate {found}, the last one here is {expected}")]
    Previous { found: KeccakDigest, expected: KeccakDigest },
    /// A replica that the manifest lists as leaving or done has no place.
    #[error("replica {replica} of job {job} has no place that it could leave")]
    NotRunning { job: Blake3Digest, replica: ReplicaIndex },
    /// A replica that is done is listed as pending.
    #[error("replica {replica} of job {job} is done, and gets no place again")]
    Done { job: Blake3Digest, replica: ReplicaIndex },
    /// More replicas would be done than a cluster remembers.
    #[error("{0} replicas would be done: at most {MAX_DONE} are remembered")]
    TooManyDone(usize),
    /// More replicas would be remembered as given back than a cluster does.
    #[error("{0} replicas would be remembered as given back: at most {MAX_RETURNED}")]
    TooManyReturned(usize),
    /// What the manifest says of versions.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// What the manifest says of periodic jobs.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is not one assignment for each pending replica.
    #[error("the assignments are not those of the manifest's pending replicas")]
    Assignments,
    /// A replica is assigned to a worker whose telemetry the manifest does not list, or for which it is not.
    #[error("worker {0} is assigned a replica but is no candidate of this slot")]
    NotCandidate(PeerIdHash),
    /// More replicas would run than a cluster may have.
    #[error("{0} replicas would run: at most {MAX_RUNNING}")]
    TooManyRunning(usize),
    /// The certificate is of another chain of certificates, or out of order.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The certificate carries the root of another state.
    #[error("the certificate's state root is {found}, this slot gives {expected}")]
    Root { found: KeccakDigest, expected: KeccakDigest },
}
