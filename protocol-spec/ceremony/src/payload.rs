//! What a signed message says, step by step.

use serde::{Deserialize, Serialize};

use super::{
    abort::AbortReason,
    header::Header,
    round::{Round, Stream},
};
use veil_protocol_spec_base::{
    codec::{Bytes, Wire},
    domain,
    ids::{Blake3Digest, KeySetDigest},
};

/// Step 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Ephemeral X-Wing (X25519 + ML-KEM-768) encapsulation key, 1216 bytes.
    pub channel_key: Bytes,
    /// Commitments to the sender's contributions: to the key sets that contain it, then to the
    /// noise groups that contain it, each in canonical order.
    pub contributions: Vec<Blake3Digest>,
    /// Commitment to the sender's part of the public seed.
    pub public_seed: Blake3Digest,
    /// FROST DKG round 1 package; empty with n = 1.
    pub frost_round1: Bytes,
}

/// Steps 2, 5, 7 and 9: digests of the messages received from participants 1..=n.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Position j-1 holds the digest of participant j's message.
    pub digests: Vec<Blake3Digest>,
}

/// Step 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// HPKE encapsulated key and ciphertext of a [`DealPlaintext`].
    pub sealed: Bytes,
}

/// What a deal holds: contributions to all sets and groups that contain sender and recipient.
///
/// # Security
/// Secret; the holder zeroizes it.
#[derive(Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct DealPlaintext {
    /// Same order as the commitments, those without the recipient left out.
    pub contributions: Vec<[u8; 32]>,
    /// FROST DKG round 2 package; empty with n = 1.
    pub frost_round2: Vec<u8>,
}

impl core::fmt::Debug for DealPlaintext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DealPlaintext(<redacted>)")
    }
}

impl Wire for DealPlaintext {
    const NAME: &'static str = "DealPlaintext";
    const MAX_BYTES: usize = 64 << 10;
}

/// Step 4. Sending it, rather than ABORT, says: no complaint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// H(key) for the sender's key sets, then noise groups, in canonical order.
    pub keys: Vec<Blake3Digest>,
    /// The sender's part of the public seed.
    pub public_seed: [u8; 32],
    /// The group's public key package as the sender computed it.
    pub frost_group: Bytes,
}

/// A member's powers for the reference string, raised from those of the member before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Digest of the message that it raises; zeros in the first.
    pub before: Blake3Digest,
    /// The powers, encoded (`reference-string.md`).
    pub powers: Bytes,
    /// That the sender knows by what they were raised.
    pub proof: Bytes,
}

/// Steps 6 and 8: commitment to a share stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRoot {
    /// Digest of every chunk, in order. The message that holds the list is the root: it is what is signed and echoed.
    pub chunks: Vec<Blake3Digest>,
}

impl StreamRoot {
    /// Digest of one chunk, bound to its place.
    #[must_use]
    pub fn chunk_digest(header: &Header, stream: Stream, index: u32, bytes: &[u8]) -> Blake3Digest {
        Blake3Digest(domain::hash_parts(
            domain::CHUNK,
            &[
                &header.ceremony.0,
                &header.attempt.0.to_le_bytes(),
                &[stream as u8, header.sender.get()],
                &index.to_le_bytes(),
                bytes,
            ],
        ))
    }
}

/// Step 10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// Digest of the key set the sender assembled.
    pub key_set: KeySetDigest,
    /// The sender's partial decryption of the test ciphertext: one packed ring element,
    /// coefficients as little-endian 128-bit words.
    pub test_share: Bytes,
}

/// Step 11.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Hash over the ceremony's parameters and every broadcast message of the attempt.
    pub root: Blake3Digest,
}

/// The body of a signed message; its variant must match the header's round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Step 1.
    Commit(Commit),
    /// Steps 2, 5, 7, 9, and after the reference string.
    Echo(Echo),
    /// Step 3.
    Deal(Deal),
    /// Step 4.
    Confirm(Confirm),
    /// Between steps 5 and 6.
    ReferenceString(Contribution),
    /// Steps 6, 8.
    StreamRoot(StreamRoot),
    /// Step 10.
    Prove(Prove),
    /// Step 11.
    Finish(Finish),
    /// Instead of any later step.
    Abort(AbortReason),
}

impl Payload {
    /// Whether this is what the round carries.
    #[must_use]
    pub const fn fits(&self, round: Round) -> bool {
        match self {
            Self::Commit(_) => matches!(round, Round::Commit),
            Self::Echo(_) => round.echoes().is_some(),
            Self::Deal(_) => matches!(round, Round::Deal),
            Self::Confirm(_) => matches!(round, Round::Confirm),
            Self::ReferenceString(_) => matches!(round, Round::ReferenceString),
            Self::StreamRoot(_) => matches!(round, Round::BitsRoot | Round::BodiesRoot),
            Self::Prove(_) => matches!(round, Round::Prove),
            Self::Finish(_) => matches!(round, Round::Finish),
            Self::Abort(_) => matches!(round, Round::Abort),
        }
    }
}
