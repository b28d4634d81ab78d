//! One slot by the threshold circuit, question by question, each digit squashed and decrypted before the next is
//! asked; or counted on numbers, where it would take hours.

use std::sync::Arc;

use serde::Serialize;
use tfhe::{get_pbs_count, reset_pbs_count};
use veil_node_process::Stopwatch;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    scheduling::{JobSpec, Manifest, ProofMetadata, Reading, ResourceRequest},
    slot::evaluation_digest,
};
use veil_scheduler::{
    encrypt,
    threshold::{Evaluation, Inputs, verify_and_expand_report},
    threshold_circuit_id, verify,
};
use veil_scheduler_plan::{
    circuit::{digit::Digit, in_clear::Clear, lookup::Circuit, worker::Confidential},
    cleartext::Secrets,
    plan::Plan,
    threshold::{choice, course::Course, reported::Reported, twin},
};

use crate::{
    cluster::{self, binding},
    failure::Failure,
    inputs::{ListFigures, Lists},
    placement::{Bench, LISTS, Slot, public, readings, resources, secrets},
};

/// Look-ups to expand a list whose job asks for CPU and memory, and for each resource besides.
const EXPANSION: (u64, u64) = (5, 2);

/// A slot by the threshold circuit.
#[derive(Clone, Debug, Serialize)]
pub struct ThresholdFigures {
    /// Whether it was evaluated under a key; else look-ups are counted on numbers, and core-seconds follow from
    /// what one took in a smaller slot of the same run.
    pub measured: bool,
    /// Look-ups of the evaluation, without expansion.
    pub pbs: u64,
    /// Look-ups to expand all workers' lists, each once.
    pub pbs_expansion: u64,
    /// Look-ups for each worker and replica, without expansion.
    pub pbs_per_node_job: f64,
    /// Digits that are opened, one after the other.
    pub openings: usize,
    /// Most look-ups one after the other in one of them.
    pub depth: u32,
    /// Largest variance that enters a look-up, in those of bootstraps.
    pub largest_variance: u32,
    /// Wall seconds of the evaluation; absent if it was not measured.
    pub seconds: Option<f64>,
    /// Core-seconds of the evaluation.
    pub core_seconds: f64,
    /// Core-seconds of squashing; absent if it was not measured.
    pub squash_core_seconds: Option<f64>,
    /// The digests of all evaluations, in order; absent if it was not measured.
    pub output_digest: Option<Blake3Digest>,
    /// Whether what was opened is what the cleartext twin places.
    pub agrees_with_twin: bool,
    /// One worker's list; absent if it was not measured.
    pub telemetry: Option<ListFigures>,
}

impl Bench<'_> {
    /// Encrypts and expands everything, then evaluates, squashes and decrypts question by question, and
    /// compares.
    ///
    /// # Errors
    /// The error of the first step that fails.
    pub fn run_thresholds(&self, slot: &Slot) -> Result<ThresholdFigures, Failure> {
        let readings = readings(slot);
        let (jobs, requests, _) = self.jobs(slot)?;
        let manifest = manifest(slot, &jobs);
        let metadata =
            ProofMetadata::new(&binding().scope, &binding().key_set, &PeerIdHash([0; 32]), 1);
        let Lists { expanded, figures: telemetry, .. } = self.kept.lists(
            self.string,
            "telemetry",
            LISTS.min(readings.len()),
            |number| encrypt(&readings[number], self.public_key, self.string, &metadata),
            |_, list| verify(list, &metadata, self.public_key, self.string),
            |_, list| {
                verify_and_expand_report(list, &metadata, self.string, self.key).map(Arc::new)
            },
        )?;
        let mut inputs = Inputs { public: public(&jobs), requests, ..Inputs::default() };
        let repeated = manifest.telemetry.iter().zip(expanded.iter().cycle());
        inputs.reports = repeated.map(|(entry, list)| (entry.digest, Arc::clone(list))).collect();

        reset_pbs_count();
        let mut evaluation = Evaluation::new(&manifest, &inputs, self.key)?;
        let late = get_pbs_count();
        let secrets = secrets(slot, inputs.requests.keys());
        let expected = twin::place(evaluation.plan(), &readings, &secrets);
        let (mut pbs, mut seconds, mut core_seconds, mut squash_core_seconds) = (0, 0.0, 0.0, 0.0);
        let (mut depth, mut largest_variance) = (0, 0);
        let mut digests = Vec::new();
        loop {
            reset_pbs_count();
            let watch = Stopwatch::start();
            let Some((outputs, digest)) = evaluation.evaluate_next()? else { break };
            seconds += watch.wall();
            core_seconds += watch.cpu();
            let counted = get_pbs_count();
            if counted != outputs.cost().look_ups() {
                let cost = outputs.cost().look_ups();
                return Err(format!("tfhe made {counted} look-ups, the circuit {cost}").into());
            }
            pbs += counted;
            depth = depth.max(outputs.cost().depth());
            largest_variance = largest_variance.max(outputs.cost().largest_variance());
            digests.push(digest);
            let watch = Stopwatch::start();
            let squashed = outputs.squash(self.key)?;
            squash_core_seconds += watch.cpu();
            let digits = self.decrypt(&squashed);
            evaluation.opened(*digits.first().ok_or("what was opened is no digit")?)?;
        }
        Ok(ThresholdFigures {
            measured: true,
            pbs,
            pbs_expansion: telemetry.pbs * u64::from(slot.nodes) + late,
            pbs_per_node_job: pbs as f64 / slot.decisions(),
            openings: digests.len(),
            depth,
            largest_variance,
            seconds: Some(seconds),
            core_seconds,
            squash_core_seconds: Some(squash_core_seconds),
            output_digest: Some(evaluation_digest(&digests)),
            agrees_with_twin: evaluation.outcome() == expected,
            telemetry: Some(telemetry),
        })
    }
}

