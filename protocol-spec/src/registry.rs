//! What the registry on chain says of a node.

use serde::{Deserialize, Serialize};

/// What a registered peer is entitled to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roles {
    /// It runs jobs and publishes telemetry.
    pub worker: bool,
    /// It is on the committee of the current epoch.
    pub member: bool,
}
