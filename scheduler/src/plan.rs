//! Everything about a slot's placement that is public: which replica is placed when, which workers
//! may take it, what it asks for, and in which order equal workers are preferred.
//!
//! The circuit and its cleartext twin run the same plan; they differ only in whether free
//! capacities are encrypted.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    domain::{self, hash_parts},
    scheduling::{
        AntiAffinity, FailureDomain, JobError, JobSpec, Label, Manifest, ReplicaIndex,
        ReplicaState, ResourceRequest, SchedulingPolicy, Strength,
    },
};

use crate::telemetry::{RESOURCES, digits, quantities};

/// Replicas of a job on one worker beyond which `spread` no longer tells workers apart.
pub(crate) const MAX_COUNT: u16 = 6;
/// Highest class of [`room`].
pub(crate) const MAX_ROOM: u32 = 7;
/// Units of memory that weigh as much as one unit of CPU: 2.5 GiB for a core.
const MEMORY_PER_CPU: u32 = 4;

/// The class of rule 4.2 of [`Plan`]. It is the largest of what each digit stands for alone, which
/// is how the circuit computes it.
pub(crate) fn room(free: u16, request: u16) -> u32 {
    digits(free)
        .into_iter()
        .enumerate()
        .map(|(position, digit)| digit_room(digit.into(), position, request))
        .max()
        .unwrap_or(0)
}

/// [`room`] of a quantity with this one digit that is not 0.
pub(crate) fn digit_room(digit: i64, position: usize, request: u16) -> u32 {
    let fits = (digit << (4 * position)) / i64::from(request.max(1));
    fits.checked_ilog2().unwrap_or(0).min(MAX_ROOM)
}

/// What is public besides the manifest.
#[derive(Clone, Debug, Default)]
pub struct PublicInputs {
    /// The jobs of the pending replicas, by digest.
    pub jobs: BTreeMap<Blake3Digest, JobSpec>,
    /// The workers' labels as the registry holds them at the manifest's block; none for a worker
    /// that is not here.
    pub labels: BTreeMap<PeerIdHash, Vec<Label>>,
}

/// Why a manifest cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The body of a pending job has not arrived.
    #[error("job {0} is pending but its body is missing: fetch it before evaluating")]
    MissingJob(Blake3Digest),
    /// The body under this digest is another job's.
    #[error("the body held for job {0} has another digest")]
    WrongJob(Blake3Digest),
    /// The body breaks the rules of a job.
    #[error("job {job} is not valid: {error}")]
    InvalidJob {
        /// The job.
        job: Blake3Digest,
        /// The first broken rule.
        error: JobError,
    },
    /// The job has fewer replicas.
    #[error("job {job} has no replica {replica}")]
    NoSuchReplica {
        /// The job.
        job: Blake3Digest,
        /// The replica.
        replica: ReplicaIndex,
    },
    /// The circuit does not know the policy yet.
    #[error("job {job} asks for policy {policy:?}: this circuit places by `spread` only")]
    UnsupportedPolicy {
        /// The job.
        job: Blake3Digest,
        /// What it asks for.
        policy: SchedulingPolicy,
    },
    /// The circuit keeps replicas apart by worker only.
    #[error("job {job} keeps replicas apart by a label: this circuit does so by worker only")]
    UnsupportedFailureDomain {
        /// The job.
        job: Blake3Digest,
    },
    /// The circuit compares with clear requests only.
    #[error("job {job} states its request in a form this circuit does not know")]
    UnsupportedRequest {
        /// The job.
        job: Blake3Digest,
    },
}

/// One replica to be placed.
#[derive(Debug)]
pub(crate) struct Step {
    /// Position in the manifest's pending list.
    pub(crate) position: usize,
    /// Submission number: which job.
    pub(crate) submission: u64,
    /// Positions in the manifest's telemetry, in the order of preference among equals.
    pub(crate) candidates: Vec<usize>,
    /// Units of each resource.
    pub(crate) request: [u16; RESOURCES],
    /// Which resource [`room`] is measured in.
    pub(crate) dominant: usize,
    /// Whether two replicas of the job must not share a worker.
    pub(crate) hard: bool,
    /// Replicas of the job that run on each worker of the telemetry and stay there.
    pub(crate) running: Vec<u16>,
    /// Whether no later step is for the same job.
    pub(crate) last_of_job: bool,
}

