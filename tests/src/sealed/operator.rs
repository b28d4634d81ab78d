//! The operator, its job, and who the others are: all of it a function of plan and seed.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee_sealed::{
    member::SealingKey,
    seal::{SealerKey, seal},
};
use veil_protocol_spec::{
    Address, Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, PeerIdHash, Slot,
    identity::SecretIdentity,
    scheduling::{
        Assignment, Assignments, Binding, ClusterState, CpuUnits, JobSpec, Manifest, MemoryUnits,
        Outcome, PendingReplica, ResourceRequest, Resources, SAMPLE, Sealed, SealedContents,
        SealedVariable, Submission, TelemetryEntry,
    },
    sealing::{SealingKeyAnnouncement, SealingRoster, ShareRequest},
};

use super::SealedPlan;
use crate::fixtures::{self, SCOPE};

pub(super) const OPERATOR: Address = Address([0x0a; 20]);
const SUBMITTED: u64 = 4;

pub(super) const fn binding() -> Binding {
    Binding { scope: SCOPE, key_set: KeySetDigest([0xde; 32]), epoch: Epoch(2) }
}

pub(super) fn identity(worker: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[worker; 32]).expect("a secret key")
}

pub(super) fn peer(worker: u8) -> PeerIdHash {
    PeerIdHash::of(&identity(worker).public())
}

/// Which worker it is.
pub(super) fn number(worker: &PeerIdHash) -> u8 {
    (1..=200).find(|number| peer(*number) == *worker).expect("a worker of the cluster")
}

pub(super) fn key(seed: u64, j: ParticipantIndex) -> SealingKey {
    SealingKey::derive(&fixtures::draw(seed, "sealing key", j.get().into()), binding(), j)
}

pub(super) fn contents(seed: u64) -> SealedContents {
    let mut contents = SealedContents::default();
    contents.env = vec![SealedVariable { name: "SEED".into(), value: seed.to_string() }];
    contents
}

pub(super) fn submission(job: &JobSpec) -> Submission {
    let job = job.digest();
    let (position, operator, leak_bits) = (SUBMITTED, OPERATOR, 1_000_000);
    Submission { position, job, operator, leak_bits, cancelled: false }
}

/// The job, with its part dealt as the plan says.
pub(super) fn job(plan: &SealedPlan, seed: u64) -> JobSpec {
    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32));
    let (cpu, memory) = (CpuUnits(5), MemoryUnits(8));
    let request = ResourceRequest::Clear(Resources { cpu, memory, ..Resources::default() });
    let image = image.parse().expect("an image");
    let job = JobSpec::new(SCOPE, OPERATOR, 1, "app".parse().expect("a name"), image, request);
    let job = JobSpec { replicas: plan.scenario.replicas, ..job };
    let all = || plan.committee.participants();
    let identities: Vec<_> = all().map(|j| fixtures::identity(seed, j).public()).collect();
    let keys: Vec<_> = all().map(|j| key(seed, j)).collect();
    let announced: Vec<SealingKeyAnnouncement> = all()
        .filter(|j| !plan.scenario.left_out.contains(j))
        .map(|j| {
            let own = fixtures::identity(seed, j);
            keys[j.position()].announce(Blake3Digest([0x70; 32]), &own)
        })
        .collect();
    let roster = SealingRoster::new(binding(), plan.committee, &identities, &announced)
        .expect("2t+1 members have announced their keys");
    let sealer = SealerKey::from_signature(&fixtures::draw(seed, "account", 0));
    let mut rng = ChaCha20Rng::from_seed(fixtures::draw(seed, "sealing", 0));
    let mut part = seal(&job, &contents(seed), &roster, &sealer, &mut rng).expect("it is sealed");
    if let Some(deal) = &plan.scenario.deal {
        let right = JobSpec { sealed: Sealed::Part(Box::new(part.clone())), ..job.clone() };
        deal.deal(&right, &mut part, &roster, &keys);
    }
    JobSpec { sealed: Sealed::Part(Box::new(part)), ..job }
}

/// A state that nobody certified, in which the worker has the replica that it asks for.
pub(super) fn forged(asked: &ShareRequest, worker: PeerIdHash) -> ClusterState {
    let (state, member) = (ClusterState::default(), crate::plan::member(1));
    let ShareRequest { job, replica, .. } = *asked;
    let (submission, only, candidates) = (SUBMITTED, None, SAMPLE);
    let pending = PendingReplica { submission, job, replica, only, candidates };
    let manifest = Manifest {
        previous: state.last_certificate(),
        telemetry: vec![TelemetryEntry { sender: worker, digest: Blake3Digest([5; 32]) }],
        pending: vec![pending],
        ..fixtures::manifest(binding(), Slot(1), member, 1)
    };
    let one = vec![Assignment { job, replica, outcome: Outcome::Node(worker) }];
    let one: Assignments = one.try_into().expect("one assignment");
    state.apply(&manifest, &one).expect("it is the first slot")
}
