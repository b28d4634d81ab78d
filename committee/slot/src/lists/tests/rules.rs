//! Leases, tries, shares and the bits that are told.

use proptest::prelude::*;
use veil_protocol_spec::scheduling::{Candidates, SAMPLE, WIDER_SAMPLE};
use veil_scheduler_plan::cost::{LOOK_UPS_PER_PAIR, MAX_LOOK_UPS, pairs};

use super::*;
use crate::demand::STOP_SECONDS;

/// What one member knows, to be changed.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) submissions: Vec<Submission>,
    pub(super) demands: BTreeMap<Blake3Digest, JobDemand>,
    lost: BTreeMap<PeerIdHash, u32>,
    pub(super) telemetry: BTreeSet<PeerIdHash>,
    pub(super) ended: Ended,
    pub(super) given_back: Words,
    pub(super) health: Health,
    pub(super) draining: BTreeSet<PeerIdHash>,
    pub(super) owners: BTreeMap<PeerIdHash, Address>,
    pub(super) block: u64,
    sampling: Sampling,
    /// Workers that do not fit system jobs.
    pub(super) unfit: BTreeMap<PeerIdHash, Fit>,
}

impl Known {
    /// Job 1, three replicas, four workers.
    pub(super) fn new(lease: LeasePolicy) -> Self {
        Self {
            submissions: vec![submission(5, 1)],
            demands: [(job(1), JobDemand { lease, ..three(&job(1)).unwrap() })].into(),
            lost: BTreeMap::new(),
            telemetry: (1..=4).map(worker).collect(),
            ended: Ended::new(),
            given_back: Words::new(),
            health: Health::new(),
            draining: BTreeSet::new(),
            owners: BTreeMap::new(),
            block: 1,
            sampling: Sampling::default(),
            unfit: BTreeMap::new(),
        }
    }

    /// Another operator's job.
    pub(super) fn submit(
        &mut self,
        position: u64,
        byte: u8,
        operator: u8,
        priority: u8,
        replicas: u16,
    ) {
        let operator = Address([operator; 20]);
        self.submissions.push(Submission { operator, ..submission(position, byte) });
        let demand = three(&job(byte)).unwrap();
        let priority = Priority(priority);
        let demand = JobDemand { operator, priority, replicas, ..demand };
        self.demands.insert(job(byte), demand);
    }

    pub(super) fn judges(&self, state: &ClusterState, judged: Option<Judged<'_>>) -> NextReplicas {
        let inputs = NextInputs {
            submissions: &self.submissions,
            jobs: &|job| self.demands.get(job).copied(),
            judged,
            lost: &self.lost,
            draining: &self.draining,
            telemetry: &self.telemetry,
            ended: &self.ended,
            health: &self.health,
            block: self.block,
            policy: POLICY,
            sampling: self.sampling,
            given_back: &self.given_back,
            owners: &self.owners,
            committee: committee(),
            fit: &|_, worker| {
                let there = if self.telemetry.contains(worker) { Fit::Fits } else { Fit::Silent };
                self.unfit.get(worker).copied().unwrap_or(there)
            },
        };
        next_replicas(state, &inputs)
    }

    pub(super) fn next(&self, state: &ClusterState) -> NextReplicas {
        self.judges(state, None)
    }

    pub(super) fn manifest(&self, state: &ClusterState) -> Manifest {
        let lost: Vec<_> = self.lost.keys().map(|worker| worker.0[0]).collect();
        let mut manifest = written(state, &self.submissions, self.next(state), &lost);
        manifest.slot = Slot(state.last_slot().0 + 1);
        manifest.telemetry = self
            .telemetry
            .iter()
            .map(|worker| TelemetryEntry { sender: *worker, digest: Blake3Digest(worker.0) })
            .collect();
        manifest.block.number = self.block;
        manifest
    }

    /// A slot in which pending replica number i goes to worker `choose(i)`.
    pub(super) fn slot(
        &self,
        state: &ClusterState,
        choose: impl Fn(usize) -> Option<u8>,
    ) -> ClusterState {
        let manifest = self.manifest(state);
        assert_eq!(manifest.validate(committee()), Ok(()));
        let assignments = assignments(&manifest, |i| choose(i).map(worker));
        state.follow(&record(state, manifest, assignments)).unwrap()
    }

