//! What a member stores of the agreement before anything that follows from it leaves.

use serde::{Deserialize, Serialize};

use super::{SignedProposal, SignedVote};
use crate::{
    codec::{Bytes, Wire},
    decryption::ManifestLock,
    ids::{Blake3Digest, Slot},
    scheduling::{Binding, Manifest},
};

/// Everything that one input to the agreement changed, stored as one: after a restart it is there
/// as a whole or not at all. Records of a slot may be deleted once a later slot's record is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Cluster, key set and epoch: records of another are not replayed.
    pub binding: Binding,
    /// The slot.
    pub slot: Slot,
    /// In the order in which they are replayed.
    pub entries: Vec<Entry>,
}

impl Wire for Record {
    const NAME: &'static str = "agreement record";
    // One input brings at most one manifest, and what follows from it is votes.
    const MAX_BYTES: usize = 2 * Manifest::MAX_BYTES;
}

/// One thing that the member accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
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
    /// Whether the manifest is valid.
    Validated {
        /// Round in which it was proposed.
        round: u32,
        /// Its digest.
        manifest: Blake3Digest,
        /// What the host said.
        valid: bool,
    },
    /// A time-out that counted, with its round.
    Timeout(Step, u32),
    /// The slot is decided.
    Decided(ManifestLock),
}

/// What a round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A proposal.
    Propose,
    /// Prevotes that agree.
    Prevote,
    /// Precommits that agree.
    Precommit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agreement::{Proposal, Vote, VoteKind},
        ids::ParticipantIndex,
        scheduling::arbitrary::{assert_wire, binding, secret},
    };

    #[test]
    fn only_the_exact_bytes_decode() {
        let (slot, round, manifest) = (Slot(6), 2, Blake3Digest([7; 32]));
        let voter = ParticipantIndex::new(3).unwrap();
        let vote = Vote { slot, round, kind: VoteKind::Prevote, manifest: Some(manifest), voter }
            .sign(&binding(), &secret(3));
        let proposal = Proposal { slot, round, locked_in: Some(0), manifest };
        let votes = vec![(voter, vote.signature)];
        let lock = ManifestLock { binding: binding(), slot, round, manifest, votes };
        let entries = vec![
            Entry::Started,
            Entry::Manifest(Bytes(vec![1, 2, 3])),
            Entry::Vote(vote),
            Entry::Proposal(proposal.sign(&binding(), &secret(1))),
            Entry::Polka(vec![vote; 2]),
            Entry::Validated { round, manifest, valid: true },
            Entry::Timeout(Step::Precommit, round),
            Entry::Decided(lock),
        ];
        assert_wire(&Record { binding: binding(), slot, entries });
    }
}
