//! What a manifest must say, given what a member knows: the proposer writes it, the others compare.
//!
//! "A member votes only for a manifest that includes every live registered worker whose fresh
//! telemetry it received before the cut-off." (architecture, slot step 3)
//!
//! # Flow
//! [`LocalView`] are taken once for each manifest, as of the block that it names. [`LocalView::propose`]
//! gives the only manifest they allow, up to the choice of telemetry among messages of one worker;
//! [`LocalView::validate_facts`] and [`LocalView::validate_lists`] name the first difference as an [`InvalidManifest`].

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, Committee, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity, Slot,
    domain,
    scheduling::{
        Binding, BlockRef, CircuitId, ClusterState, LostWorker, MAX_LOST, Manifest, ManifestError,
        NextReplicas, SignedSuspicion, Submission, Suspicion, TelemetryEntry, UnixMillis,
    },
};
use veil_scheduler_plan::inputs::PlanError;

/// One checked telemetry message, as far as a manifest cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelemetryRef {
    /// Its sender and digest.
    pub entry: TelemetryEntry,
    /// The last slot whose assignments it includes.
    pub includes_slot: Slot,
    /// When it was sampled.
    pub sampled_at: UnixMillis,
    /// In which policy's scale.
    pub policy: KeccakDigest,
}

/// What a member knows when it proposes or validates.
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
    /// Hash of the certificate anchored last then; zero if there is none.
    pub base: KeccakDigest,
    /// Its slot; 0 if there is none.
    pub anchored: Slot,
    /// Digest of the cluster's policy then.
    pub policy: KeccakDigest,
    /// Most workers that this policy lets a slot consider.
    pub max_workers: usize,
    /// Workers registered then.
    pub workers: &'a BTreeSet<PeerIdHash>,
    /// All submissions then.
    pub submissions: &'a [Submission],
    /// Replicas of a job whose body is known.
    pub replicas: &'a dyn Fn(&Blake3Digest) -> Option<u16>,
    /// The circuit of this build.
    pub circuit: CircuitId,
    /// Fresh telemetry that came before the cut-off, one message for each worker.
    pub fresh: &'a [TelemetryRef],
    /// Suspicions for this slot that verify, by worker and member.
    pub suspicions: &'a BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>,
    /// Oldest sample that counts.
    pub not_before: UnixMillis,
}

