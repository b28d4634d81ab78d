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

use veil_committee::decryption::RecomputedOutputs;
use veil_committee_agreement::{AgreementEffect, Validity, Value};
use veil_committee_slot::manifest::InvalidManifest;
use veil_keygen_ceremony::keyset::squashed_blocks;
use veil_node_core::{
    cluster::View,
    epoch::ActiveEpoch,
    evaluation::{self, Evaluated, InputSource},
    follow::Follower,
    progress::Progress,
    status::{Phase, SlotClock},
};
use veil_node_driver::Stopped;
use veil_node_p2p::{Network, Topic};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash, Slot, Wire,
    agreement::{Instance, Lock},
    decryption::RequestContext,
    identity::SecretIdentity,
    scheduling::{
        AssignmentCertificate, Assignments, CertificateBody, Manifest, Outcome, SlotRecord,
        TelemetryEntry, UnixMillis,
    },
    sync::LockedManifest,
};
use veil_scheduler::SquashError;
use veil_scheduler_plan::{inputs::PublicInputs, outcome::decode, plan::Plan};

use crate::{
    anchor::Anchorer,
    error::SlotError,
    local_view::{ViewSnapshot, telemetry_ref},
    protocols::{Protocols, completion_of},
    suspicions::Suspicions,
    tries::FailedTries,
};

/// Longest wait for telemetry of workers that are alive but silent.
const COLLECT_DEADLINE: Duration = Duration::from_secs(20);
/// A validator allows samples to be this much older than a proposer.
const AGE_SLACK: u64 = 30_000;
/// For fetching all that a manifest lists: as long as its proposer may take, so that nobody is held up
/// by what does not exist.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Before a failed slot is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// See the [module documentation](self).
pub(crate) struct SlotLoop {
    pub(crate) network: Network,
    pub(crate) identity: SecretIdentity,
    pub(crate) inputs: InputSource,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) protocols: Protocols,
    pub(crate) suspicions: Arc<Suspicions>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) anchorer: Anchorer,
    pub(crate) telemetry_max_age: UnixMillis,
}

/// A slot that is locked and not certified yet. What was decrypted is kept: a second try must not
/// wait for a completion that was published already.
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

