//! The members of one run: what is around their machines.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use veil_committee_machine::{Effect, EffectOf, Millis, Verdict, VerdictOf};
use veil_committee_world::{End, Host, Physics, Schedule, World};
use veil_keygen_ceremony::{
    machine::{AbortReport, Ceremony, CeremonyEffect, CommitPoint, Record, Stage},
    setup::Setup,
    transcript::FinishCertificate,
};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, CeremonyParameters, Payload, Round, SignedMessage},
};

use super::{CeremonyPlan, CeremonyScenario, Milestone};
use crate::{
    commit_point::{Refused, SimulatedChain},
    disk::Disk,
    fixtures::{self, ATTEMPT},
    malicious::{Deviant, Insider, replay},
    plan::Plan,
    report::{Ending, MemberReport, Report, Verdicts, Violation},
};

/// Virtual time after the deadline by which everything must have come to rest.
const REST: Millis = 600_000;

impl Plan<CeremonyScenario> {
    /// Runs one attempt. The same plan and seed always give the same report.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        let parameters = fixtures::parameters(self.committee, seed);
        let deadline = self.scenario.deadline;
        let host = Members {
            plan: self,
            seed,
            chain: SimulatedChain::new(parameters.clone(), ATTEMPT, deadline),
            members: self
                .committee
                .participants()
                .map(|j| Member::new(self, seed, &parameters, j))
                .collect(),
            parameters,
            violations: Vec::new(),
            wire: Vec::new(),
        };
        let physics =
            Physics { conditions: self.conditions(), limit: deadline + REST, ..Physics::default() };
        let (name, network) = (format!("ceremony-{seed}"), fixtures::draw(seed, "network", 0));
        let mut world = World::new(name, host, self.committee, physics, self.crashes(), network);
        world.schedule().event(deadline, Event::Deadline);
        let end = world.run();
        report(world, end)
    }
}

enum Event {
    Publish(ParticipantIndex, Box<FinishCertificate>),
    Deadline,
}

struct Member {
    setup: Arc<Setup>,
    disk: Disk,
    deviant: Option<Deviant>,
    boots: u32,
    ending: Option<Ending>,
    verdicts: Verdicts,
    /// Everything signed that it has sent, over all its lives.
    said: BTreeMap<(Round, Option<ParticipantIndex>), SignedMessage>,
}

impl Member {
    fn new(
        plan: &CeremonyPlan,
        seed: u64,
        parameters: &CeremonyParameters,
        j: ParticipantIndex,
    ) -> Self {
        let (identity, timing) = (fixtures::identity(seed, j), plan.scenario.timing());
        Self {
            setup: fixtures::setup(parameters, ATTEMPT, &identity, timing),
            disk: Disk::new(fixtures::ceremony_seed(seed, j)),
            deviant: None,
            boots: 0,
            ending: None,
            verdicts: Verdicts::default(),
            said: BTreeMap::new(),
        }
    }
}

struct Members<'a> {
    plan: &'a CeremonyPlan,
    seed: u64,
    parameters: CeremonyParameters,
    chain: SimulatedChain,
    members: Vec<Member>,
    violations: Vec<Violation>,
    wire: Vec<(ParticipantIndex, Arc<[u8]>)>,
}

