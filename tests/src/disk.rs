//! What a member has on disk: it outlives the process.

use std::sync::{Arc, Mutex, PoisonError};

use veil_keygen_ceremony::{
    machine::Record,
    seed::CeremonySeed,
    store::{ChunkStore, MemoryStore, StoreError},
};
use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{Round, SignedMessage, Stream},
};

/// A chunk store that several processes use one after the other.
#[derive(Clone, Debug, Default)]
pub struct SharedStore(Arc<Mutex<MemoryStore>>);

impl ChunkStore for SharedStore {
    fn put(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.put(stream, sender, index, bytes)
    }

    fn get(
        &mut self,
        stream: Stream,
        sender: ParticipantIndex,
        index: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stream, sender, index)
    }
}

/// One member's disk for one attempt.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The seed, until it is erased.
    pub seed: Option<CeremonySeed>,
    /// The records, in order.
    pub records: Vec<Record>,
    /// The chunks.
    pub store: SharedStore,
}

impl Disk {
    /// A disk with nothing but the seed.
    #[must_use]
    pub fn new(seed: CeremonySeed) -> Self {
        Self { seed: Some(seed), records: Vec::new(), store: SharedStore::default() }
    }

    /// The messages among the records.
    pub fn messages(&self) -> impl Iterator<Item = &SignedMessage> {
        self.records.iter().filter_map(|record| match record {
            Record::Message(message) => Some(&**message),
            Record::KeySet(_) | Record::KeyShare(_) => None,
        })
    }

    /// Whether a member's message of a round is durable.
    #[must_use]
    pub fn holds(&self, sender: ParticipantIndex, round: Round) -> bool {
        self.messages().any(|m| m.header.sender == sender && m.header.round == round)
    }
}
