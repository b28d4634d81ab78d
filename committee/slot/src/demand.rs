//! What a job wants, as far as everybody must know it to say which of its replicas wait for a place.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Address, Blake3Digest, JobLine,
    scheduling::{
        BITS_OF_ONE_WORKER, ClusterPolicy, ImageApproval, ImageReference, JobSpec, JobType,
        LeasePolicy, MAX_LINES_OF_OPERATOR, MAX_PERIODIC_OF_OPERATOR, MAX_VERSIONS, Overlap,
        Priority, ResourceRequest, Schedule, VersionTerms, bits_of_try,
    },
};

/// Seconds within which a worker has stopped a container whose lease is over.
pub const STOP_SECONDS: u32 = 90;

/// Seconds from when a worker counts as lost until its replica may be placed elsewhere; `None` if at
/// once. For an exclusive lease: the lease itself; 90 seconds in which the worker notices and stops
/// the container; and a thousandth of the lease, by which two clocks may run apart (`leases.md`).
#[must_use]
pub const fn wait_seconds(lease: LeasePolicy) -> Option<u32> {
    match lease {
        LeasePolicy::Keep => None,
        LeasePolicy::Exclusive { seconds } => {
            Some(seconds.saturating_add(STOP_SECONDS).saturating_add(seconds / 1000))
        }
    }
}

/// Tries of each replica, within [`LEAK_WINDOW_BLOCKS`](veil_protocol_spec::scheduling::LEAK_WINDOW_BLOCKS),
/// for which bits are stated unless the operator gives a number.
const STATED_TRIES: u32 = 32;

/// Bits to state for a job in a cluster of that many workers, which may become twice as many.
#[must_use]
pub fn bits_to_state(job: &JobSpec, workers: usize) -> u32 {
    let workers = workers.saturating_mul(2).max(1);
    let (replicas, bits) = match job.kind {
        JobType::System => (u32::try_from(workers).unwrap_or(u32::MAX), BITS_OF_ONE_WORKER),
        _ => (u32::from(job.replicas).max(1), bits_of_try(workers)),
    };
    replicas.saturating_mul(bits).saturating_mul(STATED_TRIES)
}

/// What the body of a job says that decides which of its replicas wait for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDemand {
    /// Whose job it is: submissions of its digest by others do not count.
    pub operator: Address,
    /// How many replicas run at once; of a system job, on each worker.
    pub replicas: u16,
    /// Which of the operator's jobs come first.
    pub priority: Priority,
    /// What a worker does that is cut off.
    pub lease: LeasePolicy,
    /// Whether its replicas end by themselves.
    pub is_batch: bool,
    /// When it is run, if it is a periodic one.
    pub timetable: Option<Timetable>,
    /// Why no slot can place it, whatever is free.
    pub refused: Option<NotConsidered>,
    /// What it has in common with its other versions.
    pub line: JobLine,
    /// What its replicas are made of.
    pub template: Blake3Digest,
    /// How it takes the place of the version before.
    pub terms: VersionTerms,
    /// Whether it has a sealed part, which workers must be able to open.
    pub is_sealed: bool,
}

/// The images that a cluster runs, as the chain lists them at some block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedImages {
    approvals: Option<BTreeMap<[u8; 32], ImageApproval>>,
    signed_only: bool,
}

impl AllowedImages {
    /// By the SHA-256 of their manifests; `None` for all. `signed_only`: the policy asks for a signature that
    /// the chain commits to.
    #[must_use]
    pub const fn new(
        approvals: Option<BTreeMap<[u8; 32], ImageApproval>>,
        signed_only: bool,
    ) -> Self {
        Self { approvals, signed_only }
    }

    /// Why the cluster does not run an image.
    #[must_use]
    pub fn refuse(&self, image: &ImageReference) -> Option<NotConsidered> {
        match (&self.approvals, self.approval(image)) {
            (Some(_), None) => Some(NotConsidered::Image),
            (_, approval) => {
                let is_signed = approval.is_some_and(|approval| approval.signature.is_some());
                (self.signed_only && !is_signed).then_some(NotConsidered::Unsigned)
            }
        }
    }

