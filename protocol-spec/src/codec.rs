//! One codec for everything that is sent, hashed, signed or stored: a version byte, then postcard.
//!
//! Decoding checks, in this order: the size limit, the version, the structure, that no byte is
//! left over, and that encoding the value again gives the same bytes (postcard's varints have more
//! than one spelling; a digest must not).

use serde::{Serialize, de::DeserializeOwned};

/// A type with a versioned, size-limited, canonical encoding.
pub trait Wire: Serialize + DeserializeOwned {
    /// Name used in errors.
    const NAME: &'static str;
    /// First byte of every encoding.
    const VERSION: u8 = 1;
    /// Longest accepted encoding in bytes, version byte included.
    const MAX_BYTES: usize;
    /// Whether decoding refuses a second spelling of a value; only for types that are never hashed
    /// may it not.
    const CHECK_CANONICAL: bool = true;

    /// The canonical encoding.
    fn to_wire(&self) -> Vec<u8> {
        let buffer = vec![Self::VERSION];
        // Serialising these plain data types into memory has no failing path.
        postcard::to_extend(self, buffer).unwrap_or_default()
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

/// Why bytes from outside are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Refused before decoding.
    #[error("{name} of {len} bytes is longer than the {max} allowed")]
    TooLong {
        /// What was expected.
        name: &'static str,
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Written by another version of the protocol.
    #[error("{name} has version {version}; this build speaks {supported}: update the older side")]
    Version {
        /// What was expected.
        name: &'static str,
        /// Version received.
        version: u8,
        /// Version of this build.
        supported: u8,
    },
    /// Truncated, or not the expected structure.
    #[error("{name} is malformed or truncated")]
    Malformed {
        /// What was expected.
        name: &'static str,
    },
    /// Trailing bytes, or a second spelling of the same value.
    #[error("{name} is not in canonical form")]
    NotCanonical {
        /// What was expected.
        name: &'static str,
    },
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
}