/// The public part of a slot's placement.
///
/// # Rules
/// 1. Jobs of higher priority first, then by submission, then by replica.
/// 2. A worker is a candidate if the manifest has its telemetry, its labels satisfy the job's
///    constraints, it is not being drained, and, under hard anti-affinity, it runs no replica of
///    the job that stays.
/// 3. A candidate is feasible if each resource has at least what is requested, after what earlier
///    replicas of this slot took, and, under hard anti-affinity, no earlier replica of the job went
///    there.
/// 4. `spread` takes, of the feasible candidates, the one
///    1. with the fewest replicas of the job, running and placed in this slot, 6 or more counting
///       alike; soft anti-affinity follows from this;
///    2. then with the most room: how many times the request can be doubled within what is free,
///       at most 7 times, after the free units are rounded down to their leading hexadecimal digit.
///       Only one resource counts, CPU or memory, whichever the request takes more of at 2.5 GiB of
///       memory for a core;
///    3. then the first in the order of a digest over the manifest, the job, the replica and the
///       worker, so that nobody is preferred for long.
/// 5. Without a feasible candidate the replica stays pending.
#[derive(Debug)]
pub struct Plan {
    /// In the order of evaluation.
    pub(crate) steps: Vec<Step>,
    /// Telemetry entries.
    pub(crate) workers: usize,
    /// Pending replicas.
    pub(crate) replicas: usize,
}

impl Plan {
    /// Derives the plan of a manifest, which must be [valid](Manifest::validate).
    ///
    /// # Errors
    /// [`PlanError`] if a job is missing or asks for what the circuit cannot do.
    pub fn new(manifest: &Manifest, public: &PublicInputs) -> Result<Self, PlanError> {
        let digest = manifest.digest();
        let draining: BTreeSet<_> = manifest
            .running
            .iter()
            .filter(|running| running.state == ReplicaState::Draining)
            .map(|running| running.worker)
            .collect();
        let mut ordered = manifest
            .pending
            .iter()
            .enumerate()
            .map(|(position, pending)| {
                let job =
                    public.jobs.get(&pending.job).ok_or(PlanError::MissingJob(pending.job))?;
                Ok((position, pending, job))
            })
            .collect::<Result<Vec<_>, PlanError>>()?;
        // Stable: within a priority the manifest's order stays.
        ordered.sort_by_key(|(_, _, job)| core::cmp::Reverse(job.priority));

        let mut rules: BTreeMap<Blake3Digest, JobRules> = BTreeMap::new();
        let mut steps: Vec<Step> = Vec::with_capacity(ordered.len());
        for (position, pending, job) in ordered {
            let of_job = match rules.entry(pending.job) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(JobRules::new(pending.job, job, manifest, public, &draining)?)
                }
            };
            if pending.replica.0 >= job.replicas {
                let (job, replica) = (pending.job, pending.replica);
                return Err(PlanError::NoSuchReplica { job, replica });
            }
            let mut candidates = of_job.candidates.clone();
            candidates.sort_by_cached_key(|worker| {
                let sender = manifest.telemetry.get(*worker).map(|entry| entry.sender);
                hash_parts(
                    domain::TIE_BREAK,
                    &[
                        digest.as_bytes(),
                        pending.job.as_bytes(),
                        &pending.replica.0.to_le_bytes(),
                        sender.as_ref().map_or(&[][..], |sender| sender.as_bytes()),
                    ],
                )
            });
            if let Some(previous) = steps.last_mut() {
                previous.last_of_job = previous.submission != pending.submission;
            }
            steps.push(Step {
                position,
                submission: pending.submission,
                candidates,
                request: of_job.request,
                dominant: of_job.dominant,
                hard: of_job.hard,
                running: of_job.running.clone(),
                last_of_job: true,
            });
        }
        Ok(Self { steps, workers: manifest.telemetry.len(), replicas: manifest.pending.len() })
    }

    /// Digits of 4 bits in which the outcome of one replica is given: 0 for pending, else 1 plus
    /// the worker's position in the manifest's telemetry.
    #[must_use]
    pub fn digits_per_replica(&self) -> usize {
        (1..).find(|digits| self.workers < 1 << (4 * digits)).unwrap_or(1)
    }

    /// Output digits of the circuit. Replicas without any candidate have none: they are pending,
    /// and that is public.
    #[must_use]
    pub fn output_digits(&self) -> usize {
        let open = self.steps.iter().filter(|step| !step.candidates.is_empty()).count();
        open * self.digits_per_replica()
    }
}

