//! What is wrong with a manifest.

use veil_protocol_spec::{Blake3Digest, ParticipantIndex, PeerIdHash, scheduling::ManifestError};
use veil_scheduler_plan::inputs::PlanError;

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Its structure.
    #[error(transparent)]
    Structure(#[from] ManifestError),
    /// Something that follows from what everybody knows.
    #[error("it names another {0} than this member knows")]
    Differs(&'static str),
    /// A suspicion that does not verify.
    #[error("member {member} did not sign that worker {worker} is lost")]
    Suspicion {
        /// The worker.
        worker: PeerIdHash,
        /// The supposed signer.
        member: ParticipantIndex,
    },
    /// A block that is not settled here, or no longer, or earlier than the last manifest's.
    #[error("block {block} is not among blocks {first} to {last}, which it may name")]
    Block {
        /// The manifest's.
        block: u64,
        /// Not before the last manifest's, and not too old.
        first: u64,
        /// The last settled one here.
        last: u64,
    },
    /// More workers than the policy lets a slot consider.
    #[error("it lists {found} workers, and the policy allows {most}")]
    TooManyWorkers {
        /// Listed.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// More than the slot's bound on its cost lets it ask.
    #[error("its pending replicas ask {found} candidates together; a slot asks {most}")]
    TooCostly {
        /// By the manifest.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// More replicas of a new version than may have a place before they are healthy.
    #[error(
        "{found} replicas of job {job} would have a place and not be certified to be healthy; its update allows \
         {most} at once"
    )]
    TooManyAtOnce {
        /// The new version.
        job: Blake3Digest,
        /// How many they would be.
        found: usize,
        /// Its `max_parallel`.
        most: usize,
    },
    /// Neither a candidate nor lost, and not outranked.
    #[error("it leaves out worker {0}, whose fresh telemetry this member has")]
    LeftOut(PeerIdHash),
    /// Telemetry that does not count.
    #[error("the telemetry of worker {worker} does not count: {reason}")]
    Telemetry {
        /// The worker.
        worker: PeerIdHash,
        /// Why.
        reason: &'static str,
    },
    /// Locked, it could not be evaluated.
    #[error("it cannot be evaluated: {0}")]
    Unplannable(#[from] PlanError),
    /// Something this member would have to know to validate it.
    #[error("this member could not get {0}")]
    Unknown(String),
}
