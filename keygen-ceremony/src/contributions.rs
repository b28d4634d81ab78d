//! The keys that sets of members share: every member of a set contributes 32 bytes, committed to in
//! an echo broadcast before any is dealt; `ceremony.md`, steps 1, 3 and 4.
//!
//! A *key group* is one key set A, one noise group G or one zero group G: its members share one key.
//! The key groups of a member are the key sets that contain it, then the noise groups and the zero
//! groups that do, each in the order of [`key_sets`], [`NoiseGroups::groups`] and [`zero_groups`].

use veil_committee::{
    prf::SetKey,
    subsets::{MemberSet, NoiseGroups, key_sets, zero_groups},
};
use veil_protocol_spec::{Attempt, Blake3Digest, CeremonyId, Committee, ParticipantIndex, domain};
use zeroize::Zeroizing;

use crate::{
    seed::CeremonySeed,
    shares::keys::{MemberKeys, StreamKeys},
};

/// What the key of a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyGroupKind {
    /// r_A, for PRSS and decryption masks.
    KeySet,
    /// k_G, for key-generation noise.
    NoiseGroup,
    /// k_G, for PRZS.
    ZeroGroup,
}

/// A key set, a noise group or a zero group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup {
    /// Which of the three it is.
    pub kind: KeyGroupKind,
    /// The participants that hold its key.
    pub members: MemberSet,
}

/// The key groups of a member, in canonical order.
#[must_use]
pub fn groups_of(committee: Committee, member: ParticipantIndex) -> Vec<KeyGroup> {
    let sets = key_sets(committee).into_iter().map(|members| (KeyGroupKind::KeySet, members));
    let family = NoiseGroups::of(committee);
    let groups = family.groups().iter().map(|members| (KeyGroupKind::NoiseGroup, *members));
    let zeros =
        zero_groups(committee).into_iter().map(|members| (KeyGroupKind::ZeroGroup, members));
    sets.chain(groups)
        .chain(zeros)
        .filter(|(_, members)| members.contains(member))
        .map(|(kind, members)| KeyGroup { kind, members })
        .collect()
}

/// Names an attempt in everything that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The ceremony that the keys are for.
    pub ceremony: CeremonyId,
    /// The attempt; another one has other keys.
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

    fn hash_group(&self, domain: &str, group: KeyGroup, parts: &[&[u8]]) -> [u8; 32] {
        let (kind, bits) = ([group.kind as u8], group.members.bits().to_le_bytes());
        let mut all: Vec<&[u8]> = vec![&kind, &bits];
        all.extend_from_slice(parts);
        self.hash(domain, &all)
    }

    /// A member's contribution to the key of a group.
    #[must_use]
    pub fn contribution(&self, seed: &CeremonySeed, group: KeyGroup) -> Zeroizing<[u8; 32]> {
        let mut detail = vec![group.kind as u8];
        detail.extend_from_slice(&group.members.bits().to_le_bytes());
        Zeroizing::new(seed.derive(&self.ceremony, self.attempt, "contribution", &detail))
    }

    /// The commitment to a contribution. It hides: contributions are uniform 32-byte values.
    #[must_use]
    pub fn commitment(
        &self,
        sender: ParticipantIndex,
        group: KeyGroup,
        contribution: &[u8; 32],
    ) -> Blake3Digest {
        Blake3Digest(self.hash_group(
            domain::CONTRIBUTION_COMMITMENT,
            group,
            &[&[sender.get()], contribution],
        ))
    }

    /// "r_A = KDF(all contributions, ceremony id, attempt, A)"; contributions in ascending order of
    /// members.
    #[must_use]
    pub fn shared_key(&self, group: KeyGroup, contributions: &[Zeroizing<[u8; 32]>]) -> SetKey {
        let domain = match group.kind {
            KeyGroupKind::KeySet => domain::SET_KEY,
            KeyGroupKind::NoiseGroup => domain::NOISE_GROUP_KEY,
            KeyGroupKind::ZeroGroup => domain::ZERO_GROUP_KEY,
        };
        let parts: Vec<&[u8]> = contributions.iter().map(|c| c.as_slice()).collect();
        SetKey::new(self.hash_group(domain, group, &parts))
    }

    /// H(r_A), by which members confirm that they hold the same key.
    #[must_use]
    pub fn confirmation(&self, group: KeyGroup, key: &SetKey) -> Blake3Digest {
        Blake3Digest(self.hash_group(domain::SET_KEY_CONFIRMATION, group, &[key.expose()]))
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

/// The keys of one member, split so that what must be erased can be: r_A itself and the keys of the
/// share streams go with the ceremony, `dec` stays.
///
/// # Security
/// All keys are zeroized on drop.
pub struct SplitKeys {
    /// `dkg` and the keys of noise groups and zero groups: for the share streams.
    pub streams: StreamKeys,
    /// `dec`: for decryption masks.
    pub dec: MemberKeys,
}

impl SplitKeys {
    /// Derives the purposes of every group's key.
    #[must_use]
    pub fn new(keys: &[(KeyGroup, SetKey)]) -> Self {
        let of = |kind: KeyGroupKind, domain: Option<&str>| {
            keys.iter()
                .filter(|(group, _)| group.kind == kind)
                .map(|(group, key)| {
                    (group.members, domain.map_or_else(|| key.clone(), |d| key.derive(d, &[])))
                })
                .collect()
        };
        Self {
            streams: StreamKeys {
                dkg: of(KeyGroupKind::KeySet, Some(domain::SET_KEY_DKG)),
                noise: of(KeyGroupKind::NoiseGroup, None),
                zero: of(KeyGroupKind::ZeroGroup, None),
            },
            dec: of(KeyGroupKind::KeySet, Some(domain::SET_KEY_DEC)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_and_ordered() {
        let me = ParticipantIndex::new(1).unwrap();
        let counts: Vec<_> = Committee::ALL.iter().map(|c| groups_of(*c, me).len()).collect();
        // C(n-1, t) key sets, and the noise groups and zero groups that contain a member.
        assert_eq!(counts, [1 + 1, 3 + 1 + 3, 15 + 3 + 8, 84 + 12 + 21, 495 + 45 + 54]);
        let groups = groups_of(Committee::ALL[2], me);
        assert!(groups.windows(2).all(|pair| pair[0].kind <= pair[1].kind));
    }

    #[test]
    fn purposes_of_a_key_differ() {
        let group = groups_of(Committee::ALL[1], ParticipantIndex::new(1).unwrap())[0];
        let keys = SplitKeys::new(&[(group, SetKey::new([1; 32]))]);
        assert_ne!(keys.streams.dkg[0].1.expose(), keys.dec[0].1.expose());
        assert_ne!(keys.streams.dkg[0].1.expose(), &[1; 32]);
        assert!(keys.streams.noise.is_empty());
    }
}
