//! The members' share streams: chunks that this member asks for, takes and serves.

use veil_committee_machine::{Millis, Verdict};
use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{AbortReason, CeremonyMessage, ChunkId, Payload, Stream, StreamRoot},
    codec::Bytes,
};

use super::{Ceremony, failure::Failure, interface::Fault};
use crate::{setup::Skip, store::StoreError};

/// Chunks of each member that are requested ahead.
const WINDOW: u32 = 4;

impl Ceremony {
    pub(super) fn serve_chunk(
        &mut self,
        from: ParticipantIndex,
        id: ChunkId,
    ) -> Verdict<Skip, Fault> {
        match self.load_chunk(id.stream, id.sender, id.index) {
            Ok(Some(bytes)) => {
                self.send(from, &CeremonyMessage::Chunk { id, bytes: Bytes(bytes) });
                Verdict::Valid
            }
            Ok(None) => Verdict::Skip(Skip::NotHere),
            Err(error) => {
                self.abort(AbortReason::Local { detail: error.to_string() });
                Verdict::Skip(Skip::NotHere)
            }
        }
    }

    pub(super) fn accept_chunk(
        &mut self,
        id: ChunkId,
        bytes: Vec<u8>,
        now: Millis,
    ) -> Verdict<Skip, Fault> {
        let wanted = self.state.window().is_some_and(|(stream, window)| {
            stream == id.stream && window.wants(id.index) && !window.has(id.index, id.sender)
        });
        if !wanted || !self.setup.others().any(|j| j == id.sender) {
            return Verdict::Skip(Skip::NotWanted);
        }
        if !self.chunk_matches(id.stream, id.sender, id.index, &bytes) {
            return Verdict::Fault(Fault::Chunk { sender: id.sender, index: id.index });
        }
        if let Err(error) = self.store.put(id.stream, id.sender, id.index, &bytes) {
            self.abort(AbortReason::Local { detail: error.to_string() });
            return Verdict::Valid;
        }
        if let Some((_, window)) = self.state.window_mut() {
            window.insert(id.index, id.sender, bytes);
        }
        self.prolong(Some(1), now);
        Verdict::Valid
    }

    /// Looks for the chunks of the window in the store, and asks their senders for the rest.
    pub(super) fn request_ahead(&mut self) -> Result<(), Failure> {
        let Some((stream, window)) = self.state.window_mut() else { return Ok(()) };
        let until = (window.next + WINDOW).min(self.setup.chunks(stream));
        let new = window.requested..until;
        window.requested = until;
        for index in new {
            for sender in self.setup.others() {
                let found = self.load_chunk(stream, sender, index).map_err(Failure::local)?;
                match (found, self.state.window_mut()) {
                    (Some(bytes), Some((_, window))) => window.insert(index, sender, bytes),
                    _ => self.request_chunk(stream, sender, index, sender),
                }
            }
        }
        Ok(())
    }

    pub(super) fn request_missing_chunks(&mut self, now: Millis) {
        let Some((stream, window)) = self.state.window() else { return };
        let missing: Vec<_> = (window.next..window.requested)
            .flat_map(|index| self.setup.others().map(move |sender| (index, sender)))
            .filter(|(index, sender)| !window.has(*index, *sender))
            .collect();
        for (index, sender) in missing {
            let relay = self.relay_for(sender, index, now);
            self.request_chunk(stream, sender, index, sender);
            self.request_chunk(stream, sender, index, relay);
        }
    }

    /// Another member that may have a chunk; changes with the chunk, so that load spreads, and with
    /// time, since it may be one that gives nothing.
    fn relay_for(&self, sender: ParticipantIndex, index: u32, now: Millis) -> ParticipantIndex {
        let others: Vec<_> = self.setup.others().filter(|j| *j != sender).collect();
        let turn = u64::from(index) + now / self.setup.timing.retry.max(1);
        others.get((turn % others.len().max(1) as u64) as usize).copied().unwrap_or(sender)
    }

    fn request_chunk(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        to: ParticipantIndex,
    ) {
        let (ceremony, attempt) = (self.setup.id, self.setup.attempt);
        let id = ChunkId { ceremony, attempt, stream, sender, index };
        self.send(to, &CeremonyMessage::ChunkRequest(id));
    }

    /// A chunk from the store, if it is there and is the one that the sender's root names.
    fn load_chunk(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get(stream, sender, index)?;
        Ok(found.filter(|bytes| self.chunk_matches(stream, sender, index, bytes)))
    }

    fn chunk_matches(
        &self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> bool {
        let Some(message) = self.log.get(stream.root_round(), sender) else { return false };
        let Payload::StreamRoot(root) = &message.payload else { return false };
        let length = self.setup.plan.of(stream).get(index as usize).map(|chunk| chunk.bytes);
        length == Some(bytes.len())
            && root.chunks.get(index as usize)
                == Some(&StreamRoot::chunk_digest(&message.header, stream, index, bytes))
    }
}
