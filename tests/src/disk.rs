//! What a member has on disk: it outlives the process.

use veil_keygen_ceremony::{machine::Record, seed::CeremonySeed, store::MemoryStore};
use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{Round, SignedMessage},
};

/// One member's disk for one attempt.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The seed, until it is erased.
    pub seed: Option<CeremonySeed>,
    /// The records, in order.
    pub records: Vec<Record>,
    /// The chunks.
    pub store: MemoryStore,
}

impl Disk {
    /// A disk with nothing but the seed.
    #[must_use]
    pub fn new(seed: CeremonySeed) -> Self {
        Self { seed: Some(seed), records: Vec::new(), store: MemoryStore::default() }
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