/// What all replicas of a job have in common.
struct JobRules {
    request: [u16; RESOURCES],
    dominant: usize,
    hard: bool,
    running: Vec<u16>,
    candidates: Vec<usize>,
}

impl JobRules {
    fn new(
        digest: Blake3Digest,
        job: &JobSpec,
        manifest: &Manifest,
        public: &PublicInputs,
        draining: &BTreeSet<PeerIdHash>,
    ) -> Result<Self, PlanError> {
        if job.digest() != digest {
            return Err(PlanError::WrongJob(digest));
        }
        job.validate().map_err(|error| PlanError::InvalidJob { job: digest, error })?;
        if job.policy != SchedulingPolicy::Spread {
            return Err(PlanError::UnsupportedPolicy { job: digest, policy: job.policy });
        }
        let hard = match &job.constraints.anti_affinity {
            None => false,
            Some(AntiAffinity { strength, domain: FailureDomain::Worker }) => {
                *strength == Strength::Hard
            }
            Some(AntiAffinity { domain: FailureDomain::Label(_), .. }) => {
                return Err(PlanError::UnsupportedFailureDomain { job: digest });
            }
        };
        let request = match &job.request {
            ResourceRequest::Clear(resources) => quantities(resources),
            _ => return Err(PlanError::UnsupportedRequest { job: digest }),
        };
        let [cpu, memory, ..] = request;
        let dominant = usize::from(u32::from(memory) > MEMORY_PER_CPU * u32::from(cpu));
        let mut running = vec![0u16; manifest.telemetry.len()];
        for replica in &manifest.running {
            if replica.job != digest || replica.state != ReplicaState::Serving {
                continue;
            }
            let worker = manifest.telemetry.binary_search_by_key(&replica.worker, |t| t.sender);
            if let Some(count) = worker.ok().and_then(|worker| running.get_mut(worker)) {
                *count = count.saturating_add(1);
            }
        }
        let candidates = manifest
            .telemetry
            .iter()
            .zip(&running)
            .enumerate()
            .filter(|(_, (entry, running))| {
                let labels = public.labels.get(&entry.sender).map_or(&[][..], Vec::as_slice);
                let excluded = draining.contains(&entry.sender) || hard && **running > 0;
                !excluded && satisfies(labels, job)
            })
            .map(|(worker, _)| worker)
            .collect();
        Ok(Self { request, dominant, hard, running, candidates })
    }
}

/// For every key that `allow` names, one of its values; nothing that `deny` names.
fn satisfies(labels: &[Label], job: &JobSpec) -> bool {
    let (allow, deny) = (&job.constraints.allow, &job.constraints.deny);
    let allowed = |key| allow.iter().any(|label| label.key == key && labels.contains(label));
    allow.iter().all(|label| allowed(label.key.clone()))
        && !labels.iter().any(|label| deny.contains(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_counts_doublings_of_the_leading_digit() {
        assert_eq!(room(4, 5), 0);
        assert_eq!(room(5, 5), 0);
        assert_eq!(room(9, 5), 0);
        assert_eq!(room(10, 5), 1);
        assert_eq!(room(0x1f, 5), room(0x10, 5));
        assert_eq!(room(u16::MAX, 1), MAX_ROOM);
        assert_eq!(room(u16::MAX, u16::MAX), 0);
    }

    #[test]
    fn more_free_is_never_less_room() {
        for request in [1, 2, 5, 15, 16, 17, 300, 4096, u16::MAX] {
            let rooms: Vec<_> = (0..=u16::MAX).map(|free| room(free, request)).collect();
            assert!(rooms.is_sorted(), "request {request}");
        }
    }
}
