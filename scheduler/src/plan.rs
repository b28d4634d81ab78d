//! Everything about a slot's placement that is public: which replica is placed when, which workers
//! may take it, what it asks for, and in which order equal workers are preferred.
//!
//! The circuit and its cleartext twin run the same plan; they differ only in whether readings,
//! requests and weights are encrypted.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    domain::{self, hash_parts},
    scheduling::{
        ClusterPolicy, JobError, JobSpec, Label, Manifest, ReplicaIndex, ReplicaState,
        RequestTooLarge,
    },
};

use crate::{
    circuit::{self, Confidential, Worker},
    ledger::Ledger,
    lookup::Circuit,
    rules::JobRules,
};

/// What is public besides the manifest.
#[derive(Clone, Debug, Default)]
pub struct PublicInputs {
    /// The policy whose digest the manifest names; that it is that one is the caller's check, as
    /// for everything that is read from the chain at the manifest's block.
    pub policy: ClusterPolicy,
    /// The jobs of the pending replicas, by digest.
    pub jobs: BTreeMap<Blake3Digest, JobSpec>,
    /// The workers' labels as the registry holds them at the manifest's block; none for a worker
    /// that is not here.
    pub labels: BTreeMap<PeerIdHash, Vec<Label>>,
    /// The worker that held a pending replica last, by the certificates that the manifest builds
    /// on; none for a replica that is not here.
    pub previous: BTreeMap<(Blake3Digest, ReplicaIndex), PeerIdHash>,
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
    /// The job states its request in a way that came after this circuit.
    #[error("job {job} states its request in a form this circuit does not know")]
    UnsupportedRequest {
        /// The job.
        job: Blake3Digest,
    },
    /// More workers than the policy allows.
    #[error("the manifest has {found} workers: the policy allows {max}")]
    TooManyWorkers {
        /// In the manifest.
        found: usize,
        /// By the policy.
        max: usize,
    },
    /// One worker has two messages.
    #[error("worker {0} is twice in the manifest's telemetry, or out of order")]
    DuplicateWorker(PeerIdHash),
}

/// Why the pending replicas of a job are not evaluated, which is public. They stay pending, and
/// other jobs are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No worker can ever have that much by the cluster's scale.
    #[error("its request is beyond what a worker can offer: {0}")]
    TooLarge(RequestTooLarge),
    /// The answer would tell too much about each of so few.
    #[error(
        "its constraints leave {found} workers, the policy asks for {min}: loosen them, since the \
         answer would tell too much about so few"
    )]
    TooFewCandidates {
        /// By labels, draining and hard anti-affinity.
        found: usize,
        /// By the policy.
        min: usize,
    },
}

/// One replica to be placed.
#[derive(Debug)]
pub(crate) struct Step {
    /// Position in the manifest's pending list.
    pub(crate) position: usize,
    pub(crate) job: Blake3Digest,
    /// Positions in the manifest's telemetry, in the order of preference among equals.
    pub(crate) candidates: Vec<usize>,
    /// What all replicas of the job have in common: position in [`Plan::rules`].
    pub(crate) rules: usize,
    /// Whether levels above feasibility decide before the score.
    pub(crate) leveled: bool,
    /// The worker that it goes back to if it can.
    pub(crate) previous: Option<usize>,
    /// Whether no earlier step is for the same job.
    pub(crate) first_of_job: bool,
    /// Whether no later step is for the same job.
    pub(crate) last_of_job: bool,
}

/// The public part of a slot's placement.
///
/// # Rules
/// 1. Jobs of higher priority first, then by submission, then by replica.
/// 2. A worker is a candidate if the manifest has its telemetry, its labels satisfy the job's
///    constraints, it is not being drained, and, under hard anti-affinity, no replica of the job
///    that stays runs in its failure domain. Jobs with constraints that leave too few candidates,
///    or with requests beyond the cluster's scale, are [refused](Self::refusals).
/// 3. A candidate is feasible if each resource has at least what is requested, after what earlier
///    replicas of this slot took, its latency class is not above the job's, and, under hard
///    anti-affinity, no earlier replica of the job went to its failure domain.
/// 4. Of the feasible candidates the one is taken that is first
///    1. by level: the worker that held the replica last, if the job prefers it; then, under soft
///       anti-affinity, the fewest replicas of the job in the failure domain, running and placed in
///       this slot, 5 or more counting alike;
///    2. by score. `spread`: the most units free of the dominant resource, the one of which the
///       request takes the most units; `bin_pack`: the fewest; `priority_round_robin`: the highest
///       own priority; `cost`: the smallest weighted sum of price and latency class;
///    3. in an order that is public: for `priority_round_robin` that of the telemetry, beginning at
///       slot plus step; else that of a digest over the manifest, the job, the replica and the
///       worker, so that nobody is preferred for long.
/// 5. Without a feasible candidate the replica stays pending.
#[derive(Debug)]
pub struct Plan {
    /// In the order of evaluation.
    pub(crate) steps: Vec<Step>,
    pub(crate) rules: Vec<JobRules>,
    pub(crate) policy: ClusterPolicy,
    /// Telemetry entries.
    pub(crate) workers: usize,
    /// Pending replicas.
    pub(crate) replicas: usize,
    refusals: BTreeMap<Blake3Digest, Refusal>,
}

