//! Messages of threshold decryption; the numbered steps are in `decryption.md`.
//!
//! No message carries a ciphertext. A member decrypts outputs that it computed itself from a
//! locked manifest; others can only name them by digest. The lock is
//! [`agreement::Lock`](crate::agreement::Lock).

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Bytes, Wire},
    domain,
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity, Signature, Slot},
};

/// Most squashed blocks decrypted under one request.
pub const MAX_BLOCKS_PER_REQUEST: usize = 1 << 16;

/// What a set of outputs belongs to and what it is: the inputs of a [`RequestId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestContext {
    /// Key set the outputs are encrypted under.
    pub key_set: KeySetDigest,
    /// Epoch of the committee.
    pub epoch: Epoch,
    /// The slot that computed them.
    pub slot: Slot,
    /// Digest of the slot's locked manifest.
    pub manifest: Blake3Digest,
    /// How many openings of the slot came before.
    pub step: u16,
    /// What was evaluated and opened before ([`opened_digest`](crate::slot::opened_digest)).
    pub before: Blake3Digest,
}

impl RequestContext {
    /// Of what a slot opens first, or at once.
    #[must_use]
    pub fn first(key_set: KeySetDigest, epoch: Epoch, slot: Slot, manifest: Blake3Digest) -> Self {
        // `slot::opened_digest` of no step; a test there compares.
        let before = Blake3Digest(domain::hash_parts(domain::OPENED_STEPS, &[]));
        Self { key_set, epoch, slot, manifest, step: 0, before }
    }
}

/// Digest of a context and of every output block under it: what members decrypt is named by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub Blake3Digest);

impl RequestId {
    /// The id of the outputs with the given block digests.
    #[must_use]
    pub fn of(context: &RequestContext, blocks: &[Blake3Digest]) -> Self {
        let mut all = Vec::with_capacity(blocks.len() * 32);
        blocks.iter().for_each(|digest| all.extend_from_slice(&digest.0));
        Self(Blake3Digest(domain::hash_parts(
            domain::DECRYPTION_REQUEST,
            &[
                &context.key_set.0,
                &context.epoch.0.to_le_bytes(),
                &context.slot.0.to_le_bytes(),
                &context.manifest.0,
                &context.step.to_le_bytes(),
                &context.before.0,
                &all,
            ],
        )))
    }
}

/// One participant's contribution to the decryption of one request, or a call for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecryptionPayload {
    /// Asks the receiver for its partial decryption; only a request that it authorised itself is
    /// answered.
    Request,
    /// The sender's partial decryption: packed ring elements, coefficients as little-endian 128-bit
    /// words.
    Partial(Bytes),
}

/// A signed decryption message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecryptionMessage {
    /// The outputs that it is about.
    pub request: RequestId,
    /// The participant that signs it.
    pub sender: ParticipantIndex,
    /// The request or the contribution.
    pub payload: DecryptionPayload,
    /// The sender's signature over all of the above.
    pub signature: Signature,
}

impl Wire for DecryptionMessage {
    const NAME: &'static str = "DecryptionMessage";
    const MAX_BYTES: usize = MAX_BLOCKS_PER_REQUEST * 16 + 256;
}

impl DecryptionMessage {
    /// Signs as `sender`, whose secret key `identity` must be.
    #[must_use]
    pub fn sign(
        request: RequestId,
        sender: ParticipantIndex,
        payload: DecryptionPayload,
        identity: &SecretIdentity,
    ) -> Self {
        let signature = identity.sign(&Self::signing_digest(request, sender, &payload));
        Self { request, sender, payload, signature }
    }

    fn signing_digest(
        request: RequestId,
        sender: ParticipantIndex,
        payload: &DecryptionPayload,
    ) -> [u8; 32] {
        let kind_and_bytes: (&[u8], &[u8]) = match payload {
            DecryptionPayload::Request => (&[0], &[]),
            DecryptionPayload::Partial(bytes) => (&[1], &bytes.0),
        };
        domain::hash_parts(
            domain::DECRYPTION_MESSAGE,
            &[&request.0.0, &[sender.get()], kind_and_bytes.0, kind_and_bytes.1],
        )
    }

    /// # Errors
    /// [`InvalidSignature`] if the signature is not `identity`'s.
    pub fn verify(&self, identity: &PublicIdentity) -> Result<(), InvalidSignature> {
        identity.verify(
            &Self::signing_digest(self.request, self.sender, &self.payload),
            &self.signature,
        )
    }
}

/// How much a key has been used. It lives with the key share and is carried over a restart; a new
/// key or epoch starts at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DecryptionCounter {
    /// Blocks decrypted so far under this key and epoch.
    pub blocks: u64,
}

impl Wire for DecryptionCounter {
    const NAME: &'static str = "decryption counter";
    const MAX_BYTES: usize = 16;
}