fn manifest(slot: &Slot, jobs: &[JobSpec]) -> Manifest {
    Manifest { circuit: threshold_circuit_id(), ..cluster::manifest(slot.nodes.into(), jobs, 1) }
}

/// The same on numbers: what is counted does not depend on the key. A look-up takes so many core-seconds.
///
/// # Errors
/// If requests are encrypted, which nobody counts here, or there is no plan.
pub fn thresholds_in_clear(
    slot: &Slot,
    core_seconds_of_one: f64,
) -> Result<ThresholdFigures, Failure> {
    let jobs = in_clear(slot)?;
    let plan = Plan::new(&manifest(slot, &jobs), &public(&jobs))?;
    let readings = readings(slot);
    let expansion = Circuit::in_clear();
    let reported = |reading: &Reading| Reported::in_clear(&expansion, reading);
    let workers: Vec<Reported<Clear>> = readings.iter().map(reported).collect();
    let confidential = Confidential::<Clear> { requests: Default::default(), weights: None };
    let circuit = Circuit::in_clear();
    let mut course = Course::new(&plan);
    let (mut held, mut openings) = (None, 0);
    while let Some(stage) = course.stage() {
        let (question, path) = (stage.question, stage.path);
        let digit: Digit<Clear> =
            choice::evaluate(&plan, question, path, &workers, &confidential, &mut held, &circuit);
        course.opened(u8::try_from(digit.steps())?)?;
        openings += 1;
    }
    let cost = circuit.cost();
    let others = u64::from(slot.resources.saturating_sub(2));
    let expected = twin::place(&plan, &readings, &Secrets::default());
    Ok(ThresholdFigures {
        measured: false,
        pbs: cost.look_ups(),
        pbs_expansion: u64::from(slot.nodes) * (EXPANSION.0 + EXPANSION.1 * others),
        pbs_per_node_job: cost.look_ups() as f64 / slot.decisions(),
        openings,
        depth: cost.depth(),
        largest_variance: cost.largest_variance(),
        seconds: None,
        core_seconds: cost.look_ups() as f64 * core_seconds_of_one,
        squash_core_seconds: None,
        output_digest: None,
        agrees_with_twin: course.outcome() == expected,
        telemetry: None,
    })
}

/// Look-ups of the slot by the circuit that opens nothing in between.
///
/// # Errors
/// As of [`thresholds_in_clear`].
pub fn in_one_piece(slot: &Slot) -> Result<u64, Failure> {
    let jobs = in_clear(slot)?;
    Ok(Plan::new(&cluster::manifest(slot.nodes.into(), &jobs, 1), &public(&jobs))?
        .cost()
        .look_ups())
}

fn in_clear(slot: &Slot) -> Result<Vec<JobSpec>, Failure> {
    if slot.encrypted_requests {
        return Err("encrypted requests are measured, not counted: take a smaller slot".into());
    }
    let request = || ResourceRequest::Clear(resources(slot.request()));
    let job = |nonce| cluster::job(nonce, request(), slot.replicas, slot.policy, slot.apart);
    Ok((0..u64::from(slot.jobs)).map(job).collect())
}
