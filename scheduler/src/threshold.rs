//! The threshold circuit on ciphertexts: one question at a time, each opened before the next.
//!
//! # Flow
//! 1. [`verify_and_expand_report`] checks a worker's list and makes its rotations, once per message.
//! 2. [`Evaluation::new`] takes the manifest and what it names.
//! 3. [`Evaluation::evaluate_next`] evaluates what is asked next. The committee squashes and opens the one digit of it, as
//!    always only what it evaluated itself, and tells [`Evaluation::opened`]; until there is nothing more to ask.
//! 4. [`Evaluation::outcome`] says what was placed.
//!
//! # State and restart
//! An evaluation is a function of the manifest, its inputs and the opened digits: one that is begun again and
//! told the same digits puts out the same bits.
//!
//! # Failure probability
//! As of the other circuit; the largest variance is 15, and a tenth of the look-ups are made.

use core::fmt;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;
use tfhe::shortint::ciphertext::CompactCiphertextList;
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{Manifest, ProofMetadata, ProvenList},
};
use veil_reference_string::ReferenceString;
use veil_scheduler_plan::{
    circuit::{lookup::Circuit, worker::Confidential},
    inputs::PublicInputs,
    plan::{Plan, Used},
    rules::RESOURCES,
    threshold::{
        choice::{Held, evaluate},
        course::{Course, NobodyNamed},
        reported::Reported,
    },
};

use crate::{
    encrypted::Encrypted,
    evaluate::{EvaluateError, confidential},
    expanded::{EncryptedQuantities, EncryptedTelemetry, ExpandedWeights, LOST, switched},
    fingerprint::threshold_circuit_id,
    key::EvaluationKey,
    lists::{CLASSES, Kind, ListError, PRIORITY, SHARE, verified},
    outputs::Outputs,
};

/// The first resources, which almost every job asks for: rotated when the message arrives.
const FIRST: usize = 2;

/// A worker's list under an evaluation key, as this circuit uses it.
pub struct EncryptedReport {
    key: Blake3Digest,
    list: CompactCiphertextList,
    reported: Reported<Encrypted>,
    /// For the circuit that places all at once, if it was used.
    at_once: Mutex<Option<Arc<EncryptedTelemetry>>>,
}

impl fmt::Debug for EncryptedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedReport(under {})", self.key)
    }
}

/// [`verify`](crate::verify), then the switch to the evaluation key and the rotations of CPU and memory: 5
/// look-ups.
///
/// # Errors
/// As of [`verify`](crate::verify), or [`ListError::Expand`].
pub fn verify_and_expand_report(
    list: &ProvenList,
    metadata: &ProofMetadata,
    reference_string: &ReferenceString,
    key: &EvaluationKey,
) -> Result<EncryptedReport, ListError> {
    let list = verified(Kind::Telemetry, list, metadata, key.public_key(), reference_string)?;
    EncryptedReport::expand(list, key).map_err(ListError::Expand)
}

impl EncryptedReport {
    pub(crate) fn expand(list: CompactCiphertextList, key: &EvaluationKey) -> Result<Self, String> {
        let circuit = Circuit::new(key);
        let mut reported = Reported::default();
        for resource in 0..FIRST {
            reported.set_free(&circuit, resource, quantity(&list, resource, key)?);
        }
        let share = switched(&list, &[SHARE], key)?.pop().ok_or_else(|| LOST.to_owned())?;
        reported.set_share(&circuit, &share);
        Ok(Self { key: key.id(), list, reported, at_once: Mutex::default() })
    }

    /// What the circuit of version [`AT_ONCE`](veil_protocol_spec::scheduling::CircuitId::AT_ONCE) computes on. No
    /// lock is held meanwhile, since the thread that makes it may take up another evaluation.
    pub(crate) fn at_once(&self, key: &EvaluationKey) -> Result<Arc<EncryptedTelemetry>, String> {
        let kept = || self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().clone() {
            return Ok(known);
        }
        let expanded = Arc::new(EncryptedTelemetry::expand(self.list.clone(), key)?);
        *kept() = Some(Arc::clone(&expanded));
        Ok(expanded)
    }

    /// With what this slot looks at besides: 2 look-ups for each of disk and GPUs, one for classes and one for
    /// the priority.
    pub(crate) fn for_slot(
        &self,
        used: &Used,
        key: &EvaluationKey,
    ) -> Result<Reported<Encrypted>, String> {
        let circuit = Circuit::new(key);
        let mut reported = self.reported.clone();
        for resource in (0..RESOURCES).filter(|resource| used.resources[*resource]) {
            if !reported.has(resource) {
                reported.set_free(&circuit, resource, quantity(&self.list, resource, key)?);
            }
        }
        let one = |position: usize| {
            let digits = crate::expanded::cast(Kind::Telemetry, &self.list, &[position], key)?;
            digits.into_iter().next().ok_or_else(|| LOST.to_owned())
        };
        reported.classes = used.classes.then(|| one(CLASSES)).transpose()?;
        reported.priority = used.priority.then(|| one(PRIORITY)).transpose()?;
        Ok(reported)
    }
}

fn quantity(
    list: &CompactCiphertextList,
    resource: usize,
    key: &EvaluationKey,
) -> Result<[crate::encrypted::EncryptedDigit; 2], String> {
    let digits = switched(list, &[2 * resource, 2 * resource + 1], key)?;
    digits.try_into().map_err(|_| LOST.to_owned())
}

