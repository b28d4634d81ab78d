//! Publishes a share stream with one wrong word. Chunk, root and own echo fit each other, so that
//! only the share itself is wrong.

use veil_keygen_ceremony::store::ChunkStore as _;
use veil_protocol_spec::{
    Blake3Digest, Wire,
    ceremony::{CeremonyMessage, Payload, SignedMessage, Stream, StreamRoot},
    codec::Bytes,
};

use super::{Insider, Misbehaviour, wire};

pub(super) struct WrongShare {
    pub(super) stream: Stream,
    pub(super) chunk: u32,
    pub(super) word: usize,
    /// Digest of the root message that was really sent.
    pub(super) root: Option<Blake3Digest>,
}

impl WrongShare {
    fn falsify(&self, bytes: &mut [u8]) {
        let (words, _) = bytes.as_chunks_mut::<8>();
        let words_in_all = words.len().max(1);
        if let Some(word) = words.get_mut(self.word % words_in_all) {
            *word = u64::from_le_bytes(*word).wrapping_add(1).to_le_bytes();
        }
    }
}

impl Misbehaviour for WrongShare {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        let round = message.header.round;
        match &message.payload {
            Payload::StreamRoot(root) if round == self.stream.root_round() => {
                let (me, mut root) = (insider.me(), root.clone());
                let mut store = insider.store.clone();
                let bytes = store.get(self.stream, me, self.chunk).ok().flatten();
                let mut bytes = bytes.expect("the honest machine has stored its chunks");
                self.falsify(&mut bytes);
                let digest =
                    StreamRoot::chunk_digest(&message.header, self.stream, self.chunk, &bytes);
                root.chunks[self.chunk as usize] = digest;
                message = insider.instead(&message, Payload::StreamRoot(root));
                self.root = Some(message.digest());
            }
            Payload::Echo(echo) if round.echoes() == Some(self.stream.root_round()) => {
                let mut echo = echo.clone();
                if let Some(root) = self.root {
                    echo.digests[insider.me().position()] = root;
                }
                message = insider.instead(&message, Payload::Echo(echo));
            }
            _ => {}
        }
        vec![wire(message)]
    }

    fn other(&mut self, insider: &Insider, mut message: CeremonyMessage) -> Vec<Vec<u8>> {
        if let CeremonyMessage::Chunk { id, bytes: Bytes(bytes) } = &mut message
            && (id.sender, id.stream, id.index) == (insider.me(), self.stream, self.chunk)
        {
            self.falsify(bytes);
        }
        vec![message.to_wire()]
    }
}
