//! The event loop.

use std::sync::Arc;

use rayon::prelude::*;
use veil_committee_machine::{Effect, EffectOf, Machine, Millis};
use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::{
    Conditions, Crash, EventLog, Host, Schedule, Traffic, When,
    log::Recorder,
    network::Network,
    queue::EventQueue,
    seat::{Input, Outcome, Seat},
};

/// How long things take, in virtual time.
#[derive(Clone, Debug)]
pub struct Physics {
    /// The network.
    pub conditions: Conditions,
    /// Milliseconds until a record is durable.
    pub store: Millis,
    /// Milliseconds of a turn at computing.
    pub work: Millis,
    /// Pieces of computation in a turn.
    pub pieces: usize,
    /// Milliseconds after which a run counts as endless.
    pub limit: Millis,
    /// Whether events are recorded. Without it there is no trace; with it every byte is hashed.
    pub recorded: bool,
}

impl Physics {
    /// Nothing takes time, nothing is lost, nothing is recorded, and a run may take for ever.
    pub const INSTANT: Self = Self {
        conditions: Conditions::INSTANT,
        store: 0,
        work: 0,
        pieces: 1,
        limit: Millis::MAX,
        recorded: false,
    };
}

impl Default for Physics {
    fn default() -> Self {
        Self {
            conditions: Conditions::default(),
            store: 2,
            work: 1,
            limit: 3_600_000,
            recorded: true,
            ..Self::INSTANT
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is planned any more, and everybody is there who comes back.
    Rest,
    /// The host has what it wanted.
    Over,
    /// Virtual time ran out.
    Endless,
}

pub(crate) enum Event<H: Host> {
    Deliver { from: ParticipantIndex, to: ParticipantIndex, bytes: Arc<[u8]> },
    Seat { member: ParticipantIndex, life: u64, input: Input<H> },
    Crash(ParticipantIndex, usize),
    Return(ParticipantIndex),
    Host { of: Option<(ParticipantIndex, u64)>, event: H::Event },
}

/// The members of one session; see the [crate](crate).
pub struct World<H: Host> {
    host: H,
    physics: Physics,
    committee: Committee,
    schedule: Schedule<H>,
    seats: Vec<Seat<H>>,
    /// Members that are away until nothing happens any more.
    away: Vec<ParticipantIndex>,
}

impl<H: Host> World<H> {
    /// A world in which nothing has happened yet. The name is that of the event log's file.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        host: H,
        committee: Committee,
        physics: Physics,
        crashes: Vec<Crash<H::Moment>>,
        seed: [u8; 32],
    ) -> Self {
        let mut queue = EventQueue::default();
        let mut seats = Vec::with_capacity(committee.n());
        for j in committee.participants() {
            let own: Vec<_> = crashes.iter().filter(|c| c.participant == j).cloned().collect();
            for (i, crash) in own.iter().enumerate() {
                if let When::Time(at) = crash.at {
                    queue.at(at, Event::Crash(j, i));
                }
            }
            seats.push(Seat::new(own));
        }
        let network = Network::new(committee, physics.conditions.clone(), seed);
        let recorder = physics.recorded.then(|| Recorder::new(name.into()));
        let schedule = Schedule { queue, network, lives: vec![0; committee.n()], recorder };
        Self { host, physics, committee, schedule, seats, away: Vec::new() }
    }

    /// Starts every member, and runs until it ends.
    pub fn run(&mut self) -> End {
        for j in self.committee.participants() {
            self.boot(j);
        }
        self.advance();
        loop {
            while !self.host.is_over() {
                let Some(events) = self.schedule.queue.pop_instant() else { break };
                if self.schedule.now() > self.physics.limit {
                    return End::Endless;
                }
                events.into_iter().for_each(|event| self.handle(event));
                self.advance();
            }
            if self.host.is_over() {
                return End::Over;
            }
            // Whoever is still away comes back and learns what was decided; a plan may have it crash
            // again on the way, once for each crash that it lists.
            if self.away.is_empty() {
                return End::Rest;
            }
            for j in core::mem::take(&mut self.away) {
                self.schedule.queue.at(self.schedule.now(), Event::Return(j));
            }
        }
    }

    /// The host.
    pub const fn host(&self) -> &H {
        &self.host
    }

    /// What is planned, to plan events of the host's own.
    pub const fn schedule(&mut self) -> &mut Schedule<H> {
        &mut self.schedule
    }

    /// Takes a member's machine out of a world that has ended.
    pub fn take_machine(&mut self, member: ParticipantIndex) -> Option<H::Machine> {
        self.seats[member.position()].machine.take()
    }

    /// What a member has sent.
    #[must_use]
    pub fn traffic(&self, member: ParticipantIndex) -> Traffic {
        self.schedule.network.traffic(member)
    }

    /// How many effects of a member were carried out, over all its lives.
    #[must_use]
    pub fn effects(&self, member: ParticipantIndex) -> u64 {
        self.seats[member.position()].effects
    }

    /// Virtual time of the last event.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.schedule.now()
    }

