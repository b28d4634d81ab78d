//! A slot that is opened step by step, and what shows that somebody broke the protocol.

use veil_protocol_spec::{codec::Bytes, scheduling::CircuitId};
use veil_scheduler_plan::{inputs::PublicInputs, outcome::read};

use super::*;

const SECOND: Blake3Digest = Blake3Digest([0xe1; 32]);

/// The inputs of a slot with two replicas of one job, whose circuit asks about one after the other.
fn of_two() -> (LockedManifest, PublicInputs) {
    let job = job(2);
    let mut manifest = proposal();
    manifest.circuit = CircuitId { version: CircuitId::THRESHOLDS, ..CIRCUIT };
    manifest.pending[0].job = job.digest();
    let mut second = manifest.pending[0];
    second.replica.0 = 1;
    manifest.pending.push(second);
    let lock = lock(Instance::manifest(SLOT), manifest.digest());
    let public = PublicInputs { jobs: [(job.digest(), job)].into(), ..PublicInputs::default() };
    (LockedManifest { manifest, lock }, public)
}

fn step(evaluation: Blake3Digest, digit: u8) -> OpenedStep {
    OpenedStep { evaluation, digits: Bytes(vec![digit]) }
}

fn evaluate(step: u16, opened: &[u8]) -> SlotEffect {
    let opened = opened.iter().map(|digit| vec![*digit]).collect();
    SlotEffect::Evaluate { locked: Box::new(of_two().0), step, opened }
}

fn open(step: u16, before: &[OpenedStep]) -> SlotEffect {
    SlotEffect::Open { locked: Box::new(of_two().0), step, before: opened_digest(before) }
}

fn evaluated(digest: Blake3Digest, outputs: usize) -> Result<Evaluated, String> {
    Ok(Evaluated { digest, public: of_two().1, outputs })
}

/// A machine in which that slot is locked.
fn at_first_step() -> SlotMachine {
    let entry = SlotEntry::Locked(Box::new(of_two().0));
    let mut machine = SlotMachine::new(config(), Arc::default(), vec![entry], 0);
    let begun = effects(&mut machine);
    assert!(begun.contains(&evaluate(0, &[])), "{begun:?}");
    machine
}

/// The same with the first replica placed: the answer was 3.
fn at_second_step() -> SlotMachine {
    let mut machine = at_first_step();
    machine.evaluated(SLOT, 0, evaluated(EVALUATION, 1), 0);
    assert_eq!(effects(&mut machine), [open(0, &[])]);
    assert_eq!(machine.stage(), SlotStage::Opening);
    machine.opened(SLOT, 0, Ok(vec![3]), 0);
    // What was opened is stored before anything depends on it.
    let records = stored(&mut machine);
    let opened = SlotEntry::Opened { slot: SLOT, step: step(EVALUATION, 3) };
    assert_eq!(records, [(opened, vec![evaluate(1, &[3])])]);
    assert_eq!(machine.stage(), SlotStage::Evaluating);
    machine
}

/// Goes on to the end that the machine proposes.
fn to_the_end(mut machine: SlotMachine) -> (SlotMachine, SlotEnd) {
    machine.evaluated(SLOT, 1, evaluated(SECOND, 1), 1);
    assert_eq!(effects(&mut machine), [open(1, &[step(EVALUATION, 3)])]);
    machine.opened(SLOT, 1, Ok(vec![1]), 1);
    assert_eq!(effects(&mut machine), [evaluate(2, &[3, 1])]);
    machine.evaluated(SLOT, 2, evaluated(Blake3Digest([0; 32]), 0), 1);
    let evaluation = evaluation_digest(&[EVALUATION, SECOND]);
    let stated = SlotEffect::State { locked: Box::new(of_two().0), evaluation };
    assert_eq!(effects(&mut machine), [stated, SlotEffect::Agree(Instance::end(SLOT))]);
    let end = proposed(&mut machine, 1);
    (machine, end)
}

