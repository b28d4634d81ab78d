//! The name of the common reference string (CRS) of a key.

use serde::{Deserialize, Serialize};

use crate::ids::Blake3Digest;

/// The common reference string (CRS) that telemetry proofs rest on, by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceString {
    /// Digest of the string itself, which is published.
    pub digest: Blake3Digest,
    /// BLAKE3 of its file, by which it is fetched.
    pub file: Blake3Digest,
    /// Length of its file.
    pub bytes: u64,
}
