//! Where share streams are kept. A stream is too large to hold in memory beside the key set
//! (300 MB per member), so the machine writes chunks through this trait as they are made and as they
//! arrive, and reads them back to serve others, to resume, and for the transcript.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use veil_protocol_spec::{ParticipantIndex, ceremony::Stream};

/// Storage of the chunks of one attempt.
pub trait ChunkStore: Send {
    /// Keeps a chunk. It need not survive a crash: what is gone is asked for again, own chunks are
    /// computed again, and once FINISH destroys the seed nobody needs them. Keeping a chunk again
    /// replaces it.
    ///
    /// # Errors
    /// [`StoreError`]; the machine aborts the attempt.
    fn put(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError>;

    /// A chunk kept before, or `None`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The store failed: a full disk, a lost file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the share store failed: {0}")]
pub struct StoreError(pub String);

/// Keeps chunks in memory: for tests and for small parameters. Clones share what they keep, as the
/// processes do that use one disk, one after the other.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Chunks>>);

type Chunks = BTreeMap<(Stream, ParticipantIndex, u32), Vec<u8>>;

impl ChunkStore for MemoryStore {
    fn put(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.insert((stream, sender, index), bytes.to_vec());
        Ok(())
    }

    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(chunks.get(&(stream, sender, index)).cloned())
    }
}
