//! What the next manifest must list: the proposer writes it, the others compare.
//!
//! # Rules
//! 1. A job is wanted if an operator has submitted it and not withdrawn it. If its body is known, only the
//!    submissions of the operator that it names count, and of those the first.
//!    What has a place of a job that is not wanted leaves it.
//! 2. A replica wants a place if it has none, or its worker is drained, or its worker is lost: at once
//!    under [`LeasePolicy::Keep`](super::super::LeasePolicy::Keep), else when the wait is over
//!    (`leases.md`). It keeps the place that it has until it gets another.
//! 3. A job is not considered while [`NotConsidered`] holds.
//! 4. Replicas that found no place wait ([`Turn`]). Those that wait for nothing are listed, with those that
//!    may come along; if there are none, all that wait.
//! 5. If that is more than a slot takes, operators take turns, in an order that is drawn anew after each
//!    certificate that is not void, first with what waits for nothing. Within an operator's share the order
//!    is by priority, then replicas that had a place before new ones, then by a lot among the jobs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use serde::{Deserialize, Serialize};

use super::{ClusterState, tries::Turn};
use crate::{
    domain::{self, hash_parts},
    ids::{Address, Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
    scheduling::{
        demand::{JobDemand, LEAK_WINDOW_BLOCKS, NotConsidered, bits_of_try, most_replicas},
        manifest::{LeavingReplica, MAX_PENDING, MAX_RUNNING, PendingReplica},
    },
};

/// One submission as the chain orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Position in the chain's order.
    pub position: u64,
    /// [`JobSpec::digest`](super::super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Who submitted it.
    pub operator: Address,
    /// Bits that the placement of its replicas may tell about others' load, within
    /// [`LEAK_WINDOW_BLOCKS`].
    pub leak_bits: u32,
    /// Whether the operator has withdrawn it.
    pub cancelled: bool,
}

/// What the lists follow from, besides the state.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a function among them cannot be shown")]
pub struct NextInputs<'a> {
    /// All of the cluster's as of the manifest's block.
    pub submissions: &'a [Submission],
    /// What a job wants whose body is known.
    pub jobs: &'a dyn Fn(&Blake3Digest) -> Option<JobDemand>,
    /// The jobs of which replicas may be listed as pending; all that are known if it is `None`.
    pub only: Option<&'a BTreeSet<Blake3Digest>>,
    /// The manifest's lost workers, and [`LostWorker::lost_for`](super::super::LostWorker::lost_for).
    pub lost: &'a BTreeMap<PeerIdHash, u32>,
    /// Workers that are to be left.
    pub draining: &'a BTreeSet<PeerIdHash>,
    /// The workers whose telemetry the manifest lists.
    pub telemetry: &'a BTreeSet<PeerIdHash>,
    /// Number of the manifest's block.
    pub block: u64,
    /// Digest of the manifest's policy.
    pub policy: KeccakDigest,
}

/// What the manifest of the next slot must list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextReplicas {
    /// [`Manifest::pending`](super::super::Manifest::pending).
    pub pending: Vec<PendingReplica>,
    /// [`Manifest::leaving`](super::super::Manifest::leaving).
    pub leaving: Vec<LeavingReplica>,
    /// How many replicas keep their place, at least until they have another one.
    pub staying: usize,
    /// Jobs whose body is not known here, so that their number of replicas is unknown. A
    /// voter gets them before it validates a manifest.
    pub unknown: Vec<Blake3Digest>,
    /// Jobs that want a place and are not considered.
    pub not_considered: BTreeMap<Blake3Digest, NotConsidered>,
    /// If all that is pending was tried before and nothing has changed since: how often at least.
    pub failures: Option<u8>,
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

impl ClusterState {
    /// What the next manifest must list, by the rules of this module.
    #[must_use]
    pub fn next_replicas(&self, inputs: &NextInputs<'_>) -> NextReplicas {
        let mut next = NextReplicas::default();
        let wanted = wanted(inputs);
        let leaves = self.replicas.keys().filter(|(job, _)| !wanted.contains_key(job));
        next.leaving = leaves.map(|&(job, replica)| LeavingReplica { job, replica }).collect();
        next.staying = self.replicas.len() - next.leaving.len();
        let mut wants = Vec::new();
        for (&job, Wanted { submission, demand }) in &wanted {
            if inputs.only.is_some_and(|only| !only.contains(&job)) {
                continue;
            }
            match demand {
                Some(demand) => wants.push(self.wants(submission, *demand, inputs)),
                None => next.unknown.push(job),
            }
        }
        wants.retain(|wants| wants.listed(false) > 0);
        // A job that may not be tried now is no reason for a slot either.
        let is_considered = |wants: &Wants<'_>, any_now| self.consider(wants, any_now, inputs);
        let any_now =
            wants.iter().any(|wants| !wants.now.is_empty() && is_considered(wants, true).is_ok());
        wants.retain(|wants| match is_considered(wants, any_now) {
            Ok(()) => true,
            Err(reason) => {
                next.not_considered.insert(wants.submission.job, reason);
                false
            }
        });
        next.pending = self.take_turns(&wants, any_now, inputs, next.staying);
        let failures = |pending: &PendingReplica| {
            self.tries.tried.get(&(pending.job, pending.replica)).map_or(0, |tried| tried.failures)
        };
        next.failures = next.pending.iter().map(failures).min().filter(|_| !any_now);
        next
    }

