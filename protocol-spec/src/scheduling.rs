//! What a slot is made of: [`Telemetry`] and [`JobSpec`] go in, a [`Manifest`] fixes them, an
//! [`AssignmentCertificate`] comes out.
//!
//! # Roles
//! A worker sends telemetry; an operator submits jobs; the slot's proposer, a committee member,
//! writes the manifest; 2t+1 members sign the certificate; every worker verifies and enforces it.
//!
//! # Encodings and digests
//! Every message is [`Wire`](crate::Wire): a version byte, then postcard, size-limited and
//! canonical. What only Veil checks is hashed with BLAKE3 under a separator of [`crate::domain`];
//! what the chain checks is Keccak-256 over 32-byte words laid out as Solidity's `abi.encode`
//! does.
//!
//! | type | digest | signed by |
//! |---|---|---|
//! | [`Telemetry`] | BLAKE3 of [`TelemetryBody`] | the worker's identity |
//! | [`JobSpec`] | BLAKE3 | the transaction that submits the digest |
//! | [`ClusterPolicy`] | Keccak-256 of the bytes on chain | the transaction that sets it |
//! | [`EncryptedWeights`] | BLAKE3 | the policy that names it |
//! | [`Manifest`] | BLAKE3 | 2t+1 members, by the agreement that locks it |
//! | [`EvaluationReport`] | BLAKE3 of [`EvaluationBody`] | the evaluator's identity |
//! | [`CertificateBody`] | Keccak-256 | the committee's FROST key |
//! | [`CertificateVote`] | EIP-712 | each member's identity |
//!
//! [`ClusterState`] is what the certificates add up to; a [`SlotRecord`] is everything that a node
//! needs to catch up on one slot.
//!
//! # Two levels of checking
//! Decoding alone gives a well-formed value (sizes, canonical form, valid names and references).
//! `parse` decodes and then applies the rules that span fields; use it for whatever comes from
//! outside. Neither needs a clock, the chain or a key set: the caller, which has those, checks
//! freshness, membership, signatures by the committee and proofs.
//!
//! # Caveats
//! Everything here is public: it travels by gossip, and its digests end on chain. Load is only in
//! the ciphertexts of [`ProvenList`].

#[cfg(test)]
pub(crate) mod arbitrary;
mod assignment;
mod certificate;
mod ended;
mod given_back;
mod image_tree;
mod leaf;
mod manifest;
mod policy;
mod profile;
mod record;
mod report;
mod rollout;
mod runs;
mod state;
mod submission;
mod suspicion;
mod telemetry;
mod vote;

use veil_protocol_spec_base::binding;
pub(crate) use veil_protocol_spec_base::{abi, merkle};
use veil_protocol_spec_job::{labels, proven, quantities, resources};

pub use veil_protocol_spec_job::{
    container::{
        Capability, CapabilityChange, ContainerPath, ContainerSettings, InvalidContainerPath,
        InvalidUser, Mebibytes, StopSignal, Tmpfs, Ulimit, UlimitKind, User,
    },
    contents::{
        ContentsError, FileMode, InvalidFileMode, RegistryCredentials, SealedArguments,
        SealedContents, SealedFile, SealedVariable,
    },
    image::{ImageError, ImageReference, ImageTag, TaggedImage},
    job::{
        AntiAffinity, Constraints, FailureDomain, JobSpec, Organisations, Priority,
        SchedulingPolicy, Sealed, Strength,
    },
    kind::{Cron, CronError, InvalidTimeZone, JobType, Overlap, TimeZone},
    lifecycle::{
        HealthCheck, HealthProbe, LeasePolicy, RestartMode, RestartPolicy, Unhealthy, UpdatePolicy,
    },
    limits,
    links::{After, Condition, Link, LinkAddress, circle_of},
    names::{
        HostName, InvalidHostName, InvalidName, InvalidOrganisation, InvalidVariableName, Name,
        Organisation, VariableName,
    },
    network::{Egress, HostPort, Port, Protocol},
    opened::{RequestSeed, SealedRequest, dominant},
    refusal::JobError,
    request::{EncryptedRequest, ResourceRequest},
    sampling::{
        ALL_CANDIDATES, BITS_OF_ONE_WORKER, Candidates, SAMPLE, Sampling, WIDER_SAMPLE, bits_of_try,
    },
    schedule::{Schedule, ScheduleError, utc},
    sealed::{EncryptedShare, SealedPart, SealedPartError},
    unsupported::{self, Unsupported},
    version::VersionTerms,
    volume::{OnLoss, Volume, VolumeKind},
};

