//! What winners learn of an encrypted request: the limits in clear, and what the request was encrypted with.
//!
//! # Flow
//! 1. The operator draws a [`RequestSeed`], and encrypts the limits, in the cluster's scale, with the
//!    [randomness](RequestSeed::randomness) that follows from it: the same seed gives the same ciphertexts.
//! 2. The [`EncryptedRequest`] in the body commits to limits and seed; both are in the sealed part.
//! 3. A winner compares the opened limits with the commitment, encrypts again, and compares with the list.
//!
//! # Evidence
//! Who shows limits and seed that fit the commitment and give another list has shown that the operator encrypted
//! something else. Of an operator whose list agrees there is no such pair, so nothing of its limits can be asked for in
//! the name of evidence.

use core::fmt;

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    domain::{REQUEST_COMMITMENT, REQUEST_RANDOMNESS, hash_parts},
    ids::Blake3Digest,
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    job::JobSpec,
    proven::ProofMetadata,
    quantities::{Quantities, Scale},
    request::{EncryptedRequest, ResourceRequest},
    resources::{RequestTooLarge, Resource, Resources},
};

/// What an encrypted request was encrypted with.
///
/// # Security
/// Whoever has it opens the request by trying all quantities: redacted, zeroized on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct RequestSeed([u8; 32]);

impl RequestSeed {
    /// From 32 random bytes that are used for nothing else.
    #[must_use]
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the encryption draws from.
    #[must_use]
    pub fn randomness(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(hash_parts(REQUEST_RANDOMNESS, &[&self.0]))
    }
}

impl fmt::Debug for RequestSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestSeed(<redacted>)")
    }
}

/// The limits of a job whose request is encrypted, and what it was encrypted with.
///
/// # Security
/// In clear this is what an encrypted request keeps secret: redacted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRequest {
    /// What each replica gets.
    pub limits: Resources,
    /// What they were encrypted with.
    pub seed: RequestSeed,
}

impl fmt::Debug for SealedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedRequest(<redacted>)")
    }
}

impl SealedRequest {
    /// Binds limits and seed to what the proof of the list binds: operator, nonce, cluster and key set. The seed hides the
    /// limits.
    #[must_use]
    pub fn commitment(&self, metadata: &ProofMetadata) -> Blake3Digest {
        let Resources { cpu, memory, disk, gpu } = self.limits;
        let mut limits = Zeroizing::new([0; 8]);
        let units = [cpu.0, memory.0, disk.0, gpu.0];
        for (place, units) in limits.chunks_exact_mut(2).zip(units) {
            place.copy_from_slice(&units.to_le_bytes());
        }
        let parts: [&[u8]; 3] = [metadata.as_bytes(), &*limits, self.seed.expose()];
        Blake3Digest(hash_parts(REQUEST_COMMITMENT, &parts))
    }

    /// What the circuit is to be given, in a scale.
    ///
    /// # Errors
    /// [`RequestTooLarge`].
    pub fn quantities(&self, scale: &Scale) -> Result<Quantities, RequestTooLarge> {
        scale.request(&self.limits)
    }

    /// Whether a job's encrypted request commits to it.
    #[must_use]
    pub fn is_committed_to(&self, job: &JobSpec) -> bool {
        let ResourceRequest::Encrypted(EncryptedRequest { commitment, .. }) = &job.request else {
            return false;
        };
        job.request_metadata().is_some_and(|metadata| self.commitment(&metadata) == *commitment)
    }
}

/// The resource of which a request takes the most units; of those that take as many, the first.
#[must_use]
pub fn dominant(quantities: &Quantities) -> Resource {
    let mut largest = (Resource::Cpu, 0);
    for (resource, units) in Resource::ALL.into_iter().zip(quantities.to_array()) {
        if units > largest.1 {
            largest = (resource, units);
        }
    }
    largest.0
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec_base::ids::KeySetDigest;

    use super::*;
    use crate::{
        arbitrary::job,
        proven::ProvenList,
        resources::{CpuUnits, MemoryUnits},
    };

    fn sealed() -> SealedRequest {
        let limits =
            Resources { cpu: CpuUnits(7), memory: MemoryUnits(12), ..Resources::default() };
        SealedRequest { limits, seed: RequestSeed::new([9; 32]) }
    }

    fn encrypted(of: &SealedRequest) -> JobSpec {
        let mut job = job();
        let (key_set, dominant) = (KeySetDigest([3; 32]), Resource::Memory);
        let metadata = ProofMetadata::for_request(&job.scope, &key_set, &job.operator, job.nonce);
        let list = ProvenList::new(vec![1]).unwrap();
        let commitment = of.commitment(&metadata);
        let request =
            EncryptedRequest { key_set, scale: Scale::FINEST, dominant, commitment, list };
        job.request = ResourceRequest::Encrypted(request);
        job
    }

    #[test]
    fn a_job_commits_to_one_pair_of_limits_and_seed() {
        let job = encrypted(&sealed());
        assert!(sealed().is_committed_to(&job));
        let changes: [fn(&mut SealedRequest); 3] = [
            |of| of.limits.cpu.0 += 1,
            |of| of.limits.gpu.0 += 1,
            |of| of.seed = RequestSeed::new([8; 32]),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut changed = sealed();
            change(&mut changed);
            assert!(!changed.is_committed_to(&job), "{i}");
        }
        // Another submission has another commitment, so no two of them show that limits are the same.
        let mut later = job.clone();
        later.nonce += 1;
        assert!(!sealed().is_committed_to(&later));
        assert!(!sealed().is_committed_to(&crate::arbitrary::job()), "in clear");
    }

    #[test]
    fn nothing_of_limits_or_seed_is_printed() {
        let printed = format!("{:?} {:?}", sealed(), sealed().seed);
        assert_eq!(printed, "SealedRequest(<redacted>) RequestSeed(<redacted>)");
    }

    #[test]
    fn the_dominant_resource_takes_most_units() {
        let of = |units| dominant(&Quantities::from_array(units).unwrap());
        assert_eq!(of([5, 8, 1, 0]), Resource::Memory);
        assert_eq!(of([5, 5, 5, 5]), Resource::Cpu);
        assert_eq!(of([0, 0, 0, 1]), Resource::Gpu);
    }
}
