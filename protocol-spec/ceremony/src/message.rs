//! Messages as they travel.

use serde::{Deserialize, Serialize};

use super::{
    header::Header,
    payload::Payload,
    round::{Round, Stream},
};
use veil_protocol_spec_base::{
    codec::{Bytes, Wire, encode},
    domain,
    identity::{InvalidSignature, SecretIdentity},
    ids::{Attempt, Blake3Digest, CeremonyId, ParticipantIndex, PublicIdentity, Signature},
};

/// Longest signed message: a contribution to the reference string, with room.
pub const MAX_SIGNED_BYTES: usize = 1_400_000;
/// Longest chunk of a share stream.
pub const MAX_CHUNK_BYTES: usize = 2 << 20;

/// A message anyone can attribute and relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMessage {
    /// What it belongs to.
    pub header: Header,
    /// The body.
    pub payload: Payload,
    /// The sender's signature over both.
    pub signature: Signature,
}

impl Wire for SignedMessage {
    const NAME: &'static str = "SignedMessage";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = MAX_SIGNED_BYTES;
}

impl SignedMessage {
    /// Signs a message. The same arguments always give the same bytes.
    #[must_use]
    pub fn sign(header: Header, payload: Payload, identity: &SecretIdentity) -> Self {
        let signature = identity.sign(&Self::signing_digest(&header, &payload));
        Self { header, payload, signature }
    }

    fn signing_digest(header: &Header, payload: &Payload) -> [u8; 32] {
        #[derive(Serialize)]
        struct Signed<'a>(&'a Header, &'a Payload);
        let bytes = encode(&Signed(header, payload));
        domain::hash_parts(domain::CEREMONY_MESSAGE, &[&bytes])
    }

    /// # Errors
    /// [`InvalidSignature`] if the signature is not `identity`'s over header and payload.
    pub fn verify(&self, identity: &PublicIdentity) -> Result<(), InvalidSignature> {
        identity.verify(&Self::signing_digest(&self.header, &self.payload), &self.signature)
    }

    /// The digest by which messages are echoed and bound into the transcript.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(domain::hash_parts(domain::CEREMONY_ECHO, &[&self.to_wire()]))
    }
}

/// What travels between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CeremonyMessage {
    /// A round's message, from its sender or a relay.
    Signed(Box<SignedMessage>),
    /// Asks for `sender`'s message of a round. Any member that has it answers.
    Request {
        /// The ceremony.
        ceremony: CeremonyId,
        /// Its attempt.
        attempt: Attempt,
        /// The round of the message.
        round: Round,
        /// The participant that signed the message.
        sender: ParticipantIndex,
    },
    /// Asks for a chunk of a stream. Any member that has it answers.
    ChunkRequest(ChunkId),
    /// A chunk, valid if it matches the signed root.
    Chunk {
        /// The place of the chunk.
        id: ChunkId,
        /// A part of the stream.
        bytes: Bytes,
    },
}

/// The place of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId {
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The stream that it is a part of.
    pub stream: Stream,
    /// The participant that published the stream.
    pub sender: ParticipantIndex,
    /// Position in the stream.
    pub index: u32,
}

impl Wire for CeremonyMessage {
    const NAME: &'static str = "CeremonyMessage";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = MAX_CHUNK_BYTES + 128;
    // Nothing is hashed in this form: a signed message inside is checked by its signature, a chunk
    // by the digest of its bytes.
    const CHECK_CANONICAL: bool = false;
}
