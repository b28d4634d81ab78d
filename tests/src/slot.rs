//! Slots in the simulated world: the slot's machine and the agreement of every member, with the
//! cleartext twin in place of the circuit.
//!
//! # Flow
//! A [`SlotPlan`] says how large the cluster is and what goes wrong: members that deviate, crashes,
//! partitions, workers that are hostile or go away, clocks that differ. A run goes through slots until
//! as many have ended as were wanted, and gives a [`SlotReport`]. What must hold is
//! checked at every step of it.
//!
//! ```
//! use veil_tests::slot::SlotPlan;
//!
//! let report = SlotPlan::new(4).slots(3).workers(5).jobs(4).run(1);
//! assert_eq!(report.slots_ended, 3);
//! ```

mod behaviour;
mod chain;
mod cluster;
pub mod coverage;
mod drawn;
mod given_back;
mod health;
mod hostile;
mod jobs;
mod member;
mod messages;
mod periodic;
mod phase;
mod properties;
mod report;
mod runs;
mod sight;
mod telemetry;
mod worker;
mod workers;

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::{End, EventLog, Physics, World};

use self::cluster::Cluster;
pub use self::{
    behaviour::SlotBehaviour, hostile::WorkerBehaviour, phase::Phase, report::SlotReport,
};
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
    /// Most replicas of a job.
    pub replicas: u16,
    /// What jobs are submitted.
    pub demand: Demand,
    /// How many of 256 workers deviate: one in each way, and again from the first.
    pub hostile: u8,
    /// The way in which they do, if it is one.
    pub hostile_as: Option<WorkerBehaviour>,
    /// How many of 256 telemetry messages a member never gets.
    pub telemetry_loss: u8,
    /// Most workers that the policy lets a slot consider.
    pub max_workers: u16,
    /// Slots after which a certificate is anchored that nobody waits for.
    pub anchor_every: u16,
    /// Workers that lose power at once.
    pub outage: Option<Outage>,
    /// How much the clock of a member or worker is off at most, one way or the other. Now and then one
    /// is set anew.
    pub skew: Millis,
    /// Virtual milliseconds until a record is durable.
    pub store: Millis,
    /// Virtual time after which a run is over, however many slots have ended.
    pub until: Option<Millis>,
    /// Virtual time after which the cluster counts as halted.
    pub limit: Millis,
    /// Whether an event log is kept: every byte is hashed then.
    pub recorded: bool,
    /// Whether workers give replicas back, and are drained.
    #[serde(default)]
    pub gives_back: bool,
    /// How many of 256 jobs are run at certain times, among mixed ones.
    #[serde(default)]
    pub periodic: u8,
    /// The first block from which on slots are placed by thresholds, replica after replica, as the policy says;
    /// before, all at once.
    #[serde(default)]
    pub thresholds_from: u64,
}

/// What operators want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Jobs come and go; every third ends by itself, every fifth has no body anywhere, every seventh fits
    /// nowhere, and some are periodic if the scenario says so.
    Mixed,
    /// One job that fits nowhere, and nothing else ever happens.
    Unplaceable,
    /// Jobs of a few names, submitted again and again: with another number of replicas, another program, one that
    /// is never healthy; now and then all versions are withdrawn.
    Updates,
    /// The same of system jobs, which have one replica on each worker.
    System,
    /// As many replicas as there can be, all at once, of which most fit.
    Flood,
}

/// Workers that lose power at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// When.
    pub at: Millis,
    /// How many.
    pub workers: u16,
    /// For how long.
    pub away: Millis,
}

impl Default for SlotScenario {
    fn default() -> Self {
        Self {
            slots: 1,
            workers: 8,
            jobs: 8,
            replicas: 3,
            demand: Demand::Mixed,
            hostile: 0,
            hostile_as: None,
            telemetry_loss: 2,
            max_workers: 1024,
            anchor_every: 4,
            outage: None,
            skew: 0,
            store: 3,
            until: None,
            limit: 3_600_000,
            recorded: true,
            gives_back: false,
            periodic: 0,
            thresholds_from: 0,
        }
    }
}

impl Scenario for SlotScenario {
    type Behaviour = SlotBehaviour;
    type Moment = Phase;

    fn is_honest(behaviour: &SlotBehaviour) -> bool {
        *behaviour == SlotBehaviour::Slow
    }
}

/// A cluster and what goes wrong with it.
pub type SlotPlan = Plan<SlotScenario>;

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

    /// How many of 256 workers deviate.
    #[must_use]
    pub const fn hostile(mut self, share: u8) -> Self {
        self.scenario.hostile = share;
        self
    }

    /// How much clocks are off at most.
    #[must_use]
    pub const fn skew(mut self, skew: Millis) -> Self {
        self.scenario.skew = skew;
        self
    }

    /// Workers give replicas back, and are drained.
    #[must_use]
    pub const fn gives_back(mut self) -> Self {
        self.scenario.gives_back = true;
        self
    }

    /// How many of 256 jobs are run at certain times.
    #[must_use]
    pub const fn periodic(mut self, share: u8) -> Self {
        self.scenario.periodic = share;
        self
    }

    /// From which block on slots are placed by thresholds.
    #[must_use]
    pub const fn thresholds_from(mut self, block: u64) -> Self {
        self.scenario.thresholds_from = block;
        self
    }

    /// What operators want.
    #[must_use]
    pub const fn demand(mut self, demand: Demand) -> Self {
        self.scenario.demand = demand;
        self
    }

    /// Runs until every honest member has seen every slot end, or the limit.
    #[must_use]
    pub fn observe(&self, seed: u64) -> (SlotReport, EventLog) {
        let mut physics = Physics {
            store: self.scenario.store,
            limit: self.scenario.limit,
            ..self.physics("slots", seed)
        };
        physics.recorded.take_if(|_| !self.scenario.recorded);
        let cluster = Cluster::new(self.clone(), seed);
        let mut world = World::new(cluster, self.committee, physics, self.crashes.clone());
        world.schedule().event(None, 0, Cluster::tick);
        let ended = world.run();
        let mut report = ended.host.into_report(ended.now);
        for traffic in &ended.traffic {
            report.add_if_any("message lost", traffic.lost);
            report.add_if_any("message cut off by a partition", traffic.cut);
        }
        report.halted = ended.end != End::Over;
        report.trace = self.scenario.recorded.then(|| ended.log.trace().to_string());
        (report, ended.log)
    }

    /// As [`Self::observe`], and judges.
    ///
    /// # Panics
    /// If slots stopped, or something happened that must not.
    #[must_use]
    pub fn run(&self, seed: u64) -> SlotReport {
        let (report, log) = self.observe(seed);
        if report.halted || !report.violations.is_empty() {
            self.fail(&format!("{report:#?}"), seed, &log);
        }
        report
    }
}
