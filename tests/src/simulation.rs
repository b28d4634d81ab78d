//! Drives the machines of one attempt through virtual time.
//!
//! Effects are carried out in order; what is persisted survives a crash, everything else is lost
//! with it, effects that were not carried out included. See [`crate::plan`] for what can go wrong
//! and [`crate::report`] for what is checked.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::{Effect, Machine as _, Verdict};
use veil_keygen_ceremony::{
    machine::{AbortReport, Ceremony, CeremonyEffect, Record, Stage},
    setup::Setup,
    transcript::FinishCertificate,
};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, CeremonyParameters, Payload, Round, SignedMessage},
    identity::SecretIdentity,
};

use crate::{
    commit_point::{Refused, SimulatedChain},
    disk::Disk,
    fixtures::{self, ATTEMPT},
    malicious::{Behaviour, Insider, Machine, MaliciousMember, replay},
    network::{Agenda, Links, Millis},
    plan::{Plan, StageName, When},
    report::{Ending, MemberReport, Report, Verdicts, Violation},
};

/// Virtual time of one piece of computation.
const WORK: Millis = 1;
/// Virtual time after the deadline by which everything must have come to rest.
const REST: Millis = 600_000;

enum Event {
    Deliver { from: ParticipantIndex, to: ParticipantIndex, bytes: Arc<[u8]> },
    Timer(ParticipantIndex),
    Work(ParticipantIndex),
    Crash(ParticipantIndex, usize),
    Resume(ParticipantIndex),
    Publish(ParticipantIndex, Box<FinishCertificate>),
    Announce(ParticipantIndex),
    Deadline,
}

struct Member {
    setup: Arc<Setup>,
    identity: SecretIdentity,
    behaviour: Option<Behaviour>,
    disk: Disk,
    machine: Option<Box<dyn Machine>>,
    /// Moment, time away, whether it has happened.
    crashes: Vec<(When, Option<Millis>, bool)>,
    carried_out: u32,
    timer: Option<Millis>,
    working: bool,
    resumed: u32,
    ending: Option<Ending>,
    verdicts: Verdicts,
    /// Everything signed that it has sent, over all its lives.
    said: BTreeMap<(Round, Option<ParticipantIndex>), SignedMessage>,
}

struct World<'a> {
    plan: &'a Plan,
    seed: u64,
    parameters: CeremonyParameters,
    agenda: Agenda<Event>,
    links: Links,
    chain: SimulatedChain,
    members: Vec<Member>,
    trace: blake3::Hasher,
    violations: Vec<Violation>,
    wire: Vec<(ParticipantIndex, Arc<[u8]>)>,
}

impl Plan {
    /// Runs one attempt. The same plan and seed always give the same report.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        run(self, seed)
    }
}

fn run(plan: &Plan, seed: u64) -> Report {
    let parameters = fixtures::parameters(plan.committee, seed);
    let links = Links::new(plan.committee, plan.conditions(), fixtures::draw(seed, "network", 0));
    let members = plan.committee.participants().map(|j| Member::new(plan, seed, &parameters, j));
    let mut world = World {
        plan,
        seed,
        agenda: Agenda::default(),
        links,
        chain: SimulatedChain::new(parameters.clone(), ATTEMPT, plan.deadline),
        members: members.collect(),
        parameters,
        trace: blake3::Hasher::new(),
        violations: Vec::new(),
        wire: Vec::new(),
    };
    world.start();
    world.finish()
}

