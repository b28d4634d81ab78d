//! Faults for `veil ceremony simulate --fault`: what one member sends instead of what it should. The
//! member runs the honest machine and holds its own keys; only what leaves it is changed, and signed
//! again. The full set of malicious members is in the `tests` package.

use std::sync::Arc;

use veil_keygen_ceremony::store::ChunkStore;
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, Payload, Round, SignedMessage, Stream, StreamRoot},
    identity::SecretIdentity,
};

/// A fault of the last participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultName {
    /// One wrong word in its share of the public material: detected, aborts.
    WrongBodyShare,
    /// One wrong word in its share of the secret bits: detected, aborts.
    WrongSecretBitShare,
    /// A contribution to the reference string that its proof does not fit: detected, aborts.
    WrongReferenceString,
    /// A damaged chunk for one receiver only: repaired through a relay.
    BadShareToOne,
    /// Never sends a message: the others abort at the deadline.
    Silent,
    /// A wrong partial decryption: corrected, the culprit named.
    WrongPartialDecryption,
    /// Asks for the decryption of a crafted ciphertext: refused, as in every proof.
    CraftedCiphertext,
}

impl FaultName {
    /// All faults, in the order in which a command lists them.
    pub const ALL: [Self; 7] = [
        Self::WrongBodyShare,
        Self::WrongSecretBitShare,
        Self::WrongReferenceString,
        Self::BadShareToOne,
        Self::Silent,
        Self::WrongPartialDecryption,
        Self::CraftedCiphertext,
    ];

    /// The name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongBodyShare => "wrong-body-share",
            Self::WrongSecretBitShare => "wrong-secret-bit-share",
            Self::WrongReferenceString => "wrong-reference-string",
            Self::BadShareToOne => "bad-share-to-one",
            Self::Silent => "silent",
            Self::WrongPartialDecryption => "wrong-partial-decryption",
            Self::CraftedCiphertext => "crafted-ciphertext",
        }
    }

    /// What the member does, and what comes of it.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::WrongBodyShare => {
                "One wrong word in its share of the public material: detected, aborts"
            }
            Self::WrongSecretBitShare => {
                "One wrong word in its share of the secret bits: detected, aborts"
            }
            Self::WrongReferenceString => {
                "A contribution to the reference string that its proof does not fit: detected, aborts"
            }
            Self::BadShareToOne => {
                "A damaged chunk for one receiver only: repaired through a relay"
            }
            Self::Silent => "Never sends a message: the others abort at the deadline",
            Self::WrongPartialDecryption => {
                "A wrong partial decryption: corrected, the culprit named"
            }
            Self::CraftedCiphertext => {
                "Asks for the decryption of a crafted ciphertext: refused, as in every proof"
            }
        }
    }

    /// Whether the fault belongs to the ceremony (rather than to decryption).
    #[must_use]
    pub const fn in_ceremony(self) -> bool {
        !matches!(self, Self::WrongPartialDecryption | Self::CraftedCiphertext)
    }
}

/// What a faulty member needs to change its messages.
pub(crate) struct Misbehaviour {
    pub(crate) fault: FaultName,
    pub(crate) me: ParticipantIndex,
    pub(crate) victim: ParticipantIndex,
    pub(crate) identity: SecretIdentity,
    pub(crate) store: Box<dyn ChunkStore>,
    pub(crate) forged_root: Option<Blake3Digest>,
}

/// Chunk that is falsified.
const CHUNK: u32 = 0;

impl Misbehaviour {
    /// What leaves in place of a message; `None` if nothing.
    pub(crate) fn replace(&mut self, to: ParticipantIndex, bytes: &[u8]) -> Option<Arc<[u8]>> {
        // Its own machine aborts when the others' echoes differ from what it thinks it has sent; the
        // malicious member keeps that to itself and goes on answering.
        if self.fault == FaultName::Silent || is_abort(bytes) {
            return None;
        }
        Some(self.rewrite_bytes(to, bytes).into())
    }

    fn falsified_stream(&self) -> Option<Stream> {
        match self.fault {
            FaultName::WrongBodyShare => Some(Stream::Bodies),
            FaultName::WrongSecretBitShare => Some(Stream::Bits),
            _ => None,
        }
    }

    fn rewrite_bytes(&mut self, to: ParticipantIndex, bytes: &[u8]) -> Vec<u8> {
        match CeremonyMessage::from_wire(bytes) {
            Ok(CeremonyMessage::Signed(message)) if message.header.sender == self.me => {
                CeremonyMessage::Signed(Box::new(self.rewrite_signed(*message))).to_wire()
            }
            Ok(CeremonyMessage::Chunk { id, bytes: mut chunk }) if id.sender == self.me => {
                let consistent = self.falsified_stream() == Some(id.stream) && id.index == CHUNK;
                let to_victim = self.fault == FaultName::BadShareToOne
                    && to == self.victim
                    && (id.stream, id.index) == (Stream::Bodies, CHUNK);
                if consistent || to_victim {
                    falsify(&mut chunk.0);
                }
                CeremonyMessage::Chunk { id, bytes: chunk }.to_wire()
            }
            _ => bytes.to_vec(),
        }
    }

    /// Makes root and own echo fit the falsified chunk, so that only the share is wrong.
    fn rewrite_signed(&mut self, message: SignedMessage) -> SignedMessage {
        if let Payload::ReferenceString(contribution) = &message.payload
            && self.fault == FaultName::WrongReferenceString
        {
            let mut contribution = contribution.clone();
            falsify(&mut contribution.proof.0);
            let payload = Payload::ReferenceString(contribution);
            return SignedMessage::sign(message.header, payload, &self.identity);
        }
        let Some(stream) = self.falsified_stream() else { return message };
        let header = message.header;
        match &message.payload {
            Payload::StreamRoot(root) if header.round == stream.root_round() => {
                let Ok(Some(mut chunk)) = self.store.get(stream, self.me, CHUNK) else {
                    return message;
                };
                falsify(&mut chunk);
                let mut root = root.clone();
                root.chunks[CHUNK as usize] =
                    StreamRoot::chunk_digest(&header, stream, CHUNK, &chunk);
                let forged = SignedMessage::sign(header, Payload::StreamRoot(root), &self.identity);
                self.forged_root = Some(forged.digest());
                forged
            }
            Payload::Echo(echo) if header.round.echoes() == Some(stream.root_round()) => {
                let mut echo = echo.clone();
                if let (Some(forged), Some(own)) =
                    (self.forged_root, echo.digests.get_mut(self.me.position()))
                {
                    *own = forged;
                }
                SignedMessage::sign(header, Payload::Echo(echo), &self.identity)
            }
            _ => message,
        }
    }
}

fn is_abort(bytes: &[u8]) -> bool {
    matches!(
        CeremonyMessage::from_wire(bytes),
        Ok(CeremonyMessage::Signed(message)) if message.header.round == Round::Abort
    )
}

fn falsify(chunk: &mut [u8]) {
    if let Some(byte) = chunk.first_mut() {
        *byte ^= 1;
    }
}
