//! How a job states what it needs: in clear, or so that only the circuit sees it.

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::ids::{Blake3Digest, KeySetDigest};

use crate::{
    proven::ProvenList,
    quantities::Scale,
    resources::{Resource, Resources},
};

/// A request that only the circuit sees: quantities of the cluster's scale, rounded up, encrypted
/// and proven by the operator under [`ProofMetadata::for_request`](crate::proven::ProofMetadata).
///
/// The limits of the container are not here: the winner learns them, and the seed of the encryption, from the job's
/// sealed part ([`SealedRequest`](crate::opened::SealedRequest)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptedRequest {
    /// The key set it is encrypted under; a reshared key keeps it.
    pub key_set: KeySetDigest,
    /// What it is counted in: under another scale of the cluster's policy it means something else.
    pub scale: Scale,
    /// The resource that workers are compared by; of a public request it follows from the
    /// request.
    pub dominant: Resource,
    /// To limits and seed: [`SealedRequest::commitment`](crate::opened::SealedRequest::commitment).
    pub commitment: Blake3Digest,
    /// The quantities and their proof.
    pub list: ProvenList,
}

/// How a job states what it needs. An unproven ciphertext that enters a circuit is a
/// key-extraction oracle, so an encrypted request is always a proven one. A build that does not
/// know a variant refuses the job as malformed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResourceRequest {
    /// The request is public.
    Clear(Resources),
    /// Only the circuit sees the request.
    Encrypted(EncryptedRequest),
}