pub use abi::keccak;
pub use assignment::{Assignment, AssignmentError, Assignments, MAX_ASSIGNMENTS, Outcome};
pub use binding::{Binding, BindingMismatch, ClusterScope, UnixMillis};
pub use certificate::{
    AssignmentCertificate, CertificateBody, ChainError, GroupSignature, InvalidGroupSignature,
    ReferenceStringOrigin,
};
pub use ended::{EndedReplica, ReplicaExit};
pub use given_back::{GiveBackReason, GivenBack, InvalidNote, Note};
pub use image_tree::{ImageApproval, ImagePart, ImageParts, InvalidImageParts, PartKind};
pub use labels::{InvalidLabel, Label, LabelKey, LabelValue};
pub use leaf::{LeafError, LeafWorker, ReplicaLeaf, hidden_worker};
pub use manifest::{
    BlockRef, CircuitId, LeavingReplica, MAX_GIVEN_BACK, MAX_LOST, MAX_PENDING, MAX_RUNNING,
    MAX_TELEMETRY, Manifest, ManifestError, PendingReplica, ReplicaState, RunningReplica,
    TelemetryEntry,
};
pub use merkle::{MerkleTree, verify_inclusion};
pub use policy::{ClusterPolicy, EncryptedWeights, PolicyError, PolicyWeights, Weight, Weights};
pub use profile::{
    Accepts, InvalidRepositories, MAX_ACCEPTED, MAX_FACTS, Profile, ProfileError, Repositories,
};
pub use proven::{ProofMetadata, ProvenList, ProvenListSize};
pub use quantities::{
    LatencyClass, OutOfRange, PriceClass, Quantities, Quantity, Reading, Scale, Share,
    WorkerPriority,
};
pub use record::{RecordError, SlotRecord};
pub use report::{EvaluationBody, EvaluationReport, ReportError};
pub use resources::{
    CpuUnits, DiskUnits, GpuUnits, MemoryUnits, RequestTooLarge, Resource, Resources,
};
pub use rollout::{
    MAX_FORGOTTEN_LINES, MAX_HEALTH, MAX_NEW_VERSIONS, MAX_WITHDRAWN, NewVersion, ReplicaHealth,
    RolloutChanges,
};
pub use runs::{MAX_RUN_CHANGES, RunChange, RunStep};
pub use state::{
    ClusterState, Done, Draw, Line, MAX_DONE, MAX_DONE_OF_OPERATOR, MAX_LINES,
    MAX_LINES_OF_OPERATOR, MAX_PERIODIC, MAX_PERIODIC_OF_OPERATOR, MAX_RETURNED,
    MAX_RETURNED_OF_OPERATOR, MAX_VERSIONS, Placement, Returned, RolloutError, RolloutPhase, Run,
    RunError, Runs, StateError, Version, VersionOutcome,
};
pub use submission::{LEAK_WINDOW_BLOCKS, Submission};
pub use suspicion::{LostWorker, SignedSuspicion, Suspicion, SuspicionError};
pub use telemetry::{
    MAX_ENDED, MAX_HEALTH_SAID, MAX_WORDS, Telemetry, TelemetryBody, TelemetryError,
};
pub use vote::{CertificateVote, SignedCertificateVote, VoteError};