impl Member {
    fn new(plan: &Plan, seed: u64, parameters: &CeremonyParameters, j: ParticipantIndex) -> Self {
        let identity = fixtures::identity(seed, j);
        Self {
            setup: fixtures::setup(parameters, ATTEMPT, &identity, plan.timing()),
            identity,
            behaviour: plan.behaviour(j),
            disk: Disk::new(fixtures::ceremony_seed(seed, j)),
            machine: None,
            crashes: plan.crashes(j).into_iter().map(|(at, away)| (at, away, false)).collect(),
            carried_out: 0,
            timer: None,
            working: false,
            resumed: 0,
            ending: None,
            verdicts: Verdicts::default(),
            said: BTreeMap::new(),
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.machine.as_ref().map(|machine| machine.ceremony().stage())
    }

    /// The crash that is due when `happened` holds of its moment.
    fn crash_due(&mut self, happened: impl Fn(When) -> bool) -> Option<Option<Millis>> {
        let crash = self.crashes.iter_mut().find(|(when, _, done)| !done && happened(*when))?;
        crash.2 = true;
        Some(crash.1)
    }
}

impl World<'_> {
    fn start(&mut self) {
        self.agenda.at(self.plan.deadline, Event::Deadline);
        let participants: Vec<_> = self.plan.committee.participants().collect();
        for j in &participants {
            for (i, (when, _, _)) in self.members[j.position()].crashes.iter().enumerate() {
                if let When::Time(time) = when {
                    self.agenda.at(*time, Event::Crash(*j, i));
                }
            }
        }
        for j in &participants {
            let member = &self.members[j.position()];
            let seed = fixtures::ceremony_seed(self.seed, *j);
            let store = Box::new(member.disk.store.clone());
            let (setup, identity) = (Arc::clone(&member.setup), member.identity.clone());
            let machine = Ceremony::new(setup, identity, seed, store, 0);
            self.boot(*j, machine);
        }
        self.run_until_rest();
        // Whoever is still away comes back and learns what was decided; a plan may have it crash
        // again on the way, once for each crash it lists.
        loop {
            let away: Vec<_> = participants.iter().filter(|j| self.is_away(**j)).collect();
            if away.is_empty() {
                return;
            }
            for j in away {
                self.agenda.at(self.agenda.now(), Event::Resume(*j));
            }
            self.run_until_rest();
        }
    }

    fn is_away(&self, j: ParticipantIndex) -> bool {
        let member = &self.members[j.position()];
        member.machine.is_none() && !matches!(member.ending, Some(Ending::Stuck(_)))
    }

    fn run_until_rest(&mut self) {
        while let Some(event) = self.agenda.pop() {
            if self.agenda.now() > self.plan.deadline + REST {
                self.violations.push(Violation::Endless(self.agenda.now()));
                return;
            }
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.agenda.now();
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Timer(j) => {
                let member = &mut self.members[j.position()];
                if member.timer != Some(now) {
                    return; // Another time was set since.
                }
                member.timer = None;
                self.input(j, |machine| machine.handle_timeout(now));
            }
            Event::Work(j) => {
                let member = &mut self.members[j.position()];
                if !core::mem::take(&mut member.working) {
                    return;
                }
                let mut more = false;
                self.input(j, |machine| more = machine.work(now));
                let member = &mut self.members[j.position()];
                // `input` has planned a look already; it is needed only if there is more.
                member.working &= more;
            }
            Event::Crash(j, i) => {
                let crash = &mut self.members[j.position()].crashes[i];
                crash.2 = true;
                let away = crash.1;
                self.crash(j, away);
            }
            Event::Resume(j) => self.resume(j),
            Event::Publish(j, certificate) => match self.chain.publish(*certificate, now) {
                Ok(()) => self.announce(),
                Err(Refused::Decided) => {}
                Err(refused) => {
                    if self.members[j.position()].behaviour.is_none() {
                        self.violations.push(Violation::BadCertificate(j, refused.to_string()));
                    }
                }
            },
            Event::Announce(j) => {
                self.trace(b"announce", j, j, &[]);
                if let Some(decision) = self.chain.decision().cloned() {
                    self.input(j, |machine| machine.handle_commit_point(decision));
                }
            }
            Event::Deadline => {
                if self.chain.expire() {
                    self.announce();
                }
            }
        }
    }

    fn trace(&mut self, kind: &[u8], from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        self.trace.update(kind);
        self.trace.update(&self.agenda.now().to_le_bytes());
        self.trace.update(&[from.get(), to.get()]);
        self.trace.update(&(bytes.len() as u64).to_le_bytes());
        self.trace.update(bytes);
    }

    fn announce(&mut self) {
        for j in self.plan.committee.participants() {
            let at = self.links.commit_point(j, self.agenda.now());
            self.agenda.at(at, Event::Announce(j));
        }
    }

    // ---- one member ------------------------------------------------------------------------

    /// Puts a machine into a member, with its misbehaviour if it has one.
    fn boot(&mut self, j: ParticipantIndex, ceremony: Ceremony) {
        let member = &mut self.members[j.position()];
        member.machine = Some(match &member.behaviour {
            None => Box::new(ceremony),
            Some(behaviour) => {
                let insider = Insider {
                    setup: Arc::clone(&member.setup),
                    identity: member.identity.clone(),
                    seed: fixtures::ceremony_seed(self.seed, j),
                    store: member.disk.store.clone(),
                    relics: replay::relics(behaviour, self.plan, self.seed, &self.parameters),
                    now: self.agenda.now(),
                };
                Box::new(MaliciousMember::new(ceremony, insider, behaviour.clone()))
            }
        });
        self.input(j, |_| {});
    }

