//! Evaluating locked manifests beside the members, and comparing results.
//!
//! # Flow
//! 1. A locked manifest comes by gossip; its lock is verified. The newest waits, one at a time is
//!    evaluated.
//! 2. The digest of the outcome is signed and gossiped as an [`EvaluationReport`].
//! 3. Reports of others are kept for a while. One that differs from the own result is logged and put
//!    into the slot's report: either side may be wrong, and the archive decides.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use veil_node_core::{
    epoch::ActiveEpoch,
    evaluation::{self, EvaluationError, InputSource},
    follow::Follower,
    progress::Progress,
    status::Phase,
};
use veil_node_p2p::{Gossip, Network, Topic};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Slot, Wire,
    identity::SecretIdentity,
    scheduling::{EvaluationBody, EvaluationReport, Manifest},
    sync::LockedManifest,
};
use veil_scheduler::Cancellation;

/// How many slots back reports are compared.
const COMPARED: u64 = 16;
/// How long to wait for the certificate that a manifest builds on.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// See the [module documentation](self).
pub(crate) struct Evaluator {
    pub(crate) network: Network,
    pub(crate) identity: SecretIdentity,
    pub(crate) inputs: InputSource,
    pub(crate) epoch: Arc<ActiveEpoch>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) results: Mutex<Results>,
}

/// The last results, by slot and evaluator.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<Slot, BTreeMap<PeerIdHash, Claim>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    manifest: Blake3Digest,
    outputs: Blake3Digest,
}

impl Results {
    /// Takes a result down: the first of each evaluator for a slot. Whether it is new.
    fn accept(&mut self, slot: Slot, by: PeerIdHash, claim: Claim) -> bool {
        let new = match self.0.entry(slot).or_default().entry(by) {
            Entry::Vacant(entry) => {
                entry.insert(claim);
                true
            }
            Entry::Occupied(_) => false,
        };
        let last = self.0.keys().next_back().copied().unwrap_or_default();
        self.0.retain(|slot, _| slot.0 + COMPARED > last.0);
        new
    }

    /// Who claims another outcome of the same manifest than `me`.
    fn disagree(&self, slot: Slot, me: PeerIdHash) -> Vec<PeerIdHash> {
        let Some(claims) = self.0.get(&slot) else { return Vec::new() };
        let Some(own) = claims.get(&me) else { return Vec::new() };
        let differs =
            |claim: &Claim| claim.manifest == own.manifest && claim.outputs != own.outputs;
        claims.iter().filter(|(_, claim)| differs(claim)).map(|(by, _)| *by).collect()
    }
}

