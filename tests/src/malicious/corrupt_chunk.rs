//! Sends one receiver chunks that do not match their roots.

use veil_protocol_spec::{ParticipantIndex, Wire, ceremony::CeremonyMessage, codec::Bytes};

use super::{Insider, Misbehaviour};

pub(super) struct CorruptChunk {
    pub(super) to: ParticipantIndex,
}

impl Misbehaviour for CorruptChunk {
    fn other(&mut self, insider: &Insider, mut message: CeremonyMessage) -> Vec<Vec<u8>> {
        if let CeremonyMessage::Chunk { bytes: Bytes(bytes), .. } = &mut message
            && insider.to == self.to
        {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        vec![message.to_wire()]
    }
}
