//! Everything about a slot's placement that is public: which replica is placed when, which workers
//! may take it, what it asks for, and in which order equal workers are preferred.
//!
//! The circuit and its cleartext twin run the same plan; they differ only in whether readings,
//! requests and weights are encrypted.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    scheduling::{ClusterPolicy, JobType, Manifest, PolicyWeights, SchedulingPolicy},
};

use crate::{
    inputs::{JobRefusal, PlanError, PublicInputs},
    rules::{JobRules, Need, RESOURCES},
};

mod sample;

use sample::Order;

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
    /// Whether no earlier step with candidates is for the same job.
    pub(crate) first_of_job: bool,
    /// Whether no later step with candidates is for the same job.
    pub(crate) last_of_job: bool,
}

/// The public part of a slot's placement.
///
/// # Rules
/// 1. Jobs of higher priority first, then by submission, then by replica.
/// 2. A worker is a candidate if the manifest has its telemetry, its labels, on chain and in its profile,
///    satisfy the job's constraints, it offers the job's host volumes and accepts the job, it is not closed to
///    new work, and, under hard anti-affinity, no replica of the job that stays runs in its failure domain. A
///    replica with a host volume that had a place has one candidate, the worker of that place, if that is a
///    candidate; with `on_loss = "empty"` and no telemetry of that worker, all. A replica of a system job has the one
///    that the manifest names, if that is a candidate, however few there are. A worker that gave a replica back is
///    no candidate for it for some time. Jobs that narrow the candidates and leave too few, or with
///    requests beyond the cluster's scale, are [refused](Self::refusals). Under hard anti-affinity the
///    job's replicas take candidates away from each other: those to which too few may be left are not
///    evaluated either.
///    Of the candidates the first are asked, as many as the manifest says for the replica, in the order of 4.3
///    that is drawn, and the worker that 4.1 prefers. Under hard anti-affinity a replica is not evaluated if
///    earlier ones may leave too few of those that it asks.
/// 3. A candidate that is asked is feasible if each resource has at least what is requested, after what earlier
///    replicas of this slot took, its latency class is not above the job's, and, under hard
///    anti-affinity, no earlier replica of the job went to its failure domain.
/// 4. Of the feasible candidates the one is taken that is first
///    1. by level: the worker that held the replica last, if the job prefers it or has a fixed host port,
///       which is free there; then, under soft
///       anti-affinity, the fewest replicas of the job in the failure domain, running and placed in
///       this slot, 5 or more counting alike;
///    2. by score. `spread`: the most units free of the dominant resource, the one of which the
///       request takes the most units; `bin_pack`: the fewest; `priority_round_robin`: the highest
///       own priority; `cost`: the smallest weighted sum of price and latency class. Under the circuit
///       [of thresholds](crate::threshold) `spread` compares free shares in eighths, lowered by one for each
///       replica that the worker got in the slot, and `bin_pack` eight classes of units;
///    3. in an order that is public: for `priority_round_robin` that of the telemetry, beginning at
///       the last decided slot plus step; else that of a digest over the seed, the job, the replica
///       and the worker, which prefers no worker for long; workers that were registered after the draw come
///       last. Seed and slot are those of the last
///       certificate that is not void: neither the choice of a manifest's lists nor slots that end
///       void change the order.
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
    refusals: BTreeMap<Blake3Digest, JobRefusal>,
}

