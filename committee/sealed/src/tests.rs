//! A whole run: seal, deal, ask, release, open, keep; and each attack that `protocol-spec/sealed.md` lists.

use proptest::prelude::*;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
    ParticipantIndex, PeerIdHash, PublicIdentity, ReplicaIndex, Slot,
    codec::Bytes,
    domain::{SEALED_CONTEXT, hash_parts},
    identity::SecretIdentity,
    scheduling::{
        Assignment, Binding, BindingMismatch, BlockRef, CircuitId, ClusterScope, ClusterState,
        ContentsError, CpuUnits, FileMode, JobSpec, Manifest, MemoryUnits, Outcome, PendingReplica,
        RegistryCredentials, ResourceRequest, Resources, RolloutChanges, SAMPLE, Sealed,
        SealedContents, SealedFile, SealedPart, SealedVariable, Submission, TelemetryEntry,
    },
    sealing::{
        SealingKeyAnnouncement, SealingRoster, ShareAnswer, ShareRefusal, SignedShareRequest,
    },
};

use crate::{
    keep::{Keeper, NotKept},
    member::{Known, SealingKey},
    open::{OpenError, Opening, WrongShare},
    seal::{SealError, SealerKey, seal},
};

mod byzantine;

const OPERATOR: Address = Address([0x0a; 20]);
const SUBMITTED: u64 = 4;
const PUBLIC_KEY: Blake3Digest = Blake3Digest([0x70; 32]);

fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0xc0; 20]),
            cluster: ClusterId([0xc1; 32]),
        },
        key_set: KeySetDigest([0xde; 32]),
        epoch: Epoch(2),
    }
}