    pub(super) fn lose(&mut self, byte: u8, lost_for: u32) {
        self.telemetry.remove(&worker(byte));
        self.lost.insert(worker(byte), lost_for);
    }

    pub(super) fn returns(&mut self, byte: u8) {
        self.lost.remove(&worker(byte));
        self.telemetry.insert(worker(byte));
    }
}

const LEASE: LeasePolicy = LeasePolicy::Exclusive { seconds: 60 };

/// Finding B1: two writers for as long as the lease.
#[test]
fn an_exclusive_replica_moves_when_lease_and_margin_are_over_and_never_before() {
    let mut known = Known::new(LEASE);
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    let wait = wait_seconds(LEASE).unwrap();
    assert!(wait >= 60 + STOP_SECONDS);
    // However long members claim to know: no certificate says that the worker is lost.
    known.lose(2, u32::MAX);
    assert_eq!(known.next(&state).pending, []);
    assert_eq!(known.next(&state).staying, 3);
    let state = known.slot(&state, |_| None);
    assert_eq!(state.lost_since(&worker(2)), Some(Slot(2)));
    for lost_for in [0, 1, 60, wait - 1] {
        known.lose(2, lost_for);
        assert_eq!(known.next(&state).pending, [], "{lost_for} s");
    }
    known.lose(2, wait);
    let due = known.manifest(&state);
    assert_eq!(pending_of(&due), [(job(1), 1)]);
    let moved = known.slot(&state, |_| Some(4));
    assert_eq!(moved.assigned_to(worker(4)).collect::<Vec<_>>(), [(job(1), ReplicaIndex(1))]);
    assert_eq!(moved.assigned_to(worker(2)).count(), 0);
    // The others of the same worker do not wait.
    let keep = Known { lost: known.lost.clone(), ..Known::new(LeasePolicy::Keep) };
    assert_eq!(keep.next(&state).pending.len(), 1);
}

#[test]
fn a_worker_that_is_back_before_its_lease_is_over_keeps_what_it_has() {
    let mut known = Known::new(LEASE);
    let placed = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    known.lose(2, 0);
    let lost = known.slot(&placed, |_| None);
    known.returns(2);
    let back = known.slot(&lost, |_| None);
    assert!(back.replicas().eq(placed.replicas()));
    assert_eq!(back.lost_since(&worker(2)), None);
    // Lost again, it waits again: what members knew of the first time does not count.
    known.lose(2, u32::MAX);
    assert_eq!(known.next(&back).pending, []);
}

/// A job whose body this member lacks is held where it is, not placed by guess.
#[test]
fn without_the_body_nothing_is_taken_from_a_lost_worker() {
    let mut known = Known::new(LeasePolicy::Keep);
    let state = known.slot(&ClusterState::default(), |i| Some(i as u8 + 1));
    known.lose(2, u32::MAX);
    known.demands.clear();
    let next = known.next(&state);
    assert_eq!((next.pending.len(), next.staying), (0, 3));
    assert_eq!(next.unknown, [job(1)]);
}

#[test]
fn what_has_no_place_is_tried_again_less_and_less_often() {
    let mut known = Known::new(LeasePolicy::Keep);
    let mut state = ClusterState::default();
    assert_eq!(known.next(&state).failures, None);
    let failures: Vec<_> = (0..8)
        .map(|_| {
            state = known.slot(&state, |_| None);
            known.next(&state).failures
        })
        .collect();
    assert_eq!(failures, [1, 2, 3, 4, 5, 6, 7, 7].map(Some));
    // A new job has its slot at once, and the old one does not come along each time.
    let mut along = Vec::new();
    for k in 0..66u8 {
        known.submit(6 + u64::from(k), 100 + k, 1, 0, 1);
        let next = known.next(&state);
        assert_eq!(next.failures, None);
        assert!(next.pending.iter().any(|p| p.job == job(100 + k)));
        along.push(next.pending.iter().any(|p| p.job == job(1)));
        state = known.slot(&state, |i| {
            (along[usize::from(k)] && i < 3).then_some(0).or(Some(1)).filter(|w| *w > 0)
        });
    }
    assert_eq!(along.iter().filter(|along| **along).count(), 1, "once in 64 slots");
}