/// What a slot's circuit reads of each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// CPU, memory, disk, GPU.
    pub resources: [bool; RESOURCES],
    /// Latency and price class.
    pub classes: bool,
    /// Own priority.
    pub priority: bool,
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
        let mut turn = public.last_decided.0.wrapping_add(1);
        let mut of_same_job: BTreeMap<Blake3Digest, usize> = BTreeMap::new();
        for (position, pending, job) in ordered {
            let of_job = match by_job.entry(pending.job) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let (new, refusal) = JobRules::new(pending.job, job, manifest, public)?;
                    refusals.extend(refusal.map(|refusal| (pending.job, refusal)));
                    rules.push(new);
                    *entry.insert(rules.len() - 1)
                }
            };
            let is_system = job.kind == JobType::System;
            if is_system != pending.only.is_some() {
                let (job, replica) = (pending.job, pending.replica);
                return Err(PlanError::OneWorker { job, replica });
            }
            if !is_system && pending.replica.0 >= job.replicas {
                let (job, replica) = (pending.job, pending.replica);
                return Err(PlanError::NoSuchReplica { job, replica });
            }
            let Some(of_this) = rules.get(of_job) else { continue };
            let before = of_same_job.entry(pending.job).or_default();
            let is_answered = *before < of_this.answered;
            *before += 1;
            let last_place = public.previous.get(&(pending.job, pending.replica)).map(|worker| {
                manifest.telemetry.binary_search_by_key(worker, |entry| entry.sender).ok()
            });
            let only = pending.only.map(|only| of_this.only(only.into()));
            let mut candidates = match only.or_else(|| of_this.candidates_at_home(last_place)) {
                Some(home) => home,
                None if is_answered => of_this.candidates.clone(),
                None => Vec::new(),
            };
            let of = (pending.job, pending.replica);
            let all = (of, PeerIdHash([0; 32]))..=(of, PeerIdHash([u8::MAX; 32]));
            let barred = public.barred.range(all).filter_map(|(_, worker)| {
                manifest.telemetry.binary_search_by_key(worker, |entry| entry.sender).ok()
            });
            let barred: Vec<_> = barred.filter(|barred| candidates.contains(barred)).collect();
            if !barred.is_empty() {
                candidates = of_this.without(&barred, candidates, *before - 1);
            }
            let previous = last_place
                .flatten()
                .filter(|_| job.constraints.prefer_previous || job.has_fixed_port())
                .filter(|worker| candidates.contains(worker));
            let found = candidates.len();
            candidates = Order::new(manifest, public, pending).sample(candidates, previous);
            // Who is not asked is there no more for those that are kept apart.
            if candidates.len() < found {
                let before = steps.iter().filter(|step| step.rules == of_job);
                let before = before.map(|step| step.candidates.as_slice());
                if !of_this.leaves_enough(&candidates, before) {
                    candidates.clear();
                }
            }
            if of_this.in_turn {
                sample::in_turn(&mut candidates, turn);
                turn = turn.wrapping_add(1);
            }
            // A step without candidates is none for the circuit.
            let is_open = !candidates.is_empty();
            let previous = previous.filter(|_| is_open);
            let mut first_of_job = true;
            for step in steps.iter_mut().rev().take_while(|step| step.job == pending.job) {
                first_of_job &= step.candidates.is_empty();
                step.last_of_job &= !is_open;
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
    pub const fn refusals(&self) -> &BTreeMap<Blake3Digest, JobRefusal> {
        &self.refusals
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
        self.open().count() * self.digits_per_replica()
    }

    /// The workers that are asked, by position in the manifest's telemetry.
    #[must_use]
    pub fn asked(&self) -> BTreeSet<usize> {
        self.open().flat_map(|step| step.candidates.iter().copied()).collect()
    }

    /// The jobs whose encrypted requests the circuit needs.
    pub fn encrypted_requests(&self) -> impl Iterator<Item = Blake3Digest> + '_ {
        let encrypted = |step: &&Step| matches!(self.rules(step).need, Need::Encrypted);
        let of_jobs = self.open().filter(|step| step.first_of_job);
        of_jobs.filter(encrypted).map(|step| step.job)
    }

    /// The digest of the encrypted weights, if the circuit needs them.
    #[must_use]
    pub fn encrypted_weights(&self) -> Option<Blake3Digest> {
        let by_cost = |step: &Step| self.rules(step).policy == SchedulingPolicy::Cost;
        match self.policy.weights {
            PolicyWeights::Encrypted(digest) if self.open().any(by_cost) => Some(digest),
            PolicyWeights::Encrypted(_) | PolicyWeights::Public(_) => None,
        }
    }

    /// What the circuit reads of a worker.
    #[must_use]
    pub fn used(&self) -> Used {
        let any = |uses: &dyn Fn(&JobRules) -> bool| self.rules.iter().any(uses);
        let by = |policy| move |rules: &JobRules| rules.policy == policy;
        Used {
            resources: core::array::from_fn(|resource| any(&|rules| rules.need.of(resource))),
            classes: any(&by(SchedulingPolicy::Cost)) || any(&|rules| rules.max_latency.is_some()),
            priority: any(&by(SchedulingPolicy::PriorityRoundRobin)),
        }
    }

    /// The steps that someone could take.
    fn open(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !step.candidates.is_empty())
    }

    pub(crate) fn rules(&self, step: &Step) -> &JobRules {
        &self.rules[step.rules]
    }
}

#[cfg(test)]
mod home_tests;
#[cfg(test)]
mod sample_tests;
#[cfg(test)]
mod tests;
