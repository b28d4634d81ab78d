//! The common reference string (CRS) that telemetry proofs are made and verified with.
//!
//! # Caveats
//! A party that knows the exponent behind a string can prove anything, and a list with a forged
//! proof is a key-extraction oracle. tfhe's own generator draws that exponent on one
//! machine: [`ReferenceString::generate_insecure`] is for development, and [`Origin::SingleParty`]
//! belongs into logs and certificates. The origin written in a file is a claim; what counts is
//! that the digest is the one that the cluster agreed on.

use core::fmt;
use std::io::{BufReader, Read, Write};

use tfhe::{
    core_crypto::prelude::LweCiphertextCount,
    safe_serialization::{safe_deserialize_conformant, safe_serialize},
    shortint::parameters::CompactPublicKeyEncryptionParameters,
    zk::{CompactPkeCrs, new_compact_pke_crs_conformance_params},
};
use veil_protocol_spec::{
    Blake3Digest,
    domain::{self, hash_parts},
};

/// Most messages of a list that it serves: more than any list of today has.
const MESSAGES: usize = 16;
/// Longest accepted file: about 1 MiB at production size.
const MAX_BYTES: u64 = 64 << 20;
/// First byte of the file.
const VERSION: u8 = 1;

/// Who made a reference string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A committee: sound as long as one contributor forgot its secret.
    Committee,
    /// One machine, which could forge every proof. Development only.
    SingleParty,
}

impl Origin {
    const fn byte(self) -> u8 {
        match self {
            Self::Committee => 1,
            Self::SingleParty => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committee => "committee",
            Self::SingleParty => "single-party (INSECURE)",
        })
    }
}

/// A reference string, sized for lists of up to 16 messages of 4 bits.
pub struct ReferenceString {
    crs: CompactPkeCrs,
    origin: Origin,
    digest: Blake3Digest,
}

/// Why a reference string cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceStringError {
    /// tfhe does not make or write it.
    #[error("the reference string cannot be made or written: {0}")]
    Tfhe(String),
    /// The file does not begin as one.
    #[error("this is not a reference string; fetch it again")]
    Malformed,
    /// Another version wrote it.
    #[error("reference string of version {0}, this build reads {VERSION}: update the older side")]
    Version(u8),
    /// It is truncated, too long, or made for other parameters or another list length.
    #[error("the reference string is damaged or made for other parameters: {0}")]
    Refused(String),
    /// The file or the connection fails.
    #[error("the reference string cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
}

impl ReferenceString {
    /// Makes one with tfhe's generator: **this machine then could forge every proof**.
    ///
    /// # Errors
    /// [`ReferenceStringError::Tfhe`] if the parameters have no proofs.
    pub fn generate_insecure(
        parameters: CompactPublicKeyEncryptionParameters,
    ) -> Result<Self, ReferenceStringError> {
        let crs = CompactPkeCrs::from_shortint_params(parameters, LweCiphertextCount(MESSAGES))
            .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
        Self::new(crs, Origin::SingleParty)
    }

    fn new(crs: CompactPkeCrs, origin: Origin) -> Result<Self, ReferenceStringError> {
        let bytes = serialize(&crs)?;
        let digest = Blake3Digest(hash_parts(domain::REFERENCE_STRING, &[&bytes]));
        Ok(Self { crs, origin, digest })
    }

    /// Writes it: a version byte, the origin, the string in safe serialization.
    ///
    /// # Errors
    /// [`ReferenceStringError::Io`] if `out` does not take it.
    pub fn write(&self, mut out: impl Write) -> Result<(), ReferenceStringError> {
        out.write_all(&[VERSION, self.origin.byte()])?;
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
        let mut head = [0; 2];
        input.read_exact(&mut head)?;
        let origin = match head {
            [VERSION, 1] => Origin::Committee,
            [VERSION, 2] => Origin::SingleParty,
            [VERSION, _] => return Err(ReferenceStringError::Malformed),
            [version, _] => return Err(ReferenceStringError::Version(version)),
        };
        let shape =
            new_compact_pke_crs_conformance_params(parameters, LweCiphertextCount(MESSAGES))
                .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
        let crs = safe_deserialize_conformant(input, MAX_BYTES, &shape)
            .map_err(ReferenceStringError::Refused)?;
        Self::new(crs, origin)
    }

    /// Digest of the string, without its origin.
    #[must_use]
    pub const fn digest(&self) -> Blake3Digest {
        self.digest
    }

    /// Who made it, as the file says.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) const fn crs(&self) -> &CompactPkeCrs {
        &self.crs
    }
}

impl fmt::Debug for ReferenceString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReferenceString({}, {})", self.digest, self.origin)
    }
}

fn serialize(crs: &CompactPkeCrs) -> Result<Vec<u8>, ReferenceStringError> {
    let mut bytes = Vec::new();
    safe_serialize(crs, &mut bytes, MAX_BYTES)
        .map_err(|error| ReferenceStringError::Tfhe(error.to_string()))?;
    Ok(bytes)
}
