//! What members make of a manifest: whether it is valid, and its outcome by the cleartext twin.

use std::collections::BTreeMap;

use rand::Rng;
use veil_committee_machine::Millis;
use veil_committee_slot::{machine::Evaluated, manifest::InvalidManifest};
use veil_committee_world::Schedule;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    scheduling::{Manifest, Reading, TelemetryEntry, UnixMillis},
    sync::LockedManifest,
};
use veil_scheduler_plan::{
    cleartext::{Secrets, place},
    inputs::{PlanError, PublicInputs},
    outcome::encode,
    plan::Plan,
};

use super::{
    super::{SlotBehaviour, telemetry::MAX_AGE},
    Cluster,
};

/// A validator allows samples to be this much older than a proposer.
const AGE_SLACK: Millis = 30_000;
/// A slow member's evaluation.
const SLOW: Millis = 60_000;

type Outcome = Result<(Evaluated, Vec<u8>), String>;

/// The inputs of the slot's manifests, as members store them before they vote, and what comes of
/// them: the same for all, so each is computed once.
#[derive(Default)]
pub(in crate::slot) struct Evaluations {
    inputs: BTreeMap<Blake3Digest, Result<(PublicInputs, Vec<Reading>), PlanError>>,
    outcomes: BTreeMap<Blake3Digest, Outcome>,
}

impl Evaluations {
    pub(in crate::slot) fn clear(&mut self) {
        self.inputs.clear();
        self.outcomes.clear();
    }
}

fn outcome(
    manifest: &Manifest,
    value: Blake3Digest,
    public: PublicInputs,
    readings: &[Reading],
) -> Outcome {
    if manifest.telemetry.is_empty() {
        let digest = manifest.no_outputs();
        return Ok((Evaluated { digest, public, outputs: 0 }, Vec::new()));
    }
    let plan = Plan::new(manifest, &public).map_err(|error| error.to_string())?;
    let digits = encode(&plan, &place(&plan, readings, &Secrets::default()));
    let digest = {
        let mut hasher = blake3::Hasher::new();
        hasher.update(value.as_bytes()).update(&digits);
        Blake3Digest(*hasher.finalize().as_bytes())
    };
    Ok((Evaluated { digest, public, outputs: digits.len() }, digits))
}

/// Makes a step's result of the last one's: what a step puts out follows from those before it, and where those were
/// not opened right, the last one puts out nothing that is an outcome.
fn of_step(
    (evaluated, digits): &mut (Evaluated, Vec<u8>),
    (step, steps): (u8, u8),
    opened: &[Vec<u8>],
) {
    let mut hasher = blake3::Hasher::new();
    let mut expected = Vec::new();
    for step in 0..step {
        hasher.update(evaluated.digest.as_bytes()).update(&[step]);
        expected.push(vec![hasher.finalize().as_bytes()[0] & 0xf; 3]);
    }
    if opened != expected {
        digits.fill(0xff);
    }
    if step + 1 < steps {
        hasher.update(evaluated.digest.as_bytes()).update(&[step]);
        let drawn = *hasher.finalize().as_bytes();
        *digits = vec![drawn[0] & 0xf; 3];
        (evaluated.digest, evaluated.outputs) = (Blake3Digest(drawn), digits.len());
    }
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
        (step, opened): (u8, &[Vec<u8>]),
        schedule: &mut Schedule<Self>,
    ) {
        let LockedManifest { manifest, lock } = locked;
        let value = lock.value;
        if !self.evaluations.outcomes.contains_key(&value) {
            // A member that did not vote for it gets the inputs from those that did.
            let _ = self.store_inputs(j, value, manifest);
            let outcome = match &self.evaluations.inputs[&value] {
                Ok((public, readings)) => outcome(manifest, value, public.clone(), readings),
                Err(error) => Err(error.to_string()),
            };
            self.evaluations.outcomes.insert(value, outcome);
        }
        let mut evaluated = self.evaluations.outcomes[&value].clone();
        if let Err(reason) = &evaluated {
            self.report.refuse("evaluation failed", reason);
        }
        if let Ok(last) = &mut evaluated {
            of_step(last, (step, self.plan.scenario.steps.get()), opened);
        }
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
                SLOW
            }
            _ => self.rng.gen_range(200..2_000),
        };
        let of = (manifest.slot, step);
        schedule.input(j, delay, move |member, now| member.evaluated(of, evaluated, now));
    }
}
