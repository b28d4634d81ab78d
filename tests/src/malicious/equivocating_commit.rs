//! Signs two commitments in step 1 and shows each to some, also when asked again.

use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{Payload, SignedMessage},
};

use super::{Insider, Misbehaviour, wire};

pub(super) struct EquivocatingCommit {
    pub(super) second_to: Vec<ParticipantIndex>,
}

impl Misbehaviour for EquivocatingCommit {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        if let Payload::Commit(commit) = &message.payload
            && self.second_to.contains(&insider.to)
        {
            let mut commit = commit.clone();
            commit.public_seed = Blake3Digest([0xee; 32]);
            message = insider.instead(&message, Payload::Commit(commit));
        }
        vec![wire(message)]
    }
}
