//! The slots of a member, one after the other.
//!
//! # Flow of a slot (architecture, "A slot, end to end")
//! 1. Wait for work: a replica wants a place, or one is to leave; not more often than the cluster's
//!    slot interval while nothing has changed. Collect fresh telemetry of every live worker.
//! 2. Agree on a manifest; tell the workers.
//! 3. Evaluate it, squash the outputs.
//! 4. Decrypt what this member evaluated itself; decode.
//! 5. Sign the certificate with the others; store it; tell everybody.
//! 6. Anchor it, in turns, beside the next slot.
//!
//! At any time another member's certificate of the slot ends it.
//!
//! # Restart
//! Agreement, decryption and signing keep their own records; this loop keeps none. It begins with the
//! slot after the last certificate, and agreement gives back what was locked in it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use veil_committee::decryption::{RecomputedOutputs, Refusal};
use veil_committee_agreement::{AgreementEffect, Validity};
use veil_committee_slot::manifest::{Candidate, Facts, Objection};
use veil_keygen_ceremony::keyset::squashed_blocks;
use veil_node_core::{
    board::StatusBoard,
    cluster::{Cluster, View},
    epoch::Epoch,
    evaluation::{self, Evaluated, EvaluationError, evaluate_locked},
    follow::Follower,
    status::{Phase, SlotClock},
};
use veil_node_driver::Stopped;
use veil_node_p2p::Topic;
use veil_node_process::unix_now;
use veil_node_storage::ledger::LedgerError;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, Slot, Wire,
    decryption::{ManifestLock, RequestContext},
    scheduling::{
        AssignmentCertificate, Assignments, CertificateBody, ClusterState, Manifest, Outcome,
        SlotRecord, StateError, Submission, TelemetryEntry, UnixMillis,
    },
    sync::LockedManifest,
};
use veil_scheduler::{SquashError, circuit_id};
use veil_scheduler_plan::{
    inputs::PublicInputs,
    outcome::{DecodeError, decode},
};

use crate::{
    anchor,
    machines::{Machines, completion_of},
    suspicions::{BySlot, Suspicions},
};

/// Longest wait for telemetry of workers that are alive but silent.
const COLLECT_DEADLINE: Duration = Duration::from_secs(20);
/// A judge allows samples to be this much older than a proposer.
const AGE_SLACK: u64 = 30_000;
/// Before a failed slot is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a slot does not go on; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("agreement cannot start: {0}")]
    Start(String),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Squash(#[from] SquashError),
    #[error("decryption is refused: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("signing: {0}")]
    Signing(#[from] veil_committee::frost::SigningError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("a computation ended early")]
    Interrupted,
}

impl From<tokio::task::JoinError> for SlotError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Interrupted
    }
}

/// See the [module documentation](self).
pub(crate) struct Slots {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) machines: Machines,
    pub(crate) suspicions: Arc<Suspicions>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) telemetry_max_age: UnixMillis,
}

/// A slot that is locked and not certified yet. What was decrypted is kept: a second try must not
/// wait for a completion that has been told already.
struct UnderWay {
    locked: LockedManifest,
    decrypted: Option<Decrypted>,
}

/// What the committee opened, and what it takes to read it.
#[derive(Clone)]
struct Decrypted {
    public: PublicInputs,
    messages: Vec<u8>,
    /// Who took part, and so is ready to sign.
    participants: Vec<ParticipantIndex>,
}

/// The chain's side of the facts, owned.
struct Basis {
    view: Arc<View>,
    state: Arc<ClusterState>,
    workers: BTreeSet<PeerIdHash>,
    submissions: Vec<Submission>,
    fresh: Vec<Candidate>,
    suspicions: BySlot,
}

