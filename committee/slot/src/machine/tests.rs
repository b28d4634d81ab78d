//! One member's slot, from work to certificate.

mod steps;

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Committee, KeccakDigest, Signature,
    agreement::SlotOutcome,
    scheduling::{
        BlockRef, CertificateBody, ClusterPolicy, Outcome, ReferenceStringOrigin, Sampling,
        Submission, TelemetryEntry, UnixMillis,
    },
    slot::{OpenedStep, evaluation_digest, opened_digest},
};
use veil_scheduler_plan::inputs::PublicInputs;

use super::*;
use crate::{
    demand::{AllowedImages, JobDemand},
    fixtures::{BLOCK, CIRCUIT, POLICY, assignments, binding, job, member, record, worker},
    manifest::{MAX_BLOCK_AGE, TelemetryRef},
};

const TIMING: SlotTiming = SlotTiming { collect: 1_000, retry: 100, void_after: 5_000 };
const INTERVAL: Millis = 10_000;
const SLOT: Slot = Slot(1);
const EVALUATION: Blake3Digest = Blake3Digest([0xe0; 32]);

fn config() -> SlotConfig {
    SlotConfig { me: member(2), origin: ReferenceStringOrigin::Committee, timing: TIMING }
}

/// What a member sees: one job of one replica, three workers.
struct Sight {
    block: BlockRef,
    state: Arc<ClusterState>,
    workers: BTreeSet<veil_protocol_spec::PeerIdHash>,
    submissions: Vec<Submission>,
    fresh: Vec<TelemetryRef>,
}

