//! Who is asked, and that nobody chooses it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use veil_protocol_spec::{
    Address, Blake3Digest, KeccakDigest, ParticipantIndex, PeerIdHash, ReplicaIndex, Slot,
    scheduling::*,
};

use super::{
    Plan,
    tests::{job, slot},
};
use crate::{
    cleartext::{self, Secrets},
    inputs::{JobRefusal, PublicInputs},
};

const WORKERS: u8 = 60;

fn worker(byte: u8) -> PeerIdHash {
    PeerIdHash([byte; 32])
}

/// A slot of `replicas` of that job, each of which asks a sample of these workers.
fn among(job: &JobSpec, replicas: u16, workers: &[u8]) -> (Manifest, PublicInputs) {
    let (mut manifest, public) = slot(job, replicas);
    let entry = |w: &u8| TelemetryEntry { sender: worker(*w), digest: Blake3Digest([*w; 32]) };
    manifest.telemetry = workers.iter().map(entry).collect();
    manifest.pending.iter_mut().for_each(|pending| pending.candidates = SAMPLE);
    (manifest, public)
}

fn all() -> Vec<u8> {
    (1..=WORKERS).collect()
}

/// Who is asked for each replica, in order, by replica of the manifest.
fn asked(manifest: &Manifest, public: &PublicInputs) -> Vec<Vec<PeerIdHash>> {
    let plan = Plan::new(manifest, public).unwrap();
    let mut steps: Vec<_> = plan.steps.iter().collect();
    steps.sort_by_key(|step| step.position);
    let sender = |worker: &usize| manifest.telemetry[*worker].sender;
    steps.iter().map(|step| step.candidates.iter().map(sender).collect()).collect()
}

/// Adds replicas of another job, of this priority.
fn add(
    manifest: &mut Manifest,
    public: &mut PublicInputs,
    nonce: u64,
    priority: u8,
    replicas: u16,
) {
    let of = job(SchedulingPolicy::Spread);
    let other = JobSpec { nonce, replicas, priority: Priority(priority), ..of };
    let submission = 1 + nonce;
    for replica in (0..replicas).map(ReplicaIndex) {
        let (job, only, candidates) = (other.digest(), None, SAMPLE);
        manifest.pending.push(PendingReplica { submission, job, replica, only, candidates });
    }
    public.jobs.insert(other.digest(), other);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Submitter and proposer: what waits beside it, whose telemetry is chosen, who proposes, as of which block.
    #[test]
    fn nothing_that_a_manifest_may_say_otherwise_moves_a_sample(
        proposer in 1u8..5,
        block in any::<[u8; 32]>(),
        certificate in any::<[u8; 32]>(),
        digests in any::<u8>(),
        voids in 0u64..5,
        beside in prop::collection::vec((1u64..50, any::<u8>(), 1u16..6), 0..4),
        policy in prop_oneof![Just(SchedulingPolicy::Spread), Just(SchedulingPolicy::Cost)],
    ) {
        let spec = job(policy);
        let (manifest, public) = among(&spec, 4, &all());
        let first = asked(&manifest, &public);
        prop_assert!(first.iter().all(|sample| sample.len() == usize::from(SAMPLE)));
        let (mut other, mut there) = (manifest.clone(), public);
        other.proposer = ParticipantIndex::new(proposer).unwrap();
        other.slot = Slot(1 + voids);
        // The draw is of an earlier one after slots that ended void, else of this block.
        other.block = BlockRef { number: 2, hash: KeccakDigest(block) };
        (other.previous, other.base) = (KeccakDigest(certificate), KeccakDigest(certificate));
        other.telemetry.iter_mut().for_each(|entry| entry.digest.0[0] ^= digests);
        let nonces: BTreeSet<_> = beside.iter().map(|(nonce, ..)| *nonce).collect();
        prop_assume!(nonces.len() == beside.len());
        for (nonce, priority, replicas) in beside {
            add(&mut other, &mut there, nonce, priority, replicas);
        }
        other.pending.sort_by_key(|p| (p.submission, p.replica));
        let again = asked(&other, &there);
        prop_assert_eq!(&again[..4], &first[..]);
        // Nor does listing fewer replicas.
        other.pending.retain(|p| p.replica == ReplicaIndex(2) && p.submission == 0);
        prop_assert_eq!(&asked(&other, &there)[0], &first[2]);
    }

    /// Workers, fourteen or more in league: whoever stays away takes nobody out of a sample but itself.
    #[test]
    fn who_stays_away_takes_out_itself_alone(
        colluders in prop::collection::btree_set(1..=WORKERS, 14..40),
        away in any::<u64>(),
        seed in any::<[u8; 32]>(),
    ) {
        let spec = job(SchedulingPolicy::Spread);
        let away: BTreeSet<_> = colluders.iter().filter(|w| away >> *w & 1 == 1).copied().collect();
        let there: Vec<_> = all().into_iter().filter(|w| !away.contains(w)).collect();
        let with = |workers: &[u8]| {
            let (manifest, public) = among(&spec, 4, workers);
            asked(&manifest, &PublicInputs { seed: KeccakDigest(seed), ..public })
        };
        for (all, some) in with(&all()).iter().zip(with(&there)) {
            let stay = |of: &&PeerIdHash| !away.contains(&of.0[0]);
            let kept: Vec<_> = all.iter().filter(stay).collect();
            prop_assert_eq!(&some.iter().take(kept.len()).collect::<Vec<_>>(), &kept);
            prop_assert_eq!(some.len(), there.len().min(SAMPLE.into()));
        }
    }
}

