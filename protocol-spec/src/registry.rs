//! What the registry on chain says of a node.

use serde::{Deserialize, Serialize};

use crate::scheduling::Label;

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
    fn a_worker_is_light_by_its_label_only() {
        let labels =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert!(is_light(&labels(&["zone=eu", LIGHT_LABEL])));
        assert!(!is_light(&labels(&["veil/light=false", "light=true"])));
        assert!(!is_light(&[]));
    }
}