    /// Whether the cluster runs it.
    #[must_use]
    pub fn allow(&self, image: &ImageReference) -> bool {
        self.refuse(image).is_none()
    }

    /// What the chain commits to for an image; nothing while the cluster runs all.
    #[must_use]
    pub fn approval(&self, image: &ImageReference) -> Option<&ImageApproval> {
        self.approvals.as_ref()?.get(&image.digest_bytes())
    }

    /// Whether the policy asks for signatures.
    #[must_use]
    pub const fn signed_only(&self) -> bool {
        self.signed_only
    }
}

/// When a periodic job is run, as of a block. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// The last of its times that has come; 0 if none has.
    pub latest: u64,
    /// The block's time.
    pub now: u64,
    /// What happens at a time at which the last run has not ended.
    pub overlap: Overlap,
}

impl Timetable {
    /// Of a job of this type; `None` if it is no periodic one. A job without times, which no member accepts, is
    /// never run.
    fn of(kind: &JobType, now: u64) -> Option<Self> {
        let JobType::Periodic { cron, time_zone, overlap } = kind else { return None };
        let schedule = Schedule::new(cron, time_zone).ok();
        let latest = schedule.and_then(|schedule| schedule.latest(now)).unwrap_or(0);
        Some(Self { latest, now, overlap: *overlap })
    }
}

impl JobDemand {
    /// Whether a replica is placed elsewhere only after its worker has stopped it: its next worker could start it
    /// before, and of a run that ends by itself the work so far would be lost; one of a system job is for that worker.
    #[must_use]
    pub const fn stops_first(&self) -> bool {
        self.is_batch || self.is_system() || !matches!(self.lease, LeasePolicy::Keep)
    }

    /// Whether each worker that may run it has one replica.
    #[must_use]
    pub const fn is_system(&self) -> bool {
        self.terms.is_system()
    }

    /// Of a job in a cluster with this policy, which runs these images, as of a block of that time (Unix, seconds).
    #[must_use]
    pub fn of(job: &JobSpec, policy: &ClusterPolicy, images: &AllowedImages, now: u64) -> Self {
        let refused = images.refuse(&job.image).or_else(|| match &job.request {
            ResourceRequest::Clear(request) => {
                policy.scale.request(request).is_err().then_some(NotConsidered::TooLarge)
            }
            ResourceRequest::Encrypted(_) if job.sealed_part().is_none() => {
                Some(NotConsidered::Encrypted)
            }
            // "A job beyond scale" is refused by the circuit, for which nobody has room.
            ResourceRequest::Encrypted(request) => {
                (request.scale != policy.scale).then_some(NotConsidered::Scale)
            }
            _ => Some(NotConsidered::Encrypted),
        });
        let &JobSpec { operator, replicas, priority, lease, .. } = job;
        let (is_batch, timetable) = (job.kind.ends(), Timetable::of(&job.kind, now));
        let (line, template, terms) = (job.line(), job.template(), job.terms());
        let is_sealed = job.sealed_part().is_some();
        Self {
            operator,
            replicas,
            priority,
            lease,
            is_batch,
            timetable,
            refused,
            line,
            template,
            terms,
            is_sealed,
        }
    }
}