/// A worker whose name was chosen when the draw was known is asked after all others; all others know no such worker.
#[test]
fn a_name_that_is_chosen_after_the_draw_is_of_no_use() {
    let spec = job(SchedulingPolicy::Spread);
    let (manifest, mut public) = among(&spec, 4, &all());
    let first = asked(&manifest, &public);
    // The fourteen first of a sample, as if they had been ground.
    let ground: BTreeSet<_> = first[0][..14].iter().copied().collect();
    public.late = ground.clone();
    for sample in asked(&manifest, &public) {
        assert!(sample.iter().all(|worker| !ground.contains(worker)));
        assert_eq!(sample.len(), usize::from(SAMPLE));
    }
    // Where nobody else is, they are asked.
    let few: Vec<_> = ground.iter().map(|worker| worker.0[0]).chain([first[0][14].0[0]]).collect();
    let few: BTreeSet<_> = few.into_iter().collect();
    let (manifest, public) = among(&spec, 1, &few.into_iter().collect::<Vec<_>>());
    let late = ground.clone();
    let sample = asked(&manifest, &PublicInputs { late, ..public }).remove(0);
    assert_eq!((sample.len(), sample[0]), (15, first[0][14]), "the other one first");
}

/// By the block, which comes after the submission, and not by what the submitter writes: each worker as often.
#[test]
fn all_are_asked_alike() {
    let mut counts = [0u32; WORKERS as usize + 1];
    for nonce in 0..100 {
        let spec = JobSpec { nonce, ..job(SchedulingPolicy::Spread) };
        let (manifest, public) = among(&spec, 4, &all());
        for sample in asked(&manifest, &public) {
            sample.iter().for_each(|worker| counts[usize::from(worker.0[0])] += 1);
        }
    }
    // 400 samples of 15 among 60: 100 each, with a standard deviation of 9.
    assert!(counts[1..].iter().all(|count| (60..140).contains(count)), "{counts:?}");
    let spec = job(SchedulingPolicy::Spread);
    let (mut manifest, public) = among(&spec, 4, &all());
    let draw = Draw { jobs_seen: 0, ..public.draw };
    let public = PublicInputs { draw, ..public };
    let first = asked(&manifest, &public);
    manifest.block.hash.0[0] ^= 1;
    assert_ne!(asked(&manifest, &public), first, "submitted after the draw: by this block");
}

/// If all replicas of a job asked the same workers, those would be full, and the others never asked.
#[test]
fn each_replica_asks_a_sample_of_its_own() {
    let (manifest, public) = among(&job(SchedulingPolicy::Spread), 4, &all());
    let samples: BTreeSet<_> = asked(&manifest, &public).into_iter().collect();
    assert_eq!(samples.len(), 4);
}

