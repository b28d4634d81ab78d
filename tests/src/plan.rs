//! Fault plans as data: what goes wrong in a run of any machine, apart from its seed.
//!
//! ```
//! use veil_tests::{ceremony::{CeremonyPlan, after_persisting}, plan::Fault};
//! use veil_protocol_spec::ceremony::Round;
//!
//! let plan = CeremonyPlan::new(4)
//!     .with(Fault::Drop { permille: 100 })
//!     .crash(2, after_persisting(Round::Deal), 1_000);
//! let report = plan.run(7);
//! report.assert_completed();
//! assert_eq!(report.trace(), CeremonyPlan::from_json(&plan.to_json()).unwrap().run(7).trace());
//! ```

use core::fmt::Debug;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use veil_committee_machine::Millis;
use veil_committee_world::{Conditions, Crash, Partition, When};
use veil_protocol_spec::{Committee, ParticipantIndex};

/// Participant `index`, counted from one.
///
/// # Panics
/// If there is no such participant in any committee: a mistake in a test.
#[must_use]
pub fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).expect("participants are 1..=13")
}

/// One kind of run, with what can be chosen for it.
pub trait Scenario: Clone + Debug + Default + Serialize + DeserializeOwned {
    /// How a member can deviate.
    type Behaviour: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// Moments at which a member can crash, beside the general ones.
    type Moment: Copy + Debug + PartialEq + Serialize + DeserializeOwned;
    /// Whether a member that behaves so follows the protocol.
    fn is_honest(_behaviour: &Self::Behaviour) -> bool {
        false
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault<B, M> {
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
        at: When<M>,
        /// How long it is away; `None`: until all others are done.
        resume_after: Option<Millis>,
    },
    /// A member is never there.
    Absent {
        /// Who.
        participant: ParticipantIndex,
    },
    /// A member does something else than the others.
    Behaves {
        /// Who.
        participant: ParticipantIndex,
        /// How.
        behaviour: B,
    },
}

/// A committee and everything that goes wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(serialize = "", deserialize = ""))]
pub struct Plan<S: Scenario> {
    /// Size of the committee.
    pub committee: Committee,
    /// What is run.
    pub scenario: S,
    /// What goes wrong.
    pub faults: Vec<Fault<S::Behaviour, S::Moment>>,
}

impl<S: Scenario> Plan<S> {
    /// Nothing goes wrong.
    ///
    /// # Panics
    /// Unless `n` is a committee size: a mistake in a test.
    #[must_use]
    pub fn new(n: u8) -> Self {
        let committee = Committee::new(n).expect("a committee size");
        Self { committee, scenario: S::default(), faults: Vec::new() }
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault<S::Behaviour, S::Moment>) -> Self {
        self.faults.push(fault);
        self
    }

    /// A bad network: messages are lost, doubled and held back.
    #[must_use]
    pub fn rough(self, permille: u32) -> Self {
        self.with(Fault::Drop { permille })
            .with(Fault::Duplicate { permille: 100 })
            .with(Fault::Reorder { permille: 200, up_to: 800 })
    }

    /// A member that does something else than the others.
    #[must_use]
    pub fn behaves(self, participant: u8, behaviour: S::Behaviour) -> Self {
        self.with(Fault::Behaves { participant: member(participant), behaviour })
    }

    /// A member that is never there.
    #[must_use]
    pub fn absent(self, participant: u8) -> Self {
        self.with(Fault::Absent { participant: member(participant) })
    }

    /// A member that crashes and comes back.
    #[must_use]
    pub fn crash(
        self,
        participant: u8,
        at: When<S::Moment>,
        resume_after: impl Into<Option<Millis>>,
    ) -> Self {
        let participant = member(participant);
        self.with(Fault::Crash { participant, at, resume_after: resume_after.into() })
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

    /// How a member deviates, if it does.
    #[must_use]
    pub fn behaviour(&self, who: ParticipantIndex) -> Option<&S::Behaviour> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Behaves { participant, behaviour } if *participant == who => Some(behaviour),
            _ => None,
        })
    }

    /// Whether a member is there and follows the protocol.
    #[must_use]
    pub fn is_honest(&self, who: ParticipantIndex) -> bool {
        !self.is_absent(who) && self.behaviour(who).is_none_or(S::is_honest)
    }

    /// The members that are there and follow the protocol.
    pub fn honest(&self) -> impl Iterator<Item = ParticipantIndex> {
        self.committee.participants().filter(|j| self.is_honest(*j))
    }

    pub(crate) fn is_absent(&self, who: ParticipantIndex) -> bool {
        let is_it = |fault: &Fault<_, _>| matches!(fault, Fault::Absent { participant } if *participant == who);
        self.faults.iter().any(is_it)
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
                Fault::Crash { .. } | Fault::Absent { .. } | Fault::Behaves { .. } => {}
            }
        }
        conditions
    }

    pub(crate) fn crashes(&self) -> Vec<Crash<S::Moment>> {
        let crash = |fault: &Fault<_, _>| match *fault {
            Fault::Crash { participant, at, resume_after: away } => {
                Some(Crash { participant, at, away })
            }
            _ => None,
        };
        self.faults.iter().filter_map(crash).collect()
    }
}
