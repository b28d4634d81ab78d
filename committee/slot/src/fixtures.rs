//! What the tests of this crate begin from.

use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome},
    identity::SecretIdentity,
    scheduling::{
        Assignment, AssignmentCertificate, Assignments, Binding, BlockRef, CertificateBody,
        CircuitId, ClusterScope, ClusterState, CpuUnits, DiskUnits, GpuUnits, GroupSignature,
        JobSpec, Manifest, MemoryUnits, Outcome, PendingReplica, ReferenceStringOrigin,
        ResourceRequest, Resources, SlotRecord, VersionTerms,
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

/// The pending replicas' places: that of number i is `choose(i)`.
pub(crate) fn assignments(
    manifest: &Manifest,
    choose: impl Fn(usize) -> Option<PeerIdHash>,
) -> Assignments {
    let place = |(i, p): (usize, &PendingReplica)| Assignment {
        job: p.job,
        replica: p.replica,
        outcome: choose(i).map_or(Outcome::Pending, Outcome::Node),
    };
    let mut list: Vec<_> = manifest.pending.iter().enumerate().map(place).collect();
    list.sort_by_key(|a| (a.job, a.replica));
    list.try_into().unwrap()
}

/// What a committee certifies of a slot that builds on `state`: these assignments, or void.
pub(crate) fn record(
    state: &ClusterState,
    manifest: Manifest,
    assignments: Option<Assignments>,
) -> SlotRecord {
    let (binding, slot, value) = (manifest.binding, manifest.slot, manifest.digest());
    let outcome = assignments.as_ref().map(|assignments| {
        let after = state.apply(&manifest, assignments).unwrap();
        SlotOutcome::new(Blake3Digest([5; 32]), assignments, &after)
    });
    let end = SlotEnd { binding, slot, manifest: value, outcome };
    let body = CertificateBody::of(&manifest, &end, ReferenceStringOrigin::Committee, state);
    let instance = Instance::manifest(slot);
    let lock = Lock { binding, instance, round: 0, value, votes: Vec::new() };
    let certificate = AssignmentCertificate { body, signature: GroupSignature([2; 65]) };
    SlotRecord { manifest, lock, assignments: assignments.unwrap_or_default(), certificate }
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
