//! The event loop.

use std::sync::Arc;

use rayon::prelude::*;
use veil_committee_machine::{Effect, EffectOf, Machine, Millis};
use veil_protocol_spec::{Committee, ParticipantIndex};

use crate::{
    Conditions, Crash, EventLog, Host, Mail, Schedule, Traffic, When,
    life::{Input, Life, Outcome},
    log::Recorder,
    network::Network,
    schedule::Event,
};

/// How long things take, in virtual time.
#[derive(Clone, Debug)]
pub struct Physics {
    /// The network.
    pub conditions: Conditions,
    /// What the network draws from.
    pub seed: [u8; 32],
    /// Milliseconds until a record is durable.
    pub store: Millis,
    /// Milliseconds of a turn at computing.
    pub work: Millis,
    /// Pieces of computation in a turn.
    pub pieces: usize,
    /// Milliseconds after which a run counts as endless.
    pub limit: Millis,
    /// The name of the event log's file, if events are recorded. Without it there is no trace; with it
    /// every byte is hashed.
    pub recorded: Option<String>,
}

impl Physics {
    /// Nothing takes time, nothing is lost, nothing is recorded, and a run may take for ever.
    pub const INSTANT: Self = Self {
        conditions: Conditions::INSTANT,
        seed: [0; 32],
        store: 0,
        work: 0,
        pieces: 1,
        limit: Millis::MAX,
        recorded: None,
    };
}

