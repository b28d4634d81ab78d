//! The decrypted outcome of a slot, replica by replica.

use serde::{Deserialize, Serialize};

use super::{
    abi::{Words, keccak},
    manifest::{MAX_PENDING, Manifest},
    merkle::MerkleTree,
};
use crate::{
    codec::Wire,
    domain,
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex},
};

/// Most assignments of one slot: every pending replica gets one.
pub const MAX_ASSIGNMENTS: usize = MAX_PENDING;

/// Where a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No worker runs it in this slot: it stays pending.
    Pending,
    /// This worker runs it.
    Node(PeerIdHash),
}

/// The outcome for one pending replica of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
    /// Where the replica goes.
    pub outcome: Outcome,
}

impl Assignment {
    /// The leaf of the assignment tree:
    /// `keccak256(bytes.concat(keccak256(abi.encode(purpose, job, replica, outcome, worker))))`.
    ///
    /// | word | type | value |
    /// |---|---|---|
    /// | 0 | `bytes32` | Keccak-256 of [`domain::ASSIGNMENT_LEAF`] |
    /// | 1 | `bytes32` | job digest |
    /// | 2 | `uint16` | replica |
    /// | 3 | `uint8` | 0 for pending, 1 for a worker |
    /// | 4 | `bytes32` | the worker's peer id hash; zero for pending |
    #[must_use]
    pub fn leaf(&self) -> KeccakDigest {
        let (outcome, worker) = match self.outcome {
            Outcome::Pending => (0, PeerIdHash([0; 32])),
            Outcome::Node(worker) => (1, worker),
        };
        let inner = Words::purpose(domain::ASSIGNMENT_LEAF)
            .bytes32(self.job.as_bytes())
            .uint(u64::from(self.replica.0))
            .uint(outcome)
            .bytes32(worker.as_bytes())
            .keccak();
        keccak(inner.as_bytes())
    }
}

/// All assignments of a slot, by (job, replica) in strictly ascending order: what travels beside a
/// certificate and hashes to its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Assignment>", into = "Vec<Assignment>")]
pub struct Assignments(Vec<Assignment>);

/// Why a list is not the assignments of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// The list is longer than a manifest can ask for.
    #[error("{0} assignments: at most {MAX_ASSIGNMENTS}")]
    TooMany(usize),
    /// The list is out of order, or has two outcomes for one replica.
    #[error("the assignments are not strictly ascending at entry {0}")]
    Order(usize),
}

impl Wire for Assignments {
    const NAME: &'static str = "Assignments";
    // Two bytes of length; per entry 32 + 3 + 1 + 32.
    const MAX_BYTES: usize = 8 + MAX_ASSIGNMENTS * 68;
}

impl TryFrom<Vec<Assignment>> for Assignments {
    type Error = AssignmentError;

    fn try_from(list: Vec<Assignment>) -> Result<Self, AssignmentError> {
        if list.len() > MAX_ASSIGNMENTS {
            return Err(AssignmentError::TooMany(list.len()));
        }
        let key = |a: &Assignment| (a.job, a.replica);
        match list.iter().zip(list.iter().skip(1)).position(|(a, b)| key(a) >= key(b)) {
            Some(before) => Err(AssignmentError::Order(before + 1)),
            None => Ok(Self(list)),
        }
    }
}

impl From<Assignments> for Vec<Assignment> {
    fn from(assignments: Assignments) -> Self {
        assignments.0
    }
}

impl Assignments {
    /// The assignments by (job, replica).
    #[must_use]
    pub fn as_slice(&self) -> &[Assignment] {
        &self.0
    }

    /// Whether there is one assignment for each pending replica of the manifest, and no other.
    #[must_use]
    pub fn answers(&self, manifest: &Manifest) -> bool {
        let mut pending: Vec<_> = manifest.pending.iter().map(|p| (p.job, p.replica)).collect();
        pending.sort_unstable();
        pending.into_iter().eq(self.0.iter().map(|a| (a.job, a.replica)))
    }

    /// The tree over the leaves, in order; its root is the certificate's.
    #[must_use]
    pub fn tree(&self) -> MerkleTree {
        MerkleTree::new(self.0.iter().map(Assignment::leaf).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduling::{arbitrary::assert_wire, merkle::verify_inclusion};

    fn assignment(job: u8, replica: u16, outcome: Outcome) -> Assignment {
        Assignment { job: Blake3Digest([job; 32]), replica: ReplicaIndex(replica), outcome }
    }

    #[test]
    fn every_outcome_has_its_own_leaf() {
        let zero = Outcome::Node(PeerIdHash([0; 32]));
        let leaves = [
            assignment(1, 0, Outcome::Pending).leaf(),
            assignment(1, 0, zero).leaf(),
            assignment(1, 0, Outcome::Node(PeerIdHash([1; 32]))).leaf(),
            assignment(1, 1, Outcome::Pending).leaf(),
            assignment(2, 0, Outcome::Pending).leaf(),
        ];
        for (i, leaf) in leaves.iter().enumerate() {
            assert!(!leaves[..i].contains(leaf), "leaf {i}");
        }
    }

    #[test]
    fn order_and_number_are_checked() {
        let pending = |job, replica| assignment(job, replica, Outcome::Pending);
        let order = |list: Vec<Assignment>| Assignments::try_from(list).map(|_| ());
        assert_eq!(order(vec![pending(1, 0), pending(1, 1), pending(2, 0)]), Ok(()));
        assert_eq!(order(vec![pending(1, 1), pending(1, 0)]), Err(AssignmentError::Order(1)));
        assert_eq!(
            order(vec![pending(1, 0), pending(2, 0), pending(2, 0)]),
            Err(AssignmentError::Order(2))
        );
        let len = MAX_ASSIGNMENTS + 1;
        assert_eq!(order(vec![pending(1, 0); len]), Err(AssignmentError::TooMany(len)));
    }

    #[test]
    fn the_longest_list_fits_and_every_entry_is_included() {
        let worker = Outcome::Node(PeerIdHash([0xff; 32]));
        let list: Vec<_> = (0..MAX_ASSIGNMENTS as u16)
            .map(|i| assignment(0xff, u16::MAX - 4095 + i, worker))
            .collect();
        let longest = Assignments::try_from(list).unwrap();
        assert_eq!(Assignments::from_wire(&longest.to_wire()), Ok(longest.clone()));
        let tree = longest.tree();
        let last = longest.as_slice().last().unwrap();
        let proof = tree.proof(MAX_ASSIGNMENTS - 1).unwrap();
        assert!(verify_inclusion(&tree.root(), &last.leaf(), &proof));
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        let worker = Outcome::Node(PeerIdHash([9; 32]));
        let list = vec![assignment(1, 0, Outcome::Pending), assignment(1, 300, worker)];
        assert_wire(&Assignments::try_from(list).unwrap());
    }

    proptest! {
        #[test]
        fn round_trips(
            entries in prop::collection::btree_map(
                (any::<[u8; 32]>(), any::<u16>()),
                prop::option::of(any::<[u8; 32]>()),
                0..20,
            ),
        ) {
            let list: Vec<_> = entries
                .into_iter()
                .map(|((job, replica), worker)| Assignment {
                    job: Blake3Digest(job),
                    replica: ReplicaIndex(replica),
                    outcome: worker.map_or(Outcome::Pending, |w| Outcome::Node(PeerIdHash(w))),
                })
                .collect();
            let assignments = Assignments::try_from(list).unwrap();
            prop_assert_eq!(Assignments::from_wire(&assignments.to_wire()), Ok(assignments));
        }
    }
}
