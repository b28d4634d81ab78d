//! After the lock, evaluating needs nothing but what was kept before the vote.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use veil_node_storage::{
    archive::{Archive, Kind},
    inputs::InputStore,
    retention::Retention,
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, PeerIdHash,
    ReplicaIndex, Slot, Wire,
    identity::SecretIdentity,
    inputs::{InputBundle, PreviousPlace, WorkerLabels},
    scheduling::{
        Binding, ClusterPolicy, ClusterScope, CpuUnits, Draw, JobSpec, MemoryUnits, Profile,
        ProvenList, ReplicaState, ResourceRequest, Resources, RunningReplica, Telemetry,
        TelemetryBody, UnixMillis,
    },
};

const SCOPE: ClusterScope = ClusterScope {
    chain_id: ChainId(31_337),
    contract: Address([1; 20]),
    cluster: ClusterId([2; 32]),
};

fn job(nonce: u64) -> JobSpec {
    JobSpec {
        replicas: 2,
        ..JobSpec::new(
            SCOPE,
            Address([3; 20]),
            nonce,
            "app".parse().unwrap(),
            format!("a/b@sha256:{}", "9f".repeat(32)).parse().unwrap(),
            ResourceRequest::Clear(Resources {
                cpu: CpuUnits(1),
                memory: MemoryUnits(1),
                ..Resources::default()
            }),
        )
    }
}

fn telemetry(worker: u8) -> Telemetry {
    let secret = SecretIdentity::from_bytes(&[worker; 32]).unwrap();
    let body = TelemetryBody {
        binding: Binding { scope: SCOPE, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) },
        policy: KeccakDigest([5; 32]),
        identity: secret.public(),
        sequence: 7,
        sampled_at: UnixMillis(1000),
        includes_slot: Slot(0),
        profile: Profile::default(),
        ended: Vec::new(),
        health: Vec::new(),
        list: ProvenList::new(vec![worker; 20_000]).unwrap(),
        given_back: Vec::new(),
    };
    body.sign(&secret)
}

fn bundle(slot: u64, manifest: u8) -> InputBundle {
    let worker = PeerIdHash([6; 32]);
    let (job, replica) = (job(1).digest(), ReplicaIndex(1));
    InputBundle {
        slot: Slot(slot),
        manifest: Blake3Digest([manifest; 32]),
        policy: ClusterPolicy::default(),
        labels: vec![WorkerLabels {
            worker,
            labels: vec!["zone=a".parse().unwrap()],
            organisation: None,
        }],
        closed: vec![worker],
        running: vec![RunningReplica { job, replica, worker, state: ReplicaState::Serving }],
        previous: vec![PreviousPlace { job, replica, worker }],
        seed: KeccakDigest([7; 32]),
        last_decided: Slot(slot - 1),
        draw: Draw { block: KeccakDigest([8; 32]), jobs_seen: slot },
        submitters: Vec::new(),
        barred: vec![PreviousPlace { job, replica, worker }],
        late: vec![worker],
    }
}

/// The chain is gone and every pool and memory is empty: the process has started anew, and this file is
/// all there is.
#[test]
fn after_a_restart_all_inputs_of_a_locked_manifest_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inputs.redb");
    let (jobs, messages) = ([job(1), job(2)], [telemetry(1), telemetry(2), telemetry(3)]);
    InputStore::open(&path).unwrap().keep(&bundle(4, 1), &jobs, &messages).unwrap();
    let store = InputStore::open(&path).unwrap();
    assert_eq!(store.bundle(&Blake3Digest([1; 32])).unwrap(), Some(bundle(4, 1)));
    for job in jobs {
        assert_eq!(store.job(&job.digest()).unwrap(), Some(job));
    }
    for message in messages {
        assert_eq!(store.telemetry(&message.body.digest()).unwrap(), Some(message));
    }
    assert_eq!(store.bundle(&Blake3Digest([2; 32])).unwrap(), None);
    assert_eq!(store.telemetry(&telemetry(4).body.digest()).unwrap(), None);
}

#[test]
fn what_was_certified_goes_to_the_archive_and_the_rest_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = InputStore::open(&folder.path().join("inputs.redb")).unwrap();
    let archive = folder.path().join("archive.redb");
    let archive = Archive::open(&archive, Retention::default()).unwrap();
    let certified = |slot: Slot| (slot == Slot(4)).then_some(Blake3Digest([1; 32]));
    // Two proposals of slot 4, and one of slot 5 that lists one of the same messages.
    store.keep(&bundle(4, 1), &[job(1)], &[telemetry(1), telemetry(2)]).unwrap();
    store.keep(&bundle(4, 2), &[job(2)], &[telemetry(2), telemetry(3)]).unwrap();
    store.keep(&bundle(5, 3), &[job(1)], &[telemetry(2)]).unwrap();
    store.prune(Slot(4), certified, &archive, UnixMillis(0)).unwrap();
    let has = |worker| store.telemetry(&telemetry(worker).body.digest()).unwrap().is_some();
    assert_eq!([1, 2, 3].map(has), [false, true, false]);
    assert!(store.job(&job(1).digest()).unwrap().is_some());
    assert!(store.job(&job(2).digest()).unwrap().is_none());
    assert_eq!(store.bundle(&Blake3Digest([1; 32])).unwrap(), None);
    assert_eq!(store.bundle(&Blake3Digest([3; 32])).unwrap(), Some(bundle(5, 3)));
    let kept = |kind| archive.entries(Slot(4), kind).unwrap();
    assert_eq!(kept(Kind::Inputs), [bundle(4, 1).to_wire()]);
    assert_eq!(kept(Kind::Job), [job(1).to_wire()]);
    assert_eq!(kept(Kind::Telemetry), [1, 2].map(|worker| telemetry(worker).to_wire()));
}