impl Sight {
    fn new() -> Self {
        let fresh = (1..=3).map(|byte| TelemetryRef {
            entry: TelemetryEntry { sender: worker(byte), digest: Blake3Digest([byte; 32]) },
            includes_slot: Slot(0),
            sampled_at: UnixMillis(1),
            policy: POLICY,
            ended: Arc::default(),
            given_back: Arc::default(),
            health: Arc::default(),
            profile: Arc::default(),
        });
        Self {
            block: BLOCK,
            state: Arc::default(),
            workers: (1..=3).map(worker).collect(),
            submissions: vec![Submission {
                position: 1,
                job: job(1).digest(),
                operator: job(1).operator,
                leak_bits: 10_000,
                cancelled: false,
            }],
            fresh: fresh.collect(),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&LocalView<'_>) -> T) -> T {
        let suspicions = BTreeMap::new();
        f(&LocalView {
            binding: binding(),
            committee: Committee::new(4).unwrap(),
            roster: &[],
            state: &self.state,
            block: self.block,
            base: CertificateBody::NO_PREVIOUS,
            anchored: Slot(0),
            policy: POLICY,
            max_workers: 8,
            sampling: Sampling::default(),
            workers: &self.workers,
            draining: &BTreeSet::new(),
            submissions: &self.submissions,
            settled: self.block.number,
            max_block_age: MAX_BLOCK_AGE,
            jobs: &|digest| {
                (*digest == job(1).digest()).then(|| {
                    JobDemand::of(&job(1), &ClusterPolicy::default(), &AllowedImages::default(), 0)
                })
            },
            circuit: CIRCUIT,
            fresh: &self.fresh,
            suspicions: &suspicions,
            not_before: UnixMillis(0),
            appeal: false,
            owners: &BTreeMap::new(),
            fit: &|_, _, _| crate::fit::Fit::Fits,
        })
    }

    fn observed(&self, machine: &mut SlotMachine, silent: bool, now: Millis) -> Vec<SlotEffect> {
        self.with(|view| {
            machine.observe(&Observation { view, silent, interval: INTERVAL }, now);
        });
        effects(machine)
    }

    fn asked(
        &self,
        machine: &mut SlotMachine,
        instance: Instance,
        round: u32,
        now: Millis,
    ) -> Vec<SlotEffect> {
        self.with(|view| machine.get_value(instance, round, view, now));
        effects(machine)
    }
}

/// Carries out every record at once, and gives back the rest.
fn effects(machine: &mut SlotMachine) -> Vec<SlotEffect> {
    let mut specials = Vec::new();
    while let Some(effect) = machine.poll_effect() {
        if let Effect::Special(special) = effect {
            specials.push(special);
        }
    }
    specials
}

/// The records that a machine stores, and what follows each of them.
fn stored(machine: &mut SlotMachine) -> Vec<(SlotEntry, Vec<SlotEffect>)> {
    let mut records: Vec<(SlotEntry, Vec<SlotEffect>)> = Vec::new();
    while let Some(effect) = machine.poll_effect() {
        match effect {
            Effect::Persist { record, .. } => records.push((record, Vec::new())),
            Effect::Special(special) => {
                records.last_mut().expect("nothing leaves before the record").1.push(special);
            }
            Effect::Send { .. } | Effect::Broadcast(_) => panic!("the slot sends nothing"),
        }
    }
    records
}

fn machine(records: Vec<SlotEntry>) -> SlotMachine {
    let mut machine = SlotMachine::new(config(), Arc::default(), records, 0);
    if machine.stage() == SlotStage::Ready {
        assert_eq!(effects(&mut machine), [SlotEffect::Observe]);
    }
    machine
}

fn lock(instance: Instance, value: Blake3Digest) -> Lock {
    let votes = [1, 3, 4].map(|j| (member(j), Signature([j; 64]))).to_vec();
    Lock { binding: binding(), instance, round: 0, value, votes }
}

fn proposal() -> Manifest {
    Sight::new().with(|view| view.propose(member(2)))
}

fn locked() -> LockedManifest {
    let manifest = proposal();
    let lock = lock(Instance::manifest(SLOT), manifest.digest());
    LockedManifest { manifest, lock }
}

fn evaluated(outputs: usize) -> Evaluated {
    let jobs = [(job(1).digest(), job(1))].into();
    let public = PublicInputs { jobs, ..PublicInputs::default() };
    Evaluated { digest: EVALUATION, public, outputs }
}

/// A machine in which the slot is locked and being evaluated.
fn at_lock(now: Millis) -> SlotMachine {
    let mut machine = machine(Vec::new());
    Sight::new().observed(&mut machine, false, now);
    let LockedManifest { manifest, lock } = locked();
    machine.locked(lock, manifest, now);
    effects(&mut machine);
    machine
}

/// A machine that knows the outcome: the replica goes to the second worker.
fn at_outcome(now: Millis) -> (SlotMachine, SlotEnd) {
    let mut machine = at_lock(now);
    machine.evaluated(SLOT, 0, Ok(evaluated(1)), now);
    assert_eq!(effects(&mut machine), [open(0, &[])]);
    machine.opened(SLOT, 0, Ok(vec![2]), now);
    assert_eq!(effects(&mut machine), [evaluate(1, &[&[2]])]);
    machine.evaluated(SLOT, 1, Ok(evaluated(0)), now);
    assert_eq!(
        effects(&mut machine),
        [state(&[EVALUATION]), SlotEffect::Agree(Instance::end(SLOT))]
    );
    let end = proposed(&mut machine, now);
    assert_eq!(end.outcome.unwrap().evaluation, EVALUATION);
    (machine, end)
}

/// The end that a machine proposes when it is asked.
fn proposed(machine: &mut SlotMachine, now: Millis) -> SlotEnd {
    let asked = Sight::new().asked(machine, Instance::end(SLOT), 0, now);
    let [SlotEffect::ProposeEnd { end, .. }] = &asked[..] else { panic!("{asked:?}") };
    *end
}

fn evaluate(step: u16, opened: &[&[u8]]) -> SlotEffect {
    let opened = opened.iter().map(|digits| digits.to_vec()).collect();
    SlotEffect::Evaluate { locked: Box::new(locked()), step, opened }
}

fn open(step: u16, before: &[OpenedStep]) -> SlotEffect {
    SlotEffect::Open { locked: Box::new(locked()), step, before: opened_digest(before) }
}

fn state(evaluations: &[Blake3Digest]) -> SlotEffect {
    SlotEffect::State { locked: Box::new(locked()), evaluation: evaluation_digest(evaluations) }
}

const fn void() -> SlotEnd {
    SlotEnd { binding: binding(), slot: SLOT, manifest: Blake3Digest([0; 32]), outcome: None }
}

fn void_end() -> SlotEnd {
    SlotEnd { manifest: proposal().digest(), ..void() }
}

const fn validated(end: &SlotEnd, valid: bool) -> SlotEffect {
    SlotEffect::Validated { end: *end, valid }
}

#[test]
fn work_becomes_a_certificate() {
    let (sight, mut machine) = (Sight::new(), machine(Vec::new()));
    let begun = sight.observed(&mut machine, false, 10);
    let agree = SlotEffect::Agree(Instance::manifest(SLOT));
    assert_eq!(begun, [SlotEffect::Prepare(SLOT), agree]);
    let asked = sight.asked(&mut machine, Instance::manifest(SLOT), 3, 10);
    let manifest = Box::new(proposal());
    assert_eq!(asked, [SlotEffect::ProposeManifest { round: 3, manifest }]);

    let LockedManifest { manifest, lock: of_manifest } = locked();
    machine.locked(of_manifest, manifest, 20);
    let records = stored(&mut machine);
    let [(SlotEntry::Locked(entry), follows)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(**entry, locked());
    assert_eq!(follows[..], [SlotEffect::Publish(Box::new(locked())), evaluate(0, &[])]);

    let (mut machine, end) = at_outcome(30);
    machine.ended(lock(Instance::end(SLOT), end.digest()), end);
    let records = stored(&mut machine);
    let [(SlotEntry::Ended { end: entry, .. }, follows)] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(*entry, end);
    let [SlotEffect::Sign { body, ready }] = &follows[..] else { panic!("{follows:?}") };
    assert_eq!(ready[..], [member(1), member(3), member(4)]);
    assert_eq!(body.evaluation, EVALUATION);

    machine.signed(SLOT, Ok(GroupSignature([7; 65])), 40);
    let finished = effects(&mut machine);
    let [SlotEffect::Finish(record)] = &finished[..] else { panic!("{finished:?}") };
    assert_eq!(record.verify_structure(Committee::new(4).unwrap()), Ok(()));
    let outcomes: Vec<_> = record.assignments.as_slice().iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, [Outcome::Node(worker(2))]);
    let state = Arc::new(ClusterState::default().follow(record).unwrap());
    machine.certified(state, 50);
    let certified = SlotEffect::Certified { slot: SLOT, void: false };
    assert_eq!(effects(&mut machine), [SlotEffect::Cancel(SLOT), certified, SlotEffect::Observe]);
    assert_eq!((machine.slot(), machine.stage()), (Slot(2), SlotStage::Ready));
}

#[test]
fn telemetry_is_awaited_within_a_bound() {
    let (sight, mut machine) = (Sight::new(), machine(Vec::new()));
    let waits = [SlotEffect::Prepare(SLOT), SlotEffect::Collect];
    assert_eq!(sight.observed(&mut machine, true, 0), waits);
    assert_eq!(machine.stage(), SlotStage::Collecting);
    assert_eq!(machine.poll_timeout(), Some(TIMING.collect));
    machine.handle_timeout(TIMING.collect - 1);
    assert_eq!(effects(&mut machine), []);
    machine.handle_timeout(TIMING.collect);
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::manifest(SLOT))]);
}

