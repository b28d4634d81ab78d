//! The host of the slot's machine: carries its effects out, and tells it what came of them. What a slot does next is
//! decided there alone.
//!
//! # Flow
//! One task owns the [`SlotMachine`]. It waits for whatever comes first: what the protocols report,
//! what a task of its own has finished, something new to see, the machine's timeout. Then it carries
//! out what the machine asks for; what takes long runs in tasks that report back, so nothing that is
//! under way is lost when something else happens.
//!
//! # State and restart
//! `slots/slot.redb` holds the lock of the slot under way, what was opened in it, and its end. Agreement, decryption and
//! signing keep their own records. What all of them hold of certified slots goes to the archive.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use veil_committee::{
    decryption::{DecryptionEffect, RecomputedOutputs},
    frost::SigningError,
};
use veil_committee_agreement::{AgreementEffect, Value};
use veil_committee_machine::{Effect, Machine as _};
use veil_committee_slot::{
    SlotMachine,
    machine::{Observation, SlotEffect},
    silence::Silence,
};
use veil_node_api::progress::Progress;
use veil_node_api::status::{Phase, SlotClock};
use veil_node_core::{
    cluster::{Tasks, View},
    epoch::ActiveEpoch,
    evaluation::InputSource,
    follow::Follower,
};
use veil_node_driver::{Clock, Stopped};
use veil_node_p2p::{Network, Topic};
use veil_node_storage::{journal::JournalError, ledger::LedgerError, slot_journal::SlotJournal};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Wire,
    agreement::Subject,
    decryption::RequestContext,
    evidence::Proof,
    scheduling::{Outcome, SlotRecord, UnixMillis},
    sync::LockedManifest,
};

use crate::{
    ballot::Proposed,
    evaluator::{Evaluator, Finished},
    history::History,
    local_view::ViewSnapshot,
    protocols::Protocols,
    signer::{Signed, SigningCommand},
    suspicions::Suspicions,
    validator::Validator,
};

/// How often bodies of jobs that are missing are looked for in what this member sees.
const MISSING_INTERVAL: Duration = Duration::from_secs(2);

/// Why a member takes no further part in any slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotsEnded {
    /// A protocol has stopped.
    #[error(transparent)]
    Protocol(#[from] Stopped),
    /// What must be stored cannot be.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What must be stored before a signature leaves cannot be.
    #[error(transparent)]
    Signing(SigningError),
    /// A certificate cannot be stored.
    #[error(transparent)]
    Ledger(LedgerError),
}

/// See the [module documentation](self).
pub(crate) struct SlotLoop {
    pub(crate) network: Network,
    pub(crate) inputs: InputSource,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) protocols: Protocols,
    pub(crate) suspicions: Arc<Suspicions>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry_max_age: UnixMillis,
    pub(crate) machine: SlotMachine,
    pub(crate) silence: Silence,
    /// Workers that are there and silent, by the last look.
    pub(crate) awaited: Vec<PeerIdHash>,
    /// What the protocols prove of faults, and where what the slot reports of them is kept.
    pub(crate) evidence: (mpsc::Receiver<Proof>, mpsc::Sender<Proof>),
    pub(crate) journal: SlotJournal,
    pub(crate) history: History,
    pub(crate) clock: Clock,
    pub(crate) evaluator: Evaluator,
    pub(crate) validator: Arc<Validator>,
    pub(crate) signing: mpsc::UnboundedSender<SigningCommand>,
    pub(crate) signed: mpsc::UnboundedReceiver<Signed>,
    /// What the ledger refused of this member's own records, and where it is told.
    pub(crate) refused: (mpsc::UnboundedSender<LedgerError>, mpsc::UnboundedReceiver<LedgerError>),
    /// How long the phases of the slot under way take.
    pub(crate) phases: SlotClock,
}

impl SlotLoop {
    /// Runs until a protocol of this member has ended, or nothing can be stored any more.
    pub(crate) async fn run(mut self) -> SlotsEnded {
        match self.serve().await {
            Ok(never) => match never {},
            Err(ended) => {
                self.progress.stage("stopped", vec![ended.to_string()]);
                ended
            }
        }
    }