impl Evaluator {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut manifests = self.network.subscribe(Topic::Manifests);
        let mut reports = self.network.subscribe(Topic::Evaluations);
        let (newest, next) = watch::channel(None::<Manifest>);
        let listening = async {
            loop {
                tokio::select! {
                    Some(gossip) = manifests.recv() => self.on_manifest(&gossip, &newest),
                    Some(gossip) = reports.recv() => self.on_report(&gossip),
                    else => return,
                }
            }
        };
        tokio::join!(listening, self.evaluate_newest(next));
    }

    fn last_slot(&self) -> Slot {
        self.epoch.ledger.state().last_slot()
    }

    fn on_manifest(&self, gossip: &Gossip, newest: &watch::Sender<Option<Manifest>>) {
        let locked = match LockedManifest::from_wire(&gossip.bytes) {
            Ok(locked) => locked,
            Err(error) => return gossip.reject(&error.to_string()),
        };
        let ActiveEpoch { binding, committee, roster, .. } = &*self.epoch;
        let valid = locked.manifest.binding.check(binding).map_err(|error| error.to_string());
        let valid = valid
            .and_then(|()| locked.manifest.validate(*committee).map_err(|error| error.to_string()));
        let valid = valid
            .and_then(|()| locked.verify(*committee, roster).map_err(|error| error.to_string()));
        if let Err(reason) = valid {
            return gossip.reject(&reason);
        }
        if locked.manifest.slot <= self.last_slot() {
            return gossip.ignore();
        }
        gossip.accept();
        newest.send_if_modified(|waiting| {
            let newer = waiting.as_ref().is_none_or(|known| known.slot < locked.manifest.slot);
            if newer {
                *waiting = Some(locked.manifest);
            }
            newer
        });
    }

    fn on_report(&self, gossip: &Gossip) {
        let report = match EvaluationReport::from_wire(&gossip.bytes) {
            Ok(report) => report,
            Err(error) => return gossip.reject(&error.to_string()),
        };
        if let Err(error) = report.verify(&self.epoch.binding) {
            return gossip.reject(&error.to_string());
        }
        let EvaluationBody { slot, manifest, outputs, .. } = report.body;
        let by = report.body.sender();
        if by != gossip.author {
            return gossip.reject("the report of another author");
        }
        let last = self.last_slot().0;
        if slot.0 > last + 1 || slot.0 + COMPARED <= last {
            return gossip.ignore();
        }
        gossip.accept();
        self.compare(slot, by, Claim { manifest, outputs });
    }

    fn compare(&self, slot: Slot, by: PeerIdHash, claim: Claim) {
        let disagree = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            if !results.accept(slot, by, claim) {
                return;
            }
            results.disagree(slot, self.network.me())
        };
        if disagree.is_empty() {
            return;
        }
        for peer in &disagree {
            tracing::error!(%slot, %peer, "the evaluation of this node and of this peer differ; one of them is faulty");
        }
        self.progress.slot(slot, |report| report.disagree = disagree);
    }

    async fn evaluate_newest(&self, mut next: watch::Receiver<Option<Manifest>>) {
        while next.changed().await.is_ok() {
            let Some(manifest) = next.borrow_and_update().clone() else { continue };
            let slot = manifest.slot;
            if manifest.telemetry.is_empty() {
                continue; // nothing to evaluate: what is pending stays so
            }
            if !self.continues(&manifest).await {
                tracing::info!(%slot, "not evaluated: decided meanwhile, or built on a certificate that is not here");
                continue;
            }
            if let Err(error) = self.evaluate(manifest).await {
                tracing::warn!(%slot, %error, "not evaluated");
            }
        }
    }

    /// Whether the manifest builds on this node's state; waits a while for it to.
    async fn continues(&self, manifest: &Manifest) -> bool {
        let mut states = self.epoch.ledger.subscribe();
        let settled = async {
            loop {
                let state = Arc::clone(&states.borrow_and_update());
                if state.last_slot() >= manifest.slot {
                    return false;
                }
                if state.last_certificate() == manifest.previous {
                    return true;
                }
                self.follower.is_behind();
                if states.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(CATCH_UP_TIMEOUT, settled).await.unwrap_or(false)
    }

    async fn evaluate(&self, manifest: Manifest) -> Result<(), EvaluationError> {
        let (slot, digest) = (manifest.slot, manifest.digest());
        let evaluated = self.inputs.evaluate(manifest.clone(), Cancellation::default()).await?;
        let (outputs, seconds) = (evaluated.digest, evaluated.seconds);
        tracing::info!(%slot, %outputs, seconds, "evaluated");
        self.progress.slot(slot, |report| {
            report.manifest = Some(digest);
            report.candidates = manifest.telemetry.len();
            report.phases.insert(Phase::Evaluate, seconds);
        });
        self.compare(slot, self.network.me(), Claim { manifest: digest, outputs });
        evaluation::report(&self.network, &self.identity, &manifest, outputs).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(byte: u8) -> PeerIdHash {
        PeerIdHash([byte; 32])
    }

    fn claim(manifest: u8, outputs: u8) -> Claim {
        Claim { manifest: Blake3Digest([manifest; 32]), outputs: Blake3Digest([outputs; 32]) }
    }

    #[test]
    fn only_other_outcomes_of_the_same_manifest_disagree() {
        let mut results = Results::default();
        assert!(results.accept(Slot(1), peer(1), claim(1, 9)));
        assert!(results.accept(Slot(1), peer(2), claim(2, 5)));
        assert!(results.accept(Slot(1), peer(3), claim(1, 7)));
        assert_eq!(results.disagree(Slot(1), peer(4)), [], "no own result yet");
        assert!(results.accept(Slot(1), peer(4), claim(1, 7)));
        assert_eq!(results.disagree(Slot(1), peer(4)), [peer(1)]);
        assert!(!results.accept(Slot(1), peer(1), claim(1, 7)), "the first word counts");
        assert_eq!(results.disagree(Slot(1), peer(4)), [peer(1)]);
    }

    #[test]
    fn old_slots_are_forgotten() {
        let mut results = Results::default();
        results.accept(Slot(1), peer(1), claim(1, 9));
        results.accept(Slot(COMPARED), peer(1), claim(1, 9));
        assert_eq!(results.0.len(), 2);
        results.accept(Slot(COMPARED + 1), peer(1), claim(1, 9));
        assert_eq!(results.0.len(), 2);
    }
}