#[test]
fn an_outcome_is_valid_to_whoever_computed_it_and_void_after_the_timer() {
    let (mut machine, end) = at_outcome(0);
    let other = SlotOutcome { state_root: KeccakDigest([1; 32]), ..end.outcome.unwrap() };
    let other = SlotEnd { outcome: Some(other), ..end };
    machine.validate_end(end.digest(), end, 1);
    machine.validate_end(other.digest(), other, 1);
    machine.validate_end(void_end().digest(), void_end(), 1);
    assert_eq!(effects(&mut machine), [validated(&end, true), validated(&other, false)]);
    machine.handle_timeout(TIMING.void_after - 1);
    assert_eq!(effects(&mut machine), []);
    machine.handle_timeout(TIMING.void_after);
    assert_eq!(effects(&mut machine), [validated(&void_end(), true)]);
    // Whoever knows the outcome still proposes it.
    let asked = Sight::new().asked(&mut machine, Instance::end(SLOT), 5, TIMING.void_after);
    assert_eq!(asked, [SlotEffect::ProposeEnd { round: 5, end }]);
}

#[test]
fn the_end_of_another_manifest_is_refused_at_once() {
    let mut machine = at_lock(0);
    machine.behind(Instance::end(SLOT));
    effects(&mut machine);
    machine.validate_end(void().digest(), void(), TIMING.void_after);
    assert_eq!(effects(&mut machine), [validated(&void(), false)]);
}