    async fn serve(&mut self) -> Result<core::convert::Infallible, SlotsEnded> {
        let mut certificates = self.epoch.ledger.subscribe();
        let mut views = self.inputs.views.subscribe();
        let mut suspicions = self.suspicions.watch();
        let mut arrivals = self.epoch.arrivals();
        let mut liveness = self.network.liveness();
        let last = self.epoch.ledger.state().last_slot();
        self.tasks.spawn(self.history.clone().certified(last)); // if it was stopped at that
        self.on_certificate(); // one that came since the machine was made
        self.carry_out().await?; // signs again what is stored
        self.epoch.has_resumed();
        loop {
            self.carry_out().await?;
            let due = self.clock.reach(self.machine.poll_timeout());
            let missing = !self.inputs.jobs.missing().is_empty();
            tokio::select! {
                event = self.protocols.agreed.recv() => self.on_agreement(event.ok_or(Stopped)?),
                event = self.protocols.decrypted.recv() => self.on_decryption(event.ok_or(Stopped)?),
                Some(evaluation) = self.evaluator.finished() => self.on_evaluation(evaluation),
                Some(proof) = self.evidence.0.recv() => self.machine.found(proof),
                Some(error) = self.refused.1.recv() => {
                    // Anything else follows from a record that another member brought meanwhile.
                    if matches!(error, LedgerError::Storage { .. }) {
                        return Err(SlotsEnded::Ledger(error));
                    }
                }
                Some((slot, result)) = self.signed.recv() => {
                    if let Err(error @ SigningError::NotPersisted) = result {
                        return Err(SlotsEnded::Signing(error));
                    }
                    if let Err(error) = &result {
                        tracing::error!(slot = slot.0, %error, "the certificate is not signed yet");
                    }
                    self.phases.finish(Phase::Sign);
                    let result = result.map_err(|error| error.to_string());
                    self.machine.signed(slot, result, self.clock.now());
                }
                changed = certificates.changed() => {
                    changed.map_err(|_| Stopped)?;
                    self.on_certificate();
                }
                () = due => self.machine.handle_timeout(self.clock.now()),
                changed = sight_changed(&mut views, &mut suspicions, &mut arrivals) => {
                    changed.ok_or(Stopped)?;
                    self.observe();
                }
                changed = liveness.changed() => {
                    changed.map_err(|_| Stopped)?;
                    self.observe();
                }
                // Bodies come by gossip, or are asked for beside this loop.
                () = tokio::time::sleep(MISSING_INTERVAL), if missing => self.observe(),
            }
        }
    }

    // ---- what is seen ----------------------------------------------------------------------

    fn snapshot(&self, view: Arc<View>) -> ViewSnapshot {
        ViewSnapshot::take(&self.epoch, &self.suspicions, view, self.machine.slot())
    }

    fn observe(&mut self) {
        let view = self.inputs.views.current();
        let interval = u64::try_from(view.slot_interval.as_millis()).unwrap_or(u64::MAX);
        let snapshot = self.snapshot(view);
        self.awaited = self.silent(&snapshot);
        let jobs = snapshot.proposed(&self.inputs.jobs, &self.epoch);
        let fit = snapshot.fit(&self.inputs.jobs);
        let view = snapshot.local_view(&self.epoch, &jobs, &fit, self.telemetry_max_age.0);
        let seen = Observation { view: &view, silent: !self.awaited.is_empty(), interval };
        self.machine.observe(&seen, self.clock.now());
        self.show(Vec::new());
    }

    /// Tells the operator what this member does, and for what it waits.
    fn show(&self, waits_for: Vec<String>) {
        self.progress.takes_part(self.machine.stage().as_str(), waits_for);
    }

    /// Live workers whose telemetry does not count yet and is waited for. What SWIM says of one is hearsay: it
    /// is not left out for it while this member has a connection to it.
    fn silent(&mut self, snapshot: &ViewSnapshot) -> Vec<PeerIdHash> {
        let (liveness, connected) = (self.network.liveness(), self.network.connected());
        let (live, connected) = (liveness.borrow(), connected.borrow());
        let is_there = |worker: &PeerIdHash| live.is_up(worker) || connected.contains(worker);
        let has = |worker: &PeerIdHash| snapshot.fresh.iter().any(|c| c.entry.sender == *worker);
        self.silence.awaited(&snapshot.workers, is_there, has, self.clock.now())
    }

    // ---- what comes ------------------------------------------------------------------------

