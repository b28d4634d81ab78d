//! What can be wrong with a string.

/// First byte of a string's file.
pub(crate) const VERSION: u8 = 2;

/// Why a reference string cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceStringError {
    /// tfhe does not make or write it.
    #[error("the reference string cannot be made or written: {0}")]
    Tfhe(String),
    /// These powers are for another size of lists.
    #[error("a string of {given} powers, while these parameters need {needed}")]
    Size {
        /// Powers given.
        given: usize,
        /// Powers that the parameters need.
        needed: usize,
    },
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

/// Why a contribution or a string is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too few or too many bytes.
    #[error("{given} bytes of powers instead of {expected}")]
    Length {
        /// How many came.
        given: usize,
        /// How many the size demands.
        expected: usize,
    },
    /// A power is no point of its curve, or not in the group of prime order (which the neutral element,
    /// a power of zero, is kept out of as well).
    #[error("power {0} is not in the group")]
    Point(usize),
    /// The proof does not show that the first powers are those before, raised by one exponent that
    /// the contributor knows.
    #[error("the proof does not fit the first powers")]
    Proof,
    /// They are not the powers of one exponent.
    #[error("they are not the powers of one exponent")]
    NotPowers,
}