#[test]
fn whoever_knows_nothing_waits_for_the_timer() {
    let mut machine = at_lock(0);
    machine.evaluated(SLOT, 0, Err("the telemetry is nowhere".to_owned()), 50);
    assert_eq!(machine.poll_timeout(), Some(50 + TIMING.retry));
    machine.handle_timeout(50 + TIMING.retry);
    assert_eq!(effects(&mut machine), [evaluate(0, &[])]);
    assert_eq!(machine.poll_timeout(), Some(TIMING.void_after));
    // The others are about to end the slot: this member takes part, and says nothing yet.
    machine.behind(Instance::end(SLOT));
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::end(SLOT))]);
    let (_, end) = at_outcome(0);
    machine.validate_end(end.digest(), end, 60);
    assert_eq!(Sight::new().asked(&mut machine, Instance::end(SLOT), 0, 60), []);
    machine.handle_timeout(TIMING.void_after);
    assert_eq!(effects(&mut machine), [SlotEffect::ProposeEnd { round: 0, end: void_end() }]);
}

#[test]
fn a_void_slot_places_nothing_and_the_next_one_has_the_same_work() {
    let (mut machine, _) = at_outcome(0);
    machine.ended(lock(Instance::end(SLOT), void_end().digest()), void_end());
    let followed = effects(&mut machine);
    let [SlotEffect::Cancel(SLOT), SlotEffect::Sign { body, .. }] = &followed[..] else {
        panic!("{followed:?}")
    };
    assert!(body.is_void());
    machine.signed(SLOT, Ok(GroupSignature([7; 65])), 1);
    let finished = effects(&mut machine);
    let [SlotEffect::Finish(record)] = &finished[..] else { panic!("{finished:?}") };
    assert_eq!(record.verify_structure(Committee::new(4).unwrap()), Ok(()));
    let state = Arc::new(ClusterState::default().follow(record).unwrap());
    machine.certified(Arc::clone(&state), 2);
    effects(&mut machine);
    let sight = Sight { state, ..Sight::new() };
    // A void slot is a try: the next one is an interval away.
    assert_eq!(sight.observed(&mut machine, false, 3), []);
    assert_eq!(machine.stage(), SlotStage::BackingOff);
    machine.handle_timeout(2 + INTERVAL);
    assert_eq!(effects(&mut machine), [SlotEffect::Observe]);
    let begun = sight.observed(&mut machine, false, 2 + INTERVAL);
    let agree = SlotEffect::Agree(Instance::manifest(Slot(2)));
    assert_eq!(begun, [SlotEffect::Prepare(Slot(2)), agree]);
}

#[test]
fn who_learns_the_outcome_after_the_signature_completes_the_record() {
    let (_, end) = at_outcome(0);
    let mut machine = at_lock(0);
    machine.behind(Instance::end(SLOT));
    machine.ended(lock(Instance::end(SLOT), end.digest()), end);
    machine.signed(SLOT, Ok(GroupSignature([7; 65])), 1);
    let before = effects(&mut machine);
    assert!(matches!(&before[..], [SlotEffect::Agree(_), SlotEffect::Sign { .. }]), "{before:?}");
    machine.evaluated(SLOT, 0, Ok(evaluated(1)), 2);
    machine.opened(SLOT, 0, Ok(vec![2]), 2);
    machine.evaluated(SLOT, 1, Ok(evaluated(0)), 2);
    let after = effects(&mut machine);
    assert!(matches!(&after[2..], [SlotEffect::State { .. }, SlotEffect::Finish(_)]), "{after:?}");
}

#[test]
fn a_failed_signature_is_tried_again_with_the_same_message() {
    let (mut machine, end) = at_outcome(0);
    machine.ended(lock(Instance::end(SLOT), end.digest()), end);
    let first = effects(&mut machine);
    machine.signed(SLOT, Err("too few members".to_owned()), 10);
    assert_eq!(machine.poll_timeout(), Some(10 + TIMING.retry));
    machine.handle_timeout(10 + TIMING.retry);
    assert_eq!(effects(&mut machine), first);
}

#[test]
fn a_restart_goes_on_where_the_records_end() {
    let entry = SlotEntry::Locked(Box::new(locked()));
    let mut again = machine(vec![entry.clone()]);
    let resumed = [
        SlotEffect::Prepare(SLOT),
        SlotEffect::Publish(Box::new(locked())),
        evaluate(0, &[]),
        SlotEffect::Observe,
    ];
    assert_eq!(effects(&mut again), resumed);

    let (_, end) = at_outcome(0);
    let ended = SlotEntry::Ended { lock: lock(Instance::end(SLOT), end.digest()), end };
    let mut again = machine(vec![entry, ended]);
    assert!(effects(&mut again).iter().any(|effect| matches!(effect, SlotEffect::Sign { .. })));
    // What the agreement gives back a second time is stored once.
    let LockedManifest { manifest, lock: of_manifest } = locked();
    again.locked(of_manifest, manifest, 1);
    again.ended(lock(Instance::end(SLOT), end.digest()), end);
    assert!(again.poll_effect().is_none());

    let mut earlier = locked();
    earlier.manifest.slot = Slot(9);
    let other = machine(vec![SlotEntry::Locked(Box::new(earlier))]);
    assert_eq!(other.stage(), SlotStage::Ready, "a record of another slot is left aside");
}

