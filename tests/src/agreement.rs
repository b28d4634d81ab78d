//! The agreement on manifests, and on how slots end, in the simulated world.
//!
//! ```
//! use veil_tests::agreement::AgreementPlan;
//!
//! let report = AgreementPlan::new(4).slots(2).absent(3).run(1);
//! report.assert_agreed();
//! ```

mod members;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Physics, World};
use veil_protocol_spec::{
    Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity, Slot,
    agreement::{Instance, Lock, SlotEnd},
    scheduling::{Binding, Manifest},
};

use self::members::Members;
use crate::{
    fail, fixtures,
    plan::{Plan, Scenario},
};

/// The cluster of every run.
#[must_use]
pub const fn binding() -> Binding {
    Binding { scope: fixtures::SCOPE, key_set: KeySetDigest([0xde; 32]), epoch: Epoch(2) }
}

fn roster(committee: Committee, seed: u64) -> Vec<PublicIdentity> {
    committee.participants().map(|j| fixtures::identity(seed, j).public()).collect()
}

/// Slots, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementScenario {
    /// How many slots to decide.
    pub slots: u64,
    /// Whether members decide how each slot ends, too.
    pub ends: bool,
    /// Time after which a member takes void for valid, counted from when it asks itself first.
    pub void_after: Option<Millis>,
}

/// An agreement and what goes wrong in it.
pub type AgreementPlan = Plan<AgreementScenario>;

impl Default for AgreementScenario {
    fn default() -> Self {
        Self { slots: 1, ends: false, void_after: None }
    }
}

/// What a member does that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementBehaviour {
    /// Sends one half of the others different proposals and votes.
    Equivocate,
    /// Proposes manifests that break a rule that all members see alike, and an outcome that is
    /// wrong, the same as all others of its kind, and votes for no other end.
    ProposeInvalid,
    /// Refuses all manifests but its own for what it received itself.
    Strict,
    /// Does not come to know the outcome of any slot.
    Ignorant,
}

impl Scenario for AgreementScenario {
    type Behaviour = AgreementBehaviour;
    type Moment = ();

    fn is_honest(behaviour: &AgreementBehaviour) -> bool {
        *behaviour != AgreementBehaviour::Equivocate
    }
}

impl Plan<AgreementScenario> {
    /// How many slots to decide.
    #[must_use]
    pub const fn slots(mut self, slots: u64) -> Self {
        self.scenario.slots = slots;
        self
    }

    /// Members decide how each slot ends, too; void is valid to them after this time, if ever.
    #[must_use]
    pub const fn ends(mut self, void_after: Option<Millis>) -> Self {
        self.scenario.ends = true;
        self.scenario.void_after = void_after;
        self
    }

    /// Runs until every honest member has decided every slot, or for an hour of virtual time.
    ///
    /// # Panics
    /// If an honest member contradicts itself, locks two manifests in a slot, or is convicted.
    #[must_use]
    pub fn run(&self, seed: u64) -> AgreementReport {
        let physics = Physics { conditions: self.conditions(), store: 3, ..Physics::default() };
        let (name, network) = (format!("agreement-{seed}"), fixtures::draw(seed, "agreement", 0));
        let members = Members::new(self.clone(), seed);
        let mut world = World::new(name, members, self.committee, physics, self.crashes(), network);
        world.run();
        let effects = self.committee.participants().map(|j| (j, world.effects(j))).collect();
        let elapsed = world.now();
        let (members, log) = world.end();
        let report = members.report(effects, elapsed, log);
        if let Some(violation) = report.violations.first() {
            report.fail(violation);
        }
        report
    }
}

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
    pub effects: BTreeMap<ParticipantIndex, u64>,
    /// Virtual time at the end.
    pub elapsed: Millis,
    /// What happened, event by event.
    pub log: EventLog,
}

impl AgreementReport {
    /// BLAKE3 over every event.
    #[must_use]
    pub fn trace(&self) -> Blake3Digest {
        self.log.trace()
    }

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
        if let Err(what) = self.judge() {
            self.fail(&what);
        }
    }

    fn judge(&self) -> Result<(), String> {
        let committee = self.plan.committee;
        let roster = roster(committee, self.seed);
        for (j, locks) in &self.locks {
            for slot in (1..=self.plan.scenario.slots).map(Slot) {
                let Some((lock, manifest)) = locks.get(&slot) else {
                    if self.fetched.get(j).is_some_and(|slots| slots.contains(&slot)) {
                        continue;
                    }
                    return Err(format!("member {j} has not decided slot {slot}"));
                };
                lock.verify(committee, &roster)
                    .map_err(|e| format!("member {j}, slot {slot}: {e}"))?;
                let sound = (lock.instance, lock.binding) == (Instance::manifest(slot), binding())
                    && lock.value == manifest.digest();
                if !sound || Some(manifest) != self.manifest(slot.0) {
                    return Err(format!("member {j} has decided something else in slot {slot}"));
                }
                if self.plan.scenario.ends {
                    self.judge_end(*j, slot, manifest)?;
                }
            }
        }
        Ok(())
    }

    fn judge_end(
        &self,
        j: ParticipantIndex,
        slot: Slot,
        manifest: &Manifest,
    ) -> Result<(), String> {
        let Some((lock, end)) = self.ends.get(&j).and_then(|ends| ends.get(&slot)) else {
            if self.fetched.get(&j).is_some_and(|slots| slots.contains(&slot)) {
                return Ok(());
            }
            return Err(format!("member {j} has not ended slot {slot}"));
        };
        lock.verify(self.plan.committee, &roster(self.plan.committee, self.seed))
            .map_err(|e| format!("member {j}, end of slot {slot}: {e}"))?;
        let sound = (lock.instance, lock.binding) == (Instance::end(slot), binding())
            && (lock.value, end.manifest) == (end.digest(), manifest.digest());
        if !sound || Some(end) != self.end(slot.0) {
            return Err(format!("member {j} has ended slot {slot} otherwise"));
        }
        Ok(())
    }

    /// Panics with all that is needed to repeat the run.
    ///
    /// # Panics
    /// Always.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        fail(&format!("{what} after {} ms", self.elapsed), &self.plan, self.seed, &self.log)
    }
}