fn identity(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

fn worker() -> SecretIdentity {
    identity(0x77)
}

fn contents(bytes: usize) -> SealedContents {
    SealedContents {
        env: vec![SealedVariable { name: "TZ".into(), value: "Europe/Berlin".into() }],
        files: vec![SealedFile {
            path: "/run/secrets/db".parse().unwrap(),
            mode: FileMode::READ_ONLY,
            content: Bytes(vec![0x5e; bytes]),
        }],
        registry: Some(RegistryCredentials { username: "robot".into(), password: "pass".into() }),
        arguments: None,
        request: None,
    }
}

fn sealer_key() -> SealerKey {
    SealerKey::from_signature(b"the operator's")
}

fn plain_job() -> JobSpec {
    let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
    let request = ResourceRequest::Clear(Resources {
        cpu: CpuUnits(5),
        memory: MemoryUnits(8),
        ..Resources::default()
    });
    JobSpec::new(binding().scope, OPERATOR, 1, "app".parse().unwrap(), image, request)
}

/// A committee, and a job that is sealed to it.
struct Cluster {
    committee: Committee,
    members: Vec<SealingKey>,
    announced: Vec<SealingKeyAnnouncement>,
    identities: Vec<PublicIdentity>,
    job: JobSpec,
    rng: ChaCha20Rng,
}

fn submission(job: &JobSpec, operator: Address) -> Submission {
    let job = job.digest();
    Submission { position: SUBMITTED, job, operator, leak_bits: 10, cancelled: false }
}

/// What a certificate adds up to that gives replica 0 of a job to a worker.
fn placed(job: Blake3Digest, worker: &PublicIdentity) -> ClusterState {
    let worker = PeerIdHash::of(worker);
    let (replica, state) = (ReplicaIndex(0), ClusterState::default());
    let (submission, only, candidates) = (SUBMITTED, None, SAMPLE);
    let waits = PendingReplica { submission, job, replica, only, candidates };
    let manifest = Manifest {
        binding: binding(),
        slot: Slot(1),
        proposer: ParticipantIndex::new(1).unwrap(),
        previous: state.last_certificate(),
        block: BlockRef { number: 1, hash: KeccakDigest([1; 32]) },
        base: KeccakDigest([4; 32]),
        jobs_seen: 2,
        policy: KeccakDigest([2; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([3; 32]) },
        telemetry: vec![TelemetryEntry { sender: worker, digest: Blake3Digest([5; 32]) }],
        pending: vec![waits],
        leaving: vec![],
        done: vec![],
        lost: vec![],
        given_back: vec![],
        rollouts: RolloutChanges::default(),
        runs: vec![],
    };
    let outcome = Outcome::Node(worker);
    let assignments = vec![Assignment { job, replica, outcome }].try_into().unwrap();
    state.apply(&manifest, &assignments).unwrap()
}

impl Cluster {
    fn new(n: u8) -> Self {
        Self::with(n, &contents(100), binding())
    }

    fn with(n: u8, contents: &SealedContents, binding: Binding) -> Self {
        let committee = Committee::new(n).unwrap();
        let member =
            |index: ParticipantIndex| SealingKey::derive(&[index.get(); 32], binding, index);
        let members: Vec<_> = committee.participants().map(member).collect();
        let secrets: Vec<_> = (1..=n).map(identity).collect();
        let identities: Vec<_> = secrets.iter().map(SecretIdentity::public).collect();
        let announced: Vec<_> = members
            .iter()
            .zip(&secrets)
            .map(|(key, secret)| key.announce(PUBLIC_KEY, secret))
            .collect();
        let roster = SealingRoster::new(binding, committee, &identities, &announced).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(n));
        let job = JobSpec { scope: binding.scope, ..plain_job() };
        let part = seal(&job, contents, &roster, &sealer_key(), &mut rng).unwrap();
        let job = JobSpec { sealed: Sealed::Part(Box::new(part)), ..job };
        assert_eq!(job.validate(), Ok(()));
        Self { committee, members, announced, identities, job, rng }
    }

    fn roster(&self) -> SealingRoster {
        let (identities, announced) = (&self.identities, &self.announced);
        SealingRoster::new(binding(), self.committee, identities, announced).unwrap()
    }

    fn part(&mut self) -> &mut SealedPart {
        match &mut self.job.sealed {
            Sealed::Part(part) => part,
            other => panic!("{other:?}"),
        }
    }

    /// The winner of replica 0 asks.
    fn opening(&self) -> Opening<'_> {
        Opening::new(&self.job, &OPERATOR, ReplicaIndex(0), &worker(), &[9; 32]).unwrap()
    }

    /// What a member answers that knows what everybody knows.
    fn ask(&self, member: usize, asked: &SignedShareRequest) -> Result<Vec<u8>, ShareRefusal> {
        let state = placed(self.job.digest(), &worker().public());
        self.ask_with(member, asked, &state, &[submission(&self.job, OPERATOR)])
    }

    fn ask_with(
        &self,
        member: usize,
        asked: &SignedShareRequest,
        state: &ClusterState,
        submissions: &[Submission],
    ) -> Result<Vec<u8>, ShareRefusal> {
        let known = Known { state, submissions, body: Some(&self.job) };
        match self.members[member].answer(asked, known, &[member as u8; 32]) {
            ShareAnswer::Released { member: by, share } => {
                assert_eq!(by.position(), member);
                Ok(share.0)
            }
            ShareAnswer::Refused(refusal) => Err(refusal),
        }
    }

    fn index(&self, member: usize) -> ParticipantIndex {
        self.committee.participants().nth(member).unwrap()
    }

    /// Opens with the answers of these members.
    fn open(&self, members: impl IntoIterator<Item = usize>) -> Result<SealedContents, OpenError> {
        let mut opening = self.opening();
        let asked = opening.request().clone();
        for member in members {
            let share = self.ask(member, &asked).unwrap();
            opening.take(self.index(member), &share).unwrap();
        }
        opening.open()
    }
}