#[test]
fn others_pull_a_member_along() {
    let mut machine = machine(Vec::new());
    machine.behind(Instance::manifest(SLOT));
    let agree = SlotEffect::Agree(Instance::manifest(SLOT));
    assert_eq!(effects(&mut machine), [SlotEffect::Prepare(SLOT), agree]);
    machine.behind(Instance::manifest(SLOT));
    machine.behind(Instance::end(SLOT));
    assert_eq!(effects(&mut machine), [], "the lock comes first");
    machine.behind(Instance::manifest(Slot(5)));
    assert_eq!(effects(&mut machine), [SlotEffect::CatchUp(Slot(5))]);
}

#[test]
fn digits_that_are_no_outcome_leave_the_slot_to_the_others_or_void() {
    let mut machine = at_lock(0);
    machine.evaluated(SLOT, 0, Ok(evaluated(1)), 0);
    machine.opened(SLOT, 0, Ok(vec![9]), 0);
    machine.evaluated(SLOT, 1, Ok(evaluated(0)), 0);
    assert!(effects(&mut machine).contains(&state(&[EVALUATION])));
    assert_eq!(machine.poll_timeout(), Some(TIMING.void_after));
    machine.handle_timeout(TIMING.void_after);
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::end(SLOT))]);
}

/// The certificate of a slot that places nothing.
fn nowhere(state: &ClusterState, manifest: &Manifest) -> ClusterState {
    let record = record(state, manifest.clone(), Some(assignments(manifest, |_| None)));
    state.follow(&record).unwrap()
}

/// Finding C2: a slot and a transaction every interval for ever.
#[test]
fn a_job_that_fits_nowhere_costs_at_most_200_slots_a_day() {
    const DAY: Millis = 24 * 3600 * 1000;
    let (mut sight, mut machine) = (Sight::new(), machine(Vec::new()));
    let (mut now, mut slots) = (0, 0);
    while now < DAY {
        let begun = sight.observed(&mut machine, false, now);
        if begun.contains(&SlotEffect::Agree(Instance::manifest(machine.slot()))) {
            slots += 1;
            let manifest = sight.with(|view| view.propose(member(2)));
            assert_eq!(manifest.pending.len(), 1);
            sight.state = Arc::new(nowhere(&sight.state, &manifest));
            machine.certified(Arc::clone(&sight.state), now);
        } else if let Some(at) = machine.poll_timeout() {
            now = at;
            machine.handle_timeout(now);
        }
        effects(&mut machine);
    }
    assert!((100..=200).contains(&slots), "{slots} slots");
    // Another worker comes, and the job is tried at once.
    sight.workers.insert(worker(9));
    let entry = TelemetryEntry { sender: worker(9), digest: Blake3Digest([9; 32]) };
    sight.fresh.push(TelemetryRef { entry, ..sight.fresh[0].clone() });
    let begun = sight.observed(&mut machine, false, now);
    assert!(begun.contains(&SlotEffect::Agree(Instance::manifest(machine.slot()))));
}

#[test]
fn a_member_whose_chain_lags_behind_proposes_once_it_has_caught_up() {
    let first = proposal();
    let state = Arc::new(nowhere(&ClusterState::default(), &first));
    let mut machine = machine(Vec::new());
    machine.certified(Arc::clone(&state), 0);
    let instance = Instance::manifest(Slot(2));
    machine.behind(instance);
    effects(&mut machine);
    let earlier = BlockRef { number: BLOCK.number - 1, ..BLOCK };
    let mut sight = Sight { state, block: earlier, ..Sight::new() };
    assert_eq!(sight.asked(&mut machine, instance, 3, 1), []);
    assert_eq!(sight.observed(&mut machine, false, 2), []);
    sight.block = BLOCK;
    let proposed = sight.observed(&mut machine, false, 3);
    assert!(matches!(proposed[..], [SlotEffect::ProposeManifest { round: 3, .. }]), "{proposed:?}");
    assert_eq!(sight.observed(&mut machine, false, 4), [], "once");
}