#[test]
fn each_opening_is_an_input_of_the_next_step_and_the_end_covers_all() {
    let (mut machine, end) = to_the_end(at_second_step());
    let outcome = end.outcome.unwrap();
    assert_eq!(outcome.evaluation, evaluation_digest(&[EVALUATION, SECOND]));
    let (LockedManifest { manifest, .. }, public) = of_two();
    let expected = read(&manifest, &public, &[vec![3], vec![1]]).unwrap();
    assert_eq!(outcome.assignments_root, expected.tree().root());
    let placed = expected.as_slice().iter().all(|place| place.outcome != Outcome::Pending);
    assert!(placed, "{expected:?}");

    machine.ended(lock(Instance::end(SLOT), end.digest()), end);
    let decided = effects(&mut machine);
    let [SlotEffect::Sign { body, .. }] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!(body.evaluation, outcome.evaluation);
    machine.signed(SLOT, Ok(GroupSignature([7; 65])), 2);
    assert!(matches!(effects(&mut machine)[..], [SlotEffect::Finish(_)]));
}

/// The effects of a machine that stores nothing.
fn stored_after(machine: &mut SlotMachine) -> Vec<SlotEffect> {
    let special = |effect| match effect {
        Effect::Special(special) => special,
        other => panic!("{other:?}"),
    };
    core::iter::from_fn(|| machine.poll_effect()).map(special).collect()
}

#[test]
fn a_restart_in_the_middle_opens_again_and_waits_for_nothing_that_was_opened() {
    let records = |steps: &[OpenedStep]| {
        let locked = SlotEntry::Locked(Box::new(of_two().0));
        let opened = steps.iter().cloned().map(|step| SlotEntry::Opened { slot: SLOT, step });
        core::iter::once(locked).chain(opened).collect::<Vec<_>>()
    };
    let first = step(EVALUATION, 3);
    let mut again =
        SlotMachine::new(config(), Arc::default(), records(core::slice::from_ref(&first)), 0);
    let evaluations = |effects: Vec<SlotEffect>| {
        let is = |effect: &SlotEffect| matches!(effect, SlotEffect::Evaluate { .. });
        effects.into_iter().filter(is).collect::<Vec<_>>()
    };
    assert_eq!(evaluations(effects(&mut again)), [evaluate(0, &[])]);
    again.evaluated(SLOT, 0, evaluated(EVALUATION, 1), 0);
    // Others may lack this member's share; nothing is stored again.
    assert_eq!(stored_after(&mut again), [open(0, &[]), evaluate(1, &[3])]);
    let (_, end) = to_the_end(again);
    assert_eq!(end, to_the_end(at_second_step()).1, "the same outcome as without a restart");

    let all = records(&[first, step(SECOND, 1)]);
    let mut again = SlotMachine::new(config(), Arc::default(), all.clone(), 0);
    again.evaluated(SLOT, 0, evaluated(EVALUATION, 1), 0);
    again.evaluated(SLOT, 1, evaluated(SECOND, 1), 0);
    again.evaluated(SLOT, 2, evaluated(Blake3Digest([0; 32]), 0), 1);
    effects(&mut again);
    assert_eq!(proposed(&mut again, 1), end);

    // What is not evaluated as before the restart is not opened.
    let mut again = SlotMachine::new(config(), Arc::default(), all.clone(), 0);
    effects(&mut again);
    again.evaluated(SLOT, 0, evaluated(SECOND, 1), 0);
    assert_eq!((effects(&mut again), again.stage()), (Vec::new(), SlotStage::AgreeingOnEnd));

    // Of a slot that ends void nothing is evaluated any more; openings of another slot are left aside.
    let manifest = of_two().0.lock.value;
    let void = SlotEnd { manifest, ..void() };
    let ended = SlotEntry::Ended { lock: lock(Instance::end(SLOT), void.digest()), end: void };
    let mut over = SlotMachine::new(config(), Arc::default(), [all, vec![ended]].concat(), 0);
    assert_eq!(evaluations(effects(&mut over)), []);
    let other = SlotEntry::Opened { slot: Slot(9), step: step(EVALUATION, 3) };
    let records = [records(&[]), vec![other]].concat();
    let mut again = SlotMachine::new(config(), Arc::default(), records, 0);
    assert_eq!(evaluations(effects(&mut again)), [evaluate(0, &[])]);
}

