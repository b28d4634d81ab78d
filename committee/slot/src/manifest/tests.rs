//! Manifests, written and judged.

use veil_protocol_spec::{
    Address, JobLine,
    scheduling::{
        LeasePolicy, PendingReplica, Priority, ReplicaState, RunChange, RunStep, Suspicion,
    },
};

use super::*;
use crate::{
    demand::wait_seconds,
    fixtures::{assignments, binding, member, record, secret, terms, worker},
};

mod rules;

const JOB: Blake3Digest = Blake3Digest([0xaa; 32]);
const MAX_WORKERS: usize = 8;
const NOW: UnixMillis = UnixMillis(1_000_000);

fn candidate(byte: u8) -> TelemetryRef {
    let entry = TelemetryEntry { sender: worker(byte), digest: Blake3Digest([byte; 32]) };
    let policy = KeccakDigest([8; 32]);
    let (ended, given_back, health) = (Arc::default(), Arc::default(), Arc::default());
    TelemetryRef {
        entry,
        includes_slot: Slot(0),
        sampled_at: NOW,
        policy,
        ended,
        given_back,
        health,
        profile: Arc::default(),
    }
}

const OPERATOR: Address = Address([3; 20]);

/// Two replicas of JOB.
fn two(job: &Blake3Digest) -> Option<JobDemand> {
    let (operator, priority, lease) = (OPERATOR, Priority(0), LeasePolicy::Keep);
    let is_batch = false;
    let (line, template, terms) = (JobLine(job.0), *job, terms(2));
    let refused = None;
    let demand = JobDemand {
        operator,
        replicas: 2,
        priority,
        lease,
        is_batch,
        timetable: None,
        refused,
        line,
        template,
        terms,
        is_sealed: false,
    };
    (*job == JOB).then_some(demand)
}

fn exclusive(job: &Blake3Digest) -> Option<JobDemand> {
    two(job).map(|demand| JobDemand { lease: LeasePolicy::Exclusive { seconds: 60 }, ..demand })
}

fn submission(position: u64, job: Blake3Digest) -> Submission {
    Submission { position, job, operator: OPERATOR, leak_bits: 1000, cancelled: false }
}

#[derive(Clone)]
struct Known {
    roster: Vec<PublicIdentity>,
    state: ClusterState,
    workers: BTreeSet<PeerIdHash>,
    draining: BTreeSet<PeerIdHash>,
    owners: BTreeMap<PeerIdHash, Address>,
    submissions: Vec<Submission>,
    fresh: Vec<TelemetryRef>,
    suspicions: BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>,
}

fn known() -> Known {
    Known {
        roster: (1..=4).map(|j| secret(j).public()).collect(),
        state: ClusterState::default(),
        workers: (1..=3).map(worker).collect(),
        draining: BTreeSet::new(),
        owners: BTreeMap::new(),
        submissions: vec![submission(1, JOB)],
        fresh: (1..=3).map(candidate).collect(),
        suspicions: BTreeMap::new(),
    }
}

fn local_view(known: &Known) -> LocalView<'_> {
    LocalView {
        binding: binding(),
        committee: Committee::new(4).unwrap(),
        roster: &known.roster,
        state: &known.state,
        block: BlockRef { number: 9, hash: KeccakDigest([9; 32]) },
        base: KeccakDigest([6; 32]),
        anchored: Slot(0),
        policy: KeccakDigest([8; 32]),
        max_workers: MAX_WORKERS,
        sampling: Sampling::default(),
        workers: &known.workers,
        draining: &known.draining,
        submissions: &known.submissions,
        settled: 9,
        max_block_age: MAX_BLOCK_AGE,
        jobs: &two,
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([7; 32]) },
        fresh: &known.fresh,
        suspicions: &known.suspicions,
        not_before: UnixMillis(NOW.0 - 1_000),
        appeal: false,
        owners: &known.owners,
        fit: &|_, _, _| Fit::Fits,
    }
}

fn suspect(known: &mut Known, lost: PeerIdHash, by: &[u8]) {
    let slot = Slot(known.state.last_slot().0 + 1);
    for j in by {
        let lost_for = 0;
        let suspicion = Suspicion { binding: binding(), slot, worker: lost, lost_for };
        let signed = suspicion.sign(member(*j), &secret(*j));
        known.suspicions.entry(lost).or_default().insert(member(*j), signed);
    }
}

fn judge(
    view: &LocalView<'_>,
    manifest: &Manifest,
    proposer: ParticipantIndex,
    candidate: impl Fn(&TelemetryEntry) -> Option<TelemetryRef>,
) -> Result<(), InvalidManifest> {
    view.validate_facts(manifest, proposer)?;
    view.validate_lists(manifest, || Ok(()), candidate)
}

