//! Public keys and signatures in the forms that the contracts accept.

use alloy::{
    primitives::{B256, U256},
    signers::k256::{
        PublicKey,
        ecdsa::{RecoveryId, Signature as EcdsaSignature, VerifyingKey},
        elliptic_curve::sec1::ToEncodedPoint,
    },
};
use veil_protocol_spec::{PublicIdentity, Signature, scheduling::GroupSignature};

/// A public key or signature that the chain would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPoint {
    /// The bytes are not a compressed point of secp256k1.
    #[error("{0} is not a compressed secp256k1 public key")]
    Key(PublicIdentity),
    /// The signature is not by this identity over this digest.
    #[error("a signature does not verify under identity {0}")]
    Signature(PublicIdentity),
}

/// An affine point as two big-endian coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coordinates {
    pub(crate) x: U256,
    pub(crate) y: U256,
}

impl Coordinates {
    /// # Errors
    /// [`InvalidPoint::Key`].
    pub(crate) fn of(key: &PublicIdentity) -> Result<Self, InvalidPoint> {
        let point =
            PublicKey::from_sec1_bytes(key.as_bytes()).map_err(|_| InvalidPoint::Key(*key))?;
        let encoded = point.to_encoded_point(false);
        let (x, y) = (encoded.x().ok_or(InvalidPoint::Key(*key))?, encoded.y());
        let y = y.ok_or(InvalidPoint::Key(*key))?;
        Ok(Self { x: U256::from_be_slice(x), y: U256::from_be_slice(y) })
    }
}

/// A compressed point as the contracts store it.
pub(crate) fn compressed(prefix: u8, x: U256) -> PublicIdentity {
    let mut bytes = [0; 33];
    let (first, rest) = bytes.split_at_mut(1);
    first.copy_from_slice(&[prefix]);
    rest.copy_from_slice(&x.to_be_bytes::<32>());
    PublicIdentity(bytes)
}

/// A FROST signature with R uncompressed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrostParts {
    pub(crate) rx: U256,
    pub(crate) ry: U256,
    pub(crate) z: U256,
}

impl FrostParts {
    /// # Errors
    /// [`InvalidPoint::Key`] if R is not a point.
    pub(crate) fn of(signature: &GroupSignature) -> Result<Self, InvalidPoint> {
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
pub(crate) fn compact(
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

/// Compressed bytes as the type. Bytes of another length become a key that is not a point.
pub(crate) fn point(bytes: &[u8]) -> PublicIdentity {
    PublicIdentity(bytes.try_into().unwrap_or([0; 33]))
}
