//! What members of a signing session send each other, and what they store.
//!
//! Every message is signed with the sender's own identity key over
//! `hash_parts(FROST_MESSAGE, [context, group key, payload])`, so that a wrong share is evidence
//! against one member although the group signature names nobody. Only the [`SigningKeyId`] of the
//! context travels; the receiver knows the rest.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, ParticipantIndex,
    Signature, Slot, Wire,
};

/// What a group signature is for. Each purpose counts its own slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// The assignment certificate of a slot.
    Certificate,
    /// A batch of certificates anchored on chain; the slot is the batch's sequence number.
    Anchor,
    /// Possession of the new group key, shown when it is published; the slot is the attempt.
    Possession,
    /// The outgoing group's consent to the next one; the slot is the attempt that made its key, so that one that was
    /// given up stands in no other's way.
    Handover,
}

/// The place that a group signature fills. A member signs one message for it and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SigningKeyId {
    /// What the signature is for.
    pub purpose: Purpose,
    /// The signing committee's epoch.
    pub epoch: Epoch,
    /// Which of that purpose and epoch.
    pub slot: Slot,
}

/// Everything a signing session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SigningContext {
    /// The chain of the contracts.
    pub chain: ChainId,
    /// The directory contract.
    pub contract: Address,
    /// The cluster.
    pub cluster: ClusterId,
    /// The place to fill.
    pub key: SigningKeyId,
}

impl Wire for SigningContext {
    const NAME: &'static str = "FROST signing context";
    const MAX_BYTES: usize = 128;
}

/// A message between members, signed by its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMessage {
    /// The session it is for.
    pub key: SigningKeyId,
    /// The signed content.
    pub payload: Payload,
    /// By [`Payload::from`], over context, group key and payload.
    pub signature: Signature,
}

impl Wire for SignedMessage {
    const NAME: &'static str = "FROST message";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 2048;
}

/// The signed content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The member that collects in this attempt.
    pub coordinator: ParticipantIndex,
    /// The coordinator's attempt.
    pub attempt: Attempt,
    /// The sender.
    pub from: ParticipantIndex,
    /// What the sender says.
    pub body: Body,
}

impl Wire for Payload {
    const NAME: &'static str = "FROST payload";
    const MAX_BYTES: usize = 2048;
}

/// The five kinds of message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Coordinator to all: commit to nonces.
    Request {
        /// What is to be signed; `None` while that is not known yet, to have the commitments ready
        /// when it is.
        message: Option<KeccakDigest>,
    },
    /// Member to coordinator: fresh nonce commitments (FROST round 1).
    Commitment {
        /// `frost_core::round1::SigningCommitments`.
        commitment: Vec<u8>,
    },
    /// Coordinator to the chosen 2t+1: sign with these (FROST round 2).
    Package {
        /// What is to be signed.
        message: KeccakDigest,
        /// The signers' commitments, ascending by index.
        commitments: Vec<(ParticipantIndex, Vec<u8>)>,
    },
    /// Signer to coordinator.
    Share {
        /// What was signed: two of these with one key and two messages prove a double signer.
        message: KeccakDigest,
        /// Digest of the coordinator's signed `Package` message.
        package: Blake3Digest,
        /// `frost_core::round2::SignatureShare`.
        share: Vec<u8>,
    },
    /// Anyone to anyone: the result.
    Signature {
        /// The message that was signed.
        message: KeccakDigest,
        /// [`GroupSignature`](super::GroupSignature) bytes.
        signature: Vec<u8>,
    },
}

/// "This nonce is spent on this message." Stored before the share leaves, kept as long as a message
/// for the same [`SigningKeyId`] could be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceRecord {
    /// The session it is for.
    pub context: SigningContext,
    /// The only message this member will ever sign there.
    pub message: KeccakDigest,
    /// The member that collected.
    pub coordinator: ParticipantIndex,
    /// The coordinator's attempt.
    pub attempt: Attempt,
    /// The spent nonce's commitments; empty for a designated decryptor, whose Schnorr nonce exists
    /// only while it signs.
    pub commitment: Vec<u8>,
}

impl Wire for NonceRecord {
    const NAME: &'static str = "FROST nonce record";
    const MAX_BYTES: usize = 512;
}

impl NonceRecord {
    /// Whether both are for one place but differ in the message. A store refuses to add a record
    /// that conflicts with one it holds.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.context == other.context && self.message != other.message
    }
}

/// Proof of misbehaviour that convinces those who know the context, the group key and the members'
/// identities; see [`SessionContext::convict`](super::SessionContext::convict).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// A signed message that is wrong by itself: bytes that are no commitment or share, a signer
    /// set of another size, a group signature that does not verify.
    Malformed(SignedMessage),
    /// A share that does not fit the package it answers.
    BadShare {
        /// The coordinator's `Package`.
        package: SignedMessage,
        /// The culprit's `Share`.
        share: SignedMessage,
    },
    /// Two shares for one place and two messages.
    DoubleShare {
        /// One of the shares.
        first: SignedMessage,
        /// The share for the other message.
        second: SignedMessage,
    },
}

impl Wire for Evidence {
    const NAME: &'static str = "FROST evidence";
    const MAX_BYTES: usize = 2 * SignedMessage::MAX_BYTES + 8;
}