impl Plan {
    /// Derives the plan of a manifest, which must be [valid](Manifest::validate).
    ///
    /// # Errors
    /// [`PlanError`] if a job is missing, is not what the manifest says, or asks for what the
    /// circuit cannot do, or if the workers are too many or not distinct.
    pub fn new(manifest: &Manifest, public: &PublicInputs) -> Result<Self, PlanError> {
        let (found, max) = (manifest.telemetry.len(), usize::from(public.policy.max_workers));
        if found > max {
            return Err(PlanError::TooManyWorkers { found, max });
        }
        let mut pairs = manifest.telemetry.iter().zip(manifest.telemetry.iter().skip(1));
        if let Some((_, twice)) = pairs.find(|(a, b)| a.sender >= b.sender) {
            return Err(PlanError::DuplicateWorker(twice.sender));
        }
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

        let mut by_job: BTreeMap<Blake3Digest, usize> = BTreeMap::new();
        let mut rules: Vec<JobRules> = Vec::new();
        let mut refusals = BTreeMap::new();
        let mut steps: Vec<Step> = Vec::with_capacity(ordered.len());
        let digest = manifest.digest();
        let mut turn = manifest.slot.0;
        for (position, pending, job) in ordered {
            let of_job = match by_job.entry(pending.job) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let (new, refusal) =
                        JobRules::new(pending.job, job, manifest, public, &draining)?;
                    refusals.extend(refusal.map(|refusal| (pending.job, refusal)));
                    rules.push(new);
                    *entry.insert(rules.len() - 1)
                }
            };
            if pending.replica.0 >= job.replicas {
                let (job, replica) = (pending.job, pending.replica);
                return Err(PlanError::NoSuchReplica { job, replica });
            }
            let Some(of_this) = rules.get(of_job) else { continue };
            let mut candidates = of_this.candidates.clone();
            if of_this.in_turn {
                let start = turn % candidates.len().max(1) as u64;
                candidates.rotate_left(start as usize);
                turn = turn.wrapping_add(1);
            } else {
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
            }
            let previous = public
                .previous
                .get(&(pending.job, pending.replica))
                .filter(|_| job.constraints.prefer_previous)
                .and_then(|worker| {
                    manifest.telemetry.binary_search_by_key(worker, |entry| entry.sender).ok()
                })
                .filter(|worker| candidates.contains(worker));
            let first_of_job = steps.last().is_none_or(|step| step.job != pending.job);
            if let Some(step) = steps.last_mut() {
                step.last_of_job = first_of_job;
            }
            let counts = of_this.soft && (of_this.runs_somewhere() || !first_of_job);
            steps.push(Step {
                position,
                job: pending.job,
                candidates,
                rules: of_job,
                leveled: counts || previous.is_some(),
                previous,
                first_of_job,
                last_of_job: true,
            });
        }
        // Under hard anti-affinity what a step finds out is used by the job's later steps.
        for (index, rules) in rules.iter().enumerate().filter(|(_, rules)| rules.hard) {
            let leveled = steps.iter().any(|step| step.rules == index && step.leveled);
            let same_job = steps.iter_mut().filter(|step| step.rules == index);
            same_job.for_each(|step| step.leveled = leveled);
            debug_assert!(!rules.soft);
        }
        Ok(Self {
            steps,
            rules,
            policy: public.policy,
            workers: manifest.telemetry.len(),
            replicas: manifest.pending.len(),
            refusals,
        })
    }

    /// Jobs whose replicas stay pending by public rules alone, and why.
    #[must_use]
    pub const fn refusals(&self) -> &BTreeMap<Blake3Digest, Refusal> {
        &self.refusals
    }

    /// The look-ups of the circuit, without those that expand lists: what the slot will cost, known
    /// before anything is evaluated.
    #[must_use]
    pub fn cost(&self) -> Ledger {
        let circuit = Circuit::in_clear();
        let workers = (0..self.workers).map(|_| Worker::blank()).collect();
        circuit::run(self, workers, &mut Confidential::blank(self), &circuit);
        circuit.ledger()
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

    pub(crate) fn rules(&self, step: &Step) -> &JobRules {
        &self.rules[step.rules]
    }
}