impl Host for Members<'_> {
    type Machine = Ceremony;
    type Input = CommitPoint;
    type Event = Event;
    type Moment = Milestone;

    fn boot(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) -> Option<Ceremony> {
        if self.plan.is_absent(j) {
            return None;
        }
        let now = schedule.now();
        let member = &mut self.members[j.position()];
        let identity = fixtures::identity(self.seed, j);
        member.deviant = self.plan.behaviour(j).map(|behaviour| {
            let insider = Insider {
                setup: Arc::clone(&member.setup),
                identity: identity.clone(),
                seed: fixtures::ceremony_seed(self.seed, j),
                store: member.disk.store.clone(),
                relics: replay::relics(behaviour, self.seed, &self.parameters),
                now,
            };
            Deviant::new(insider, behaviour.clone())
        });
        if let Some(decision) = self.chain.decision().cloned() {
            let delay = schedule.way_to_commit_point(j);
            schedule.input(j, delay, decision);
        }
        member.boots += 1;
        let Disk { seed, records, store } = member.disk.clone();
        let (setup, store) = (Arc::clone(&member.setup), Box::new(store));
        if member.boots == 1 {
            let seed = fixtures::ceremony_seed(self.seed, j);
            return Some(Ceremony::new(setup, identity, seed, store, now));
        }
        if !matches!(member.ending, Some(Ending::Completed(_))) {
            member.ending = None;
        }
        let resumed = Ceremony::resume(setup, identity, seed, store, records, now);
        resumed.map_err(|error| member.ending = Some(Ending::Stuck(error))).ok()
    }

    fn input(machine: &mut Ceremony, decision: CommitPoint, _now: Millis) {
        machine.handle_commit_point(decision);
    }

    fn store(&mut self, j: ParticipantIndex, record: Record) {
        self.members[j.position()].disk.records.push(record);
    }

    fn special(
        &mut self,
        j: ParticipantIndex,
        effect: CeremonyEffect,
        schedule: &mut Schedule<Self>,
    ) {
        let member = &mut self.members[j.position()];
        match effect {
            CeremonyEffect::EraseSeed => member.disk.seed = None,
            CeremonyEffect::EraseKeyShare => {
                member.disk.records.retain(|record| !matches!(record, Record::KeyShare(_)));
            }
            CeremonyEffect::Publish(certificate) => {
                if member.deviant.as_ref().is_none_or(Deviant::publishes) {
                    let delay = schedule.way_to_commit_point(j);
                    schedule.event(delay, Event::Publish(j, certificate));
                }
            }
            CeremonyEffect::Complete(outcome) => {
                schedule.record(|| format!("{j} completes with {}", outcome.key_set));
                member.ending = Some(Ending::Completed(*outcome));
            }
            CeremonyEffect::Abort(report) => {
                schedule.record(|| format!("{j} aborts: {}", report.reason));
                member.ending = Some(Ending::Aborted(report));
            }
        }
    }

    fn occur(&mut self, event: Event, schedule: &mut Schedule<Self>) {
        let decided = match event {
            Event::Deadline => self.chain.expire(),
            Event::Publish(j, certificate) => {
                match self.chain.publish(*certificate, schedule.now()) {
                    Ok(()) => true,
                    Err(Refused::Decided) => false,
                    Err(refused) => {
                        if self.plan.is_honest(j) {
                            let refused = refused.to_string();
                            self.violations.push(Violation::BadCertificate(j, refused));
                        }
                        false
                    }
                }
            }
        };
        if decided && let Some(decision) = self.chain.decision() {
            schedule.record(|| "the commit point decides".to_owned());
            for j in self.plan.committee.participants() {
                let delay = schedule.way_to_commit_point(j);
                schedule.input(j, delay, decision.clone());
            }
        }
    }

    fn leave(
        &mut self,
        from: ParticipantIndex,
        to: ParticipantIndex,
        bytes: &Arc<[u8]>,
        now: Millis,
    ) -> Vec<Arc<[u8]>> {
        let leaving = match &mut self.members[from.position()].deviant {
            Some(deviant) => deviant.replace(to, bytes, now),
            None => {
                self.check_honest(from, bytes);
                vec![Arc::clone(bytes)]
            }
        };
        if self.plan.scenario.wiretap {
            self.wire.extend(leaving.iter().map(|bytes| (from, Arc::clone(bytes))));
        }
        leaving
    }

    fn arrive(&mut self, _from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        if let Some(deviant) = &mut self.members[to.position()].deviant {
            deviant.hear(bytes);
        }
    }

    fn verdict(
        &mut self,
        j: ParticipantIndex,
        from: ParticipantIndex,
        verdict: VerdictOf<Ceremony>,
    ) {
        let verdicts = &mut self.members[j.position()].verdicts;
        match verdict {
            Verdict::Valid => verdicts.valid += 1,
            Verdict::Skip(_) => verdicts.skipped += 1,
            Verdict::Fault(fault) => verdicts.faults.push((from, fault)),
        }
    }

    fn moment(machine: &Ceremony) -> Option<Milestone> {
        Some(Milestone::Stage(machine.stage().into()))
    }

    fn moment_of(&self, j: ParticipantIndex, effect: &EffectOf<Ceremony>) -> Option<Milestone> {
        match effect {
            Effect::Persist { record: Record::Message(message), .. } => {
                (message.header.sender == j).then_some(Milestone::Persisted(message.header.round))
            }
            Effect::Send { bytes, .. } | Effect::Broadcast(bytes) => {
                Some(Milestone::Sent(own(j, bytes)?.header.round))
            }
            Effect::Persist { .. } | Effect::Special(_) => None,
        }
    }

    fn describe(bytes: &[u8]) -> Cow<'static, str> {
        match CeremonyMessage::from_wire(bytes) {
            Ok(CeremonyMessage::Signed(message)) => {
                let header = message.header;
                format!("{} of {}", header.round, header.sender).into()
            }
            Ok(CeremonyMessage::Request { round, sender, .. }) => {
                format!("request for {round} of {sender}").into()
            }
            Ok(CeremonyMessage::ChunkRequest(id)) => format!("request for {id:?}").into(),
            Ok(CeremonyMessage::Chunk { id, .. }) => format!("{id:?}").into(),
            Err(_) => "no message".into(),
        }
    }
}

