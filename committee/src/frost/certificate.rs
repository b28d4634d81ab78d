//! Verification for those who are not in the group: workers, operators, auditors. They know the
//! group's verifying key from the chain, and nothing else of it.

use frost_core::{Ciphersuite, VerifyingKey};
use veil_protocol_spec::{PublicIdentity, scheduling::AssignmentCertificate};

use super::{
    EvmSuite,
    keys::{GroupSignature, InvalidGroupSignature},
};

/// A group's verifying key as the chain publishes it: a compressed point on the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupVerifyingKey<C: Ciphersuite = EvmSuite>(VerifyingKey<C>);

impl GroupVerifyingKey {
    /// # Errors
    /// [`InvalidGroupSignature`] if `point` is not on the curve.
    pub fn new(point: &PublicIdentity) -> Result<Self, InvalidGroupSignature> {
        VerifyingKey::deserialize(point.as_bytes()).map(Self).map_err(|_| InvalidGroupSignature)
    }

    /// Whether the group signed the certificate; its place in the chain is the caller's to check.
    ///
    /// # Errors
    /// [`InvalidGroupSignature`] if it did not.
    pub fn verify(&self, certificate: &AssignmentCertificate) -> Result<(), InvalidGroupSignature> {
        let signature = GroupSignature::<EvmSuite>::from_bytes(&certificate.signature.0)?;
        signature.verify_under(&self.0, certificate.body.signing_digest().as_bytes())
    }
}
