//! The key ceremony in the simulated world. See [`crate::plan`] for what can go wrong and
//! [`crate::report`] for what is checked.

mod members;

use serde::{Deserialize, Serialize};
use veil_committee_machine::Millis;
use veil_committee_world::When;
use veil_keygen_ceremony::{machine::Stage, setup::Timing};
use veil_protocol_spec::ceremony::{Round, Stream};

use crate::{
    malicious::Behaviour,
    plan::{Fault, Plan, Scenario},
};

/// One attempt of a ceremony with insecure test parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyScenario {
    /// How long members wait for a round.
    pub round: Millis,
    /// How long they wait before they ask again.
    pub retry: Millis,
    /// When the commit point gives the attempt up.
    pub deadline: Millis,
    /// Whether every message sent is kept in the report.
    pub wiretap: bool,
}

/// A ceremony and what goes wrong in it.
pub type CeremonyPlan = Plan<CeremonyScenario>;
/// One thing that goes wrong in a ceremony.
pub type CeremonyFault = Fault<Behaviour, Milestone>;

impl Default for CeremonyScenario {
    fn default() -> Self {
        Self { round: 10_000, retry: 300, deadline: 300_000, wiretap: false }
    }
}

impl Scenario for CeremonyScenario {
    type Behaviour = Behaviour;
    type Moment = Milestone;
}

impl CeremonyScenario {
    pub(crate) const fn timing(&self) -> Timing {
        Timing { round: self.round, retry: self.retry }
    }
}

/// A moment of a ceremony at which a member can crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// It has entered this stage and carried out what came with it.
    Stage(StageName),
    /// Its message of this round is durable, but not sent.
    Persisted(Round),
    /// Its message of this round has been sent.
    Sent(Round),
}

/// A crash when a stage has been entered.
#[must_use]
pub const fn at_stage(stage: StageName) -> When<Milestone> {
    When::At(Milestone::Stage(stage))
}

/// A crash when a round's message is durable.
#[must_use]
pub const fn after_persisting(round: Round) -> When<Milestone> {
    When::At(Milestone::Persisted(round))
}

/// A crash when a round's message has been sent.
#[must_use]
pub const fn after_sending(round: Round) -> When<Milestone> {
    When::At(Milestone::Sent(round))
}

/// [`Stage`] as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as in `Stage`")]
pub enum StageName {
    Collect(Round),
    Produce(Stream, u32),
    Open(Stream, u32),
    Assemble,
    AwaitCommitPoint,
    Completed,
    Aborted,
}

impl From<Stage> for StageName {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Collect(round) => Self::Collect(round),
            Stage::Produce(stream, chunk) => Self::Produce(stream, chunk),
            Stage::Open(stream, chunk) => Self::Open(stream, chunk),
            Stage::Assemble => Self::Assemble,
            Stage::AwaitCommitPoint => Self::AwaitCommitPoint,
            Stage::Completed => Self::Completed,
            Stage::Aborted => Self::Aborted,
        }
    }
}

impl Plan<CeremonyScenario> {
    /// Keeps every message sent in the report.
    #[must_use]
    pub const fn wiretapped(mut self) -> Self {
        self.scenario.wiretap = true;
        self
    }

    /// Whether every message of an honest member arrives in time, so that only those who mean it are
    /// silent.
    #[must_use]
    pub fn is_good_network(&self) -> bool {
        self.faults.iter().all(|fault| match fault {
            Fault::Behaves { .. } | Fault::Duplicate { .. } => true,
            Fault::Reorder { up_to: latency, .. } | Fault::Delay { max: latency, .. } => {
                latency * 10 < self.scenario.round
            }
            Fault::Drop { .. }
            | Fault::Partition(_)
            | Fault::Crash { .. }
            | Fault::Absent { .. } => false,
        })
    }
}
