//! What all replicas of a job have in common, as far as it is public.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    scheduling::{
        AntiAffinity, FailureDomain, JobSpec, JobType, Label, LabelKey, LatencyClass, Manifest,
        OnLoss, Profile, ReplicaState, ResourceRequest, SchedulingPolicy, Strength, VolumeKind,
    },
};

use crate::{
    inputs::{JobRefusal, PlanError, PublicInputs},
    unfit::{OnChain, Unfit},
};

/// Resources that are counted.
pub const RESOURCES: usize = 4;

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Quantities.
    Clear([u8; RESOURCES]),
    /// Only the circuit knows.
    Encrypted,
}

impl Need {
    /// Whether the resource has to be looked at.
    pub(crate) fn of(self, resource: usize) -> bool {
        match self {
            Self::Clear(request) => request.get(resource).is_some_and(|request| *request > 0),
            Self::Encrypted => true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct JobRules {
    pub(crate) policy: SchedulingPolicy,
    pub(crate) need: Need,
    /// The resource that `spread` and `bin_pack` compare by.
    pub(crate) dominant: usize,
    pub(crate) max_latency: Option<LatencyClass>,
    /// Whether two replicas of the job must not share a failure domain.
    pub(crate) hard: bool,
    /// Whether they should not.
    pub(crate) soft: bool,
    /// Whether equal candidates are taken in turn.
    pub(crate) in_turn: bool,
    /// The failure domain of each worker; with as many domains as there are workers, each is one.
    pub(crate) domains: Vec<usize>,
    /// By failure domain: replicas of the job that run there and stay.
    pub(crate) running: Vec<u16>,
    /// Positions in the manifest's telemetry, ascending.
    pub(crate) candidates: Vec<usize>,
    /// Replicas of the job that are evaluated in this slot; the others stay pending. Those that have a home
    /// are evaluated all the same.
    pub(crate) answered: usize,
    /// What a replica that had a place is bound to.
    pub(crate) home: Home,
    /// Fewest candidates that an answer may be about where something narrows them.
    least: usize,
}

/// Whether a replica must go back to where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// It may go anywhere.
    Anywhere,
    /// Its data is in a volume there: it waits for that worker.
    Bound,
    /// The same, and it starts with an empty volume elsewhere once that worker is gone.
    UntilLost,
}

impl Home {
    fn of(job: &JobSpec) -> Self {
        let kinds = job.volumes.iter().map(|volume| volume.kind);
        kinds.fold(Self::Anywhere, |home, kind| match (home, kind) {
            (_, VolumeKind::Host { on_loss: OnLoss::Pending }) | (Self::Bound, _) => Self::Bound,
            (_, VolumeKind::Host { on_loss: OnLoss::Empty }) => Self::UntilLost,
            (home, VolumeKind::Ephemeral { .. } | VolumeKind::Tmpfs { .. }) => home,
        })
    }
}

/// Highest level: the worker that held the replica last.
pub(crate) const PREVIOUS_LEVEL: u8 = 7;
/// Counts of replicas in a failure domain from which on soft anti-affinity sees no difference.
pub(crate) const MAX_COUNT: u16 = 5;

impl JobRules {
    pub(crate) fn new(
        digest: Blake3Digest,
        job: &JobSpec,
        manifest: &Manifest,
        public: &PublicInputs,
    ) -> Result<(Self, Option<JobRefusal>), PlanError> {
        if job.digest() != digest {
            return Err(PlanError::WrongJob(digest));
        }
        job.validate().map_err(|error| PlanError::InvalidJob { job: digest, error })?;
        let (need, dominant, too_large) = match &job.request {
            ResourceRequest::Clear(resources) => match public.policy.scale.request(resources) {
                Ok(quantities) => {
                    let request = quantities.to_array();
                    (Need::Clear(request), largest(request), None)
                }
                Err(error) => (Need::Clear([0; 4]), 0, Some(JobRefusal::TooLarge(error))),
            },
            ResourceRequest::Encrypted(request) => {
                (Need::Encrypted, request.dominant.position(), None)
            }
            _ => return Err(PlanError::UnsupportedRequest { job: digest }),
        };
        let anti_affinity = job.constraints.anti_affinity.as_ref();
        let is = |wanted| anti_affinity.is_some_and(|rule| rule.strength == wanted);
        let labels = |worker: &PeerIdHash| public.labels.get(worker).map_or(&[][..], Vec::as_slice);
        let nothing_said = Profile::default();
        let domains = domains(anti_affinity, manifest, labels);
        let mut running = vec![0u16; domains.iter().max().map_or(0, |last| last + 1)];
        for replica in &public.running {
            if replica.job != digest || replica.state != ReplicaState::Serving {
                continue;
            }
            let worker = manifest.telemetry.binary_search_by_key(&replica.worker, |t| t.sender);
            // A replica whose worker sent no telemetry counts in its failure domain all the same.
            let domain = match worker {
                Ok(worker) => domains.get(worker).copied(),
                Err(_) => same_domain(anti_affinity, labels(&replica.worker), |wanted| {
                    let carries = |t: &&veil_protocol_spec::scheduling::TelemetryEntry| {
                        labels(&t.sender).contains(wanted)
                    };
                    let found = manifest.telemetry.iter().position(|t| carries(&t));
                    found.and_then(|worker| domains.get(worker).copied())
                }),
            };
            if let Some(count) = domain.and_then(|domain| running.get_mut(domain)) {
                *count = count.saturating_add(1);
            }
        }
        let hard = is(Strength::Hard);
        let submitter = public.submitters.get(&job.operator).map_or(&[][..], Vec::as_slice);
        let unfit = |worker: &PeerIdHash, domain: usize| {
            let profile = public.profiles.get(worker).unwrap_or(&nothing_said);
            let taken = hard && running.get(domain).is_some_and(|count| *count > 0);
            let organisation = public.organisations.get(worker);
            let chain = OnChain { labels: labels(worker), organisation, submitter };
            Unfit::of(job, chain, profile)
                .or_else(|| public.closed.contains(worker).then_some(Unfit::Closed))
                .or_else(|| taken.then_some(Unfit::Taken))
        };
        let lacks: Vec<_> = manifest
            .telemetry
            .iter()
            .zip(&domains)
            .map(|(entry, domain)| unfit(&entry.sender, *domain))
            .collect();
        let fits = |(worker, lack): (usize, &Option<_>)| lack.is_none().then_some(worker);
        let mut candidates: Vec<_> = lacks.iter().enumerate().filter_map(fits).collect();
        let workers = manifest.telemetry.len();
        let max_latency = job.constraints.max_latency.filter(|max| max.get() < LatencyClass::MAX);
        // "Minimum candidate set whatever narrowed it." Who is near is encrypted: a job that asks for it
        // narrows them unseen.
        // What is for one worker tells of no other.
        let is_system = job.kind == JobType::System;
        let narrowed = hard || job.constraints.narrow() || candidates.len() < workers;
        let min = if narrowed && !is_system { public.policy.least_candidates(workers) } else { 1 };
        let answered = answered(hard, &candidates, &domains, min);
        if too_large.is_some() {
            candidates.clear();
        }
        let found = candidates.len();
        let refusal = too_large.or_else(|| {
            let unfit = || lacks.into_iter().flatten().collect();
            (answered == 0).then(|| JobRefusal::TooFewCandidates { found, min, unfit: unfit() })
        });
        let rules = Self {
            policy: job.policy,
            need,
            dominant,
            max_latency,
            hard,
            soft: is(Strength::Soft),
            in_turn: job.policy == SchedulingPolicy::PriorityRoundRobin,
            domains,
            running,
            candidates,
            answered,
            home: Home::of(job),
            least: public.policy.least_candidates(workers),
        };
        Ok((rules, refusal))
    }

    /// Who may take a replica of the job that was last at `previous`: a worker, and its position in the
    /// telemetry if it sent any. "A replica with a named volume stays where its volume is"; the answer about
    /// it tells of that worker alone, as its first placement did.
    pub(crate) fn candidates_at_home(&self, previous: Option<Option<usize>>) -> Option<Vec<usize>> {
        match (self.home, previous) {
            (Home::Anywhere, _) | (_, None) | (Home::UntilLost, Some(None)) => None,
            (Home::Bound, Some(None)) => Some(Vec::new()),
            (Home::Bound | Home::UntilLost, Some(Some(home))) => {
                Some(self.candidates.iter().copied().filter(|worker| *worker == home).collect())
            }
        }
    }

    /// The candidates of a replica that is for one worker: that one, if it may take it.
    pub(crate) fn only(&self, only: usize) -> Vec<usize> {
        self.candidates.iter().copied().filter(|worker| *worker == only).collect()
    }

    /// The candidates of a replica but for workers that gave it back; none if that leaves too few, after as many
    /// replicas of the job as are `before` it.
    pub(crate) fn without(
        &self,
        barred: &[usize],
        mut all: Vec<usize>,
        before: usize,
    ) -> Vec<usize> {
        all.retain(|worker| !barred.contains(worker));
        if before < answered(self.hard, &all, &self.domains, self.least) { all } else { Vec::new() }
    }

    /// Whether the candidates that a replica asks are enough after replicas of the job `before` it, each of which
    /// may take those of one failure domain.
    pub(crate) fn leaves_enough<'a>(
        &self,
        asked: &[usize],
        before: impl Iterator<Item = &'a [usize]>,
    ) -> bool {
        let domain = |worker: &usize| self.domains.get(*worker);
        let domains: BTreeSet<_> = asked.iter().filter_map(domain).collect();
        let takes =
            |before: &&[usize]| before.iter().filter_map(domain).any(|d| domains.contains(d));
        before.filter(takes).count() < answered(self.hard, asked, &self.domains, self.least)
    }

    /// Whether a replica of the job stays where it is.
    pub(crate) fn runs_somewhere(&self) -> bool {
        self.running.iter().any(|count| *count > 0)
    }

    /// The level of a feasible worker with `placed` replicas of the job placed in its failure
    /// domain in this slot, 1 to 7.
    pub(crate) fn level(&self, worker: usize, previous: Option<usize>, placed: u16) -> u8 {
        if previous == Some(worker) {
            return PREVIOUS_LEVEL;
        }
        let running = self.domains.get(worker).and_then(|domain| self.running.get(*domain));
        let count =
            if self.soft { placed.saturating_add(running.copied().unwrap_or(0)) } else { 0 };
        PREVIOUS_LEVEL - 1 - count.min(MAX_COUNT) as u8
    }

    /// Whether the dominant resource is compared anyway, by which the best worker has the most of
    /// it: then only the winner's needs to be checked.
    pub(crate) fn dominant_is_checked_last(&self, leveled: bool) -> bool {
        self.policy == SchedulingPolicy::Spread && !leveled
    }
}

/// How many replicas of a job leave enough candidates for the answer: kept apart, each takes those of its
/// failure domain away from the next, and at worst the largest domains are taken first.
fn answered(hard: bool, candidates: &[usize], domains: &[usize], min: usize) -> usize {
    if min <= 1 {
        return usize::MAX;
    }
    if !hard {
        return if candidates.len() < min { 0 } else { usize::MAX };
    }
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for domain in candidates.iter().filter_map(|worker| domains.get(*worker)) {
        *sizes.entry(*domain).or_default() += 1;
    }
    let mut sizes: Vec<_> = sizes.into_values().collect();
    sizes.sort_unstable();
    let mut left = candidates.len();
    let mut answered = 0;
    while left >= min {
        answered += 1;
        left -= sizes.pop().unwrap_or(left);
    }
    answered
}

/// The first resource of which `request` takes the most.
pub(crate) fn largest(request: [u8; RESOURCES]) -> usize {
    let most = request.iter().max();
    request.iter().position(|units| Some(units) == most).unwrap_or(0)
}

/// The failure domain of each worker, counted from 0 without gaps.
fn domains<'a>(
    rule: Option<&AntiAffinity>,
    manifest: &Manifest,
    labels: impl Fn(&PeerIdHash) -> &'a [Label],
) -> Vec<usize> {
    let key = rule.and_then(|rule| match &rule.domain {
        FailureDomain::Worker => None,
        FailureDomain::Label(key) => Some(key),
    });
    let mut by_value: BTreeMap<&Label, usize> = BTreeMap::new();
    let mut next = 0;
    let mut new = || {
        next += 1;
        next - 1
    };
    manifest
        .telemetry
        .iter()
        .map(|entry| match key.and_then(|key| of_key(labels(&entry.sender), key)) {
            None => new(),
            Some(label) => *by_value.entry(label).or_insert_with(&mut new),
        })
        .collect()
}

fn of_key<'a>(labels: &'a [Label], key: &LabelKey) -> Option<&'a Label> {
    labels.iter().find(|label| label.key == *key)
}

fn same_domain(
    rule: Option<&AntiAffinity>,
    labels: &[Label],
    find: impl Fn(&Label) -> Option<usize>,
) -> Option<usize> {
    match rule.map(|rule| &rule.domain) {
        Some(FailureDomain::Label(key)) => find(of_key(labels, key)?),
        Some(FailureDomain::Worker) | None => None,
    }
}
