//! Slots in the simulated world: the slot's machine and the agreement of every member, with the
//! cleartext twin in place of the circuit.
//!
//! ```
//! use veil_tests::slot::SlotPlan;
//!
//! let report = SlotPlan::new(4).slots(3).workers(5).jobs(4).run(1);
//! assert_eq!(report.slots_ended, 3);
//! ```

mod behaviour;
mod cluster;
mod member;
mod messages;
mod sight;
mod workers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::{End, EventLog, Physics, World};
use veil_protocol_spec::{
    Wire,
    scheduling::{Outcome, SlotRecord},
};

pub use self::behaviour::SlotBehaviour;
use self::cluster::Cluster;
use crate::plan::{Plan, Scenario};

/// A cluster that is at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotScenario {
    /// How many slots to go through.
    pub slots: u64,
    /// Workers.
    pub workers: u16,
    /// Jobs that operators want to run at once.
    pub jobs: u16,
    /// How many of 256 telemetry messages a member never gets.
    pub telemetry_loss: u8,
    /// Virtual time after which the cluster counts as halted.
    pub limit: Millis,
    /// Whether an event log is kept: every byte is hashed then.
    pub recorded: bool,
}

impl Default for SlotScenario {
    fn default() -> Self {
        let limit = 3_600_000;
        Self { slots: 1, workers: 8, jobs: 8, telemetry_loss: 2, limit, recorded: true }
    }
}

impl Scenario for SlotScenario {
    type Behaviour = SlotBehaviour;
    type Moment = ();

    fn is_honest(behaviour: &SlotBehaviour) -> bool {
        *behaviour == SlotBehaviour::Slow
    }
}

/// A cluster and what goes wrong with it.
pub type SlotPlan = Plan<SlotScenario>;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    /// Slots with a certificate.
    pub slots_ended: u64,
    /// Replicas that were placed.
    pub placed: u64,
    /// Slots that ended void.
    pub void: u64,
    /// Whether slots stopped before as many had ended as were wanted.
    pub halted: bool,
    /// What must not happen and did.
    pub violations: Vec<String>,
    /// How often each misbehaviour in each phase, each refusal and each event occurred.
    pub occurred: BTreeMap<String, u64>,
    /// Digests that were submitted without a body.
    pub bodiless: u64,
    /// Bytes of the largest record.
    pub largest_record_bytes: usize,
    /// Entries of the largest journal at the end.
    pub largest_journal: usize,
    /// Virtual milliseconds.
    pub elapsed: Millis,
    /// Hash of everything that happened, if it was recorded.
    pub trace: Option<String>,
}

impl SlotReport {
    fn count(&mut self, what: &str) {
        *self.occurred.entry(what.to_owned()).or_default() += 1;
    }

    fn misbehaved(&mut self, behaviour: SlotBehaviour, phase: &str) {
        self.count(&format!("{behaviour:?} in {phase}"));
    }

    /// Counts a refusal by its kind: numbers and digests left out.
    fn refuse(&mut self, what: &str, reason: &str) {
        let is_word = |word: &&str| !word.chars().any(|c| c.is_ascii_digit());
        let words: Vec<_> = reason.split(' ').filter(is_word).collect();
        self.count(&format!("{what}: {}", words.join(" ")));
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    fn ended(&mut self, record: &SlotRecord, now: Millis) {
        self.slots_ended += 1;
        self.elapsed = now;
        let outcomes = record.assignments.as_slice().iter();
        let placed = outcomes.filter(|assignment| assignment.outcome != Outcome::Pending);
        self.placed += placed.count() as u64;
        self.void += u64::from(record.certificate.body.is_void());
        self.largest_record_bytes = self.largest_record_bytes.max(record.to_wire().len());
    }
}

impl Plan<SlotScenario> {
    /// How many slots to go through.
    #[must_use]
    pub const fn slots(mut self, slots: u64) -> Self {
        self.scenario.slots = slots;
        self
    }

    /// How many workers there are.
    #[must_use]
    pub const fn workers(mut self, workers: u16) -> Self {
        self.scenario.workers = workers;
        self
    }

    /// How many jobs operators want to run at once.
    #[must_use]
    pub const fn jobs(mut self, jobs: u16) -> Self {
        self.scenario.jobs = jobs;
        self
    }

    /// Runs until every honest member has seen every slot end, or the limit.
    #[must_use]
    pub fn observe(&self, seed: u64) -> (SlotReport, EventLog) {
        let mut physics =
            Physics { store: 3, limit: self.scenario.limit, ..self.physics("slots", seed) };
        physics.recorded.take_if(|_| !self.scenario.recorded);
        let cluster = Cluster::new(self.clone(), seed);
        let mut world = World::new(cluster, self.committee, physics, self.crashes.clone());
        world.schedule().event(None, 0, Cluster::tick);
        let ended = world.run();
        let mut report = ended.host.ended();
        report.halted = ended.end != End::Over;
        report.trace = self.scenario.recorded.then(|| ended.log.trace().to_string());
        (report, ended.log)
    }

    /// As [`Self::observe`], and judges.
    ///
    /// # Panics
    /// If slots stopped, a slot has two certificates, or two decisions.
    #[must_use]
    pub fn run(&self, seed: u64) -> SlotReport {
        let (report, log) = self.observe(seed);
        if report.halted || !report.violations.is_empty() {
            self.fail(&format!("{report:#?}"), seed, &log);
        }
        report
    }
}