    fn on_agreement(&mut self, event: AgreementEffect) {
        let now = self.clock.now();
        match event {
            AgreementEffect::GetValue { instance, round } => {
                let snapshot = self.snapshot(self.inputs.views.current());
                let jobs = snapshot.proposed(&self.inputs.jobs, &self.epoch);
                let fit = snapshot.fit(&self.inputs.jobs);
                let view = snapshot.local_view(&self.epoch, &jobs, &fit, self.telemetry_max_age.0);
                self.machine.get_value(instance, round, &view, now);
            }
            AgreementEffect::Validate { digest, proposer, value, by_quorum, .. } => match value {
                Value::End(end) => self.machine.validate_end(digest, end, now),
                Value::Manifest(manifest) => {
                    let snapshot = self.snapshot(self.inputs.views.current());
                    let (ballot, validator) =
                        (self.protocols.ballot.clone(), Arc::clone(&self.validator));
                    let (manifest, appeal) = (*manifest, by_quorum);
                    let proposed = Proposed { digest, proposer, appeal, manifest };
                    self.tasks.spawn(ballot.judge(validator, snapshot, proposed));
                }
            },
            AgreementEffect::Decided { lock, value } => match value {
                Value::Manifest(manifest) => {
                    tracing::info!(
                        slot = manifest.slot.0,
                        manifest = %lock.value,
                        workers = manifest.telemetry.len(),
                        replicas = manifest.pending.len(),
                        "locked"
                    );
                    self.phases.finish(Phase::Lock);
                    self.machine.locked(*lock, *manifest, now);
                }
                Value::End(end) => {
                    tracing::info!(slot = end.slot.0, void = end.outcome.is_none(), "ends");
                    self.phases.finish(Phase::End);
                    self.machine.ended(*lock, end);
                }
            },
            AgreementEffect::Equivocated { evidence, .. } => {
                self.machine.found(Proof::Agreement(evidence));
            }
            AgreementEffect::Behind { instance } => self.machine.behind(instance),
            AgreementEffect::Abstained { instance, reason } => {
                tracing::warn!(
                    slot = instance.slot.0,
                    reason,
                    "this member does not vote in this slot"
                );
            }
        }
    }

    fn on_decryption(&mut self, effect: DecryptionEffect) {
        match effect {
            DecryptionEffect::Complete(completion) => {
                let RequestContext { slot, step, .. } = completion.context;
                let culprits = &mut self.phases.report().culprits;
                culprits.extend(&completion.combined.culprits);
                culprits.sort_unstable();
                culprits.dedup();
                self.phases.finish(Phase::Decrypt);
                let digits = completion.combined.messages();
                self.tasks.spawn(self.history.clone().opened(slot, step, digits.clone()));
                self.machine.opened(slot, step, Ok(digits), self.clock.now());
            }
            DecryptionEffect::WrongShare { culprit, .. } => {
                tracing::error!(%culprit, "a member's partial decryption is wrong");
            }
            DecryptionEffect::Refused { from, reason, .. } => {
                tracing::warn!(participant = %from, %reason, "a request for a decryption was refused");
            }
            DecryptionEffect::Outstanding { participants, .. } => {
                tracing::warn!(?participants, "members have not sent their partial decryption");
                self.show(participants.iter().map(|j| format!("participant {j}")).collect());
            }
        }
    }

    fn on_evaluation(&mut self, ((slot, step), result): Finished) {
        match &result {
            Ok(evaluation) => {
                self.phases.add(Phase::VerifyProofs, evaluation.proof_seconds);
                self.phases.add(Phase::Evaluate, evaluation.seconds);
                self.phases.add(Phase::Squash, evaluation.squash_seconds);
                self.phases.restart();
            }
            Err(error) => tracing::error!(slot = slot.0, error, "the evaluation is tried again"),
        }
        let result = result.map(|evaluation| evaluation.evaluated);
        self.machine.evaluated(slot, step, result, self.clock.now());
    }

    fn on_certificate(&mut self) {
        self.machine.certified(self.epoch.ledger.state(), self.clock.now());
    }

    // ---- what the machine asks for ---------------------------------------------------------

