//! Writing, reading and naming key sets: tfhe's safe serialization, streamed.

use std::io::{self, BufWriter, Read, Write};

use tfhe::{
    conformance::ParameterSetConformant,
    safe_serialization::{safe_deserialize, safe_serialize, safe_serialized_size},
    xof_key_set::CompressedXofKeySet,
};
use veil_protocol_spec::{KeySetDigest, domain::KEY_SET_DIGEST};

use super::{layout::Layout, parameters::ParameterSet};

/// Serialization writes word by word; a syscall or a hash update for each would dominate.
const BUFFER_BYTES: usize = 1 << 20;

/// Headers, version tags, parameters, vector lengths: what a stored key set has besides bodies.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// A key set could not be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The file or socket failed.
    #[error("cannot write the key set: {0}")]
    Write(String),
    /// Not a key set of this version of tfhe, truncated, damaged in its structure, or longer than
    /// the limit.
    #[error("not a readable key set: {0}")]
    Malformed(String),
    /// Bytes follow the key set.
    #[error("the key set is followed by more bytes")]
    TrailingBytes,
    /// Made with other parameters.
    #[error("the key set does not have the parameters {name:?}")]
    WrongParameters {
        /// Name of the parameters that were expected.
        name: &'static str,
    },
    /// A key set, but not the one that was asked for.
    #[error("the key set has digest {found}, expected {expected}")]
    WrongDigest {
        /// Digest that was asked for.
        expected: KeySetDigest,
        /// Digest of what was read.
        found: KeySetDigest,
    },
}

/// The longest serialization that a key set of `params` can have, in bytes: its bodies and a
/// little more. A size limit for [`read_key_set`].
#[must_use]
pub fn key_set_size_limit(params: &ParameterSet) -> u64 {
    Layout::of(params).body_bytes() + OVERHEAD_BYTES
}

/// BLAKE3 over the serialization of a key set, as written by [`write_key_set`], under
/// [`KEY_SET_DIGEST`]. Streams: nothing of the size of the key set is allocated.
///
/// # Panics
/// Never: hashing has no failing path.
#[must_use]
pub fn keyset_digest(key_set: &CompressedXofKeySet) -> KeySetDigest {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_SET_DIGEST);
    write_key_set(key_set, &mut hasher).expect("a hasher accepts every byte");
    KeySetDigest(*hasher.finalize().as_bytes())
}

/// Writes a key set in tfhe's versioned safe serialization.
///
/// # Errors
/// [`KeySetError::Write`] if the writer fails.
pub fn write_key_set(
    key_set: &CompressedXofKeySet,
    mut writer: impl Write,
) -> Result<(), KeySetError> {
    write_to(key_set, &mut writer)
}

/// Not generic, like [`read_and_hash`]: what tfhe derives for a key set is a hundred thousand lines of
/// code, which is to be compiled once, and fully optimised, in this crate.
fn write_to(key_set: &CompressedXofKeySet, writer: &mut dyn Write) -> Result<(), KeySetError> {
    let error = |error: &dyn ToString| KeySetError::Write(error.to_string());
    let size = safe_serialized_size(key_set).map_err(|e| error(&e))?;
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, writer);
    safe_serialize(key_set, &mut buffered, size).map_err(|e| error(&e))?;
    buffered.flush().map_err(|e| error(&e))
}

/// Reads what [`write_key_set`] wrote, to the end of `reader`. `size_limit` in bytes bounds both
/// what is read and what is allocated; see [`key_set_size_limit`].
///
/// # Errors
/// [`KeySetError`], except for `Write` and `WrongDigest`. Damage that leaves the structure intact
/// (a flipped bit of a body) is *not* found here: use [`read_key_set_with_digest`] wherever the
/// digest is known.
pub fn read_key_set(
    mut reader: impl Read,
    size_limit: u64,
    params: &ParameterSet,
) -> Result<CompressedXofKeySet, KeySetError> {
    read_and_hash(&mut reader, size_limit, params).map(|(key_set, _)| key_set)
}

/// Reads a key set of which the digest is known.
///
/// # Errors
/// [`KeySetError`], except for `Write`; any flipped bit is found.
pub fn read_key_set_with_digest(
    mut reader: impl Read,
    size_limit: u64,
    params: &ParameterSet,
    expected: &KeySetDigest,
) -> Result<CompressedXofKeySet, KeySetError> {
    let (key_set, found) = read_and_hash(&mut reader, size_limit, params)?;
    if found == *expected {
        Ok(key_set)
    } else {
        Err(KeySetError::WrongDigest { expected: *expected, found })
    }
}

fn read_and_hash(
    reader: &mut dyn Read,
    size_limit: u64,
    params: &ParameterSet,
) -> Result<(CompressedXofKeySet, KeySetDigest), KeySetError> {
    let hashing = HashingReader {
        inner: reader.take(size_limit.saturating_add(1)),
        hasher: blake3::Hasher::new_derive_key(KEY_SET_DIGEST),
    };
    let mut buffered = io::BufReader::with_capacity(BUFFER_BYTES, hashing);
    let key_set: CompressedXofKeySet =
        safe_deserialize(&mut buffered, size_limit).map_err(KeySetError::Malformed)?;
    let mut next = [0];
    match buffered.read(&mut next) {
        Ok(0) => {}
        Ok(_) => return Err(KeySetError::TrailingBytes),
        Err(error) => return Err(KeySetError::Malformed(error.to_string())),
    }
    if !key_set.is_conformant(&params.config()) {
        return Err(KeySetError::WrongParameters { name: params.name() });
    }
    // Everything was consumed, so the read-ahead of the buffer hashed no byte too many.
    let hasher = buffered.into_inner().hasher;
    Ok((key_set, KeySetDigest(*hasher.finalize().as_bytes())))
}

struct HashingReader<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