/// Judged by a member that has received what the proposer has.
fn validated(known: &Known, manifest: &Manifest) -> Result<(), InvalidManifest> {
    judge(&local_view(known), manifest, member(2), |entry| {
        let found = (1..=3).map(candidate).find(|c| c.entry.digest == entry.digest);
        found.map(|c| TelemetryRef {
            entry: TelemetryEntry { sender: c.entry.sender, ..*entry },
            ..c
        })
    })
}

#[test]
fn what_one_proposes_the_others_accept() {
    let known = known();
    let manifest = local_view(&known).propose(member(2));
    assert_eq!((manifest.telemetry.len(), manifest.pending.len()), (3, 2));
    assert_eq!(validated(&known, &manifest), Ok(()));
    assert_eq!(local_view(&known).work(), Work::Now);
    let wrong = judge(&local_view(&known), &manifest, member(3), |_| None);
    assert_eq!(wrong, Err(InvalidManifest::Differs("proposer")));
}

#[test]
fn a_worker_cannot_be_left_out() {
    let known = known();
    let mut manifest = local_view(&known).propose(member(2));
    let gone = manifest.telemetry.remove(1).sender;
    assert_eq!(validated(&known, &manifest), Err(InvalidManifest::LeftOut(gone)));
}

#[test]
fn nothing_can_be_changed() {
    let known = known();
    let good = local_view(&known).propose(member(2));
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 8] = [
        ("slot", |m| m.slot = Slot(2)),
        ("previous certificate", |m| m.previous = KeccakDigest([1; 32])),
        ("block", |m| m.block.hash = KeccakDigest([1; 32])),
        ("anchored certificate", |m| m.base = KeccakDigest([1; 32])),
        ("number of jobs", |m| m.jobs_seen += 1),
        ("policy", |m| m.policy = KeccakDigest([1; 32])),
        ("circuit", |m| m.circuit.version += 1),
        ("list of pending replicas", |m| m.pending.truncate(1)),
    ];
    for (what, change) in changes {
        let mut manifest = good.clone();
        change(&mut manifest);
        assert_eq!(validated(&known, &manifest), Err(InvalidManifest::Differs(what)));
    }
}

/// The state after a slot of this manifest, which places its pending replicas.
fn after(known: &Known, manifest: &Manifest) -> ClusterState {
    let first = manifest.telemetry.first().map(|entry| entry.sender);
    let assignments = assignments(manifest, |_| first);
    let record = record(&known.state, manifest.clone(), Some(assignments));
    known.state.follow(&record).unwrap()
}

/// The state after one that ends void.
fn after_void(known: &Known, manifest: &Manifest) -> ClusterState {
    known.state.follow(&record(&known.state, manifest.clone(), None)).unwrap()
}

#[test]
fn what_cannot_be_anchored_any_more_is_work() {
    let mut known = known();
    let first = local_view(&known).propose(member(2));
    known.state = after(&known, &first);
    let at = |number, base, anchored| LocalView {
        block: BlockRef { number, hash: KeccakDigest([9; 32]) },
        settled: number,
        base,
        anchored: Slot(anchored),
        ..local_view(&known)
    };
    let (base, other) = (first.base, KeccakDigest([5; 32]));
    assert_eq!(at(10, base, 0).work(), Work::Nothing, "it can be anchored");
    assert_eq!(at(10, other, 0).work(), Work::Now, "another one of its base was");
    assert_eq!(
        at(9, other, 0).work(),
        Work::Nothing,
        "this member's view is older than the manifest"
    );
    assert_eq!(at(10, known.state.last_certificate(), 1).work(), Work::Nothing, "it is anchored");
    let next = at(10, other, 0).propose(member(2));
    assert_eq!((next.base, next.pending.len(), known.state.running(&next).count()), (other, 0, 2));
    known.state = after(&known, &next);
    let view = LocalView { base: other, anchored: Slot(0), ..local_view(&known) };
    let view = LocalView { block: BlockRef { number: 20, ..view.block }, ..view };
    assert_eq!(view.work(), Work::Nothing, "the empty slot carries it");
}

#[test]
fn slots_that_end_void_draw_nothing_anew() {
    let mut known = known();
    known.workers = (1..=20).map(worker).collect();
    known.fresh = (1..=20).map(candidate).collect();
    let first = local_view(&known).propose(member(2));
    assert_eq!(first.telemetry.len(), MAX_WORKERS);
    for slot in 1..5 {
        let locked = local_view(&known).propose(member(2));
        assert_eq!(locked.slot, Slot(slot));
        assert_eq!((&locked.telemetry, &locked.pending), (&first.telemetry, &first.pending));
        known.state = after_void(&known, &locked);
    }
    let locked = local_view(&known).propose(member(2));
    known.state = after(&known, &locked);
    let drawn = local_view(&known).propose(member(2));
    assert_ne!(drawn.telemetry, first.telemetry);
}

