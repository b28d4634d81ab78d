//! What members tell each other around a ceremony: facts before it, and the signatures under the
//! publication after it.
//!
//! A request is answered at any time and repeated until the answer is there, so every message is
//! idempotent and none is signed as a whole: the channel authenticates the sender.

use serde::{Deserialize, Serialize};
pub use veil_protocol_spec_base::reference_string::ReferenceString;

use crate::{
    codec::Wire,
    ids::{Attempt, Blake3Digest, CeremonyId, Epoch, KeccakDigest, KeySetDigest, Signature},
};

/// A message of the publication protocol, for one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeMessage {
    /// The ceremony that it belongs to.
    pub ceremony: CeremonyId,
    /// The attempt that it belongs to.
    pub attempt: Attempt,
    /// The request or answer.
    pub body: ExchangeBody,
}

impl Wire for ExchangeMessage {
    const NAME: &'static str = "publication message";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 1024;
}

/// The requests of the publication protocol, each followed by its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeBody {
    /// Asks for facts; with the sender's clock, Unix milliseconds.
    AskFacts(u64),
    /// The clock that the request named, the sender's own, and the sender's facts.
    Facts(u64, u64, Facts),
    /// Asks for the signature under the publication.
    AskSignature,
    /// The sender's signature over a publication's digest.
    Signature(KeccakDigest, Signature),
}

/// What a member says of its own machine before a ceremony.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of its program.
    pub version: String,
    /// Equal among members that compute the same bytes.
    pub fingerprint: Blake3Digest,
    /// Bytes free where its data directory is.
    pub free_disk: u64,
    /// Bytes of memory available.
    pub free_memory: u64,
}

/// What all members sign and one of them publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The epoch that the key is for.
    pub epoch: Epoch,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// Canonical bytes of the FROST group's public key package.
    pub group: Vec<u8>,
    /// The FHE key set.
    pub key_set: KeySetDigest,
    /// Root of the transcript.
    pub transcript_root: Blake3Digest,
    /// Digest of the reference string that telemetry proofs rest on.
    pub reference_string: Blake3Digest,
}

impl Wire for Publication {
    const NAME: &'static str = "key publication";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 4096;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::arbitrary::assert_wire;

    #[test]
    fn only_the_exact_bytes_decode() {
        let facts = Facts {
            version: "0.1.0".into(),
            fingerprint: Blake3Digest([1; 32]),
            free_disk: u64::MAX,
            free_memory: 1 << 30,
        };
        for body in [
            ExchangeBody::AskFacts(7),
            ExchangeBody::Facts(7, 9, facts),
            ExchangeBody::AskSignature,
            ExchangeBody::Signature(KeccakDigest([4; 32]), Signature([5; 64])),
        ] {
            let (ceremony, attempt) = (CeremonyId([6; 32]), Attempt(1));
            assert_wire(&ExchangeMessage { ceremony, attempt, body });
        }
        assert_wire(&Publication {
            epoch: Epoch(3),
            attempt: Attempt(1),
            group: vec![7; 200],
            key_set: KeySetDigest([8; 32]),
            transcript_root: Blake3Digest([9; 32]),
            reference_string: Blake3Digest([2; 32]),
        });
    }
}
