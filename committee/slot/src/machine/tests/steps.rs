//! A circuit of several steps, and what shows that somebody broke the protocol.

use core::num::NonZeroU8;

use veil_protocol_spec::{codec::Bytes, slot::evaluation_digest};

use super::*;

const FIRST: Blake3Digest = Blake3Digest([0xe1; 32]);

/// A machine whose circuit has two steps, and in which the slot is locked.
fn of_two_steps() -> SlotMachine {
    let config = SlotConfig { steps: NonZeroU8::new(2).unwrap(), ..config() };
    let entry = SlotEntry::Locked(Box::new(locked()));
    let mut machine = SlotMachine::new(config, Arc::default(), vec![entry], 0);
    let begun = effects(&mut machine);
    assert!(begun.contains(&evaluate(0, &[])), "{begun:?}");
    machine
}

fn first() -> Evaluated {
    Evaluated { digest: FIRST, ..evaluated(1) }
}

/// The same with the first step done: it has put out a 7.
fn at_second_step() -> SlotMachine {
    let mut machine = of_two_steps();
    machine.evaluated(SLOT, 0, Ok(first()), 0);
    assert_eq!(effects(&mut machine), [open(0)]);
    assert_eq!(machine.stage(), SlotStage::Opening);
    machine.opened(SLOT, 0, Ok(vec![7]), 0);
    assert_eq!(effects(&mut machine), [evaluate(1, &[&[7]])]);
    assert_eq!(machine.stage(), SlotStage::Evaluating);
    machine
}

#[test]
fn the_digits_of_a_step_are_inputs_of_the_next_and_the_end_covers_both() {
    let mut machine = at_second_step();
    machine.evaluated(SLOT, 1, Ok(evaluated(1)), 1);
    assert_eq!(effects(&mut machine), [open(1)]);
    machine.opened(SLOT, 1, Ok(vec![2]), 1);
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::end(SLOT))]);
    let end = proposed(&mut machine, 1);
    let (_, of_one) = at_outcome(0);
    let (outcome, of_one) = (end.outcome.unwrap(), of_one.outcome.unwrap());
    assert_eq!(outcome.evaluation, evaluation_digest(&[FIRST, EVALUATION]));
    // The digits of the last step are the outcome.
    assert_eq!(outcome.assignments_root, of_one.assignments_root);

    machine.ended(lock(Instance::end(SLOT), end.digest()), end);
    let decided = effects(&mut machine);
    let [SlotEffect::Sign { body, .. }] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!(body.evaluation, outcome.evaluation);
    machine.signed(SLOT, Ok(GroupSignature([7; 65])), 2);
    assert!(matches!(effects(&mut machine)[..], [SlotEffect::Finish(_)]));
}

#[test]
fn a_step_that_puts_nothing_out_is_followed_at_once() {
    let mut machine = of_two_steps();
    machine.evaluated(SLOT, 0, Ok(Evaluated { outputs: 0, ..first() }), 0);
    assert_eq!(effects(&mut machine), [evaluate(1, &[&[]])]);
}

#[test]
fn answers_to_another_step_are_left_aside() {
    let mut machine = of_two_steps();
    // Nothing is opened, and no later step answered, before it was asked for.
    machine.opened(SLOT, 0, Ok(vec![7]), 0);
    machine.evaluated(SLOT, 1, Ok(evaluated(1)), 0);
    assert_eq!(effects(&mut machine), []);

    let mut machine = at_second_step();
    machine.evaluated(SLOT, 0, Ok(first()), 1);
    machine.evaluated(SLOT, 0, Err("cut off".to_owned()), 1);
    machine.opened(SLOT, 0, Ok(vec![9]), 1);
    assert_eq!((effects(&mut machine), machine.stage()), (Vec::new(), SlotStage::Evaluating));
    machine.evaluated(SLOT, 1, Ok(evaluated(1)), 1);
    effects(&mut machine);
    machine.opened(SLOT, 0, Ok(vec![9]), 1);
    machine.opened(SLOT, 0, Err("too late".to_owned()), 1);
    assert_eq!((effects(&mut machine), machine.stage()), (Vec::new(), SlotStage::Opening));
    machine.opened(SLOT, 1, Ok(vec![2]), 1);
    assert_eq!(effects(&mut machine), [SlotEffect::Agree(Instance::end(SLOT))]);
}

#[test]
fn a_step_that_fails_is_tried_again_and_the_one_before_is_not() {
    let mut machine = at_second_step();
    machine.evaluated(SLOT, 1, Err("no thread is free".to_owned()), 10);
    assert_eq!(effects(&mut machine), []);
    assert_eq!(machine.poll_timeout(), Some(10 + TIMING.retry));
    machine.handle_timeout(10 + TIMING.retry);
    assert_eq!(effects(&mut machine), [evaluate(1, &[&[7]])]);
    machine.evaluated(SLOT, 1, Ok(evaluated(1)), 200);
    assert_eq!(effects(&mut machine), [open(1)]);
    machine.opened(SLOT, 1, Err("the counter is not stored".to_owned()), 210);
    machine.handle_timeout(210 + TIMING.retry);
    assert_eq!(effects(&mut machine), [evaluate(1, &[&[7]])]);
    machine.evaluated(SLOT, 1, Ok(evaluated(1)), 400);
    machine.opened(SLOT, 1, Ok(vec![2]), 400);
    assert_eq!(effects(&mut machine), [open(1), SlotEffect::Agree(Instance::end(SLOT))]);
}

#[test]
fn a_slot_that_ends_void_takes_no_further_step() {
    // In the middle of the second step, and while the first one is opened.
    let mut in_second = at_second_step();
    let mut in_first = of_two_steps();
    in_first.evaluated(SLOT, 0, Ok(first()), 0);
    effects(&mut in_first);
    for (machine, step) in [(&mut in_second, 1), (&mut in_first, 0)] {
        machine.handle_timeout(TIMING.void_after);
        assert_eq!(effects(machine), [SlotEffect::Agree(Instance::end(SLOT))]);
        assert_eq!(proposed(machine, TIMING.void_after), void_end());
        machine.ended(lock(Instance::end(SLOT), void_end().digest()), void_end());
        let ended = effects(machine);
        assert!(
            matches!(ended[..], [SlotEffect::Cancel(SLOT), SlotEffect::Sign { .. }]),
            "{ended:?}"
        );
        // What comes of it after all changes nothing.
        machine.evaluated(SLOT, step, Ok(evaluated(1)), TIMING.void_after + 1);
        machine.opened(SLOT, step, Ok(vec![7]), TIMING.void_after + 1);
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
