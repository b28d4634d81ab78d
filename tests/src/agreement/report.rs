//! What a run of the agreement gives, and what it must be.

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_machine::Millis;
use veil_committee_world::EventLog;
use veil_protocol_spec::{
    ParticipantIndex, Slot,
    agreement::{Instance, Lock, SlotEnd},
    scheduling::Manifest,
};

use super::{AgreementPlan, binding, roster};

/// An agreement, slot by slot.
#[derive(Clone, Debug)]
pub struct AgreementReport {
    /// The plan.
    pub plan: AgreementPlan,
    /// Seed of the run.
    pub seed: u64,
    /// The decisions of each honest member.
    pub locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (Lock, Manifest)>>,
    /// How slots end for each honest member.
    pub ends: BTreeMap<ParticipantIndex, BTreeMap<Slot, (Lock, SlotEnd)>>,
    /// Slots that a member took from certificates, since it was too far behind.
    pub fetched: BTreeMap<ParticipantIndex, BTreeSet<Slot>>,
    /// Whom an honest member convicted.
    pub convicted: BTreeSet<ParticipantIndex>,
    /// Members that abstained, and why.
    pub abstained: Vec<(ParticipantIndex, String)>,
    /// Second questions about a manifest that 2t+1 others voted for.
    pub appeals: u64,
    /// Virtual time of each decision.
    pub times: BTreeMap<(ParticipantIndex, Slot), Millis>,
    /// Properties that did not hold.
    pub violations: Vec<String>,
    /// Effects carried out by each member.
    pub effects: Vec<u64>,
    /// Virtual time at the end.
    pub elapsed: Millis,
    /// What happened, event by event.
    pub log: EventLog,
}

impl AgreementReport {
    /// The manifest of a slot, if anyone locked one.
    #[must_use]
    pub fn manifest(&self, slot: u64) -> Option<&Manifest> {
        let (_, manifest) = self.locks.values().find_map(|locks| locks.get(&Slot(slot)))?;
        Some(manifest)
    }

    /// How a slot ends, if anyone knows.
    #[must_use]
    pub fn end(&self, slot: u64) -> Option<&SlotEnd> {
        let (_, end) = self.ends.values().find_map(|ends| ends.get(&Slot(slot)))?;
        Some(end)
    }

    /// All honest members have decided all slots, each slot in one way, with sound locks.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_agreed(&self) {
        let committee = self.plan.committee;
        let roster = roster(committee, self.seed);
        for (j, locks) in &self.locks {
            for slot in (1..=self.plan.scenario.slots).map(Slot) {
                let Some((lock, manifest)) = locks.get(&slot) else {
                    if !self.fetched.get(j).is_some_and(|slots| slots.contains(&slot)) {
                        self.fail(&format!("member {j} has not decided slot {slot}"));
                    }
                    continue;
                };
                if let Err(error) = lock.verify(committee, &roster) {
                    self.fail(&format!("member {j}, slot {slot}: {error}"));
                }
                let sound = (lock.instance, lock.binding) == (Instance::manifest(slot), binding())
                    && lock.value == manifest.digest();
                if !sound || Some(manifest) != self.manifest(slot.0) {
                    self.fail(&format!("member {j} has decided something else in slot {slot}"));
                }
                if self.plan.scenario.ends {
                    self.assert_ended(*j, slot, manifest);
                }
            }
        }
    }

    #[track_caller]
    fn assert_ended(&self, j: ParticipantIndex, slot: Slot, manifest: &Manifest) {
        let Some((lock, end)) = self.ends.get(&j).and_then(|ends| ends.get(&slot)) else {
            if !self.fetched.get(&j).is_some_and(|slots| slots.contains(&slot)) {
                self.fail(&format!("member {j} has not ended slot {slot}"));
            }
            return;
        };
        let committee = self.plan.committee;
        if let Err(error) = lock.verify(committee, &roster(committee, self.seed)) {
            self.fail(&format!("member {j}, end of slot {slot}: {error}"));
        }
        let sound = (lock.instance, lock.binding) == (Instance::end(slot), binding())
            && (lock.value, end.manifest) == (end.digest(), manifest.digest());
        if !sound || Some(end) != self.end(slot.0) {
            self.fail(&format!("member {j} has ended slot {slot} otherwise"));
        }
    }

    /// Panics with all that is needed to repeat the run.
    ///
    /// # Panics
    /// Always.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        self.plan.fail(&format!("{what} after {} ms", self.elapsed), self.seed, &self.log)
    }
}
