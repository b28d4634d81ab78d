//! Confirms in step 4 what others do not have.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::ceremony::{Payload, SignedMessage};

use super::{Insider, Misbehaviour, wire};

/// What is wrong with the confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongConfirm {
    /// H of another key, for the first set.
    Key,
    /// A part of the public seed that was not committed to.
    PublicSeed,
    /// Another FROST group key.
    Group,
}

impl Misbehaviour for WrongConfirm {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        if let Payload::Confirm(confirm) = &message.payload {
            let mut confirm = confirm.clone();
            match self {
                Self::Key => {
                    confirm.keys.first_mut().into_iter().for_each(|digest| digest.0[0] ^= 1);
                }
                Self::PublicSeed => confirm.public_seed[0] ^= 1,
                Self::Group => {
                    confirm.frost_group.0.last_mut().into_iter().for_each(|byte| *byte ^= 1);
                }
            }
            message = insider.instead(&message, Payload::Confirm(confirm));
        }
        vec![wire(message)]
    }
}
