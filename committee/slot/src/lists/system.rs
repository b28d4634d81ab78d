//! Which workers a system job has a replica on.
//!
//! # Rules
//! 1. A worker gets a replica of a system job if the manifest names its telemetry and it [fits](Fit::Fits): it is
//!    registered and given new work, it is what the job asks for and accepts it, and it has not given the job back
//!    lately. The replica is for that worker, and the manifest says so: none goes elsewhere.
//! 2. The index of a worker's replica is the one that the worker has, or had, in the job's line: by its place, by the
//!    one that has left for an update, by what it gave back, or by the last try. A worker that has none gets the lowest
//!    that no other has.
//! 3. A replica leaves a worker that is not registered any more, or that has telemetry in the manifest and does not fit
//!    the wanted version. It stays on a worker that is lost or silent, and on one that is given nothing more. A drained
//!    worker gives it back when it has stopped it, as what is evicted.
//! 4. What leaves by rule 3 depends on the body of the job. A manifest that lists nothing of a job by it is no
//!    objection: its proposer may not know that body.
//! 5. An update goes from worker to worker: an earlier version's replica leaves the worker on which the wanted one's is
//!    healthy. A lost worker holds it up on no other.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{GivenBack, LeavingReplica, MAX_RUNNING},
};

use super::{Lists, NextReplicas, Wanted};
use crate::{
    fit::{Fit, Workers},
    rollout::Rollouts,
};

/// The workers of each system job that is wanted and whose body is known.
pub(super) type OfSystem = BTreeMap<Blake3Digest, Workers>;

/// Who has, had or is to have a replica.
#[derive(Default)]
struct Indices {
    taken: BTreeMap<ReplicaIndex, PeerIdHash>,
    of: BTreeMap<PeerIdHash, ReplicaIndex>,
}

impl Indices {
    fn take(&mut self, replica: ReplicaIndex, worker: PeerIdHash) {
        if let Entry::Vacant(free) = self.taken.entry(replica) {
            free.insert(worker);
            self.of.entry(worker).or_insert(replica);
        }
    }
}

