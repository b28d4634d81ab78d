//! One member's place in the world: its machine, and what is under way for it.

use std::{collections::VecDeque, sync::Arc};

use veil_committee_machine::{EffectOf, Machine, Millis, PersistId, VerdictOf};
use veil_protocol_spec::ParticipantIndex;

use crate::{Crash, Host, When};

/// What a machine is given.
pub(crate) enum Input<H: Host> {
    /// Nothing: it has just been made, and may have effects already.
    Boot,
    Message {
        from: ParticipantIndex,
        bytes: Arc<[u8]>,
    },
    Timeout,
    Work,
    Stored(PersistId),
    Own(H::Input),
}

/// What came of an input, in order.
pub(crate) enum Outcome<H: Host> {
    Verdict(ParticipantIndex, VerdictOf<H::Machine>),
    Effect(EffectOf<H::Machine>),
    /// All that came before this moment has been carried out.
    Reached(H::Moment),
}

pub(crate) struct Seat<H: Host> {
    pub(crate) machine: Option<H::Machine>,
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
    pub(crate) effects: u64,
    pub(crate) crashes: Vec<(Crash<H::Moment>, bool)>,
}

impl<H: Host> Seat<H> {
    pub(crate) fn new(crashes: Vec<Crash<H::Moment>>) -> Self {
        Self {
            machine: None,
            timer: None,
            working: false,
            look: false,
            inputs: Vec::new(),
            outcomes: VecDeque::new(),
            storing: None,
            effects: 0,
            crashes: crashes.into_iter().map(|crash| (crash, false)).collect(),
        }
    }

    /// Gives the machine what has come for it; the effects are carried out later, since this runs
    /// beside the other seats.
    pub(crate) fn advance(&mut self, now: Millis, pieces: usize) {
        let mut inputs = core::mem::take(&mut self.inputs);
        // A piece of work takes long; what has arrived by now may give it more to do.
        inputs.sort_by_key(|input| matches!(input, Input::Work));
        let Some(machine) = &mut self.machine else { return };
        for input in inputs {
            self.look |= !matches!(input, Input::Work);
            match input {
                Input::Boot => {}
                Input::Message { from, bytes } => {
                    let verdict = machine.handle(from, &bytes, now);
                    self.outcomes.push_back(Outcome::Verdict(from, verdict));
                }
                Input::Timeout => machine.handle_timeout(now),
                Input::Work => {
                    self.working = false;
                    self.look |= (0..pieces).all(|_| machine.work(now));
                }
                Input::Stored(id) => machine.persisted(id),
                Input::Own(input) => H::input(machine, input, now),
            }
            let effects = core::iter::from_fn(|| machine.poll_effect());
            self.outcomes.extend(effects.map(Outcome::Effect));
            self.outcomes.extend(H::moment(machine).map(Outcome::Reached));
        }
    }

    /// The crash that is due, if the member has come to a moment of its.
    pub(crate) fn crash_due(
        &mut self,
        reached: impl Fn(&When<H::Moment>) -> bool,
    ) -> Option<Crash<H::Moment>> {
        let (crash, done) =
            self.crashes.iter_mut().find(|(crash, done)| !done && reached(&crash.at))?;
        *done = true;
        Some(crash.clone())
    }

    /// Everything that is not on disk is gone.
    pub(crate) fn crash(&mut self) {
        self.machine = None;
        self.timer = None;
        self.working = false;
        self.look = false;
        self.inputs.clear();
        self.outcomes.clear();
        self.storing = None;
    }
}
