//! A job as its operator submits it.
//!
//! # No environment and no secrets
//! The body travels by gossip, is kept by every node and hashed on chain: whatever is in it is
//! public for good. Environment variables are where secrets usually are, so there is no field for
//! them; they are delivered to the winning workers only, after the certificate. The same holds for
//! the command line, which has a field because a placement means nothing without it: put no secret
//! there.
//!
//! # Caveats
//! Constraints narrow the candidates, and with few candidates "pending" says something about each
//! of them; the cluster's policy sets the smallest candidate set, not this type.
//!
//! # Encrypted requests
//! The list in a job is proven for operator and nonce ([`JobSpec::request_metadata`]); copied
//! into a job of another operator, the list does not verify.

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    binding::ClusterScope,
    codec::{CodecError, Wire},
    domain::{self, hash_parts},
    ids::{Address, Blake3Digest},
};

use crate::{
    image::ImageReference,
    labels::{Label, LabelKey},
    proven::{ProofMetadata, ProvenList},
    quantities::LatencyClass,
    resources::ResourceRequest,
};

/// The bounds [`JobSpec::validate`] applies.
pub mod limits {
    use core::ops::RangeInclusive;

    /// Replicas of one job.
    pub const REPLICAS: RangeInclusive<u16> = 1..=1024;
    /// Entries of `command` and of `args`, each.
    pub const ARGUMENTS: usize = 64;
    /// Bytes of one entry.
    pub const ARGUMENT_BYTES: usize = 4096;
    /// Bytes of all entries of `command`, `args` and the health check's command.
    pub const ALL_ARGUMENTS_BYTES: usize = 16 * 1024;
    /// Labels in `allow` and in `deny`, each.
    pub const LABELS: usize = 32;
    /// Seconds of an exclusive lease. Shorter than half a minute, one late slot would stop the job.
    pub const LEASE_SECONDS: RangeInclusive<u32> = 30..=86_400;
    /// Seconds between two probes; a probe's timeout may be no longer than that.
    pub const PROBE_SECONDS: RangeInclusive<u16> = 1..=3600;
    /// Failed probes in a row that make a replica unhealthy.
    pub const PROBE_RETRIES: RangeInclusive<u16> = 1..=100;
    /// Bytes of the path of an HTTP probe.
    pub const PROBE_PATH_BYTES: usize = 1024;
}

/// Higher is placed first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Priority(pub u8);

/// How the circuit scores the workers that have room, the dominant resource of the request
/// deciding: the one of which it takes the largest share of 191 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulingPolicy {
    /// Prefers the worker with the most left.
    Spread,
    /// Prefers the worker with the least left.
    BinPack,
    /// Prefers the worker with the highest own priority; among equals in turn, by slot and replica.
    PriorityRoundRobin,
    /// Prefers the cheapest worker by the cluster's weights of price and latency; combine it with
    /// [`Constraints::max_latency`].
    Cost,
}

/// What happens when no worker can satisfy a preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// The replica stays pending.
    Hard,
    /// The replica is placed all the same.
    Soft,
}

/// What fails as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureDomain {
    /// Each worker is a domain.
    Worker,
    /// All workers with one value of this label are a domain; a worker without it is its own.
    Label(LabelKey),
}

/// Keeps replicas of the same job apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntiAffinity {
    /// Whether a replica waits when they cannot be kept apart.
    pub strength: Strength,
    /// At most one replica in each.
    pub domain: FailureDomain,
}

/// Which workers a job may go to. The type of a GPU is a label like any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// For every key named here, the worker must carry one of the values listed for it. Strictly
    /// ascending.
    pub allow: Vec<Label>,
    /// The worker must carry none of these. Strictly ascending.
    pub deny: Vec<Label>,
    /// Keeps the job's own replicas apart.
    pub anti_affinity: Option<AntiAffinity>,
    /// Slowest latency class that is good enough.
    pub max_latency: Option<LatencyClass>,
    /// Whether a replica goes back to the worker that held it last, if that one has room and no
    /// hard rule forbids it: what need not move does not.
    pub prefer_previous: bool,
}

/// What a worker does that is cut off from the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LeasePolicy {
    /// Keeps running; a double may exist until it returns.
    Keep,
    /// Stops when it has had no contact with the committee for `seconds`; its replacement waits longer
    /// (`leases.md`).
    Exclusive {
        /// Lease time, 30 to 86,400 s.
        seconds: u32,
    },
}

/// What a worker does when the container exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartPolicy {
    /// Leaves it: the replica is done.
    Never,
    /// Starts it again after a non-zero exit.
    OnFailure {
        /// Restarts in a row before the replica counts as failed.
        max_retries: u16,
    },
    /// Always starts it again.
    Always,
}

/// How a worker looks into a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthProbe {
    /// Healthy if this exits with 0 inside the container.
    Command(Vec<String>),
    /// Healthy if the port accepts a connection.
    Tcp {
        /// Port in the container, not 0.
        port: u16,
    },
    /// Healthy if a GET answers with a status of 200 to 399.
    Http {
        /// Port in the container, not 0.
        port: u16,
        /// Begins with `/`; printable ASCII without spaces.
        path: String,
    },
}