impl Default for Physics {
    fn default() -> Self {
        let conditions = Conditions::default();
        Self { conditions, store: 2, work: 1, limit: 3_600_000, ..Self::INSTANT }
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

/// What a run leaves. Lists are by member.
pub struct Ended<H: Host> {
    /// How it ended.
    pub end: End,
    /// Virtual time of the last event.
    pub now: Millis,
    /// The host.
    pub host: H,
    /// The machines of the members that are there.
    pub machines: Vec<Option<H::Machine>>,
    /// What was sent.
    pub traffic: Vec<Traffic>,
    /// How many effects were carried out, over all lives.
    pub effects: Vec<u64>,
    /// What happened.
    pub log: EventLog,
}

/// The members of one session; see the [crate](crate).
pub struct World<H: Host> {
    host: H,
    physics: Physics,
    committee: Committee,
    schedule: Schedule<H>,
    members: Vec<Option<Life<H>>>,
    /// Effects of each member that were carried out.
    effects: Vec<u64>,
    /// Crashes still to come, but for those at a time.
    crashes: Vec<Crash<H::Moment>>,
    /// Members that are away until nothing happens any more.
    away: Vec<ParticipantIndex>,
}

impl<H: Host> World<H> {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(
        host: H,
        committee: Committee,
        physics: Physics,
        crashes: Vec<Crash<H::Moment>>,
    ) -> Self {
        let network = Network::new(committee, physics.conditions.clone(), physics.seed);
        let mut schedule = Schedule::new(network, physics.recorded.clone().map(Recorder::new));
        let mut later = Vec::new();
        for crash in crashes {
            match crash.at {
                When::Time(at) => schedule.plan(at, Event::Crash(crash)),
                When::AfterEffects(_) | When::At(_) => later.push(crash),
            }
        }
        Self {
            host,
            physics,
            committee,
            schedule,
            members: committee.participants().map(|_| None).collect(),
            effects: vec![0; committee.n()],
            crashes: later,
            away: Vec::new(),
        }
    }

    /// What is planned, to plan more before the members start.
    pub const fn schedule(&mut self) -> &mut Schedule<H> {
        &mut self.schedule
    }

    /// Starts every member, and runs until it ends.
    #[must_use]
    pub fn run(mut self) -> Ended<H> {
        for j in self.committee.participants() {
            self.boot(j);
        }
        let end = loop {
            if self.advance() {
                break End::Over;
            }
            let Some(events) = self.schedule.next_instant() else {
                if self.away.is_empty() {
                    break End::Rest;
                }
                // Whoever is still away comes back and learns what was decided; a plan may have it
                // crash again on the way, once for each crash that it lists.
                for j in core::mem::take(&mut self.away) {
                    self.schedule.plan(0, Event::Return(j));
                }
                continue;
            };
            if self.schedule.now > self.physics.limit {
                break End::Endless;
            }
            events.into_iter().for_each(|event| self.handle(event));
        };
        let Schedule { now, network, recorder, .. } = self.schedule;
        Ended {
            end,
            now,
            host: self.host,
            machines: self.members.into_iter().map(|life| life.map(|life| life.machine)).collect(),
            traffic: network.traffic,
            effects: self.effects,
            log: EventLog(Arc::new(recorder.unwrap_or_default())),
        }
    }

    // ---- an instant ------------------------------------------------------------------------

    fn handle(&mut self, event: Event<H>) {
        match event {
            Event::Deliver(mail) => self.deliver(mail),
            Event::Give { member, life, input } => {
                if self.schedule.lives[member.position()] == life {
                    self.give(member, input);
                }
            }
            Event::Crash(crash) => self.crash(crash),
            Event::Return(j) => {
                self.schedule.record(|| format!("{j} comes back"));
                self.boot(j);
            }
            Event::Host { of, event } => {
                if of.is_none_or(|(j, life)| self.schedule.lives[j.position()] == life) {
                    event(&mut self.host, &mut self.schedule);
                }
            }
        }
    }

    fn deliver(&mut self, mail: Mail) {
        let Mail { from, to, bytes } = &mail;
        if let Some(life) = &mut self.members[to.position()] {
            let line = || format!("{from} -> {to} arrives: {}", H::describe(bytes));
            self.schedule.record_bytes(bytes, line);
            life.inputs.push(Input::Message(mail));
        } else {
            self.schedule.record_bytes(bytes, || format!("{from} -> {to} finds nobody"));
        }
    }

    fn give(&mut self, j: ParticipantIndex, input: Input<H>) {
        let Some(life) = &mut self.members[j.position()] else { return };
        match input {
            Input::Timeout => {
                if life.timer.take_if(|at| *at == self.schedule.now).is_none() {
                    return; // Another time was set since.
                }
                self.schedule.record(|| format!("{j} is called: its time has come"));
            }
            Input::Stored(_) => {
                if let Some(effect) = life.storing.take() {
                    self.schedule.record(|| format!("{j} has stored a record"));
                    self.carry_out_one(j, effect);
                }
            }
            Input::Own(_) => {
                self.schedule.record(|| format!("{j} is given what its host has for it"));
            }
            Input::Message(_) | Input::Work => {}
        }
        if let Some(life) = &mut self.members[j.position()] {
            life.inputs.push(input);
        }
    }

    /// Lets every machine take its inputs, and carries out what comes of it. Whether the host has all
    /// that it wanted.
    fn advance(&mut self) -> bool {
        let (now, pieces) = (self.schedule.now, self.physics.pieces);
        let members = self.members.iter_mut().flatten();
        let mut busy: Vec<_> = members.filter(|life| !life.inputs.is_empty()).collect();
        match &mut busy[..] {
            [life] => life.advance(now, pieces),
            busy => busy.par_iter_mut().for_each(|life| life.advance(now, pieces)),
        }
        for j in self.committee.participants() {
            self.carry_out(j);
            self.look_ahead(j);
        }
        self.host.is_over(self.members.iter().flatten().map(|life| &life.machine))
    }

    // ---- one member ------------------------------------------------------------------------

    fn boot(&mut self, j: ParticipantIndex) {
        self.members[j.position()] = self.host.boot(j, &mut self.schedule).map(Life::new);
    }

    fn crash(&mut self, crash: Crash<H::Moment>) {
        let j = crash.participant;
        let Some(life) = self.members[j.position()].take() else { return };
        self.host.crashed(j, &life.machine, life.storing.is_some());
        self.schedule.record(|| format!("{j} crashes"));
        self.schedule.lives[j.position()] += 1;
        match crash.away {
            Some(away) => self.schedule.plan(away, Event::Return(j)),
            None => self.away.push(j),
        }
    }

    fn crash_if_due(&mut self, j: ParticipantIndex, reached: Option<H::Moment>) {
        let effects = self.effects[j.position()];
        let is_due = |crash: &Crash<_>| {
            crash.participant == j
                && match crash.at {
                    When::Time(_) => false,
                    When::AfterEffects(count) => count <= effects,
                    When::At(moment) => Some(moment) == reached,
                }
        };
        if let Some(i) = self.crashes.iter().position(is_due) {
            let crash = self.crashes.remove(i);
            self.crash(crash);
        }
    }

    /// Carries out what a member has left to do, up to the next record that is not durable.
    fn carry_out(&mut self, j: ParticipantIndex) {
        while let Some(life) = &mut self.members[j.position()]
            && life.storing.is_none()
            && let Some(outcome) = life.outcomes.pop_front()
        {
            match outcome {
                Outcome::Verdict(mail, verdict) => self.host.verdict(&mail, verdict),
                Outcome::Reached(moment) => self.crash_if_due(j, Some(moment)),
                Outcome::Effect(effect @ Effect::Persist { id, .. }) => {
                    life.storing = Some(effect);
                    self.schedule.give(j, self.physics.store, Input::Stored(id));
                }
                Outcome::Effect(effect) => self.carry_out_one(j, effect),
            }
        }
    }

    fn carry_out_one(&mut self, from: ParticipantIndex, effect: EffectOf<H::Machine>) {
        self.effects[from.position()] += 1;
        let reached = self.host.moment_of(from, &effect);
        match effect {
            Effect::Persist { record, .. } => self.host.store(from, record),
            Effect::Send { to, bytes } => {
                self.host.leave(Mail { from, to, bytes }, &mut self.schedule);
            }
            Effect::Broadcast(bytes) => {
                for to in self.committee.participants().filter(|to| *to != from) {
                    let bytes = Arc::clone(&bytes);
                    self.host.leave(Mail { from, to, bytes }, &mut self.schedule);
                }
            }
            Effect::Special(special) => self.host.special(from, special, &mut self.schedule),
        }
        self.crash_if_due(from, reached);
    }

    /// Plans the machine's next timeout, and a turn at computing if it may have work.
    fn look_ahead(&mut self, j: ParticipantIndex) {
        let now = self.schedule.now;
        let Some(life) = &mut self.members[j.position()] else { return };
        let timer = life.machine.poll_timeout().map(|at| at.max(now));
        if core::mem::replace(&mut life.timer, timer) != timer
            && let Some(at) = timer
        {
            self.schedule.give(j, at - now, Input::Timeout);
        }
        if core::mem::take(&mut life.look) && !core::mem::replace(&mut life.working, true) {
            self.schedule.give(j, self.physics.work, Input::Work);
        }
    }
}
