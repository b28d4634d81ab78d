//! The key ceremony in the simulated world. See [`crate::plan`] for what can go wrong and
//! [`crate::report`] for what is checked.

pub(crate) mod scenario;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use veil_committee_machine::{Effect, EffectOf, Millis, Verdict, VerdictOf};
use veil_committee_world::{End, Ended, Host, Mail, Physics, Schedule, World};
use veil_keygen_ceremony::{
    machine::{AbortReport, Ceremony, CeremonyEffect, CommitPoint, Record, Stage},
    setup::{Setup, Timing},
};
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    ceremony::{CeremonyMessage, CeremonyParameters, Payload, Round, SignedMessage},
};

pub use self::scenario::{CeremonyPlan, CeremonyScenario, Milestone};
use crate::{
    disk::Disk,
    fixtures::{self, ATTEMPT},
    malicious::{Deviant, Insider, replay},
    plan::Plan,
    report::{Ending, MemberReport, Report, Verdicts, Violation},
};

/// When the commit point gives the attempt up.
const DEADLINE: Millis = 300_000;
/// Virtual time after the deadline by which everything must have come to rest.
const REST: Millis = 600_000;

impl Plan<CeremonyScenario> {
    /// Runs one attempt. The same plan and seed always give the same report.
    #[must_use]
    pub fn run(&self, seed: u64) -> Report {
        let parameters = fixtures::parameters(self.committee, seed);
        let CeremonyScenario { round, retry } = self.scenario;
        let timing = Timing { round, retry };
        let member = |j| Member {
            setup: fixtures::setup(&parameters, ATTEMPT, &fixtures::identity(seed, j), timing),
            disk: Disk::new(fixtures::ceremony_seed(seed, j)),
            deviant: None,
            boots: 0,
            ending: Ending::Undecided,
            verdicts: Verdicts::default(),
            said: BTreeMap::new(),
        };
        let host = Members {
            plan: self,
            seed,
            decision: None,
            members: self.committee.participants().map(member).collect(),
            parameters,
            violations: Vec::new(),
            wire: Vec::new(),
        };
        let physics = Physics { limit: DEADLINE + REST, ..self.physics("ceremony", seed) };
        let mut world = World::new(host, self.committee, physics, self.crashes.clone());
        world.schedule().event(None, DEADLINE, |members, world| {
            members.decide(CommitPoint::Expired, world);
        });
        report(world.run())
    }
}

// ---- what is around the machines -----------------------------------------------------------------

struct Member {
    setup: Arc<Setup>,
    disk: Disk,
    deviant: Option<Deviant>,
    boots: u32,
    ending: Ending,
    verdicts: Verdicts,
    /// Everything signed that it has sent, over all its lives.
    said: BTreeMap<(Round, Option<ParticipantIndex>), SignedMessage>,
}

struct Members<'a> {
    plan: &'a CeremonyPlan,
    seed: u64,
    parameters: CeremonyParameters,
    decision: Option<CommitPoint>,
    members: Vec<Member>,
    violations: Vec<Violation>,
    wire: Vec<(ParticipantIndex, Arc<[u8]>)>,
}

