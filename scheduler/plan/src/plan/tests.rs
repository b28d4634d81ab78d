//! Plans: order, candidates, cost.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex, PeerIdHash,
    ReplicaIndex, Slot, Wire, inputs::InputBundle, scheduling::*,
};

use super::*;
use crate::{
    cost::{LOOK_UPS_PER_PAIR, most_pairs, pairs, pairs_of},
    unfit::Unfit,
};

const SCOPE: ClusterScope =
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) };

pub(super) fn job(policy: SchedulingPolicy) -> JobSpec {
    JobSpec {
        replicas: 4,
        policy,
        ..JobSpec::new(
            SCOPE,
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

/// In which order each replica prefers equal workers.
pub(super) fn orders(manifest: &Manifest, public: &PublicInputs) -> Vec<Vec<usize>> {
    let plan = Plan::new(manifest, public).unwrap();
    plan.steps.into_iter().map(|step| step.candidates).collect()
}

const WORKERS: u8 = 7;

/// A slot of `replicas` of that job; workers 1 to 7 are there.
pub(super) fn slot(job: &JobSpec, replicas: u16) -> (Manifest, PublicInputs) {
    let digest = job.digest();
    let public = PublicInputs {
        policy: ClusterPolicy { scale: Scale::FINEST, ..ClusterPolicy::default() },
        jobs: [(digest, job.clone())].into(),
        draw: Draw { block: KeccakDigest([5; 32]), jobs_seen: 1 },
        ..PublicInputs::default()
    };
    let pending = |replica| PendingReplica {
        submission: 0,
        job: digest,
        replica: ReplicaIndex(replica),
        only: None,
        candidates: ALL_CANDIDATES,
    };
    let entry = |w| TelemetryEntry { sender: PeerIdHash([w; 32]), digest: Blake3Digest([w; 32]) };
    let manifest = Manifest {
        binding: Binding { scope: SCOPE, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) },
        slot: Slot(1),
        proposer: ParticipantIndex::new(1).unwrap(),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([5; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 1,
        policy: KeccakDigest([6; 32]),
        circuit: CircuitId { version: 1, fingerprint: Blake3Digest([7; 32]) },
        telemetry: (1..=WORKERS).map(entry).collect(),
        pending: (0..replicas).map(pending).collect(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    };
    (manifest, public)
}

#[test]
fn the_order_among_equals_follows_from_the_last_decided_slot_and_the_block_after_it() {
    for policy in [SchedulingPolicy::Spread, SchedulingPolicy::PriorityRoundRobin] {
        let (manifest, mut public) = slot(&job(policy), 4);
        let first = orders(&manifest, &public);
        // After three void slots, in another's words, as of a later block.
        let mut later = Manifest {
            slot: Slot(4),
            proposer: ParticipantIndex::new(2).unwrap(),
            previous: KeccakDigest([8; 32]),
            block: BlockRef { number: 9, hash: KeccakDigest([9; 32]) },
            base: KeccakDigest([10; 32]),
            jobs_seen: 2,
            ..manifest.clone()
        };
        later.telemetry.iter_mut().for_each(|entry| entry.digest.0[0] ^= 0xff);
        assert_eq!(orders(&later, &public), first);
        public.seed = KeccakDigest([11; 32]);
        public.last_decided = Slot(1);
        assert_ne!(orders(&manifest, &public), first);
    }
}

#[test]
fn what_a_plan_is_made_from_can_be_stored_and_read_again() {
    let (manifest, mut public) = slot(&job(SchedulingPolicy::Spread), 4);
    let job = manifest.pending[0].job;
    let (worker, replica) = (PeerIdHash([3; 32]), ReplicaIndex(9));
    public.labels.insert(worker, vec!["zone=a".parse().unwrap()]);
    public.labels.insert(PeerIdHash([4; 32]), Vec::new());
    public.organisations.insert(worker, "Acme".parse().unwrap());
    public.submitters.insert(Address([3; 20]), vec!["Acme".parse().unwrap()]);
    public.previous.insert((job, ReplicaIndex(1)), worker);
    let state = ReplicaState::Serving;
    public.running.push(RunningReplica { job, replica, worker, state });
    public.seed = KeccakDigest([11; 32]);
    public.last_decided = Slot(1);
    public.late.insert(worker);
    let bundle = public.bundle(&manifest);
    assert_eq!((bundle.slot, bundle.manifest), (manifest.slot, manifest.digest()));
    let bundle = InputBundle::from_wire(&bundle.to_wire()).unwrap();
    assert_eq!(PublicInputs::from_bundle(bundle, public.jobs.clone()), public);
}

/// Finding M6: whoever writes the last certificate, or submits a job, must not choose the order.
#[test]
fn the_block_that_decides_comes_after_the_certificate_and_after_the_submission() {
    let (manifest, public) = slot(&job(SchedulingPolicy::Spread), 4);
    let first = orders(&manifest, &public);
    let draw = Draw { block: KeccakDigest([12; 32]), ..public.draw };
    assert_ne!(orders(&manifest, &PublicInputs { draw, ..public.clone() }), first);
    // Submitted after that block: the block of this manifest decides.
    let draw = Draw { jobs_seen: 0, ..public.draw };
    let public = PublicInputs { draw, ..public };
    let block = BlockRef { number: 9, hash: KeccakDigest([9; 32]) };
    let later = Manifest { block, ..manifest.clone() };
    assert_ne!(orders(&later, &public), orders(&manifest, &public));
}

/// How many replicas of a slot have candidates, and why the others have none.
fn asked(spec: JobSpec, replicas: u16, min_candidates: u16) -> (usize, Option<JobRefusal>) {
    let (manifest, mut public) = slot(&spec, replicas);
    public.policy.min_candidates = min_candidates;
    for w in 1..=WORKERS {
        let zone = if w == 1 { "zone=a" } else { "zone=b" };
        public.labels.insert(PeerIdHash([w; 32]), vec![zone.parse().unwrap()]);
    }
    let plan = Plan::new(&manifest, &public).unwrap();
    let last_open = plan.steps.iter().rposition(|step| !step.candidates.is_empty());
    for (k, step) in plan.steps.iter().enumerate() {
        assert_eq!(step.last_of_job, Some(k) >= last_open, "step {k}");
    }
    (plan.open().count(), plan.refusals().get(&spec.digest()).cloned())
}

/// Seven workers: a job that narrows them must leave three.
#[test]
fn whatever_narrows_the_candidates_must_leave_enough_of_them() {
    let with = |constraints| JobSpec { constraints, ..job(SchedulingPolicy::Spread) };
    let none = Constraints::default();
    let apart = |domain| AntiAffinity { strength: Strength::Hard, domain };
    let by_worker =
        Constraints { anti_affinity: Some(apart(FailureDomain::Worker)), ..none.clone() };
    let zone = FailureDomain::Label("zone".parse().unwrap());
    let by_zone = Constraints { anti_affinity: Some(apart(zone)), ..none.clone() };
    let labels = |text: &str| vec![text.parse().unwrap()];
    let unfit = |by: Unfit, count| std::iter::repeat_n(by, count).collect();
    let few = |found| {
        let unfit = unfit(Unfit::Labels, usize::from(WORKERS) - found);
        Some(JobRefusal::TooFewCandidates { found, min: 3, unfit })
    };
    assert_eq!(asked(with(none.clone()), 4, 0), (4, None));
    let near = Constraints { max_latency: LatencyClass::new(0).ok(), ..none.clone() };
    assert_eq!(asked(with(near.clone()), 4, 0), (4, None));
    assert_eq!(
        asked(with(near), 4, 8),
        (
            0,
            Some(JobRefusal::TooFewCandidates { found: 7, min: 8, unfit: unfit(Unfit::Labels, 0) })
        )
    );
    let deny = Constraints { deny: labels("zone=b"), ..none.clone() };
    assert_eq!(asked(with(deny.clone()), 4, 0), (0, few(1)));
    assert_eq!(asked(with(deny), 4, 1), (4, None), "1 refuses nothing");
    let allow = Constraints { allow: labels("zone=b"), ..none };
    assert_eq!(asked(with(allow), 4, 0), (4, None));
    // Kept apart, each takes candidates from the next: 7, 6, 5, 4, 3 are left, then too few.
    let seven = |constraints| JobSpec { replicas: 7, ..with(constraints) };
    assert_eq!(asked(seven(by_worker.clone()), 7, 0), (5, None));
    assert_eq!(asked(seven(by_worker), 7, 1), (7, None));
    // The first takes zone b at worst, and one candidate is left.
    assert_eq!(asked(with(by_zone), 2, 0), (1, None));
}

/// It is where its port was in use before, and is free now.
#[test]
fn a_replica_with_a_fixed_port_goes_back_where_it_or_its_predecessor_was() {
    let at = |host| Port {
        name: "http".parse().unwrap(),
        container: core::num::NonZeroU16::new(80).unwrap(),
        protocol: Protocol::Tcp,
        host,
    };
    let fixed = HostPort::Fixed(core::num::NonZeroU16::new(8080).unwrap());
    for (host, goes_back) in [(fixed, true), (HostPort::Dynamic, false), (HostPort::None, false)] {
        let job = JobSpec { ports: vec![at(host)], ..job(SchedulingPolicy::Spread) };
        let (manifest, mut public) = slot(&job, 1);
        let before = PeerIdHash([3; 32]);
        public.previous.insert((job.digest(), ReplicaIndex(0)), before);
        let plan = Plan::new(&manifest, &public).unwrap();
        let previous = plan.steps[0].previous.map(|worker| manifest.telemetry[worker].sender);
        assert_eq!(previous, goes_back.then_some(before), "{host:?}");
    }
}

/// "A manifest that costs more than the slot's bound is never locked": the public rule bounds replicas
/// and candidates; this holds the circuits' cost against it.
#[test]
fn what_a_slot_may_list_costs_at_most_the_bound() {
    let entry = |w: u16| {
        let mut sender = [0; 32];
        sender[..2].copy_from_slice(&w.to_be_bytes());
        TelemetryEntry { sender: PeerIdHash(sender), digest: Blake3Digest(sender) }
    };
    let apart = |strength| Some(AntiAffinity { strength, domain: FailureDomain::Worker });
    let request = ResourceRequest::Clear(Resources {
        cpu: CpuUnits(17),
        memory: MemoryUnits(18),
        disk: DiskUnits(19),
        gpu: GpuUnits(21),
    });
    let mut dearest = 0;
    for (workers, candidates) in [
        (2u16, ALL_CANDIDATES),
        (16, ALL_CANDIDATES),
        (64, ALL_CANDIDATES),
        (300, SAMPLE),
        (300, 300),
    ] {
        let asked = usize::from(workers.min(candidates));
        let most = (most_pairs(0) / pairs_of(asked)).min(96) as u16;
        for policy in [
            SchedulingPolicy::Spread,
            SchedulingPolicy::BinPack,
            SchedulingPolicy::PriorityRoundRobin,
            SchedulingPolicy::Cost,
        ] {
            for anti_affinity in [None, apart(Strength::Soft), apart(Strength::Hard)] {
                // One job with all replicas, and as many jobs.
                for jobs in [1, most] {
                    let constraints = Constraints {
                        anti_affinity: anti_affinity.clone(),
                        max_latency: LatencyClass::new(1).ok(),
                        prefer_previous: true,
                        ..Constraints::default()
                    };
                    let replicas = most / jobs;
                    let specs = (0..jobs).map(|nonce| JobSpec {
                        nonce: nonce.into(),
                        replicas,
                        request: request.clone(),
                        constraints: constraints.clone(),
                        ..job(policy)
                    });
                    let specs: Vec<_> = specs.collect();
                    let (mut manifest, mut public) = slot(&specs[0], 0);
                    public.policy.min_candidates = 1;
                    manifest.telemetry = (0..workers).map(entry).collect();
                    for (submission, spec) in (0..).zip(&specs) {
                        public.jobs.insert(spec.digest(), spec.clone());
                        for replica in (0..replicas).map(ReplicaIndex) {
                            let job = spec.digest();
                            manifest.pending.push(PendingReplica {
                                submission,
                                job,
                                replica,
                                only: None,
                                candidates,
                            });
                            public.previous.insert((job, replica), entry(0).sender);
                        }
                    }
                    let cost = Plan::new(&manifest, &public).unwrap().cost().look_ups();
                    assert!(pairs(&manifest) <= most_pairs(0));
                    let asked = manifest.pending.iter().map(|pending| manifest.asked(pending));
                    let pairs = asked.sum::<usize>() as u64;
                    dearest = dearest.max(cost * 100 / pairs);
                    assert!(
                        cost <= pairs * LOOK_UPS_PER_PAIR,
                        "{cost} for {pairs} pairs: {workers} workers, {jobs} jobs, {policy:?}, \
                         {anti_affinity:?}"
                    );
                }
            }
        }
    }
    assert!(dearest > LOOK_UPS_PER_PAIR * 50, "the bound is far off: {dearest} / 100");
}
