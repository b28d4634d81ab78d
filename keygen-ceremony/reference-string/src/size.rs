//! How many powers a string has, and what tfhe calls its parameters.

use tfhe::{
    core_crypto::prelude::{LweCiphertextCount, LweDimension},
    shortint::parameters::CompactPublicKeyEncryptionParameters,
    zk::{CompactPkeCrs, CompactPkeZkScheme},
};
use tfhe_zk_pok::proofs::pke_v2::{Bound, compute_crs_params};

use crate::{
    curve::{G1Affine, G2Affine, Point},
    error::ReferenceStringError,
};

/// Most messages of a list that a string serves: more than any list of today has.
pub(crate) const MESSAGES: usize = 16;
/// How a contribution's bound on noise is derived: without heuristics.
pub(crate) const BOUND: Bound = Bound::CS;
/// "CRS created from shortint params have 1 MSB 0bit" (tfhe).
pub(crate) const PADDING: u64 = 1;

/// How many powers a string has: n of them in the second group, 2n - 1 in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(usize);

impl Size {
    /// Of a string that makes no proofs, for tests of the protocol: the smallest that has every kind of
    /// power.
    pub const PROTOCOL_TEST: Self = Self(3);

    /// Of a string for lists of up to 16 messages of 4 bits.
    ///
    /// # Errors
    /// [`ReferenceStringError::Tfhe`] if the parameters have no proofs.
    pub fn of(
        parameters: &CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        let Bounds { d, b_inf, t, .. } = Bounds::of(parameters)?;
        let squared = u128::from(b_inf) * u128::from(b_inf) * (d + MESSAGES) as u128;
        let (n, ..) = compute_crs_params(d, MESSAGES, squared, t, PADDING, BOUND);
        Ok(Self(n))
    }

    /// n.
    #[must_use]
    pub const fn n(self) -> usize {
        self.0
    }

    /// Length of all powers, encoded.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.first() * G1Affine::BYTES + self.0 * G2Affine::BYTES
    }

    /// Powers in the first group.
    pub(crate) const fn first(self) -> usize {
        2 * self.0 - 1
    }
}

/// What tfhe calls the parameters of a string.
pub(crate) struct Bounds {
    pub(crate) d: usize,
    pub(crate) b_inf: u64,
    pub(crate) q: u64,
    pub(crate) t: u64,
}

impl Bounds {
    pub(crate) fn of(
        parameters: &CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        // One bit more for the padding.
        let plaintext = 2 * parameters.message_modulus.0 * parameters.carry_modulus.0;
        let prepared = CompactPkeCrs::prepare_crs_parameters(
            parameters.encryption_lwe_dimension,
            LweCiphertextCount(MESSAGES),
            parameters.encryption_noise_distribution,
            parameters.ciphertext_modulus,
            plaintext,
            CompactPkeZkScheme::V2,
        );
        let (LweDimension(d), _, b_inf, q, t) =
            prepared.map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
        Ok(Self { d, b_inf, q, t })
    }
}
