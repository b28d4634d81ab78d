//! The signed outcome of a slot. The certificates of a cluster form a chain, and the chain is the
//! cluster's desired state: a worker that was away catches up from it.
//!
//! A slot whose members locked a manifest and did not come to an outcome ends **void**: its certificate
//! places nothing, removes nothing, and carries on the chain.
//!
//! # Caveats
//! Whatever is signed comes from the manifest or from the end of the slot, never from what a member
//! happens to know: 2t+1 members must sign the same bytes.
//!
//! The FROST signature is opaque here: the committee crate and the chain know the group key and
//! verify it. Nobody may act on a certificate before that verification.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{abi::Words, binding::Binding};
use crate::{
    codec::Wire,
    domain,
    ids::{Blake3Digest, InvalidHex, KeccakDigest, PublicIdentity, Slot},
};

/// A FROST signature R || z: R compressed (33 bytes), z big-endian (32 bytes). Hexadecimal in
/// text, 65 raw bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupSignature(pub [u8; 65]);

/// Text that is not 130 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group signature is R || z as 130 hexadecimal digits, with or without 0x")]
pub struct InvalidGroupSignature;

impl GroupSignature {
    /// R, compressed, and z.
    fn parts(&self) -> (PublicIdentity, KeccakDigest) {
        let (mut r, mut z) = ([0; 33], [0; 32]);
        let (left, right) = self.0.split_at(33);
        r.copy_from_slice(left);
        z.copy_from_slice(right);
        (PublicIdentity(r), KeccakDigest(z))
    }

    fn from_parts(r: &[u8; 33], z: &[u8; 32]) -> Self {
        let mut bytes = [0; 65];
        let (left, right) = bytes.split_at_mut(33);
        left.copy_from_slice(r);
        right.copy_from_slice(z);
        Self(bytes)
    }
}

impl fmt::Display for GroupSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, z) = self.parts();
        write!(f, "{r}{z}")
    }
}

impl fmt::Debug for GroupSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupSignature({self})")
    }
}

impl FromStr for GroupSignature {
    type Err = InvalidGroupSignature;

    fn from_str(s: &str) -> Result<Self, InvalidGroupSignature> {
        let digits = s.strip_prefix("0x").unwrap_or(s);
        let (r, z) = digits.split_at_checked(66).ok_or(InvalidGroupSignature)?;
        let wrong = |_: InvalidHex| InvalidGroupSignature;
        if r.starts_with("0x") || z.starts_with("0x") {
            return Err(InvalidGroupSignature);
        }
        let (r, z): (PublicIdentity, KeccakDigest) =
            (r.parse().map_err(wrong)?, z.parse().map_err(wrong)?);
        Ok(Self::from_parts(r.as_bytes(), z.as_bytes()))
    }
}

impl Serialize for GroupSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.parts().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for GroupSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let (r, z) = <(PublicIdentity, KeccakDigest)>::deserialize(deserializer)?;
            Ok(Self::from_parts(r.as_bytes(), z.as_bytes()))
        }
    }
}

/// Who made the common reference string (CRS) that the slot's telemetry proofs rest on. A party that
/// knows its trapdoor can prove a crafted ciphertext well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceStringOrigin {
    /// The committee, together, in its ceremony: nobody knows the trapdoor if one member forgot its part.
    Committee = 0,
}

/// Everything of an [`AssignmentCertificate`] that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateBody {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// The slot that it decides.
    pub slot: Slot,
    /// [`Manifest::digest`](super::Manifest::digest) of the locked manifest.
    pub manifest: Blake3Digest,
    /// [`Self::hash`] of the certificate before this one; [`Self::NO_PREVIOUS`] for the first.
    pub previous: KeccakDigest,
    /// [`Manifest::base`](super::Manifest::base): the certificate on which the chain may build this one.
    pub base: KeccakDigest,
    /// [`Manifest::jobs_seen`](super::Manifest::jobs_seen).
    pub jobs_seen: u64,
    /// Digest of the circuit's outputs, or [`Manifest::no_outputs`](super::Manifest::no_outputs);
    /// [`Self::VOID`] if the slot ended void.
    pub evaluation: Blake3Digest,
    /// Commitment to a section that only members read: [`Self::NO_SECTION`], until there is one.
    pub members_only: KeccakDigest,
    /// Root of [`Assignments::tree`](super::Assignments::tree).
    pub assignments_root: KeccakDigest,
    /// [`ClusterState::state_root`](super::ClusterState::state_root) after this slot.
    pub state_root: KeccakDigest,
    /// What the telemetry proofs rest on: a placement under an insecure reference string says so.
    pub reference_string: ReferenceStringOrigin,
}

