//! The agreement on manifests, and on how slots end, in the simulated world.
//!
//! ```
//! use veil_tests::agreement::AgreementPlan;
//!
//! let report = AgreementPlan::new(4).slots(2).absent(3).run(1);
//! report.assert_agreed();
//! ```

mod ends;
mod report;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use veil_committee_agreement::{
    Agreement, AgreementConfig, AgreementEffect, Timing, Validity, Value,
};
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Host, Mail, Physics, Schedule, World};
use veil_protocol_spec::{
    Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity, Slot, Wire,
    agreement::{
        AgreementMessage, Instance, SignedVote, Subject, Vote, VoteKind, proposer, record::Record,
    },
    codec::Bytes,
    scheduling::{Binding, Manifest},
};

pub use self::report::AgreementReport;

use self::ends::Ends;
use crate::{
    fixtures,
    plan::{Plan, Scenario},
};

/// Virtual time in which a member writes or validates a manifest.
const VALIDATION: Millis = 15;
/// Virtual time in which a member fetches certificates when it learns that it is behind.
const FETCH: Millis = 2_000;
const TIMING: Timing = Timing {
    propose: 1_000,
    prevote: 500,
    precommit: 500,
    retry: 1_500,
    growth: 250,
    most: 10_000,
};

/// The cluster of every run.
#[must_use]
pub const fn binding() -> Binding {
    Binding { scope: fixtures::SCOPE, key_set: KeySetDigest([0xde; 32]), epoch: Epoch(2) }
}

pub(crate) fn roster(committee: Committee, seed: u64) -> Vec<PublicIdentity> {
    committee.participants().map(|j| fixtures::identity(seed, j).public()).collect()
}

fn manifest(slot: Slot, proposer: ParticipantIndex, variant: u64) -> Manifest {
    fixtures::manifest(binding(), slot, proposer, variant)
}

/// Slots, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementScenario {
    /// How many slots to decide.
    pub slots: u64,
    /// Whether members decide how each slot ends, too.
    pub ends: bool,
    /// Time after which a member takes void for valid, counted from when it asks itself first.
    pub void_after: Option<Millis>,
}

/// An agreement and what goes wrong in it.
pub type AgreementPlan = Plan<AgreementScenario>;

impl Default for AgreementScenario {
    fn default() -> Self {
        Self { slots: 1, ends: false, void_after: None }
    }
}

/// What a member does that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementBehaviour {
    /// Sends one half of the others different proposals and votes.
    Equivocate,
    /// Proposes manifests that break a rule that all members see alike, and an outcome that is
    /// wrong, the same as all others of its kind, and votes for no other end.
    ProposeInvalid,
    /// Refuses all manifests but its own for what it received itself.
    Strict,
    /// Does not come to know the outcome of any slot.
    Ignorant,
}

impl Scenario for AgreementScenario {
    type Behaviour = AgreementBehaviour;
    type Moment = ();

    fn is_honest(behaviour: &AgreementBehaviour) -> bool {
        *behaviour != AgreementBehaviour::Equivocate
    }
}

impl Plan<AgreementScenario> {
    /// How many slots to decide.
    #[must_use]
    pub const fn slots(mut self, slots: u64) -> Self {
        self.scenario.slots = slots;
        self
    }

    /// Members decide how each slot ends, too; void is valid to them after this time, if ever.
    #[must_use]
    pub const fn ends(mut self, void_after: Option<Millis>) -> Self {
        self.scenario.ends = true;
        self.scenario.void_after = void_after;
        self
    }

    /// Runs until every honest member has decided every slot, or for an hour of virtual time.
    ///
    /// # Panics
    /// If an honest member contradicts itself, locks two manifests in a slot, or is convicted.
    #[must_use]
    pub fn run(&self, seed: u64) -> AgreementReport {
        let physics = Physics { store: 3, ..self.physics("agreement", seed) };
        let members = Members::new(self.clone(), seed);
        let ended = World::new(members, self.committee, physics, self.crashes.clone()).run();
        let (effects, elapsed, log) = (ended.effects, ended.now, ended.log);
        let report = AgreementReport { effects, elapsed, log, ..ended.host.report };
        if let Some(violation) = report.violations.first() {
            report.fail(violation);
        }
        report
    }
}

// ---- what is around the machines -----------------------------------------------------------------

#[derive(Default)]
struct Disk {
    records: Vec<Record>,
    /// The last slot decided or taken from certificates.
    settled: Slot,
    /// The locked manifests, whoever locked them.
    manifests: BTreeMap<Slot, Blake3Digest>,
}

struct Members {
    /// What has come of the run so far.
    report: AgreementReport,
    rng: ChaCha20Rng,
    disks: Vec<Disk>,
    /// What each honest member has said in each place.
    said: BTreeMap<(ParticipantIndex, Instance, u32, Option<VoteKind>), Option<Blake3Digest>>,
    ends: Ends,
}