#[test]
fn what_could_change_the_answer_wakes_what_waits() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.submit(6, 2, 1, 0, 1);
    // Job 2 runs, job 1 does not fit.
    let mut state = known.slot(&ClusterState::default(), |i| (i == 3).then_some(1));
    for _ in 0..4 {
        state = known.slot(&state, |_| None);
    }
    assert_eq!(known.next(&state).failures, Some(5));
    let woken = |known: &Known, state: &ClusterState| {
        let next = known.next(state);
        assert_eq!(next.pending.len(), 3);
        next.failures.is_none()
    };
    // A worker that was not considered before.
    known.telemetry.insert(worker(7));
    assert!(woken(&known, &state));
    known.telemetry.remove(&worker(7));
    // One of those that were comes and goes: nothing new.
    known.telemetry.remove(&worker(3));
    assert!(!woken(&known, &state));
    let without = known.slot(&state, |_| None);
    known.telemetry.insert(worker(3));
    assert!(!woken(&known, &without));
    // Nobody was there, and one of them is again.
    known.telemetry.clear();
    let nobody = known.slot(&state, |_| None);
    known.telemetry.insert(worker(3));
    assert!(woken(&known, &nobody));
    known.telemetry = (1..=4).map(worker).collect();
    // Another policy.
    let mut other = known.manifest(&state);
    other.policy = KeccakDigest([7; 32]);
    let none = assignments(&other, |_| None);
    let other = state.follow(&record(&state, other, none)).unwrap();
    assert!(woken(&known, &other));
    // Job 2 is withdrawn and leaves room.
    known.submissions[1].cancelled = true;
    let freed = known.slot(&state, |_| None);
    assert!(woken(&known, &freed));
    let again = known.slot(&freed, |_| None);
    assert_eq!(known.next(&again).failures, Some(1), "and counts anew");
}

/// Finding M5: a granted job must not be an unlimited question about everybody's load.
#[test]
fn a_job_is_not_considered_when_its_stated_bits_are_told() {
    let mut known = Known::new(LeasePolicy::Keep);
    // Three replicas and four workers: 3 bits each, 9 a slot.
    known.submissions[0].leak_bits = 8;
    let refused = |known: &Known, state: &ClusterState| {
        let next = known.next(state);
        assert_eq!(next.pending, []);
        next.not_considered.get(&job(1)).copied()
    };
    let leak = |stated, told, needed| {
        let (since, until) = (1, 1 + LEAK_WINDOW_BLOCKS);
        Some(NotConsidered::LeakBits { stated, told, needed, since, until })
    };
    let start = ClusterState::default();
    assert_eq!(refused(&known, &start), leak(8, 0, 9));
    known.submissions[0].leak_bits = 20;
    let state = known.slot(&start, |_| None);
    let state = known.slot(&state, |_| None);
    assert_eq!(refused(&known, &state), leak(20, 18, 9));
    let text = refused(&known, &state).unwrap().to_string();
    assert!(text.contains("20 bits") && text.contains("--leak-bits"), "{text}");
    // Two of them placed, the third needs no more than 3: that is not left either.
    known.block = LEAK_WINDOW_BLOCKS;
    assert!(refused(&known, &state).is_some());
    known.block = 1 + LEAK_WINDOW_BLOCKS;
    assert_eq!(known.next(&state).pending.len(), 3, "the window is over");
    // A slot that ends void is charged as well.
    known.block = 1;
    let locked = known.manifest(&start);
    let voided = start.follow(&void(&start, locked)).unwrap();
    known.submissions[0].leak_bits = 17;
    assert_eq!(refused(&known, &voided), leak(17, 9, 9));
}

#[test]
fn what_fits_nowhere_is_no_work() {
    let mut known = Known::new(LeasePolicy::Keep);
    for reason in [NotConsidered::TooLarge, NotConsidered::Encrypted] {
        known.demands.get_mut(&job(1)).unwrap().refused = Some(reason);
        let next = known.next(&ClusterState::default());
        assert_eq!((next.pending, next.not_considered), (vec![], [(job(1), reason)].into()));
    }
}

