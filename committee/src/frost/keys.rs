//! What key generation leaves behind: the group's public key, a member's share of the secret one,
//! and the signature that the two make.
//!
//! # Caveats
//! A [`GroupPublicKey`] that came from outside is only as good as its digest: verifying shares that
//! do not belong to the group key would blame honest signers. Compare its canonical bytes with
//! what the ceremony's transcript root binds before using it.

use core::fmt;
use std::collections::BTreeMap;

use frost_core::{
    Ciphersuite, Identifier, Signature, SigningKey, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use veil_protocol_spec::{CodecError, Committee, ParticipantIndex, Wire};
use zeroize::Zeroizing;

use super::EvmSuite;

/// FROST's name for a participant: the scalar of its share index.
pub(crate) fn identifier<C: Ciphersuite>(index: ParticipantIndex) -> Identifier<C> {
    Identifier::try_from(u16::from(index.get())).expect("a participant index is never zero")
}

/// `min_signers`, 2t+1.
pub(crate) fn min_signers(committee: Committee) -> u16 {
    committee.signing_threshold().get() as u16 // at most 9
}

/// A signature that is not one of the group over the message, or bytes that are no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a signature of the group over this message")]
pub struct InvalidGroupSignature;

/// A Schnorr signature by the whole group: R (compressed), then z, big-endian.
#[derive(Clone, PartialEq)]
pub struct GroupSignature<C: Ciphersuite = EvmSuite> {
    signature: Signature<C>,
    bytes: Vec<u8>,
}

impl<C: Ciphersuite> GroupSignature<C> {
    pub(crate) fn new(signature: Signature<C>) -> Result<Self, InvalidGroupSignature> {
        let bytes = signature.serialize().map_err(|_| InvalidGroupSignature)?;
        Ok(Self { signature, bytes })
    }

    /// Parses the canonical bytes; whether they sign anything is [`GroupPublicKey::verify`]'s.
    ///
    /// # Errors
    /// [`InvalidGroupSignature`] for another length, a point that is not on the curve or in a
    /// second spelling, or a scalar not below the group order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidGroupSignature> {
        let signature = Signature::deserialize(bytes).map_err(|_| InvalidGroupSignature)?;
        let parsed = Self::new(signature)?;
        if parsed.bytes == bytes { Ok(parsed) } else { Err(InvalidGroupSignature) }
    }

    /// The canonical bytes; 65 for [`EvmSuite`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Verifies under a verifying key alone.
    pub(crate) fn verify_under(
        &self,
        key: &VerifyingKey<C>,
        message: &[u8],
    ) -> Result<(), InvalidGroupSignature> {
        key.verify(message, &self.signature).map_err(|_| InvalidGroupSignature)
    }
}