    async fn carry_out(&mut self) -> Result<(), SlotsEnded> {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Persist { id, record } => {
                    tokio::task::block_in_place(|| self.journal.append([&record]))?;
                    self.machine.persisted(id);
                }
                Effect::Special(effect) => self.carry_out_one(effect).await?,
                // The slot has no messages of its own.
                Effect::Send { .. } | Effect::Broadcast(_) => {}
            }
        }
        Ok(())
    }

    async fn carry_out_one(&mut self, effect: SlotEffect) -> Result<(), SlotsEnded> {
        let ballot = &self.protocols.ballot;
        match effect {
            SlotEffect::Observe => self.observe(),
            SlotEffect::Collect => {
                let named = self.awaited.iter().map(|worker| format!("telemetry of {worker}"));
                self.show(named.collect());
                return Ok(());
            }
            SlotEffect::Prepare(slot) => {
                self.phases = SlotClock::start(slot);
                self.sign(SigningCommand::Prepare(slot))?;
            }
            SlotEffect::Agree(instance) => {
                if instance.subject == Subject::Manifest {
                    self.phases.finish(Phase::Collect);
                }
                ballot.start(instance).await?;
            }
            SlotEffect::ProposeManifest { round, manifest } => {
                self.tasks.spawn(ballot.clone().propose(self.inputs.clone(), round, *manifest));
            }
            SlotEffect::ProposeEnd { round, end } => ballot.propose_end(round, end).await?,
            SlotEffect::Validated { end, valid } => ballot.judge_end(end, valid).await,
            SlotEffect::Publish(locked) => self.publish(Topic::Manifests, locked.to_wire()),
            SlotEffect::Evaluate { locked, step, opened } => {
                self.evaluator.start(locked.manifest, step, opened);
            }
            SlotEffect::State { locked, evaluation } => {
                self.evaluator.state(locked.manifest, evaluation);
            }
            SlotEffect::Cancel(slot) => self.evaluator.cancel(slot),
            SlotEffect::Open { locked, step, before } => self.open(&locked, step, before).await?,
            SlotEffect::Sign { body, ready } => {
                self.epoch.signs(body.slot);
                self.sign(SigningCommand::Sign { body, ready })?;
            }
            SlotEffect::Finish(record) => self.finish(*record),
            SlotEffect::Certified { slot, void } => {
                tracing::info!(slot = slot.0, void, "certified");
                self.tasks.spawn(self.history.clone().certified(slot));
            }
            SlotEffect::Report(proof) => {
                let _ = self.evidence.1.try_send(*proof); // see MAX_WAITING_PROOFS
            }
            SlotEffect::CatchUp(slot) => {
                tracing::info!(slot = slot.0, "the others are ahead; catching up");
                self.follower.is_behind();
            }
        }
        self.show(Vec::new());
        Ok(())
    }

    fn sign(&self, command: SigningCommand) -> Result<(), Stopped> {
        self.signing.send(command).map_err(|_| Stopped)
    }

    async fn open(
        &mut self,
        locked: &LockedManifest,
        step: u16,
        before: Blake3Digest,
    ) -> Result<(), Stopped> {
        let slot = locked.manifest.slot;
        let Some(blocks) = self.evaluator.blocks((slot, step)) else {
            let lost = Err("what was evaluated is not here any more".to_owned());
            self.machine.opened(slot, step, lost, self.clock.now());
            return Ok(());
        };
        let context = RequestContext {
            key_set: self.epoch.binding.key_set,
            epoch: self.epoch.binding.epoch,
            slot,
            manifest: locked.lock.value,
            step,
            before,
        };
        let (outputs, lock) = (RecomputedOutputs { context, blocks }, locked.lock.clone());
        let authorised =
            self.protocols.decryption.with(move |m, now| m.authorise(outputs, &lock, now)).await?;
        if let Err(error) = authorised {
            tracing::error!(slot = slot.0, %error, "the outcome is not opened");
            self.machine.opened(slot, step, Err(error.to_string()), self.clock.now());
        }
        Ok(())
    }

    /// Stores the record, which ends the slot, and tells everybody.
    fn finish(&mut self, record: SlotRecord) {
        let outcomes = record.assignments.as_slice();
        let placed = outcomes.iter().filter(|a| a.outcome != Outcome::Pending).count();
        let report = self.phases.report();
        report.manifest = Some(record.lock.value);
        report.candidates = record.manifest.telemetry.len();
        report.assigned = placed;
        report.pending = record.manifest.pending.len() - placed;
        let report = report.clone();
        self.progress.slot(record.manifest.slot, |known| *known = report);
        let (network, epoch) = (self.network.clone(), Arc::clone(&self.epoch));
        let refused = self.refused.0.clone();
        self.tasks.spawn(async move {
            let (slot, wire) = (record.manifest.slot, record.to_wire());
            let stored = tokio::task::spawn_blocking(move || epoch.accept(&record)).await;
            match stored {
                Ok(Ok(_)) => publish(&network, Topic::Certificates, wire).await,
                Ok(Err(error)) => {
                    tracing::error!(slot = slot.0, %error, "a certificate is not stored");
                    let _ = refused.send(error); // the member has stopped
                }
                Err(_) => {} // the runtime is shutting down
            }
        });
    }

    fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        let network = self.network.clone();
        self.tasks.spawn(async move { publish(&network, topic, bytes).await });
    }
}

/// Waits until something that the machine sees has changed; `None` if its source has ended.
async fn sight_changed(
    views: &mut watch::Receiver<Arc<View>>,
    suspicions: &mut watch::Receiver<u64>,
    arrivals: &mut watch::Receiver<u64>,
) -> Option<()> {
    tokio::select! {
        changed = views.changed() => changed.ok(),
        changed = suspicions.changed() => changed.ok(),
        changed = arrivals.changed() => changed.ok(),
    }
}

async fn publish(network: &Network, topic: Topic, bytes: Vec<u8>) {
    if let Err(error) = network.publish(topic, bytes).await {
        tracing::debug!(%topic, %error, "not gossiped; peers catch up by asking");
    }
}