/// Why the replicas of a job that want a place are not listed, by public rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum NotConsidered {
    /// No worker can offer as much by the policy's scale.
    #[error(
        "its request is beyond what a worker can offer by the policy's scale: ask for less, or have \
         the policy's units raised"
    )]
    TooLarge,
    /// The cluster does not run its image, or does so no more.
    #[error(
        "the cluster does not allow its image: whoever administers it allows one with \
         `veil chain image allow`"
    )]
    Image,
    /// The policy asks for signatures, and the chain commits to none of its image.
    #[error(
        "the cluster runs signed images only, and its image is allowed without a signature: whoever \
         administers it allows it with one, with `veil chain image allow --key`"
    )]
    Unsigned,
    /// The request is encrypted, and no winner could learn the limits.
    #[error(
        "its request is encrypted, and nothing is sealed in it, so that no worker could learn its limits: submit its \
         file again with `veil job submit`"
    )]
    Encrypted,
    /// The request is encrypted in another scale than the policy's.
    #[error(
        "its request is encrypted in another scale than that of the cluster's policy now: submit its file again with \
         `veil job submit`"
    )]
    Scale,
    /// More workers cannot use what is sealed in it than may deviate.
    #[error(
        "{workers} workers could not use its sealed part, and {needed} are enough: it was dealt wrongly, or what is sealed \
         is not what a worker can run; its operator seals it again with `veil job submit`"
    )]
    SealedPart { workers: usize, needed: usize },
    /// The answers could tell more about others' load than its submission states.
    #[error(
        "its submission states {stated} bits; {told} are told since block {since}, and another try \
         may tell {needed}: wait until block {until}, or submit it again with more (`--leak-bits`)"
    )]
    LeakBits { stated: u32, told: u32, needed: u32, since: u64, until: u64 },
    /// It is a periodic job, and no more of these are remembered.
    #[error(
        "it is a periodic job, and its operator has {MAX_PERIODIC_OF_OPERATOR} of these already, or all operators \
         four times as many: stop those that are not needed with `veil job stop`"
    )]
    TooManyPeriodic,
    /// It is a periodic job whose first run has not begun.
    #[error("it is a periodic job, and none of its times has come since the cluster has noted it")]
    NotYet,
    /// It is an update, and its versions cannot be told apart any more.
    #[error(
        "it is an update, and {MAX_LINES_OF_OPERATOR} jobs of its operator, or of all operators four times as \
         many, have versions already: stop jobs that are not needed with `veil job stop`"
    )]
    TooManyUpdates,
    /// It is an update of a job of which too many versions run.
    #[error(
        "{MAX_VERSIONS} versions of it run, or may come back: wait until the last update is through"
    )]
    TooManyVersions,
}

impl NotConsidered {
    /// Whether what runs of the job ends, too, until its image is allowed again.
    #[must_use]
    pub const fn is_of_image(&self) -> bool {
        matches!(self, Self::Image | Self::Unsigned)
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use veil_protocol_spec::{
        KeccakDigest,
        codec::Bytes,
        scheduling::{
            CpuUnits, EncryptedRequest, PolicyWeights, ProvenList, Resource, Resources, Scale,
            SchedulingPolicy, Sealed, SealedPart,
        },
    };

    use super::*;
    use crate::fixtures::{binding, job};

    #[test]
    fn an_exclusive_replica_waits_longer_than_its_lease() {
        assert_eq!(wait_seconds(LeasePolicy::Keep), None);
        let wait = |seconds| wait_seconds(LeasePolicy::Exclusive { seconds }).unwrap();
        assert_eq!((wait(30), wait(86_400)), (120, 86_400 + 90 + 86));
    }

    #[test]
    fn bits_are_stated_for_32_tries_in_a_cluster_twice_as_large() {
        assert_eq!(bits_to_state(&job(3), 3), 3 * 3 * STATED_TRIES);
        assert!(bits_to_state(&job(1024), 1024) < u32::MAX);
        // One bit of each worker: whether it has room.
        let system = JobSpec { kind: JobType::System, ..job(1) };
        assert_eq!(bits_to_state(&system, 3), 6 * STATED_TRIES);
    }

    #[test]
    fn an_image_that_the_chain_does_not_list_is_named() {
        type Listed<'a> = Option<&'a [([u8; 32], Option<[u8; 32]>)]>;
        let refused = |manifests: Listed<'_>, signed_only| {
            let root = KeccakDigest([7; 32]);
            let approval = |&(manifest, signature)| (manifest, ImageApproval { root, signature });
            let approvals = manifests.map(|all| all.iter().map(approval).collect());
            let images = AllowedImages::new(approvals, signed_only);
            JobDemand::of(&job(3), &ClusterPolicy::default(), &images, 0).refused
        };
        let own = job(3).image.digest_bytes();
        let (unsigned, signed) = ((own, None), (own, Some([5; 32])));
        let other = ([9; 32], Some([5; 32]));
        use NotConsidered::{Image, Unsigned};
        for (manifests, signed_only, expected) in [
            (None, false, None),
            (None, true, Some(Unsigned)),
            (Some(&[other, unsigned][..]), false, None),
            (Some(&[other, unsigned]), true, Some(Unsigned)),
            (Some(&[other, signed]), true, None),
            (Some(&[other, signed]), false, None),
            (Some(&[other]), false, Some(Image)),
            (Some(&[other]), true, Some(Image)),
            (Some(&[]), false, Some(Image)), // all were revoked
        ] {
            assert_eq!(refused(manifests, signed_only), expected, "{manifests:?} {signed_only}");
        }
    }