impl SlotLoop {
    /// Runs until a protocol of this member has ended.
    pub(crate) async fn run(mut self) -> Stopped {
        let mut under_way: Option<UnderWay> = None;
        loop {
            let state = self.epoch.ledger.state();
            let slot = Slot(state.last_slot().0 + 1);
            under_way = under_way.filter(|under_way| under_way.locked.manifest.slot == slot);
            let mut certificates = self.epoch.ledger.subscribe();
            let (ledger, progress) = (Arc::clone(&self.epoch.ledger), Arc::clone(&self.progress));
            let ended = tokio::select! {
                ended = self.slot(slot, &mut under_way) => Some(ended),
                _ = certificates.wait_for(|state| state.last_slot() >= slot) => None,
            };
            match ended {
                None => {
                    tracing::info!(slot = slot.0, "certified by the others");
                    if let Ok(Some(record)) = ledger.record(slot) {
                        self.anchorer.spawn(record.certificate, slot);
                    }
                }
                Some(Ok(())) => {}
                Some(Err(SlotError::Stopped(error))) => {
                    progress.stage("stopped", vec![error.to_string()]);
                    return error;
                }
                Some(Err(error)) => {
                    progress.stage("slot failed", vec![error.to_string()]);
                    tracing::error!(slot = slot.0, %error, "the slot is tried again");
                    tokio::time::sleep(RETRY_DELAY).await;
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
                self.protocols.open_signing(slot).await?;
                self.collect(slot).await;
                clock.finish(Phase::Collect);
                let locked = self.agree(slot).await?;
                clock.finish(Phase::Lock);
                under_way.insert(UnderWay { locked, decrypted: None })
            }
        };
        let LockedManifest { manifest, lock } = &*locked;
        self.progress.stage("evaluating", Vec::new());
        self.publish(Topic::Manifests, locked.to_wire()).await;
        tracing::info!(
            slot = slot.0,
            manifest = %lock.value,
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

    fn snapshot(&self, view: Arc<View>, slot: Slot) -> ViewSnapshot {
        ViewSnapshot::take(&self.epoch, &self.suspicions, view, slot)
    }

    /// Returns when a slot would change something. If it would only try again what the last ones
    /// could not place, among the same workers, it waits for an interval, doubled with each try:
    /// what never fits must not cost a slot each time. Neither a lost worker nor a new one waits.
    async fn wait_for_work(&self, slot: Slot) {
        let (begun, tries) = (Instant::now(), FailedTries::before(slot, &self.epoch.ledger));
        let mut views = self.inputs.views.subscribe();
        let mut suspicions = self.suspicions.watch();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let interval = view.slot_interval;
            let snapshot = self.snapshot(view, slot);
            let replicas = |job: &Blake3Digest| self.inputs.jobs.replicas(job);
            let pending = {
                let local = snapshot.local_view(&self.epoch, &replicas, self.telemetry_max_age.0);
                local.has_work().then(|| local.pending())
            };
            let mut wait = None;
            if let Some(pending) = pending {
                let candidates: BTreeSet<_> =
                    snapshot.fresh.iter().map(|candidate| candidate.entry.sender).collect();
                let again = tries.are_of(&pending, &candidates);
                wait = tries.pause(interval).checked_sub(begun.elapsed()).filter(|_| again);
                if wait.is_none() {
                    return;
                }
                self.progress.stage("some replicas have no place; trying again later", Vec::new());
            } else {
                self.progress.stage("ready", Vec::new());
            }
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let missing = !self.inputs.jobs.missing().is_empty();
            tokio::select! {
                _ = views.changed() => {}
                _ = suspicions.changed() => {}
                () = again => {}
                // Bodies come by gossip, or are asked for beside this loop.
                () = tokio::time::sleep(RETRY_DELAY), if missing => {}
            }
        }
    }

    /// Waits until every live worker's telemetry counts, or the deadline passes.
    async fn collect(&self, slot: Slot) {
        let until = tokio::time::Instant::now() + COLLECT_DEADLINE;
        let mut arrivals = self.epoch.arrivals();
        let mut liveness = self.network.liveness();
        loop {
            let snapshot = self.snapshot(self.inputs.views.current(), slot);
            let has =
                |worker: &PeerIdHash| snapshot.fresh.iter().any(|c| c.entry.sender == *worker);
            let silent: Vec<_> = {
                let live = liveness.borrow_and_update();
                let silent =
                    snapshot.workers.iter().filter(|worker| live.is_up(worker) && !has(worker));
                silent.copied().collect()
            };
            if silent.is_empty() && !snapshot.fresh.is_empty() {
                return;
            }
            let named: Vec<_> =
                silent.iter().map(|worker| format!("telemetry of {worker}")).collect();
            self.progress.stage("collecting telemetry", named);
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
        self.progress.stage("agreeing on the manifest", Vec::new());
        // What an earlier slot left behind.
        while self.protocols.agreed.try_recv().is_ok() {}
        let instance = Instance::manifest(slot);
        let started = self.protocols.agreement.with(move |m, now| m.start(instance, now));
        if let Err(error) = started.await? {
            // Started before, and left because of an error: it is under way still.
            let under_way = self.protocols.agreement.with(move |m, _| m.instance()).await?;
            if under_way != instance {
                return Err(SlotError::Start(error.to_string()));
            }
        }
        loop {
            let event = self.protocols.agreed.recv().await.ok_or(Stopped)?;
            match event {
                AgreementEffect::GetValue { instance: of, round } if of == instance => {
                    self.propose(slot, round).await?;
                }
                AgreementEffect::Validate {
                    instance: of,
                    proposer,
                    digest,
                    value: Value::Manifest(manifest),
                    by_quorum,
                    ..
                } if of == instance => {
                    // A manifest of an earlier round comes again with its first proposer.
                    let author = if by_quorum { manifest.proposer } else { proposer };
                    let validated = self.validate(&manifest, author, by_quorum).await;
                    if let Err(reason) = &validated {
                        tracing::warn!(slot = slot.0, %proposer, %digest, %reason, "a manifest is refused");
                    }
                    let validity =
                        if validated.is_ok() { Validity::Valid } else { Validity::Invalid };
                    self.protocols
                        .agreement
                        .with(move |m, now| m.validated(digest, validity, now))
                        .await?;
                }
                AgreementEffect::Decided { lock, value: Value::Manifest(manifest) }
                    if lock.instance == instance =>
                {
                    return Ok(LockedManifest { manifest: *manifest, lock: *lock });
                }
                AgreementEffect::Equivocated { culprit, .. } => {
                    tracing::error!(%culprit, "a member signed two messages for one place");
                }
                AgreementEffect::Behind { instance: ahead } => {
                    tracing::info!(slot = ahead.slot.0, "the others are ahead; catching up");
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
        let snapshot = self.snapshot(self.inputs.views.current(), slot);
        let replicas = |job: &Blake3Digest| self.inputs.jobs.replicas(job);
        let manifest = snapshot
            .local_view(&self.epoch, &replicas, self.telemetry_max_age.0)
            .propose(self.protocols.me)
            .to_wire();
        let proposed = self
            .protocols
            .agreement
            .with(move |m, now| m.propose(Instance::manifest(slot), round, manifest, now))
            .await?;
        if let Err(error) = proposed {
            tracing::warn!(slot = slot.0, round, %error, "this member's proposal was not taken");
        }
        Ok(())
    }

    /// "A member votes only for a manifest that includes every live registered worker whose fresh
    /// telemetry it received before the cut-off": here, before the manifest came.
    async fn validate(
        &self,
        manifest: &Manifest,
        proposer: ParticipantIndex,
        by_quorum: bool,
    ) -> Result<(), InvalidManifest> {
        // What was received before the manifest came, but the chain as of the block that it names.
        let received = self.snapshot(self.inputs.views.current(), manifest.slot);
        let view = self.inputs.views.at(manifest.block).await;
        let view = view.map_err(|error| InvalidManifest::Unknown(error.to_string()))?;
        let mut snapshot = received.with_chain(view);
        let replicas = |job: &Blake3Digest| self.inputs.jobs.replicas(job);
        let max_age = self.telemetry_max_age.0 + AGE_SLACK;
        // Cheap checks first; then one deadline for everything that has to be fetched.
        snapshot.local_view(&self.epoch, &replicas, max_age).validate_facts(manifest, proposer)?;
        let fetched = tokio::time::timeout(FETCH_DEADLINE, self.inputs.inputs(manifest)).await;
        let inputs = fetched
            .map_err(|_| InvalidManifest::Unknown(format!("what it lists in {FETCH_DEADLINE:?}")))?
            .map_err(|error| InvalidManifest::Unknown(error.to_string()))?;
        // "A manifest that could not be evaluated is never locked." Without workers there is nothing
        // to evaluate.
        if !manifest.telemetry.is_empty() {
            Plan::new(manifest, &inputs.public)?;
        }
        if by_quorum {
            // "Refuse it again only for what every member sees alike."
            snapshot.fresh.clear();
        }
        let pool = self.epoch.pool();
        let found = |entry: &TelemetryEntry| {
            pool.get(&entry.sender, &entry.digest).map(|found| telemetry_ref(&found))
        };
        snapshot.local_view(&self.epoch, &replicas, max_age).validate_lists(manifest, found)
    }

    // ---- 3 and 4: evaluation and decryption ------------------------------------------------

    async fn decide(
        &mut self,
        manifest: &Manifest,
        lock: &Lock,
        clock: &mut SlotClock,
    ) -> Result<Decrypted, SlotError> {
        if manifest.telemetry.is_empty() {
            // Without workers there is nothing to evaluate: what is pending stays so.
            let public = self.inputs.inputs(manifest).await?.public;
            return Ok(Decrypted { public, messages: Vec::new(), participants: Vec::new() });
        }
        let evaluated = self.inputs.evaluate(manifest.clone()).await?;
        let Evaluated { outputs, digest, public, seconds } = evaluated;
        clock.add(Phase::VerifyProofs, self.seconds_of_proofs(manifest));
        clock.add(Phase::Evaluate, seconds);
        evaluation::report(&self.network, &self.identity, manifest, digest).await;
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
        self.progress.stage("decrypting", Vec::new());
        while self.protocols.decrypted.try_recv().is_ok() {}
        let context = RequestContext {
            key_set: self.epoch.binding.key_set,
            epoch: self.epoch.binding.epoch,
            slot: manifest.slot,
            manifest: lock.value,
        };
        let (outputs, lock) = (RecomputedOutputs { context, blocks }, lock.clone());
        self.protocols.decryption.with(move |m, now| m.authorise(outputs, &lock, now)).await??;
        loop {
            let effect = self.protocols.decrypted.recv().await.ok_or(Stopped)?;
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
        lock: Lock,
        assignments: Assignments,
        ready: &[ParticipantIndex],
        clock: &mut SlotClock,
    ) -> Result<(), SlotError> {
        self.progress.stage("signing", Vec::new());
        let state = self.epoch.ledger.state().apply(manifest, &assignments)?;
        let body = CertificateBody {
            binding: self.epoch.binding,
            slot: manifest.slot,
            manifest: lock.value,
            previous: manifest.previous,
            assignments_root: assignments.tree().root(),
            state_root: state.state_root(),
            reference_string: self.epoch.origin,
        };
        let signature = self.protocols.sign(&body, ready).await?;
        clock.finish(Phase::Sign);
        let certificate = AssignmentCertificate { body, signature };
        let placed =
            assignments.as_slice().iter().filter(|a| a.outcome != Outcome::Pending).count();
        let report = clock.report();
        report.manifest = Some(lock.value);
        report.candidates = manifest.telemetry.len();
        report.assigned = placed;
        report.pending = assignments.as_slice().len() - placed;
        let report = report.clone();
        self.progress.slot(manifest.slot, |known| *known = report);
        let record = SlotRecord { manifest: manifest.clone(), lock, assignments, certificate };
        // A task of its own: storing the certificate ends this slot, and with it whatever this slot
        // still has to do, but the others must be told.
        let (network, ledger) = (self.network.clone(), Arc::clone(&self.epoch.ledger));
        let published = tokio::spawn(async move {
            let wire = record.to_wire();
            tokio::task::spawn_blocking(move || ledger.accept(&record)).await??;
            publish(&network, Topic::Certificates, wire).await;
            Ok::<_, SlotError>(())
        });
        published.await??;
        tracing::info!(slot = manifest.slot.0, assigned = placed, "certified");
        self.anchorer.spawn(certificate, manifest.slot);
        Ok(())
    }

    async fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        publish(&self.network, topic, bytes).await;
    }
}

async fn publish(network: &Network, topic: Topic, bytes: Vec<u8>) {
    if let Err(error) = network.publish(topic, bytes).await {
        tracing::debug!(%topic, %error, "not gossiped; peers catch up by asking");
    }
}
