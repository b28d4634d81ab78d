//! What a manifest must say, given what a member knows: the proposer writes it, the others compare.
//!
//! A member votes only for a manifest that includes every live registered worker whose fresh telemetry it has
//! (`protocol-spec/slot.md`, 3).
//!
//! # Flow
//! A [`LocalView`] is taken once for each manifest, as of the block that it names. [`LocalView::propose`] gives the only
//! manifest that it allows, up to the choice of telemetry among messages of one worker; [`LocalView::validate_facts`]
//! and [`LocalView::validate_lists`] name the first difference as an [`InvalidManifest`].

mod cost;
mod invalid;
mod lost;
mod said;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use veil_protocol_spec::{
    Address, Blake3Digest, Committee, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity,
    Slot, domain,
    scheduling::{
        Binding, BlockRef, CircuitId, ClusterState, EndedReplica, GivenBack, LostWorker, MAX_LOST,
        Manifest, Profile, ReplicaHealth, Sampling, SignedSuspicion, Submission, TelemetryEntry,
        UnixMillis,
    },
};
use veil_scheduler_plan::inputs::PlanError;

use crate::{
    demand::JobDemand,
    fit::Fit,
    judged::Judged,
    lists::{NextInputs, NextReplicas, next_replicas},
    rollout::{TooManyAtOnce, too_many_at_once},
};

use self::said::Said;
pub use self::{invalid::InvalidManifest, work::Work};

/// How many blocks a manifest's block may be older than the last settled one that a member knows: full nodes keep the
/// state of as many.
pub const MAX_BLOCK_AGE: u64 = 128;

/// One checked telemetry message, as far as a manifest cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryRef {
    /// Its sender and digest.
    pub entry: TelemetryEntry,
    /// The last slot whose assignments it includes.
    pub includes_slot: Slot,
    /// When it was sampled.
    pub sampled_at: UnixMillis,
    /// In which policy's scale.
    pub policy: KeccakDigest,
    /// What it lists as ended.
    pub ended: Arc<[EndedReplica]>,
    /// What it gives back.
    pub given_back: Arc<[GivenBack]>,
    /// What it says of replicas that were placed in updates.
    pub health: Arc<[ReplicaHealth]>,
    /// What its sender says of itself.
    pub profile: Arc<Profile>,
}

/// What a member knows when it proposes or validates.
#[derive(Clone, Copy)]
pub struct LocalView<'a> {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// Size of the committee.
    pub committee: Committee,
    /// Identities of participants 1, 2, ...
    pub roster: &'a [PublicIdentity],
    /// The state that the slot builds on.
    pub state: &'a ClusterState,
    /// The block as of which the rest of the chain's facts hold.
    pub block: BlockRef,
    /// Number of the last settled block that this member knows.
    pub settled: u64,
    /// How many blocks older a manifest's may be: [`MAX_BLOCK_AGE`], in an appeal any number.
    pub max_block_age: u64,
    /// Hash of the certificate anchored last then; zero if there is none.
    pub base: KeccakDigest,
    /// Its slot; 0 if there is none.
    pub anchored: Slot,
    /// Digest of the cluster's policy then.
    pub policy: KeccakDigest,
    /// Most workers that this policy lets a slot consider.
    pub max_workers: usize,
    /// How many candidates it lets a try ask.
    pub sampling: Sampling,
    /// Workers registered then.
    pub workers: &'a BTreeSet<PeerIdHash>,
    /// Those of them that are to be left.
    pub draining: &'a BTreeSet<PeerIdHash>,
    /// All submissions then.
    pub submissions: &'a [Submission],
    /// What a job wants whose body is known.
    pub jobs: &'a dyn Fn(&Blake3Digest) -> Option<JobDemand>,
    /// The circuit of this build.
    pub circuit: CircuitId,
    /// Fresh telemetry that came before the cut-off, one message for each worker.
    pub fresh: &'a [TelemetryRef],
    /// Suspicions for this slot that verify, by worker and member.
    pub suspicions: &'a BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>,
    /// Oldest sample that counts.
    pub not_before: UnixMillis,
    /// Whether it is what a member goes by in an appeal.
    pub appeal: bool,
    /// The operators of the workers registered then.
    pub owners: &'a BTreeMap<PeerIdHash, Address>,
    /// Whether a registered worker that says this of itself may run a system job whose body is known, by the chain
    /// then.
    pub fit: &'a dyn Fn(&Blake3Digest, &PeerIdHash, &Profile) -> Fit,
}

