//! The secp256k1 keys that members and workers sign with. They are libp2p identities too, so that
//! the chain can check possession with `ecrecover`.
//!
//! A signature is deterministic ECDSA (RFC 6979, low s) over a 32-byte digest made by
//! [`crate::domain::hash_parts`]; the domain names the purpose.

use core::fmt;

use k256::ecdsa::{
    Signature as EcdsaSignature, SigningKey, VerifyingKey,
    signature::hazmat::{PrehashSigner, PrehashVerifier},
};
use zeroize::Zeroizing;

use crate::ids::{PublicIdentity, Signature};

/// A member's signing key.
///
/// # Security
/// Zeroized on drop (by `k256`), never printed.
#[derive(Clone)]
pub struct SecretIdentity(SigningKey);

/// Bytes are not a secp256k1 secret key: zero, or not below the group order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a secp256k1 secret key")]
pub struct InvalidSecretKey;

/// A signature does not verify, or a public identity is not a curve point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify under this identity")]
pub struct InvalidSignature;

impl SecretIdentity {
    /// # Errors
    /// [`InvalidSecretKey`] for zero and for values not below the group order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidSecretKey> {
        SigningKey::from_slice(bytes).map(Self).map_err(|_| InvalidSecretKey)
    }

    /// The secret key, for the keystore.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The identity that verifies this key's signatures.
    #[must_use]
    pub fn public(&self) -> PublicIdentity {
        let mut bytes = [0; 33];
        bytes.copy_from_slice(self.0.verifying_key().to_encoded_point(true).as_bytes());
        PublicIdentity(bytes)
    }

    /// Signs a digest. Deterministic: the same digest always gives the same signature, so that a
    /// member that restarts sends the same message again.
    ///
    /// # Panics
    /// Never: RFC 6979 finds a nonce for every 32-byte digest.
    #[must_use]
    pub fn sign(&self, digest: &[u8; 32]) -> Signature {
        let signature: EcdsaSignature =
            self.0.sign_prehash(digest).expect("a 32-byte digest can always be signed");
        Signature(signature.normalize_s().unwrap_or(signature).to_bytes().into())
    }
}

impl fmt::Debug for SecretIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretIdentity(of {}, <redacted>)", self.public())
    }
}

impl PublicIdentity {
    /// # Errors
    /// [`InvalidSignature`] if `self` is not a curve point or `signature` is not by it over `digest`.
    pub fn verify(&self, digest: &[u8; 32], signature: &Signature) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| InvalidSignature)?;
        let signature = EcdsaSignature::from_slice(&signature.0).map_err(|_| InvalidSignature)?;
        if signature.normalize_s().is_some() {
            return Err(InvalidSignature); // high s: a second spelling of the same signature
        }
        key.verify_prehash(digest, &signature).map_err(|_| InvalidSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretIdentity {
        SecretIdentity::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn signatures_verify_only_for_signer_and_digest() {
        let signature = secret(1).sign(&[7; 32]);
        assert_eq!(signature, secret(1).sign(&[7; 32]));
        assert_eq!(secret(1).public().verify(&[7; 32], &signature), Ok(()));
        assert_eq!(secret(2).public().verify(&[7; 32], &signature), Err(InvalidSignature));
        assert_eq!(secret(1).public().verify(&[8; 32], &signature), Err(InvalidSignature));
        assert_eq!(PublicIdentity([0; 33]).verify(&[7; 32], &signature), Err(InvalidSignature));
    }

    #[test]
    fn printing_redacts() {
        let printed = format!("{:?}", secret(0x5a));
        assert!(printed.contains("redacted") && !printed.contains("5a5a5a5a"), "{printed}");
    }

    #[test]
    fn zero_is_not_a_secret_key() {
        assert_eq!(SecretIdentity::from_bytes(&[0; 32]).unwrap_err(), InvalidSecretKey);
    }
}
