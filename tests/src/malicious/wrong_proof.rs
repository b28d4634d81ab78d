//! Proves in step 10 a share or a key set that is not the others'.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::ceremony::{Payload, SignedMessage};

use super::{Insider, Misbehaviour, wire};

/// What is wrong with the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongProof {
    /// The partial decryption of the test ciphertext.
    TestShare,
    /// Its length.
    Truncated,
    /// The digest of the key set.
    KeySet,
}

impl Misbehaviour for WrongProof {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        if let Payload::Prove(prove) = &message.payload {
            let mut prove = prove.clone();
            match self {
                Self::TestShare => prove.test_share.0[0] ^= 1,
                Self::Truncated => drop(prove.test_share.0.pop()),
                Self::KeySet => prove.key_set.0[0] ^= 1,
            }
            message = insider.instead(&message, Payload::Prove(prove));
        }
        vec![wire(message)]
    }
}
