//! A slot's evaluation, under whichever circuit its manifest names.
//!
//! # Flow
//! 1. [`SlotEvaluation::new`] takes the manifest and what it names.
//! 2. [`SlotEvaluation::step`] evaluates what is asked after what was opened. The committee squashes and opens it, as
//!    always only what it evaluated itself, and that comes with the next step, until nothing is put out.
//! 3. [`SlotEvaluation::again`] is for auditors: all steps of a slot that has ended.
//!
//! # State and restart
//! What a step puts out is a function of the manifest, its inputs and what was opened. What is kept between steps is
//! made again if it is lost.

use core::fmt;
use std::sync::Arc;

use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{CircuitId, Manifest},
    slot::evaluation_digest,
};

use crate::{
    evaluate::{self, EvaluateError, evaluate},
    fingerprint::{circuit_id, threshold_circuit_id},
    key::EvaluationKey,
    outputs::Outputs,
    threshold::{Evaluation, Inputs},
};

/// The circuit of a version, as this build's manifests name it: [`CircuitId::THRESHOLDS`], or else
/// [`CircuitId::AT_ONCE`].
#[must_use]
pub fn circuit_of(version: u32) -> CircuitId {
    if version == CircuitId::THRESHOLDS { threshold_circuit_id() } else { circuit_id() }
}

/// See the [module documentation](self).
pub struct SlotEvaluation {
    manifest: Manifest,
    inputs: Inputs,
    key: EvaluationKey,
    /// Of the circuit that goes step by step, from the first step on.
    begun: Option<Evaluation>,
}

impl fmt::Debug for SlotEvaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotEvaluation").field("slot", &self.manifest.slot).finish_non_exhaustive()
    }
}

impl SlotEvaluation {
    /// Of a [valid](Manifest::validate) manifest. Nothing is computed yet.
    #[must_use]
    pub const fn new(manifest: Manifest, inputs: Inputs, key: EvaluationKey) -> Self {
        Self { manifest, inputs, key, begun: None }
    }

    /// Evaluates what is asked after what was opened, on all cores: what is to be opened next, and the digest that
    /// evaluators compare. Nothing is put out at the end. It may take minutes: call it from a thread that may
    /// block.
    ///
    /// # Errors
    /// [`EvaluateError`].
    pub fn step(&mut self, opened: &[Vec<u8>]) -> Result<(Outputs, Blake3Digest), EvaluateError> {
        let Self { manifest, inputs, key, begun } = self;
        let found = circuit_of(manifest.circuit.version);
        if manifest.circuit != found {
            return Err(EvaluateError::Circuit { expected: manifest.circuit, found });
        }
        let nothing = || (Outputs::nothing(key), manifest.no_outputs());
        // Without workers what is pending stays so.
        if manifest.telemetry.is_empty() {
            return Ok(nothing());
        }
        if manifest.circuit.version != CircuitId::THRESHOLDS {
            return if opened.is_empty() { at_once(manifest, inputs, key) } else { Ok(nothing()) };
        }
        let evaluation = match begun {
            Some(begun) => begun,
            None => begun.insert(Evaluation::new(manifest, inputs, key)?),
        };
        let next = evaluation.evaluate_after(opened.concat())?;
        Ok(next.unwrap_or_else(nothing))
    }

    /// The digest of all steps, where [this was opened](veil_scheduler_plan::outcome::openings).
    ///
    /// # Errors
    /// [`EvaluateError`].
    pub fn again(&mut self, opened: &[Vec<u8>]) -> Result<Blake3Digest, EvaluateError> {
        let mut digests = Vec::new();
        for steps in 0..=opened.len() {
            let (outputs, digest) = self.step(&opened[..steps])?;
            if !outputs.is_empty() || digests.is_empty() {
                digests.push(digest);
            }
            if outputs.is_empty() {
                break;
            }
        }
        Ok(evaluation_digest(&digests))
    }
}

fn at_once(
    manifest: &Manifest,
    inputs: &Inputs,
    key: &EvaluationKey,
) -> Result<(Outputs, Blake3Digest), EvaluateError> {
    let telemetry = inputs.reports.iter().map(|(&telemetry, report)| {
        let expanded = report.at_once(key);
        let expanded = expanded.map_err(|reason| EvaluateError::Expand { telemetry, reason })?;
        Ok((telemetry, expanded))
    });
    let Inputs { public, requests, weights, .. } = inputs;
    let inputs = evaluate::Inputs {
        public: public.clone(),
        telemetry: telemetry.collect::<Result<_, EvaluateError>>()?,
        requests: requests.clone(),
        weights: weights.as_ref().map(Arc::clone),
    };
    evaluate(manifest, &inputs, key)
}