    fn deliver(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        self.trace(b"deliver", from, to, bytes);
        let now = self.agenda.now();
        let mut verdict = None;
        self.input(to, |machine| verdict = Some(machine.handle(from, bytes, now)));
        let verdicts = &mut self.members[to.position()].verdicts;
        match verdict {
            Some(Verdict::Valid) => verdicts.valid += 1,
            Some(Verdict::Skip(_)) => verdicts.skipped += 1,
            Some(Verdict::Fault(fault)) => verdicts.faults.push((from, fault)),
            None => {} // Its process is dead.
        }
    }

    /// Gives a member's machine an input and does what follows from it.
    fn input(&mut self, j: ParticipantIndex, input: impl FnOnce(&mut dyn Machine)) {
        let Some(machine) = &mut self.members[j.position()].machine else { return };
        input(&mut **machine);
        while let Some(effect) =
            self.members[j.position()].machine.as_mut().and_then(|m| m.poll_effect())
        {
            self.carry_out(j, effect);
            if let Some(away) = self.crash_after_effect(j) {
                return self.crash(j, away);
            }
        }
        let member = &mut self.members[j.position()];
        let Some(stage) = member.stage() else { return };
        if let Some(away) = member.crash_due(|when| when == When::Stage(StageName::from(stage))) {
            return self.crash(j, away);
        }
        let timer = member.machine.as_ref().and_then(|m| m.ceremony().poll_timeout());
        if timer != member.timer {
            member.timer = timer.map(|at| at.max(self.agenda.now()));
            if let Some(at) = member.timer {
                self.agenda.at(at, Event::Timer(j));
            }
        }
        if !member.working {
            member.working = true;
            self.agenda.at(self.agenda.now() + WORK, Event::Work(j));
        }
    }

    fn crash_after_effect(&mut self, j: ParticipantIndex) -> Option<Option<Millis>> {
        let member = &mut self.members[j.position()];
        let carried_out = member.carried_out;
        let Member { crashes, disk, said, .. } = member;
        let (_, away, done) = crashes.iter_mut().find(|(when, _, done)| {
            !done
                && match when {
                    When::AfterEffects(count) => carried_out >= *count,
                    When::AfterPersisting(round) => disk.holds(j, *round),
                    When::AfterSending(round) => said.keys().any(|(said, _)| said == round),
                    When::Time(_) | When::Stage(_) => false,
                }
        })?;
        *done = true;
        Some(*away)
    }

    fn crash(&mut self, j: ParticipantIndex, away: Option<Millis>) {
        self.trace(b"crash", j, j, &[]);
        let member = &mut self.members[j.position()];
        member.machine = None;
        member.timer = None;
        member.working = false;
        if !matches!(member.ending, Some(Ending::Completed(_))) {
            member.ending = None;
        }
        if let Some(away) = away {
            self.agenda.at(self.agenda.now() + away, Event::Resume(j));
        }
    }

    fn resume(&mut self, j: ParticipantIndex) {
        let now = self.agenda.now();
        let member = &mut self.members[j.position()];
        if member.machine.is_some() {
            return;
        }
        member.resumed += 1;
        let Disk { seed, records, store } = member.disk.clone();
        let (setup, identity) = (Arc::clone(&member.setup), member.identity.clone());
        match Ceremony::resume(setup, identity, seed, Box::new(store), records, now) {
            Ok(ceremony) => self.boot(j, ceremony),
            Err(error) => member.ending = Some(Ending::Stuck(error)),
        }
        if self.chain.decision().is_some() {
            let at = self.links.commit_point(j, now);
            self.agenda.at(at, Event::Announce(j));
        }
    }

    // ---- effects ---------------------------------------------------------------------------

    fn carry_out(&mut self, j: ParticipantIndex, effect: Effect<Record, CeremonyEffect>) {
        self.members[j.position()].carried_out += 1;
        match effect {
            Effect::Persist { record, .. } => self.members[j.position()].disk.records.push(record),
            Effect::Send { to, bytes } => self.send(j, to, &bytes),
            Effect::Broadcast(bytes) => {
                let others: Vec<_> = self.members[j.position()].setup.others().collect();
                others.into_iter().for_each(|to| self.send(j, to, &bytes));
            }
            Effect::Special(effect) => self.carry_out_special(j, effect),
        }
    }