impl<C: Ciphersuite> fmt::Debug for GroupSignature<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSignature(")?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The group's verifying key and each participant's verifying share. Its canonical bytes are its
/// [`Wire`] encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "C: Ciphersuite", try_from = "PublicParts<C>", into = "PublicParts<C>")]
pub struct GroupPublicKey<C: Ciphersuite = EvmSuite> {
    committee: Committee,
    package: PublicKeyPackage<C>,
}

/// What a [`GroupPublicKey`] is encoded as.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "C: Ciphersuite")]
struct PublicParts<C: Ciphersuite> {
    committee: Committee,
    verifying_key: VerifyingKey<C>,
    /// Of participant 1, 2, ...
    verifying_shares: Vec<VerifyingShare<C>>,
}

impl<C: Ciphersuite> Wire for GroupPublicKey<C> {
    const NAME: &'static str = "FROST group public key";
    const MAX_BYTES: usize = 1024;
}

impl<C: Ciphersuite> From<GroupPublicKey<C>> for PublicParts<C> {
    fn from(key: GroupPublicKey<C>) -> Self {
        Self {
            committee: key.committee,
            verifying_key: *key.package.verifying_key(),
            // A BTreeMap by identifier: ascending by index.
            verifying_shares: key.package.verifying_shares().values().copied().collect(),
        }
    }
}

impl<C: Ciphersuite> TryFrom<PublicParts<C>> for GroupPublicKey<C> {
    type Error = MalformedGroupKey;

    fn try_from(parts: PublicParts<C>) -> Result<Self, MalformedGroupKey> {
        if parts.verifying_shares.len() != parts.committee.n() {
            return Err(MalformedGroupKey);
        }
        let shares = parts.committee.participants().map(identifier).zip(parts.verifying_shares);
        Self::new(parts.committee, shares.collect(), parts.verifying_key)
    }
}

/// Points that cannot be a group key: one of them is the identity, or their number is not that of
/// the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a group public key: wrong number of verifying shares, or one is the identity")]
pub struct MalformedGroupKey;

impl<C: Ciphersuite> GroupPublicKey<C> {
    fn new(
        committee: Committee,
        shares: BTreeMap<Identifier<C>, VerifyingShare<C>>,
        key: VerifyingKey<C>,
    ) -> Result<Self, MalformedGroupKey> {
        let min = Some(min_signers(committee));
        Self::from_package(committee, PublicKeyPackage::new(shares, key, min))
    }

    pub(crate) fn from_package(
        committee: Committee,
        package: PublicKeyPackage<C>,
    ) -> Result<Self, MalformedGroupKey> {
        let members: Vec<Identifier<C>> = committee.participants().map(identifier).collect();
        let encodable = package.verifying_key().serialize().is_ok()
            && package.verifying_shares().values().all(|share| share.serialize().is_ok());
        if encodable && package.verifying_shares().keys().eq(members.iter()) {
            Ok(Self { committee, package })
        } else {
            Err(MalformedGroupKey)
        }
    }

    /// The group of one that a designated decryptor is.
    pub(crate) fn solo(key: VerifyingKey<C>) -> Result<Self, MalformedGroupKey> {
        let committee = Committee::ALL[0];
        let me = committee.participants().map(identifier).next().ok_or(MalformedGroupKey)?;
        let bytes = key.serialize().map_err(|_| MalformedGroupKey)?;
        let share = VerifyingShare::deserialize(&bytes).map_err(|_| MalformedGroupKey)?;
        Self::new(committee, BTreeMap::from([(me, share)]), key)
    }

    /// The committee whose members hold the shares.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.committee
    }

    /// The group's verifying key, compressed; 33 bytes for [`EvmSuite`].
    ///
    /// # Panics
    /// Never: a group key that has no encoding (the identity) is refused on construction.
    #[must_use]
    pub fn verifying_key_bytes(&self) -> Vec<u8> {
        self.package.verifying_key().serialize().expect("checked when the key was made")
    }

    /// The same, typed.
    #[must_use]
    pub const fn package(&self) -> &PublicKeyPackage<C> {
        &self.package
    }

    /// A participant's verifying share, or nothing outside the committee.
    #[must_use]
    pub fn verifying_share(&self, index: ParticipantIndex) -> Option<&VerifyingShare<C>> {
        self.package.verifying_shares().get(&identifier(index))
    }

    /// Verifies a signature of the group.
    ///
    /// Source: `frost_core::VerifyingKey::verify`; the equation is z G = R + c PK with
    /// c = H2(R || PK || message).
    ///
    /// # Errors
    /// [`InvalidGroupSignature`] if it does not verify.
    pub fn verify(
        &self,
        message: &[u8],
        signature: &GroupSignature<C>,
    ) -> Result<(), InvalidGroupSignature> {
        signature.verify_under(self.package.verifying_key(), message)
    }
}

/// One member's long-lived share of the signing key, with the public key it belongs to. For n = 1,
/// where FROST has nothing to share, it is a plain Schnorr key whose signatures satisfy the same
/// equation; callers need not care.
///
/// # Security
/// The secret is zeroized on drop, never printed, and leaves only through
/// [`to_secret_bytes`](Self::to_secret_bytes).
pub struct GroupKeyShare<C: Ciphersuite = EvmSuite> {
    index: ParticipantIndex,
    package: KeyPackage<C>,
    public: GroupPublicKey<C>,
}

