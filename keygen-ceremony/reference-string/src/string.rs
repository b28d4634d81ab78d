//! The string as it is used and kept: tfhe's form of the powers, in a file.
//!
//! # Caveats
//! Whoever knows the exponent can prove anything, and a list with a forged proof is a key-extraction
//! oracle. Nothing in a file says who made it: what counts is that its digest is the one that the
//! cluster's committee signed, and a member signs the digest of the powers that it has seen made.

use core::fmt;
use std::io::{BufReader, Read, Write};

use ark_ec::short_weierstrass::Affine;
use tfhe::{
    core_crypto::prelude::LweCiphertextCount,
    safe_serialization::{safe_deserialize_conformant, safe_serialize},
    shortint::parameters::CompactPublicKeyEncryptionParameters,
    zk::{CompactPkeCrs, ZkCompactPkeV2PublicParams, new_compact_pke_crs_conformance_params},
};
use veil_protocol_spec::{
    Blake3Digest,
    domain::{self, hash_parts},
};

use crate::{
    curve::{in_first, in_second},
    error::{ReferenceStringError, VERSION},
    powers::Powers,
    size::{BOUND, Bounds, MESSAGES, PADDING, Size},
};

/// Longest accepted file: a string is about 1.6 MB at production size.
const MAX_BYTES: u64 = 64 << 20;

/// A reference string, sized for lists of up to 16 messages of 4 bits.
pub struct ReferenceString {
    crs: CompactPkeCrs,
    digest: Blake3Digest,
}

impl ReferenceString {
    /// Step 6: the string that these powers are, once they are [checked](Powers::check).
    ///
    /// # Errors
    /// [`ReferenceStringError::Size`] if they are too few or too many for the parameters.
    pub fn made_of(
        powers: &Powers,
        parameters: &CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        let (given, needed) = (powers.size().n(), Size::of(parameters)?.n());
        if given != needed {
            return Err(ReferenceStringError::Size { given, needed });
        }
        let Bounds { d, b_inf, q, t } = Bounds::of(parameters)?;
        let (below, above) = powers.first.split_at(needed);
        let punctured = Affine::identity();
        let first = below.iter().chain([&punctured]).chain(above).map(in_first);
        let second = powers.second.iter().map(in_second);
        let foreign = || ReferenceStringError::Tfhe("tfhe does not take a power".to_owned());
        let labels = Labels(powers.digest());
        let [hash, r, t_, w, agg, lmap, phi, xi, z, chi, gamma] =
            core::array::from_fn(|i| labels.bytes(i as u8 + 1));
        let params = ZkCompactPkeV2PublicParams::from_vec(
            first.collect::<Option<_>>().ok_or_else(foreign)?,
            second.collect::<Option<_>>().ok_or_else(foreign)?,
            d,
            MESSAGES,
            b_inf,
            q,
            t,
            PADDING,
            BOUND,
            u128::from_le_bytes(labels.bytes(0)),
            hash,
            r,
            t_,
            w,
            agg,
            lmap,
            phi,
            xi,
            z,
            chi,
            gamma,
        );
        Self::new(params.into())
    }

    /// Makes one with tfhe's generator, alone: for tests and measurements, since **whoever runs this could
    /// forge every proof**. No command calls it.
    ///
    /// # Errors
    /// [`ReferenceStringError::Tfhe`] if the parameters have no proofs.
    pub fn generate_insecure(
        parameters: CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        let crs = CompactPkeCrs::from_shortint_params(parameters, LweCiphertextCount(MESSAGES))
            .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
        Self::new(crs)
    }

    fn new(crs: CompactPkeCrs) -> Result<Self, ReferenceStringError> {
        let bytes = serialize(&crs)?;
        let digest = Blake3Digest(hash_parts(domain::REFERENCE_STRING, &[&bytes]));
        Ok(Self { crs, digest })
    }

    /// Writes it: a version byte, the string in safe serialization.
    ///
    /// # Errors
    /// [`ReferenceStringError::Io`] if `out` does not take it.
    pub fn write(&self, mut out: impl Write) -> Result<(), ReferenceStringError> {
        out.write_all(&[VERSION])?;
        out.write_all(&serialize(&self.crs)?)?;
        Ok(out.flush()?)
    }

    /// Reads what [`write`](Self::write) wrote and checks that it fits `parameters`. Compare the
    /// [`digest`](Self::digest) with the agreed one before use.
    ///
    /// # Errors
    /// [`ReferenceStringError`].
    pub fn read(
        mut input: impl Read,
        parameters: CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        Self::read_from(BufReader::new(&mut input), parameters)
    }

    /// Not generic: what tfhe derives for the string is compiled once, and fully optimised, here.
    fn read_from(
        mut input: BufReader<&mut dyn Read>,
        parameters: CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        let mut version = [0];
        input.read_exact(&mut version)?;
        if version != [VERSION] {
            return Err(ReferenceStringError::Version(version[0]));
        }
        let shape =
            new_compact_pke_crs_conformance_params(parameters, LweCiphertextCount(MESSAGES))
                .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
        let crs = safe_deserialize_conformant(input, MAX_BYTES, &shape)
            .map_err(ReferenceStringError::Refused)?;
        Self::new(crs)
    }

    /// Digest of the string: what is published with the key.
    #[must_use]
    pub const fn digest(&self) -> Blake3Digest {
        self.digest
    }

    /// What tfhe proves and verifies with.
    #[must_use]
    pub const fn crs(&self) -> &CompactPkeCrs {
        &self.crs
    }
}

impl fmt::Debug for ReferenceString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReferenceString({})", self.digest)
    }
}

fn serialize(crs: &CompactPkeCrs) -> Result<Vec<u8>, ReferenceStringError> {
    let mut bytes = Vec::new();
    safe_serialize(crs, &mut bytes, MAX_BYTES)
        .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
    Ok(bytes)
}

/// Session id and domain separators of a string's proofs, "derived from the final digest".
struct Labels(Blake3Digest);

impl Labels {
    fn bytes<const N: usize>(&self, index: u8) -> [u8; N] {
        let hash = hash_parts(domain::REFERENCE_STRING_LABELS, &[&self.0.0, &[index]]);
        core::array::from_fn(|i| hash.get(i).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