#[test]
fn a_slot_never_lists_more_than_its_bound() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.telemetry = (0..=255).map(worker).collect();
    known.submit(6, 2, 1, 0, 1024);
    known.submissions.iter_mut().for_each(|submission| submission.leak_bits = u32::MAX);
    for (candidates, asked) in [(Candidates::All, 256), (Candidates::Sample, usize::from(SAMPLE))] {
        known.sampling.candidates = candidates;
        let state = ClusterState::default();
        let most = most_pairs(0) / pairs_of(asked);
        let listed = known.next(&state).pending.len();
        assert_eq!(listed, most);
        assert!((listed * asked) as u64 * LOOK_UPS_PER_PAIR <= MAX_LOOK_UPS);
        // Too slow for that many, the committee ends a slot void, and lists half.
        let locked = known.manifest(&state);
        assert_eq!(pairs(&locked), most * pairs_of(asked));
        let mut state = state.follow(&void(&state, locked)).unwrap();
        assert_eq!(known.next(&state).pending.len(), most / 2);
        // However many it asks, there is always one.
        for _ in 0..20 {
            let locked = known.manifest(&state);
            state = state.follow(&void(&state, locked)).unwrap();
        }
        assert_eq!(known.next(&state).pending.len(), 1);
    }
}

/// "Twice without room: more candidates, then all": and what asks many leaves room for what asks few.
#[test]
fn a_replica_asks_a_sample_twice_then_more_then_all() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.telemetry = (0..=255).map(worker).collect();
    let mut state = ClusterState::default();
    let mut told = 0;
    for (asked, bits) in [(SAMPLE, 4), (SAMPLE, 4), (WIDER_SAMPLE, 6), (1024, 9), (1024, 9)] {
        known.submissions[0].leak_bits = u32::MAX;
        let pending = known.next(&state).pending;
        assert_eq!(pending.iter().map(|p| p.candidates).collect::<Vec<_>>(), [asked; 3]);
        // With a bit less than that tells, it is not tried.
        told += 3 * bits;
        known.submissions[0].leak_bits = told - 1;
        assert_eq!(known.next(&state).pending, []);
        known.submissions[0].leak_bits = told;
        state = known.slot(&state, |_| None);
        assert_eq!(state.told(&job(1), 1).0, told);
    }
    known.submissions[0].leak_bits = u32::MAX;
    state = known.slot(&state, |_| Some(7));
    // A new one asks few.
    known.submit(6, 2, 2, 0, 3);
    let pending = known.next(&state).pending;
    assert_eq!(pending.iter().map(|p| p.candidates).collect::<Vec<_>>(), [SAMPLE; 3]);
}

#[test]
fn what_asks_all_does_not_keep_out_what_asks_few() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.telemetry = (0..=255).map(worker).collect();
    known.submissions.clear();
    known.submit(6, 2, 1, 9, 40);
    known.submissions.iter_mut().for_each(|submission| submission.leak_bits = u32::MAX);
    let mut state = ClusterState::default();
    for _ in 0..3 {
        state = known.slot(&state, |_| None);
    }
    known.submit(7, 3, 2, 0, 5);
    // A worker is new: all are tried again.
    known.telemetry.remove(&worker(255));
    let mut new = worker(255);
    new.0[0] = 1;
    known.telemetry.insert(new);
    let pending = known.next(&state).pending;
    let of = |byte| pending.iter().filter(|p| p.job == job(byte)).count();
    assert_eq!(of(3), 5, "operators take turns, whatever a turn costs");
    assert_eq!(of(2), (most_pairs(0) - 5 * pairs_of(SAMPLE.into())) / pairs_of(256));
}

#[test]
fn operators_share_a_slot_and_priority_counts_within_a_share() {
    let mut known = Known::new(LeasePolicy::Keep);
    known.telemetry = (0..=255).map(worker).collect();
    known.sampling.candidates = Candidates::All;
    let most = most_pairs(0) / pairs_of(256);
    // Operator 1 asks for far more than a slot takes, first, and with the highest priority.
    known.submit(6, 2, 1, 255, 1024);
    known.submit(7, 3, 2, 0, 1024);
    known.submit(8, 4, 3, 0, 2);
    known.submit(9, 5, 2, 9, 3);
    let next = known.next(&ClusterState::default());
    let count = |byte| next.pending.iter().filter(|p| p.job == job(byte)).count();
    assert_eq!(next.pending.len(), most);
    assert_eq!(count(4), 2, "a small operator gets all that it asks for");
    let shares = (count(1) + count(2), count(3) + count(5));
    assert!(shares.0.abs_diff(shares.1) <= 1, "{shares:?}");
    assert_eq!((count(1), count(5)), (0, 3), "priority within a share");
}