/// The outcome of a slot, signed by 2t+1 members as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentCertificate {
    /// The signed part.
    pub body: CertificateBody,
    /// Made with the committee's group key over [`CertificateBody::signing_digest`].
    pub signature: GroupSignature,
}

impl Wire for AssignmentCertificate {
    const NAME: &'static str = "AssignmentCertificate";
    const VERSION: u8 = 2;
    // Version, four u64, scope and key set, seven digests, origin, signature.
    const MAX_BYTES: usize = 1 + 4 * 10 + (20 + 32 + 32) + 7 * 32 + 1 + 65;
}

/// Why a certificate does not continue the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ChainError {
    /// The certificate is of another chain, contract or cluster.
    #[error("the certificate is of another cluster")]
    Cluster,
    /// Its slot is not after its predecessor's.
    #[error("slot {slot} is not after slot {previous}")]
    Slot { slot: Slot, previous: Slot },
    /// Its epoch is over.
    #[error("the certificate is of an earlier epoch than its predecessor")]
    Epoch,
    /// It builds on another certificate.
    #[error("the certificate of slot {slot} builds on {found}, the last one known is {expected}")]
    Previous { slot: Slot, found: KeccakDigest, expected: KeccakDigest },
}

impl CertificateBody {
    /// What the first certificate of a cluster names as its predecessor.
    pub const NO_PREVIOUS: KeccakDigest = KeccakDigest([0; 32]);
    /// [`Self::evaluation`] of a slot that ended void.
    pub const VOID: Blake3Digest = Blake3Digest([0; 32]);
    /// [`Self::members_only`] of a certificate without such a section.
    pub const NO_SECTION: KeccakDigest = KeccakDigest([0; 32]);

