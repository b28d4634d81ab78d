//! What a member keeps of a key ceremony, and its form on disk.
//!
//! Source: `ceremony.md`, section 7: "`KeyShare`: its share of Q (4096 ring elements mod 2^128), its
//! `dec` keys, its FROST key package. Shares of s, S, p are erased."
//!
//! # Form
//! All numbers little-endian:
//!
//! | field | bytes |
//! |---|---|
//! | `veil key share`, version 1 | 14 + 1 |
//! | length of all of it, checksum included | 4 |
//! | ceremony, attempt | 32 + 4 |
//! | n, participant, epoch | 1 + 1 + 8 |
//! | key set digest, parameters digest | 32 + 32 |
//! | dimension of Q; the share, coefficients of one element side by side | 4 + 16 d dimension |
//! | number of `dec` keys; per key its set's bits and the key | 2 + (2 + 32) each |
//! | length of the FROST share; the share | 4 + .. |
//! | length of the test share; the share | 4 + .. |
//! | BLAKE3 checksum of everything before, keyed by purpose | 32 |
//!
//! The checksum finds damage, not malice: at rest the node encrypts these bytes with age, which
//! authenticates them.

use core::fmt;

use veil_protocol_spec::{
    Attempt, Blake3Digest, CeremonyId, Committee, Epoch, KeySetDigest, ParticipantIndex, domain,
};
use zeroize::Zeroizing;

use crate::{
    decrypt::{PartialDecryptor, SquashedBlock, WrongDimension, partial_len},
    frost::{GroupKeyShare, KeyShareError as FrostShareError},
    prf::SetKey,
    ring::{Element, extension_degree},
    subsets::{MemberSet, key_sets},
    with_degree,
};

mod format;

pub use format::MAX_KEY_SHARE_BYTES;

/// What a key share belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShareOrigin {
    /// The ceremony that made it.
    pub ceremony: CeremonyId,
    /// The attempt that succeeded.
    pub attempt: Attempt,
    /// The committee.
    pub committee: Committee,
    /// The member whose share it is.
    pub participant: ParticipantIndex,
    /// The epoch it is for.
    pub epoch: Epoch,
    /// The key set it decrypts.
    pub key_set: KeySetDigest,
    /// The FHE parameter set.
    pub parameters: Blake3Digest,
}

/// One member's output of the ceremony.
///
/// # Security
/// Zeroized on drop, never printed; leaves only through [`to_bytes`](Self::to_bytes).
pub struct KeyShare {
    origin: KeyShareOrigin,
    /// Coefficient c of the share of Q_i at i d + c.
    share: Zeroizing<Vec<u128>>,
    dec: Vec<(MemberSet, SetKey)>,
    frost: Zeroizing<Vec<u8>>,
    test_share: Vec<u8>,
}

/// Why bytes are not a key share of this member, or not one that decrypts rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum KeyShareError {
    /// The bytes are of some other file.
    #[error("not a key share: it does not begin with \"veil key share\"")]
    NotAKeyShare,
    /// The share is of a version that this build does not read.
    #[error(
        "the key share has version {version}; this build reads {supported}: use that of its time"
    )]
    Version { version: u8, supported: u8 },
    /// The share is cut off.
    #[error(
        "the key share is truncated: {given} of {expected} bytes; `veil share import` takes it from a backup, without one this seat stays empty until the next epoch"
    )]
    Truncated { given: usize, expected: usize },
    /// Something follows the share.
    #[error(
        "{given} bytes, but the key share ends after {expected}; `veil share import` takes it from a backup, without one this seat stays empty until the next epoch"
    )]
    TooLong { given: usize, expected: usize },
    /// Bits have changed.
    #[error(
        "the key share's checksum is wrong, so it is damaged: `veil share import` takes it from a backup, without one this seat stays empty until the next epoch"
    )]
    Checksum,
    /// Intact, but it cannot have come from a ceremony.
    #[error("the key share's {0} is impossible")]
    Malformed(&'static str),
    /// The share is from another ceremony than expected.
    #[error("this key share is from ceremony {found}, not from ceremony {expected}")]
    OtherCeremony { expected: CeremonyId, found: CeremonyId },
    /// The share is of another committee or member than expected.
    #[error(
        "this is the key share of participant {found_participant} with {found_committee}, \
         not of participant {participant} with {committee}"
    )]
    OtherMember {
        committee: Committee,
        participant: ParticipantIndex,
        found_committee: Committee,
        found_participant: ParticipantIndex,
    },
    /// The share is of another key than expected.
    #[error("this key share is of key set {found}, not of key set {expected}")]
    OtherKeySet { expected: KeySetDigest, found: KeySetDigest },
    /// The test ciphertext is not under this key.
    #[error("the test ciphertext does not fit the key share: {0}")]
    Dimension(#[from] WrongDimension),
    /// It no longer computes what it computed at the end of the ceremony.
    #[error(
        "the key share does not reproduce its test decryption, so its decryptions would be wrong: \
         `veil share import` takes it from a backup, without one this seat stays empty until the next epoch"
    )]
    NotVerified,
    /// The signing part does not fit.
    #[error("the key share's FROST part: {0}")]
    Frost(#[from] FrostShareError),
}

