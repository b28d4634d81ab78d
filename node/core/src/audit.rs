//! What members and auditors state of slots, compared with how the slots ended.
//!
//! # Flow
//! 1. [`Audits::draw`] says who evaluates a slot again.
//! 2. [`Audits::listen`] takes statements from gossip: those of the slot's auditors and of members, the
//!    first of each. Those of others are not passed on.
//! 3. As soon as both are here, statement and certificate are compared. A [`Disagreement`] is evidence: it is
//!    kept, and the slot's report names who differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_recursion::async_recursion as boxed;
use veil_committee_slot::audit::{COMPARED, Disagreement, Statements, auditors};
use veil_node_api::progress::Progress;
use veil_node_p2p::{Gossip, Network, Topic};
use veil_node_storage::evidence;
use veil_protocol_spec::{
    KeccakDigest, PeerIdHash, Slot, Wire,
    evidence::{Evidence, Proof},
    scheduling::{ClusterState, EvaluationReport},
};

use crate::{
    cluster::{View, Views},
    epoch::ActiveEpoch,
};

/// See the [module documentation](self).
pub struct Audits {
    views: Views,
    epoch: Arc<ActiveEpoch>,
    progress: Arc<Progress>,
    statements: Mutex<Statements>,
}

impl core::fmt::Debug for Audits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Audits").finish_non_exhaustive()
    }
}

impl Audits {
    /// Knows of no statement yet.
    #[must_use]
    pub fn new(views: Views, epoch: Arc<ActiveEpoch>, progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self { views, epoch, progress, statements: Mutex::default() })
    }

    fn statements(&self) -> MutexGuard<'_, Statements> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The auditors of a slot that builds on a certificate with this [`seed`](ClusterState::seed), by the
    /// registry and the policy as of `view`.
    #[must_use]
    pub fn draw(view: &View, seed: KeccakDigest, slot: Slot) -> BTreeSet<PeerIdHash> {
        auditors(seed, slot, view.full_workers(), view.rules_or_default().auditors)
    }

    /// Takes a statement that was checked, or is this node's own.
    #[boxed]
    pub async fn state(&self, report: EvaluationReport) {
        let found = self.statements().stated(report);
        if let Some(disagreement) = found {
            self.found(disagreement).await;
        }
    }

    /// Takes statements until the node stops.
    #[boxed]
    pub async fn listen(self: Arc<Self>, network: Network) {
        let mut reports = network.subscribe(Topic::Evaluations);
        let mut states = self.epoch.ledger.subscribe();
        let mut seeds = BTreeMap::new();
        let mut last = note(&states.borrow_and_update(), &mut seeds);
        loop {
            tokio::select! {
                gossip = reports.recv() => match gossip {
                    Some(gossip) => self.on_report(&gossip, &seeds).await,
                    None => return,
                },
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = note(&states.borrow_and_update(), &mut seeds);
                    let first = last.0.max(now.0.saturating_sub(COMPARED)) + 1;
                    for slot in first..=now.0 {
                        self.on_certificate(Slot(slot)).await;
                    }
                    last = now;
                }
            }
        }
    }

    async fn on_report(&self, gossip: &Gossip, seeds: &BTreeMap<Slot, KeccakDigest>) {
        let report = match EvaluationReport::from_wire(&gossip.bytes) {
            Ok(report) => report,
            Err(error) => return gossip.reject(&error.to_string()),
        };
        if let Err(error) = report.verify(&self.epoch.binding) {
            return gossip.reject(&error.to_string());
        }
        let (slot, by) = (report.body.slot, report.body.sender());
        if by != gossip.author {
            return gossip.reject("the report of another author");
        }
        // Others may know a later slot, or another block of the registry.
        let Some(seed) = seeds.get(&slot) else { return gossip.ignore() };
        let is_member = || self.epoch.roster.iter().any(|member| PeerIdHash::of(member) == by);
        let is_auditor = || Self::draw(&self.views.current(), *seed, slot).contains(&by);
        if self.statements().has(slot, by) || !(is_member() || is_auditor()) {
            return gossip.ignore();
        }
        gossip.accept();
        self.state(report).await;
    }

    async fn on_certificate(&self, slot: Slot) {
        let ledger = Arc::clone(&self.epoch.ledger);
        let read = tokio::task::spawn_blocking(move || ledger.record(slot)).await;
        let Ok(Ok(Some(record))) = read else { return };
        let found = self.statements().certified(&record.certificate, record.manifest.circuit);
        for disagreement in found {
            self.found(disagreement).await;
        }
    }

    /// Both sides signed: together they are the evidence.
    async fn found(&self, disagreement: Disagreement) {
        let Disagreement { certificate, report } = disagreement;
        let (slot, by) = (report.body.slot, report.body.sender());
        let (binding, proof) =
            (self.epoch.binding, Proof::Evaluation(Box::new((report, certificate))));
        evidence::keep(Arc::clone(&self.epoch.evidence), Evidence { binding, proof }).await;
        self.progress.slot(slot, |report| {
            if !report.disagree.contains(&by) {
                report.disagree.push(by);
            }
        });
    }
}

/// Notes what the auditors of the next slot are drawn from. The last slot.
fn note(state: &ClusterState, seeds: &mut BTreeMap<Slot, KeccakDigest>) -> Slot {
    let last = state.last_slot();
    seeds.insert(Slot(last.0.saturating_add(1)), state.seed());
    seeds.retain(|slot, _| slot.0.saturating_add(COMPARED) > last.0);
    last
}
