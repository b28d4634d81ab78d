//! What a worker keeps of what it has opened: step 9 of `sealed.md`.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use veil_protocol_spec::{
    Blake3Digest, Wire,
    domain::{KEPT_CONTENTS, hash_parts},
    identity::SecretIdentity,
    scheduling::{ClusterScope, SealedContents},
};
use zeroize::Zeroizing;

use crate::seal::{pad, unpad};

/// First byte of what is kept.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// Encrypts under a worker's identity: "a rebooted worker starts its containers from what it keeps encrypted under its
/// identity, without asking the committee".
///
/// # Security
/// The cipher zeroizes its key on drop; never printed. Whoever has the worker's identity can open what is kept.
pub struct Keeper(XChaCha20Poly1305);

impl core::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keeper(<redacted>)")
    }
}

/// Bytes are not what this identity kept for this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what was kept of the sealed part is damaged, or of another identity or job: the committee is asked again"
)]
pub struct NotKept;

impl Keeper {
    /// Of a worker in a cluster.
    #[must_use]
    pub fn new(identity: &SecretIdentity, scope: &ClusterScope) -> Self {
        let secret = identity.expose();
        let parts: [&[u8]; 4] = [
            &*secret,
            &scope.chain_id.0.to_le_bytes(),
            scope.contract.as_bytes(),
            scope.cluster.as_bytes(),
        ];
        let key = Zeroizing::new(hash_parts(KEPT_CONTENTS, &parts));
        Self(XChaCha20Poly1305::new(&(*key).into()))
    }

    /// The contents of a job, encrypted; `nonce` is random.
    #[must_use]
    pub fn keep(
        &self,
        job: &Blake3Digest,
        contents: &SealedContents,
        nonce: &[u8; NONCE_BYTES],
    ) -> Vec<u8> {
        let padded = pad(contents);
        let payload = Payload { msg: &padded, aad: job.as_bytes() };
        // Fails only for messages of many gigabytes.
        let ciphertext = self.0.encrypt(&(*nonce).into(), payload).unwrap_or_default();
        [&[VERSION], nonce.as_slice(), &ciphertext].concat()
    }

    /// What was kept for a job.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn open(&self, job: &Blake3Digest, kept: &[u8]) -> Result<SealedContents, NotKept> {
        let kept = kept.strip_prefix(&[VERSION]).ok_or(NotKept)?;
        let (nonce, msg) = kept.split_first_chunk::<NONCE_BYTES>().ok_or(NotKept)?;
        let padded = self.0.decrypt(&(*nonce).into(), Payload { msg, aad: job.as_bytes() });
        let padded = Zeroizing::new(padded.map_err(|_| NotKept)?);
        let encoded = unpad(&padded).ok_or(NotKept)?;
        SealedContents::from_wire(encoded).map_err(|_| NotKept)
    }
}
