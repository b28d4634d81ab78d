//! The reference string that telemetry proofs rest on: a file of its own, since workers fetch it. Its bytes
//! are a function of the transcript, so every member makes the file itself, and signs its digest.

use std::{fs, io, path::Path};

use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_storage::durable::replace;
use veil_protocol_spec::{
    Blake3Digest,
    domain::{REFERENCE_STRING, hash_parts},
    publication::ReferenceString,
};
use veil_reference_string::{Powers, ReferenceString as Made};

/// Why there is no reference string.
#[derive(Debug, thiserror::Error)]
#[error("the reference string: {0}")]
pub struct ReferenceStringError(pub String);

/// The file of a string with these powers, and the digest that is published.
///
/// # Errors
/// [`ReferenceStringError`] if the powers are not those of a string for these parameters.
pub(crate) fn file_of(
    params: &ParameterSet,
    powers: &Powers,
) -> Result<(Blake3Digest, Vec<u8>), ReferenceStringError> {
    if !params.makes_proofs() {
        let powers = powers.to_bytes();
        return Ok((Blake3Digest(hash_parts(REFERENCE_STRING, &[&powers])), powers));
    }
    let mut file = Vec::new();
    let made = Made::made_of(powers, params.pke()).map_err(|error| named(&error))?;
    made.write(&mut file).map_err(|error| named(&error))?;
    Ok((made.digest(), file))
}

/// Writes the file of the string that the members made, unless it is there, and names it. The powers are the
/// machine's, which has checked them.
///
/// # Errors
/// [`ReferenceStringError`].
pub(crate) fn keep(
    params: &ParameterSet,
    powers: &[u8],
    path: &Path,
) -> Result<ReferenceString, ReferenceStringError> {
    let powers = Powers::read(params.reference_string(), powers).map_err(|error| named(&error))?;
    let (digest, bytes) = file_of(params, &powers)?;
    let shown = |error: io::Error| named(&format!("{}: {error}", path.display()));
    match fs::read(path) {
        Ok(found) if found == bytes => {}
        _ => replace(path, &bytes).map_err(shown)?,
    }
    let file = Blake3Digest(*blake3::hash(&bytes).as_bytes());
    Ok(ReferenceString { digest, file, bytes: bytes.len() as u64 })
}

fn named(error: &dyn core::fmt::Display) -> ReferenceStringError {
    ReferenceStringError(error.to_string())
}