/// When and how often to probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// How to probe.
    pub probe: HealthProbe,
    /// Seconds from one probe to the next, 1 to 3600.
    pub interval_seconds: u16,
    /// Seconds after which a probe has failed, 1 to the interval.
    pub timeout_seconds: u16,
    /// Failures in a row that make the replica unhealthy, 1 to 100.
    pub retries: u16,
    /// Seconds after the start in which failures do not count, at most 3600.
    pub start_period_seconds: u16,
}

/// A job: what to run, what it needs, where it may run, and how long it is to be kept alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The cluster it is submitted to.
    pub scope: ClusterScope,
    /// The operator that submits it: must be the sender of the transaction that submits the digest.
    pub operator: Address,
    /// Never used twice by this operator in this cluster, so that the same job submitted again has
    /// another digest.
    pub nonce: u64,
    /// The image to run.
    pub image: ImageReference,
    /// Replaces the image's entry point; empty for the image's own. Public: no secrets.
    pub command: Vec<String>,
    /// Arguments of the entry point; empty for the image's own. Public: no secrets.
    pub args: Vec<String>,
    /// What each replica needs.
    pub request: ResourceRequest,
    /// Replicas that run at once, 1 to 1024.
    pub replicas: u16,
    /// Which jobs are placed first when there is not room for all.
    pub priority: Priority,
    /// Which of the workers with room is preferred.
    pub policy: SchedulingPolicy,
    /// Which workers may run it.
    pub constraints: Constraints,
    /// What a worker does that is cut off from the committee.
    pub lease: LeasePolicy,
    /// What a worker does when the container exits.
    pub restart: RestartPolicy,
    /// How to tell that a replica works; without it a running container counts as healthy.
    pub health: Option<HealthCheck>,
}

/// Why a job is refused. Every message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum JobError {
    /// The bytes are not a job.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There are no replicas, or too many.
    #[error("{0} replicas: ask for {min} to {max}", min = limits::REPLICAS.start(), max = limits::REPLICAS.end())]
    Replicas(u16),
    /// The job asks for no CPU, or for no memory.
    #[error("request at least one unit of {0}: without it the replica could go anywhere")]
    EmptyRequest(&'static str),
    /// A list (`command`, `args` or `health command`) has too many entries.
    #[error("`{list}` has {len} entries: at most {max}", max = limits::ARGUMENTS)]
    TooManyArguments { list: &'static str, len: usize },
    /// An entry, counted from 0, is too long, or has a NUL, which no program can be given.
    #[error("entry {index} of `{list}` is longer than {max} bytes or has a NUL", max = limits::ARGUMENT_BYTES)]
    Argument { list: &'static str, index: usize },
    /// The program's name is empty.
    #[error("`{0}` begins with an empty program name")]
    EmptyProgram(&'static str),
    /// All entries together are too long.
    #[error("command, args and health check take {0} bytes: at most {max}", max = limits::ALL_ARGUMENTS_BYTES)]
    ArgumentsTooLong(usize),
    /// `allow` or `deny` has too many labels.
    #[error("`{list}` names {len} labels: at most {max}", max = limits::LABELS)]
    TooManyLabels { list: &'static str, len: usize },
    /// `allow` or `deny` is not strictly ascending, so the same constraints would have several
    /// digests; `label` is the first that is not above its predecessor.
    #[error("`{list}` must be sorted without duplicates; `{label}` is out of place")]
    LabelOrder { list: &'static str, label: Label },
    /// No worker can have and not have one label.
    #[error("label `{0}` is both allowed and denied")]
    Contradiction(Label),
    /// The lease is too short or too long.
    #[error("an exclusive lease of {0} s: {min} to {max} s are possible", min = limits::LEASE_SECONDS.start(), max = limits::LEASE_SECONDS.end())]
    Lease(u32),
    /// A number of the health check is out of range.
    #[error("the health check's {0} is out of range")]
    HealthCheck(&'static str),
}

impl Wire for JobSpec {
    const NAME: &'static str = "JobSpec";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 32 * 1024 + ProvenList::MAX_BYTES;
}

impl JobSpec {
    /// Decodes and [`validate`](Self::validate)s bytes from outside.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JobError> {
        let job = Self::from_wire(bytes)?;
        job.validate()?;
        Ok(job)
    }

    /// What the proof of an encrypted request must bind; `None` for a request in clear.
    #[must_use]
    pub fn request_metadata(&self) -> Option<ProofMetadata> {
        match &self.request {
            ResourceRequest::Clear(_) => None,
            ResourceRequest::Encrypted(request) => Some(ProofMetadata::for_request(
                &self.scope,
                &request.key_set,
                &self.operator,
                self.nonce,
            )),
        }
    }

    /// What the operator submits on chain, and what manifests and certificates name.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::JOB_SPEC, &[&self.to_wire()]))
    }
}
