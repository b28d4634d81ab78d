//! What the circuit puts out, and what the committee's plaintexts mean.
//!
//! The outcome of a replica is the number of a worker, not one bit for each: with N workers it
//! takes ceil(log16(N + 1)) blocks to squash and decrypt instead of about N/4. Exactly one
//! winner, or none, is then a matter of form; what can be wrong is a number that is no
//! worker's, and [`decode`] refuses it.
//!
//! # Caveats
//! Whoever decrypts learns every outcome. To reveal to each worker its own entry only, the circuit
//! would have to put out the one-hot selection, which it has before it computes the number.

use core::fmt;
use std::collections::BTreeSet;

use rayon::prelude::*;
use tfhe::shortint::ciphertext::SquashedNoiseCiphertext;
use veil_protocol_spec::{
    Blake3Digest, domain,
    scheduling::{Assignment, AssignmentError, Assignments, Manifest, Outcome, ReplicaIndex},
};

use crate::{
    key::EvaluationKey,
    ledger::Ledger,
    lookup::Digit,
    plan::{Plan, PlanError, PublicInputs},
};

/// The encrypted outcome of a slot: [`Plan::output_digits`] digits, by the manifest's pending
/// list, of each replica the least significant first. Or that of an
/// [auction](crate::auction::winner).
pub struct Outputs {
    key: Blake3Digest,
    digits: Vec<Digit>,
    ledger: Ledger,
}

impl Outputs {
    pub(crate) const fn new(key: Blake3Digest, digits: Vec<Digit>, ledger: Ledger) -> Self {
        Self { key, digits, ledger }
    }

    /// The look-ups that were made; those of [`Plan::cost`] or [`crate::auction::cost`].
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
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
        for ciphertext in self.digits.iter().filter_map(Digit::ciphertext) {
            let words: &[u64] = ciphertext.ct.as_ref();
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
        let squash = |ciphertext| {
            key.squashing_key()
                .checked_squash_ciphertext_noise(ciphertext, key.server_key())
                .map_err(|error| SquashError::Tfhe(error.to_string()))
        };
        // Outputs of an evaluation under a key are all encrypted.
        let ciphertexts: Vec<_> = self.digits.iter().filter_map(Digit::ciphertext).collect();
        ciphertexts.into_par_iter().map(squash).collect::<Result<_, _>>().map(SquashedOutputs)
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outputs({} digits under {})", self.digits.len(), self.key)
    }
}

/// Why outputs were not squashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SquashError {
    /// Another key set.
    #[error("the outputs were evaluated under key {expected}, not {found}")]
    OtherKey {
        /// Evaluated under.
        expected: Blake3Digest,
        /// Given.
        found: Blake3Digest,
    },
    /// tfhe refused.
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

/// Why plaintexts are no assignments. Whatever it is, nothing is assigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The manifest cannot be evaluated.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Not as many blocks as the circuit puts out.
    #[error("{found} decrypted blocks, the circuit puts out {expected}: wrong request decrypted?")]
    Count {
        /// Given.
        found: usize,
        /// By the plan.
        expected: usize,
    },
    /// More than 4 bits.
    #[error("decrypted block {0} is no digit of 4 bits")]
    Digit(usize),
    /// No such worker in the manifest.
    #[error("replica {replica} of job {job} is assigned to worker number {number}: there is none")]
    NoSuchWorker {
        /// The job.
        job: Blake3Digest,
        /// The replica.
        replica: ReplicaIndex,
        /// From 1.
        number: usize,
    },
    /// The worker must not take the replica, by public rules.
    #[error("replica {replica} of job {job} is assigned to worker number {number}, no candidate")]
    NoCandidate {
        /// The job.
        job: Blake3Digest,
        /// The replica.
        replica: ReplicaIndex,
        /// From 1.
        number: usize,
    },
    /// Two replicas of a job that keeps them apart.
    #[error("two replicas of job {job} are assigned to worker number {number} against its rules")]
    Together {
        /// The job.
        job: Blake3Digest,
        /// From 1.
        number: usize,
    },
    /// The manifest names a replica twice.
    #[error(transparent)]
    Assignments(#[from] AssignmentError),
}

/// The assignments that decrypted output blocks, each 0 to 15, stand for.
///
/// # Errors
/// [`DecodeError`] if they are not an outcome of this manifest; never a partial result.
pub fn decode(
    manifest: &Manifest,
    public: &PublicInputs,
    blocks: &[u8],
) -> Result<Assignments, DecodeError> {
    decode_plan(manifest, &Plan::new(manifest, public)?, blocks)
}

fn decode_plan(
    manifest: &Manifest,
    plan: &Plan,
    blocks: &[u8],
) -> Result<Assignments, DecodeError> {
    let (found, expected) = (blocks.len(), plan.output_digits());
    if found != expected {
        return Err(DecodeError::Count { found, expected });
    }
    if let Some(index) = blocks.iter().position(|digit| *digit > 0xf) {
        return Err(DecodeError::Digit(index));
    }
    let mut steps: Vec<_> = plan.steps.iter().collect();
    steps.sort_unstable_by_key(|step| step.position);
    let mut numbers = blocks.chunks(plan.digits_per_replica());
    let mut taken = BTreeSet::new();
    let mut assignments = Vec::with_capacity(steps.len());
    for (step, pending) in steps.into_iter().zip(&manifest.pending) {
        let (job, replica) = (pending.job, pending.replica);
        let digits =
            if step.candidates.is_empty() { None } else { numbers.next() }.unwrap_or_default();
        let number = digits.iter().rev().fold(0, |number, digit| number << 4 | usize::from(*digit));
        let outcome = match number.checked_sub(1) {
            None => Outcome::Pending,
            Some(worker) => {
                let entry = manifest.telemetry.get(worker).ok_or(DecodeError::NoSuchWorker {
                    job,
                    replica,
                    number,
                })?;
                if !step.candidates.contains(&worker) {
                    return Err(DecodeError::NoCandidate { job, replica, number });
                }
                if plan.rules(step).hard && !taken.insert((job, plan.rules(step).domains[worker])) {
                    return Err(DecodeError::Together { job, number });
                }
                Outcome::Node(entry.sender)
            }
        };
        assignments.push(Assignment { job, replica, outcome });
    }
    assignments.sort_unstable_by_key(|assignment| (assignment.job, assignment.replica));
    Ok(assignments.try_into()?)
}
