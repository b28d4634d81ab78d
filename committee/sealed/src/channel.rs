//! HPKE (RFC 9180) with X-Wing (X25519 + ML-KEM-768), HKDF-SHA256 and ChaCha20-Poly1305, base mode.
//!
//! "Post-quantum hybrid keys": recorded traffic must not give away later what is closed today. The info string names
//! the purpose, so that nothing that was sealed for one opens for another.

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::XWing, setup_receiver, setup_sender_with_rng,
};
use rand_chacha_10::{ChaCha20Rng, rand_core::SeedableRng};
use zeroize::Zeroizing;

/// Bytes of an encapsulated key.
const ENCAPSULATED: usize = 1120;
/// Bytes of an encapsulation key.
pub const PUBLIC_KEY: usize = 1216;

/// A decapsulation key.
///
/// # Security
/// The KEM's secret zeroizes itself on drop; never printed.
pub struct ChannelKey {
    secret: <XWing as Kem>::PrivateKey,
    public: Vec<u8>,
}

/// Why a private payload cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not an X-Wing public key.
    #[error("not an X-Wing encapsulation key")]
    PublicKey,
    /// Truncated, altered, or meant for someone else.
    #[error("the private payload does not decrypt")]
    Open,
}

impl core::fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ChannelKey(<redacted>)")
    }
}

impl ChannelKey {
    /// The key pair of a 32-byte seed.
    #[must_use]
    pub fn derive(seed: &[u8; 32]) -> Self {
        let (secret, public) = XWing::derive_keypair(seed);
        Self { secret, public: public.to_bytes().to_vec() }
    }

    /// The encapsulation key: [`PUBLIC_KEY`] bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Opens a payload sealed for this key with the same info string and associated data.
    ///
    /// # Errors
    /// [`ChannelError::Open`].
    pub fn open(
        &self,
        sealed: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
        let (encapsulated, ciphertext) =
            sealed.split_at_checked(ENCAPSULATED).ok_or(ChannelError::Open)?;
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| ChannelError::Open)?;
        let mut context = setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.secret,
            &encapsulated,
            info,
        )
        .map_err(|_| ChannelError::Open)?;
        context.open(ciphertext, aad).map(Zeroizing::new).map_err(|_| ChannelError::Open)
    }
}

/// Seals a payload for a public key: encapsulated key, then ciphertext. The same `randomness` gives
/// the same bytes, so that a restarted member repeats its message; it must not be used for
/// anything else.
///
/// # Errors
/// [`ChannelError::PublicKey`].
pub fn seal(
    recipient: &[u8],
    plaintext: &[u8],
    info: &[u8],
    aad: &[u8],
    randomness: &[u8; 32],
) -> Result<Vec<u8>, ChannelError> {
    let recipient =
        <XWing as Kem>::PublicKey::from_bytes(recipient).map_err(|_| ChannelError::PublicKey)?;
    let mut rng = ChaCha20Rng::from_seed(*randomness);
    let (encapsulated, mut context) = setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeS::Base,
        &recipient,
        info,
        &mut rng,
    )
    .map_err(|_| ChannelError::PublicKey)?;
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend(context.seal(plaintext, aad).map_err(|_| ChannelError::PublicKey)?);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recipient_opens_and_only_with_the_same_data() {
        let (key, other) = (ChannelKey::derive(&[1; 32]), ChannelKey::derive(&[2; 32]));
        let sealed = seal(key.public(), b"secret", b"info", b"aad", &[3; 32]).unwrap();
        assert_eq!(sealed, seal(key.public(), b"secret", b"info", b"aad", &[3; 32]).unwrap());
        assert_eq!(key.open(&sealed, b"info", b"aad").unwrap().as_slice(), b"secret");
        assert_eq!(key.open(&sealed, b"info", b"other").unwrap_err(), ChannelError::Open);
        assert_eq!(key.open(&sealed, b"other", b"aad").unwrap_err(), ChannelError::Open);
        assert_eq!(other.open(&sealed, b"info", b"aad").unwrap_err(), ChannelError::Open);
        for at in [0, ENCAPSULATED - 1, ENCAPSULATED, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let opened = key.open(&changed, b"info", b"aad");
            assert_eq!(opened.unwrap_err(), ChannelError::Open, "byte {at}");
        }
        assert_eq!(key.open(&sealed[..50], b"info", b"aad").unwrap_err(), ChannelError::Open);
        let short = seal(b"short", b"", b"", b"", &[0; 32]);
        assert_eq!(short.unwrap_err(), ChannelError::PublicKey);
        assert_eq!(key.public().len(), PUBLIC_KEY);
        assert!(!format!("{key:?}").contains("0x"), "printing redacts");
    }
}
