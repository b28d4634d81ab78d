//! The evaluation key: all public key material that a circuit needs, shared between threads.

use core::fmt;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tfhe::{
    CompactPublicKey, ServerKey,
    core_crypto::prelude::LweKeyswitchKeyOwned,
    shortint::{self, noise_squashing::NoiseSquashingKey, parameters::EncryptionKeyChoice},
};
use veil_protocol_spec::{
    Blake3Digest,
    domain::{self, hash_parts},
};

/// Server key, compact public key and squashing key of one key set. Cloning is cheap.
///
/// Nothing here uses tfhe's thread-local server key: every operation is given its key, so several
/// evaluations under different keys may run at once, on any threads.
#[derive(Clone)]
pub struct EvaluationKey {
    parts: Arc<Parts>,
    cancellation: Option<Cancellation>,
}

/// Ends evaluations early; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Every evaluation under a key that listens to it ends within a look-up on each core.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was called for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Parts {
    id: Blake3Digest,
    server_key: shortint::ServerKey,
    public_key: shortint::CompactPublicKey,
    from_public_key: LweKeyswitchKeyOwned<u64>,
    squashing_key: NoiseSquashingKey,
}

/// Why the circuits cannot use a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum KeyError {
    /// Blocks are not of 2 bits of message and 2 bits of carry.
    #[error("blocks of {message} x {carry}: the circuits need 4 x 4; use a parameter set of Veil")]
    Blocks { message: u64, carry: u64 },
    /// A part is not in the key set.
    #[error("the key set has no {0}; use a key set made by a Veil ceremony")]
    Missing(&'static str),
    /// Lists are not switched to the key that circuits compute on.
    #[error(
        "the switch from the public key leads elsewhere than to the blocks' key; use a parameter set of Veil"
    )]
    Switch,
    /// The number of threads would change the result.
    #[error("the key set's bootstrap is not deterministic; use a parameter set of Veil")]
    NotDeterministic,
}

impl EvaluationKey {
    /// From a decompressed key set, `XofKeySet::into_raw_parts`. Give the only copy of the server
    /// key: the parts of a shared one are cloned, which takes hundreds of megabytes.
    ///
    /// # Errors
    /// [`KeyError`] if the circuits cannot run under it.
    pub fn new(public_key: CompactPublicKey, server_key: ServerKey) -> Result<Self, KeyError> {
        let (server_key, from_public_key, _, _, squashing_key, ..) = server_key.into_raw_parts();
        let server_key = server_key.into_raw_parts();
        let (message, carry) = (server_key.message_modulus.0, server_key.carry_modulus.0);
        if (message, carry) != (4, 4) {
            return Err(KeyError::Blocks { message, carry });
        }
        if !server_key.deterministic_execution() {
            return Err(KeyError::NotDeterministic);
        }
        let from_public_key =
            from_public_key.ok_or(KeyError::Missing("public-key switching key"))?;
        // No shift, and to the big key: what comes of it is a block, and needs no look-up to become one.
        let (from_public_key, 0, EncryptionKeyChoice::Big, _) =
            from_public_key.into_raw_parts().into_raw_parts()
        else {
            return Err(KeyError::Switch);
        };
        let squashing_key = squashing_key.ok_or(KeyError::Missing("noise-squashing key"))?;
        let (public_key, _) = public_key.into_raw_parts();
        let public_key = public_key.into_raw_parts();
        let parts = Arc::new(Parts {
            id: public_key_id(&public_key),
            server_key,
            public_key,
            from_public_key,
            squashing_key: squashing_key.into_raw_parts(),
        });
        Ok(Self { parts, cancellation: None })
    }

    /// The same key for evaluations that end early when they are cancelled.
    #[must_use]
    pub fn until(&self, cancellation: Cancellation) -> Self {
        Self { parts: Arc::clone(&self.parts), cancellation: Some(cancellation) }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancellation.as_ref().is_some_and(Cancellation::is_cancelled)
    }

    /// Tells keys apart: a digest of the compact public key.
    #[must_use]
    pub fn id(&self) -> Blake3Digest {
        self.parts.id
    }

    pub(crate) fn server_key(&self) -> &shortint::ServerKey {
        &self.parts.server_key
    }

    pub(crate) fn public_key(&self) -> &shortint::CompactPublicKey {
        &self.parts.public_key
    }

    pub(crate) fn squashing_key(&self) -> &NoiseSquashingKey {
        &self.parts.squashing_key
    }

    /// The switch from the compact public key to the evaluation key.
    pub(crate) fn public_key_switch(&self) -> &LweKeyswitchKeyOwned<u64> {
        &self.parts.from_public_key
    }
}

impl fmt::Debug for EvaluationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvaluationKey({})", self.parts.id)
    }
}

fn public_key_id(public_key: &shortint::CompactPublicKey) -> Blake3Digest {
    let (key, _) = public_key.clone().into_raw_parts();
    let words: Vec<u8> = key.as_ref().iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    Blake3Digest(hash_parts(domain::EVALUATION_KEY, &[&words]))
}
