//! The members of one run: what is around their machines.

mod ends;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_agreement::{
    Agreement, AgreementConfig, AgreementEffect, Timing, Validity, Value,
};
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Host, Schedule};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot, Wire,
    agreement::{
        AgreementMessage, Instance, Lock, SignedVote, Subject, Vote, VoteKind, proposer,
        record::Record,
    },
    codec::Bytes,
    scheduling::Manifest,
};

use self::ends::Ends;
use super::{AgreementBehaviour, AgreementPlan, AgreementReport, binding, roster};
use crate::fixtures;

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

fn manifest(slot: Slot, proposer: ParticipantIndex, variant: u64) -> Manifest {
    fixtures::manifest(binding(), slot, proposer, variant)
}

#[derive(Default)]
struct Disk {
    records: Vec<Record>,
    /// The locked manifests, whoever locked them.
    manifests: BTreeMap<Slot, Blake3Digest>,
    /// The last slot decided or taken from certificates.
    settled: Slot,
}

pub(super) struct Members {
    plan: AgreementPlan,
    seed: u64,
    rng: ChaCha20Rng,
    disks: Vec<Disk>,
    locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (Lock, Manifest)>>,
    fetched: BTreeMap<ParticipantIndex, BTreeSet<Slot>>,
    convicted: BTreeSet<ParticipantIndex>,
    abstained: Vec<(ParticipantIndex, String)>,
    appeals: u64,
    times: BTreeMap<(ParticipantIndex, Slot), Millis>,
    /// What each honest member has said in each place.
    said: BTreeMap<(ParticipantIndex, Instance, u32, Option<VoteKind>), Option<Blake3Digest>>,
    ends: Ends,
    violations: Vec<String>,
}

pub(super) enum Input {
    Start(Instance),
    Propose(Instance, u32, Vec<u8>),
    Validated(Blake3Digest, Validity),
}

/// A member has fetched the certificates before this slot.
pub(super) struct Fetched(ParticipantIndex, Slot);

