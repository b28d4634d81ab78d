//! Evaluating the locked manifests that this worker audits.
//!
//! # Flow
//! 1. A locked manifest comes by gossip; its lock is verified, and it is passed on.
//! 2. "Per slot a public hash draws some of them, who run the encrypted scheduling too and sign its digest."
//!    Of the manifests that this worker is drawn for the newest waits, with the state that it builds on. One at a
//!    time is evaluated, when the slot has ended: what was opened in it follows from its assignments. Of a void
//!    slot there is nothing to compare.
//! 3. The digest of the outcome is signed and gossiped as an
//!    [`EvaluationReport`](veil_protocol_spec::scheduling::EvaluationReport).

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use veil_node_api::progress::Progress;
use veil_node_api::status::Phase;
use veil_node_chain::ChainError;
use veil_node_core::{
    audit::Audits,
    epoch::ActiveEpoch,
    evaluation::{self, EvaluationError, InputSource},
    follow::Follower,
};
use veil_node_p2p::{Gossip, Network, Topic};
use veil_protocol_spec::{
    Wire,
    identity::SecretIdentity,
    scheduling::{Assignments, ClusterState, Manifest},
    sync::LockedManifest,
};

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
    pub(crate) audits: Arc<Audits>,
}

/// A manifest that this worker is drawn for, and the state that it builds on.
#[derive(Clone, Debug)]
struct Audit {
    manifest: Manifest,
    state: Arc<ClusterState>,
}

impl Evaluator {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut manifests = self.network.subscribe(Topic::Manifests);
        let (newest, next) = watch::channel(None::<Audit>);
        let listening = async {
            while let Some(gossip) = manifests.recv().await {
                let Some(manifest) = self.on_manifest(&gossip) else { continue };
                let slot = manifest.slot;
                match self.drawn_for(manifest).await {
                    Ok(Some(audit)) => _ = newest.send_replace(Some(audit)),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%slot, %error, "whether this worker is drawn is not known");
                    }
                }
            }
        };
        tokio::join!(listening, self.evaluate_newest(next));
    }

    fn on_manifest(&self, gossip: &Gossip) -> Option<Manifest> {
        let locked = match LockedManifest::from_wire(&gossip.bytes) {
            Ok(locked) => locked,
            Err(error) => {
                gossip.reject(&error.to_string());
                return None;
            }
        };
        let ActiveEpoch { binding, committee, roster, .. } = &*self.epoch;
        let valid = locked.manifest.binding.check(binding).map_err(|error| error.to_string());
        let valid = valid
            .and_then(|()| locked.manifest.validate(*committee).map_err(|error| error.to_string()));
        let valid = valid
            .and_then(|()| locked.verify(*committee, roster).map_err(|error| error.to_string()));
        if let Err(reason) = valid {
            gossip.reject(&reason);
            return None;
        }
        if locked.manifest.slot <= self.epoch.ledger.state().last_slot() {
            gossip.ignore();
            return None;
        }
        gossip.accept();
        // Without workers there is nothing to evaluate: what is pending stays so.
        Some(locked.manifest).filter(|manifest| !manifest.telemetry.is_empty())
    }

    /// The manifest with the state that it builds on, if this worker is one of the slot's auditors.
    async fn drawn_for(&self, manifest: Manifest) -> Result<Option<Audit>, ChainError> {
        let Some(state) = self.state_before(&manifest).await else {
            tracing::info!(slot = %manifest.slot, "decided meanwhile, or built on a certificate that is not here");
            return Ok(None);
        };
        let view = self.inputs.views.at(manifest.block).await?;
        let drawn = Audits::draw(&view, state.seed(), manifest.slot).contains(&self.network.me());
        Ok(drawn.then_some(Audit { manifest, state }))
    }

    /// The state that a manifest builds on; waits a while for it.
    async fn state_before(&self, manifest: &Manifest) -> Option<Arc<ClusterState>> {
        let mut states = self.epoch.ledger.subscribe();
        let settled = async {
            loop {
                let state = Arc::clone(&states.borrow_and_update());
                if state.last_slot() >= manifest.slot {
                    return None;
                }
                if state.last_certificate() == manifest.previous {
                    return Some(state);
                }
                self.follower.is_behind();
                if states.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(CATCH_UP_TIMEOUT, settled).await.ok().flatten()
    }

    async fn evaluate_newest(&self, mut next: watch::Receiver<Option<Audit>>) {
        while next.changed().await.is_ok() {
            let Some(audit) = next.borrow_and_update().clone() else { continue };
            let slot = audit.manifest.slot;
            if let Err(error) = self.evaluate(audit).await {
                tracing::warn!(%slot, %error, "not evaluated");
            }
        }
    }

    /// How the slot has ended, once it has; `None` if it is void, or its record is not here.
    async fn ended(&self, manifest: &Manifest) -> Option<Assignments> {
        let mut states = self.epoch.ledger.subscribe();
        let slot = manifest.slot;
        states.wait_for(|state| state.last_slot() >= slot).await.ok()?;
        let ledger = Arc::clone(&self.epoch.ledger);
        let read = tokio::task::spawn_blocking(move || ledger.record(slot)).await.ok()?;
        let record = read.unwrap_or_else(|error| {
            tracing::warn!(%slot, %error, "the slot that is to be audited cannot be read");
            None
        })?;
        let body = &record.certificate.body;
        let audited = !body.is_void() && body.manifest == manifest.digest();
        audited.then_some(record.assignments)
    }

    async fn evaluate(&self, Audit { manifest, state }: Audit) -> Result<(), EvaluationError> {
        let (slot, digest) = (manifest.slot, manifest.digest());
        let Some(ended) = self.ended(&manifest).await else { return Ok(()) };
        let again = self.inputs.evaluate_again(&state, manifest.clone(), &ended);
        let (outputs, seconds) = again.await?;
        tracing::info!(%slot, %outputs, seconds, "evaluated as an auditor");
        self.progress.slot(slot, |report| {
            report.manifest = Some(digest);
            report.candidates = manifest.telemetry.len();
            report.phases.insert(Phase::Evaluate, seconds);
        });
        let report = evaluation::report(&self.network, &self.identity, &manifest, outputs).await;
        self.audits.state(report).await;
        Ok(())
    }
}