/// What a manifest names, in full.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Policy, jobs and labels.
    pub public: PublicInputs,
    /// Expanded reports by the digest of their message, as the manifest names it.
    pub reports: BTreeMap<Blake3Digest, Arc<EncryptedReport>>,
    /// Expanded requests of the pending jobs that encrypt them, by the job's digest.
    pub requests: BTreeMap<Blake3Digest, Arc<EncryptedQuantities>>,
    /// Expanded weights, if the policy encrypts them.
    pub weights: Option<Arc<ExpandedWeights>>,
}

/// A slot, question by question.
pub struct Evaluation {
    manifest: Manifest,
    key: EvaluationKey,
    plan: Plan,
    workers: Vec<Reported<Encrypted>>,
    confidential: Confidential<Encrypted>,
    held: Option<Held<Encrypted>>,
    opened: Vec<u8>,
}

impl fmt::Debug for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluation").field("opened", &self.opened.len()).finish_non_exhaustive()
    }
}

impl Evaluation {
    /// Of a [valid](Manifest::validate) manifest. Makes the rotations that only some jobs need, on all cores.
    ///
    /// # Errors
    /// [`EvaluateError`] if an input is missing or not for this circuit and key.
    pub fn new(
        manifest: &Manifest,
        inputs: &Inputs,
        key: &EvaluationKey,
    ) -> Result<Self, EvaluateError> {
        let found = threshold_circuit_id();
        if manifest.circuit != found {
            return Err(EvaluateError::Circuit { expected: manifest.circuit, found });
        }
        let plan = Plan::new(manifest, &inputs.public)?;
        if manifest.telemetry.is_empty() && !manifest.pending.is_empty() {
            return Err(EvaluateError::NoWorkers);
        }
        let (expected, used) = (key.id(), plan.used());
        let asked = plan.asked();
        let workers = manifest
            .telemetry
            .par_iter()
            .enumerate()
            .map(|(worker, entry)| {
                let telemetry = entry.digest;
                let missing = EvaluateError::MissingTelemetry(telemetry);
                let report = inputs.reports.get(&telemetry).ok_or(missing)?;
                if report.key != expected {
                    let found = report.key;
                    return Err(EvaluateError::OtherKey { list: telemetry, found, expected });
                }
                if !asked.contains(&worker) {
                    return Ok(Reported::default());
                }
                let expanded = report.for_slot(&used, key);
                expanded.map_err(|reason| EvaluateError::Expand { telemetry, reason })
            })
            .collect::<Result<Vec<_>, EvaluateError>>()?;
        let confidential = confidential(&plan, &inputs.requests, inputs.weights.as_deref(), key)?;
        let (manifest, key, opened) = (manifest.clone(), key.clone(), Vec::new());
        Ok(Self { manifest, key, plan, workers, confidential, held: None, opened })
    }

    /// [`evaluate_next`](Self::evaluate_next) where these digits were opened, in order, whatever was before.
    ///
    /// # Errors
    /// As of [`evaluate_next`](Self::evaluate_next).
    pub fn evaluate_after(
        &mut self,
        opened: Vec<u8>,
    ) -> Result<Option<(Outputs, Blake3Digest)>, EvaluateError> {
        self.opened = opened;
        self.evaluate_next()
    }

    /// Evaluates what is asked after what was opened, on all cores: one digit, and the digest that evaluators
    /// compare. `None` at the end. It may take minutes: call it from a thread that may block.
    ///
    /// # Errors
    /// [`EvaluateError::Cancelled`].
    pub fn evaluate_next(&mut self) -> Result<Option<(Outputs, Blake3Digest)>, EvaluateError> {
        let opened = self.opened.iter().copied();
        let Ok(course) = Course::after(&self.plan, opened) else { return Ok(None) };
        let Some(stage) = course.stage() else { return Ok(None) };
        let circuit = Circuit::new(&self.key);
        let mut held = self.held.take();
        let digit = evaluate(
            &self.plan,
            stage.question,
            stage.path,
            &self.workers,
            &self.confidential,
            &mut held,
            &circuit,
        );
        if self.key.is_cancelled() {
            return Err(EvaluateError::Cancelled);
        }
        self.held = held;
        let outputs = Outputs::new(self.key.id(), vec![digit], circuit.cost());
        let digest = outputs.digest(&self.manifest);
        Ok(Some((outputs, digest)))
    }

    /// What was evaluated last was opened.
    ///
    /// # Errors
    /// [`NobodyNamed`] if the digit is no answer; it does not count then.
    pub fn opened(&mut self, digit: u8) -> Result<(), NobodyNamed> {
        self.course()?.opened(digit)?;
        self.opened.push(digit);
        Ok(())
    }

    /// What was placed so far, by position in the manifest's pending list: the position of a worker in its
    /// telemetry, or nothing.
    #[must_use]
    pub fn outcome(&self) -> Vec<Option<usize>> {
        self.course().map(|course| course.outcome().to_vec()).unwrap_or_default()
    }

    /// The plan of the manifest.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    fn course(&self) -> Result<Course<'_>, NobodyNamed> {
        Course::after(&self.plan, self.opened.iter().copied())
    }
}