#[test]
fn a_worker_is_lost_when_enough_members_say_so() {
    let mut known = known();
    suspect(&mut known, worker(2), &[1]);
    assert_eq!(local_view(&known).propose(member(2)).lost, []);
    suspect(&mut known, worker(2), &[3, 4]);
    let manifest = local_view(&known).propose(member(2));
    assert_eq!(manifest.lost.len(), 1);
    assert_eq!(manifest.lost[0].suspicions.len(), 2, "exactly t+1");
    assert_eq!(manifest.telemetry.len(), 2);
    assert_eq!(validated(&known, &manifest), Ok(()));

    let mut forged = manifest;
    forged.lost[0].suspicions[1].signature.0[5] ^= 1;
    let invalid = InvalidManifest::Suspicion { worker: worker(2), member: member(3) };
    assert_eq!(validated(&known, &forged), Err(invalid));
}

#[test]
fn a_lost_worker_that_runs_nothing_and_offers_nothing_is_not_mentioned() {
    let mut known = known();
    suspect(&mut known, worker(9), &[1, 2]);
    assert_eq!(local_view(&known).propose(member(2)).lost, []);
}

#[test]
fn telemetry_must_be_known_registered_and_fresh() {
    let mut known = known();
    let manifest = local_view(&known).propose(member(2));
    let validate = |known: &Known, found: Option<TelemetryRef>| {
        judge(&local_view(known), &manifest, member(2), |_| found.clone())
    };
    assert!(matches!(validate(&known, None), Err(InvalidManifest::Unknown(_))));
    let old = TelemetryRef { sampled_at: UnixMillis(1), ..candidate(1) };
    let too_old = InvalidManifest::Telemetry { worker: worker(1), reason: "it is too old" };
    assert_eq!(validate(&known, Some(old)), Err(too_old));
    let ahead = TelemetryRef { includes_slot: Slot(1), ..candidate(1) };
    assert!(matches!(validate(&known, Some(ahead)), Err(InvalidManifest::Telemetry { .. })));
    let other = TelemetryRef { policy: KeccakDigest([1; 32]), ..candidate(1) };
    let reason = "it is in the scale of another policy";
    let refused = InvalidManifest::Telemetry { worker: worker(1), reason };
    assert_eq!(validate(&known, Some(other.clone())), Err(refused));
    known.fresh[0] = other;
    assert_eq!(local_view(&known).propose(member(2)).telemetry.len(), 2);
    known.workers.remove(&worker(1));
    let reason = "it is not a registered worker";
    assert_eq!(
        validate(&known, Some(candidate(1))),
        Err(InvalidManifest::Telemetry { worker: worker(1), reason })
    );
}

#[test]
fn without_submissions_there_is_nothing_to_do() {
    let mut known = known();
    known.submissions.clear();
    assert_eq!(local_view(&known).work(), Work::Nothing);
    known.submissions = vec![Submission { cancelled: true, ..submission(1, JOB) }];
    assert_eq!(local_view(&known).work(), Work::Nothing);
}

/// Nobody has the body, or the proposer does not have it yet: everybody else's placement goes on.
#[test]
fn a_job_that_is_not_listed_is_no_objection() {
    const NOBODY_HAS_IT: Blake3Digest = Blake3Digest([0xbb; 32]);
    let mut known = known();
    let unknown = submission(0, NOBODY_HAS_IT);
    known.submissions.push(unknown);
    let manifest = local_view(&known).propose(member(2));
    assert!(manifest.pending.iter().all(|pending| pending.job == JOB));
    assert_eq!(validated(&known, &manifest), Ok(()));

    // A proposer that does not know the body of JOB.
    let ignorant = LocalView { jobs: &|_| None, ..local_view(&known) }.propose(member(2));
    assert!(ignorant.pending.is_empty());
    assert_eq!(validated(&known, &ignorant), Ok(()));
    // Whoever lists a job lists what it needs, and everybody needs its body.
    let validate = |manifest: &Manifest, jobs| {
        let view = LocalView { jobs, ..local_view(&known) };
        judge(&view, manifest, member(2), |entry| {
            (1..=3).map(candidate).find(|c| c.entry == *entry)
        })
    };
    assert!(matches!(validate(&manifest, &|_| None), Err(InvalidManifest::Unknown(_))));
    let mut part = manifest;
    part.pending.truncate(1);
    let differs = InvalidManifest::Differs("list of pending replicas");
    assert_eq!(validate(&part, &two), Err(differs));
}