/// A member's own signed message.
fn own(j: ParticipantIndex, bytes: &[u8]) -> Option<Box<SignedMessage>> {
    match CeremonyMessage::from_wire(bytes) {
        Ok(CeremonyMessage::Signed(message)) if message.header.sender == j => Some(message),
        _ => None,
    }
}

impl Members<'_> {
    /// An honest member sends one message per round and recipient, over all its lives, and sends it
    /// when it is durable.
    fn check_honest(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        let Some(message) = own(from, bytes) else { return };
        let header = message.header;
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
}

fn report(mut world: World<Members<'_>>, end: End) -> Report {
    let ended_at = world.now();
    let committee = world.host().plan.committee;
    let left: Vec<_> =
        committee.participants().map(|j| (world.traffic(j), world.take_machine(j))).collect();
    let (host, log) = world.end();
    let mut violations = host.violations;
    if end == End::Endless {
        violations.push(Violation::Endless(ended_at));
    }
    let members = committee.participants().zip(host.members).zip(left);
    let members = members.map(|((participant, member), (traffic, ceremony))| MemberReport {
        participant,
        honest: host.plan.is_honest(participant),
        stage: ceremony.as_ref().map_or(Stage::Aborted, Ceremony::stage),
        ending: member.ending.clone().unwrap_or_else(|| recorded(&member, participant)),
        traffic,
        resumed: member.boots.saturating_sub(1),
        broadcasts: ceremony.iter().flat_map(Ceremony::broadcasts).cloned().collect(),
        key_share: ceremony.as_ref().and_then(|c| c.key_share().cloned()),
        key_set: ceremony.as_ref().and_then(|c| c.key_set().cloned()),
        verdicts: member.verdicts,
        disk: member.disk,
    });
    let report = Report {
        plan: host.plan.clone(),
        seed: host.seed,
        parameters: host.parameters,
        attempt: ATTEMPT,
        log,
        members: members.collect(),
        decision: host.chain.decision().cloned(),
        violations,
        ended_at,
        wire: host.wire,
    };
    report.judge()
}

/// A member that resumed after its ABORT says nothing any more; its own record tells why.
fn recorded(member: &Member, j: ParticipantIndex) -> Ending {
    let abort = member.disk.messages().find_map(|message| match &message.payload {
        Payload::Abort(reason) if message.header.sender == j => Some(reason.clone()),
        _ => None,
    });
    abort.map_or(Ending::Undecided, |reason| {
        Ending::Aborted(Box::new(AbortReport {
            reason,
            stage: Stage::Aborted,
            evidence: Vec::new(),
        }))
    })
}