impl Host for Members {
    type Machine = Agreement;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, world: &mut Schedule<Self>) -> Option<Agreement> {
        let AgreementReport { plan, seed, .. } = &self.report;
        if plan.absent.contains(&j) {
            return None;
        }
        let config = AgreementConfig {
            committee: plan.committee,
            binding: binding(),
            roster: roster(plan.committee, *seed),
            timing: TIMING,
        };
        let records = self.disks[j.position()].records.clone();
        let machine = Agreement::new(config, fixtures::identity(*seed, j), records)
            .expect("roster, committee and identity are of one fixture");
        // What is undecided goes on; it is started again if it was decided, too, to answer others.
        let instance = machine.instance().max(Instance::manifest(Slot(1)));
        start(j, instance, self.rng.gen_range(0..50), world);
        Some(machine)
    }

    fn store(&mut self, j: ParticipantIndex, record: Record) {
        // As the driver's journal does: bytes, not memory.
        let record = Record::from_wire(&record.to_wire()).expect("a record reads back");
        self.disks[j.position()].records.push(record);
    }

    fn special(
        &mut self,
        j: ParticipantIndex,
        effect: AgreementEffect,
        world: &mut Schedule<Self>,
    ) {
        match effect {
            AgreementEffect::GetValue { instance, round } => match instance.subject {
                Subject::Manifest => {
                    let bytes = manifest(instance.slot, j, u64::from(round)).to_wire();
                    propose(j, (instance, round), bytes, VALIDATION, world);
                }
                Subject::End => self.propose_end(j, instance, round, world),
            },
            AgreementEffect::Validate { value: Value::End(end), .. } => {
                self.validate_end(j, &end, world);
            }
            AgreementEffect::Validate {
                digest,
                value: Value::Manifest(manifest),
                by_quorum,
                ..
            } => {
                self.report.appeals += u64::from(by_quorum);
                let behaviour = |j| self.report.plan.behaviours.get(&j);
                let hard =
                    behaviour(manifest.proposer) == Some(&AgreementBehaviour::ProposeInvalid);
                let soft = behaviour(j) == Some(&AgreementBehaviour::Strict) && !by_quorum;
                let validity = if hard || soft { Validity::Invalid } else { Validity::Valid };
                validated(j, digest, validity, VALIDATION, world);
            }
            AgreementEffect::Decided { lock, value: Value::End(end) } => {
                self.ended(j, *lock, end, world);
            }
            AgreementEffect::Decided { lock, value: Value::Manifest(manifest) } => {
                let (slot, report) = (lock.instance.slot, &mut self.report);
                self.disks[j.position()].manifests.insert(slot, lock.value);
                world.record(|| format!("{j} locks slot {slot}"));
                if let Some(locks) = report.locks.get_mut(&j) {
                    let known = locks.entry(slot).or_insert_with(|| (*lock, (*manifest).clone()));
                    if known.1 != *manifest {
                        report.violations.push(format!("{j} locks two manifests in slot {slot}"));
                    }
                    report.times.entry((j, slot)).or_insert(world.now());
                }
                if self.report.plan.scenario.ends {
                    start(j, Instance::end(slot), self.rng.gen_range(0..200), world);
                } else {
                    self.settle(j, slot, world);
                }
            }
            AgreementEffect::Equivocated { culprit, evidence } => {
                let AgreementReport { plan, seed, violations, convicted, .. } = &mut self.report;
                let verdict =
                    evidence.convict(&binding(), plan.committee, &roster(plan.committee, *seed));
                if verdict != Ok(culprit) || plan.is_honest(culprit) {
                    violations.push(format!("{j} convicts {culprit}: {verdict:?}"));
                }
                convicted.insert(culprit);
            }
            AgreementEffect::Behind { instance } => {
                world.event(Some(j), FETCH, move |members, world| {
                    members.fetched(j, instance.slot, world);
                });
            }
            AgreementEffect::Abstained { reason, .. } => {
                world.record(|| format!("{j} abstains: {reason}"));
                self.report.abstained.push((j, reason));
            }
        }
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let bytes = if self.report.plan.is_honest(mail.from) {
            self.listen(&mail);
            mail.bytes
        } else {
            self.equivocate(&mail).into()
        };
        world.post(Mail { bytes, ..mail }, 0);
    }

    fn is_over<'a>(&mut self, _machines: impl Iterator<Item = &'a Agreement>) -> bool {
        let last = Slot(self.report.plan.scenario.slots);
        self.report.locks.keys().all(|j| self.disks[j.position()].settled >= last)
    }

    fn describe(bytes: &[u8]) -> Cow<'static, str> {
        match AgreementMessage::from_wire(bytes) {
            Ok(AgreementMessage::Vote(SignedVote { vote, .. })) => {
                let Vote { kind, instance, round, voter, value } = vote;
                format!("{kind:?} of {voter} on {instance}, round {round}, for {value:?}").into()
            }
            Ok(AgreementMessage::Proposal(signed, _)) => {
                let proposal = signed.proposal;
                format!("proposal of {}, round {}", proposal.instance, proposal.round).into()
            }
            Ok(_) => "a question or an answer".into(),
            Err(_) => "no message".into(),
        }
    }
}

