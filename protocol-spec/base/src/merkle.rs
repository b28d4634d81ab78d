//! The Merkle tree whose root a certificate carries.
//!
//! Proofs are those of OpenZeppelin's `MerkleProof.verify`, the library the contracts use: a node
//! is Keccak-256 of its two children, the smaller first, so a proof needs no positions; a node
//! without a sibling moves up unchanged. A leaf is a digest that was hashed **twice**, so that no
//! 64-byte inner node passes for one.
//!
//! Written here rather than taken from a crate: general tree crates bring updates, rollbacks and
//! multi-proofs, and would still need a hasher of their own for exactly these two rules.

use crate::{abi::keccak, ids::KeccakDigest};

/// A tree over leaves in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleTree {
    /// Leaves first; every level is half as long as the one before, rounded up.
    levels: Vec<Vec<KeccakDigest>>,
}

fn node(a: &KeccakDigest, b: &KeccakDigest) -> KeccakDigest {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut pair = [0; 64];
    let (left, right) = pair.split_at_mut(32);
    left.copy_from_slice(low.as_bytes());
    right.copy_from_slice(high.as_bytes());
    keccak(&pair)
}

impl MerkleTree {
    /// The root of no leaves: nothing is included in it.
    pub const EMPTY_ROOT: KeccakDigest = KeccakDigest([0; 32]);

    /// Builds the tree; each leaf must be a digest that was hashed twice.
    #[must_use]
    pub fn new(leaves: Vec<KeccakDigest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let parent = |pair: &[KeccakDigest]| match pair {
                [a, b] => node(a, b),
                rest => rest.first().copied().unwrap_or(Self::EMPTY_ROOT),
            };
            levels.push(level.chunks(2).map(parent).collect());
        }
        Self { levels }
    }

    /// The root; [`Self::EMPTY_ROOT`] for no leaves.
    #[must_use]
    pub fn root(&self) -> KeccakDigest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(Self::EMPTY_ROOT)
    }

    /// The siblings on the way from leaf `index` (0-based) to the root, lowest first; `None` if
    /// there is no such leaf.
    #[must_use]
    pub fn proof(&self, index: usize) -> Option<Vec<KeccakDigest>> {
        let leaves = self.levels.first()?;
        (index < leaves.len()).then(|| {
            let sibling = |(height, level): (usize, &Vec<KeccakDigest>)| {
                level.get((index >> height) ^ 1).copied()
            };
            self.levels.iter().enumerate().filter_map(sibling).collect()
        })
    }
}

/// Whether `leaf` is in the tree with this `root`.
#[must_use]
pub fn verify_inclusion(root: &KeccakDigest, leaf: &KeccakDigest, proof: &[KeccakDigest]) -> bool {
    proof.iter().fold(*leaf, |hash, sibling| node(&hash, sibling)) == *root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{abi::Words, ids::Address};

    fn leaf(i: u64) -> KeccakDigest {
        keccak(Words::default().uint(i).keccak().as_bytes())
    }

    fn tree(leaves: u64) -> MerkleTree {
        MerkleTree::new((0..leaves).map(leaf).collect())
    }

    #[test]
    fn the_root_is_the_one_of_openzeppelins_standard_tree() {
        // The example of OpenZeppelin's merkle-tree documentation: (address, uint256) leaves.
        let entry = |address: u8, amount| {
            let inner = Words::default().address(&Address([address; 20])).uint(amount).keccak();
            keccak(inner.as_bytes())
        };
        let tree = MerkleTree::new(vec![
            entry(0x11, 5_000_000_000_000_000_000),
            entry(0x22, 2_500_000_000_000_000_000),
        ]);
        assert_eq!(
            tree.root().to_string(),
            "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"
        );
    }

    #[test]
    fn an_empty_tree_includes_nothing_and_a_single_leaf_is_the_root() {
        assert_eq!(tree(0).root(), MerkleTree::EMPTY_ROOT);
        assert_eq!(tree(0).proof(0), None);
        assert_eq!(tree(1).root(), leaf(0));
        assert_eq!(tree(1).proof(0), Some(vec![]));
    }

    #[test]
    fn a_lone_node_moves_up() {
        assert_eq!(tree(3).root(), node(&node(&leaf(0), &leaf(1)), &leaf(2)));
        assert_eq!(tree(3).proof(2), Some(vec![node(&leaf(0), &leaf(1))]));
    }

    proptest! {
        #[test]
        fn every_leaf_and_nothing_else_is_included(leaves in 1u64..70, other in 70u64..) {
            let tree = tree(leaves);
            for i in 0..leaves {
                let proof = tree.proof(i as usize).unwrap();
                prop_assert!(verify_inclusion(&tree.root(), &leaf(i), &proof));
                prop_assert!(!verify_inclusion(&tree.root(), &leaf(other), &proof));
                if let Some((_, shorter)) = proof.split_last() {
                    prop_assert!(!verify_inclusion(&tree.root(), &leaf(i), shorter));
                }
            }
            prop_assert_eq!(tree.proof(leaves as usize), None);
        }
    }
}