#[test]
fn constraints_come_first_and_whoever_is_preferred_is_asked() {
    let constraints = Constraints {
        allow: vec!["zone=a".parse().unwrap()],
        prefer_previous: true,
        ..Constraints::default()
    };
    let spec = JobSpec { constraints, ..job(SchedulingPolicy::Spread) };
    let (mut manifest, mut public) = among(&spec, 4, &all());
    for w in (1..=WORKERS).step_by(2) {
        public.labels.insert(worker(w), vec!["zone=a".parse().unwrap()]);
    }
    let first = asked(&manifest, &public);
    for sample in &first {
        assert!(sample.iter().all(|worker| worker.0[0] % 2 == 1));
        assert_eq!(sample.len(), usize::from(SAMPLE));
    }
    let unasked = (1..=WORKERS).step_by(2).map(worker).find(|w| !first[0].contains(w)).unwrap();
    public.previous.insert((spec.digest(), ReplicaIndex(0)), unasked);
    let again = asked(&manifest, &public);
    assert_eq!((&again[0][..14], again[0][14]), (&first[0][..14], unasked));
    assert_eq!(again[1..], first[1..]);
    // It keeps its place in the order if it is asked anyway.
    public.previous.insert((spec.digest(), ReplicaIndex(0)), first[0][3]);
    assert_eq!(asked(&manifest, &public), first);
    // A wider sample begins with the narrower one.
    manifest.pending.iter_mut().for_each(|pending| pending.candidates = WIDER_SAMPLE);
    for (wider, sample) in asked(&manifest, &public).iter().zip(&first) {
        assert_eq!((wider.len(), &wider[..15]), (30, &sample[..]), "all that the label leaves");
    }
}

/// "N = 0 and 1, more replicas than candidates, all infeasible": nothing is placed, and it is the same for everybody.
#[test]
fn what_nobody_can_take_stays_pending() {
    let spec = JobSpec { replicas: 30, ..job(SchedulingPolicy::Spread) };
    let reading =
        |units| Reading { free: Quantities::from_array([units; 4]).unwrap(), ..Reading::default() };
    let placed = |workers: &[u8], units: u8| {
        let (manifest, public) = among(&spec, 30, workers);
        let plan = Plan::new(&manifest, &public).unwrap();
        let readings = vec![reading(units); workers.len()];
        cleartext::place(&plan, &readings, &Secrets::default()).iter().flatten().count()
    };
    assert_eq!(placed(&[], 9), 0);
    assert_eq!([placed(&[1], 0), placed(&[1], 9), placed(&[1], 100)], [0, 9, 30]);
    assert_eq!(placed(&all(), 0), 0);
    let nowhere = JobSpec { operator: Address([9; 20]), ..spec.clone() };
    let (mut manifest, public) = among(&nowhere, 3, &all());
    manifest.pending.iter_mut().for_each(|pending| pending.candidates = 0);
    assert!(asked(&manifest, &public).iter().all(Vec::is_empty));
    let plan = Plan::new(&manifest, &public).unwrap();
    assert_eq!((plan.output_digits(), plan.refusals().len()), (0, 0));
}

/// Replicas that are kept apart take candidates from each other: also from samples.
#[test]
fn kept_apart_each_sample_leaves_enough() {
    let anti_affinity =
        Some(AntiAffinity { strength: Strength::Hard, domain: FailureDomain::Worker });
    let constraints = Constraints { anti_affinity, ..Constraints::default() };
    let spec = JobSpec { replicas: 30, constraints, ..job(SchedulingPolicy::Spread) };
    for workers in [15u8, 60, 250] {
        let workers: Vec<_> = (1..=workers).collect();
        let (manifest, public) = among(&spec, 30, &workers);
        let samples = asked(&manifest, &public);
        for (k, sample) in samples.iter().enumerate().filter(|(_, sample)| !sample.is_empty()) {
            let takes = |of: &&Vec<PeerIdHash>| of.iter().any(|worker| sample.contains(worker));
            let before = samples[..k].iter().filter(takes).count();
            assert!(sample.len() >= before + 4, "replica {k}: {before} of {}", sample.len());
        }
        let open = samples.iter().filter(|sample| !sample.is_empty()).count();
        assert!((12..=30).contains(&open), "{} workers: {open}", workers.len());
    }
    // Too few altogether is said as before.
    let (manifest, public) = among(&spec, 1, &[1, 2, 3]);
    let public =
        PublicInputs { policy: ClusterPolicy { min_candidates: 4, ..public.policy }, ..public };
    let plan = Plan::new(&manifest, &public).unwrap();
    let refused = plan.refusals().get(&spec.digest());
    assert!(matches!(refused, Some(JobRefusal::TooFewCandidates { found: 3, min: 4, .. })));
}

#[test]
fn equals_are_taken_in_turn_within_a_sample() {
    let spec = job(SchedulingPolicy::PriorityRoundRobin);
    let (manifest, mut public) = among(&spec, 4, &all());
    public.last_decided = Slot(6);
    let by_turn = asked(&manifest, &public);
    for (k, sample) in by_turn.iter().enumerate() {
        let mut sorted = sample.clone();
        sorted.sort_unstable();
        assert_eq!(sample.len(), 15);
        let mut turned = sorted.clone();
        turned.rotate_left((7 + k) % 15);
        assert_eq!(sample, &turned);
    }
}
