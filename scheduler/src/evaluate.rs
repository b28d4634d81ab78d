//! From a manifest and its inputs to the encrypted outcome.

use std::{collections::BTreeMap, sync::Arc};

use rayon::prelude::*;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{CircuitId, Manifest},
};
use veil_scheduler_plan::{
    circuit::{
        self,
        lookup::Circuit,
        worker::{Confidential, Worker},
    },
    inputs::{PlanError, PublicInputs},
    plan::{Plan, Used},
};

use crate::{
    encrypted::Encrypted,
    expanded::{EncryptedQuantities, EncryptedTelemetry, ExpandedWeights},
    fingerprint::circuit_id,
    key::EvaluationKey,
    outputs::Outputs,
};

/// What a manifest names, in full.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Policy, jobs and labels.
    pub public: PublicInputs,
    /// Expanded telemetry by the digest of its message, as the manifest names it.
    pub telemetry: BTreeMap<Blake3Digest, Arc<EncryptedTelemetry>>,
    /// Expanded requests of the pending jobs that encrypt them, by the job's digest.
    pub requests: BTreeMap<Blake3Digest, Arc<EncryptedQuantities>>,
    /// Expanded weights, if the policy encrypts them.
    pub weights: Option<Arc<ExpandedWeights>>,
}

/// Why a manifest is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum EvaluateError {
    /// The manifest is locked for another circuit.
    #[error(
        "the manifest is for circuit {}.{}, this build has {}.{}: run the version the cluster is on",
        expected.version, expected.fingerprint, found.version, found.fingerprint
    )]
    Circuit { expected: CircuitId, found: CircuitId },
    /// The public inputs give no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Replicas are pending and no worker sent telemetry: they stay pending, which is public, and
    /// [`decode`](veil_scheduler_plan::outcome::decode) of no blocks says so.
    #[error("replicas are pending, but the manifest has no telemetry: no worker to place them on")]
    NoWorkers,
    /// A telemetry message has not arrived, or is not expanded.
    #[error("telemetry {0} is in the manifest but missing: fetch and expand it before evaluating")]
    MissingTelemetry(Blake3Digest),
    /// A job encrypts its request, and that is not expanded.
    #[error("the encrypted request of job {0} is missing: verify and expand it before evaluating")]
    MissingRequest(Blake3Digest),
    /// The policy encrypts its weights, a job needs them, and they are not expanded.
    #[error("the policy's weights {0} are missing: fetch and expand them before evaluating")]
    MissingWeights(Blake3Digest),
    /// A list (telemetry, the request of a job, or weights) is expanded under another key set.
    #[error("{list} was expanded under key {found}, the evaluation key is {expected}")]
    OtherKey { list: Blake3Digest, found: Blake3Digest, expected: Blake3Digest },
    /// tfhe does not switch a message to the evaluation key.
    #[error("telemetry {telemetry} cannot be expanded: {reason}")]
    Expand { telemetry: Blake3Digest, reason: String },
    /// The caller needs it no more.
    #[error("the evaluation was cancelled")]
    Cancelled,
}

/// Evaluates a [valid](Manifest::validate) manifest on all cores, and returns the encrypted outcome
/// with the digest that evaluators compare. It takes seconds to minutes: call it from a thread that
/// may block.
///
/// # Errors
/// [`EvaluateError`] if an input is missing or not for this circuit and key; nothing is evaluated
/// then.
pub fn evaluate(
    manifest: &Manifest,
    inputs: &Inputs,
    key: &EvaluationKey,
) -> Result<(Outputs, Blake3Digest), EvaluateError> {
    let found = circuit_id();
    if manifest.circuit != found {
        return Err(EvaluateError::Circuit { expected: manifest.circuit, found });
    }
    let plan = Plan::new(manifest, &inputs.public)?;
    if manifest.telemetry.is_empty() && !manifest.pending.is_empty() {
        return Err(EvaluateError::NoWorkers);
    }
    let telemetry = manifest
        .telemetry
        .iter()
        .map(|entry| {
            let digest = entry.digest;
            let telemetry =
                inputs.telemetry.get(&digest).ok_or(EvaluateError::MissingTelemetry(digest))?;
            same_key(key, digest, telemetry.key())?;
            Ok((digest, &**telemetry))
        })
        .collect::<Result<Vec<_>, EvaluateError>>()?;
    let mut confidential = confidential(&plan, &inputs.requests, inputs.weights.as_deref(), key)?;
    let used = plan.used();
    let workers = telemetry
        .into_par_iter()
        .map(|(digest, telemetry)| {
            let expanded = expand(&used, telemetry, key);
            expanded.map_err(|reason| EvaluateError::Expand { telemetry: digest, reason })
        })
        .collect::<Result<Vec<_>, EvaluateError>>()?;
    let circuit = Circuit::new(key);
    let digits = circuit::run(&plan, workers, &mut confidential, &circuit);
    if key.is_cancelled() {
        return Err(EvaluateError::Cancelled);
    }
    let digits = digits.into_iter().flatten().collect();
    let outputs = Outputs::new(key.id(), digits, circuit.cost());
    let digest = outputs.digest(manifest);
    Ok((outputs, digest))
}

fn same_key(
    key: &EvaluationKey,
    list: Blake3Digest,
    found: Blake3Digest,
) -> Result<(), EvaluateError> {
    let expected = key.id();
    if found == expected { Ok(()) } else { Err(EvaluateError::OtherKey { list, found, expected }) }
}

/// What a plan needs besides readings.
pub(crate) fn confidential(
    plan: &Plan,
    requests: &BTreeMap<Blake3Digest, Arc<EncryptedQuantities>>,
    weights: Option<&ExpandedWeights>,
    key: &EvaluationKey,
) -> Result<Confidential<Encrypted>, EvaluateError> {
    let requests = plan
        .encrypted_requests()
        .map(|job| {
            let request = requests.get(&job).ok_or(EvaluateError::MissingRequest(job))?;
            same_key(key, job, request.key())?;
            Ok((job, request.digits().clone()))
        })
        .collect::<Result<_, EvaluateError>>()?;
    let weights = plan
        .encrypted_weights()
        .map(|digest| {
            let weights = weights.ok_or(EvaluateError::MissingWeights(digest))?;
            same_key(key, digest, weights.key())?;
            Ok::<_, EvaluateError>(weights.digits().clone())
        })
        .transpose()?;
    Ok(Confidential { requests, weights })
}

/// A worker as far as the slot looks at it.
fn expand(
    used: &Used,
    telemetry: &EncryptedTelemetry,
    key: &EvaluationKey,
) -> Result<Worker<Encrypted>, String> {
    let mut worker = Worker::default();
    for (resource, used) in used.resources.into_iter().enumerate() {
        if !used {
            continue;
        }
        worker.set_free(resource, telemetry.quantity(resource, key)?);
        if let Some(view) = telemetry.view(resource) {
            worker.set_view(resource, view);
        }
    }
    worker.classes = used.classes.then(|| telemetry.classes(key)).transpose()?;
    worker.priority = used.priority.then(|| telemetry.priority(key)).transpose()?;
    Ok(worker)
}
