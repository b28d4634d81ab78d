//! From a locked manifest to the encrypted outcome, getting what is missing on the way.
//!
//! # Flow
//! 1. Labels as of the manifest's block, from the chain.
//! 2. Bodies of the pending jobs and telemetry, from this node or from peers. Telemetry from a peer is
//!    checked like gossip, but for its age: the committee has decided that it counts.
//! 3. The circuit, on a thread that may block.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use veil_node_chain::ChainError;
use veil_node_p2p::{PublishError, Topic};
use veil_node_process::unix_now;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Wire,
    scheduling::{EvaluationBody, Manifest, PolicyError, Telemetry, TelemetryEntry},
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::{EncryptedTelemetry, EvaluateError, Inputs, Outputs, evaluate};
use veil_scheduler_plan::inputs::PublicInputs;

use crate::{
    cluster::Cluster,
    epoch::{Epoch, TelemetryRefusal},
};

/// Inputs fetched at once.
const FETCH_AT_ONCE: usize = 4;

/// Why a manifest was not evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The registry as of the manifest's block.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A body that nobody has.
    #[error("no peer has the body of job {0}, which the manifest lists as pending")]
    NoJob(Blake3Digest),
    /// A message that nobody has.
    #[error("no peer has telemetry {digest} of {sender}, which the manifest names")]
    NoTelemetry {
        /// Whose.
        sender: PeerIdHash,
        /// Which.
        digest: Blake3Digest,
    },
    /// Its proof does not hold: more than t members have locked something they did not verify.
    #[error("the manifest names telemetry that must not be computed on: {0}")]
    Telemetry(#[from] TelemetryRefusal),
    /// The policy is not of this build's form, or needs what is not distributed yet.
    #[error("the cluster's policy: {0}; `veil chain policy set` replaces it")]
    Policy(#[from] PolicyError),
    /// A state that this node does not have.
    #[error("the certificate that the manifest builds on is not here yet")]
    Behind,
    /// The circuit.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The runtime is shutting down.
    #[error("the evaluation was cut off")]
    Stopped,
}

/// An evaluated manifest.
#[derive(Debug)]
pub struct Evaluated {
    /// The encrypted outcome.
    pub outputs: Outputs,
    /// What evaluators compare.
    pub digest: Blake3Digest,
    /// What decoding the outcome needs again.
    pub public: PublicInputs,
    /// What the circuit took; getting the inputs is not in it.
    pub seconds: f64,
}

/// Evaluates a manifest whose lock, or proposal, the caller has checked.
///
/// # Errors
/// [`EvaluationError`].
pub async fn evaluate_locked(
    cluster: &Arc<Cluster>,
    epoch: &Arc<Epoch>,
    manifest: Manifest,
) -> Result<Evaluated, EvaluationError> {
    let inputs = inputs(cluster, epoch, &manifest).await?;
    let key = epoch.keys.evaluation.clone();
    let evaluated = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let (outputs, digest) = evaluate(&manifest, &inputs, &key)?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Evaluated { outputs, digest, public: inputs.public, seconds })
    });
    evaluated.await.map_err(|_| EvaluationError::Stopped)?
}

/// Signs what this node computed and gossips it. Nothing waits for it: others compare.
pub async fn report(cluster: &Cluster, manifest: &Manifest, outputs: Blake3Digest) {
    let body = EvaluationBody {
        binding: manifest.binding,
        slot: manifest.slot,
        manifest: manifest.digest(),
        circuit: manifest.circuit,
        outputs,
        identity: cluster.identity.public(),
    };
    let report = body.sign(&cluster.identity).to_wire();
    match cluster.network.publish(Topic::Evaluations, report).await {
        Ok(()) | Err(PublishError::Duplicate(_)) => {}
        Err(error) => {
            tracing::warn!(slot = %manifest.slot, %error, "the evaluation was not reported");
        }
    }
}

/// Everything that a manifest names.
///
/// # Errors
/// [`EvaluationError`].
pub async fn inputs(
    cluster: &Arc<Cluster>,
    epoch: &Arc<Epoch>,
    manifest: &Manifest,
) -> Result<Inputs, EvaluationError> {
    let mut inputs = Inputs::default();
    let view = cluster.view_at(manifest.block).await?;
    inputs.public.labels = view
        .workers()
        .iter()
        .filter_map(|w| Some((*w, view.nodes.get(w)?.labels.clone())))
        .collect();
    inputs.public.policy = view.rules.clone()?;
    let state = epoch.ledger.state();
    if state.last_certificate() != manifest.previous {
        return Err(EvaluationError::Behind);
    }
    inputs.public.previous = state.previous(manifest).collect();
    let jobs: BTreeSet<_> = manifest.pending.iter().map(|pending| pending.job).collect();
    inputs.public.jobs = stream::iter(jobs)
        .map(async |digest| match cluster.job(digest).await {
            Some(job) => Ok((digest, job)),
            None => Err(EvaluationError::NoJob(digest)),
        })
        .buffer_unordered(FETCH_AT_ONCE)
        .try_collect()
        .await?;
    inputs.telemetry = stream::iter(manifest.telemetry.iter().copied())
        .map(async |entry| Ok((entry.digest, telemetry(cluster, epoch, entry).await?)))
        .buffer_unordered(FETCH_AT_ONCE)
        .try_collect::<_>()
        .await
        .map_err(|error: EvaluationError| error)?;
    Ok(inputs)
}

/// One telemetry message's ciphertexts, from the pool or from peers.
///
/// # Errors
/// [`EvaluationError`].
pub async fn telemetry(
    cluster: &Arc<Cluster>,
    epoch: &Arc<Epoch>,
    entry: TelemetryEntry,
) -> Result<Arc<EncryptedTelemetry>, EvaluationError> {
    let TelemetryEntry { sender, digest } = entry;
    if let Some(known) = epoch.pool().get(&sender, &digest) {
        return Ok(Arc::clone(&known.expanded.telemetry));
    }
    let fits = |peer: PeerIdHash, answer: SyncAnswer| -> Option<Telemetry> {
        let SyncAnswer::Telemetry(Some(telemetry)) = answer else { return None };
        let right = telemetry.body.sender() == sender && telemetry.body.digest() == digest;
        if !right || telemetry.verify(&epoch.binding).is_err() {
            tracing::warn!(%peer, %digest, "the peer brought other telemetry than asked for");
            return None;
        }
        Some(*telemetry)
    };
    let request = SyncRequest::Telemetry(digest);
    // Members must have it: they locked it. Its sender may have it, and so may others.
    let found = match cluster.ask(cluster.members(), request, fits).await {
        Some(found) => Some(found),
        None => cluster.ask(cluster.others(), request, fits).await,
    };
    let found = found.ok_or(EvaluationError::NoTelemetry { sender, digest })?;
    let (message, expanded) = epoch.expand(found).await?;
    let telemetry = Arc::clone(&expanded.telemetry);
    // Refused if a later message of the sender is there, which does not matter here.
    let _ = epoch.pool().insert(message, expanded, unix_now());
    Ok(telemetry)
}
