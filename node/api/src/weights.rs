//! The policy's encrypted weights, as a node has them.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/policy/weights` | list of [`WeightsStatus`]: of the policy in force, and of the one that is announced |
//! | `POST /v1/policy/weights` | takes a [`WeightsFile`] that the chain names; answers [`WeightsTaken`] |

use serde::{Deserialize, Serialize};
use veil_protocol_spec::Blake3Digest;

/// Where both are.
pub const PATH: &str = "/v1/policy/weights";

/// A list that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsStatus {
    /// What the policy names.
    pub weights: Blake3Digest,
    /// Whether this node has it, verified, and can evaluate with it.
    pub held: bool,
    /// Why not.
    pub because: Option<String>,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Its bytes, in hexadecimal digits.
    pub wire: String,
}

/// A list that a node has verified and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsTaken {
    /// Its digest.
    pub weights: Blake3Digest,
}
