//! What members make of a manifest: whether it is valid, and its outcome by the cleartext twin.

use std::collections::BTreeMap;

use rand::Rng;
use veil_committee_machine::Millis;
use veil_committee_slot::{machine::Evaluated, manifest::InvalidManifest};
use veil_committee_world::Schedule;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    scheduling::{CircuitId, Manifest, Reading, SlotRecord, TelemetryEntry, UnixMillis},
    sync::LockedManifest,
};
use veil_scheduler_plan::{
    cleartext::{Secrets, place},
    inputs::{PlanError, PublicInputs},
    outcome::{self, encode},
    plan::Plan,
    threshold::{course::Course, twin},
};

use super::{
    super::{SlotBehaviour, telemetry::MAX_AGE},
    Cluster,
};

/// A validator allows samples to be this much older than a proposer.
const AGE_SLACK: Millis = 30_000;
/// A slow member's evaluation.
const SLOW: Millis = 60_000;

/// What is opened of a manifest, step by step.
type Openings = Result<(PublicInputs, Vec<Vec<u8>>), String>;

/// The inputs of the slot's manifests, as members store them before they vote, and what comes of
/// them: the same for all, so each is computed once.
#[derive(Default)]
pub(in crate::slot) struct Evaluations {
    inputs: BTreeMap<Blake3Digest, Result<(PublicInputs, Vec<Reading>), PlanError>>,
    openings: BTreeMap<Blake3Digest, Openings>,
}

impl Evaluations {
    pub(in crate::slot) fn clear(&mut self) {
        self.inputs.clear();
        self.openings.clear();
    }

    /// What was opened of a slot follows from its record: auditors need no more.
    pub(in crate::slot) fn follows_from(&self, record: &SlotRecord) -> Result<(), String> {
        let (manifest, value) = (&record.manifest, &record.lock.value);
        if record.certificate.body.is_void() || manifest.telemetry.is_empty() {
            return Ok(());
        }
        let Some(Ok((public, opened))) = self.openings.get(value) else { return Ok(()) };
        let again = outcome::openings(manifest, public, &record.assignments);
        match again.map_err(|error| error.to_string())? {
            again if again == *opened => Ok(()),
            again => Err(format!("{opened:?} was opened, the record says {again:?}")),
        }
    }
}

fn openings(manifest: &Manifest, public: &PublicInputs, readings: &[Reading]) -> Openings {
    if manifest.telemetry.is_empty() {
        return Ok((public.clone(), Vec::new()));
    }
    let plan = Plan::new(manifest, public).map_err(|error| error.to_string())?;
    let secrets = Secrets::default();
    let openings = if manifest.circuit.version == CircuitId::THRESHOLDS {
        let placed = twin::place(&plan, readings, &secrets);
        let answers = Course::answers(&plan, &placed);
        let course = Course::after(&plan, answers.iter().copied());
        if course.is_ok_and(|course| course.outcome() != placed) {
            return Err("what is asked does not lead to what the twin places".to_owned());
        }
        answers.into_iter().map(|digit| vec![digit]).collect()
    } else {
        Vec::from([encode(&plan, &place(&plan, readings, &secrets))])
    };
    Ok((public.clone(), openings))
}

/// What a step puts out. It follows from what was opened before; where that was not opened right, it is nothing
/// that could be an outcome.
fn step(
    manifest: &Manifest,
    value: Blake3Digest,
    (public, openings): &(PublicInputs, Vec<Vec<u8>>),
    opened: &[Vec<u8>],
) -> (Evaluated, Vec<u8>) {
    let next = openings.get(opened.len()).filter(|digits| !digits.is_empty());
    let (digest, digits) = match next {
        None => (manifest.no_outputs(), Vec::new()),
        Some(digits) => {
            let right = openings.starts_with(opened);
            let digits = if right { digits.clone() } else { vec![0xff; digits.len()] };
            let mut hasher = blake3::Hasher::new();
            hasher.update(value.as_bytes());
            opened.iter().for_each(|digits| _ = hasher.update(digits));
            hasher.update(&digits);
            (Blake3Digest(*hasher.finalize().as_bytes()), digits)
        }
    };
    (Evaluated { digest, public: public.clone(), outputs: digits.len() }, digits)
}

