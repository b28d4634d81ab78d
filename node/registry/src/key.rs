//! Public keys of those who sign images.

use core::fmt;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use veil_protocol_spec::hex;

/// RFC 5480: a `SubjectPublicKeyInfo` of an uncompressed point of P-256, up to the point.
const PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT: usize = 65;
const UNCOMPRESSED: u8 = 4;
/// No key in PEM is longer.
const MAX_BYTES: usize = 4096;

/// A public key of P-256.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageKey([u8; POINT]);

/// Why a key is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is in it.
    #[error(
        "{}: no public key of ECDSA with P-256 in PEM (`-----BEGIN PUBLIC KEY-----`), as \
         `cosign generate-key-pair` writes it to cosign.pub", path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl ImageKey {
    /// From a file such as `cosign.pub`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(file)?;
        Self::from_pem(&bytes).ok_or_else(|| KeyError::Form { path: path.to_owned() })
    }

    /// A `SubjectPublicKeyInfo` in PEM.
    #[must_use]
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let text = core::str::from_utf8(text).ok()?.trim();
        let inner = text.strip_prefix("-----BEGIN PUBLIC KEY-----")?;
        let inner = inner.strip_suffix("-----END PUBLIC KEY-----")?;
        let digits: String = inner.split_ascii_whitespace().collect();
        let point: [u8; POINT] =
            STANDARD.decode(digits).ok()?.strip_prefix(&PREFIX)?.try_into().ok()?;
        (point[0] == UNCOMPRESSED).then_some(Self(point))
    }

    /// Whether it has made this signature, which is in DER, of `message`.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }

    /// Which it is.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageKey({})", self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl ecparam -genkey -name prime256v1 | openssl ec -pubout`.
    const PEM: &str = include_str!("../tests/p256.pub");

    #[test]
    fn a_key_of_p_256_is_read_and_nothing_else() {
        let key = ImageKey::from_pem(PEM.as_bytes()).unwrap();
        assert!(key.to_hex().starts_with("04"), "{key:?}");
        assert_eq!(ImageKey::from_pem(PEM.replace('\n', "\r\n").as_bytes()), Some(key));
        let secp256k1 = include_str!("../tests/secp256k1.pub");
        let private = PEM.replace("PUBLIC", "PRIVATE");
        let cut = PEM.replacen("MFkw", "MFk", 1);
        for wrong in ["", secp256k1, &private, &cut, &PEM[1..], &PEM.repeat(2), &" ".repeat(5000)] {
            assert_eq!(ImageKey::from_pem(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_without_a_key_is_named() {
        let error = ImageKey::read(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.starts_with("Cargo.toml: no public key"), "{error}");
        let error = ImageKey::read(Path::new("no-such-key.pub")).unwrap_err().to_string();
        assert!(error.starts_with("no-such-key.pub: "), "{error}");
    }
}