impl KeyShare {
    /// `share` is the member's share of every bit of Q, `dec` the keys that are kept for
    /// decryption, in canonical order, `test_share` this member's own partial decryption of
    /// [`test_ciphertext`].
    ///
    /// # Errors
    /// [`KeyShareError::Malformed`] names the part that does not fit the committee.
    pub fn new<const D: usize>(
        origin: KeyShareOrigin,
        share: &[Element<u128, D>],
        dec: Vec<(MemberSet, SetKey)>,
        frost: &GroupKeyShare,
        test_share: Vec<u8>,
    ) -> Result<Self, KeyShareError> {
        if D != extension_degree(origin.committee) {
            return Err(KeyShareError::Malformed("ring degree"));
        }
        // Reserved at once: a buffer that grows leaves copies behind.
        let mut words = Zeroizing::new(Vec::with_capacity(share.len() * D));
        share.iter().for_each(|element| words.extend_from_slice(&element.0));
        Self::from_parts(origin, words, dec, frost.to_secret_bytes(), test_share)
    }

    fn from_parts(
        origin: KeyShareOrigin,
        share: Zeroizing<Vec<u128>>,
        dec: Vec<(MemberSet, SetKey)>,
        frost: Zeroizing<Vec<u8>>,
        test_share: Vec<u8>,
    ) -> Result<Self, KeyShareError> {
        let KeyShareOrigin { committee, participant, .. } = origin;
        if !committee.contains(participant) {
            return Err(KeyShareError::Malformed("participant"));
        }
        if share.is_empty() || !share.len().is_multiple_of(extension_degree(committee)) {
            return Err(KeyShareError::Malformed("share of Q"));
        }
        let mut sets = key_sets(committee);
        sets.retain(|set| set.contains(participant));
        if !sets.iter().eq(dec.iter().map(|(set, _)| set)) {
            return Err(KeyShareError::Malformed("list of flooding keys"));
        }
        if test_share.len() != partial_len(committee, 1) {
            return Err(KeyShareError::Malformed("test share"));
        }
        Ok(Self { origin, share, dec, frost, test_share })
    }

    /// What it belongs to.
    #[must_use]
    pub const fn origin(&self) -> &KeyShareOrigin {
        &self.origin
    }

