//! What a manifest must say, given what a member knows: the proposer writes it, the others compare.
//!
//! "A member votes only for a manifest that includes every live registered worker whose fresh
//! telemetry it received before the cut-off." (architecture, slot step 3)
//!
//! # Flow
//! [`LocalView`] are taken once for each manifest, as of the block that it names. [`LocalView::propose`]
//! gives the only manifest they allow, up to the choice of telemetry among messages of one worker;
//! [`LocalView::validate`] names the first difference as an [`InvalidManifest`].

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, Committee, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity, Slot,
    scheduling::{
        Binding, BlockRef, CircuitId, ClusterState, LostWorker, Manifest, ManifestError,
        NextReplicas, SignedSuspicion, Submission, Suspicion, TelemetryEntry, UnixMillis,
    },
};

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
    /// Digest of the cluster's policy then.
    pub policy: KeccakDigest,
    /// Workers registered then.
    pub workers: &'a BTreeSet<PeerIdHash>,
    /// Submissions then.
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
    /// Neither a candidate nor lost.
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
    /// Something this member would have to know to validate it.
    #[error("this member could not get {0}")]
    Unknown(String),
}

impl LocalView<'_> {
    fn slot(&self) -> Slot {
        Slot(self.state.last_slot().0 + 1)
    }

    fn next_replicas(&self, lost: &BTreeSet<PeerIdHash>) -> NextReplicas {
        self.state.next_replicas(self.submissions, self.replicas, lost, &BTreeSet::new())
    }

    /// Workers that t+1 members hold for lost, and that it matters for: they run something, or would
    /// be candidates.
    fn lost(&self) -> Vec<LostWorker> {
        let needed = self.committee.max_faulty().get() + 1;
        let matters = |worker: &PeerIdHash| {
            self.state.assigned_to(*worker).next().is_some()
                || self.fresh.iter().any(|candidate| candidate.entry.sender == *worker)
        };
        self.suspicions
            .iter()
            .filter(|(worker, by)| by.len() >= needed && matters(worker))
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

    /// Whether a slot would change anything: a replica wants a place, or one is to leave.
    #[must_use]
    pub fn has_work(&self) -> bool {
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
        telemetry.sort_by_key(|entry| entry.sender);
        Manifest {
            binding: self.binding,
            slot: self.slot(),
            proposer,
            previous: self.state.last_certificate(),
            block: self.block,
            policy: self.policy,
            circuit: self.circuit,
            telemetry,
            pending,
            running,
            lost,
        }
    }

    /// Whether this member can vote for a manifest by `proposer`. `candidate` gives a message that
    /// this member has checked, by its digest.
    ///
    /// # Errors
    /// The first [`InvalidManifest`].
    pub fn validate(
        &self,
        manifest: &Manifest,
        proposer: ParticipantIndex,
        candidate: impl Fn(&TelemetryEntry) -> Option<TelemetryRef>,
    ) -> Result<(), InvalidManifest> {
        manifest.validate(self.committee)?;
        let lost: BTreeSet<_> = manifest.lost.iter().map(|lost| lost.worker).collect();
        let next = self.next_replicas(&lost);
        if let Some(job) = next.unknown.first() {
            return Err(InvalidManifest::Unknown(format!("the body of job {job}")));
        }
        let agrees = [
            (manifest.binding == self.binding, "cluster, key set or epoch"),
            (manifest.slot == self.slot(), "slot"),
            (manifest.proposer == proposer, "proposer"),
            (manifest.previous == self.state.last_certificate(), "previous certificate"),
            (manifest.block == self.block, "block"),
            (manifest.policy == self.policy, "policy"),
            (manifest.circuit == self.circuit, "circuit"),
            (manifest.pending == next.pending, "list of pending replicas"),
            (manifest.running == next.running, "list of running replicas"),
        ];
        if let Some((_, what)) = agrees.into_iter().find(|(same, _)| !same) {
            return Err(InvalidManifest::Differs(what));
        }
        self.validate_lost(&manifest.lost)?;
        let listed = |worker: &PeerIdHash| {
            manifest.telemetry.binary_search_by_key(worker, |entry| entry.sender).is_ok()
        };
        let mut mine = self.eligible().map(|candidate| candidate.entry.sender);
        if let Some(left_out) = mine.find(|worker| !listed(worker) && !lost.contains(worker)) {
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
            (self.workers.contains(&worker), "it is not a registered worker"),
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
mod tests {
    use veil_protocol_spec::{
        Address, ChainId, ClusterId, Epoch, KeySetDigest, identity::SecretIdentity,
        scheduling::ClusterScope,
    };

    use super::*;

    const JOB: Blake3Digest = Blake3Digest([0xaa; 32]);
    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn secret(byte: u8) -> SecretIdentity {
        SecretIdentity::from_bytes(&[byte; 32]).unwrap()
    }

    fn member(index: u8) -> ParticipantIndex {
        ParticipantIndex::new(index).unwrap()
    }

    fn worker(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    fn candidate(byte: u8) -> TelemetryRef {
        let entry = TelemetryEntry { sender: worker(byte), digest: Blake3Digest([byte; 32]) };
        let policy = KeccakDigest([8; 32]);
        TelemetryRef { entry, includes_slot: Slot(0), sampled_at: NOW, policy }
    }

    struct Known {
        roster: Vec<PublicIdentity>,
        state: ClusterState,
        workers: BTreeSet<PeerIdHash>,
        submissions: Vec<Submission>,
        fresh: Vec<TelemetryRef>,
        suspicions: BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>,
    }

    fn known() -> Known {
        Known {
            roster: (1..=4).map(|j| secret(j).public()).collect(),
            state: ClusterState::default(),
            workers: (1..=3).map(worker).collect(),
            submissions: vec![Submission { position: 1, job: JOB, cancelled: false }],
            fresh: (1..=3).map(candidate).collect(),
            suspicions: BTreeMap::new(),
        }
    }

    fn binding() -> Binding {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) }
    }

    fn local_view(known: &Known) -> LocalView<'_> {
        LocalView {
            binding: binding(),
            committee: Committee::new(4).unwrap(),
            roster: &known.roster,
            state: &known.state,
            block: BlockRef { number: 9, hash: KeccakDigest([9; 32]) },
            policy: KeccakDigest([8; 32]),
            workers: &known.workers,
            submissions: &known.submissions,
            replicas: &|job| (*job == JOB).then_some(2),
            circuit: CircuitId { version: 1, fingerprint: Blake3Digest([7; 32]) },
            fresh: &known.fresh,
            suspicions: &known.suspicions,
            not_before: UnixMillis(NOW.0 - 1_000),
        }
    }

    fn suspect(known: &mut Known, lost: PeerIdHash, by: &[u8]) {
        for j in by {
            let suspicion = Suspicion { binding: binding(), slot: Slot(1), worker: lost };
            let signed = suspicion.sign(member(*j), &secret(*j));
            known.suspicions.entry(lost).or_default().insert(member(*j), signed);
        }
    }

    /// Judged by a member that has received what the proposer has.
    fn validated(known: &Known, manifest: &Manifest) -> Result<(), InvalidManifest> {
        local_view(known).validate(manifest, member(2), |entry| {
            let found = (1..=3).map(candidate).find(|c| c.entry.digest == entry.digest);
            found.map(|c| TelemetryRef {
                entry: TelemetryEntry { sender: c.entry.sender, ..*entry },
                ..c
            })
        })
    }

    #[test]
    fn what_one_proposes_the_others_accept() {
        let known = known();
        let manifest = local_view(&known).propose(member(2));
        assert_eq!((manifest.telemetry.len(), manifest.pending.len()), (3, 2));
        assert_eq!(validated(&known, &manifest), Ok(()));
        assert!(local_view(&known).has_work());
        let wrong = local_view(&known).validate(&manifest, member(3), |_| None);
        assert_eq!(wrong, Err(InvalidManifest::Differs("proposer")));
    }

    #[test]
    fn a_worker_cannot_be_left_out() {
        let known = known();
        let mut manifest = local_view(&known).propose(member(2));
        let gone = manifest.telemetry.remove(1).sender;
        assert_eq!(validated(&known, &manifest), Err(InvalidManifest::LeftOut(gone)));
    }

    #[test]
    fn nothing_can_be_changed() {
        let known = known();
        let good = local_view(&known).propose(member(2));
        type Change = fn(&mut Manifest);
        let changes: [(&str, Change); 6] = [
            ("slot", |m| m.slot = Slot(2)),
            ("previous certificate", |m| m.previous = KeccakDigest([1; 32])),
            ("block", |m| m.block.number += 1),
            ("policy", |m| m.policy = KeccakDigest([1; 32])),
            ("circuit", |m| m.circuit.version += 1),
            ("list of pending replicas", |m| m.pending.truncate(1)),
        ];
        for (what, change) in changes {
            let mut manifest = good.clone();
            change(&mut manifest);
            assert_eq!(validated(&known, &manifest), Err(InvalidManifest::Differs(what)));
        }
    }

    #[test]
    fn a_worker_is_lost_when_enough_members_say_so() {
        let mut known = known();
        suspect(&mut known, worker(2), &[1]);
        assert_eq!(local_view(&known).propose(member(2)).lost, []);
        suspect(&mut known, worker(2), &[3, 4]);
        let manifest = local_view(&known).propose(member(2));
        assert_eq!(manifest.lost.len(), 1);
        assert_eq!(manifest.lost[0].suspicions.len(), 2, "exactly t+1");
        assert_eq!(manifest.telemetry.len(), 2);
        assert_eq!(validated(&known, &manifest), Ok(()));

        let mut forged = manifest;
        forged.lost[0].suspicions[1].signature.0[5] ^= 1;
        let invalid = InvalidManifest::Suspicion { worker: worker(2), member: member(3) };
        assert_eq!(validated(&known, &forged), Err(invalid));
    }

    #[test]
    fn a_lost_worker_that_runs_nothing_and_offers_nothing_is_not_mentioned() {
        let mut known = known();
        suspect(&mut known, worker(9), &[1, 2]);
        assert_eq!(local_view(&known).propose(member(2)).lost, []);
    }

    #[test]
    fn telemetry_must_be_known_registered_and_fresh() {
        let mut known = known();
        let manifest = local_view(&known).propose(member(2));
        let validate = |known: &Known, found: Option<TelemetryRef>| {
            local_view(known).validate(&manifest, member(2), |_| found)
        };
        assert!(matches!(validate(&known, None), Err(InvalidManifest::Unknown(_))));
        let old = TelemetryRef { sampled_at: UnixMillis(1), ..candidate(1) };
        let too_old = InvalidManifest::Telemetry { worker: worker(1), reason: "it is too old" };
        assert_eq!(validate(&known, Some(old)), Err(too_old));
        let ahead = TelemetryRef { includes_slot: Slot(1), ..candidate(1) };
        assert!(matches!(validate(&known, Some(ahead)), Err(InvalidManifest::Telemetry { .. })));
        let other = TelemetryRef { policy: KeccakDigest([1; 32]), ..candidate(1) };
        let reason = "it is in the scale of another policy";
        let refused = InvalidManifest::Telemetry { worker: worker(1), reason };
        assert_eq!(validate(&known, Some(other)), Err(refused));
        known.fresh[0] = other;
        assert_eq!(local_view(&known).propose(member(2)).telemetry.len(), 2);
        known.workers.remove(&worker(1));
        let reason = "it is not a registered worker";
        assert_eq!(
            validate(&known, Some(candidate(1))),
            Err(InvalidManifest::Telemetry { worker: worker(1), reason })
        );
    }

    #[test]
    fn without_submissions_there_is_nothing_to_do() {
        let mut known = known();
        known.submissions.clear();
        assert!(!local_view(&known).has_work());
        known.submissions = vec![Submission { position: 1, job: JOB, cancelled: true }];
        assert!(!local_view(&known).has_work());
    }
}
