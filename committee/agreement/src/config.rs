//! What a member must know to take part, and how long it waits.

use arc_malachitebft_core_types::{Timeout, TimeoutKind};
use veil_committee_machine::Millis;
use veil_protocol_spec::{Committee, PublicIdentity, scheduling::Binding};

use super::engine::Members;

/// What a member must know to take part.
#[derive(Clone, Debug)]
pub struct AgreementConfig {
    /// The committee's size.
    pub committee: Committee,
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// Identities in the order of participants.
    pub roster: Vec<PublicIdentity>,
    /// How long to wait.
    pub timing: Timing,
}

/// The configuration does not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum SetupError {
    /// Roster and committee differ in size.
    #[error("the roster has {found} identities: a committee of {expected} needs as many")]
    Roster { found: usize, expected: usize },
    /// The identity is not in the roster.
    #[error("this identity is not in the committee's roster: check the keystore and the epoch")]
    NotAMember,
}

/// How long a member waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For a proposal, its validation by the host included.
    pub propose: Millis,
    /// For prevotes that agree, once 2t+1 are here.
    pub prevote: Millis,
    /// For precommits that agree, once 2t+1 are here.
    pub precommit: Millis,
    /// Until a member that is stuck sends its votes again and asks; members are staggered by up to
    /// a quarter of it.
    pub retry: Millis,
    /// What each round adds to each of these.
    pub growth: Millis,
    /// The longest of all waits.
    pub most: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            propose: 10_000,
            prevote: 2_000,
            precommit: 2_000,
            retry: 5_000,
            growth: 1_000,
            most: 60_000,
        }
    }
}

impl Timing {
    pub(super) fn wait(&self, timeout: Timeout, members: &Members) -> Millis {
        let base = match timeout.kind {
            TimeoutKind::Propose => self.propose,
            TimeoutKind::Prevote => self.prevote,
            TimeoutKind::Precommit => self.precommit,
            // A fixed place in the quarter, so that members do not all ask in one instant.
            TimeoutKind::Rebroadcast => {
                let position = members.me.position() as u64;
                let stagger = self.retry.saturating_mul(position);
                self.retry.saturating_add(stagger / (4 * members.committee.n() as u64))
            }
            // The engine is told to finish at once.
            TimeoutKind::FinalizeHeight(_) => 0,
        };
        let round = u64::from(timeout.round.as_u32().unwrap_or_default());
        base.saturating_add(self.growth.saturating_mul(round)).min(self.most).max(1)
    }
}
