//! One life of a member's process: its machine, and what a crash takes away with it.

use std::collections::VecDeque;

use veil_committee_machine::{EffectOf, Machine, Millis, PersistId, VerdictOf};

use crate::{Host, Mail};

/// What a machine is given.
pub(crate) enum Input<H: Host> {
    Message(Mail),
    Timeout,
    Work,
    Stored(PersistId),
    Own(OwnInput<H>),
}

type OwnInput<H> = Box<dyn FnOnce(&mut <H as Host>::Machine, Millis) + Send>;

/// What came of an input, in order.
pub(crate) enum Outcome<H: Host> {
    Verdict(Mail, VerdictOf<H::Machine>),
    Effect(EffectOf<H::Machine>),
    /// All that came before this moment has been carried out.
    Reached(H::Moment),
}

pub(crate) struct Life<H: Host> {
    pub(crate) machine: H::Machine,
    pub(crate) timer: Option<Millis>,
    /// Whether a piece of work is planned.
    pub(crate) working: bool,
    /// Whether the machine may have work.
    pub(crate) look: bool,
    pub(crate) inputs: Vec<Input<H>>,
    /// What is to be carried out; it waits until the record before it is durable.
    pub(crate) outcomes: VecDeque<Outcome<H>>,
    /// The record that is being stored.
    pub(crate) storing: Option<EffectOf<H::Machine>>,
}

impl<H: Host> Life<H> {
    pub(crate) fn new(machine: H::Machine) -> Self {
        Self {
            machine,
            timer: None,
            working: false,
            look: false,
            // It may have effects from its construction.
            inputs: vec![Input::Own(Box::new(|_, _| {}))],
            outcomes: VecDeque::new(),
            storing: None,
        }
    }

    /// Gives the machine what has come for it; the effects are carried out later, since this runs
    /// beside the other members.
    pub(crate) fn advance(&mut self, now: Millis, pieces: usize) {
        let mut inputs = core::mem::take(&mut self.inputs);
        // A piece of work takes long; what has arrived by now may give it more to do.
        inputs.sort_by_key(|input| matches!(input, Input::Work));
        let machine = &mut self.machine;
        for input in inputs {
            self.look |= !matches!(input, Input::Work);
            match input {
                Input::Message(mail) => {
                    let verdict = machine.handle(mail.from, &mail.bytes, now);
                    self.outcomes.push_back(Outcome::Verdict(mail, verdict));
                }
                Input::Timeout => machine.handle_timeout(now),
                Input::Work => {
                    self.working = false;
                    self.look |= (0..pieces).all(|_| machine.work(now));
                }
                Input::Stored(id) => machine.persisted(id),
                Input::Own(input) => input(machine, now),
            }
            let effects = core::iter::from_fn(|| machine.poll_effect());
            self.outcomes.extend(effects.map(Outcome::Effect));
            self.outcomes.extend(H::moment(machine).map(Outcome::Reached));
        }
    }
}
