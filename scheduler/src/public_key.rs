//! The compact public key by itself: all that a worker needs which only encrypts.

use tfhe::{
    CompactPublicKey,
    safe_serialization::{safe_deserialize_conformant, safe_serialize},
    shortint::parameters::CompactPublicKeyEncryptionParameters,
};

/// Longest serialization; at production size a key has 32 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// Why bytes are no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no compact public key of these parameters: {0}")]
pub struct InvalidPublicKey(String);

/// As [`read_public_key`] takes it. Equal keys give equal bytes.
///
/// # Errors
/// [`InvalidPublicKey`] if the key is longer than any of Veil's.
pub fn write_public_key(key: &CompactPublicKey) -> Result<Vec<u8>, InvalidPublicKey> {
    let mut bytes = Vec::new();
    safe_serialize(key, &mut bytes, MAX_BYTES)
        .map_err(|error| InvalidPublicKey(error.to_string()))?;
    Ok(bytes)
}

/// Whose key it is, the bytes do not say: the caller has them from who knows.
///
/// # Errors
/// [`InvalidPublicKey`].
pub fn read_public_key(
    bytes: &[u8],
    parameters: &CompactPublicKeyEncryptionParameters,
) -> Result<CompactPublicKey, InvalidPublicKey> {
    let mut rest = bytes;
    let key =
        safe_deserialize_conformant(&mut rest, MAX_BYTES, parameters).map_err(InvalidPublicKey)?;
    if rest.is_empty() { Ok(key) } else { Err(InvalidPublicKey("more bytes follow".to_owned())) }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use veil_keygen_ceremony::keyset::{Layout, ParameterSet, assemble, reference};
    use veil_protocol_spec::Committee;

    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was_and_nothing_else_is_one() {
        let parameters = ParameterSet::insecure_test();
        let layout = Layout::of(&parameters);
        let clear = reference::ClearKeys::random(&layout, &mut StdRng::seed_from_u64(1));
        let bodies = reference::bodies(&parameters, &layout, &[1; 32], &clear, &[2; 32]);
        let key_set = assemble(&parameters, [1; 32], bodies).unwrap();
        let (key, _) = key_set.decompress().into_raw_parts();
        let bytes = write_public_key(&key).unwrap();
        let back = read_public_key(&bytes, parameters.pke()).unwrap();
        assert_eq!(write_public_key(&back).unwrap(), bytes);

        let production = ParameterSet::production(Committee::new(4).unwrap());
        assert!(read_public_key(&bytes, production.pke()).is_err(), "of other parameters");
        let more = [&bytes[..], &[0]].concat();
        for wrong in [&bytes[..bytes.len() - 1], &bytes[1..], &more, &[]] {
            assert!(read_public_key(wrong, parameters.pke()).is_err(), "{} bytes", wrong.len());
        }
    }
}