    fn carry_out_special(&mut self, j: ParticipantIndex, effect: CeremonyEffect) {
        match effect {
            CeremonyEffect::EraseSeed => self.members[j.position()].disk.seed = None,
            CeremonyEffect::EraseKeyShare => {
                let records = &mut self.members[j.position()].disk.records;
                records.retain(|record| !matches!(record, Record::KeyShare(_)));
            }
            CeremonyEffect::Publish(certificate) => {
                let at = self.links.commit_point(j, self.agenda.now());
                self.agenda.at(at, Event::Publish(j, certificate));
            }
            CeremonyEffect::Complete(outcome) => {
                self.members[j.position()].ending = Some(Ending::Completed(*outcome));
            }
            CeremonyEffect::Abort(report) => {
                self.members[j.position()].ending = Some(Ending::Aborted(report));
            }
        }
    }

    fn send(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &Arc<[u8]>) {
        if self.members[from.position()].behaviour.is_none() {
            self.check_honest(from, bytes);
        }
        if self.plan.wiretap {
            self.wire.push((from, Arc::clone(bytes)));
        }
        for at in self.links.carry(from, to, bytes.len(), self.agenda.now()) {
            self.agenda.at(at, Event::Deliver { from, to, bytes: Arc::clone(bytes) });
        }
    }

    /// An honest member sends one message per round and recipient, over all its lives, and sends it
    /// when it is durable.
    fn check_honest(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        let Ok(CeremonyMessage::Signed(message)) = CeremonyMessage::from_wire(bytes) else {
            return;
        };
        let header = message.header;
        if header.sender != from {
            return;
        }
        let member = &mut self.members[from.position()];
        if !member.disk.messages().any(|kept| *kept == *message) {
            self.violations.push(Violation::NotPersisted(from, header.round));
        }
        let place = (header.round, header.recipient);
        let first = member.said.entry(place).or_insert_with(|| (*message).clone());
        if *first != *message {
            self.violations.push(Violation::TwoMessages(from, header.round, header.recipient));
        }
        if [Round::Finish, Round::Abort].iter().all(|r| member.said.contains_key(&(*r, None))) {
            self.violations.push(Violation::FinishAndAbort(from));
        }
    }

    // ---- the end ---------------------------------------------------------------------------

    fn finish(self) -> Report {
        let members = self.plan.committee.participants().zip(self.members);
        let members = members.map(|(participant, member)| {
            let ceremony = member.machine.as_ref().map(|machine| machine.ceremony());
            let stage = ceremony.map_or(Stage::Aborted, Ceremony::stage);
            MemberReport {
                participant,
                honest: member.behaviour.is_none(),
                stage,
                ending: member.ending.clone().unwrap_or_else(|| recorded(&member, participant)),
                traffic: self.links.traffic(participant),
                resumed: member.resumed,
                broadcasts: ceremony.map(|c| c.broadcasts().cloned().collect()).unwrap_or_default(),
                key_share: ceremony.and_then(|c| c.key_share().cloned()),
                key_set: ceremony.and_then(|c| c.key_set().cloned()),
                verdicts: member.verdicts,
                disk: member.disk,
            }
        });
        let report = Report {
            plan: self.plan.clone(),
            seed: self.seed,
            parameters: self.parameters,
            attempt: ATTEMPT,
            trace: Blake3Digest(*self.trace.finalize().as_bytes()),
            members: members.collect(),
            decision: self.chain.decision().cloned(),
            violations: self.violations,
            ended_at: self.agenda.now(),
            wire: self.wire,
        };
        report.judge()
    }
}

/// A member that resumed after its ABORT says nothing any more; its own record tells why.
fn recorded(member: &Member, j: ParticipantIndex) -> Ending {
    let abort = member.disk.messages().find_map(|message| match &message.payload {
        Payload::Abort(reason) if message.header.sender == j => Some(reason.clone()),
        _ => None,
    });
    match abort {
        Some(reason) => {
            let report = AbortReport { reason, stage: Stage::Aborted, evidence: Vec::new() };
            Ending::Aborted(Box::new(report))
        }
        None => Ending::Undecided,
    }
}
