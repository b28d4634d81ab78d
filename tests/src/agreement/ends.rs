//! The second instance of a slot: what each member knows of how the slot ends, and when.

use std::collections::BTreeMap;

use rand::Rng;
use veil_committee_agreement::Validity;
use veil_committee_machine::Millis;
use veil_committee_world::Schedule;
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ParticipantIndex, Slot, Wire,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome},
};

use super::{
    AgreementBehaviour::{Ignorant, ProposeInvalid},
    Members, VALIDATION, binding, propose, validated,
};
use crate::fixtures;

/// The longest evaluation in virtual time.
const EVALUATION: u16 = 1_500;

/// The ends of the slots of one run.
#[derive(Default)]
pub(super) struct Ends {
    /// When each member began to evaluate: what it has done outlives its process.
    began: BTreeMap<(ParticipantIndex, Slot), Millis>,
}

/// The void end of a slot.
pub(super) const fn void(slot: Slot, manifest: Blake3Digest) -> SlotEnd {
    SlotEnd { binding: binding(), slot, manifest, outcome: None }
}

/// What an evaluation of the manifest gives; `seed` tells wrong ones apart.
fn outcome(slot: Slot, manifest: Blake3Digest, seed: u64) -> SlotEnd {
    let draw = |part| fixtures::draw(seed, "outcome", slot.0 * 8 + part);
    let outcome = SlotOutcome {
        evaluation: Blake3Digest(draw(0)),
        assignments_root: KeccakDigest(draw(1)),
        state_root: KeccakDigest(draw(2)),
    };
    SlotEnd { outcome: Some(outcome), ..void(slot, manifest) }
}

/// What the colluding members say.
const WRONG: u64 = u64::MAX;

impl Members {
    /// When a member takes an end for valid by itself, if ever.
    fn valid_from(&mut self, j: ParticipantIndex, end: &SlotEnd, now: Millis) -> Option<Millis> {
        let slot = end.slot;
        let manifest = *self.manifest_of(j, slot)?;
        let began = *self.ends.began.entry((j, slot)).or_insert(now);
        let behaviour = self.report.plan.behaviours.get(&j).copied();
        if behaviour == Some(ProposeInvalid) {
            return (*end == outcome(slot, manifest, WRONG)).then_some(now);
        }
        if *end == void(slot, manifest) {
            return self.report.plan.scenario.void_after.map(|after| began + after);
        }
        let [a, b, ..] =
            fixtures::draw(self.report.seed, "evaluation", slot.0 * 64 + u64::from(j.get()));
        let evaluated = began + Millis::from(u16::from_le_bytes([a, b]) % EVALUATION);
        let right = *end == outcome(slot, manifest, self.report.seed);
        (right && behaviour != Some(Ignorant)).then_some(evaluated)
    }

    /// "Honest proposers propose the outcome when they know it", else void when the time is over.
    pub(super) fn propose_end(
        &mut self,
        j: ParticipantIndex,
        instance: Instance,
        round: u32,
        world: &mut Schedule<Self>,
    ) {
        let Some(manifest) = self.manifest_of(j, instance.slot).copied() else { return };
        let now = world.now();
        let known = [self.report.seed, WRONG].map(|seed| outcome(instance.slot, manifest, seed));
        let ends = known.into_iter().chain([void(instance.slot, manifest)]);
        let from = ends.filter_map(|end| Some((self.valid_from(j, &end, now)?.max(now), end)));
        // The first of those that are known at the same time.
        if let Some((at, end)) = from.min_by_key(|(at, _)| *at) {
            propose(j, (instance, round), end.to_wire(), at - now + VALIDATION, world);
        }
    }

    /// A member answers when it knows; until then it refuses or says nothing.
    pub(super) fn validate_end(
        &mut self,
        j: ParticipantIndex,
        end: &SlotEnd,
        world: &mut Schedule<Self>,
    ) {
        let now = world.now();
        let from = self.valid_from(j, end, now);
        if from.is_none_or(|at| at > now) && self.rng.gen_bool(0.5) {
            validated(j, end.digest(), Validity::Invalid, VALIDATION, world);
        }
        if let Some(at) = from {
            let delay = at.saturating_sub(now) + VALIDATION;
            validated(j, end.digest(), Validity::Valid, delay, world);
        }
    }

    pub(super) fn ended(
        &mut self,
        j: ParticipantIndex,
        lock: Lock,
        end: SlotEnd,
        world: &mut Schedule<Self>,
    ) {
        let slot = end.slot;
        world.record(|| format!("{j} ends slot {slot}: {:?}", end.outcome.is_some()));
        if self.report.plan.is_honest(j) {
            let sound = self.manifest_of(j, slot).is_some_and(|manifest| {
                [void(slot, *manifest), outcome(slot, *manifest, self.report.seed)].contains(&end)
            });
            let ends = self.report.ends.entry(j).or_default();
            if ends.entry(slot).or_insert((lock, end)).1 != end {
                self.report.violations.push(format!("{j} ends slot {slot} in two ways"));
            }
            if !sound {
                self.report
                    .violations
                    .push(format!("{j} ends slot {slot} in a way that nobody knows"));
            }
        }
        self.settle(j, slot, world);
    }
}
