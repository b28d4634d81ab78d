//! What the next manifest must list: the proposer writes it, the others compare.
//!
//! [`next_replicas`] is the same for everybody who knows the bodies of the jobs that are listed.
//!
//! # Rules
//! 1. A job is wanted if an operator has submitted it and not withdrawn it. If its body is known, only the
//!    submissions of the operator that it names count, and of those the first.
//!    What has a place of a job that is not wanted leaves it. Nor is a job wanted whose image the chain does not
//!    allow as of the manifest's block.
//! 2. A replica wants a place if it has none, or its worker is drained or gives it back (exclusive ones and those of
//!    batch jobs stay until it has stopped them), or its worker is lost: at once under
//!    [`LeasePolicy::Keep`](veil_protocol_spec::scheduling::LeasePolicy::Keep), else when the wait is
//!    over (`leases.md`). It keeps the place that it has until it gets another.
//! 3. A job is not considered while [`NotConsidered`] holds.
//! 4. Replicas that found no place wait ([`turn`]). Those that wait for nothing are listed, with those that
//!    may come along; if there are none, all that wait.
//! 5. If that is more than a slot takes, operators take turns, in an order that is drawn anew after each
//!    certificate that is not void, first with what waits for nothing. Within an operator's share the order
//!    is by priority, then replicas that had a place before new ones, then by a lot among the jobs.
//! 6. A replica of a batch job is done if the telemetry of the worker that has it says that it has ended. It
//!    leaves its place, and never wants one again as long as its job is wanted.
//! 7. A replica is given back if the telemetry of the worker that has it says so (`given_back`). One that the worker
//!    has stopped has no place any more. What is given back again and again waits before it is tried ([`turn`]).
//! 8. Replicas of a periodic job want a place in a run alone, which begins at one of its times (`lists/due.rs`).
//! 9. Of the versions of a job those replicas want a place, and those leave theirs, that [`rollout`](crate::rollout)
//!    says. While a job of an operator has a place and its body is not known, none of its jobs that is no version
//!    yet gets one: it could be one.
//! 10. Each worker that may run a system job wants one replica of it, and no other takes that (`system`).
//! 11. A job with a sealed part is not considered while t+1 different workers are remembered that could not use it
//!     (`sealed.md`, step 10).

mod done;
mod due;
mod given_back;
mod system;
mod versions;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use veil_protocol_spec::{
    Address, Blake3Digest, Committee, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    domain::{self, hash_parts},
    scheduling::{
        ClusterState, EndedReplica, GivenBack, LEAK_WINDOW_BLOCKS, LeavingReplica, MAX_PENDING,
        MAX_RUNNING, PendingReplica, ReplicaHealth, Returned, RolloutChanges, RunChange, Sampling,
        Submission, bits_of_try,
    },
};
use veil_scheduler_plan::cost::{most_pairs, pairs_of};

use crate::{
    demand::{JobDemand, NotConsidered, wait_seconds},
    fit::Fit,
    judged::Judged,
    rollout::Rollouts,
    tries::{Turn, failures, turn},
};

/// What each worker says has ended, as its telemetry lists it.
pub type Ended = BTreeMap<PeerIdHash, Arc<[EndedReplica]>>;
/// How replicas fare that were placed in updates, as the telemetry of each worker says.
pub type Health = BTreeMap<PeerIdHash, Arc<[ReplicaHealth]>>;

/// What each worker gives back, as its telemetry lists it.
pub type Words = BTreeMap<PeerIdHash, Arc<[GivenBack]>>;

/// What the lists follow from, besides the state.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a function among them cannot be shown")]
pub struct NextInputs<'a> {
    /// All of the cluster's as of the manifest's block.
    pub submissions: &'a [Submission],
    /// What a job wants whose body is known.
    pub jobs: &'a dyn Fn(&Blake3Digest) -> Option<JobDemand>,
    /// The manifest that is judged; `None` for one that is to be written.
    pub judged: Option<Judged<'a>>,
    /// The manifest's lost workers, and for how long they are:
    /// [`LostWorker::lost_for`](veil_protocol_spec::scheduling::LostWorker::lost_for).
    pub lost: &'a BTreeMap<PeerIdHash, u32>,
    /// Workers that are to be left.
    pub draining: &'a BTreeSet<PeerIdHash>,
    /// The workers whose telemetry the manifest lists.
    pub telemetry: &'a BTreeSet<PeerIdHash>,
    /// What that telemetry says has ended.
    pub ended: &'a Ended,
    /// And how those fare that were placed in updates.
    pub health: &'a Health,
    /// Number of the manifest's block.
    pub block: u64,
    /// Digest of the manifest's policy.
    pub policy: KeccakDigest,
    /// How many candidates it lets a try ask.
    pub sampling: Sampling,
    /// What that telemetry gives back.
    pub given_back: &'a Words,
    /// The operators of workers that are registered as of the manifest's block.
    pub owners: &'a BTreeMap<PeerIdHash, Address>,
    /// Size of the committee.
    pub committee: Committee,
    /// Whether a worker may run a system job whose body is known.
    pub fit: &'a dyn Fn(&Blake3Digest, &PeerIdHash) -> Fit,
}

