//! The agreement on manifests in the simulated world.
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
    decryption::ManifestLock,
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
}

/// An agreement and what goes wrong in it.
pub type AgreementPlan = Plan<AgreementScenario>;

impl Default for AgreementScenario {
    fn default() -> Self {
        Self { slots: 1 }
    }
}

/// What a member does that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementBehaviour {
    /// Sends one half of the others different proposals and votes.
    Equivocate,
    /// Proposes manifests that break a rule that all members see alike.
    ProposeInvalid,
    /// Refuses all manifests but its own for what it received itself.
    Strict,
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
    pub locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (ManifestLock, Manifest)>>,
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
                let sound = (lock.slot, lock.binding) == (slot, binding())
                    && lock.manifest == manifest.digest();
                if !sound || Some(manifest) != self.manifest(slot.0) {
                    return Err(format!("member {j} has decided something else in slot {slot}"));
                }
            }
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
