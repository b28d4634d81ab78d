//! How a slot ends: the value of a slot's second instance.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Wire,
    domain,
    ids::{Blake3Digest, KeccakDigest, Slot},
    scheduling::Binding,
};

/// How a slot ends: what its certificate will say. It does not depend on who proposes it, so that
/// members who know the same outcome propose and vote for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotEnd {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The slot.
    pub slot: Slot,
    /// Digest of the slot's locked manifest.
    pub manifest: Blake3Digest,
    /// What came of it; `None` if the slot is void: nothing is placed.
    pub outcome: Option<SlotOutcome>,
}

/// What came of a slot that is not void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotOutcome {
    /// Digest of the evaluation's outputs.
    pub evaluation: Blake3Digest,
    /// Root of the assignments.
    pub assignments_root: KeccakDigest,
    /// Root of the state after them.
    pub state_root: KeccakDigest,
}

impl Wire for SlotEnd {
    const NAME: &'static str = "SlotEnd";
    // 100 bytes of binding, 8 of slot (at most 10 each as varints), four digests, two tags.
    const MAX_BYTES: usize = 256;
}

impl SlotEnd {
    /// The digest that votes name.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Self::digest_of(&self.to_wire())
    }

    /// The digest of an encoding.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Blake3Digest {
        Blake3Digest(domain::hash_parts(domain::SLOT_END, &[bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ChainId, Epoch},
        scheduling::arbitrary::{assert_wire, binding},
    };

    #[test]
    fn only_the_exact_bytes_decode_and_every_field_changes_the_digest() {
        let outcome = SlotOutcome {
            evaluation: Blake3Digest([8; 32]),
            assignments_root: KeccakDigest([9; 32]),
            state_root: KeccakDigest([10; 32]),
        };
        let end = |outcome| {
            let manifest = Blake3Digest([7; 32]);
            SlotEnd { binding: binding(), slot: Slot(6), manifest, outcome }
        };
        let mut longest = end(Some(outcome));
        longest.slot = Slot(u64::MAX);
        longest.binding.epoch = Epoch(u64::MAX);
        longest.binding.scope.chain_id = ChainId(u64::MAX);
        let other_root = KeccakDigest([11; 32]);
        let mut elsewhere = end(None);
        elsewhere.binding.scope.cluster.0[0] ^= 1;
        let ends = [
            longest,
            elsewhere,
            end(None),
            end(Some(outcome)),
            SlotEnd { slot: Slot(5), ..end(None) },
            SlotEnd { manifest: Blake3Digest([6; 32]), ..end(None) },
            end(Some(SlotOutcome { evaluation: Blake3Digest([11; 32]), ..outcome })),
            end(Some(SlotOutcome { assignments_root: other_root, ..outcome })),
            end(Some(SlotOutcome { state_root: other_root, ..outcome })),
        ];
        ends.iter().for_each(assert_wire);
        let digests: std::collections::BTreeSet<_> = ends.iter().map(SlotEnd::digest).collect();
        assert_eq!(digests.len(), ends.len());
    }
}