    #[test]
    fn what_fits_no_worker_is_named() {
        let large = |cpu| JobSpec {
            request: ResourceRequest::Clear(Resources {
                cpu: CpuUnits(cpu),
                ..Resources::default()
            }),
            ..job(3)
        };
        let refused = |job: &JobSpec, scale| {
            let policy = ClusterPolicy { scale, ..ClusterPolicy::default() };
            JobDemand::of(job, &policy, &AllowedImages::default(), 0).refused
        };
        assert_eq!(refused(&large(191), Scale::FINEST), None);
        assert_eq!(refused(&large(192), Scale::FINEST), Some(NotConsidered::TooLarge));
        assert_eq!(refused(&large(192), Scale::default()), None);
    }

    /// A winner must be able to learn its limits, and the circuit counts in the policy's scale.
    #[test]
    fn an_encrypted_request_is_considered_with_sealed_limits_in_the_clusters_scale() {
        let (key_set, dominant) = (binding().key_set, Resource::Cpu);
        let list = ProvenList::new(vec![1]).unwrap();
        let (scale, commitment) = (Scale::FINEST, Blake3Digest([7; 32]));
        let request = EncryptedRequest { key_set, scale, dominant, commitment, list };
        let mut encrypted = JobSpec { request: ResourceRequest::Encrypted(request), ..job(3) };
        let refused = |job: &JobSpec, scale| {
            let policy = ClusterPolicy { scale, ..ClusterPolicy::default() };
            JobDemand::of(job, &policy, &AllowedImages::default(), 0).refused
        };
        assert_eq!(refused(&encrypted, Scale::FINEST), Some(NotConsidered::Encrypted));
        let part = SealedPart {
            key_set,
            epoch: binding().epoch,
            roster: Blake3Digest([1; 32]),
            tag: Blake3Digest([2; 32]),
            commitments: Vec::new(),
            shares: Vec::new(),
            ciphertext: Bytes::default(),
        };
        encrypted.sealed = Sealed::Part(Box::new(part));
        assert_eq!(refused(&encrypted, Scale::FINEST), None);
        let coarse = Scale { cpu: NonZeroU16::new(2).unwrap(), ..Scale::FINEST };
        assert_eq!(refused(&encrypted, coarse), Some(NotConsidered::Scale));
    }

    /// Who has the ciphertexts is nothing that everybody knows: a member without them lists no such job, which is
    /// no objection, and finds no manifest valid that does.
    #[test]
    fn a_job_by_cost_is_considered_whether_or_not_the_weights_are_encrypted() {
        let weights = PolicyWeights::Encrypted(Blake3Digest([9; 32]));
        let encrypted = ClusterPolicy { weights, ..ClusterPolicy::default() };
        let by_cost = JobSpec { policy: SchedulingPolicy::Cost, ..job(3) };
        let demand =
            |policy: &ClusterPolicy| JobDemand::of(&by_cost, policy, &AllowedImages::default(), 0);
        assert_eq!(demand(&encrypted), demand(&ClusterPolicy::default()));
        assert_eq!(demand(&encrypted).refused, None);
    }
}
