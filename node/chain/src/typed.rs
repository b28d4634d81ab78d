//! The digests that identities and groups sign for the chain (EIP-712), and the forms in which the
//! contracts take their signatures and keys.
//!
//! The signing domain is `Veil`, version `1`, the chain, and the directory's address.

use alloy::{
    primitives::{B256, U256, keccak256},
    signers::k256::{
        PublicKey,
        ecdsa::{RecoveryId, Signature as EcdsaSignature, VerifyingKey},
        elliptic_curve::sec1::ToEncodedPoint,
    },
    sol_types::{Eip712Domain, SolStruct},
};
use veil_committee::frost::GroupPublicKey;
use veil_contracts::typed;
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, PublicIdentity, Signature,
    scheduling::{ClusterScope, GroupSignature, MerkleTree},
};

use super::{CertificateVote, NodeRegistration, ReferenceString, types::role_bits};

/// A public key or signature that the chain would not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPoint {
    /// Not a compressed point of secp256k1.
    #[error("{0} is not a compressed secp256k1 public key")]
    Key(PublicIdentity),
    /// Not a signature by this identity over this digest.
    #[error("a signature does not verify under identity {0}")]
    Signature(PublicIdentity),
}

fn domain(scope: &ClusterScope) -> Eip712Domain {
    Eip712Domain {
        name: Some("Veil".into()),
        version: Some("1".into()),
        chain_id: Some(U256::from(scope.chain_id.0)),
        verifying_contract: Some(scope.contract.0.into()),
        salt: None,
    }
}

fn digest(scope: &ClusterScope, message: &impl SolStruct) -> [u8; 32] {
    message.eip712_signing_hash(&domain(scope)).0
}

/// An affine point as two big-endian coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coordinates {
    pub(super) x: U256,
    pub(super) y: U256,
}

impl Coordinates {
    /// # Errors
    /// [`InvalidPoint::Key`].
    pub(super) fn of(key: &PublicIdentity) -> Result<Self, InvalidPoint> {
        let point =
            PublicKey::from_sec1_bytes(key.as_bytes()).map_err(|_| InvalidPoint::Key(*key))?;
        let encoded = point.to_encoded_point(false);
        let (x, y) = (encoded.x().ok_or(InvalidPoint::Key(*key))?, encoded.y());
        let y = y.ok_or(InvalidPoint::Key(*key))?;
        Ok(Self { x: U256::from_be_slice(x), y: U256::from_be_slice(y) })
    }
}

/// A compressed point as the contracts store it.
pub(super) fn compressed(prefix: u8, x: U256) -> PublicIdentity {
    let mut bytes = [0; 33];
    let (first, rest) = bytes.split_at_mut(1);
    first.copy_from_slice(&[prefix]);
    rest.copy_from_slice(&x.to_be_bytes::<32>());
    PublicIdentity(bytes)
}

/// A FROST signature with R uncompressed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrostParts {
    pub(super) rx: U256,
    pub(super) ry: U256,
    pub(super) z: U256,
}

impl FrostParts {
    /// # Errors
    /// [`InvalidPoint::Key`] if R is no point.
    pub(super) fn of(signature: &GroupSignature) -> Result<Self, InvalidPoint> {
        let (r, z) = signature.0.split_at(33);
        let mut compressed = [0; 33];
        compressed.copy_from_slice(r);
        let r = Coordinates::of(&PublicIdentity(compressed))?;
        Ok(Self { rx: r.x, ry: r.y, z: U256::from_be_slice(z) })
    }
}

/// An ECDSA signature in the form of EIP-2098: r, then the parity of R's y and s.
///
/// # Errors
/// [`InvalidPoint`] if it is not by `signer` over `digest`.
pub(super) fn compact(
    signer: &PublicIdentity,
    digest: &[u8; 32],
    signature: &Signature,
) -> Result<(B256, B256), InvalidPoint> {
    let invalid = InvalidPoint::Signature(*signer);
    let parsed = EcdsaSignature::from_slice(signature.as_bytes()).map_err(|_| invalid)?;
    let key = VerifyingKey::from_sec1_bytes(signer.as_bytes()).map_err(|_| invalid)?;
    let recovery =
        RecoveryId::trial_recovery_from_prehash(&key, digest, &parsed).map_err(|_| invalid)?;
    let (r, s) = signature.0.split_at(32);
    let mut vs = B256::from_slice(s);
    if recovery.is_y_odd() {
        vs.0[0] |= 0x80;
    }
    Ok((B256::from_slice(r), vs))
}

/// What an identity signs to be registered as a node of `operator`.
#[must_use]
pub fn registration_digest(
    scope: &ClusterScope,
    registration: &NodeRegistration,
    identity: &PublicIdentity,
    operator: &Address,
    nonce: u32,
) -> [u8; 32] {
    let message = typed::NodeRegistration {
        cluster: registration.cluster.0.into(),
        peer: PeerIdHash::of(identity).0.into(),
        operator: operator.0.into(),
        roles: role_bits(registration.roles),
        organisation: organisation_word(&registration.organisation),
        labels: labels_text(registration),
        nonce,
    };
    digest(scope, &message)
}