/// Whether it can wait, then drawn, and whose it is.
type Rank = (bool, [u8; 32], PeerIdHash);

/// The first `most` of the workers by rank.
fn first(ranked: impl Iterator<Item = Rank>, most: usize) -> BTreeSet<PeerIdHash> {
    let ranked: BTreeSet<Rank> = ranked.collect();
    ranked.into_iter().take(most).map(|(.., worker)| worker).collect()
}

impl LocalView<'_> {
    /// Without what depends on this member's clock and on what reached it: "a member's objections in an
    /// appeal contain nothing that depends on its own clock or on what it dropped".
    #[must_use]
    pub const fn in_appeal(self) -> Self {
        let (not_before, max_block_age) = (UnixMillis(0), u64::MAX);
        Self { fresh: &[], not_before, max_block_age, appeal: true, ..self }
    }

    fn slot(&self) -> Slot {
        Slot(self.state.last_slot().0 + 1)
    }

    const fn jobs_seen(&self) -> u64 {
        self.submissions.len() as u64
    }

    /// What must be listed in a manifest with these lists of workers.
    fn next_replicas(
        &self,
        lost: &[LostWorker],
        telemetry: &[TelemetryEntry],
        said: &Said,
        judged: Option<Judged<'_>>,
    ) -> NextReplicas {
        let telemetry: BTreeSet<_> = telemetry.iter().map(|entry| entry.sender).collect();
        let inputs = NextInputs {
            submissions: self.submissions,
            jobs: self.jobs,
            judged,
            lost: &lost.iter().map(|lost| (lost.worker, lost.lost_for())).collect(),
            draining: self.draining,
            telemetry: &telemetry,
            ended: &said.ended,
            health: &said.health,
            block: self.block.number,
            policy: self.policy,
            sampling: self.sampling,
            given_back: &said.given_back,
            owners: self.owners,
            committee: self.committee,
            fit: &|job, worker| match said.profile(worker, &telemetry) {
                _ if !self.workers.contains(worker) => Fit::Gone,
                Some(profile) => (self.fit)(job, worker, &profile),
                None => Fit::Silent,
            },
        };
        next_replicas(self.state, &inputs)
    }

    /// The place of a worker when there are more than a list holds: drawn anew after each certificate
    /// that is not void, so that no worker waits for ever, nobody chooses by ending slots void, and it is
    /// the same for everybody. A lost worker that is back comes first: its replicas wait for it.
    fn rank(&self, worker: &PeerIdHash) -> Rank {
        (self.state.lost_since(worker).is_none(), self.drawn(worker), *worker)
    }

    fn drawn(&self, worker: &PeerIdHash) -> [u8; 32] {
        let seed = self.state.seed();
        domain::hash_parts(domain::MANIFEST_RANK, &[&seed.0, &worker.0])
    }

    /// Workers that t+1 members hold for lost, and that it matters for: they run something, or would
    /// be candidates. Of more suspicions those count that say longest since when it is known; of more
    /// workers those come first whose loss is not certified yet.
    fn lost(&self) -> Vec<LostWorker> {
        let needed = self.committee.max_faulty().get() + 1;
        let matters = |worker: &PeerIdHash| {
            self.state.assigned_to(*worker).next().is_some()
                || self.fresh.iter().any(|candidate| candidate.entry.sender == *worker)
        };
        let lost =
            || self.suspicions.iter().filter(|(worker, by)| by.len() >= needed && matters(worker));
        let rank = |worker: &PeerIdHash| {
            (self.state.lost_since(worker).is_some(), self.drawn(worker), *worker)
        };
        let ranked = lost().map(|(worker, _)| rank(worker));
        let listed = first(ranked, MAX_LOST);
        lost()
            .filter(|(worker, _)| listed.contains(worker))
            .map(|(worker, by)| {
                let mut suspicions: Vec<_> = by.values().copied().collect();
                suspicions.sort_by_key(|s| (core::cmp::Reverse(s.lost_for), s.member));
                suspicions.truncate(needed);
                suspicions.sort_by_key(|s| s.member);
                LostWorker { worker: *worker, suspicions }
            })
            .collect()
    }

    /// Fresh telemetry in the scale of the manifest's policy.
    fn eligible(&self) -> impl Iterator<Item = &TelemetryRef> {
        self.fresh.iter().filter(|candidate| candidate.policy == self.policy)
    }

    /// "Something that changed is not anchored, and the last certificate no longer can be"
    /// (`anchoring.md`, 4).
    #[must_use]
    pub fn is_stranded(&self) -> bool {
        self.block.number > self.state.last_block()
            && self.state.last_changed() > self.anchored
            && self.state.last_base() != self.base
    }

    /// Whether this member sees the chain as of the last manifest's block at least: an earlier one is not
    /// to be proposed.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.block.number >= self.state.last_block()
    }

    /// Whether a slot would change anything: a replica wants a place, one is to leave or has ended, a worker that
    /// has replicas is lost or back, or what changed waits for a certificate that can be anchored.
    #[must_use]
    pub fn work(&self) -> Work {
        let lost = self.lost();
        let telemetry = self.telemetry(&lost);
        let next = self.next_replicas(&lost, &telemetry, &self.said(&telemetry), None);
        let is_lost = |worker: &PeerIdHash| self.state.lost_since(worker).is_some();
        let has_replicas = |worker: PeerIdHash| self.state.assigned_to(worker).next().is_some();
        let goes = lost.iter().any(|lost| !is_lost(&lost.worker) && has_replicas(lost.worker));
        let is_back = telemetry.iter().any(|entry| is_lost(&entry.sender));
        let leaves =
            !next.leaving.is_empty() || !next.done.is_empty() || !next.given_back.is_empty();
        let comes = !next.rollouts.is_empty() || next.has_runs();
        if self.is_stranded() || goes || is_back || leaves || comes {
            return Work::Now;
        }
        match (next.pending.is_empty(), next.failures) {
            (true, _) => Work::Nothing,
            (false, Some(failures)) => Work::Again(failures),
            (false, None) => Work::Now,
        }
    }

    /// Of every worker that is not lost the fresh message, as far as the policy allows.
    fn telemetry(&self, lost: &[LostWorker]) -> Vec<TelemetryEntry> {
        let gone: BTreeSet<_> = lost.iter().map(|lost| lost.worker).collect();
        let candidates = self.eligible().map(|candidate| candidate.entry);
        let mut telemetry: Vec<_> =
            candidates.filter(|entry| !gone.contains(&entry.sender)).collect();
        let ranked = telemetry.iter().map(|entry| self.rank(&entry.sender));
        let listed = first(ranked, self.max_workers);
        telemetry.retain(|entry| listed.contains(&entry.sender));
        telemetry.sort_by_key(|entry| entry.sender);
        telemetry
    }

    /// What the fresh messages among these list.
    fn said(&self, telemetry: &[TelemetryEntry]) -> Said {
        let is_listed = |of: &&TelemetryRef| {
            telemetry.binary_search_by_key(&of.entry.sender, |entry| entry.sender).is_ok()
        };
        self.eligible().filter(is_listed).collect()
    }

    /// The manifest of the next slot.
    #[must_use]
    pub fn propose(&self, proposer: ParticipantIndex) -> Manifest {
        let lost = self.lost();
        let telemetry = self.telemetry(&lost);
        let said = self.said(&telemetry);
        let next = self.next_replicas(&lost, &telemetry, &said, None);
        let NextReplicas { pending, leaving, done, given_back, rollouts, runs, .. } = next;
        Manifest {
            binding: self.binding,
            slot: self.slot(),
            proposer,
            previous: self.state.last_certificate(),
            block: self.block,
            base: self.base,
            jobs_seen: self.jobs_seen(),
            policy: self.policy,
            circuit: self.circuit,
            telemetry,
            pending,
            leaving,
            done,
            lost,
            given_back,
            rollouts,
            runs,
        }
    }

    /// What needs nothing but the manifest and the chain: to be checked before anything is fetched that
    /// it lists, so that a proposer cannot have others look for what does not exist.
    ///
    /// # Errors
    /// The first [`InvalidManifest`].
    pub fn validate_facts(
        &self,
        manifest: &Manifest,
        proposer: ParticipantIndex,
    ) -> Result<(), InvalidManifest> {
        manifest.validate(self.committee)?;
        let agrees = [
            (manifest.binding == self.binding, "cluster, key set or epoch"),
            (manifest.slot == self.slot(), "slot"),
            (manifest.proposer == proposer, "proposer"),
            (manifest.previous == self.state.last_certificate(), "previous certificate"),
            (manifest.block == self.block, "block"),
            (manifest.base == self.base, "anchored certificate"),
            (manifest.jobs_seen == self.jobs_seen(), "number of jobs"),
            (manifest.policy == self.policy, "policy"),
            (manifest.circuit == self.circuit, "circuit"),
        ];
        if let Some((_, what)) = agrees.into_iter().find(|(same, _)| !same) {
            return Err(InvalidManifest::Differs(what));
        }
        // "A settled block not older than K and not before the last manifest's."
        let (block, last) = (manifest.block.number, self.settled);
        let first = self.state.last_block().max(last.saturating_sub(self.max_block_age));
        if !(first..=last).contains(&block) {
            return Err(InvalidManifest::Block { block, first, last });
        }
        let (found, most) = (manifest.telemetry.len(), self.max_workers);
        if found > most {
            return Err(InvalidManifest::TooManyWorkers { found, most });
        }
        self.validate_cost(manifest)?;
        if let Some(TooManyAtOnce { job, found, most }) = too_many_at_once(self.state, manifest) {
            return Err(InvalidManifest::TooManyAtOnce { job, found, most });
        }
        let wanted = self.submissions.iter().filter(|submission| !submission.cancelled);
        let submitted: BTreeSet<_> = wanted.map(|submission| submission.job).collect();
        let runs = manifest.runs.iter().filter(|change| change.step.time().is_some());
        let mut jobs = manifest.pending.iter().map(|p| p.job).chain(runs.map(|change| change.job));
        if jobs.any(|job| !submitted.contains(&job)) {
            return Err(InvalidManifest::Differs("list of pending replicas or runs"));
        }
        let has_place =
            |done: &EndedReplica| self.state.placement(done.job, done.replica).is_some();
        if !manifest.done.iter().all(has_place) {
            return Err(InvalidManifest::Differs("list of replicas that are done"));
        }
        let has_place = |word: &GivenBack| {
            let place = self.state.placement(word.job, word.replica);
            place.is_some_and(|place| place.slot == word.placed)
        };
        if !manifest.given_back.iter().all(has_place) {
            return Err(InvalidManifest::Differs("list of replicas that are given back"));
        }
        let mut senders = manifest.telemetry.iter().map(|entry| entry.sender);
        if let Some(worker) = senders.find(|worker| !self.workers.contains(worker)) {
            let reason = "it is not a registered worker";
            return Err(InvalidManifest::Telemetry { worker, reason });
        }
        self.validate_lost(&manifest.lost)
    }

    /// Whether this member can vote for a manifest whose [facts](Self::validate_facts) hold. `plan` says whether
    /// it could be evaluated, `candidate` gives a message that this member has checked, by its digest.
    ///
    /// # Errors
    /// The first [`InvalidManifest`].
    pub fn validate_lists(
        &self,
        manifest: &Manifest,
        plan: impl FnOnce() -> Result<(), PlanError>,
        candidate: impl Fn(&TelemetryEntry) -> Option<TelemetryRef>,
    ) -> Result<(), InvalidManifest> {
        // "A manifest that could not be evaluated is never locked." Without workers there is nothing to evaluate.
        if !manifest.telemetry.is_empty() {
            plan()?;
        }
        let lost: BTreeSet<_> = manifest.lost.iter().map(|lost| lost.worker).collect();
        // "A job that it does not list is no objection": its body may be known to nobody, or not to
        // the proposer yet. It has its turn with a proposer that knows it.
        let pending: BTreeSet<_> = manifest.pending.iter().map(|pending| pending.job).collect();
        let done: BTreeSet<_> = manifest.done.iter().map(|done| done.job).collect();
        let versions: BTreeSet<_> =
            manifest.rollouts.versions.iter().map(|version| version.job).collect();
        let judged = Judged {
            pending: &pending,
            done: &done,
            versions: &versions,
            forgotten: &manifest.rollouts.forgotten,
            runs: &manifest.runs,
            leaving: &manifest.leaving,
            in_appeal: self.appeal,
        };
        // By the telemetry that the manifest names; what of it is not here is named further below.
        let found: Vec<_> = manifest.telemetry.iter().filter_map(&candidate).collect();
        let said = found.iter().collect();
        let next = self.next_replicas(&manifest.lost, &manifest.telemetry, &said, Some(judged));
        if let Some(job) = next.unknown.first() {
            return Err(InvalidManifest::Unknown(format!("the body of job {job}")));
        }
        let agrees = [
            (manifest.runs == next.runs, "list of runs"),
            (manifest.pending == next.pending, "list of pending replicas"),
            (manifest.leaving == next.leaving, "list of leaving replicas"),
            (manifest.rollouts.versions == next.rollouts.versions, "list of new versions"),
            (manifest.rollouts.forgotten == next.rollouts.forgotten, "list of forgotten versions"),
            (manifest.rollouts.withdrawn == next.rollouts.withdrawn, "list of withdrawn versions"),
        ];
        if let Some((_, what)) = agrees.into_iter().find(|(same, _)| !same) {
            return Err(InvalidManifest::Differs(what));
        }
        let listed: BTreeSet<_> =
            manifest.telemetry.iter().map(|entry| self.rank(&entry.sender)).collect();
        // A full list holds the first by rank among those that the proposer knew; a worker that this
        // member knows is missing if it comes before the last of them.
        let last = listed.last().filter(|_| listed.len() == self.max_workers);
        let mine = self.eligible().map(|candidate| candidate.entry.sender);
        let missing = |worker: &PeerIdHash| {
            let rank = self.rank(worker);
            !listed.contains(&rank) && last.is_none_or(|last| rank < *last)
        };
        let mut mine = mine.filter(|worker| !lost.contains(worker));
        if let Some(left_out) = mine.find(missing) {
            return Err(InvalidManifest::LeftOut(left_out));
        }
        manifest
            .telemetry
            .iter()
            .try_for_each(|entry| self.validate_telemetry(entry, &candidate))?;
        let agrees = [
            (manifest.done == next.done, "list of replicas that are done"),
            (manifest.given_back == next.given_back, "list of replicas that are given back"),
            (
                manifest.rollouts.health == next.rollouts.health,
                "list of healthy and failed replicas",
            ),
        ];
        let differs = agrees.into_iter().find(|(same, _)| !same);
        differs.map_or(Ok(()), |(_, what)| Err(InvalidManifest::Differs(what)))
    }

    fn validate_telemetry(
        &self,
        entry: &TelemetryEntry,
        candidate: impl Fn(&TelemetryEntry) -> Option<TelemetryRef>,
    ) -> Result<(), InvalidManifest> {
        let worker = entry.sender;
        let Some(found) = candidate(entry) else {
            return Err(InvalidManifest::Unknown(format!(
                "telemetry {} of {worker}",
                entry.digest
            )));
        };
        let counts = [
            (found.entry == *entry, "it was sent by another worker"),
            (
                self.state.telemetry_counts(&worker, found.includes_slot),
                "it does not include what was assigned to the worker",
            ),
            (found.sampled_at >= self.not_before, "it is too old"),
            (found.policy == self.policy, "it is in the scale of another policy"),
        ];
        match counts.into_iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(InvalidManifest::Telemetry { worker, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
