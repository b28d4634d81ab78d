//! The keys that sets of members share: every member of a set contributes 32 bytes, committed to in
//! an echo broadcast before any is dealt; `ceremony.md`, steps 1, 3 and 4.
//!
//! A *slot* is one key set A or one noise group G. A member's slots are the key sets that contain
//! it, then the noise groups that contain it, each in the order of [`key_sets`] and
//! [`NoiseGroups::groups`].

use veil_committee::{
    prf::SetKey,
    subsets::{MemberSet, NoiseGroups, key_sets},
};
use veil_protocol_spec::{Attempt, Blake3Digest, CeremonyId, Committee, ParticipantIndex, domain};
use zeroize::Zeroizing;

use crate::{seed::CeremonySeed, shares::MemberKeys};

/// What a slot's key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotKind {
    /// r_A, for PRSS, PRZS and decryption masks.
    KeySet,
    /// k_G, for key-generation noise.
    NoiseGroup,
}

/// A key set or a noise group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Its purpose.
    pub kind: SlotKind,
    /// Its members.
    pub members: MemberSet,
}

/// The slots of a member, in canonical order.
#[must_use]
pub fn slots_of(committee: Committee, member: ParticipantIndex) -> Vec<Slot> {
    let sets = key_sets(committee).into_iter().map(|members| (SlotKind::KeySet, members));
    let family = NoiseGroups::of(committee);
    let groups = family.groups().iter().map(|members| (SlotKind::NoiseGroup, *members));
    sets.chain(groups)
        .filter(|(_, members)| members.contains(member))
        .map(|(kind, members)| Slot { kind, members })
        .collect()
}

/// Names an attempt in everything that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// Its attempt.
    pub attempt: Attempt,
}

impl Context {
    /// Hash of parts under a domain, bound to the attempt.
    #[must_use]
    pub fn hash(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let attempt = self.attempt.0.to_le_bytes();
        let mut all: Vec<&[u8]> = vec![&self.ceremony.0, &attempt];
        all.extend_from_slice(parts);
        domain::hash_parts(domain, &all)
    }

    fn hash_slot(&self, domain: &str, slot: Slot, parts: &[&[u8]]) -> [u8; 32] {
        let (kind, bits) = ([slot.kind as u8], slot.members.bits().to_le_bytes());
        let mut all: Vec<&[u8]> = vec![&kind, &bits];
        all.extend_from_slice(parts);
        self.hash(domain, &all)
    }

    /// A member's contribution to a slot.
    #[must_use]
    pub fn contribution(&self, seed: &CeremonySeed, slot: Slot) -> Zeroizing<[u8; 32]> {
        let mut detail = vec![slot.kind as u8];
        detail.extend_from_slice(&slot.members.bits().to_le_bytes());
        Zeroizing::new(seed.derive(&self.ceremony, self.attempt, "contribution", &detail))
    }

    /// The commitment to a contribution. It hides: contributions are uniform 32-byte values.
    #[must_use]
    pub fn commitment(
        &self,
        sender: ParticipantIndex,
        slot: Slot,
        contribution: &[u8; 32],
    ) -> Blake3Digest {
        Blake3Digest(self.hash_slot(
            domain::CONTRIBUTION_COMMITMENT,
            slot,
            &[&[sender.get()], contribution],
        ))
    }

    /// "r_A = KDF(all contributions, ceremony id, attempt, A)"; contributions in ascending order of
    /// members.
    #[must_use]
    pub fn slot_key(&self, slot: Slot, contributions: &[Zeroizing<[u8; 32]>]) -> SetKey {
        let domain = match slot.kind {
            SlotKind::KeySet => domain::SET_KEY,
            SlotKind::NoiseGroup => domain::NOISE_GROUP_KEY,
        };
        let parts: Vec<&[u8]> = contributions.iter().map(|c| c.as_slice()).collect();
        SetKey::new(self.hash_slot(domain, slot, &parts))
    }

    /// H(r_A), by which members confirm that they hold the same key.
    #[must_use]
    pub fn confirmation(&self, slot: Slot, key: &SetKey) -> Blake3Digest {
        Blake3Digest(self.hash_slot(domain::SET_KEY_CONFIRMATION, slot, &[key.expose()]))
    }

    /// Commitment to a part of the public seed.
    #[must_use]
    pub fn public_seed_commitment(
        &self,
        sender: ParticipantIndex,
        part: &[u8; 32],
    ) -> Blake3Digest {
        Blake3Digest(self.hash(domain::PUBLIC_SEED_COMMITMENT, &[&[sender.get()], part]))
    }

    /// The public seed from all parts in order of participants.
    #[must_use]
    pub fn public_seed(&self, parts: &[[u8; 32]]) -> [u8; 32] {
        let parts: Vec<&[u8]> = parts.iter().map(<[u8; 32]>::as_slice).collect();
        self.hash(domain::PUBLIC_SEED, &parts)
    }
}

/// The keys of one member, split so that what must be erased can be: r_A itself and the `dkg` and
/// noise keys go with the ceremony, `dec` stays.
///
/// # Security
/// All keys are zeroized on drop.
pub struct SplitKeys {
    /// For PRSS and PRZS in the ceremony.
    pub dkg: MemberKeys,
    /// For key-generation noise.
    pub noise: MemberKeys,
    /// For decryption masks.
    pub dec: MemberKeys,
}

impl SplitKeys {
    /// Derives the purposes of every slot's key.
    #[must_use]
    pub fn new(keys: &[(Slot, SetKey)]) -> Self {
        let of = |kind: SlotKind, domain: Option<&str>| {
            keys.iter()
                .filter(|(slot, _)| slot.kind == kind)
                .map(|(slot, key)| {
                    (slot.members, domain.map_or_else(|| key.clone(), |d| key.derive(d, &[])))
                })
                .collect()
        };
        Self {
            dkg: of(SlotKind::KeySet, Some(domain::SET_KEY_DKG)),
            dec: of(SlotKind::KeySet, Some(domain::SET_KEY_DEC)),
            noise: of(SlotKind::NoiseGroup, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_and_ordered() {
        let me = ParticipantIndex::new(1).unwrap();
        let counts: Vec<_> = Committee::ALL.iter().map(|c| slots_of(*c, me).len()).collect();
        // C(n-1, t) key sets, and the noise groups that contain a member.
        assert_eq!(counts, [1 + 1, 3 + 1, 15 + 3, 84 + 12, 495 + 45]);
        let slots = slots_of(Committee::ALL[2], me);
        assert!(slots.windows(2).all(|pair| pair[0].kind <= pair[1].kind));
    }

    #[test]
    fn purposes_of_a_key_differ() {
        let slot = slots_of(Committee::ALL[1], ParticipantIndex::new(1).unwrap())[0];
        let keys = SplitKeys::new(&[(slot, SetKey::new([1; 32]))]);
        assert_ne!(keys.dkg[0].1.expose(), keys.dec[0].1.expose());
        assert_ne!(keys.dkg[0].1.expose(), &[1; 32]);
        assert!(keys.noise.is_empty());
    }
}
