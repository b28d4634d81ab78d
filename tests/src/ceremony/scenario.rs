//! What can be chosen for a ceremony.

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::Conditions;
use veil_keygen_ceremony::machine::Stage;
use veil_protocol_spec::ceremony::Round;

use crate::{
    malicious::Behaviour,
    plan::{Plan, Scenario},
};

/// One attempt of a ceremony with insecure test parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyScenario {
    /// How long members wait for a round.
    pub round: Millis,
    /// How long they wait before they ask again.
    pub retry: Millis,
}

/// A ceremony and what goes wrong in it.
pub type CeremonyPlan = Plan<CeremonyScenario>;

impl Default for CeremonyScenario {
    fn default() -> Self {
        Self { round: 10_000, retry: 300 }
    }
}

impl Scenario for CeremonyScenario {
    type Behaviour = Behaviour;
    type Moment = Milestone;
}

/// A moment of a ceremony at which a member can crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// It has entered this stage and carried out what came with it.
    Stage(Stage),
    /// Its message of this round is durable, but not sent.
    Persisted(Round),
    /// Its message of this round has been sent.
    Sent(Round),
}

impl Plan<CeremonyScenario> {
    /// Whether every message of an honest member arrives in time, so that only those who mean it are
    /// silent.
    #[must_use]
    pub fn is_good_network(&self) -> bool {
        let Conditions { latency: (_, latency), drop, reorder: (_, held), .. } = self.conditions;
        let all_arrive = drop == 0 && self.conditions.partitions.is_empty();
        let in_time = latency.max(held) * 10 < self.scenario.round;
        all_arrive && in_time && self.crashes.is_empty() && self.absent.is_empty()
    }
}