    /// The host, and what happened.
    #[must_use]
    pub fn end(self) -> (H, EventLog) {
        let mut recorder = self.schedule.recorder.unwrap_or_default();
        (self.host, recorder.end())
    }

    // ---- an instant ------------------------------------------------------------------------

    fn handle(&mut self, event: Event<H>) {
        match event {
            Event::Deliver { from, to, bytes } => {
                if self.seats[to.position()].machine.is_none() {
                    self.record(&bytes, || format!("{from} -> {to} finds nobody"));
                    return;
                }
                self.record(&bytes, || format!("{from} -> {to} arrives: {}", H::describe(&bytes)));
                self.host.arrive(from, to, &bytes);
                self.seats[to.position()].inputs.push(Input::Message { from, bytes });
            }
            Event::Seat { member, life, input } => {
                if self.schedule.lives[member.position()] == life {
                    self.give(member, input);
                }
            }
            Event::Crash(j, i) => {
                let seat = &mut self.seats[j.position()];
                seat.crashes[i].1 = true;
                let crash = seat.crashes[i].0.clone();
                self.crash(&crash);
            }
            Event::Return(j) => {
                if self.seats[j.position()].machine.is_none() {
                    self.record(&[], || format!("{j} comes back"));
                    self.boot(j);
                }
            }
            Event::Host { of, event } => {
                if of.is_none_or(|(j, life)| self.schedule.lives[j.position()] == life) {
                    self.host.occur(event, &mut self.schedule);
                }
            }
        }
    }

    fn give(&mut self, j: ParticipantIndex, input: Input<H>) {
        let now = self.schedule.now();
        let seat = &mut self.seats[j.position()];
        match input {
            // Another time was set since.
            Input::Timeout if seat.timer != Some(now) => return,
            Input::Timeout => {
                seat.timer = None;
                self.record(&[], || format!("{j} is called: its time has come"));
            }
            Input::Stored(_) => {
                if self.stored(j) {
                    return;
                }
            }
            Input::Own(_) => self.record(&[], || format!("{j} is given what its host has for it")),
            Input::Boot | Input::Message { .. } | Input::Work => {}
        }
        self.seats[j.position()].inputs.push(input);
    }

    /// Lets every machine take its inputs, and carries out what comes of it.
    fn advance(&mut self) {
        let (now, pieces) = (self.schedule.now(), self.physics.pieces);
        let mut busy: Vec<_> = self.seats.iter_mut().filter(|s| !s.inputs.is_empty()).collect();
        match &mut busy[..] {
            [] => {}
            [seat] => seat.advance(now, pieces),
            seats => seats.par_iter_mut().for_each(|seat| seat.advance(now, pieces)),
        }
        for j in self.committee.participants() {
            self.carry_out_all(j);
        }
        self.host.observe(self.seats.iter().filter_map(|seat| seat.machine.as_ref()));
    }

    fn carry_out_all(&mut self, j: ParticipantIndex) {
        self.carry_out(j);
        let now = self.schedule.now();
        let seat = &mut self.seats[j.position()];
        let Some(machine) = &seat.machine else { return };
        let timer = machine.poll_timeout().map(|at| at.max(now));
        if timer != seat.timer {
            seat.timer = timer;
            if let Some(at) = timer {
                self.schedule.seat(j, at - now, Input::Timeout);
            }
        }
        let seat = &mut self.seats[j.position()];
        if core::mem::take(&mut seat.look) && !seat.working {
            seat.working = true;
            self.schedule.seat(j, self.physics.work, Input::Work);
        }
    }

