//! What the circuit puts out; [`decode`](veil_scheduler_plan::outcome::decode) says what its digits mean.
//!
//! # Caveats
//! The committee learns every outcome. To reveal to each worker its own entry only, the circuit
//! would have to put out the one-hot selection, which it has before it computes the number.

use core::fmt;

use rayon::prelude::*;
use tfhe::shortint::ciphertext::SquashedNoiseCiphertext;
use veil_protocol_spec::{Blake3Digest, domain, scheduling::Manifest};
use veil_scheduler_plan::cost::Cost;

use crate::{encrypted::EncryptedDigit, key::EvaluationKey};

/// The encrypted outcome of a slot:
/// [`Plan::output_digits`](veil_scheduler_plan::plan::Plan::output_digits) digits, by the
/// manifest's pending list, of each replica the least significant first. Or that of an
/// [auction](crate::auction::winner).
pub struct Outputs {
    key: Blake3Digest,
    digits: Vec<EncryptedDigit>,
    cost: Cost,
}

impl Outputs {
    pub(crate) const fn new(key: Blake3Digest, digits: Vec<EncryptedDigit>, cost: Cost) -> Self {
        Self { key, digits, cost }
    }

    /// The outcome where there is no worker to choose from: nothing to open.
    #[must_use]
    pub fn nothing(key: &EvaluationKey) -> Self {
        Self::new(key.id(), Vec::new(), Cost::default())
    }

    /// The look-ups that were made; those of
    /// [`Plan::cost`](veil_scheduler_plan::plan::Plan::cost) or [`crate::auction::cost`].
    #[must_use]
    pub const fn cost(&self) -> &Cost {
        &self.cost
    }

    /// Number of blocks to squash and to decrypt.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digits.len()
    }

    /// Whether the slot's outcome is public without decryption.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }

    /// What two evaluators compare: over the manifest, which names the circuit, the key, and
    /// every word of the ciphertexts.
    #[must_use]
    pub fn digest(&self, manifest: &Manifest) -> Blake3Digest {
        self.digest_under(&manifest.digest())
    }

    pub(crate) fn digest_under(&self, agreed: &Blake3Digest) -> Blake3Digest {
        let mut hasher = blake3::Hasher::new_derive_key(domain::CIRCUIT_OUTPUTS);
        hasher.update(agreed.as_bytes());
        hasher.update(self.key.as_bytes());
        hasher.update(&(self.digits.len() as u64).to_le_bytes());
        for digit in &self.digits {
            let words: &[u64] = digit.value().0.ct.as_ref();
            hasher.update(&(words.len() as u64).to_le_bytes());
            for word in words {
                hasher.update(&word.to_le_bytes());
            }
        }
        Blake3Digest(*hasher.finalize().as_bytes())
    }

    /// Squashes the noise of every digit, on all cores: what the committee decrypts.
    ///
    /// # Errors
    /// [`SquashError`] if `key` is not the one that the outputs were evaluated with.
    pub fn squash(&self, key: &EvaluationKey) -> Result<SquashedOutputs, SquashError> {
        if self.key != key.id() {
            return Err(SquashError::OtherKey { expected: self.key, found: key.id() });
        }
        let squash = |digit: &EncryptedDigit| {
            key.squashing_key()
                .checked_squash_ciphertext_noise(&digit.value().0, key.server_key())
                .map_err(|error| SquashError::Tfhe(error.to_string()))
        };
        self.digits.par_iter().map(squash).collect::<Result<_, _>>().map(SquashedOutputs)
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outputs({} digits under {})", self.digits.len(), self.key)
    }
}

/// Why outputs were not squashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum SquashError {
    /// The outputs are evaluated under another key set.
    #[error("the outputs were evaluated under key {expected}, not {found}")]
    OtherKey { expected: Blake3Digest, found: Blake3Digest },
    /// tfhe does not squash.
    #[error("tfhe did not squash: {0}")]
    Tfhe(String),
}

/// Squashed output digits in order, each one block of 4 bits.
#[derive(Clone, Debug)]
pub struct SquashedOutputs(Vec<SquashedNoiseCiphertext>);

impl SquashedOutputs {
    /// The ciphertexts, for `keyset::squashed_blocks` of the key generation crate.
    pub fn as_slice(&self) -> &[SquashedNoiseCiphertext] {
        &self.0
    }
}
