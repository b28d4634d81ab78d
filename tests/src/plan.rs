//! Fault plans as data: what goes wrong in a run of any machine, apart from its seed.
//!
//! ```
//! use veil_committee_world::{Conditions, When};
//! use veil_tests::ceremony::{CeremonyPlan, Milestone::Persisted};
//! use veil_protocol_spec::ceremony::Round;
//!
//! let plan = CeremonyPlan::new(4)
//!     .network(Conditions { drop: 100, ..Conditions::default() })
//!     .crash(2, When::At(Persisted(Round::Deal)), 1_000);
//! let report = plan.run(7);
//! report.assert_completed();
//! assert_eq!(report.trace(), CeremonyPlan::from_json(&plan.to_json()).unwrap().run(7).trace());
//! ```

use core::fmt::Debug;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use veil_committee_machine::Millis;
use veil_committee_world::{Conditions, Crash, EventLog, Partition, Physics, When};
use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::fixtures;

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

/// A committee and everything that goes wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(serialize = "", deserialize = ""))]
pub struct Plan<S: Scenario> {
    /// Size of the committee.
    pub committee: Committee,
    /// What is run.
    pub scenario: S,
    /// How bad the network is.
    pub conditions: Conditions,
    /// Members' processes that die.
    pub crashes: Vec<Crash<S::Moment>>,
    /// Members that are never there.
    pub absent: BTreeSet<ParticipantIndex>,
    /// Members that do something else than the others.
    pub behaviours: BTreeMap<ParticipantIndex, S::Behaviour>,
}

impl<S: Scenario> Plan<S> {
    /// Nothing goes wrong.
    ///
    /// # Panics
    /// Unless `n` is a committee size: a mistake in a test.
    #[must_use]
    pub fn new(n: u8) -> Self {
        Self {
            committee: Committee::new(n).expect("a committee size"),
            scenario: S::default(),
            conditions: Conditions::default(),
            crashes: Vec::new(),
            absent: BTreeSet::new(),
            behaviours: BTreeMap::new(),
        }
    }

    /// A network that is as bad as this.
    #[must_use]
    pub fn network(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }

    /// A bad network: messages are lost, doubled and held back.
    #[must_use]
    pub fn rough(self, permille: u32) -> Self {
        let (drop, duplicate, reorder) = (permille, 100, (200, 800));
        Self { conditions: Conditions { drop, duplicate, reorder, ..self.conditions }, ..self }
    }

    /// Groups that do not reach each other for a time.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.conditions.partitions.push(partition);
        self
    }

    /// A member that does something else than the others.
    #[must_use]
    pub fn behaves(mut self, participant: u8, behaviour: S::Behaviour) -> Self {
        self.behaviours.insert(member(participant), behaviour);
        self
    }

    /// A member that is never there.
    #[must_use]
    pub fn absent(mut self, participant: u8) -> Self {
        self.absent.insert(member(participant));
        self
    }

    /// A member that crashes and comes back: after this time, or when nothing happens any more.
    #[must_use]
    pub fn crash(
        mut self,
        participant: u8,
        at: When<S::Moment>,
        away: impl Into<Option<Millis>>,
    ) -> Self {
        self.crashes.push(Crash { participant: member(participant), at, away: away.into() });
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

    /// Whether a member is there and follows the protocol.
    #[must_use]
    pub fn is_honest(&self, who: ParticipantIndex) -> bool {
        !self.absent.contains(&who) && self.behaviours.get(&who).is_none_or(S::is_honest)
    }

    /// The members that are there and follow the protocol.
    pub fn honest(&self) -> impl Iterator<Item = ParticipantIndex> {
        self.committee.participants().filter(|j| self.is_honest(*j))
    }

    /// How things go in a run of this plan: recorded, and drawn for its kind and seed.
    pub(crate) fn physics(&self, kind: &str, seed: u64) -> Physics {
        Physics {
            conditions: self.conditions.clone(),
            seed: fixtures::draw(seed, kind, 0),
            recorded: Some(format!("{kind}-{seed}")),
            ..Physics::default()
        }
    }

    /// Panics with all that is needed to repeat a run and to read it.
    #[track_caller]
    pub(crate) fn fail(&self, what: &str, seed: u64, log: &EventLog) -> ! {
        let log = match log.write() {
            Ok(file) => file.display().to_string(),
            Err(error) => format!("cannot be written: {error}"),
        };
        panic!("{what}\nseed {seed}, plan {}\nevent log: {log}", self.to_json())
    }
}
