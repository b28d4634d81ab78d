//! Goes back on FINISH, or finishes something else.

use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{AbortReason, Finish, Payload, Round, SignedMessage},
};

use super::{Insider, Misbehaviour, wire};

/// Sends ABORT right after FINISH; whichever comes first.
pub(super) struct AbortAfterFinish;

impl Misbehaviour for AbortAfterFinish {
    fn own(&mut self, insider: &Insider, message: SignedMessage) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if message.header.round == Round::Finish {
            let reason = AbortReason::Local { detail: "changed its mind".to_owned() };
            let header = insider.header(Round::Abort, None);
            let abort = SignedMessage::sign(header, Payload::Abort(reason), &insider.identity);
            out.push(wire(abort));
        }
        out.insert(0, wire(message));
        out
    }
}

/// Signs FINISH over another root before some.
pub(super) struct FinishOtherRoot {
    pub(super) to: Vec<ParticipantIndex>,
}

impl Misbehaviour for FinishOtherRoot {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        if let Payload::Finish(Finish { mut root }) = message.payload
            && self.to.contains(&insider.to)
        {
            root.0[0] ^= 1;
            message = insider.instead(&message, Payload::Finish(Finish { root }));
        }
        vec![wire(message)]
    }

    fn publishes(&self) -> bool {
        false
    }
}
