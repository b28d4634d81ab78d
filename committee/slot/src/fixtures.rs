//! What the tests of this crate begin from.

use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash,
    identity::SecretIdentity,
    scheduling::{
        Assignments, Binding, BlockRef, CertificateBody, CircuitId, ClusterScope, ClusterState,
        CpuUnits, DiskUnits, GpuUnits, JobSpec, Manifest, MemoryUnits, ReferenceStringOrigin,
        ResourceRequest, Resources, VersionTerms,
    },
};

pub(crate) const CIRCUIT: CircuitId = CircuitId { version: 1, fingerprint: Blake3Digest([7; 32]) };
pub(crate) const BLOCK: BlockRef = BlockRef { number: 9, hash: KeccakDigest([9; 32]) };
pub(crate) const POLICY: KeccakDigest = KeccakDigest([8; 32]);

pub(crate) fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

pub(crate) fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

pub(crate) const fn worker(byte: u8) -> PeerIdHash {
    PeerIdHash([byte; 32])
}

pub(crate) const fn binding() -> Binding {
    let scope = ClusterScope {
        chain_id: ChainId(1),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
    };
    Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) }
}

/// What a committee signs of a slot whose state is `after`.
pub(crate) fn certificate_body(
    manifest: &Manifest,
    assignments: &Assignments,
    after: &ClusterState,
    evaluation: Blake3Digest,
) -> CertificateBody {
    CertificateBody {
        binding: manifest.binding,
        slot: manifest.slot,
        manifest: manifest.digest(),
        previous: manifest.previous,
        base: manifest.base,
        jobs_seen: manifest.jobs_seen,
        evaluation,
        members_only: CertificateBody::NO_SECTION,
        assignments_root: assignments.tree().root(),
        state_root: after.state_root(),
        reference_string: ReferenceStringOrigin::Committee,
    }
}

/// Of a service that is updated one by one.
pub(crate) const fn terms(replicas: u16) -> VersionTerms {
    VersionTerms { replicas, max_parallel: 1, auto_revert: true, rolls: true, stops_first: false }
}

/// A job that fits everywhere.
pub(crate) fn job(replicas: u16) -> JobSpec {
    JobSpec {
        replicas,
        ..JobSpec::new(
            binding().scope,
            Address([3; 20]),
            0,
            "app".parse().unwrap(),
            format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
            ResourceRequest::Clear(Resources {
                cpu: CpuUnits(1),
                memory: MemoryUnits(1),
                disk: DiskUnits(0),
                gpu: GpuUnits(0),
            }),
        )
    }
}
