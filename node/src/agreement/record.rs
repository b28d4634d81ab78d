//! What a member stores before anything that follows from it leaves.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, Slot, Wire,
    agreement::{SignedProposal, SignedVote},
    ceremony::Bytes,
    decryption::ManifestLock,
    scheduling::{Binding, Manifest},
};

/// Everything that one input to the machine changed, stored as one: after a restart it is there as
/// a whole or not at all. Records of a slot may be deleted once a later slot's record is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Cluster, key set and epoch: records of another are not replayed.
    pub binding: Binding,
    /// The slot.
    pub slot: Slot,
    /// In the order in which they are replayed.
    pub(super) entries: Vec<Entry>,
}

/// One thing that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The slot was started.
    Started,
    /// The encoding of a manifest that later entries name.
    Manifest(Bytes),
    /// A vote, own ones included.
    Vote(SignedVote),
    /// A proposal, own ones included.
    Proposal(SignedProposal),
    /// Proof of 2t+1 prevotes.
    Polka(Vec<SignedVote>),
    /// Whether the manifest is sound.
    Judged {
        /// Round in which it was proposed.
        round: u32,
        /// Its digest.
        manifest: Blake3Digest,
        /// The owner's word.
        sound: bool,
    },
    /// A time-out that counted.
    Timeout(Step, u32),
    /// The slot is decided.
    Decided(ManifestLock),
}

/// What a round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// A proposal.
    Propose,
    /// Prevotes that agree.
    Prevote,
    /// Precommits that agree.
    Precommit,
}

impl Wire for Record {
    const NAME: &'static str = "agreement record";
    // One input brings at most one manifest, and what follows from it is votes.
    const MAX_BYTES: usize = 2 * Manifest::MAX_BYTES;
}
