//! Private payloads of a ceremony, under ephemeral keys.
//!
//! "Private payloads travel under ephemeral keys and a post-quantum hybrid: the FHE key is meant to
//! be post-quantum, so recorded traffic must not give it away later" (`ceremony.md`, step 3).

use veil_committee_sealed::channel::{self, ChannelError, ChannelKey};
use veil_protocol_spec::domain;
use zeroize::Zeroizing;

/// Opens a payload that [`seal`] sealed for `key` with the same associated data.
///
/// # Errors
/// [`ChannelError::Open`].
pub fn open(
    key: &ChannelKey,
    sealed: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
    key.open(sealed, domain::PRIVATE_CHANNEL.as_bytes(), aad)
}

/// Seals a payload for a public key. The same `randomness` gives the same bytes, so that a restarted
/// member repeats its message; it must not be used for anything else.
///
/// # Errors
/// [`ChannelError::PublicKey`].
pub fn seal(
    recipient: &[u8],
    plaintext: &[u8],
    aad: &[u8],
    randomness: &[u8; 32],
) -> Result<Vec<u8>, ChannelError> {
    channel::seal(recipient, plaintext, domain::PRIVATE_CHANNEL.as_bytes(), aad, randomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_a_ceremony_open_as_such_only() {
        let key = ChannelKey::derive(&[1; 32]);
        let sealed = seal(key.public(), b"secret", b"aad", &[3; 32]).unwrap();
        assert_eq!(open(&key, &sealed, b"aad").unwrap().as_slice(), b"secret");
        assert_eq!(open(&key, &sealed, b"other").unwrap_err(), ChannelError::Open);
        let other = domain::DEALT_SHARE.as_bytes();
        assert_eq!(key.open(&sealed, other, b"aad").unwrap_err(), ChannelError::Open);
    }
}