impl Members {
    fn new(plan: AgreementPlan, seed: u64) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(fixtures::draw(seed, "agreement owners", 0)),
            disks: plan.committee.participants().map(|_| Disk::default()).collect(),
            said: BTreeMap::new(),
            ends: Ends::default(),
            report: AgreementReport {
                locks: plan.honest().map(|j| (j, BTreeMap::new())).collect(),
                plan,
                seed,
                ends: BTreeMap::new(),
                fetched: BTreeMap::new(),
                convicted: BTreeSet::new(),
                abstained: Vec::new(),
                appeals: 0,
                times: BTreeMap::new(),
                violations: Vec::new(),
                effects: Vec::new(),
                elapsed: 0,
                log: EventLog::default(),
            },
        }
    }

    /// A member has fetched the certificates before this slot: there are such, since honest members
    /// have left those slots.
    fn fetched(&mut self, j: ParticipantIndex, slot: Slot, world: &mut Schedule<Self>) {
        let disk = &mut self.disks[j.position()];
        if disk.settled >= slot {
            return;
        }
        let fetched = (disk.settled.0 + 1..slot.0).map(Slot);
        self.report.fetched.entry(j).or_default().extend(fetched);
        disk.settled = Slot(slot.0 - 1);
        if slot.0 <= self.report.plan.scenario.slots {
            start(j, Instance::manifest(slot), 0, world);
        }
    }

    /// A member is done with a slot.
    fn settle(&mut self, j: ParticipantIndex, slot: Slot, world: &mut Schedule<Self>) {
        let settled = &mut self.disks[j.position()].settled;
        *settled = slot.max(*settled);
        if slot.0 < self.report.plan.scenario.slots {
            let next = Instance::manifest(Slot(slot.0 + 1));
            start(j, next, self.rng.gen_range(0..200), world);
        }
    }

    fn manifest_of(&self, j: ParticipantIndex, slot: Slot) -> Option<&Blake3Digest> {
        self.disks[j.position()].manifests.get(&slot)
    }

    /// An honest member says one thing in each place, whatever happens to it.
    fn listen(&mut self, mail: &Mail) {
        let from = mail.from;
        let message = AgreementMessage::from_wire(&mail.bytes).expect("an honest member's message");
        let (place, said) = match message {
            AgreementMessage::Vote(SignedVote { vote, .. }) if vote.voter == from => {
                ((from, vote.instance, vote.round, Some(vote.kind)), vote.value)
            }
            AgreementMessage::Proposal(signed, _) => {
                let proposal = signed.proposal;
                if proposer(self.report.plan.committee, proposal.instance, proposal.round) != from {
                    return;
                }
                ((from, proposal.instance, proposal.round, None), Some(proposal.value))
            }
            _ => return,
        };
        if *self.said.entry(place).or_insert(said) != said {
            self.report.violations.push(format!("{from} contradicts itself: {place:?}"));
        }
    }

    /// The even ones are told something else.
    fn equivocate(&self, mail: &Mail) -> Vec<u8> {
        let identity = fixtures::identity(self.report.seed, mail.from);
        let other = |instance: Instance| match instance.subject {
            Subject::Manifest => {
                let other = manifest(instance.slot, mail.from, 666);
                (other.digest(), other.to_wire())
            }
            Subject::End => {
                let locked = self.manifest_of(mail.from, instance.slot);
                let locked = locked.copied().unwrap_or(Blake3Digest([0; 32]));
                let other = ends::void(instance.slot, locked);
                (other.digest(), other.to_wire())
            }
        };
        match AgreementMessage::from_wire(&mail.bytes) {
            Ok(AgreementMessage::Proposal(signed, _)) if mail.to.get().is_multiple_of(2) => {
                let mut proposal = signed.proposal;
                let (digest, other) = other(proposal.instance);
                (proposal.value, proposal.locked_in) = (digest, None);
                let signed = proposal.sign(&binding(), &identity);
                AgreementMessage::Proposal(signed, Bytes(other)).to_wire()
            }
            Ok(AgreementMessage::Vote(SignedVote { vote, .. }))
                if mail.to.get().is_multiple_of(2) =>
            {
                let value = vote.value.is_none().then(|| other(vote.instance).0);
                let vote = Vote { value, ..vote }.sign(&binding(), &identity);
                AgreementMessage::Vote(vote).to_wire()
            }
            _ => mail.bytes.to_vec(),
        }
    }
}

/// An instance that was started meanwhile stays started.
fn start(j: ParticipantIndex, instance: Instance, delay: Millis, world: &mut Schedule<Members>) {
    world.input(j, delay, move |machine, now| {
        let _ = machine.start(instance, now);
    });
}

/// The round may be over by then.
fn propose(
    j: ParticipantIndex,
    (instance, round): (Instance, u32),
    bytes: Vec<u8>,
    delay: Millis,
    world: &mut Schedule<Members>,
) {
    world.input(j, delay, move |machine, now| {
        let _ = machine.propose(instance, round, bytes, now);
    });
}

fn validated(
    j: ParticipantIndex,
    digest: Blake3Digest,
    validity: Validity,
    delay: Millis,
    world: &mut Schedule<Members>,
) {
    world.input(j, delay, move |machine, now| machine.validated(digest, validity, now));
}