    /// Bits of Q.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.share.len() / extension_degree(self.origin.committee)
    }

    /// The partial decryption recorded at the end of the ceremony.
    #[must_use]
    pub fn test_share(&self) -> &[u8] {
        &self.test_share
    }

    /// What [`crate::decryption::Decryptor`] decrypts with.
    #[must_use]
    pub fn decryptor(&self) -> PartialDecryptor {
        let KeyShareOrigin { committee, participant, epoch, key_set, .. } = self.origin;
        with_degree!(committee, D => {
            let (elements, _) = self.share.as_chunks::<D>();
            let elements: Zeroizing<Vec<Element<u128, D>>> =
                Zeroizing::new(elements.iter().copied().map(Element).collect());
            PartialDecryptor::new(committee, participant, &elements, &self.dec, &key_set, epoch)
        })
    }

    /// The member's share of the signing key.
    ///
    /// # Errors
    /// [`KeyShareError::Frost`] if it is damaged or another member's.
    pub fn frost(&self) -> Result<GroupKeyShare, KeyShareError> {
        let KeyShareOrigin { committee, participant, .. } = self.origin;
        Ok(GroupKeyShare::from_secret_bytes(committee, participant, &self.frost)?)
    }

    /// What this member's sealing key of the epoch is derived from (`sealed.md`, step 1): one way, under a separator
    /// of its own, from what this member alone holds.
    #[must_use]
    pub fn sealing_seed(&self) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 2] = [&self.origin.ceremony.0, &self.frost];
        Zeroizing::new(domain::hash_parts(domain::SEALING_KEY, &parts))
    }

    /// Checks that this is the key share that the caller means.
    ///
    /// # Errors
    /// [`KeyShareError::OtherCeremony`], [`KeyShareError::OtherMember`],
    /// [`KeyShareError::OtherKeySet`].
    pub fn check_belongs(
        &self,
        ceremony: CeremonyId,
        committee: Committee,
        participant: ParticipantIndex,
        key_set: KeySetDigest,
    ) -> Result<(), KeyShareError> {
        let found = &self.origin;
        if found.ceremony != ceremony {
            let found = found.ceremony;
            return Err(KeyShareError::OtherCeremony { expected: ceremony, found });
        }
        if (found.committee, found.participant) != (committee, participant) {
            return Err(KeyShareError::OtherMember {
                committee,
                participant,
                found_committee: found.committee,
                found_participant: found.participant,
            });
        }
        if found.key_set != key_set {
            return Err(KeyShareError::OtherKeySet { expected: key_set, found: found.key_set });
        }
        Ok(())
    }

    /// "A member proves at the end and at each start that its share is usable." (`ceremony.md`,
    /// section 7): decrypts the test ciphertext again and compares. That the recorded share lies on
    /// the common polynomial was checked by all members in the ceremony.
    ///
    /// # Errors
    /// [`KeyShareError::NotVerified`], [`KeyShareError::Dimension`].
    pub fn verify(&self, test: &SquashedBlock) -> Result<(), KeyShareError> {
        let share = self.decryptor().partial(core::slice::from_ref(test))?;
        if share == self.test_share { Ok(()) } else { Err(KeyShareError::NotVerified) }
    }
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShare")
            .field("origin", &self.origin)
            .field("dimension", &self.dimension())
            .field("secrets", &format_args!("<redacted>"))
            .finish()
    }
}

/// The public test ciphertext of a key set: a mask from a random oracle, body 0. `transcript` is
/// the ceremony's transcript up to the public material.
///
/// # Security
/// Every member publishes its partial decryption, so everyone learns the flooded phase
/// E - <a, Q>. That is one more LWE sample under Q next to the thousands in the noise-squashing
/// key, with much more noise than those (2^(68+stat) rather than 2^29). It helps nobody, because a
/// is uniformly random and nobody chose it: it is a hash of what all members contributed to, and a
/// member that tries many contributions gets other random masks, never a crafted one such as
/// 2^127 e_i.
#[must_use]
pub fn test_ciphertext(
    key_set: &KeySetDigest,
    transcript: &Blake3Digest,
    dimension: usize,
) -> SquashedBlock {
    let mut hasher = blake3::Hasher::new_derive_key(domain::TEST_CIPHERTEXT);
    hasher.update(&key_set.0); // both of fixed length: no need for prefixes
    hasher.update(&transcript.0);
    let mut stream = hasher.finalize_xof();
    let mut word = [0; 16];
    let mask = (0..dimension)
        .map(|_| {
            stream.fill(&mut word);
            u128::from_le_bytes(word)
        })
        .collect();
    SquashedBlock { mask, body: 0 }
}

#[cfg(test)]
mod tests;
