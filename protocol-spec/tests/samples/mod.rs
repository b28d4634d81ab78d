//! Samples of the vectors: a slot's inputs as a member keeps them, what a worker says of itself, and the files of
//! a key.

use veil_protocol_spec::{
    Address, Blake3Digest, KeccakDigest, ReplicaIndex, Slot,
    inputs::{InputBundle, PreviousPlace, SubmitterOrganisations, WorkerLabels},
    scheduling::{
        Accepts, ClusterPolicy, Draw, Egress, EndedReplica, GiveBackReason, GivenBack, Manifest,
        Note, Profile, ReplicaExit, ReplicaState, RunningReplica, UnixMillis,
    },
    sync::KeyFiles,
};

/// A batch replica whose last run was out of memory.
pub(crate) fn ended() -> EndedReplica {
    let exit = ReplicaExit { code: Some(137), out_of_memory: true };
    EndedReplica { job: Blake3Digest([0xba; 32]), replica: ReplicaIndex(2), exit }
}

pub(crate) fn input_bundle(manifest: &Manifest) -> InputBundle {
    let (job, worker) = (manifest.pending[0].job, manifest.telemetry[0].sender);
    let (replica, state) = (ReplicaIndex(1), ReplicaState::Serving);
    InputBundle {
        slot: Slot(7),
        manifest: manifest.digest(),
        policy: ClusterPolicy::default(),
        labels: vec![WorkerLabels {
            worker,
            labels: vec!["topology/zone=a".parse().unwrap()],
            organisation: Some("Acme".parse().unwrap()),
        }],
        closed: vec![worker],
        running: vec![RunningReplica { job, replica, worker, state }],
        previous: vec![PreviousPlace { job, replica, worker }],
        seed: KeccakDigest([0x7c; 32]),
        last_decided: Slot(6),
        draw: Draw { block: KeccakDigest([0x7d; 32]), jobs_seen: 3 },
        submitters: vec![SubmitterOrganisations {
            account: Address([3; 20]),
            organisations: vec!["Acme".parse().unwrap()],
        }],
        barred: vec![PreviousPlace { job, replica: ReplicaIndex(0), worker }],
        late: vec![worker],
    }
}

pub(crate) fn profile() -> Profile {
    Profile {
        facts: vec!["veil/arch=amd64".parse().unwrap()],
        volumes: vec!["data".parse().unwrap()],
        accepts: Accepts {
            operators: Some(vec![Address([3; 20])]),
            images: Some(vec!["registry.example/shop".parse().unwrap()]),
            egress: Egress::AllowPrivate,
            organisations: Some(vec!["Acme".parse().unwrap()]),
        },
    }
}

/// A replica of a worker whose machine is to be switched off.
pub(crate) fn given_back() -> GivenBack {
    GivenBack {
        job: Blake3Digest([0xbc; 32]),
        replica: ReplicaIndex(1),
        placed: Slot(5),
        reason: GiveBackReason::Evicted,
        until: Some(UnixMillis(1_760_000_600_000)),
        has_stopped: false,
        note: Note::try_from("the power goes".to_owned()).unwrap(),
    }
}

pub(crate) fn key_files() -> KeyFiles {
    KeyFiles {
        key_set: Blake3Digest([0xa1; 32]),
        key_set_bytes: 140_000_000,
        reference_string: Blake3Digest([0xa2; 32]),
        reference_string_bytes: 9_000_000,
    }
}