    /// Rules 2 and 4.
    fn wants<'a>(
        &self,
        submission: &'a Submission,
        demand: JobDemand,
        inputs: &NextInputs<'_>,
    ) -> Wants<'a> {
        let job = submission.job;
        let all_wake = self.tries.all_wake(inputs.telemetry, inputs.policy);
        // Slots that ended void are not counted: after them the same replicas are listed.
        let slot = Slot(self.decided.0.0 + 1);
        let (now, along, later) = (Vec::new(), Vec::new(), Vec::new());
        let mut wants = Wants { submission, demand, now, along, later };
        let placed = self.replicas.range((job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX)));
        let mut indices: BTreeSet<_> = placed.map(|((_, replica), _)| *replica).collect();
        indices.extend((0..demand.replicas).map(ReplicaIndex));
        for replica in indices {
            let serves = self.replicas.get(&(job, replica)).is_some_and(|placement| {
                let worker = &placement.worker;
                match inputs.lost.get(worker) {
                    Some(lost_for) => !self.may_leave(worker, *lost_for, &demand),
                    None => !inputs.draining.contains(worker),
                }
            });
            if serves {
                continue;
            }
            match self.tries.turn(&(job, replica), slot, all_wake) {
                Turn::Now => wants.now.push(replica),
                Turn::Along => wants.along.push(replica),
                Turn::Later => wants.later.push(replica),
            }
        }
        wants
    }

    /// "An exclusive replica is placed again only after lost-since + lease + margin."
    fn may_leave(&self, worker: &PeerIdHash, lost_for: u32, demand: &JobDemand) -> bool {
        let wait = demand.lease.wait_seconds();
        wait.is_none_or(|wait| self.lost.contains_key(worker) && lost_for >= wait)
    }

    /// Rule 3.
    fn consider(
        &self,
        wants: &Wants<'_>,
        any_now: bool,
        inputs: &NextInputs<'_>,
    ) -> Result<(), NotConsidered> {
        if let Some(refused) = wants.demand.refused {
            return Err(refused);
        }
        let told = self.tries.told(&wants.submission.job, inputs.block);
        let replicas = u32::try_from(wants.listed(any_now)).unwrap_or(u32::MAX);
        let needed = bits_of_try(inputs.telemetry.len()).saturating_mul(replicas);
        let stated = wants.submission.leak_bits;
        if told.bits.saturating_add(needed) > stated {
            let (since, until) = (told.since, told.since.saturating_add(LEAK_WINDOW_BLOCKS));
            return Err(NotConsidered::LeakBits { stated, told: told.bits, needed, since, until });
        }
        Ok(())
    }

    /// Rule 5.
    fn take_turns(
        &self,
        wants: &[Wants<'_>],
        any_now: bool,
        inputs: &NextInputs<'_>,
        staying: usize,
    ) -> Vec<PendingReplica> {
        let seed = self.seed();
        let lot = |what: &[u8]| hash_parts(domain::FAIR_SHARE, &[&seed.0, what]);
        let is_new = |p: &PendingReplica| !self.replicas.contains_key(&(p.job, p.replica));
        let most = most_replicas(inputs.telemetry.len(), self.voids()).min(MAX_PENDING);
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
                    let one = PendingReplica { submission: position, job, replica };
                    let share = shares.entry(operator).or_default();
                    share.insert((priority, is_new(&one), of_job, replica), one);
                }
            }
            let by_lot = shares.into_iter().map(|(operator, share)| {
                (lot(operator.as_bytes()), share.into_values().collect::<VecDeque<_>>())
            });
            let mut queues: BTreeMap<_, _> = by_lot.collect();
            while pending.len() < most && !queues.is_empty() {
                for queue in queues.values_mut() {
                    let fits = |one: &PendingReplica| room_for_new > 0 || !is_new(one);
                    if let Some(at) = queue.iter().position(fits)
                        && let Some(one) = queue.drain(..=at).next_back()
                        && pending.len() < most
                    {
                        room_for_new -= usize::from(is_new(&one));
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