    // ---- one member ------------------------------------------------------------------------

    fn boot(&mut self, j: ParticipantIndex) {
        if let Some(machine) = self.host.boot(j, &mut self.schedule) {
            let seat = &mut self.seats[j.position()];
            seat.machine = Some(machine);
            seat.inputs.push(Input::Boot);
        }
    }

    fn crash(&mut self, crash: &Crash<H::Moment>) {
        let j = crash.participant;
        if self.seats[j.position()].machine.is_none() {
            return;
        }
        self.record(&[], || format!("{j} crashes"));
        self.seats[j.position()].crash();
        self.schedule.lives[j.position()] += 1;
        match crash.away {
            Some(away) => {
                self.schedule.queue.at(self.schedule.now() + away, Event::Return(j));
            }
            None => self.away.push(j),
        }
    }

    /// Carries out what a member has left to do, up to the next record that is not durable.
    fn carry_out(&mut self, j: ParticipantIndex) {
        while self.seats[j.position()].storing.is_none() {
            let Some(outcome) = self.seats[j.position()].outcomes.pop_front() else { return };
            let reached = match outcome {
                Outcome::Verdict(from, verdict) => {
                    self.host.verdict(j, from, verdict);
                    continue;
                }
                Outcome::Reached(moment) => Some(moment),
                Outcome::Effect(effect @ Effect::Persist { id, .. }) => {
                    self.seats[j.position()].storing = Some(effect);
                    self.schedule.seat(j, self.physics.store, Input::Stored(id));
                    return;
                }
                Outcome::Effect(effect) => self.carry_out_one(j, effect),
            };
            if self.crash_if_due(j, reached) {
                return;
            }
        }
    }

    /// The record that a member waits for is on disk. Whether it crashes then.
    fn stored(&mut self, j: ParticipantIndex) -> bool {
        let Some(effect) = self.seats[j.position()].storing.take() else { return false };
        self.record(&[], || format!("{j} has stored a record"));
        let reached = self.carry_out_one(j, effect);
        self.crash_if_due(j, reached)
    }

    fn crash_if_due(&mut self, j: ParticipantIndex, reached: Option<H::Moment>) -> bool {
        let seat = &mut self.seats[j.position()];
        let effects = seat.effects;
        let crash = seat.crash_due(|when| match when {
            When::Time(_) => false,
            When::AfterEffects(count) => *count <= effects,
            When::At(moment) => Some(*moment) == reached,
        });
        if let Some(crash) = &crash {
            self.crash(crash);
        }
        crash.is_some()
    }

    fn carry_out_one(
        &mut self,
        j: ParticipantIndex,
        effect: EffectOf<H::Machine>,
    ) -> Option<H::Moment> {
        self.seats[j.position()].effects += 1;
        let moment = self.host.moment_of(j, &effect);
        match effect {
            Effect::Persist { record, .. } => self.host.store(j, record),
            Effect::Send { to, bytes } => self.send(j, to, &bytes),
            Effect::Broadcast(bytes) => {
                for to in self.committee.participants().filter(|to| *to != j) {
                    self.send(j, to, &bytes);
                }
            }
            Effect::Special(special) => self.host.special(j, special, &mut self.schedule),
        }
        moment
    }

    fn send(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &Arc<[u8]>) {
        let now = self.schedule.now();
        for bytes in self.host.leave(from, to, bytes, now) {
            let arrivals = self.schedule.network.carry(from, to, bytes.len(), now);
            if arrivals.is_empty() {
                self.record(&bytes, || format!("{from} -> {to} is lost: {}", H::describe(&bytes)));
            }
            for at in arrivals {
                let bytes = Arc::clone(&bytes);
                self.schedule.queue.at(at, Event::Deliver { from, to, bytes });
            }
        }
    }

    fn record(&mut self, bytes: &[u8], event: impl FnOnce() -> String) {
        self.schedule.record_bytes(bytes, event);
    }
}
