//! From a manifest and its inputs to the encrypted outcome.

use std::{collections::BTreeMap, sync::Arc};

use rayon::prelude::*;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{CircuitId, Manifest},
};

use crate::{
    circuit::{self, Capacity},
    fingerprint::circuit_id,
    key::EvaluationKey,
    outputs::Outputs,
    plan::{Plan, PlanError, PublicInputs},
    telemetry::{EncryptedTelemetry, RESOURCES},
};

/// What a manifest names, in full.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Jobs and labels.
    pub public: PublicInputs,
    /// Expanded telemetry by the digest of its message, as the manifest names it.
    pub telemetry: BTreeMap<Blake3Digest, Arc<EncryptedTelemetry>>,
}

/// Why a manifest is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// Locked for another circuit.
    #[error(
        "the manifest is for circuit {}.{}, this build has {}.{}: run the version the cluster is on",
        expected.version, expected.fingerprint, found.version, found.fingerprint
    )]
    Circuit {
        /// By the manifest.
        expected: CircuitId,
        /// Of this build on this machine.
        found: CircuitId,
    },
    /// The public part.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The message has not arrived, or was not expanded.
    #[error("telemetry {0} is in the manifest but missing: fetch and expand it before evaluating")]
    MissingTelemetry(Blake3Digest),
    /// Expanded under another key set.
    #[error(
        "telemetry {telemetry} was expanded under key {found}, the evaluation key is {expected}"
    )]
    OtherKey {
        /// The message.
        telemetry: Blake3Digest,
        /// Of the telemetry.
        found: Blake3Digest,
        /// Of the evaluation.
        expected: Blake3Digest,
    },
    /// tfhe did not switch a resource to the evaluation key.
    #[error("telemetry {telemetry} cannot be expanded: {reason}")]
    Expand {
        /// The message.
        telemetry: Blake3Digest,
        /// What tfhe says.
        reason: String,
    },
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
    let requested: [bool; RESOURCES] =
        core::array::from_fn(|r| plan.steps.iter().any(|step| step.request[r] > 0));
    let telemetry = manifest
        .telemetry
        .iter()
        .map(|entry| {
            let digest = entry.digest;
            let telemetry =
                inputs.telemetry.get(&digest).ok_or(EvaluateError::MissingTelemetry(digest))?;
            let (found, expected) = (telemetry.key(), key.id());
            if found != expected {
                return Err(EvaluateError::OtherKey { telemetry: digest, found, expected });
            }
            Ok((digest, telemetry))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let capacities = telemetry
        .into_par_iter()
        .map(|(digest, telemetry)| {
            let mut capacity = Capacity::default();
            for (resource, slot) in capacity.iter_mut().enumerate() {
                if requested[resource] {
                    let digits = telemetry.digits(resource, key);
                    *slot =
                        Some(digits.map_err(|reason| EvaluateError::Expand {
                            telemetry: digest,
                            reason,
                        })?);
                }
            }
            Ok(capacity)
        })
        .collect::<Result<Vec<_>, EvaluateError>>()?;
    let digits = circuit::run(&plan, capacities, key).into_iter().flatten().collect();
    let outputs = Outputs::new(key.id(), digits);
    let digest = outputs.digest(manifest);
    Ok((outputs, digest))
}