impl Slots {
    pub(crate) async fn run(mut self) {
        let mut under_way: Option<UnderWay> = None;
        loop {
            let state = self.epoch.ledger.state();
            let slot = Slot(state.last_slot().0 + 1);
            under_way = under_way.filter(|under_way| under_way.locked.manifest.slot == slot);
            let mut certificates = self.epoch.ledger.subscribe();
            let (ledger, board) = (Arc::clone(&self.epoch.ledger), Arc::clone(&self.board));
            let ended = tokio::select! {
                ended = self.slot(slot, &mut under_way) => Some(ended),
                _ = certificates.wait_for(|state| state.last_slot() >= slot) => None,
            };
            match ended {
                None => {
                    tracing::info!(slot = slot.0, "certified by the others");
                    if let Ok(Some(record)) = ledger.record(slot) {
                        self.spawn_anchor(record.certificate, slot);
                    }
                }
                Some(Ok(())) => {}
                Some(Err(SlotError::Stopped(error))) => {
                    board.stage("stopped", vec![error.to_string()]);
                    tracing::error!(%error, "this member takes no further part; start it again");
                    return;
                }
                Some(Err(error)) => {
                    board.stage("slot failed", vec![error.to_string()]);
                    tracing::error!(slot = slot.0, %error, "the slot is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn slot(
        &mut self,
        slot: Slot,
        under_way: &mut Option<UnderWay>,
    ) -> Result<(), SlotError> {
        let mut clock = SlotClock::start(slot);
        let UnderWay { locked, decrypted } = match under_way {
            Some(under_way) => under_way,
            None => {
                self.wait_for_work(slot).await;
                clock = SlotClock::start(slot);
                self.machines.open_signing(slot).await?;
                self.collect(slot).await;
                clock.finish(Phase::Collect);
                let locked = self.agree(slot).await?;
                clock.finish(Phase::Lock);
                under_way.insert(UnderWay { locked, decrypted: None })
            }
        };
        let LockedManifest { manifest, lock } = &*locked;
        self.board.stage("evaluating", Vec::new());
        self.publish(Topic::Manifests, locked.to_wire()).await;
        tracing::info!(
            slot = slot.0,
            manifest = %lock.manifest,
            workers = manifest.telemetry.len(),
            replicas = manifest.pending.len(),
            "locked"
        );
        let Decrypted { public, messages, participants } = match decrypted {
            Some(decrypted) => decrypted,
            None => decrypted.insert(self.decide(manifest, lock, &mut clock).await?),
        };
        let assignments = decode(manifest, public, messages)?;
        self.certify(manifest, lock.clone(), assignments, participants, &mut clock).await
    }

    // ---- 1: work and telemetry -------------------------------------------------------------

    fn candidate(
        entry: &veil_committee_slot::pool::Verified<veil_node_core::epoch::Expanded>,
    ) -> Candidate {
        let body = &entry.telemetry.body;
        Candidate {
            entry: TelemetryEntry { sender: body.sender(), digest: entry.digest },
            includes_slot: body.includes_slot,
            sampled_at: body.sampled_at,
            policy: body.policy,
        }
    }

    fn basis(&self, view: Arc<View>, slot: Slot) -> Basis {
        let state = self.epoch.ledger.state();
        let now = unix_now();
        let fresh = self.epoch.pool().fresh(now, now, |_| Slot(0));
        let fresh = fresh.iter().map(|entry| Self::candidate(entry));
        let fresh =
            fresh.filter(|c| state.telemetry_counts(&c.entry.sender, c.includes_slot)).collect();
        Basis {
            workers: view.workers(),
            submissions: view.submissions.iter().map(|(submission, _)| *submission).collect(),
            suspicions: self.suspicions.of(slot),
            state,
            fresh,
            view,
        }
    }

    fn facts<'a>(
        &'a self,
        basis: &'a Basis,
        replicas: &'a dyn Fn(&Blake3Digest) -> Option<u16>,
        slack: u64,
    ) -> Facts<'a> {
        let oldest = unix_now().0.saturating_sub(self.telemetry_max_age.0 + slack);
        Facts {
            binding: self.epoch.binding,
            committee: self.epoch.committee,
            roster: &self.epoch.roster,
            state: &basis.state,
            block: basis.view.block,
            policy: basis.view.policy,
            workers: &basis.workers,
            submissions: &basis.submissions,
            replicas,
            circuit: circuit_id(),
            fresh: &basis.fresh,
            suspicions: &basis.suspicions,
            not_before: UnixMillis(oldest),
        }
    }

    /// What the last slot tried and could not place.
    fn left_over(&self, slot: Slot) -> BTreeSet<(Blake3Digest, u16)> {
        let last = Slot(slot.0.saturating_sub(1));
        let record = self.epoch.ledger.record(last).ok().flatten();
        let assignments = record.map(|record| record.assignments).unwrap_or_default();
        let left = assignments.as_slice().iter().filter(|a| a.outcome == Outcome::Pending);
        left.map(|a| (a.job, a.replica.0)).collect()
    }

    /// Returns when a slot would change something; if it would only try again what the last one
    /// could not place, an interval after that. A lost worker does not wait.
    async fn wait_for_work(&self, slot: Slot) {
        let (begun, left_over) = (Instant::now(), self.left_over(slot));
        let mut views = self.cluster.views();
        let mut suspicions = self.suspicions.watch();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let interval = view.slot_interval;
            let basis = self.basis(view, slot);
            let replicas = |job: &Blake3Digest| self.cluster.jobs.replicas(job);
            let pending = {
                let facts = self.facts(&basis, &replicas, 0);
                facts.has_work().then(|| facts.pending())
            };
            let mut wait = None;
            if let Some(pending) = pending {
                let again = !pending.is_empty() && pending == left_over;
                wait = interval.checked_sub(begun.elapsed()).filter(|_| again);
                if wait.is_none() {
                    return;
                }
                self.board.stage("some replicas have no place; trying again later", Vec::new());
            } else {
                self.board.stage("ready", Vec::new());
            }
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let missing = !self.cluster.jobs.missing().is_empty();
            tokio::select! {
                _ = views.changed() => {}
                _ = suspicions.changed() => {}
                () = again => {}
                // Bodies come by gossip, or are asked for beside this loop.
                () = tokio::time::sleep(PAUSE), if missing => {}
            }
        }
    }

    /// Waits until every live worker's telemetry counts, or the deadline passes.
    async fn collect(&self, slot: Slot) {
        let until = tokio::time::Instant::now() + COLLECT_DEADLINE;
        let mut arrivals = self.epoch.arrivals();
        let mut liveness = self.cluster.network.liveness();
        loop {
            let basis = self.basis(self.cluster.view(), slot);
            let has = |worker: &PeerIdHash| basis.fresh.iter().any(|c| c.entry.sender == *worker);
            let silent: Vec<_> = {
                let live = liveness.borrow_and_update();
                let silent =
                    basis.workers.iter().filter(|worker| live.is_up(worker) && !has(worker));
                silent.copied().collect()
            };
            if silent.is_empty() && !basis.fresh.is_empty() {
                return;
            }
            let named: Vec<_> =
                silent.iter().map(|worker| format!("telemetry of {worker}")).collect();
            self.board.stage("collecting telemetry", named);
            tokio::select! {
                _ = arrivals.changed() => {}
                _ = liveness.changed() => {}
                () = tokio::time::sleep_until(until) => {
                    tracing::warn!(slot = slot.0, ?silent, "going on without the telemetry of some workers");
                    return;
                }
            }
        }
    }

    // ---- 2: agreement ----------------------------------------------------------------------

    async fn agree(&mut self, slot: Slot) -> Result<LockedManifest, SlotError> {
        self.board.stage("agreeing on the manifest", Vec::new());
        // What an earlier slot left behind.
        while self.machines.agreed.try_recv().is_ok() {}
        let started = self.machines.agreement.with(move |m, now| m.start(slot, now));
        if let Err(error) = started.await? {
            // Started before, and left because of an error: it is under way still.
            let under_way = self.machines.agreement.with(move |m, _| m.slot()).await?;
            if under_way != slot {
                return Err(SlotError::Start(error.to_string()));
            }
        }
        loop {
            let event = self.machines.agreed.recv().await.ok_or(Stopped)?;
            match event {
                AgreementEffect::GetValue { slot: of, round } if of == slot => {
                    self.propose(slot, round).await?;
                }
                AgreementEffect::Validate {
                    slot: of,
                    proposer,
                    digest,
                    manifest,
                    by_quorum,
                    ..
                } if of == slot => {
                    // A manifest of an earlier round comes again with its first proposer.
                    let author = if by_quorum { manifest.proposer } else { proposer };
                    let judged = self.judge(&manifest, author, by_quorum).await;
                    if let Err(objection) = &judged {
                        tracing::warn!(slot = slot.0, %proposer, %digest, %objection, "a manifest is refused");
                    }
                    let validity = if judged.is_ok() { Validity::Valid } else { Validity::Invalid };
                    self.machines
                        .agreement
                        .with(move |m, now| m.validated(digest, validity, now))
                        .await?;
                }
                AgreementEffect::Locked { lock, manifest } if lock.slot == slot => {
                    return Ok(LockedManifest { manifest: *manifest, lock: *lock });
                }
                AgreementEffect::Equivocated { culprit, .. } => {
                    tracing::error!(%culprit, "a member signed two messages for one place");
                }
                AgreementEffect::Behind { slot: ahead } => {
                    tracing::info!(slot = ahead.0, "the others are ahead; catching up");
                    self.follower.is_behind();
                }
                AgreementEffect::Abstained { reason, .. } => {
                    tracing::warn!(slot = slot.0, reason, "this member does not vote in this slot");
                }
                _ => {}
            }
        }
    }

    async fn propose(&self, slot: Slot, round: u32) -> Result<(), SlotError> {
        let basis = self.basis(self.cluster.view(), slot);
        let replicas = |job: &Blake3Digest| self.cluster.jobs.replicas(job);
        let manifest = self.facts(&basis, &replicas, 0).propose(self.machines.me).to_wire();
        let proposed = self
            .machines
            .agreement
            .with(move |m, now| m.propose(slot, round, manifest, now))
            .await?;
        if let Err(error) = proposed {
            tracing::warn!(slot = slot.0, round, %error, "this member's proposal was not taken");
        }
        Ok(())
    }

    /// "A member votes only for a manifest that includes every live registered worker whose fresh
    /// telemetry it received before the cut-off": here, before the manifest came.
    async fn judge(
        &self,
        manifest: &Manifest,
        proposer: ParticipantIndex,
        by_quorum: bool,
    ) -> Result<(), Objection> {
        let mut basis = self.basis(self.cluster.view(), manifest.slot);
        let view = self.cluster.view_at(manifest.block).await;
        basis.view = view.map_err(|error| Objection::Unknown(error.to_string()))?;
        basis.workers = basis.view.workers();
        basis.submissions = basis.view.submissions.iter().map(|(s, _)| *s).collect();
        for pending in &manifest.pending {
            if self.cluster.job(pending.job).await.is_none() {
                return Err(Objection::Unknown(format!("the body of job {}", pending.job)));
            }
        }
        for entry in &manifest.telemetry {
            evaluation::telemetry(&self.cluster, &self.epoch, *entry)
                .await
                .map_err(|error| Objection::Unknown(error.to_string()))?;
        }
        if by_quorum {
            // "Refuse it again only for what every member sees alike."
            basis.fresh.clear();
        }
        let replicas = |job: &Blake3Digest| self.cluster.jobs.replicas(job);
        let pool = self.epoch.pool();
        let candidate = |entry: &TelemetryEntry| {
            pool.get(&entry.sender, &entry.digest).map(|found| Self::candidate(&found))
        };
        self.facts(&basis, &replicas, AGE_SLACK).judge(manifest, proposer, candidate)
    }

    // ---- 3 and 4: evaluation and decryption ------------------------------------------------

    async fn decide(
        &mut self,
        manifest: &Manifest,
        lock: &ManifestLock,
        clock: &mut SlotClock,
    ) -> Result<Decrypted, SlotError> {
        if manifest.telemetry.is_empty() {
            // Without workers there is nothing to evaluate: what is pending stays so.
            let public = evaluation::inputs(&self.cluster, &self.epoch, manifest).await?.public;
            return Ok(Decrypted { public, messages: Vec::new(), participants: Vec::new() });
        }
        let evaluated = evaluate_locked(&self.cluster, &self.epoch, manifest.clone()).await?;
        let Evaluated { outputs, digest, public, seconds } = evaluated;
        clock.add(Phase::VerifyProofs, self.seconds_of_proofs(manifest));
        clock.add(Phase::Evaluate, seconds);
        evaluation::report(&self.cluster, manifest, digest).await;
        clock.restart();
        let key = self.epoch.keys.evaluation.clone();
        let squashed = tokio::task::spawn_blocking(move || {
            let squashed = outputs.squash(&key)?;
            Ok::<_, SquashError>(squashed.as_slice().iter().flat_map(squashed_blocks).collect())
        });
        let blocks: Vec<_> = squashed.await??;
        clock.finish(Phase::Squash);
        if blocks.is_empty() {
            return Ok(Decrypted { public, messages: Vec::new(), participants: Vec::new() });
        }
        self.board.stage("decrypting", Vec::new());
        while self.machines.decrypted.try_recv().is_ok() {}
        let context = RequestContext {
            key_set: self.epoch.binding.key_set,
            epoch: self.epoch.binding.epoch,
            slot: manifest.slot,
            manifest: lock.manifest,
        };
        let (outputs, lock) = (RecomputedOutputs { context, blocks }, lock.clone());
        self.machines.decryption.with(move |m, now| m.authorise(outputs, &lock, now)).await??;
        loop {
            let effect = self.machines.decrypted.recv().await.ok_or(Stopped)?;
            if let Some(completion) = completion_of(effect, manifest.slot) {
                clock.report().culprits.clone_from(&completion.combined.culprits);
                clock.finish(Phase::Decrypt);
                let messages = completion.combined.messages();
                return Ok(Decrypted { public, messages, participants: completion.participants });
            }
        }
    }

    /// What verifying the manifest's telemetry took, message by message, as it arrived.
    fn seconds_of_proofs(&self, manifest: &Manifest) -> f64 {
        let pool = self.epoch.pool();
        let entries = manifest.telemetry.iter();
        entries.filter_map(|e| Some(pool.get(&e.sender, &e.digest)?.expanded.seconds)).sum()
    }

    // ---- 5 and 6: certificate and anchor ---------------------------------------------------

    async fn certify(
        &mut self,
        manifest: &Manifest,
        lock: ManifestLock,
        assignments: Assignments,
        ready: &[ParticipantIndex],
        clock: &mut SlotClock,
    ) -> Result<(), SlotError> {
        self.board.stage("signing", Vec::new());
        let state = self.epoch.ledger.state().apply(manifest, &assignments)?;
        let body = CertificateBody {
            binding: self.epoch.binding,
            slot: manifest.slot,
            manifest: lock.manifest,
            previous: manifest.previous,
            assignments_root: assignments.tree().root(),
            state_root: state.state_root(),
            reference_string: self.epoch.origin,
        };
        let signature = self.machines.sign(&body, ready).await?;
        clock.finish(Phase::Sign);
        let certificate = AssignmentCertificate { body, signature };
        let placed =
            assignments.as_slice().iter().filter(|a| a.outcome != Outcome::Pending).count();
        let report = clock.report();
        report.manifest = Some(lock.manifest);
        report.candidates = manifest.telemetry.len();
        report.assigned = placed;
        report.pending = assignments.as_slice().len() - placed;
        let report = report.clone();
        self.board.slot(manifest.slot, |known| *known = report);
        let record = SlotRecord { manifest: manifest.clone(), lock, assignments, certificate };
        // A task of its own: storing the certificate ends this slot, and with it whatever this slot
        // still has to do, but the others must be told.
        let (cluster, ledger) = (Arc::clone(&self.cluster), Arc::clone(&self.epoch.ledger));
        let told = tokio::spawn(async move {
            let wire = record.to_wire();
            tokio::task::spawn_blocking(move || ledger.accept(&record)).await??;
            publish(&cluster, Topic::Certificates, wire).await;
            Ok::<_, SlotError>(())
        });
        told.await??;
        tracing::info!(slot = manifest.slot.0, assigned = placed, "certified");
        self.spawn_anchor(certificate, manifest.slot);
        Ok(())
    }

    fn spawn_anchor(&self, certificate: AssignmentCertificate, slot: Slot) {
        let (cluster, board) = (Arc::clone(&self.cluster), Arc::clone(&self.board));
        let (committee, me) = (self.epoch.committee, self.machines.me);
        let ledger = Arc::clone(&self.epoch.ledger);
        self.cluster.spawn(async move {
            anchor::anchor(&cluster, &ledger, committee, me, certificate, slot, &board).await;
        });
    }

    async fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        publish(&self.cluster, topic, bytes).await;
    }
}

async fn publish(cluster: &Cluster, topic: Topic, bytes: Vec<u8>) {
    if let Err(error) = cluster.network.publish(topic, bytes).await {
        tracing::debug!(%topic, %error, "not gossiped; peers catch up by asking");
    }
}