/// What a member signs to abort an attempt.
#[must_use]
pub fn abort_digest(
    scope: &ClusterScope,
    epoch: Epoch,
    attempt: Attempt,
    reason: &Blake3Digest,
) -> [u8; 32] {
    let message = typed::CeremonyAbort {
        cluster: scope.cluster.0.into(),
        epoch: epoch.0,
        attempt: attempt.0,
        reason: reason.0.into(),
    };
    digest(scope, &message)
}

/// What a member signs to say that another one, in `seat`, was absent from an attempt.
#[must_use]
pub fn absence_digest(
    scope: &ClusterScope,
    (epoch, attempt): (Epoch, Attempt),
    seat: ParticipantIndex,
) -> [u8; 32] {
    let message = typed::MemberAbsence {
        cluster: scope.cluster.0.into(),
        epoch: epoch.0,
        attempt: attempt.0,
        seat: seat.get(),
    };
    digest(scope, &message)
}

pub(super) fn vote_digest(vote: &CertificateVote) -> [u8; 32] {
    let message = typed::CertificateVote {
        cluster: vote.scope.cluster.0.into(),
        epoch: vote.epoch.0,
        slot: vote.slot.0,
        certificate: vote.certificate.0.into(),
    };
    digest(&vote.scope, &message)
}

/// Text in one word, padded with zeros; what does not fit is cut off (callers check).
pub(super) fn organisation_word(text: &str) -> B256 {
    let mut word = [0; 32];
    for (to, from) in word.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    word.into()
}

/// Labels as the registry has them.
pub(super) fn labels_text(registration: &NodeRegistration) -> String {
    registration.labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A key as a finished ceremony publishes it; its digests are what members and groups sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPublication {
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
    /// The epoch that gets the key.
    pub epoch: Epoch,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// The FROST group key, compressed.
    pub group_key: PublicIdentity,
    /// Root over the verifying shares.
    pub verifying_shares_root: KeccakDigest,
    /// The FHE key set.
    pub key_set: KeySetDigest,
    /// Root of the ceremony's transcript.
    pub transcript_root: Blake3Digest,
    /// What telemetry proofs rest on.
    pub reference_string: ReferenceString,
}

impl KeyPublication {
    /// The publication of what a ceremony made.
    ///
    /// # Errors
    /// [`InvalidPoint`] for a group key that is no point of secp256k1.
    pub fn new(
        scope: ClusterScope,
        (epoch, attempt): (Epoch, Attempt),
        group: &GroupPublicKey,
        key_set: KeySetDigest,
        transcript_root: Blake3Digest,
        reference_string: ReferenceString,
    ) -> Result<Self, InvalidPoint> {
        Ok(Self {
            scope,
            epoch,
            attempt,
            group_key: point(&group.verifying_key_bytes()),
            verifying_shares_root: verifying_shares_root(group)?,
            key_set,
            transcript_root,
            reference_string,
        })
    }

    fn message(&self) -> typed::KeyPublication {
        // A key that is no point gives a digest that the chain refuses with the key.
        let key = Coordinates::of(&self.group_key);
        let (x, y) = key.map_or((U256::ZERO, U256::ZERO), |key| (key.x, key.y));
        typed::KeyPublication {
            cluster: self.scope.cluster.0.into(),
            epoch: self.epoch.0,
            attempt: self.attempt.0,
            groupKeyX: x,
            groupKeyY: y,
            verifyingSharesRoot: self.verifying_shares_root.0.into(),
            fheKeyDigest: self.key_set.0.into(),
            transcriptRoot: self.transcript_root.0.into(),
            referenceStringDigest: self.reference_string.digest.0.into(),
            referenceStringOrigin: self.reference_string.origin as u8,
        }
    }

    /// What each member's identity signs.
    #[must_use]
    pub fn member_digest(&self) -> [u8; 32] {
        digest(&self.scope, &self.message())
    }

    /// What the new group signs.
    #[must_use]
    pub fn possession_digest(&self) -> KeccakDigest {
        let publication = self.message().eip712_hash_struct();
        KeccakDigest(digest(&self.scope, &typed::KeyPossession { publication }))
    }

    /// What the group before signs.
    #[must_use]
    pub fn handover_digest(&self) -> KeccakDigest {
        let publication = self.message().eip712_hash_struct();
        KeccakDigest(digest(&self.scope, &typed::KeyHandover { publication }))
    }
}

/// Root over the verifying shares, participant 1 first: leaves are the EIP-712 hash of
/// `VerifyingShare(uint8 index,uint256 x,uint256 y)`, hashed once more.
///
/// # Errors
/// [`InvalidPoint`] for a share that is no point of secp256k1.
pub fn verifying_shares_root(group: &GroupPublicKey) -> Result<KeccakDigest, InvalidPoint> {
    let mut leaves = Vec::new();
    for index in group.committee().participants() {
        let share = group.verifying_share(index).and_then(|share| share.serialize().ok());
        let Coordinates { x, y } = Coordinates::of(&point(&share.unwrap_or_default()))?;
        let leaf = typed::VerifyingShare { index: index.get(), x, y }.eip712_hash_struct();
        leaves.push(KeccakDigest(keccak256(leaf).0));
    }
    Ok(MerkleTree::new(leaves).root())
}

/// Compressed bytes as the type; of another length, as a key that is no point.
fn point(bytes: &[u8]) -> PublicIdentity {
    PublicIdentity(bytes.try_into().unwrap_or([0; 33]))
}
