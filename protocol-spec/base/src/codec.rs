//! One codec for everything that is sent, hashed, signed or stored: a version byte, then postcard.
//!
//! Decoding checks, in this order: the size limit, the version, the structure, that no byte is
//! left over, and that encoding the value again gives the same bytes (postcard's varints have more
//! than one spelling; a digest must not).

use core::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ids::{hex, read_hex};

/// A type with a versioned, size-limited, canonical encoding.
pub trait Wire: Serialize + DeserializeOwned {
    /// Name used in errors.
    const NAME: &'static str;
    /// First byte of every encoding.
    const VERSION: u8 = 1;
    /// Longest accepted encoding in bytes, version byte included.
    const MAX_BYTES: usize;
    /// Whether decoding refuses a second spelling of a value. Only a type that is never hashed may
    /// say no.
    const CHECK_CANONICAL: bool = true;

    /// The canonical encoding.
    ///
    /// # Panics
    /// If the type's `Serialize` fails, as one without a known length does. None of the protocol's
    /// does; a default in its place would give all values one digest.
    fn to_wire(&self) -> Vec<u8> {
        encode_after(vec![Self::VERSION], self)
    }

    /// Parses a canonical encoding.
    ///
    /// # Errors
    /// Every way in which the bytes are not one, see [`CodecError`].
    fn from_wire(bytes: &[u8]) -> Result<Self, CodecError> {
        let name = Self::NAME;
        if bytes.len() > Self::MAX_BYTES {
            return Err(CodecError::TooLong { name, len: bytes.len(), max: Self::MAX_BYTES });
        }
        let (&version, body) = bytes.split_first().ok_or(CodecError::Malformed { name })?;
        if version != Self::VERSION {
            return Err(CodecError::Version { name, version, supported: Self::VERSION });
        }
        let (value, rest) =
            postcard::take_from_bytes::<Self>(body).map_err(|_| CodecError::Malformed { name })?;
        if !rest.is_empty() || Self::CHECK_CANONICAL && value.to_wire() != bytes {
            return Err(CodecError::NotCanonical { name });
        }
        Ok(value)
    }
}

/// The postcard encoding of a value of the protocol, for digests that no [`Wire`] type gives.
///
/// # Panics
/// As of [`Wire::to_wire`].
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_after(Vec::new(), value)
}

fn encode_after<T: Serialize + ?Sized>(buffer: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, buffer).expect("plain data of known length is written into memory")
}

/// Why bytes from outside are not the expected message, which `name` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CodecError {
    /// The bytes are refused before decoding.
    #[error("{name} of {len} bytes is longer than the {max} allowed")]
    TooLong { name: &'static str, len: usize, max: usize },
    /// Another version of the protocol wrote them.
    #[error("{name} has version {version}; this build speaks {supported}: update the older side")]
    Version { name: &'static str, version: u8, supported: u8 },
    /// They are truncated, or have another structure.
    #[error("{name} is malformed or truncated")]
    Malformed { name: &'static str },
    /// Bytes are left over, or the value has another, canonical spelling.
    #[error("{name} is not in canonical form")]
    NotCanonical { name: &'static str },
}

/// For the tests of message types: `value` survives the round trip; every truncation, a trailing byte and
/// another version are refused.
///
/// # Panics
/// If one of these does not hold.
pub fn assert_wire<T: Wire + fmt::Debug + PartialEq>(value: &T) {
    let bytes = value.to_wire();
    assert_eq!(T::from_wire(&bytes).as_ref(), Ok(value));
    for len in 0..bytes.len() {
        assert!(T::from_wire(&bytes[..len]).is_err(), "{} cut to {len} bytes", T::NAME);
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert_eq!(T::from_wire(&trailing), Err(CodecError::NotCanonical { name: T::NAME }));
    for version in [T::VERSION + 1, T::VERSION - 1] {
        let mut other = bytes.clone();
        other[0] = version;
        assert!(matches!(T::from_wire(&other), Err(CodecError::Version { .. })));
    }
}

/// Bytes that serde treats as one piece; hexadecimal for people (JSON).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&hex(&self.0));
        }
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                let mut bytes = vec![0; text.len() / 2];
                read_hex(text, &mut bytes).map_err(E::custom)?;
                Ok(Bytes(bytes))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample(u32);

    impl Wire for Sample {
        const NAME: &'static str = "Sample";
        const MAX_BYTES: usize = 6;
    }

    #[test]
    fn only_the_canonical_encoding_is_accepted() {
        assert_eq!(Sample::from_wire(&Sample(5).to_wire()), Ok(Sample(5)));
        assert_eq!(
            Sample::from_wire(&[1, 0x85, 0]),
            Err(CodecError::NotCanonical { name: "Sample" })
        );
        assert_eq!(Sample::from_wire(&[1, 5, 0]), Err(CodecError::NotCanonical { name: "Sample" }));
        assert_eq!(Sample::from_wire(&[]), Err(CodecError::Malformed { name: "Sample" }));
        assert_eq!(Sample::from_wire(&[1]), Err(CodecError::Malformed { name: "Sample" }));
        assert!(matches!(Sample::from_wire(&[2, 5]), Err(CodecError::Version { version: 2, .. })));
        assert!(matches!(Sample::from_wire(&[0; 7]), Err(CodecError::TooLong { len: 7, .. })));
    }

    #[test]
    fn bytes_are_hexadecimal_for_people() {
        let bytes = Bytes(vec![0, 0xab, 7]);
        let json = serde_json::to_string(&bytes).unwrap();
        assert_eq!(json, "\"00ab07\"");
        assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        for wrong in ["\"0\"", "\"0g\"", "[0]"] {
            assert!(serde_json::from_str::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }
}