/// Drawn, and whose it is.
type Rank = ([u8; 32], PeerIdHash);

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Its structure.
    #[error(transparent)]
    Structure(#[from] ManifestError),
    /// Something that follows from what everybody knows.
    #[error("it names another {0} than this member knows")]
    Differs(&'static str),
    /// A suspicion that does not verify.
    #[error("member {member} did not sign that worker {worker} is lost")]
    Suspicion {
        /// The worker.
        worker: PeerIdHash,
        /// The supposed signer.
        member: ParticipantIndex,
    },
    /// More workers than the policy lets a slot consider.
    #[error("it lists {found} workers, and the policy allows {most}")]
    TooManyWorkers {
        /// Listed.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// Neither a candidate nor lost, and not outranked.
    #[error("it leaves out worker {0}, whose fresh telemetry this member has")]
    LeftOut(PeerIdHash),
    /// Telemetry that does not count.
    #[error("the telemetry of worker {worker} does not count: {reason}")]
    Telemetry {
        /// The worker.
        worker: PeerIdHash,
        /// Why.
        reason: &'static str,
    },
    /// Locked, it could not be evaluated.
    #[error("it cannot be evaluated: {0}")]
    Unplannable(#[from] PlanError),
    /// Something this member would have to know to validate it.
    #[error("this member could not get {0}")]
    Unknown(String),
}

impl LocalView<'_> {
    fn slot(&self) -> Slot {
        Slot(self.state.last_slot().0 + 1)
    }

    const fn jobs_seen(&self) -> u64 {
        self.submissions.len() as u64
    }

    fn next_replicas(&self, lost: &BTreeSet<PeerIdHash>) -> NextReplicas {
        self.state.next_replicas(self.submissions, self.replicas, lost, &BTreeSet::new())
    }

    /// The place of a worker when there are more than a list holds: drawn anew after each certificate
    /// that is not void, so that no worker waits for ever, nobody chooses by ending slots void, and it is
    /// the same for everybody.
    fn rank(&self, worker: &PeerIdHash) -> Rank {
        let seed = self.state.seed();
        (domain::hash_parts(domain::MANIFEST_RANK, &[&seed.0, &worker.0]), *worker)
    }

    /// The first `most` of the workers by rank.
    fn first(
        &self,
        workers: impl Iterator<Item = PeerIdHash>,
        most: usize,
    ) -> BTreeSet<PeerIdHash> {
        let ranked: BTreeSet<Rank> = workers.map(|worker| self.rank(&worker)).collect();
        ranked.into_iter().take(most).map(|(_, worker)| worker).collect()
    }

    /// Workers that t+1 members hold for lost, and that it matters for: they run something, or would
    /// be candidates.
    fn lost(&self) -> Vec<LostWorker> {
        let needed = self.committee.max_faulty().get() + 1;
        let matters = |worker: &PeerIdHash| {
            self.state.assigned_to(*worker).next().is_some()
                || self.fresh.iter().any(|candidate| candidate.entry.sender == *worker)
        };
        let lost =
            || self.suspicions.iter().filter(|(worker, by)| by.len() >= needed && matters(worker));
        let listed = self.first(lost().map(|(worker, _)| *worker), MAX_LOST);
        lost()
            .filter(|(worker, _)| listed.contains(worker))
            .map(|(worker, by)| LostWorker {
                worker: *worker,
                suspicions: by.values().take(needed).copied().collect(),
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

    /// Whether a slot would change anything: a replica wants a place, one is to leave, or what changed
    /// waits for a certificate that can be anchored.
    #[must_use]
    pub fn has_work(&self) -> bool {
        if self.is_stranded() {
            return true;
        }
        let lost = self.lost().iter().map(|lost| lost.worker).collect();
        let next = self.next_replicas(&lost);
        !next.pending.is_empty() || next.running.len() < self.state.replicas().count()
    }

    /// The replicas that want a place now.
    #[must_use]
    pub fn pending(&self) -> BTreeSet<(Blake3Digest, u16)> {
        let lost = self.lost().iter().map(|lost| lost.worker).collect();
        self.next_replicas(&lost).pending.iter().map(|p| (p.job, p.replica.0)).collect()
    }

    /// The manifest of the next slot.
    #[must_use]
    pub fn propose(&self, proposer: ParticipantIndex) -> Manifest {
        let lost = self.lost();
        let gone: BTreeSet<_> = lost.iter().map(|lost| lost.worker).collect();
        let NextReplicas { pending, running, .. } = self.next_replicas(&gone);
        let candidates = self.eligible().map(|candidate| candidate.entry);
        let mut telemetry: Vec<_> =
            candidates.filter(|entry| !gone.contains(&entry.sender)).collect();
        let senders = telemetry.iter().map(|entry| entry.sender);
        let listed = self.first(senders, self.max_workers);
        telemetry.retain(|entry| listed.contains(&entry.sender));
        telemetry.sort_by_key(|entry| entry.sender);
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
            running,
            lost,
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
        let (found, most) = (manifest.telemetry.len(), self.max_workers);
        if found > most {
            return Err(InvalidManifest::TooManyWorkers { found, most });
        }
        let submitted: BTreeSet<_> = self.submissions.iter().map(|s| s.job).collect();
        if manifest.pending.iter().any(|pending| !submitted.contains(&pending.job)) {
            return Err(InvalidManifest::Differs("list of pending replicas"));
        }
        let mut senders = manifest.telemetry.iter().map(|entry| entry.sender);
        if let Some(worker) = senders.find(|worker| !self.workers.contains(worker)) {
            let reason = "it is not a registered worker";
            return Err(InvalidManifest::Telemetry { worker, reason });
        }
        self.validate_lost(&manifest.lost)
    }

    /// Whether this member can vote for a manifest whose [facts](Self::validate_facts) hold. `candidate`
    /// gives a message that this member has checked, by its digest.
    ///
    /// # Errors
    /// The first [`InvalidManifest`].
    pub fn validate_lists(
        &self,
        manifest: &Manifest,
        candidate: impl Fn(&TelemetryEntry) -> Option<TelemetryRef>,
    ) -> Result<(), InvalidManifest> {
        let lost: BTreeSet<_> = manifest.lost.iter().map(|lost| lost.worker).collect();
        // "A job that it does not list is no objection": its body may be known to nobody, or not to
        // the proposer yet. It has its turn with a proposer that knows it.
        let listed: BTreeSet<_> = manifest.pending.iter().map(|pending| pending.job).collect();
        let replicas = |job: &Blake3Digest| (self.replicas)(job).filter(|_| listed.contains(job));
        let next = self.state.next_replicas(self.submissions, replicas, &lost, &BTreeSet::new());
        if let Some(job) = next.unknown.iter().find(|job| listed.contains(*job)) {
            return Err(InvalidManifest::Unknown(format!("the body of job {job}")));
        }
        let agrees = [
            (manifest.pending == next.pending, "list of pending replicas"),
            (manifest.running == next.running, "list of running replicas"),
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
        manifest.telemetry.iter().try_for_each(|entry| self.validate_telemetry(entry, &candidate))
    }

    fn validate_lost(&self, lost: &[LostWorker]) -> Result<(), InvalidManifest> {
        for LostWorker { worker, suspicions } in lost {
            let suspicion = Suspicion { binding: self.binding, slot: self.slot(), worker: *worker };
            for SignedSuspicion { member, signature } in suspicions {
                let identity = self.roster.get(member.position());
                let signed = identity
                    .is_some_and(|id| id.verify(suspicion.digest().as_bytes(), signature).is_ok());
                if !signed {
                    return Err(InvalidManifest::Suspicion { worker: *worker, member: *member });
                }
            }
        }
        Ok(())
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