/// Why stored bytes are not the share a member should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum KeyShareError {
    /// The bytes are truncated, of another version, or not a key.
    #[error(
        "the signing key share is damaged: `veil share import` takes it from a backup, without one this seat stays empty until the next epoch"
    )]
    Malformed,
    /// The public part is damaged.
    #[error("the public part of the signing key share is damaged")]
    Public(#[from] CodecError),
    /// The share is of another committee or member.
    #[error("this is the signing key share of member {index} of a committee of {committee}")]
    OtherMember { index: ParticipantIndex, committee: Committee },
    /// The secret does not belong to the member's verifying share.
    #[error("the signing key share does not match the group's public key")]
    Mismatch,
}

/// First byte of a stored share.
const SECRET_VERSION: u8 = 1;

impl<C: Ciphersuite> GroupKeyShare<C> {
    pub(crate) fn from_parts(
        index: ParticipantIndex,
        share: SigningShare<C>,
        public: GroupPublicKey<C>,
    ) -> Result<Self, KeyShareError> {
        let verifying_share = VerifyingShare::from(share);
        if public.verifying_share(index) != Some(&verifying_share) {
            return Err(KeyShareError::Mismatch);
        }
        let package = KeyPackage::new(
            identifier(index),
            share,
            verifying_share,
            *public.package.verifying_key(),
            min_signers(public.committee),
        );
        Ok(Self { index, package, public })
    }

    /// Whose share it is.
    #[must_use]
    pub const fn index(&self) -> ParticipantIndex {
        self.index
    }

    /// The group it belongs to.
    #[must_use]
    pub const fn public(&self) -> &GroupPublicKey<C> {
        &self.public
    }

    pub(crate) const fn package(&self) -> &KeyPackage<C> {
        &self.package
    }

    /// Signs as a group of one; `None` in a larger committee.
    pub(crate) fn sign_alone<R: RngCore + CryptoRng>(
        &self,
        message: &[u8],
        rng: R,
    ) -> Option<GroupSignature<C>> {
        if self.public.committee.n() != 1 {
            return None;
        }
        let secret = Zeroizing::new(self.package.signing_share().serialize());
        let key = SigningKey::deserialize(&secret).ok()?;
        GroupSignature::new(key.sign(rng, message)).ok()
    }

    /// The share for the keystore: version, committee, index, length and bytes of the secret
    /// scalar, then the canonical bytes of the public key.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let public = self.public.to_wire();
        let secret = Zeroizing::new(self.package.signing_share().serialize());
        // Reserved at once: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + secret.len() + public.len()));
        let committee = u8::from(self.public.committee);
        bytes.extend([SECRET_VERSION, committee, self.index.get(), secret.len() as u8]);
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(&public);
        bytes
    }

    /// Reads a stored share and checks that it is `index`'s in `committee` and that the secret
    /// belongs to its verifying share.
    ///
    /// # Errors
    /// Every way in which it is not, see [`KeyShareError`].
    pub fn from_secret_bytes(
        committee: Committee,
        index: ParticipantIndex,
        bytes: &[u8],
    ) -> Result<Self, KeyShareError> {
        let malformed = KeyShareError::Malformed;
        let (&[version, n, i, len], rest) = bytes.split_first_chunk().ok_or(malformed)?;
        let (secret, public) = rest.split_at_checked(len.into()).ok_or(malformed)?;
        if version != SECRET_VERSION {
            return Err(malformed);
        }
        let stored_committee = Committee::new(n).map_err(|_| malformed)?;
        let stored_index = ParticipantIndex::new(i).map_err(|_| malformed)?;
        if (stored_committee, stored_index) != (committee, index) {
            return Err(KeyShareError::OtherMember {
                index: stored_index,
                committee: stored_committee,
            });
        }
        let public = GroupPublicKey::from_wire(public)?;
        if public.committee != committee {
            return Err(KeyShareError::Mismatch);
        }
        let share = SigningShare::deserialize(secret).map_err(|_| malformed)?;
        Self::from_parts(index, share, public)
    }
}

impl<C: Ciphersuite> fmt::Debug for GroupKeyShare<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupKeyShare(member {} of {}, <redacted>)", self.index, self.public.committee)
    }
}
