//! Manifests and jobs made up for figures.

use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        ALL_CANDIDATES, AntiAffinity, Binding, BlockRef, ClusterScope, Constraints, FailureDomain,
        JobSpec, Manifest, PendingReplica, ResourceRequest, RolloutChanges, SchedulingPolicy,
        Strength, TelemetryEntry,
    },
};
use veil_scheduler::circuit_id;

/// The cluster that everything is for.
#[must_use]
pub const fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        },
        key_set: KeySetDigest([3; 32]),
        epoch: Epoch(1),
    }
}

/// The worker at a position of the telemetry.
#[must_use]
pub fn worker(position: usize) -> PeerIdHash {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(position as u64).to_be_bytes());
    PeerIdHash(id)
}

/// A job; `nonce` tells it from others with the same request.
///
/// # Panics
/// Never: the image reference is valid.
#[must_use]
pub fn job(
    nonce: u64,
    request: ResourceRequest,
    replicas: u16,
    policy: SchedulingPolicy,
    apart: Option<Strength>,
) -> JobSpec {
    let image = format!("localhost/app@sha256:{}", "ab".repeat(32));
    JobSpec {
        replicas,
        policy,
        constraints: Constraints {
            anti_affinity: apart
                .map(|strength| AntiAffinity { strength, domain: FailureDomain::Worker }),
            ..Constraints::default()
        },
        ..JobSpec::new(
            binding().scope,
            Address([5; 20]),
            nonce,
            "app".parse().expect("a name"),
            image.parse().expect("a valid image"),
            request,
        )
    }
}

/// A slot with all replicas of `jobs` pending on `workers` workers, each with telemetry.
///
/// # Panics
/// Never: 1 is a participant's index.
#[must_use]
pub fn manifest(workers: usize, jobs: &[JobSpec], slot: u64) -> Manifest {
    let pending = jobs.iter().zip(0..).flat_map(|(job, submission)| {
        let digest = job.digest();
        (0..job.replicas).map(move |replica| PendingReplica {
            submission,
            job: digest,
            replica: ReplicaIndex(replica),
            only: None,
            candidates: ALL_CANDIDATES,
        })
    });
    Manifest {
        binding: binding(),
        slot: Slot(slot),
        proposer: ParticipantIndex::try_from(1).expect("1 is an index"),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 0,
        policy: KeccakDigest([7; 32]),
        circuit: circuit_id(),
        telemetry: (0..workers)
            .map(|position| TelemetryEntry {
                sender: worker(position),
                digest: Blake3Digest(worker(position).0),
            })
            .collect(),
        pending: pending.collect(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    }
}