impl Host for Members {
    type Machine = Agreement;
    type Input = Input;
    type Event = Fetched;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) -> Option<Agreement> {
        if self.plan.is_absent(j) {
            return None;
        }
        let config = AgreementConfig {
            committee: self.plan.committee,
            binding: binding(),
            roster: roster(self.plan.committee, self.seed),
            timing: TIMING,
        };
        let records = self.disks[j.position()].records.clone();
        let machine = Agreement::new(config, fixtures::identity(self.seed, j), records)
            .expect("roster, committee and identity are of one fixture");
        // What is undecided goes on; it is started again if it was decided, too, to answer others.
        let instance = machine.instance().max(Instance::manifest(Slot(1)));
        schedule.input(j, self.rng.gen_range(0..50), Input::Start(instance));
        Some(machine)
    }

    fn input(machine: &mut Agreement, input: Input, now: Millis) {
        match input {
            // An instance that was started meanwhile stays started.
            Input::Start(instance) => drop(machine.start(instance, now)),
            // The round may be over by now.
            Input::Propose(instance, round, bytes) => {
                let _ = machine.propose(instance, round, bytes, now);
            }
            Input::Validated(digest, validity) => machine.validated(digest, validity, now),
        }
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
        schedule: &mut Schedule<Self>,
    ) {
        match effect {
            AgreementEffect::GetValue { instance, round } => match instance.subject {
                Subject::Manifest => {
                    let bytes = manifest(instance.slot, j, u64::from(round)).to_wire();
                    schedule.input(j, VALIDATION, Input::Propose(instance, round, bytes));
                }
                Subject::End => self.propose_end(j, instance, round, schedule),
            },
            AgreementEffect::Validate { value: Value::End(end), .. } => {
                self.validate_end(j, &end, schedule);
            }
            AgreementEffect::Validate {
                digest,
                value: Value::Manifest(manifest),
                by_quorum,
                ..
            } => {
                self.appeals += u64::from(by_quorum);
                let behaviour = |j| self.plan.behaviour(j).copied();
                let hard = behaviour(manifest.proposer) == Some(AgreementBehaviour::ProposeInvalid);
                let soft = behaviour(j) == Some(AgreementBehaviour::Strict) && !by_quorum;
                let validity = if hard || soft { Validity::Invalid } else { Validity::Valid };
                schedule.input(j, VALIDATION, Input::Validated(digest, validity));
            }
            AgreementEffect::Decided { lock, value: Value::Manifest(manifest) } => {
                self.locked(j, *lock, *manifest, schedule);
            }
            AgreementEffect::Decided { lock, value: Value::End(end) } => {
                self.ended(j, *lock, end, schedule);
            }
            AgreementEffect::Equivocated { culprit, evidence } => {
                let roster = roster(self.plan.committee, self.seed);
                let convicted = evidence.convict(&binding(), self.plan.committee, &roster);
                if convicted != Ok(culprit) || self.plan.is_honest(culprit) {
                    self.violations.push(format!("{j} convicts {culprit}: {convicted:?}"));
                }
                self.convicted.insert(culprit);
            }
            AgreementEffect::Behind { instance } => {
                schedule.event_of(j, FETCH, Fetched(j, instance.slot));
            }
            AgreementEffect::Abstained { reason, .. } => {
                schedule.record(|| format!("{j} abstains: {reason}"));
                self.abstained.push((j, reason));
            }
        }
    }

    /// Certificates of the slots before exist, since honest members have left those.
    fn occur(&mut self, Fetched(j, slot): Fetched, schedule: &mut Schedule<Self>) {
        let disk = &mut self.disks[j.position()];
        if disk.settled >= slot {
            return;
        }
        self.fetched.entry(j).or_default().extend((disk.settled.0 + 1..slot.0).map(Slot));
        disk.settled = Slot(slot.0 - 1);
        if slot.0 <= self.plan.scenario.slots {
            schedule.input(j, 0, Input::Start(Instance::manifest(slot)));
        }
    }

    fn leave(
        &mut self,
        from: ParticipantIndex,
        to: ParticipantIndex,
        bytes: &Arc<[u8]>,
        _now: Millis,
    ) -> Vec<Arc<[u8]>> {
        if self.plan.is_honest(from) {
            self.listen(from, bytes);
            vec![Arc::clone(bytes)]
        } else {
            vec![self.equivocate(from, to, bytes).into()]
        }
    }

    fn is_over(&self) -> bool {
        let last = Slot(self.plan.scenario.slots);
        self.locks.keys().all(|j| self.disks[j.position()].settled >= last)
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
    pub(super) fn new(plan: AgreementPlan, seed: u64) -> Self {
        Self {
            seed,
            rng: ChaCha20Rng::from_seed(fixtures::draw(seed, "agreement owners", 0)),
            disks: plan.committee.participants().map(|_| Disk::default()).collect(),
            locks: plan.honest().map(|j| (j, BTreeMap::new())).collect(),
            fetched: BTreeMap::new(),
            convicted: BTreeSet::new(),
            abstained: Vec::new(),
            appeals: 0,
            times: BTreeMap::new(),
            said: BTreeMap::new(),
            ends: Ends::default(),
            violations: Vec::new(),
            plan,
        }
    }

    fn locked(
        &mut self,
        j: ParticipantIndex,
        lock: Lock,
        manifest: Manifest,
        schedule: &mut Schedule<Self>,
    ) {
        let (slot, digest) = (lock.instance.slot, lock.value);
        schedule.record(|| format!("{j} locks slot {slot}"));
        if let Some(locks) = self.locks.get_mut(&j) {
            let known = locks.entry(slot).or_insert_with(|| (lock, manifest.clone()));
            if known.1 != manifest {
                self.violations.push(format!("{j} locks two manifests in slot {slot}"));
            }
            self.times.entry((j, slot)).or_insert(schedule.now());
        }
        self.disks[j.position()].manifests.insert(slot, digest);
        if self.plan.scenario.ends {
            let end = Input::Start(Instance::end(slot));
            schedule.input(j, self.rng.gen_range(0..200), end);
        } else {
            self.settle(j, slot, schedule);
        }
    }

    /// A member is done with a slot.
    fn settle(&mut self, j: ParticipantIndex, slot: Slot, schedule: &mut Schedule<Self>) {
        let settled = &mut self.disks[j.position()].settled;
        *settled = slot.max(*settled);
        if slot.0 < self.plan.scenario.slots {
            let next = Input::Start(Instance::manifest(Slot(slot.0 + 1)));
            schedule.input(j, self.rng.gen_range(0..200), next);
        }
    }

    fn manifest_of(&self, j: ParticipantIndex, slot: Slot) -> Option<&Blake3Digest> {
        self.disks[j.position()].manifests.get(&slot)
    }

    /// An honest member says one thing in each place, whatever happens to it.
    fn listen(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        let message = AgreementMessage::from_wire(bytes).expect("an honest member's message");
        let (place, said) = match message {
            AgreementMessage::Vote(SignedVote { vote, .. }) if vote.voter == from => {
                ((from, vote.instance, vote.round, Some(vote.kind)), vote.value)
            }
            AgreementMessage::Proposal(signed, _) => {
                let proposal = signed.proposal;
                if proposer(self.plan.committee, proposal.instance, proposal.round) != from {
                    return;
                }
                ((from, proposal.instance, proposal.round, None), Some(proposal.value))
            }
            _ => return,
        };
        if *self.said.entry(place).or_insert(said) != said {
            self.violations.push(format!("{from} contradicts itself: {place:?}"));
        }
    }

    /// The even ones are told something else.
    fn equivocate(&self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) -> Vec<u8> {
        let identity = fixtures::identity(self.seed, from);
        let other = |instance: Instance| match instance.subject {
            Subject::Manifest => {
                let other = manifest(instance.slot, from, 666);
                (other.digest(), other.to_wire())
            }
            Subject::End => {
                let locked = self.manifest_of(from, instance.slot);
                let locked = locked.copied().unwrap_or(Blake3Digest([0; 32]));
                let other = ends::void(instance.slot, locked);
                (other.digest(), other.to_wire())
            }
        };
        match AgreementMessage::from_wire(bytes) {
            Ok(_) if !to.get().is_multiple_of(2) => bytes.to_vec(),
            Ok(AgreementMessage::Proposal(signed, _)) => {
                let mut proposal = signed.proposal;
                let (digest, other) = other(proposal.instance);
                (proposal.value, proposal.locked_in) = (digest, None);
                let signed = proposal.sign(&binding(), &identity);
                AgreementMessage::Proposal(signed, Bytes(other)).to_wire()
            }
            Ok(AgreementMessage::Vote(SignedVote { vote, .. })) => {
                let value = vote.value.is_none().then(|| other(vote.instance).0);
                let vote = Vote { value, ..vote }.sign(&binding(), &identity);
                AgreementMessage::Vote(vote).to_wire()
            }
            _ => bytes.to_vec(),
        }
    }

    pub(super) fn report(
        self,
        effects: BTreeMap<ParticipantIndex, u64>,
        elapsed: Millis,
        log: EventLog,
    ) -> AgreementReport {
        AgreementReport {
            plan: self.plan,
            seed: self.seed,
            locks: self.locks,
            ends: self.ends.decided,
            fetched: self.fetched,
            convicted: self.convicted,
            abstained: self.abstained,
            appeals: self.appeals,
            times: self.times,
            violations: self.violations,
            effects,
            elapsed,
            log,
        }
    }
}
