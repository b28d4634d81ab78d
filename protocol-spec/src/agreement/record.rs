//! What a member stores of the agreement before anything that follows from it leaves.

use serde::{Deserialize, Serialize};

use super::{Instance, Lock, SignedProposal, SignedVote};
use crate::{
    codec::{Bytes, Wire},
    ids::Blake3Digest,
    scheduling::{Binding, Manifest},
};

/// Everything that one input to the agreement changed, stored as one: after a restart it is there
/// as a whole or not at all. Records of an instance may be deleted once a later one's record is
/// stored; what is kept of the last slots serves members that ask for their decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Cluster, key set and epoch: records of another are not replayed.
    pub binding: Binding,
    /// The instance.
    pub instance: Instance,
    /// In the order in which they are replayed.
    pub entries: Vec<Entry>,
}

impl Wire for Record {
    const NAME: &'static str = "agreement record";
    // Version 1 decided manifests only and named a slot in place of an instance; version 2 held manifests
    // that listed everything that runs, version 3 manifests that knew nothing of replicas that are done, version 4
    // manifests that knew nothing of versions of jobs, version 5 nothing of periodic jobs.
    const VERSION: u8 = 6;
    // One input brings at most one value, and what follows from it is votes.
    const MAX_BYTES: usize = 2 * Manifest::MAX_BYTES;
}

/// One thing that the member accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The instance was started.
    Started,
    /// The encoding of a value that later entries name.
    Value(Bytes),
    /// A vote, own ones included.
    Vote(SignedVote),
    /// A proposal, own ones included.
    Proposal(SignedProposal),
    /// Proof of 2t+1 prevotes.
    Polka(Vec<SignedVote>),
    /// Whether the value is valid.
    Validated {
        /// Round in which it was proposed.
        round: u32,
        /// Its digest.
        value: Blake3Digest,
        /// What the host said, or what follows from the votes of others.
        valid: bool,
    },
    /// A time-out that counted, with its round.
    Timeout(Step, u32),
    /// The instance is decided.
    Decided(Lock),
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
        ids::{ParticipantIndex, Slot},
        scheduling::arbitrary::{assert_wire, binding, secret},
    };

    #[test]
    fn only_the_exact_bytes_decode() {
        let (instance, round, value) = (Instance::end(Slot(6)), 2, Blake3Digest([7; 32]));
        let voter = ParticipantIndex::new(3).unwrap();
        let vote = Vote { instance, round, kind: VoteKind::Prevote, value: Some(value), voter }
            .sign(&binding(), &secret(3));
        let proposal = Proposal { instance, round, locked_in: Some(0), value };
        let votes = vec![(voter, vote.signature)];
        let lock = Lock { binding: binding(), instance, round, value, votes };
        let entries = vec![
            Entry::Started,
            Entry::Value(Bytes(vec![1, 2, 3])),
            Entry::Vote(vote),
            Entry::Proposal(proposal.sign(&binding(), &secret(1))),
            Entry::Polka(vec![vote; 2]),
            Entry::Validated { round, value, valid: true },
            Entry::Timeout(Step::Precommit, round),
            Entry::Decided(lock),
        ];
        assert_wire(&Record { binding: binding(), instance, entries });
    }
}
