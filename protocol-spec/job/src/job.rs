//! A job as its operator submits it.
//!
//! # No environment and no secrets
//! The body travels by gossip, is kept by every node and hashed on chain: whatever is in it is
//! public for good. Environment variables, files and registry credentials are where secrets usually are, so
//! there is no field for them: their place is the [`Sealed`] part. The command line has a field because a
//! placement means nothing without it: put no secret there.
//!
//! # One spelling
//! Lists are strictly ascending, by name or path where entries have one, so that the same job always has the
//! same digest.
//!
//! # Caveats
//! Constraints narrow the candidates, and with few candidates "pending" says something about each
//! of them; the cluster's policy sets the smallest candidate set, not this type.
//!
//! # Encrypted requests
//! The list in a job is proven for operator and nonce ([`JobSpec::request_metadata`]); copied
//! into a job of another operator, the list does not verify. Winners learn the limits from the sealed part
//! ([`crate::opened`]).

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    binding::ClusterScope,
    codec::Wire,
    domain::{self, hash_parts},
    ids::{Address, Blake3Digest},
};

use crate::{
    container::ContainerSettings,
    image::{ImageReference, ImageTag},
    kind::JobType,
    labels::{Label, LabelKey},
    lifecycle::{HealthCheck, LeasePolicy, RestartPolicy, UpdatePolicy},
    links::{After, Link},
    names::{HostName, Name, Organisation},
    network::{Egress, Port},
    proven::{ProofMetadata, ProvenList},
    quantities::LatencyClass,
    request::ResourceRequest,
    sealed::SealedPart,
    volume::Volume,
};

/// Higher is placed first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Priority(pub u8);

/// How the circuit scores the workers that have room, the dominant resource of the request
/// deciding: the one of which it takes the largest share of 191 units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulingPolicy {
    /// Prefers the worker with the most left.
    #[default]
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

/// Whose workers may run a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Organisations {
    /// Everybody's.
    #[default]
    Any,
    /// Those of these organisations, as the chain approved them. Strictly ascending, not empty.
    Of(Vec<Organisation>),
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
    /// Whose workers they are.
    pub organisations: Organisations,
}

impl Organisations {
    /// Whether a worker of this organisation, by the chain, may run the job; `None` for one that nobody vouches
    /// for.
    #[must_use]
    pub fn contain(&self, organisation: Option<&Organisation>) -> bool {
        match self {
            Self::Any => true,
            Self::Of(those) => organisation.is_some_and(|one| those.contains(one)),
        }
    }
}

impl Constraints {
    /// Whether a worker with these labels may run the job: for every key that `allow` names, it has one of
    /// the values; it has nothing that `deny` names.
    #[must_use]
    pub fn are_met_by(&self, labels: &[Label]) -> bool {
        let allowed = |key: &LabelKey| {
            self.allow.iter().any(|label| label.key == *key && labels.contains(label))
        };
        self.allow.iter().all(|label| allowed(&label.key))
            && !labels.iter().any(|label| self.deny.contains(label))
    }

    /// Whether they may leave fewer workers than there are, whatever these are: by labels, by organisation, or
    /// by latency, which nobody sees.
    #[must_use]
    pub fn narrow(&self) -> bool {
        let by_latency = self.max_latency.is_some_and(|max| max.get() < LatencyClass::MAX);
        let by_organisation = self.organisations != Organisations::Any;
        !self.allow.is_empty() || !self.deny.is_empty() || by_organisation || by_latency
    }
}

