//! Why a manifest was not evaluated.

use veil_node_chain::ChainError;
use veil_node_process::evaluation_pool::NoThreads;
use veil_node_proven::{request::RequestRefusal, weights::WeightsRefusal};
use veil_node_storage::inputs::InputsError;
use veil_protocol_spec::{Blake3Digest, PeerIdHash, scheduling::PolicyError};
use veil_scheduler::EvaluateError;
use veil_scheduler_plan::outcome::DecodeError;

use crate::epoch::TelemetryRefusal;

/// Why a manifest was not evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The registry as of the manifest's block.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A body that nobody has.
    #[error(
        "no peer has the body of job {0}, which the manifest lists as pending, or which keeps the data of one"
    )]
    NoJob(Blake3Digest),
    /// A message that nobody has.
    #[error("no peer has telemetry {digest} of {sender}, which the manifest names")]
    NoTelemetry {
        /// Whose.
        sender: PeerIdHash,
        /// Which.
        digest: Blake3Digest,
    },
    /// Its proof does not hold: more than t members have locked something they did not verify.
    #[error("the manifest names telemetry that must not be computed on: {0}")]
    Telemetry(#[from] TelemetryRefusal),
    /// The policy is not of this build's form.
    #[error("the cluster's policy: {0}; `veil chain policy set` replaces it")]
    Policy(#[from] PolicyError),
    /// A state that this node does not have.
    #[error("the certificate that the manifest builds on is not here yet")]
    Behind,
    /// There is no evaluation key.
    #[error("this node is a light worker: it evaluates nothing")]
    Light,
    /// What was kept for it.
    #[error(transparent)]
    Kept(#[from] InputsError),
    /// Only a member has where to.
    #[error("this node is no member: it keeps no inputs, and votes for no manifest")]
    KeepsNone,
    /// Its proof does not hold: more than t members have locked something they did not verify.
    #[error("the manifest lists a job that must not be computed on: {0}")]
    Request(#[from] RequestRefusal),
    /// A job is placed by cost, and there is nothing to place it by.
    #[error(transparent)]
    Weights(#[from] WeightsRefusal),
    /// The circuit.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// How the slot has ended is nothing that its manifest can come to.
    #[error(transparent)]
    Outcome(#[from] DecodeError),
    /// There is nothing to run it on.
    #[error(transparent)]
    Threads(#[from] NoThreads),
    /// The runtime is shutting down.
    #[error("the evaluation was cut off")]
    Stopped,
}