impl Lists<'_> {
    /// The versions of a job that are system jobs, itself first.
    fn versions_of(rollouts: &Rollouts<'_>, job: Blake3Digest) -> Vec<Blake3Digest> {
        let others = rollouts.line_of(&job).into_iter().flat_map(|(_, line)| line.versions());
        let others = others.filter(|version| version.terms.is_system() && version.job != job);
        [job].into_iter().chain(others.map(|version| version.job)).collect()
    }

    /// Rules 1 and 2, for a job whose body is known.
    fn workers_of(&self, rollouts: &Rollouts<'_>, job: Blake3Digest) -> Workers {
        let (state, versions) = (self.state, Self::versions_of(rollouts, job));
        let mut indices = Indices::default();
        for version in &versions {
            for replica in state.replicas_of(*version) {
                if let Some(placement) = state.placement(*version, replica) {
                    indices.take(replica, placement.worker);
                }
            }
        }
        for (replica, worker) in state.homes_of(job) {
            indices.take(replica, worker);
        }
        // As if slots that ended void had not been.
        let next = Slot(state.last_decided().0 + 1);
        let mut barred = BTreeSet::new();
        for version in &versions {
            for (replica, returned) in state.returned_of(*version) {
                indices.take(replica, returned.placement.worker);
                if returned.bars(next, self.inputs.block) {
                    barred.insert(returned.placement.worker);
                }
            }
        }
        // What the manifest gives back has stopped, and bars as well.
        for (worker, words) in self.inputs.given_back {
            let of_place = |word: &&GivenBack| {
                let place = state.placement(word.job, word.replica);
                place.is_some_and(|at| at.worker == *worker && at.slot == word.placed)
            };
            let keeps_away =
                |word: &&GivenBack| word.reason.keeps_away() && versions.contains(&word.job);
            let mut words = words.iter().filter(keeps_away);
            if words.any(|word| of_place(&word)) {
                barred.insert(*worker);
            }
        }
        for (replica, worker) in state.tried_at(job) {
            indices.take(replica, worker);
        }
        let fits = |worker: &&PeerIdHash| {
            (self.inputs.fit)(&job, worker) == Fit::Fits
                && !self.inputs.draining.contains(*worker)
                && !barred.contains(*worker)
        };
        let mut workers = Workers::new();
        let mut free = (0..=u16::MAX).map(ReplicaIndex);
        for &worker in self.inputs.telemetry.iter().filter(fits) {
            let known = indices.of.get(&worker).copied();
            let index = known.or_else(|| free.find(|index| !indices.taken.contains_key(index)));
            workers.extend(index.map(|index| (index, worker)));
        }
        workers
    }

    /// Rules 1 to 3 and 5: the workers of each system job, and what leaves.
    pub(super) fn system(
        &self,
        rollouts: &Rollouts<'_>,
        wanted: &BTreeMap<Blake3Digest, Wanted<'_>>,
        next: &mut NextReplicas,
    ) -> OfSystem {
        let mut of_system = OfSystem::new();
        let is_known = |job: &Blake3Digest| {
            wanted.get(job).is_some_and(|Wanted { demand, .. }| demand.is_some())
        };
        // Jobs without versions, and the wanted ones of those with versions.
        let alone = wanted.iter().filter_map(|(job, Wanted { demand, .. })| {
            let may_be = demand.as_ref().is_none_or(|demand| demand.is_system());
            (may_be && rollouts.line_of(job).is_none()).then_some((*job, None))
        });
        let lines = rollouts.system_lines();
        let lines = lines.map(|(line, target)| (target.job, Some((line, target))));
        let mut leaving = Vec::new();
        for (job, version) in alone.chain(lines) {
            if !wanted.contains_key(&job) {
                continue;
            }
            let versions = Self::versions_of(rollouts, job);
            if !is_known(&job) {
                next.unknown.extend(self.lists_more(&versions, next).then_some(job));
                continue;
            }
            let workers = self.workers_of(rollouts, job);
            let mut leaves = Vec::new();
            for &version in &versions {
                for replica in self.state.replicas_of(version) {
                    let Some(placement) = self.state.placement(version, replica) else { continue };
                    let one = LeavingReplica { job: version, replica };
                    let goes = (self.inputs.fit)(&job, &placement.worker).ends();
                    if goes && next.leaving.binary_search(&one).is_err() {
                        leaves.push(one);
                    }
                }
            }
            if let Some((line, target)) = version {
                let goes = |job, replica| {
                    let one = LeavingReplica { job, replica };
                    leaves.contains(&one) || next.leaving.binary_search(&one).is_ok()
                };
                let telemetry = self.inputs.telemetry;
                let stops = rollouts.system_stops(line, target, &workers, telemetry, goes);
                let has = |replica: &ReplicaIndex, worker: &PeerIdHash| {
                    workers.get(replica) == Some(worker)
                };
                // Nobody waits any more for a worker that does not get it.
                let homes = self.state.homes_of(job).filter(|(replica, worker)| {
                    let fit = (self.inputs.fit)(&job, worker);
                    fit == Fit::Gone || telemetry.contains(worker) && !has(replica, worker)
                });
                let homes = homes.map(|(replica, _)| LeavingReplica { job, replica });
                leaves.extend(stops.into_iter().chain(homes));
            }
            leaves.retain(|one| next.leaving.binary_search(one).is_err());
            if self.inputs.judged.is_none_or(|judged| {
                leaves.iter().any(|one| judged.leaving.binary_search(one).is_ok())
            }) {
                leaving.extend(leaves);
            }
            of_system.insert(job, workers);
        }
        leaving.sort_unstable();
        leaving.dedup();
        leaving.truncate(MAX_RUNNING.saturating_sub(next.leaving.len()));
        let placed = leaving.iter().filter(|of| self.state.placement(of.job, of.replica).is_some());
        next.staying = next.staying.saturating_sub(placed.count());
        next.leaving.append(&mut leaving);
        next.leaving.sort_unstable();
        of_system
    }

    /// Whether a manifest that is judged lists more of these jobs as leaving than follows without their bodies.
    fn lists_more(&self, versions: &[Blake3Digest], next: &NextReplicas) -> bool {
        self.inputs.judged.is_some_and(|judged| {
            let of_them = |one: &&LeavingReplica| versions.contains(&one.job);
            let mut listed = judged.leaving.iter().filter(of_them);
            listed.any(|one| next.leaving.binary_search(one).is_err())
        })
    }

    /// Says of each pending replica of a system job which worker it is for.
    pub(super) fn name_workers(&self, of_system: &OfSystem, next: &mut NextReplicas) {
        let telemetry: Vec<_> = self.inputs.telemetry.iter().collect();
        for pending in &mut next.pending {
            let worker = of_system.get(&pending.job).and_then(|of| of.get(&pending.replica));
            let at = worker.and_then(|worker| telemetry.binary_search(&worker).ok());
            pending.only = at.and_then(|at| u16::try_from(at).ok());
        }
    }
}