/// The part of a job that only winners of its replicas can open. A build that does not know a variant refuses
/// the job as malformed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sealed {
    /// Nothing is sealed.
    #[default]
    Nothing,
    /// The ciphertext, and how winners get its key.
    Part(Box<SealedPart>),
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
    /// What people and links call it: unique among the jobs that this operator runs in this cluster.
    pub name: Name,
    /// What kind of work it is.
    #[serde(rename = "type")]
    pub kind: JobType,
    /// The image to run.
    pub image: ImageReference,
    /// What people call this version of the image; it selects nothing.
    pub tag: Option<ImageTag>,
    /// Replaces the image's entry point; empty for the image's own, or if it is sealed. Public: no secrets.
    pub command: Vec<String>,
    /// Arguments of the entry point; empty for the image's own, or if they are sealed. Public: no secrets.
    pub args: Vec<String>,
    /// How the container is set up.
    pub container: ContainerSettings,
    /// What each replica needs.
    pub request: ResourceRequest,
    /// Ports, by name, strictly ascending.
    pub ports: Vec<Port>,
    /// What it may open connections to.
    pub egress: Egress,
    /// Ports of the operator's other jobs that it reaches, by host and number, strictly ascending.
    pub links: Vec<Link>,
    /// What its containers wait for before they start, by job, strictly ascending.
    pub after: Vec<After>,
    /// Volumes, by name, strictly ascending.
    pub volumes: Vec<Volume>,
    /// Replicas that run at once, 1 to 1024; 1 if it is a system job.
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
    /// How a new version takes the place of the one before.
    pub update: UpdatePolicy,
    /// What only winners can open.
    pub sealed: Sealed,
}

impl Wire for JobSpec {
    const NAME: &'static str = "JobSpec";
    // Version 2 had no name, type, container settings, ports, volumes or update rules; version 3 had nothing
    // sealed, version 4 no links and start conditions, no tag of what is sealed, and of an encrypted request no scale
    // and no commitment; version 5 sealed at most 64 KiB.
    const VERSION: u8 = 6;
    const MAX_BYTES: usize = 96 * 1024 + ProvenList::MAX_BYTES + SealedPart::MAX_BYTES;
}

impl JobSpec {
    /// Whether it links to this port of this job of its operator.
    #[must_use]
    pub fn links_to(&self, job: &Name, port: &Name) -> bool {
        self.links.iter().any(|link| link.job == *job && link.port == *port)
    }

    /// The distinct names that its links have in the container, in order.
    #[must_use]
    pub fn link_hosts(&self) -> Vec<&HostName> {
        let mut hosts: Vec<_> = self.links.iter().map(|link| &link.host).collect();
        hosts.dedup(); // links are by host
        hosts
    }

    /// A service of one replica, with the default of everything that is not given.
    #[must_use]
    pub fn new(
        scope: ClusterScope,
        operator: Address,
        nonce: u64,
        name: Name,
        image: ImageReference,
        request: ResourceRequest,
    ) -> Self {
        Self {
            scope,
            operator,
            nonce,
            name,
            kind: JobType::default(),
            image,
            tag: None,
            command: Vec::new(),
            args: Vec::new(),
            container: ContainerSettings::default(),
            request,
            ports: Vec::new(),
            egress: Egress::default(),
            links: Vec::new(),
            after: Vec::new(),
            volumes: Vec::new(),
            replicas: 1,
            priority: Priority::default(),
            policy: SchedulingPolicy::default(),
            constraints: Constraints::default(),
            lease: LeasePolicy::default(),
            restart: RestartPolicy::default(),
            health: None,
            update: UpdatePolicy::default(),
            sealed: Sealed::default(),
        }
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

    /// What is sealed, if anything is.
    #[must_use]
    pub fn sealed_part(&self) -> Option<&SealedPart> {
        match &self.sealed {
            Sealed::Nothing => None,
            Sealed::Part(part) => Some(part),
        }
    }

    /// Digest of everything but the sealed part: what the sealed part is bound to.
    #[must_use]
    pub fn public_digest(&self) -> Blake3Digest {
        let public = Self { sealed: Sealed::Nothing, ..self.clone() };
        Blake3Digest(hash_parts(domain::PUBLIC_BODY, &[&public.to_wire()]))
    }
}
