//! Known-answer vectors of what is sealed: a part, contents, what is asked and answered; with digests. And of what
//! workers ask each other for links. As in `vectors.rs`,
//! `VEIL_BLESS=1 cargo test --release -p veil-protocol-spec --test sealed_vectors` blesses.
#![allow(clippy::unwrap_used)] // helpers of tests

mod jobs;
mod parties;
mod support;

use serde_json::json;
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, ReplicaIndex, ShareCommitment, Wire,
    codec::Bytes,
    link::{LinkAnswer, LinkEnd, LinkRefusal, LinkRequest, LinkWish, ReplicaCondition},
    scheduling::{
        CpuUnits, DiskUnits, EncryptedRequest, EncryptedShare, FileMode, GpuUnits, JobSpec,
        MemoryUnits, ProofMetadata, ProvenList, RegistryCredentials, RequestSeed, Resource,
        ResourceRequest, Resources, Scale, Sealed, SealedArguments, SealedContents, SealedFile,
        SealedPart, SealedRequest, SealedVariable,
    },
    sealing::{
        SealingKeyAnnouncement, SealingRoster, ShareAnswer, ShareRefusal, ShareRequest,
        public_key_digest,
    },
    sync::{SyncAnswer, SyncRequest},
};

use parties::{binding, secret};
use support::{compare, hex};

fn member(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

fn part() -> SealedPart {
    let share = |i: u8| EncryptedShare { member: member(i), share: Bytes(vec![i; 1200]) };
    SealedPart {
        key_set: binding().key_set,
        epoch: binding().epoch,
        roster: Blake3Digest([0x44; 32]),
        tag: Blake3Digest([0x66; 32]),
        commitments: vec![ShareCommitment([2; 33]), ShareCommitment([3; 33])],
        shares: [1, 2, 4].map(share).to_vec(),
        ciphertext: Bytes(vec![0x55; 1040]),
    }
}

fn sealed_request() -> SealedRequest {
    let limits = Resources {
        cpu: CpuUnits(7),
        memory: MemoryUnits(300),
        disk: DiskUnits(2),
        gpu: GpuUnits(1),
    };
    SealedRequest { limits, seed: RequestSeed::new([0x77; 32]) }
}

/// With an encrypted request, whose list is none.
fn encrypted(job: JobSpec) -> JobSpec {
    let key_set = binding().key_set;
    let metadata = ProofMetadata::for_request(&job.scope, &key_set, &job.operator, job.nonce);
    let request = EncryptedRequest {
        key_set,
        scale: Scale::default(),
        dominant: Resource::Memory,
        commitment: sealed_request().commitment(&metadata),
        list: ProvenList::new(vec![0x33; 40]).unwrap(),
    };
    JobSpec { request: ResourceRequest::Encrypted(request), ..job }
}

fn contents() -> SealedContents {
    let file = |path: &str, mode: u16, content: &[u8]| SealedFile {
        path: path.parse().unwrap(),
        mode: FileMode::try_from(mode).unwrap(),
        content: Bytes(content.to_vec()),
    };
    SealedContents {
        env: vec![SealedVariable { name: "TZ".into(), value: "Europe/Berlin".into() }],
        files: vec![file("/etc/app.conf", 0o640, b"a=1\n"), file("/run/secrets/db", 0o444, b"x")],
        registry: Some(RegistryCredentials { username: "robot".into(), password: "p".into() }),
        arguments: Some(SealedArguments { command: vec!["/app".into()], args: vec!["-v".into()] }),
        request: Some(sealed_request()),
    }
}

#[test]
fn sealed_parts() {
    let job = JobSpec { sealed: Sealed::Part(Box::new(part())), ..jobs::job() };
    assert_eq!(job.validate(), Ok(()));
    let encrypted_job = encrypted(job.clone());
    let announced: Vec<_> = (1..=4)
        .map(|i| {
            let public_key = public_key_digest(b"public key");
            SealingKeyAnnouncement::new(binding(), member(i), vec![i; 1216], public_key, &secret(i))
        })
        .collect();
    let identities: Vec<_> = (1..=4).map(|i| secret(i).public()).collect();
    let committee = Committee::new(4).unwrap();
    let roster = SealingRoster::new(binding(), committee, &identities, &announced).unwrap();
    let key = Bytes(vec![9; 1216]);
    let request =
        ShareRequest { binding: binding(), job: job.digest(), replica: ReplicaIndex(1), key };
    let digest = request.digest();
    let signed = request.sign(&secret(7));
    let released = ShareAnswer::Released { member: member(3), share: Bytes(vec![8; 1200]) };
    compare(
        "sealed.json",
        &json!({
            "job_spec": {
                "encoding": hex(&job.to_wire()),
                "digest": job.digest().to_string(),
                "public_digest": job.public_digest().to_string(),
                "public_digest_of_periodic": jobs::periodic_job().public_digest().to_string(),
                "json": serde_json::to_value(&job).unwrap(),
            },
            "encrypted_request": {
                "encoding": hex(&encrypted_job.to_wire()),
                "json": serde_json::to_value(&encrypted_job).unwrap(),
                "template": encrypted_job.template().to_string(),
                "randomness": hex(&*sealed_request().seed.randomness()),
            },
            "contents": hex(&contents().to_wire()),
            "sealing_key": {
                "encoding": hex(&announced[0].to_wire()),
                "json": serde_json::to_value(&announced[0]).unwrap(),
                "roster": roster.digest().to_string(),
            },
            "share_request": {
                "encoding": hex(&signed.to_wire()),
                "digest": digest.to_string(),
            },
            "sync_request": {
                "sealing_key": hex(&SyncRequest::SealingKey.to_wire()),
                "share": hex(&SyncRequest::Share(Box::new(signed)).to_wire()),
            },
            "sync_answer": {
                "sealing_key": hex(&SyncAnswer::SealingKey(Some(announced[0].clone().into())).to_wire()),
                "no_sealing_key": hex(&SyncAnswer::SealingKey(None).to_wire()),
                "share": hex(&SyncAnswer::Share(released).to_wire()),
                "refused": hex(&SyncAnswer::Share(ShareAnswer::Refused(ShareRefusal::DealtWrongly)).to_wire()),
            },
        }),
    );
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), job);
}

#[test]
fn links() {
    let end = |byte: u8, replica| LinkEnd {
        job: Blake3Digest([byte; 32]),
        replica: ReplicaIndex(replica),
    };
    let request = |wish| LinkRequest { from: end(0xf0, 1), to: end(0x70, 2), wish };
    let state = LinkAnswer::State(ReplicaCondition { running: true, healthy: false });
    let refused: serde_json::Map<_, _> = LinkRefusal::ALL
        .into_iter()
        .map(|why| (why.name().to_owned(), hex(&LinkAnswer::Refused(why).to_wire()).into()))
        .collect();
    compare(
        "links.json",
        &json!({
            "request": {
                "connect": hex(&request(LinkWish::Connect("pg".parse().unwrap())).to_wire()),
                "state": hex(&request(LinkWish::State).to_wire()),
            },
            "answer": {
                "connected": hex(&LinkAnswer::Connected.to_wire()),
                "state": hex(&state.to_wire()),
                "refused": refused,
            },
        }),
    );
}