impl Cluster {
    pub(in crate::slot) fn validate(
        &mut self,
        j: ParticipantIndex,
        manifest: &Manifest,
        author: ParticipantIndex,
        appeal: bool,
        now: Millis,
    ) -> Result<(), InvalidManifest> {
        let unknown = |what: &str| InvalidManifest::Unknown(what.to_owned());
        let chain = self.around.chain.at(manifest.block).ok_or_else(|| unknown("the block"))?;
        let mut sight = self.sight(j, chain, now);
        if appeal {
            self.report.count("appeal");
            sight.fresh.clear();
            sight.not_before = UnixMillis(0);
            sight.appeal = true;
        } else {
            sight.not_before = self.not_before(j, MAX_AGE + AGE_SLACK, now);
        }
        sight.with(|view, _, _| view.validate_facts(manifest, author))?;
        if manifest.telemetry.iter().any(|entry| self.around.fetched(entry).is_none()) {
            return Err(unknown("telemetry"));
        }
        // It is planned when its inputs are stored.
        let fetched = |entry: &TelemetryEntry| self.around.fetched(entry);
        sight.with(|view, _, _| view.validate_lists(manifest, || Ok(()), fetched))?;
        Ok(self.store_inputs(j, manifest.digest(), manifest)?)
    }

    /// "Before a member votes for a manifest [...] it stores" its inputs (`slot.md`, 3): of a manifest that could
    /// be evaluated.
    fn store_inputs(
        &mut self,
        j: ParticipantIndex,
        value: Blake3Digest,
        manifest: &Manifest,
    ) -> Result<(), PlanError> {
        let state = &self.disks[j.position()].state;
        let around = &mut self.around;
        let inputs = self.evaluations.inputs.entry(value).or_insert_with(|| {
            let (public, readings) = around.inputs(manifest, state);
            if !manifest.telemetry.is_empty() {
                Plan::new(manifest, &public)?;
            }
            Ok((public, readings))
        });
        inputs.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    pub(in crate::slot) fn evaluate(
        &mut self,
        j: ParticipantIndex,
        locked: &LockedManifest,
        (number, opened): (u16, &[Vec<u8>]),
        schedule: &mut Schedule<Self>,
    ) {
        let LockedManifest { manifest, lock } = locked;
        let value = lock.value;
        if !self.evaluations.openings.contains_key(&value) {
            // A member that did not vote for it gets the inputs from those that did.
            let _ = self.store_inputs(j, value, manifest);
            let openings = match &self.evaluations.inputs[&value] {
                Ok((public, readings)) => openings(manifest, public, readings),
                Err(error) => Err(error.to_string()),
            };
            if let Ok((_, openings)) = &openings {
                self.report.most_openings = self.report.most_openings.max(openings.len());
            }
            self.evaluations.openings.insert(value, openings);
        }
        let mut evaluated = match &self.evaluations.openings[&value] {
            Ok(openings) => Ok(step(manifest, value, openings, opened)),
            Err(reason) => {
                self.report.refuse("evaluation failed", reason);
                Err(reason.clone())
            }
        };
        let behaviour = self.plan.behaviours.get(&j).copied();
        if let (Some(SlotBehaviour::WrongEvaluation), Ok((evaluated, digits))) =
            (behaviour, &mut evaluated)
        {
            evaluated.digest.0[0] ^= 1;
            digits.fill(0);
            self.deviated(j, "the evaluation");
        }
        let delay = match behaviour {
            Some(SlotBehaviour::Slow) => {
                self.deviated(j, "the evaluation");
                if number == 0 { SLOW } else { SLOW / 10 }
            }
            // The first step gets the inputs, and expands what a slot uses of them.
            _ if number == 0 => self.rng.gen_range(200..2_000),
            _ => self.rng.gen_range(2..20),
        };
        let of = (manifest.slot, number);
        schedule.input(j, delay, move |member, now| member.evaluated(of, evaluated, now));
    }
}
