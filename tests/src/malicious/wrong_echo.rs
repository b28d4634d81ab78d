//! Says it received another message of some member than it did: nobody can tell which of the two
//! lies.

use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{Payload, Round, SignedMessage},
};

use super::{Insider, Misbehaviour, wire};

pub(super) struct WrongEcho {
    pub(super) round: Round,
    pub(super) about: ParticipantIndex,
}

impl Misbehaviour for WrongEcho {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        if let Payload::Echo(echo) = &message.payload
            && message.header.round == self.round
        {
            let mut echo = echo.clone();
            let digest = echo.digests.get_mut(self.about.position());
            digest.into_iter().for_each(|digest| digest.0[0] ^= 1);
            message = insider.instead(&message, Payload::Echo(echo));
        }
        vec![wire(message)]
    }
}