/// What the manifest of the next slot must list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextReplicas {
    /// [`Manifest::pending`](veil_protocol_spec::scheduling::Manifest::pending).
    pub pending: Vec<PendingReplica>,
    /// [`Manifest::leaving`](veil_protocol_spec::scheduling::Manifest::leaving).
    pub leaving: Vec<LeavingReplica>,
    /// [`Manifest::done`](veil_protocol_spec::scheduling::Manifest::done).
    pub done: Vec<EndedReplica>,
    /// [`Manifest::rollouts`](veil_protocol_spec::scheduling::Manifest::rollouts).
    pub rollouts: RolloutChanges,
    /// [`Manifest::runs`](veil_protocol_spec::scheduling::Manifest::runs).
    pub runs: Vec<RunChange>,
    /// How many replicas keep their place, at least until they have another one.
    pub staying: usize,
    /// Jobs whose body is not known here, so that their number of replicas is unknown. A
    /// voter gets them before it validates a manifest.
    pub unknown: Vec<Blake3Digest>,
    /// Jobs that want a place and are not considered.
    pub not_considered: BTreeMap<Blake3Digest, NotConsidered>,
    /// If all that is pending was tried before and nothing has changed since: how often at least.
    pub failures: Option<u8>,
    /// [`Manifest::given_back`](veil_protocol_spec::scheduling::Manifest::given_back).
    pub given_back: Vec<GivenBack>,
}

/// A wanted job.
struct Wanted<'a> {
    submission: &'a Submission,
    demand: Option<JobDemand>,
}

/// The replicas of a job that want a place.
struct Wants<'a> {
    submission: &'a Submission,
    demand: JobDemand,
    now: Vec<ReplicaIndex>,
    along: Vec<ReplicaIndex>,
    later: Vec<ReplicaIndex>,
}

impl Wants<'_> {
    /// Those that come with others, or of which nobody waits for nothing.
    fn rest(&self, any_now: bool) -> impl Iterator<Item = ReplicaIndex> + '_ {
        let later = self.later.iter().filter(move |_| !any_now);
        self.along.iter().chain(later).copied()
    }

    fn listed(&self, any_now: bool) -> usize {
        self.now.len() + self.rest(any_now).count()
    }
}

/// The order within an operator's share.
type Share = (Reverse<u8>, bool, [u8; 32], ReplicaIndex);

/// What the next manifest must list, by the rules of this module.
#[must_use]
pub fn next_replicas(state: &ClusterState, inputs: &NextInputs<'_>) -> NextReplicas {
    let lists = Lists { state, inputs };
    let mut next = NextReplicas::default();
    let mut wanted = wanted(inputs);
    // Before what is revoked counts as not wanted: an image may be allowed again.
    lists.done(&wanted, &mut next);
    let rollouts = Rollouts::new(state, inputs.submissions);
    wanted.retain(|job, _| !rollouts.is_withdrawn(job));
    let submitted: BTreeSet<_> =
        wanted.keys().copied().filter(|job| !rollouts.is_over(job)).collect();
    // "Revocation stops what runs": such a job wants nothing any more, until its image is allowed again.
    wanted.retain(|job, Wanted { demand, .. }| {
        let image = demand.as_ref().and_then(|demand| demand.refused);
        let refused = image.filter(NotConsidered::is_of_image);
        next.not_considered.extend(refused.map(|reason| (*job, reason)));
        refused.is_none()
    });
    lists.due(&rollouts, &wanted, |job| submitted.contains(job), &mut next);
    let replaced = rollouts.leaving();
    for (job, replica, _) in state.replicas() {
        if next.becomes_done(job, replica) {
            continue;
        }
        let stays = wanted.contains_key(&job) && !next.begins(&job);
        if stays && !replaced.contains(&LeavingReplica { job, replica }) {
            next.staying += 1;
        } else {
            next.leaving.push(LeavingReplica { job, replica });
        }
    }
    lists.forgotten(|job| submitted.contains(job), &mut next.leaving);
    let of_system = lists.system(&rollouts, &wanted, &mut next);
    lists.given_back(&mut next);
    let listed = lists.versions(&rollouts, &wanted, &of_system, &mut next);
    let all_wake = state.is_woken_by(inputs.telemetry, inputs.policy);
    let mut wants = Vec::new();
    for (&job, Wanted { submission, demand }) in &wanted {
        if inputs.judged.is_some_and(|judged| !judged.pending.contains(&job)) {
            continue;
        }
        let Some(demand) = demand else {
            next.unknown.push(job);
            continue;
        };
        if !lists.is_run(&job, demand, &mut next) {
            continue;
        }
        if let Some(indices) =
            lists.indices(&listed, &wanted, &of_system, submission, demand, &mut next)
        {
            wants.push(lists.wants(submission, *demand, indices, all_wake, &next));
        }
    }
    wants.retain(|wants| wants.listed(false) > 0);
    // A job that may not be tried now is no reason for a slot either.
    let may_be_tried = |wants: &Wants<'_>| lists.consider(wants, true, &next).is_ok();
    let any_now = wants.iter().any(|wants| !wants.now.is_empty() && may_be_tried(wants));
    wants.retain(|wants| match lists.consider(wants, any_now, &next) {
        Ok(()) => true,
        Err(reason) => {
            next.not_considered.insert(wants.submission.job, reason);
            false
        }
    });
    next.pending = lists.take_turns(&wants, any_now, next.staying);
    lists.name_workers(&of_system, &mut next);
    let failures = |of: &PendingReplica| {
        let returned = lists.returned(of.job, of.replica, &next);
        failures(state, of.job, of.replica, returned.as_ref())
    };
    next.failures = next.pending.iter().map(&failures).min().filter(|_| !any_now);
    next
}

