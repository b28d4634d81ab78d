//! What the registry on chain says of a node.

use serde::{Deserialize, Serialize};

use crate::{ids::Address, scheduling::Label};

/// The label of a worker that evaluates nothing. Its registration states it, which the peer's own key
/// signs: whoever counts auditors sees it, as of any block.
pub const LIGHT_LABEL: &str = "veil/light=true";

/// Whether a worker with these labels is a light one: "workers are auditors unless they register as
/// light".
#[must_use]
pub fn is_light(labels: &[Label]) -> bool {
    labels.iter().any(|label| (label.key.as_str(), label.value.as_str()) == ("veil/light", "true"))
}

/// What a worker is given, as its operator or the cluster's admin says on chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eligibility {
    /// What finds room.
    #[default]
    Eligible,
    /// Nothing more; what it runs stays.
    Ineligible,
    /// Nothing more, and what it runs goes to others.
    Draining,
}

/// What an operator's word to another key, that it may submit and cancel jobs in its name, is worth now.
/// Times are Unix time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delegation {
    /// It was never given.
    Never,
    /// It holds until this second.
    Until(u64),
    /// It held until this second.
    Expired(u64),
    /// It was taken back at this second.
    Revoked(u64),
}

impl Delegation {
    /// By what the job board stores: zero `until` if it was never given, zero `revoked_at` if it was not taken
    /// back.
    #[must_use]
    pub const fn new(until: u64, revoked_at: u64, now: u64) -> Self {
        match (until, revoked_at) {
            (0, _) => Self::Never,
            (until, 0) if now <= until => Self::Until(until),
            (until, 0) => Self::Expired(until),
            (_, at) => Self::Revoked(at),
        }
    }

    /// Until when `key` may act for `operator`.
    ///
    /// # Errors
    /// [`NotDelegated`] if it may not.
    pub const fn check(self, operator: Address, key: Address) -> Result<u64, NotDelegated> {
        match self {
            Self::Until(until) => Ok(until),
            Self::Never => Err(NotDelegated::Never { operator, key }),
            Self::Expired(until) => Err(NotDelegated::Expired { operator, key, until }),
            Self::Revoked(at) => Err(NotDelegated::Revoked { operator, key, at }),
        }
    }
}

/// Why a key may not act for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum NotDelegated {
    /// The operator never said so.
    #[error(
        "operator 0x{operator} has delegated nothing to account 0x{key}: it does so with \
         `veil operator delegate --key 0x{key}`"
    )]
    Never { operator: Address, key: Address },
    /// Its time is over.
    #[error(
        "account 0x{key} could act for operator 0x{operator} until {until} (Unix time): the operator runs \
         `veil operator delegate --key 0x{key}` again"
    )]
    Expired { operator: Address, key: Address, until: u64 },
    /// The operator took it back.
    #[error(
        "operator 0x{operator} revoked account 0x{key} at {at} (Unix time): use another key, or have it \
         delegated again with `veil operator delegate --key 0x{key}`"
    )]
    Revoked { operator: Address, key: Address, at: u64 },
}

/// What a registered peer is entitled to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roles {
    /// It runs jobs and publishes telemetry.
    pub worker: bool,
    /// It is on the committee of the current epoch.
    pub member: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegation_ends_after_its_last_second_or_when_it_is_revoked() {
        let of = |until, revoked_at| Delegation::new(until, revoked_at, 100);
        assert_eq!(of(0, 0), Delegation::Never);
        assert_eq!((of(100, 0), of(99, 0)), (Delegation::Until(100), Delegation::Expired(99)));
        assert_eq!((of(200, 50), of(99, 50)), (Delegation::Revoked(50), Delegation::Revoked(50)));
        let (operator, key) = (Address([1; 20]), Address([2; 20]));
        assert_eq!(of(100, 0).check(operator, key), Ok(100));
        for word in [Delegation::Never, of(99, 0), of(200, 50)] {
            let refused = word.check(operator, key).unwrap_err().to_string();
            assert!(refused.contains("veil operator delegate"), "{refused}");
        }
    }

    #[test]
    fn a_worker_is_light_by_its_label_only() {
        let labels =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert!(is_light(&labels(&["zone=eu", LIGHT_LABEL])));
        assert!(!is_light(&labels(&["veil/light=false", "light=true"])));
        assert!(!is_light(&[]));
    }
}