#[test]
fn answers_to_another_step_are_left_aside() {
    let mut machine = at_first_step();
    // Nothing is opened, and no later step answered, before it was asked for.
    machine.opened(SLOT, 0, Ok(vec![3]), 0);
    machine.evaluated(SLOT, 1, evaluated(SECOND, 1), 0);
    assert_eq!(effects(&mut machine), []);

    let mut machine = at_second_step();
    machine.evaluated(SLOT, 0, evaluated(EVALUATION, 1), 1);
    machine.evaluated(SLOT, 0, Err("cut off".to_owned()), 1);
    machine.opened(SLOT, 0, Ok(vec![2]), 1);
    assert_eq!((effects(&mut machine), machine.stage()), (Vec::new(), SlotStage::Evaluating));
    machine.evaluated(SLOT, 1, evaluated(SECOND, 1), 1);
    effects(&mut machine);
    machine.opened(SLOT, 0, Ok(vec![2]), 1);
    machine.opened(SLOT, 0, Err("too late".to_owned()), 1);
    assert_eq!((effects(&mut machine), machine.stage()), (Vec::new(), SlotStage::Opening));
}

#[test]
fn a_step_that_fails_is_tried_again_and_the_one_before_is_not() {
    let mut machine = at_second_step();
    machine.evaluated(SLOT, 1, Err("no thread is free".to_owned()), 10);
    assert_eq!(effects(&mut machine), []);
    assert_eq!(machine.poll_timeout(), Some(10 + TIMING.retry));
    machine.handle_timeout(10 + TIMING.retry);
    assert_eq!(effects(&mut machine), [evaluate(1, &[3])]);
    machine.evaluated(SLOT, 1, evaluated(SECOND, 1), 200);
    assert_eq!(effects(&mut machine), [open(1, &[step(EVALUATION, 3)])]);
    machine.opened(SLOT, 1, Err("the counter is not stored".to_owned()), 210);
    machine.handle_timeout(210 + TIMING.retry);
    assert_eq!(effects(&mut machine), [evaluate(1, &[3])]);
    to_the_end(machine);
}

/// An answer that names nobody is so for everybody.
#[test]
fn an_answer_that_names_nobody_leaves_the_slot_void() {
    let mut machine = at_second_step();
    machine.evaluated(SLOT, 1, evaluated(SECOND, 1), 1);
    machine.opened(SLOT, 1, Ok(vec![9]), 1);
    machine.evaluated(SLOT, 2, evaluated(Blake3Digest([0; 32]), 0), 1);
    effects(&mut machine);
    machine.handle_timeout(TIMING.void_after);
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::end(SLOT))]);
    assert_eq!(proposed(&mut machine, TIMING.void_after).outcome, None);
}

#[test]
fn a_slot_that_ends_void_takes_no_further_step() {
    // In the middle of the second step, and while the first one is opened.
    let mut in_second = at_second_step();
    let mut in_first = at_first_step();
    in_first.evaluated(SLOT, 0, evaluated(EVALUATION, 1), 0);
    effects(&mut in_first);
    for (machine, step) in [(&mut in_second, 1), (&mut in_first, 0)] {
        machine.handle_timeout(TIMING.void_after);
        assert_eq!(effects(machine), [SlotEffect::Agree(Instance::end(SLOT))]);
        let void = proposed(machine, TIMING.void_after);
        assert_eq!(void.outcome, None);
        machine.ended(lock(Instance::end(SLOT), void.digest()), void);
        let ended = effects(machine);
        assert!(
            matches!(ended[..], [SlotEffect::Cancel(SLOT), SlotEffect::Sign { .. }]),
            "{ended:?}"
        );
        // What comes of it after all changes nothing.
        machine.evaluated(SLOT, step, evaluated(SECOND, 1), TIMING.void_after + 1);
        machine.opened(SLOT, step, Ok(vec![3]), TIMING.void_after + 1);
        machine.evaluated(SLOT, step, Err("cancelled".to_owned()), TIMING.void_after + 2);
        assert_eq!((effects(machine), machine.poll_timeout()), (Vec::new(), None));
        machine.signed(SLOT, Ok(GroupSignature([7; 65])), TIMING.void_after + 3);
        let finished = effects(machine);
        assert!(matches!(finished[..], [SlotEffect::Finish(_)]), "{finished:?}");
    }
}

#[test]
fn what_shows_a_fault_is_reported_in_any_stage_and_disturbs_none() {
    let proof = Proof::Signing(Bytes(vec![1, 2, 3]));
    let report = [SlotEffect::Report(Box::new(proof.clone()))];
    for mut machine in [machine(Vec::new()), at_lock(0), at_second_step(), at_outcome(0).0] {
        let before = (machine.stage(), machine.poll_timeout());
        machine.found(proof.clone());
        assert_eq!(effects(&mut machine), report);
        assert_eq!((machine.stage(), machine.poll_timeout()), before);
    }
}