/// More workers than the policy allows: some wait for a later slot, and who is everybody's to check.
#[test]
fn too_many_workers_take_turns() {
    let mut known = known();
    known.fresh = (1..=20).map(candidate).collect();
    known.workers = (1..=20).map(worker).collect();
    let view = |known: &Known| local_view(known).propose(member(2));
    let validate = |known: &Known, manifest: &Manifest| {
        judge(&local_view(known), manifest, member(2), |entry| {
            (1..=20).map(candidate).find(|c| c.entry == *entry)
        })
    };
    let manifest = view(&known);
    assert_eq!(manifest.telemetry.len(), MAX_WORKERS);
    assert_eq!(validate(&known, &manifest), Ok(()));
    let listed: BTreeSet<_> = manifest.telemetry.iter().map(|entry| entry.sender).collect();

    // A member that knows fewer does not object; one that knows one before the last does.
    let mut fewer = Known { fresh: known.fresh.clone(), ..known.clone() };
    fewer.fresh.retain(|c| c.entry.sender != *listed.first().unwrap());
    assert_eq!(validate(&fewer, &manifest), Ok(()));
    let without = view(&fewer);
    let left_out = InvalidManifest::LeftOut(*listed.first().unwrap());
    assert_eq!(validate(&known, &without), Err(left_out));
    let mut short = manifest.clone();
    let gone = short.telemetry.remove(3).sender;
    assert!(matches!(validate(&known, &short), Err(InvalidManifest::LeftOut(_))), "{gone}");
    let mut more = manifest;
    let other = known.fresh.iter().find(|c| !listed.contains(&c.entry.sender)).unwrap();
    more.telemetry.push(other.entry);
    more.telemetry.sort_by_key(|entry| entry.sender);
    let refused = InvalidManifest::TooManyWorkers { found: MAX_WORKERS + 1, most: MAX_WORKERS };
    assert_eq!(validate(&known, &more), Err(refused));
}

/// More lost workers than a manifest holds: the others follow in the next slot.
#[test]
fn too_many_lost_workers_take_turns() {
    let mut known = known();
    let lost = |k: u16| {
        let mut id = [0xee; 32];
        id[..2].copy_from_slice(&k.to_le_bytes());
        PeerIdHash(id)
    };
    known.fresh.extend((0..300).map(|k| TelemetryRef {
        entry: TelemetryEntry { sender: lost(k), digest: Blake3Digest(lost(k).0) },
        ..candidate(1)
    }));
    for k in 0..300 {
        suspect(&mut known, lost(k), &[1, 2]);
    }
    let manifest = local_view(&known).propose(member(2));
    assert_eq!(manifest.lost.len(), MAX_LOST);
    assert_eq!(manifest.validate(Committee::new(4).unwrap()), Ok(()));
}

/// A proposer cannot make the others look for what does not exist.
#[test]
fn what_the_chain_contradicts_is_refused_before_anything_is_fetched() {
    let known = known();
    let good = local_view(&known).propose(member(2));
    let facts = |manifest: &Manifest| {
        // It knows no body and has received nothing.
        let view = LocalView { jobs: &|_| None, fresh: &[], ..local_view(&known) };
        view.validate_facts(manifest, member(2))
    };
    assert_eq!(facts(&good), Ok(()));
    let mut bogus_job = good.clone();
    bogus_job.pending.iter_mut().for_each(|pending| pending.job = Blake3Digest([0xdd; 32]));
    let differs = Err(InvalidManifest::Differs("list of pending replicas or runs"));
    assert_eq!(facts(&bogus_job), differs);
    let mut bogus_run = good.clone();
    bogus_run.runs =
        vec![RunChange { job: Blake3Digest([0xdd; 32]), step: RunStep::Noted { time: 0 } }];
    assert_eq!(facts(&bogus_run), differs);
    bogus_run.runs[0].step = RunStep::Forgotten;
    assert_eq!(facts(&bogus_run), Ok(()), "judged by the lists: nothing is fetched for it");
    let mut bogus_worker = good.clone();
    bogus_worker.telemetry[2].sender = worker(9);
    let reason = "it is not a registered worker";
    let refused = InvalidManifest::Telemetry { worker: worker(9), reason };
    assert_eq!(facts(&bogus_worker), Err(refused));
    let mut other_slot = good;
    other_slot.slot = Slot(7);
    assert_eq!(facts(&other_slot), Err(InvalidManifest::Differs("slot")));
}
