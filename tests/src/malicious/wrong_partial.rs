//! Gives a wrong partial decryption, signed like a right one.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    ParticipantIndex,
    codec::Bytes,
    decryption::{DecryptionMessage, DecryptionPayload},
    identity::SecretIdentity,
};

/// What is wrong with the partial decryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongPartial {
    /// One bit of one word.
    Bit(usize),
    /// Every byte.
    Everything,
    /// Too short.
    Truncated,
    /// Something else for every receiver.
    Different,
}

impl WrongPartial {
    /// The message that leaves in place of the right one.
    #[must_use]
    pub fn instead(
        self,
        message: DecryptionMessage,
        to: ParticipantIndex,
        identity: &SecretIdentity,
    ) -> DecryptionMessage {
        let DecryptionPayload::Partial(Bytes(mut bytes)) = message.payload else { return message };
        match self {
            Self::Bit(at) => {
                let at = at % (bytes.len() * 8);
                bytes[at / 8] ^= 1 << (at % 8);
            }
            Self::Everything => bytes.iter_mut().for_each(|byte| *byte = !*byte),
            Self::Truncated => bytes.truncate(bytes.len() - 16),
            Self::Different => bytes[0] = bytes[0].wrapping_add(to.get()),
        }
        let payload = DecryptionPayload::Partial(Bytes(bytes));
        DecryptionMessage::sign(message.request, message.sender, payload, identity)
    }
}