    /// Whether the slot ended without an outcome: nothing is placed and nothing removed.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.evaluation == Self::VOID
    }

    /// What the committee signs and the chain recomputes: Keccak-256 of sixteen 32-byte words, as
    /// `keccak256(abi.encode(...))` lays them out.
    ///
    /// | word | type | value |
    /// |---|---|---|
    /// | 0 | `bytes32` | purpose: Keccak-256 of [`domain::ASSIGNMENT_CERTIFICATE`] |
    /// | 1 | `uint64` | chain id |
    /// | 2 | `address` | contract |
    /// | 3 | `bytes32` | cluster |
    /// | 4 | `uint64` | epoch |
    /// | 5 | `bytes32` | key set digest |
    /// | 6 | `uint64` | slot |
    /// | 7 | `bytes32` | manifest digest |
    /// | 8 | `bytes32` | hash of the previous certificate |
    /// | 9 | `bytes32` | hash of the anchored certificate that the manifest names |
    /// | 10 | `uint64` | jobs submitted as of the manifest's block |
    /// | 11 | `bytes32` | digest of the evaluated outcome; zero for a void slot |
    /// | 12 | `bytes32` | commitment to the members' section: zero |
    /// | 13 | `bytes32` | root of the assignments |
    /// | 14 | `bytes32` | root of the state after the slot |
    /// | 15 | `uint8` | origin of the reference string: 0 the committee, 1 a single party |
    #[must_use]
    pub fn signing_digest(&self) -> KeccakDigest {
        let Binding { scope, key_set, epoch } = &self.binding;
        Words::purpose(domain::ASSIGNMENT_CERTIFICATE)
            .uint(scope.chain_id.0)
            .address(&scope.contract)
            .bytes32(scope.cluster.as_bytes())
            .uint(epoch.0)
            .bytes32(key_set.as_bytes())
            .uint(self.slot.0)
            .bytes32(self.manifest.as_bytes())
            .bytes32(self.previous.as_bytes())
            .bytes32(self.base.as_bytes())
            .uint(self.jobs_seen)
            .bytes32(self.evaluation.as_bytes())
            .bytes32(self.members_only.as_bytes())
            .bytes32(self.assignments_root.as_bytes())
            .bytes32(self.state_root.as_bytes())
            .uint(self.reference_string as u64)
            .keccak()
    }

    /// What the next certificate names. It is the signing digest, without the signature: FROST
    /// signatures are randomised, and signing the same outcome twice must not fork the chain.
    #[must_use]
    pub fn hash(&self) -> KeccakDigest {
        self.signing_digest()
    }

    /// Checks that `self` comes right after `previous`, or is the first if that is `None`. Slots
    /// may be left out (nothing was certified in them); certificates may not.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn check_follows(&self, previous: Option<&Self>) -> Result<(), ChainError> {
        if previous.is_some_and(|p| p.binding.scope != self.binding.scope) {
            return Err(ChainError::Cluster);
        }
        if previous.is_some_and(|p| self.binding.epoch < p.binding.epoch) {
            return Err(ChainError::Epoch);
        }
        let last_slot = previous.map_or(Slot(0), |p| p.slot);
        if self.slot <= last_slot {
            return Err(ChainError::Slot { slot: self.slot, previous: last_slot });
        }
        let expected = previous.map_or(Self::NO_PREVIOUS, Self::hash);
        if self.previous != expected {
            let (slot, found) = (self.slot, self.previous);
            return Err(ChainError::Previous { slot, found, expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{ChainId, Epoch},
        scheduling::{
            abi::keccak,
            arbitrary::{assert_wire, binding},
        },
    };

    fn body() -> CertificateBody {
        CertificateBody {
            binding: binding(),
            slot: Slot(5),
            manifest: Blake3Digest([0x3a; 32]),
            previous: CertificateBody::NO_PREVIOUS,
            base: KeccakDigest([0xba; 32]),
            jobs_seen: 300,
            evaluation: Blake3Digest([0xe0; 32]),
            members_only: CertificateBody::NO_SECTION,
            assignments_root: KeccakDigest([0xa5; 32]),
            state_root: KeccakDigest([0x57; 32]),
            reference_string: ReferenceStringOrigin::Committee,
        }
    }

    fn certificate() -> AssignmentCertificate {
        AssignmentCertificate { body: body(), signature: GroupSignature([2; 65]) }
    }

    #[test]
    fn the_signed_bytes_are_those_of_abi_encode() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(keccak(b"veil v2 assignment certificate").as_bytes());
        for field in [
            &31_337u64.to_be_bytes()[..],
            &[0xc0; 20],
            &[0xc1; 32],
            &2u64.to_be_bytes(),
            &[0xde; 32],
            &5u64.to_be_bytes(),
            &[0x3a; 32],
            &[0; 32],
            &[0xba; 32],
            &300u64.to_be_bytes(),
            &[0xe0; 32],
            &[0; 32],
            &[0xa5; 32],
            &[0x57; 32],
            &[0],
        ] {
            bytes.extend_from_slice(&vec![0; 32 - field.len()]);
            bytes.extend_from_slice(field);
        }
        assert_eq!(bytes.len(), 16 * 32);
        assert_eq!(body().signing_digest(), keccak(&bytes));
    }

    #[test]
    fn every_field_changes_the_signing_digest() {
        let changes: [fn(&mut CertificateBody); 14] = [
            |b| b.binding.scope.chain_id = ChainId(1),
            |b| b.binding.scope.contract.0[0] ^= 1,
            |b| b.binding.scope.cluster.0[0] ^= 1,
            |b| b.binding.key_set.0[0] ^= 1,
            |b| b.binding.epoch = Epoch(3),
            |b| b.slot = Slot(6),
            |b| b.manifest.0[0] ^= 1,
            |b| b.previous.0[0] ^= 1,
            |b| b.base.0[0] ^= 1,
            |b| b.jobs_seen += 1,
            |b| b.evaluation.0[0] ^= 1,
            |b| b.members_only.0[0] ^= 1,
            |b| b.assignments_root.0[0] ^= 1,
            |b| b.state_root.0[0] ^= 1,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = body();
            change(&mut changed);
            assert_ne!(changed.signing_digest(), body().signing_digest(), "change {i}");
        }
    }

    #[test]
    fn certificates_form_a_chain() {
        let first = body();
        assert_eq!(first.check_follows(None), Ok(()));
        let next = CertificateBody { slot: Slot(8), previous: first.hash(), ..body() };
        assert_eq!(next.check_follows(Some(&first)), Ok(()));

        let check = |change: fn(&mut CertificateBody)| {
            let mut changed = next;
            change(&mut changed);
            changed.check_follows(Some(&first)).unwrap_err()
        };
        assert_eq!(check(|b| b.binding.scope.cluster.0[0] ^= 1), ChainError::Cluster);
        assert_eq!(check(|b| b.binding.epoch = Epoch(1)), ChainError::Epoch);
        assert_eq!(
            check(|b| b.slot = Slot(5)),
            ChainError::Slot { slot: Slot(5), previous: Slot(5) }
        );
        assert!(matches!(check(|b| b.previous.0[0] ^= 1), ChainError::Previous { .. }));
        assert!(matches!(next.check_follows(None), Err(ChainError::Previous { .. })));
        let zero = CertificateBody { slot: Slot(0), ..body() };
        assert_eq!(
            zero.check_follows(None),
            Err(ChainError::Slot { slot: Slot(0), previous: Slot(0) })
        );
    }

    #[test]
    fn signatures_are_hexadecimal_in_text_and_raw_on_the_wire() {
        let mut bytes = [0; 65];
        bytes.iter_mut().zip(0u8..).for_each(|(byte, i)| *byte = i);
        let signature = GroupSignature(bytes);
        let json = serde_json::to_string(&signature).unwrap();
        assert_eq!(json.len(), 132);
        assert_eq!(serde_json::from_str::<GroupSignature>(&json).unwrap(), signature);
        assert_eq!(postcard::to_allocvec(&signature).unwrap(), bytes);
        let text = signature.to_string();
        assert_eq!(format!("0x{text}").parse(), Ok(signature));
        let inner_prefix = format!("{}0x{}", "aa".repeat(33), "bb".repeat(32));
        for wrong in ["", "00", &text[1..], &format!("{text}0"), &"é".repeat(65), &inner_prefix] {
            assert_eq!(wrong.parse::<GroupSignature>(), Err(InvalidGroupSignature), "{wrong}");
        }
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        assert_wire(&certificate());
        let mut earlier = certificate().to_wire();
        earlier[0] = 1;
        let refused = AssignmentCertificate::from_wire(&earlier).unwrap_err();
        assert!(refused.to_string().contains("AssignmentCertificate has version 1"), "{refused}");
        let mut longest = certificate();
        longest.body.binding.scope.chain_id = ChainId(u64::MAX);
        longest.body.binding.epoch = Epoch(u64::MAX);
        longest.body.slot = Slot(u64::MAX);
        longest.body.jobs_seen = u64::MAX;
        assert_eq!(longest.to_wire().len(), AssignmentCertificate::MAX_BYTES);
        assert_eq!(AssignmentCertificate::from_wire(&longest.to_wire()), Ok(longest));
    }

    proptest! {
        #[test]
        fn round_trips(chain: u64, epoch: u64, slot: u64, root: [u8; 32], z: [u8; 32]) {
            let mut certificate = certificate();
            certificate.body.binding.scope.chain_id = ChainId(chain);
            certificate.body.binding.epoch = Epoch(epoch);
            certificate.body.slot = Slot(slot);
            certificate.body.assignments_root = KeccakDigest(root);
            certificate.signature = GroupSignature::from_parts(&[3; 33], &z);
            let bytes = certificate.to_wire();
            prop_assert_eq!(AssignmentCertificate::from_wire(&bytes), Ok(certificate));
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = AssignmentCertificate::from_wire(&bytes);
        }
    }
}
