//! Fault plans as data: what goes wrong in a run, apart from its seed.
//!
//! ```
//! use veil_tests::plan::{Fault, Plan, When, member};
//! use veil_protocol_spec::ceremony::Round;
//!
//! let plan = Plan::new(4)
//!     .with(Fault::Drop { permille: 100 })
//!     .with(Fault::Crash {
//!         participant: member(2),
//!         at: When::AfterPersisting(Round::Deal),
//!         resume_after: Some(1_000),
//!     });
//! let report = plan.run(7);
//! report.assert_completed();
//! assert_eq!(report.trace, Plan::from_json(&plan.to_json()).unwrap().run(7).trace);
//! ```

use serde::{Deserialize, Serialize};
use veil_keygen_ceremony::{machine::Stage, setup::Timing};
use veil_protocol_spec::{
    Committee, ParticipantIndex,
    ceremony::{Round, Stream},
};

use crate::{
    malicious::Behaviour,
    network::{Conditions, Millis, Partition},
};

/// Participant `index`, counted from one.
///
/// # Panics
/// If there is no such participant in any committee: a mistake in a test.
#[must_use]
pub fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).expect("participants are 1..=13")
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Messages are lost.
    Drop {
        /// Chance in thousandths.
        permille: u32,
    },
    /// Links are slow.
    Delay {
        /// Least latency.
        min: Millis,
        /// Largest latency.
        max: Millis,
    },
    /// Messages overtake each other.
    Reorder {
        /// Chance in thousandths that one is held back.
        permille: u32,
        /// For how long at most.
        up_to: Millis,
    },
    /// Messages arrive twice.
    Duplicate {
        /// Chance in thousandths.
        permille: u32,
    },
    /// Groups that do not reach each other for a time; see [`Partition`].
    Partition(Partition),
    /// A member's process dies, once; its disk stays.
    Crash {
        /// Who.
        participant: ParticipantIndex,
        /// When.
        at: When,
        /// How long it is away; `None`: until all others are done.
        resume_after: Option<Millis>,
    },
    /// A member says nothing in one round: short for [`Behaviour::Silent`].
    Silent {
        /// Who.
        participant: ParticipantIndex,
        /// In which round.
        round: Round,
    },
    /// A member deviates from the protocol.
    Malicious {
        /// Who.
        participant: ParticipantIndex,
        /// How.
        behaviour: Behaviour,
    },
}

/// The moment of a crash. Effects that were not carried out by then are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At this time.
    Time(Millis),
    /// When the member has entered this stage and carried out what came with it.
    Stage(StageName),
    /// When its message of this round is durable, but not sent.
    AfterPersisting(Round),
    /// When its message of this round has been sent (to the first recipient).
    AfterSending(Round),
    /// When it has carried out this many effects.
    AfterEffects(u32),
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

/// A committee and everything that goes wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Size of the committee.
    pub committee: Committee,
    /// How long members wait for a round.
    pub round: Millis,
    /// How long they wait before they ask again.
    pub retry: Millis,
    /// When the commit point gives the attempt up.
    pub deadline: Millis,
    /// Whether every message sent is kept in the report.
    pub wiretap: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Nothing goes wrong.
    ///
    /// # Panics
    /// Unless `n` is a committee size: a mistake in a test.
    #[must_use]
    pub fn new(n: u8) -> Self {
        Self {
            committee: Committee::new(n).expect("a committee size"),
            round: 10_000,
            retry: 300,
            deadline: 300_000,
            wiretap: false,
            faults: Vec::new(),
        }
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// A member that deviates from the protocol.
    #[must_use]
    pub fn malicious(self, participant: u8, behaviour: Behaviour) -> Self {
        self.with(Fault::Malicious { participant: member(participant), behaviour })
    }

    /// A member that crashes and comes back.
    #[must_use]
    pub fn crash(self, participant: u8, at: When, resume_after: impl Into<Option<Millis>>) -> Self {
        let participant = member(participant);
        self.with(Fault::Crash { participant, at, resume_after: resume_after.into() })
    }

    /// Keeps every message sent in the report.
    #[must_use]
    pub const fn wiretapped(mut self) -> Self {
        self.wiretap = true;
        self
    }

    /// For a failure message, and back: [`Self::from_json`].
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| format!("{self:?}"))
    }

    /// # Errors
    /// If the text is no plan.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(crate) const fn timing(&self) -> Timing {
        Timing { round: self.round, retry: self.retry }
    }

    pub(crate) fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::default();
        for fault in &self.faults {
            match fault {
                Fault::Drop { permille } => conditions.drop = *permille,
                Fault::Delay { min, max } => conditions.latency = (*min, *max),
                Fault::Reorder { permille, up_to } => conditions.reorder = (*permille, *up_to),
                Fault::Duplicate { permille } => conditions.duplicate = *permille,
                Fault::Partition(partition) => conditions.partitions.push(partition.clone()),
                Fault::Crash { .. } | Fault::Silent { .. } | Fault::Malicious { .. } => {}
            }
        }
        conditions
    }

    /// How a member deviates, if it does.
    #[must_use]
    pub fn behaviour(&self, who: ParticipantIndex) -> Option<Behaviour> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Malicious { participant, behaviour } if *participant == who => {
                Some(behaviour.clone())
            }
            Fault::Silent { participant, round } if *participant == who => {
                Some(Behaviour::Silent { round: *round })
            }
            _ => None,
        })
    }

    /// Whether every message of an honest member arrives in time, so that only those who mean it are
    /// silent.
    #[must_use]
    pub fn is_good_network(&self) -> bool {
        self.faults.iter().all(|fault| match fault {
            Fault::Silent { .. } | Fault::Malicious { .. } | Fault::Duplicate { .. } => true,
            Fault::Reorder { up_to: latency, .. } | Fault::Delay { max: latency, .. } => {
                latency * 10 < self.round
            }
            Fault::Drop { .. } | Fault::Partition(_) | Fault::Crash { .. } => false,
        })
    }

    /// The members that follow the protocol.
    pub fn honest(&self) -> impl Iterator<Item = ParticipantIndex> {
        self.committee.participants().filter(|j| self.behaviour(*j).is_none())
    }

    pub(crate) fn crashes(&self, who: ParticipantIndex) -> Vec<(When, Option<Millis>)> {
        self.faults
            .iter()
            .filter_map(|fault| match fault {
                Fault::Crash { participant, at, resume_after } if *participant == who => {
                    Some((*at, *resume_after))
                }
                _ => None,
            })
            .collect()
    }
}