#[test]
fn a_copied_digest_takes_nothing_from_its_operator() {
    let mut known = Known::new(LeasePolicy::Keep);
    let thief = Address([9; 20]);
    // Submitted before the operator does, and withdrawn.
    let copy = Submission { operator: thief, cancelled: true, ..submission(2, 1) };
    known.submissions.push(copy);
    let next = known.next(&ClusterState::default());
    assert_eq!(next.pending.iter().map(|p| p.submission).collect::<Vec<_>>(), [5, 5, 5]);
    // Withdrawn by its operator, it is wanted by nobody, whoever submits it again.
    known.submissions[0].cancelled = true;
    known.submissions.push(Submission { cancelled: false, ..copy });
    assert_eq!(known.next(&ClusterState::default()).pending, []);
}

proptest! {
    /// A judge that knows more jobs than the proposer lists finds the same list: nothing that is not
    /// listed is an objection.
    #[test]
    fn a_judge_finds_the_proposers_list(
        jobs in prop::collection::vec((1u8..4, 0u8..3, 1u16..40, any::<bool>()), 1..12),
        workers in 1u8..=255,
        slots in prop::collection::vec((any::<u64>(), any::<u16>()), 1..6),
    ) {
        let mut known = Known::new(LeasePolicy::Keep);
        known.telemetry = (0..workers).map(worker).collect();
        for (k, (operator, priority, replicas, _)) in (10u8..).zip(&jobs) {
            known.submit(k.into(), k, *operator, *priority, *replicas);
        }
        let mut state = ClusterState::default();
        for (choice, hidden) in slots {
            // The proposer lacks some bodies.
            let mut proposer = known.clone();
            for (k, _) in (10u8..).zip(&jobs).filter(|(k, _)| hidden >> (k % 16) & 1 == 1) {
                proposer.demands.remove(&job(k));
            }
            let proposed = proposer.next(&state);
            let listed: BTreeSet<_> = proposed.pending.iter().map(|p| p.job).collect();
            let (pending, done) = (&listed, &BTreeSet::new());
            let versions = &BTreeSet::new();
            let judged = Judged { pending, done, versions, forgotten: &[], runs: &[], leaving: &[], in_appeal: false };
            let judged = known.judges(&state, Some(judged));
            prop_assert_eq!(&judged.pending, &proposed.pending);
            prop_assert_eq!(&judged.leaving, &proposed.leaving);
            let pairs = |p: &PendingReplica| pairs_of(p.candidates.min(workers.into()).into());
            prop_assert!(proposed.pending.iter().map(pairs).sum::<usize>() <= most_pairs(0));
            state = proposer.slot(&state, |i| {
                (choice >> (i % 60) & 1 == 1).then_some((choice as u8).wrapping_add(i as u8) % workers)
            });
        }
    }
}

/// "Images enforced by members (not considered)", "revocation stops what runs".
#[test]
fn a_job_whose_image_is_revoked_leaves_and_comes_back_when_it_is_allowed() {
    let mut known = Known::new(LeasePolicy::Keep);
    let state = ClusterState::default();
    let allowed = known.demands[&job(1)];
    let revoked = JobDemand { refused: Some(NotConsidered::Image), ..allowed };
    known.demands.insert(job(1), revoked);
    let next = known.next(&state);
    assert!(next.pending.is_empty());
    assert_eq!(next.not_considered, [(job(1), NotConsidered::Image)].into());
    known.demands.insert(job(1), allowed);
    let state = known.slot(&state, |i| Some(i as u8 + 1));
    assert_eq!((known.next(&state).staying, known.next(&state).leaving.len()), (3, 0));
    known.demands.insert(job(1), revoked);
    let next = known.next(&state);
    let leaving = |replica| LeavingReplica { job: job(1), replica: ReplicaIndex(replica) };
    assert_eq!((next.staying, next.leaving.as_slice()), (0, &[0, 1, 2].map(leaving)[..]));
    assert_eq!(next.not_considered, [(job(1), NotConsidered::Image)].into());
    let state = known.slot(&state, |_| None);
    assert_eq!(state.replicas().count(), 0);
    known.demands.insert(job(1), allowed);
    assert_eq!(known.next(&state).pending.len(), 3);
}
