//! Sealed bodies of 64 KB: sealing at the operator, a member's check of its share, releasing it, and opening at the
//! winner from t+1 shares. One thread. Sealing is to take less than 50 ms, opening too.
#![allow(clippy::unwrap_used, missing_docs)] // a bench

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee_sealed::{
    channel,
    context::Context,
    member::SealingKey,
    open::Opening,
    seal::{SealerKey, seal},
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeySetDigest, ParticipantIndex,
    ReplicaIndex,
    codec::Bytes,
    identity::SecretIdentity,
    scheduling::{
        Binding, ClusterScope, CpuUnits, FileMode, JobSpec, MemoryUnits, ResourceRequest,
        Resources, Sealed, SealedContents, SealedFile, Submission,
    },
    sealing::SealingRoster,
};

const OPERATOR: Address = Address([0x0a; 20]);
/// As much as can be sealed, but for what says where it goes.
const BYTES: usize = 65_000;

fn identity(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

struct Cluster {
    members: Vec<(ParticipantIndex, SealingKey)>,
    roster: SealingRoster,
    contents: SealedContents,
    job: JobSpec,
}

impl Cluster {
    fn new(committee: Committee) -> Self {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let binding = Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(1) };
        let member = |index: ParticipantIndex| {
            (index, SealingKey::derive(&[index.get(); 32], binding, index))
        };
        let members: Vec<_> = committee.participants().map(member).collect();
        let secrets: Vec<_> = committee.participants().map(|i| identity(i.get())).collect();
        let identities: Vec<_> = secrets.iter().map(SecretIdentity::public).collect();
        let announced = members.iter().zip(&secrets);
        let announced: Vec<_> =
            announced.map(|((_, key), own)| key.announce(Blake3Digest([6; 32]), own)).collect();
        let roster = SealingRoster::new(binding, committee, &identities, &announced).unwrap();
        let file = SealedFile {
            path: "/run/secrets/all".parse().unwrap(),
            mode: FileMode::READ_ONLY,
            content: Bytes(vec![7; BYTES]),
        };
        let mut contents = SealedContents::default();
        contents.files = vec![file];
        let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
        let request = ResourceRequest::Clear(Resources {
            cpu: CpuUnits(1),
            memory: MemoryUnits(1),
            ..Resources::default()
        });
        let name = "app".parse().unwrap();
        let mut job = JobSpec::new(scope, OPERATOR, 1, name, image, request);
        let part = {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            seal(&job, &contents, &roster, &SealerKey::from_signature(b"one"), &mut rng).unwrap()
        };
        job.sealed = Sealed::Part(Box::new(part));
        Self { members, roster, contents, job }
    }

    fn opening(&self) -> Opening<'_> {
        Opening::new(&self.job, &OPERATOR, ReplicaIndex(0), &identity(9), &[9; 32]).unwrap()
    }
}

fn sealed(c: &mut Criterion) {
    for committee in Committee::ALL {
        let cluster = Cluster::new(committee);
        let job = &cluster.job;
        let mut group = c.benchmark_group("sealed");
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        group.bench_function(format!("seal/{committee}"), |b| {
            let sealer_key = SealerKey::from_signature(b"one");
            b.iter(|| {
                black_box(
                    seal(job, &cluster.contents, &cluster.roster, &sealer_key, &mut rng).unwrap(),
                )
            });
        });
        let submission = Submission {
            position: 1,
            job: job.digest(),
            operator: OPERATOR,
            leak_bits: 0,
            cancelled: false,
        };
        let (_, key) = &cluster.members[0];
        group.bench_function(format!("check/{committee}"), |b| {
            b.iter(|| black_box(key.deal(job, &submission).unwrap()));
        });
        let request = &cluster.opening().request().request.clone();
        let context = Context::of(job, job.sealed_part().unwrap(), &OPERATOR);
        let release = |(member, key): &(ParticipantIndex, SealingKey)| {
            let share = key.deal(job, &submission).unwrap().to_bytes();
            let info = context.released(request, *member);
            let sealed =
                channel::seal(&request.key.0, &*share, &info, context.as_bytes(), &[5; 32]);
            (*member, sealed.unwrap())
        };
        let needed = committee.reconstruction_threshold().get();
        let released: Vec<_> = cluster.members[..needed].iter().map(release).collect();
        group.bench_function(format!("open/{committee}"), |b| {
            b.iter(|| {
                let mut opening = cluster.opening();
                for (member, share) in &released {
                    opening.take(*member, share).unwrap();
                }
                black_box(opening.open().unwrap())
            });
        });
    }
}

criterion_group!(benches, sealed);
criterion_main!(benches);