impl Host for Members<'_> {
    type Machine = Ceremony;
    type Moment = Milestone;

    fn boot(&mut self, j: ParticipantIndex, world: &mut Schedule<Self>) -> Option<Ceremony> {
        if self.plan.absent.contains(&j) {
            return None;
        }
        self.tell(j, world);
        let now = world.now();
        let member = &mut self.members[j.position()];
        let (identity, own_seed) =
            (fixtures::identity(self.seed, j), fixtures::ceremony_seed(self.seed, j));
        member.deviant = self.plan.behaviours.get(&j).map(|behaviour| {
            let insider = Insider {
                setup: Arc::clone(&member.setup),
                identity: identity.clone(),
                seed: own_seed.clone(),
                store: member.disk.store.clone(),
                relics: replay::relics(behaviour, self.seed, &self.parameters),
                to: j,
                now,
            };
            Deviant::new(insider, behaviour.clone())
        });
        member.boots += 1;
        let Disk { seed, records, store } = member.disk.clone();
        let (setup, store) = (Arc::clone(&member.setup), Box::new(store));
        if member.boots == 1 {
            return Some(Ceremony::new(setup, identity, own_seed, store, now));
        }
        if !matches!(member.ending, Ending::Completed(_)) {
            member.ending = Ending::Undecided;
        }
        let resumed = Ceremony::resume(setup, identity, seed, store, records, now);
        resumed.map_err(|error| member.ending = Ending::Stuck(error)).ok()
    }

    fn store(&mut self, j: ParticipantIndex, record: Record) {
        self.members[j.position()].disk.records.push(record);
    }

    fn special(&mut self, j: ParticipantIndex, effect: CeremonyEffect, world: &mut Schedule<Self>) {
        let member = &mut self.members[j.position()];
        match effect {
            CeremonyEffect::EraseSeed => member.disk.seed = None,
            CeremonyEffect::VoidKeyShare => {
                member.disk.records.retain(|record| !matches!(record, Record::KeyShare(_)));
            }
            CeremonyEffect::Publish(certificate) => {
                let deviant = member.deviant.as_ref();
                let publishes = deviant.is_none_or(|deviant| deviant.misbehaviour.publishes());
                // The commit point takes a certificate of this attempt that all have signed.
                if certificate.attempt != ATTEMPT || certificate.verify(&self.parameters).is_err() {
                    self.violations.push(Violation::BadCertificate(j));
                } else if publishes {
                    let way = world.way_to_commit_point(j);
                    world.event(None, way, |members, world| {
                        members.decide(CommitPoint::Published(certificate), world);
                    });
                }
            }
            CeremonyEffect::Complete(outcome) => {
                world.record(|| format!("{j} completes with {}", outcome.key_set));
                member.ending = Ending::Completed(*outcome);
            }
            CeremonyEffect::Abort(report) => {
                world.record(|| format!("{j} aborts: {}", report.reason));
                // A restart says it again, without what showed it.
                if !matches!(member.ending, Ending::Aborted(_)) {
                    member.ending = Ending::Aborted(report);
                }
            }
        }
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let leaving = match &mut self.members[mail.from.position()].deviant {
            Some(deviant) => deviant.replace(&mail, world.now()),
            None => {
                self.check_honest(&mail);
                vec![Arc::clone(&mail.bytes)]
            }
        };
        for bytes in leaving {
            self.wire.push((mail.from, Arc::clone(&bytes)));
            world.post(Mail { bytes, ..mail }, 0);
        }
    }

    fn verdict(&mut self, mail: &Mail, verdict: VerdictOf<Ceremony>) {
        let Member { verdicts, deviant, .. } = &mut self.members[mail.to.position()];
        match verdict {
            Verdict::Valid => verdicts.valid += 1,
            Verdict::Skip(_) => verdicts.skipped += 1,
            Verdict::Fault(fault) => verdicts.faults.push((mail.from, fault)),
        }
        if let Some(deviant) = deviant {
            deviant.hear(&mail.bytes);
        }
    }

    fn moment(machine: &Ceremony) -> Option<Milestone> {
        Some(Milestone::Stage(machine.stage()))
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
    fn check_honest(&mut self, mail: &Mail) {
        let from = mail.from;
        let Some(message) = own(from, &mail.bytes) else { return };
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

    /// What stands for the chain: the first valid certificate before the deadline wins.
    fn decide(&mut self, decision: CommitPoint, world: &mut Schedule<Self>) {
        if self.decision.is_none() {
            self.decision = Some(decision);
            world.record(|| "the commit point decides".to_owned());
            for j in self.plan.committee.participants() {
                self.tell(j, world);
            }
        }
    }

    /// A member learns what was decided, if anything was.
    fn tell(&self, j: ParticipantIndex, world: &mut Schedule<Self>) {
        if let Some(decision) = self.decision.clone() {
            let way = world.way_to_commit_point(j);
            world.input(j, way, move |machine, _| machine.handle_commit_point(decision));
        }
    }
}

fn report(ended: Ended<Members<'_>>) -> Report {
    let Ended { end, now: ended_at, host, machines, traffic, log, .. } = ended;
    let Members { plan, seed, parameters, decision, members, mut violations, wire } = host;
    if end == End::Endless {
        violations.push(Violation::Endless(ended_at));
    }
    let members = plan.committee.participants().zip(members).zip(machines.into_iter().zip(traffic));
    let members = members.map(|((participant, member), (ceremony, traffic))| MemberReport {
        participant,
        honest: plan.is_honest(participant),
        stage: ceremony.as_ref().map_or(Stage::Aborted, Ceremony::stage),
        ending: ending(&member, participant),
        traffic,
        resumed: member.boots.saturating_sub(1),
        broadcasts: ceremony.iter().flat_map(Ceremony::broadcasts).cloned().collect(),
        key_share: ceremony.as_ref().and_then(|c| c.key_share().cloned()),
        key_set: ceremony.as_ref().and_then(|c| c.key_set().cloned()),
        verdicts: member.verdicts,
        disk: member.disk,
    });
    let report = Report {
        plan: plan.clone(),
        seed,
        parameters,
        attempt: ATTEMPT,
        log,
        members: members.collect(),
        decision,
        violations,
        ended_at,
        wire,
    };
    report.judge()
}

/// A member that crashed after its ABORT may not have come back; its own record tells why.
fn ending(member: &Member, j: ParticipantIndex) -> Ending {
    let abort = member.disk.messages().find_map(|message| match &message.payload {
        Payload::Abort(reason) if message.header.sender == j => Some(reason.clone()),
        _ => None,
    });
    match (&member.ending, abort) {
        (Ending::Undecided, Some(reason)) => {
            let (stage, evidence) = (Stage::Aborted, Vec::new());
            Ending::Aborted(Box::new(AbortReport { reason, stage, evidence }))
        }
        (ending, _) => ending.clone(),
    }
}
