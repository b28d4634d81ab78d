//! What a certificate commits to.

use super::{ClusterState, Done, Placement};
use crate::{
    codec::encode,
    domain,
    ids::{KeccakDigest, PeerIdHash, Slot},
    scheduling::{
        abi::{Words, keccak},
        leaf::{LeafWorker, ReplicaLeaf},
        merkle::MerkleTree,
    },
};

/// Hashed twice, so that no inner node passes for a leaf.
fn leaf(words: Words) -> KeccakDigest {
    keccak(words.keccak().as_bytes())
}

impl ClusterState {
    /// Root over every replica's place ([`ReplicaLeaf`]), every replica that is done, every worker's last
    /// booking, every lost worker, every exit, each kind in ascending order; then what was tried and what was given
    /// back, if anything was, and what happened before.
    ///
    /// A replica that is done has a [`ReplicaLeaf`] with the place that it had, and an exit. The other leaves are
    /// `keccak256(bytes.concat(keccak256(abi.encode(...))))` of
    ///
    /// | leaf | words |
    /// |---|---|
    /// | booking | Keccak-256 of [`domain::STATE_WORKER_LEAF`], `bytes32 worker`, `uint64 slot` |
    /// | loss | of [`domain::STATE_LOST_LEAF`], `bytes32 worker`, `uint64 slot` |
    /// | exit | of [`domain::STATE_EXIT_LEAF`], `bytes32 job`, `uint16 replica`, `uint64 slot` that certified it, `uint8`: 1 if the code is known, plus 2 if the replica was out of memory, `uint32` code, as two's complement, or 0 |
    /// | tries | of [`domain::STATE_TRIES_LEAF`], Keccak-256 of the encoding |
    /// | given back | of [`domain::STATE_RETURNED_LEAF`], Keccak-256 of the encoding |
    /// | rollouts | of [`domain::STATE_ROLLOUTS_LEAF`], Keccak-256 of the encoding, if a job has had a second version |
    /// | periodic | of [`domain::STATE_RUNS_LEAF`], Keccak-256 of the encoding, if there is a periodic job |
    /// | history | of [`domain::STATE_HISTORY_LEAF`], `uint64 slot` and `bytes32 hash` of the last certificate that is not void, `uint64 slot` of the last change |
    ///
    /// A node can begin from a state under a certificate, since together they commit to everything that a
    /// later slot depends on. The root does so, but for four: the slot and the hash of the certificate
    /// before it are the certificate's own ([`Self::certified`]); the block and what the certificate can be
    /// anchored on are in the manifest that it names ([`StateSnapshot`](crate::snapshot::StateSnapshot)).
    /// How many slots ended void follows from the slot and the history.
    ///
    /// Before its certificate, a slot's state names the last certificate before it that is not void: a
    /// hash cannot be in what it is the hash of.
    #[must_use]
    pub fn state_root(&self) -> KeccakDigest {
        let of_replica = |job, replica, Placement { worker, slot }, done| {
            let worker = LeafWorker::Open(worker);
            ReplicaLeaf { job, replica, worker, slot, done, drained: false }.hash()
        };
        let replicas =
            self.replicas().map(|(job, replica, placed)| of_replica(job, replica, placed, false));
        let done =
            self.done().map(|(job, replica, done)| of_replica(job, replica, done.placement, true));
        let of_worker = |purpose: &'static str| {
            move |(worker, slot): (&PeerIdHash, &Slot)| {
                leaf(Words::purpose(purpose).bytes32(worker.as_bytes()).uint(slot.0))
            }
        };
        let booked = self.booked.iter().map(of_worker(domain::STATE_WORKER_LEAF));
        let lost = self.lost.iter().map(of_worker(domain::STATE_LOST_LEAF));
        let exits = self.done().map(|(job, replica, Done { slot, exit, .. })| {
            let flags = u64::from(exit.code.is_some()) + 2 * u64::from(exit.out_of_memory);
            leaf(
                Words::purpose(domain::STATE_EXIT_LEAF)
                    .bytes32(job.as_bytes())
                    .uint(replica.0.into())
                    .uint(slot.0)
                    .uint(flags)
                    .uint(exit.code.unwrap_or(0).cast_unsigned().into()),
            )
        });
        let tries = self.tries.digest().map(|digest| {
            leaf(Words::purpose(domain::STATE_TRIES_LEAF).bytes32(digest.as_bytes()))
        });
        let returned = (!self.returned.is_empty()).then(|| {
            let digest = keccak(&encode(&self.returned));
            leaf(Words::purpose(domain::STATE_RETURNED_LEAF).bytes32(digest.as_bytes()))
        });
        let rollouts = self.rollouts.digest().map(|digest| {
            leaf(Words::purpose(domain::STATE_ROLLOUTS_LEAF).bytes32(digest.as_bytes()))
        });
        let runs = (!self.runs.is_empty()).then(|| {
            let digest = keccak(&encode(&self.runs));
            leaf(Words::purpose(domain::STATE_RUNS_LEAF).bytes32(digest.as_bytes()))
        });
        let (decided, certificate) = self.decided;
        let history = leaf(
            Words::purpose(domain::STATE_HISTORY_LEAF)
                .uint(decided.0)
                .bytes32(certificate.as_bytes())
                .uint(self.changed.0),
        );
        let leaves = replicas.chain(done).chain(booked).chain(lost).chain(exits);
        let leaves =
            leaves.chain(tries).chain(returned).chain(rollouts).chain(runs).chain([history]);
        MerkleTree::new(leaves.collect()).root()
    }
}
