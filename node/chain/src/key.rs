//! The Ethereum key of an operator: from the environment or an encrypted JSON keystore. Never from a
//! flag, because other users of the machine can read flags.

use std::{
    env,
    path::{Path, PathBuf},
};

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use veil_protocol_spec::Address;
use zeroize::Zeroizing;

/// Environment variable with the key as 64 hexadecimal digits.
const KEY_VARIABLE: &str = "VEIL_CHAIN_KEY";

/// An account's signing key.
///
/// # Security
/// `k256` zeroizes it on drop; `Debug` redacts it.
#[derive(Clone)]
pub struct AccountKey(pub(crate) PrivateKeySigner);

/// Why a key cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum AccountKeyError {
    /// The text or the bytes are not a key.
    #[error("{0} does not hold a key: 64 hexadecimal digits, with or without 0x")]
    Malformed(String),
    /// The keystore cannot be read, decrypted or written.
    #[error("{path}: {detail}: check the file and its passphrase")]
    Keystore { path: PathBuf, detail: String },
    /// The key does not sign, which a sound key does.
    #[error("the account's key does not sign")]
    Signature,
}

impl AccountKey {
    /// From the big-endian bytes of the secret scalar.
    ///
    /// # Errors
    /// [`AccountKeyError::Malformed`] for zero, and for the order of secp256k1 or more.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, AccountKeyError> {
        PrivateKeySigner::from_slice(bytes)
            .map(Self)
            .map_err(|_| AccountKeyError::Malformed("the given value".to_owned()))
    }

    /// From `VEIL_CHAIN_KEY`, if it is set, and not to nothing.
    ///
    /// # Errors
    /// [`AccountKeyError::Malformed`].
    pub fn from_environment() -> Result<Option<Self>, AccountKeyError> {
        let Ok(text) = env::var(KEY_VARIABLE).map(Zeroizing::new) else { return Ok(None) };
        let malformed = || AccountKeyError::Malformed(KEY_VARIABLE.to_owned());
        let mut bytes = Zeroizing::new([0; 32]);
        let digits = text.trim();
        if digits.is_empty() {
            return Ok(None);
        }
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        alloy::hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| malformed())?;
        PrivateKeySigner::from_slice(bytes.as_slice()).map(Self).map(Some).map_err(|_| malformed())
    }

    /// From an encrypted JSON keystore (version 3), as geth, Foundry, ethers, web3j and others write them.
    ///
    /// # Errors
    /// [`AccountKeyError::Keystore`].
    pub fn from_keystore(path: &Path, passphrase: &str) -> Result<Self, AccountKeyError> {
        let failed = |detail: String| AccountKeyError::Keystore { path: path.to_owned(), detail };
        let key = veil_node_keystore::read(path, passphrase).map_err(failed)?;
        let signer = PrivateKeySigner::from_slice(key.as_slice());
        signer.map(Self).map_err(|_| failed("what it holds is no key".to_owned()))
    }

    /// Writes an encrypted JSON keystore, not over an existing file.
    ///
    /// # Errors
    /// [`AccountKeyError::Keystore`].
    pub fn write_keystore(&self, path: &Path, passphrase: &str) -> Result<(), AccountKeyError> {
        let failed = |detail: String| AccountKeyError::Keystore { path: path.to_owned(), detail };
        if path.exists() {
            return Err(failed("it exists already and is not overwritten".to_owned()));
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(failed("not the path of a file".to_owned()));
        };
        let secret = Zeroizing::new(self.0.to_bytes().0);
        let mut rng = rand::rngs::OsRng;
        PrivateKeySigner::encrypt_keystore(folder, &mut rng, secret, passphrase, Some(name))
            .map(drop)
            .map_err(|error| failed(error.to_string()))
    }

    /// Signs a digest: r, s and v.
    ///
    /// # Errors
    /// [`AccountKeyError::Signature`].
    pub fn sign(&self, digest: &[u8; 32]) -> Result<[u8; 65], AccountKeyError> {
        let signed = self.0.sign_hash_sync(&digest.into());
        signed.map(|signed| signed.as_bytes()).map_err(|_| AccountKeyError::Signature)
    }

    /// The account's address.
    #[must_use]
    pub fn address(&self) -> Address {
        Address(self.0.address().0.0)
    }
}

impl core::fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AccountKey(of 0x{}, <redacted>)", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::signer_of;

    #[test]
    fn printing_redacts() {
        let printed = format!("{:?}", AccountKey::from_bytes(&[0x5a; 32]).unwrap());
        assert!(printed.contains("redacted") && !printed.contains("5a5a5a5a"), "{printed}");
        assert!(AccountKey::from_bytes(&[0; 32]).is_err());
    }

    #[test]
    fn a_signature_says_who_made_it() {
        let key = AccountKey::from_bytes(&[7; 32]).unwrap();
        let (digest, other) = ([1; 32], [2; 32]);
        let mut signature = key.sign(&digest).unwrap();
        assert_eq!(signer_of(&digest, &signature), Some(key.address()));
        assert_ne!(signer_of(&other, &signature), Some(key.address()));
        signature[0] ^= 1;
        assert_ne!(signer_of(&digest, &signature), Some(key.address()));
        assert_eq!(signer_of(&digest, &[0; 65]), None);
    }

    #[test]
    fn keystores_open_with_their_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("account.json");
        let written = AccountKey::from_bytes(&[7; 32]).unwrap();
        written.write_keystore(&path, "right").unwrap();
        assert!(written.write_keystore(&path, "right").is_err());
        let key = AccountKey::from_keystore(&path, "right").unwrap();
        assert_eq!(key.address(), written.address());
        assert!(AccountKey::from_keystore(&path, "wrong").is_err());
        assert!(AccountKey::from_keystore(&folder.path().join("missing"), "right").is_err());
    }
}