/// What the rules are applied to.
struct Lists<'a> {
    state: &'a ClusterState,
    inputs: &'a NextInputs<'a>,
}

impl Lists<'_> {
    /// Rules 2, 4 and 6.
    fn wants<'a>(
        &self,
        submission: &'a Submission,
        demand: JobDemand,
        indices: BTreeSet<ReplicaIndex>,
        all_wake: bool,
        next: &NextReplicas,
    ) -> Wants<'a> {
        let (state, job) = (self.state, submission.job);
        let (now, along, later) = (Vec::new(), Vec::new(), Vec::new());
        let mut wants = Wants { submission, demand, now, along, later };
        for replica in indices {
            if state.is_done(job, replica) || next.becomes_done(job, replica) {
                continue;
            }
            if self.serves((job, replica), &demand, next) {
                continue;
            }
            let returned = self.returned(job, replica, next);
            match turn(state, job, replica, all_wake, returned.as_ref()) {
                Turn::Now => wants.now.push(replica),
                Turn::Along => wants.along.push(replica),
                Turn::Later => wants.later.push(replica),
            }
        }
        wants
    }

    /// How a replica was given back last, by the manifest too.
    fn returned(
        &self,
        job: Blake3Digest,
        replica: ReplicaIndex,
        next: &NextReplicas,
    ) -> Option<Returned> {
        self.state.returned_with(&next.given_back, self.at(), (job, replica))
    }

    /// The slot that is listed for, and its block.
    fn at(&self) -> (Slot, u64) {
        (Slot(self.state.last_slot().0 + 1), self.inputs.block)
    }

    /// Rule 11.
    fn opens(&self, wants: &Wants<'_>, next: &NextReplicas) -> Result<(), NotConsidered> {
        let needed = self.inputs.committee.reconstruction_threshold().get();
        let closed_to = || self.state.closed_to(&next.given_back, self.at(), wants.submission.job);
        let workers = if wants.demand.is_sealed { closed_to().len() } else { 0 };
        if workers < needed { Ok(()) } else { Err(NotConsidered::SealedPart { workers, needed }) }
    }

    /// Whether a replica has a place and stays there.
    fn serves(
        &self,
        (job, replica): (Blake3Digest, ReplicaIndex),
        demand: &JobDemand,
        next: &NextReplicas,
    ) -> bool {
        let Some(placement) = self.state.placement(job, replica) else { return false };
        let (worker, word) = (&placement.worker, next.word(job, replica));
        let stays = match self.inputs.lost.get(worker) {
            Some(lost_for) => demand.is_system() || !self.may_leave(worker, *lost_for, demand),
            None => {
                let is_back = self.state.is_given_back(job, replica) || word.is_some();
                demand.stops_first() || !(is_back || self.inputs.draining.contains(worker))
            }
        };
        stays && !word.is_some_and(|word| word.has_stopped)
    }

    /// "An exclusive replica is placed again only after lost-since + lease + margin."
    fn may_leave(&self, worker: &PeerIdHash, lost_for: u32, demand: &JobDemand) -> bool {
        let is_lost = || self.state.lost_since(worker).is_some();
        wait_seconds(demand.lease).is_none_or(|wait| is_lost() && lost_for >= wait)
    }

    /// "A replica asks a sample, a wider one, then all": most candidates of its next try.
    fn candidates(&self, wants: &Wants<'_>, replica: ReplicaIndex) -> u16 {
        if wants.demand.is_system() {
            return 1;
        }
        self.inputs.sampling.of_try(self.state.failed(wants.submission.job, replica))
    }

    /// How many of the manifest's workers that are at most.
    fn asked(&self, candidates: u16) -> usize {
        self.inputs.telemetry.len().min(candidates.into())
    }

    /// Rule 3.
    fn consider(
        &self,
        wants: &Wants<'_>,
        any_now: bool,
        next: &NextReplicas,
    ) -> Result<(), NotConsidered> {
        if let Some(refused) = wants.demand.refused {
            return Err(refused);
        }
        self.opens(wants, next)?;
        let (told, since) = self.state.told(&wants.submission.job, self.inputs.block);
        let bits = |replica| bits_of_try(self.asked(self.candidates(wants, replica)));
        let listed = wants.now.iter().copied().chain(wants.rest(any_now));
        let needed = listed.map(bits).fold(0, u32::saturating_add);
        let stated = wants.submission.leak_bits;
        if told.saturating_add(needed) > stated {
            let until = since.saturating_add(LEAK_WINDOW_BLOCKS);
            return Err(NotConsidered::LeakBits { stated, told, needed, since, until });
        }
        Ok(())
    }

    /// Rule 5.
    fn take_turns(
        &self,
        wants: &[Wants<'_>],
        any_now: bool,
        staying: usize,
    ) -> Vec<PendingReplica> {
        let seed = self.state.seed();
        let lot = |what: &[u8]| hash_parts(domain::FAIR_SHARE, &[&seed.0, what]);
        let is_new = |p: &PendingReplica| self.state.placement(p.job, p.replica).is_none();
        let mut pairs_left = most_pairs(self.state.voids());
        // What has a place takes no more room.
        let mut room_for_new = MAX_RUNNING.saturating_sub(staying);
        let mut pending = Vec::new();
        for first in [true, false] {
            let mut shares: BTreeMap<Address, BTreeMap<Share, PendingReplica>> = BTreeMap::new();
            for wants in wants {
                let &Submission { position, job, operator, .. } = wants.submission;
                let (priority, of_job) = (Reverse(wants.demand.priority.0), lot(job.as_bytes()));
                let now = wants.now.iter().copied().filter(|_| first);
                for replica in now.chain(wants.rest(any_now).filter(|_| !first)) {
                    let candidates = self.candidates(wants, replica);
                    let submission = position;
                    let one = PendingReplica { submission, job, replica, only: None, candidates };
                    let share = shares.entry(operator).or_default();
                    share.insert((priority, is_new(&one), of_job, replica), one);
                }
            }
            let by_lot = shares.into_iter().map(|(operator, share)| {
                (lot(operator.as_bytes()), share.into_values().collect::<VecDeque<_>>())
            });
            let mut queues: BTreeMap<_, _> = by_lot.collect();
            while pending.len() < MAX_PENDING && !queues.is_empty() {
                for queue in queues.values_mut() {
                    // What does not fit now does not later in this slot. One replica always does.
                    let fits = |one: &PendingReplica| {
                        let costs = pairs_of(self.asked(one.candidates));
                        (room_for_new > 0 || !is_new(one))
                            && (pending.is_empty() || costs <= pairs_left)
                    };
                    if let Some(at) = queue.iter().position(fits)
                        && let Some(one) = queue.drain(..=at).next_back()
                        && pending.len() < MAX_PENDING
                    {
                        room_for_new -= usize::from(is_new(&one));
                        let costs = pairs_of(self.asked(one.candidates));
                        pairs_left = pairs_left.saturating_sub(costs);
                        pending.push(one);
                    } else {
                        queue.clear();
                    }
                }
                queues.retain(|_, queue| !queue.is_empty());
            }
        }
        pending.sort_unstable_by_key(|p| (p.submission, p.replica));
        pending
    }
}

/// Rule 1.
fn wanted<'a>(inputs: &NextInputs<'a>) -> BTreeMap<Blake3Digest, Wanted<'a>> {
    let mut by_job: BTreeMap<Blake3Digest, Vec<&Submission>> = BTreeMap::new();
    for submission in inputs.submissions {
        by_job.entry(submission.job).or_default().push(submission);
    }
    by_job
        .into_iter()
        .filter_map(|(job, submissions)| {
            let demand = (inputs.jobs)(&job);
            let submissions = submissions.into_iter();
            let submission = match &demand {
                Some(demand) => submissions
                    .filter(|submission| submission.operator == demand.operator)
                    .min_by_key(|submission| submission.position)
                    .filter(|submission| !submission.cancelled),
                None => submissions.filter(|s| !s.cancelled).min_by_key(|s| s.position),
            };
            Some((job, Wanted { submission: submission?, demand }))
        })
        .collect()
}

#[cfg(test)]
mod tests;