#[test]
fn a_winner_opens_with_any_shares_beyond_t_and_with_none_fewer() {
    for n in [1, 4, 7, 10, 13] {
        let cluster = Cluster::new(n);
        let needed = cluster.committee.reconstruction_threshold().get();
        let (all, n) = (contents(100), usize::from(n));
        for first in 0..n {
            let some = (0..needed).map(|i| (first + i) % n);
            assert_eq!(cluster.open(some).as_ref(), Ok(&all), "n={n} from {first}");
        }
        let few = cluster.open(0..needed - 1).unwrap_err();
        assert_eq!(few, OpenError::TooFew { given: needed - 1, needed });
        // One member twice is one member.
        let again = cluster.open(vec![0; needed]);
        assert_eq!(again.is_ok(), needed == 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn contents_of_any_length_open_as_they_were(bytes in 0_usize..65_000, n in 0_usize..3) {
        let all = contents(bytes);
        let cluster = Cluster::with([1, 4, 7][n], &all, binding());
        let members = 0..cluster.members.len();
        prop_assert_eq!(cluster.open(members), Ok(all));
    }
}

#[test]
fn the_length_of_a_ciphertext_tells_little() {
    let len = |bytes| {
        let mut cluster = Cluster::with(1, &contents(bytes), binding());
        cluster.part().ciphertext.0.len()
    };
    assert_eq!(len(1), len(800));
    assert_eq!(len(1), 1024 + 16);
}

/// "Another operator who submits the victim's sealed part": under its own name, and by copying the digest.
#[test]
fn another_operator_reads_nothing_of_a_copied_part() {
    let (mut cluster, thief) = (Cluster::new(4), Address([0xee; 20]));
    cluster.job.operator = thief;
    let opening = Opening::new(&cluster.job, &thief, ReplicaIndex(0), &worker(), &[9; 32]).unwrap();
    let state = placed(cluster.job.digest(), &worker().public());
    let stolen = [submission(&cluster.job, thief)];
    for member in 0..4 {
        let refused = cluster.ask_with(member, opening.request(), &state, &stolen);
        assert_eq!(refused, Err(ShareRefusal::DealtWrongly));
    }
    // The victim's very body, which the chain lists as submitted by the thief only.
    cluster.job.operator = OPERATOR;
    let copied = [submission(&cluster.job, thief)];
    let state = placed(cluster.job.digest(), &worker().public());
    let refused = cluster.ask_with(0, cluster.opening().request(), &state, &copied);
    assert_eq!(refused, Err(ShareRefusal::UnknownJob));
}

/// "Replay to another job, cluster, epoch": each binding is one that a member checks.
#[test]
fn a_part_is_bound_to_its_job() {
    type Change = fn(&mut JobSpec);
    let changes: [(Change, ShareRefusal); 9] = [
        (|job| job.nonce += 1, ShareRefusal::DealtWrongly),
        (|job| job.name = "other".parse().unwrap(), ShareRefusal::DealtWrongly),
        (|job| job.args.push("--print-secrets".into()), ShareRefusal::DealtWrongly),
        (|job| job.scope.cluster.0[0] ^= 1, ShareRefusal::SealedElsewhere),
        (|job| part_of(job).epoch.0 += 1, ShareRefusal::SealedElsewhere),
        (|job| part_of(job).key_set.0[0] ^= 1, ShareRefusal::SealedElsewhere),
        (|job| part_of(job).roster.0[0] ^= 1, ShareRefusal::DealtWrongly),
        (|job| part_of(job).ciphertext.0[0] ^= 1, ShareRefusal::DealtWrongly),
        (|job| part_of(job).commitments.swap(0, 1), ShareRefusal::DealtWrongly),
    ];
    let honest = Cluster::new(4);
    let good = submission(&honest.job, OPERATOR);
    assert!(honest.members[0].deal(&honest.job, &good).is_ok());
    for (i, (change, expected)) in changes.into_iter().enumerate() {
        let mut job = honest.job.clone();
        change(&mut job);
        let refused = honest.members[0].deal(&job, &submission(&job, OPERATOR));
        assert_eq!(refused.unwrap_err(), expected, "{i}");
    }
    let nothing = plain_job();
    let refused = honest.members[0].deal(&nothing, &submission(&nothing, OPERATOR));
    assert_eq!(refused.unwrap_err(), ShareRefusal::NothingSealed);
}

fn part_of(job: &mut JobSpec) -> &mut SealedPart {
    match &mut job.sealed {
        Sealed::Part(part) => part,
        other => panic!("{other:?}"),
    }
}

/// "A worker that asks for another's", before it has won, after it has lost, or for a job that is cancelled.
#[test]
fn a_member_releases_to_the_certified_winner_only() {
    let cluster = Cluster::new(4);
    let job = cluster.job.digest();
    let asked = cluster.opening().request().clone();
    let (state, listed) = (placed(job, &worker().public()), [submission(&cluster.job, OPERATOR)]);
    assert!(cluster.ask_with(0, &asked, &state, &listed).is_ok());
    let answer = |asked: &SignedShareRequest, state: &ClusterState, listed: &[Submission]| {
        cluster.ask_with(0, asked, state, listed).unwrap_err()
    };
    let before = ClusterState::default();
    assert_eq!(answer(&asked, &before, &listed), ShareRefusal::NotAssigned);
    let anothers = placed(job, &identity(0x78).public());
    assert_eq!(answer(&asked, &anothers, &listed), ShareRefusal::NotAssigned);
    // Another replica than its own.
    let mut other = asked.request.clone();
    other.replica = ReplicaIndex(1);
    assert_eq!(answer(&other.sign(&worker()), &state, &listed), ShareRefusal::NotAssigned);
    // Somebody else who asks in the winner's name.
    let mut forged = asked.request.clone().sign(&identity(0x78));
    forged.worker = worker().public();
    assert_eq!(answer(&forged, &state, &listed), ShareRefusal::Signature);
    let mut elsewhere = asked.request.clone();
    elsewhere.binding.epoch.0 += 1;
    assert_eq!(answer(&elsewhere.sign(&worker()), &state, &listed), ShareRefusal::OtherEpoch);
    let cancelled = [Submission { cancelled: true, ..listed[0] }];
    assert_eq!(answer(&asked, &state, &cancelled), ShareRefusal::Cancelled);
    assert_eq!(answer(&asked, &state, &[]), ShareRefusal::UnknownJob);
    let mut no_key = asked.request.clone();
    no_key.key.0.truncate(32);
    assert_eq!(answer(&no_key.sign(&worker()), &state, &listed), ShareRefusal::Key);
    let known = Known { state: &state, submissions: &listed, body: None };
    let refused = cluster.members[0].answer(&asked, known, &[0; 32]);
    assert_eq!(refused, ShareAnswer::Refused(ShareRefusal::UnknownJob));
}

/// What a member releases is for one question: who records it opens nothing, not even as the next winner.
#[test]
fn a_released_share_opens_for_its_question_only() {
    let cluster = Cluster::new(4);
    let share = cluster.ask(0, cluster.opening().request()).unwrap();
    let member = cluster.index(0);
    let again = |worker: &SecretIdentity, seed| {
        Opening::new(&cluster.job, &OPERATOR, ReplicaIndex(0), worker, &[seed; 32]).unwrap()
    };
    assert_eq!(again(&worker(), 9).take(member, &share), Ok(false), "the same question");
    assert_eq!(again(&worker(), 8).take(member, &share), Err(WrongShare(member)));
    let other = again(&identity(0x78), 9).take(member, &share);
    assert_eq!(other, Ok(false), "the key is what counts, and nobody else has it");
    let elsewhere = Opening::new(&cluster.job, &OPERATOR, ReplicaIndex(1), &worker(), &[9; 32]);
    assert_eq!(elsewhere.unwrap().take(member, &share), Err(WrongShare(member)));
}

/// "A lying, silent or early member": t of them change nothing, and those that lie are named.
#[test]
fn lying_members_are_named_and_the_others_are_enough() {
    for n in [4, 7, 13] {
        let cluster = Cluster::new(n);
        let t = cluster.committee.max_faulty().get();
        let mut opening = cluster.opening();
        let asked = opening.request().clone();
        for liar in 0..t {
            let member = cluster.index(liar);
            // Another member's share in its name; one that is cut off; noise.
            let anothers = cluster.ask(t, &asked).unwrap();
            assert_eq!(opening.take(member, &anothers), Err(WrongShare(member)));
            assert_eq!(opening.take(member, &anothers[..60]), Err(WrongShare(member)));
            assert_eq!(opening.take(member, &[0x5a; 1200]), Err(WrongShare(member)));
        }
        for honest in t..=2 * t {
            let share = cluster.ask(honest, &asked).unwrap();
            assert_eq!(opening.take(cluster.index(honest), &share), Ok(honest == 2 * t));
        }
        assert_eq!(opening.open(), Ok(contents(100)));
    }
}

/// A dealer who deals wrongly harms its own job: the member whose share is wrong says so before it considers the job, the
/// others still open it.
#[test]
fn a_wrong_deal_is_found_by_the_member_that_it_is_dealt_to() {
    let mut cluster = Cluster::new(4);
    let dealt = cluster.part().shares[1].share.clone();
    cluster.part().shares[0].share = dealt;
    let good = submission(&cluster.job, OPERATOR);
    let refused = cluster.members[0].deal(&cluster.job, &good).unwrap_err();
    assert_eq!(refused, ShareRefusal::DealtWrongly);
    for member in 1..4 {
        assert!(cluster.members[member].deal(&cluster.job, &good).is_ok(), "{member}");
    }
    let asked = cluster.opening().request().clone();
    assert_eq!(cluster.ask(0, &asked), Err(ShareRefusal::DealtWrongly));
    assert_eq!(cluster.open([1, 2]), Ok(contents(100)));
    let mut none = cluster;
    none.part().shares.remove(0);
    let good = submission(&none.job, OPERATOR);
    assert_eq!(none.members[0].deal(&none.job, &good).unwrap_err(), ShareRefusal::NoShare);
}

/// Shares of one secret, and a ciphertext under another: only the dealer can make that, and the winner says so.
#[test]
fn a_ciphertext_under_another_key_was_dealt_wrongly() {
    let mut cluster = Cluster::new(1);
    let roster = cluster.roster();
    let job = plain_job();
    let mut other = cluster.rng.clone();
    other.next_u64();
    let another = seal(&job, &contents(100), &roster, &sealer_key(), &mut other).unwrap();
    let honest =
        seal(&job, &contents(100), &roster, &sealer_key(), &mut cluster.rng.clone()).unwrap();
    assert_ne!(another.ciphertext, honest.ciphertext);
    // The dealer encrypts its honest shares anew for the other ciphertext.
    let mixed = crate::seal::tests_only::mix(&job, honest, another.ciphertext, &roster);
    cluster.job.sealed = Sealed::Part(Box::new(mixed));
    assert_eq!(cluster.open([0]), Err(OpenError::DealtWrongly));
}

#[test]
fn what_cannot_be_sealed_is_refused_before_anything_is() {
    let cluster = Cluster::new(4);
    let mut rng = cluster.rng.clone();
    let refused =
        seal(&plain_job(), &contents(400_000), &cluster.roster(), &sealer_key(), &mut rng);
    let long = matches!(refused, Err(SealError::Contents(ContentsError::LongFile { .. })));
    assert!(long, "{refused:?}");
    let mut elsewhere = plain_job();
    elsewhere.scope.chain_id = ChainId(1);
    let refused = seal(&elsewhere, &contents(1), &cluster.roster(), &sealer_key(), &mut rng);
    assert_eq!(refused, Err(SealError::Cluster(BindingMismatch { field: "chain" })));
    let key = Bytes(vec![0xff; 1216]);
    let mut announced = cluster.announced.clone();
    let member = cluster.index(0);
    announced[0] = SealingKeyAnnouncement::new(binding(), member, key.0, PUBLIC_KEY, &identity(1));
    let roster =
        SealingRoster::new(binding(), cluster.committee, &cluster.identities, &announced).unwrap();
    let refused = seal(&plain_job(), &contents(1), &roster, &sealer_key(), &mut rng);
    assert!(matches!(refused, Err(SealError::Key(_))), "{refused:?}");
    let plain = plain_job();
    let nothing = Opening::new(&plain, &OPERATOR, ReplicaIndex(0), &worker(), &[9; 32]);
    assert_eq!(nothing.unwrap_err(), OpenError::NothingSealed);
}

#[test]
fn a_worker_keeps_what_it_opened_for_itself_and_this_job() {
    let job = Cluster::new(4).job.digest();
    let keeper = Keeper::new(&worker(), &binding().scope);
    let kept = keeper.keep(&job, &contents(5_000), &[7; 24]);
    assert_eq!(keeper.open(&job, &kept), Ok(contents(5_000)));
    assert!(!kept.windows(8).any(|bytes| bytes == [0x5e; 8]), "nothing is in clear");
    assert_eq!(keeper.open(&Blake3Digest([0; 32]), &kept), Err(NotKept));
    let other = Keeper::new(&identity(0x78), &binding().scope);
    assert_eq!(other.open(&job, &kept), Err(NotKept));
    let mut scope = binding().scope;
    scope.chain_id = ChainId(1);
    assert_eq!(Keeper::new(&worker(), &scope).open(&job, &kept), Err(NotKept));
    for at in [0, 1, 30, kept.len() - 1] {
        let mut changed = kept.clone();
        changed[at] ^= 1;
        assert_eq!(keeper.open(&job, &changed), Err(NotKept), "byte {at}");
    }
    for len in [0, 1, 24, 25, 40] {
        assert_eq!(keeper.open(&job, &kept[..len]), Err(NotKept), "{len} bytes");
    }
    assert_eq!(format!("{keeper:?}"), "Keeper(<redacted>)");
}

/// Known answer: another build that seals with the same randomness makes the same bytes, or opens nothing of ours.
#[test]
fn sealing_is_what_it_was() {
    let job = Cluster::new(4).job;
    let part = job.sealed_part().unwrap();
    let digest = |bytes: &[u8]| Blake3Digest(hash_parts(SEALED_CONTEXT, &[bytes])).to_string();
    let shares: Vec<u8> = part.shares.iter().flat_map(|share| share.share.0.clone()).collect();
    let kept = Keeper::new(&worker(), &binding().scope).keep(&job.digest(), &contents(9), &[7; 24]);
    let found = [
        part.roster.to_string(),
        part.commitments[0].to_string(),
        digest(&part.ciphertext.0),
        digest(&shares),
        digest(&kept),
    ];
    let expected = [
        "ed859c9e163e5ce792e55abc1594751ed23dcb43849527afbb9a0e27ed611099",
        "03764d43b55c8e9b731a29c121fb7e81cc4f49bda1f9e6b6576cd586797316096d",
        "3e9b4e68f3ee8c6bbb54d2ff39803c32712873c0742eb4a1ca48bd11ce3b928c",
        "c3dbfd69e31a9469a42fb9795f9ec619b6a60cc481195f45e521446a486bc70a",
        "f4064415b1b07f24d31f4a620cf029f7cd2c1936b4d0268493fe2ba80f698e2d",
    ];
    assert_eq!(found, expected);
}

mod hostile;
