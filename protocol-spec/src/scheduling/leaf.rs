//! What the state tree says of one replica: a leaf that the chain can recompute.
//!
//! # Reserved parts
//! The leaf has room for replicas that are drained, and a form that hides the worker from everybody who is not
//! told its salt. No rule uses them yet: they are zero, and a leaf in which they are not is refused, here and by
//! the contract.

use super::abi::{Words, keccak};
use crate::{
    domain,
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
};

/// How a leaf names the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafWorker {
    /// By the hash of its peer id.
    Open(PeerIdHash),
    /// By [`hidden_worker`]. Reserved.
    Hidden(KeccakDigest),
}

/// One replica that has a place, or is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaLeaf {
    /// [`JobSpec::digest`](super::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
    /// The worker that runs it, or ran it when it ended.
    pub worker: LeafWorker,
    /// The slot that assigned it.
    pub slot: Slot,
    /// Whether it has ended by itself and runs no more ([`ClusterState::done`](super::ClusterState::done)).
    pub done: bool,
    /// Whether it is to leave its worker. Reserved.
    pub drained: bool,
}

/// A part of a leaf that no rule uses yet is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The worker is hidden.
    #[error("the leaf hides its worker, which is reserved: placements are public")]
    Hidden,
    /// The replica is drained.
    #[error(
        "the leaf says that its replica is drained, which is reserved: manifests say which ones are"
    )]
    Drained,
}

impl ReplicaLeaf {
    /// Checks that the reserved parts are zero.
    ///
    /// # Errors
    /// [`LeafError`].
    pub const fn check(&self) -> Result<(), LeafError> {
        match self {
            Self { worker: LeafWorker::Hidden(_), .. } => Err(LeafError::Hidden),
            Self { drained: true, .. } => Err(LeafError::Drained),
            _ => Ok(()),
        }
    }

    /// `keccak256(bytes.concat(keccak256(abi.encode(...))))` of
    ///
    /// | word | type | value |
    /// |---|---|---|
    /// | 0 | `bytes32` | Keccak-256 of [`domain::STATE_REPLICA_LEAF`] |
    /// | 1 | `bytes32` | job digest |
    /// | 2 | `uint16` | replica |
    /// | 3 | `uint8` | 0 if the next word is the worker, 1 if it is a commitment |
    /// | 4 | `bytes32` | the worker's peer id hash, or [`hidden_worker`] |
    /// | 5 | `uint64` | slot |
    /// | 6 | `uint8` | 1 if done, plus 2 if drained |
    #[must_use]
    pub fn hash(&self) -> KeccakDigest {
        let (form, worker) = match &self.worker {
            LeafWorker::Open(worker) => (0, worker.as_bytes()),
            LeafWorker::Hidden(commitment) => (1, commitment.as_bytes()),
        };
        let inner = Words::purpose(domain::STATE_REPLICA_LEAF)
            .bytes32(self.job.as_bytes())
            .uint(u64::from(self.replica.0))
            .uint(form)
            .bytes32(worker)
            .uint(self.slot.0)
            .uint(u64::from(self.done) + 2 * u64::from(self.drained))
            .keccak();
        keccak(inner.as_bytes())
    }
}

/// What names a worker to those who know the salt and to nobody else: Keccak-256 of
/// [`domain::HIDDEN_WORKER`]'s Keccak-256, the worker's peer id hash and the salt, 32 random bytes that
/// are used for one leaf only.
#[must_use]
pub fn hidden_worker(worker: &PeerIdHash, salt: &[u8; 32]) -> KeccakDigest {
    Words::purpose(domain::HIDDEN_WORKER).bytes32(worker.as_bytes()).bytes32(salt).keccak()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> ReplicaLeaf {
        ReplicaLeaf {
            job: Blake3Digest([1; 32]),
            replica: ReplicaIndex(300),
            worker: LeafWorker::Open(PeerIdHash([2; 32])),
            slot: Slot(7),
            done: false,
            drained: false,
        }
    }

    #[test]
    fn the_leaf_is_that_of_abi_encode() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(keccak(b"veil v2 state replica leaf").as_bytes());
        for field in [&[1; 32][..], &[1, 44], &[0], &[2; 32], &[7], &[0]] {
            bytes.extend_from_slice(&vec![0; 32 - field.len()]);
            bytes.extend_from_slice(field);
        }
        assert_eq!(bytes.len(), 7 * 32);
        assert_eq!(leaf().hash(), keccak(keccak(&bytes).as_bytes()));
    }

    #[test]
    fn every_part_has_its_own_leaf() {
        let hidden = LeafWorker::Hidden(KeccakDigest([2; 32]));
        let leaves = [
            leaf(),
            ReplicaLeaf { job: Blake3Digest([9; 32]), ..leaf() },
            ReplicaLeaf { replica: ReplicaIndex(0), ..leaf() },
            ReplicaLeaf { worker: LeafWorker::Open(PeerIdHash([9; 32])), ..leaf() },
            ReplicaLeaf { worker: hidden, ..leaf() },
            ReplicaLeaf { slot: Slot(8), ..leaf() },
            ReplicaLeaf { done: true, ..leaf() },
            ReplicaLeaf { drained: true, ..leaf() },
            ReplicaLeaf { done: true, drained: true, ..leaf() },
        ];
        for (i, one) in leaves.iter().enumerate() {
            assert!(leaves[..i].iter().all(|other| other.hash() != one.hash()), "leaf {i}");
        }
    }

    #[test]
    fn reserved_parts_are_refused_with_the_reason() {
        assert_eq!(leaf().check(), Ok(()));
        assert_eq!(ReplicaLeaf { done: true, ..leaf() }.check(), Ok(()));
        let hidden = LeafWorker::Hidden(hidden_worker(&PeerIdHash([2; 32]), &[3; 32]));
        let refused = [
            (ReplicaLeaf { worker: hidden, ..leaf() }, LeafError::Hidden),
            (ReplicaLeaf { drained: true, ..leaf() }, LeafError::Drained),
            (ReplicaLeaf { done: true, drained: true, ..leaf() }, LeafError::Drained),
        ];
        for (leaf, error) in refused {
            assert_eq!(leaf.check(), Err(error));
            assert!(error.to_string().contains("reserved"));
        }
    }

    #[test]
    fn a_hidden_worker_is_told_by_its_salt() {
        let [one, other] = [1, 2].map(|w| PeerIdHash([w; 32]));
        assert_eq!(hidden_worker(&one, &[3; 32]), hidden_worker(&one, &[3; 32]));
        assert_ne!(hidden_worker(&one, &[3; 32]), hidden_worker(&one, &[4; 32]));
        assert_ne!(hidden_worker(&one, &[3; 32]), hidden_worker(&other, &[3; 32]));
    }
}
