//! Identities, parameters and seeds that are a function of a number.

use std::sync::Arc;

use veil_keygen_ceremony::{
    keyset::ParameterSet,
    seed::CeremonySeed,
    setup::{Setup, Timing},
};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest,
    ParticipantIndex, Slot,
    ceremony::CeremonyParameters,
    identity::SecretIdentity,
    scheduling::{Binding, BlockRef, CircuitId, ClusterScope, Manifest, RolloutChanges},
};

/// The attempt that is simulated; relics are of others.
pub(crate) const ATTEMPT: Attempt = Attempt(1);

/// The cluster of every test.
pub const SCOPE: ClusterScope = ClusterScope {
    chain_id: ChainId(31_337),
    contract: Address([0xc0; 20]),
    cluster: ClusterId([0xc1; 32]),
};

/// 32 bytes for one purpose of one run; independent of everything that the protocol draws.
#[must_use]
pub fn draw(seed: u64, purpose: &str, detail: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("veil v1 tests fixtures");
    hasher.update(&seed.to_le_bytes()).update(&detail.to_le_bytes()).update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A member's identity.
///
/// # Panics
/// If a hash is no secret key: a chance of 2^-128.
#[must_use]
pub fn identity(seed: u64, j: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&draw(seed, "identity", u64::from(j.get())))
        .expect("a hash is a valid secret key, but for a chance of 2^-128")
}

/// A member's ceremony seed.
#[must_use]
pub fn ceremony_seed(seed: u64, j: ParticipantIndex) -> CeremonySeed {
    CeremonySeed::new(draw(seed, "ceremony seed", u64::from(j.get())))
}

/// A ceremony with insecure test parameters.
#[must_use]
pub fn parameters(committee: Committee, seed: u64) -> CeremonyParameters {
    let params = ParameterSet::insecure_short();
    CeremonyParameters {
        committee,
        parameters: params.name().to_owned(),
        parameters_digest: params.digest(),
        roster: committee.participants().map(|j| identity(seed, j).public()).collect(),
        epoch: Epoch(1),
        context: draw(seed, "context", 0),
    }
}

/// What a member of that ceremony is told.
///
/// # Panics
/// Never: the parameters are consistent.
#[must_use]
pub fn setup(
    parameters: &CeremonyParameters,
    attempt: Attempt,
    identity: &SecretIdentity,
    timing: Timing,
) -> Arc<Setup> {
    let params = ParameterSet::insecure_short();
    let setup = Setup::new(parameters.clone(), params, attempt, identity, timing);
    Arc::new(setup.expect("the roster holds this identity and the parameters are these"))
}

/// A manifest without content; `variant` tells two by one proposer apart.
#[must_use]
pub fn manifest(
    binding: Binding,
    slot: Slot,
    proposer: ParticipantIndex,
    variant: u64,
) -> Manifest {
    Manifest {
        binding,
        slot,
        proposer,
        previous: KeccakDigest([1; 32]),
        block: BlockRef { number: variant, hash: KeccakDigest([2; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 0,
        policy: KeccakDigest([3; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
        telemetry: Vec::new(),
        pending: Vec::new(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    }
}
