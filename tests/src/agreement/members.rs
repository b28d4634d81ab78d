//! The members of one run: what is around their machines.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_agreement::{Agreement, AgreementConfig, AgreementEffect, Timing, Validity};
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Host, Schedule};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Slot, Wire,
    agreement::{AgreementMessage, SignedVote, Vote, VoteKind, proposer, record::Record},
    codec::Bytes,
    decryption::ManifestLock,
    scheduling::Manifest,
};

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
    /// The last slot decided or taken from certificates.
    settled: Slot,
}

pub(super) struct Members {
    plan: AgreementPlan,
    seed: u64,
    rng: ChaCha20Rng,
    disks: Vec<Disk>,
    locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (ManifestLock, Manifest)>>,
    fetched: BTreeMap<ParticipantIndex, BTreeSet<Slot>>,
    convicted: BTreeSet<ParticipantIndex>,
    abstained: Vec<(ParticipantIndex, String)>,
    appeals: u64,
    times: BTreeMap<(ParticipantIndex, Slot), Millis>,
    /// What each honest member has said in each place.
    said: BTreeMap<(ParticipantIndex, Slot, u32, Option<VoteKind>), Option<Blake3Digest>>,
    violations: Vec<String>,
}

pub(super) enum Input {
    Start(Slot),
    Propose(Slot, u32, Vec<u8>),
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
        // An undecided slot goes on; it is started again if it was decided, too, to answer others.
        let slot = machine.slot().max(Slot(1));
        schedule.input(j, self.rng.gen_range(0..50), Input::Start(slot));
        Some(machine)
    }

    fn input(machine: &mut Agreement, input: Input, now: Millis) {
        match input {
            // A slot that was started meanwhile stays started.
            Input::Start(slot) => drop(machine.start(slot, now)),
            // The round may be over by now.
            Input::Propose(slot, round, bytes) => drop(machine.propose(slot, round, bytes, now)),
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
            AgreementEffect::GetValue { slot, round } => {
                let bytes = manifest(slot, j, u64::from(round)).to_wire();
                schedule.input(j, VALIDATION, Input::Propose(slot, round, bytes));
            }
            AgreementEffect::Validate { digest, manifest, by_quorum, .. } => {
                self.appeals += u64::from(by_quorum);
                let behaviour = |j| self.plan.behaviour(j).copied();
                let hard = behaviour(manifest.proposer) == Some(AgreementBehaviour::ProposeInvalid);
                let soft = behaviour(j) == Some(AgreementBehaviour::Strict) && !by_quorum;
                let validity = if hard || soft { Validity::Invalid } else { Validity::Valid };
                schedule.input(j, VALIDATION, Input::Validated(digest, validity));
            }
            AgreementEffect::Locked { lock, manifest } => {
                self.locked(j, *lock, *manifest, schedule);
            }
            AgreementEffect::Equivocated { culprit, evidence } => {
                let roster = roster(self.plan.committee, self.seed);
                let convicted = evidence.convict(&binding(), self.plan.committee, &roster);
                if convicted != Ok(culprit) || self.plan.is_honest(culprit) {
                    self.violations.push(format!("{j} convicts {culprit}: {convicted:?}"));
                }
                self.convicted.insert(culprit);
            }
            AgreementEffect::Behind { slot } => schedule.event_of(j, FETCH, Fetched(j, slot)),
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
            schedule.input(j, 0, Input::Start(slot));
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
                let Vote { kind, slot, round, voter, manifest, .. } = vote;
                format!("{kind:?} of {voter} in {slot}.{round} for {manifest:?}").into()
            }
            Ok(AgreementMessage::Proposal(signed, _)) => {
                format!("proposal in {}.{}", signed.proposal.slot, signed.proposal.round).into()
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
            violations: Vec::new(),
            plan,
        }
    }

    fn locked(
        &mut self,
        j: ParticipantIndex,
        lock: ManifestLock,
        manifest: Manifest,
        schedule: &mut Schedule<Self>,
    ) {
        let slot = lock.slot;
        schedule.record(|| format!("{j} locks slot {slot}"));
        if let Some(locks) = self.locks.get_mut(&j) {
            let known = locks.entry(slot).or_insert_with(|| (lock, manifest.clone()));
            if known.1 != manifest {
                self.violations.push(format!("{j} locks two manifests in slot {slot}"));
            }
            self.times.entry((j, slot)).or_insert(schedule.now());
        }
        let settled = &mut self.disks[j.position()].settled;
        *settled = slot.max(*settled);
        if slot.0 < self.plan.scenario.slots {
            schedule.input(j, self.rng.gen_range(0..200), Input::Start(Slot(slot.0 + 1)));
        }
    }

    /// An honest member says one thing in each place, whatever happens to it.
    fn listen(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        let message = AgreementMessage::from_wire(bytes).expect("an honest member's message");
        let (place, said) = match message {
            AgreementMessage::Vote(SignedVote { vote, .. }) if vote.voter == from => {
                ((from, vote.slot, vote.round, Some(vote.kind)), vote.manifest)
            }
            AgreementMessage::Proposal(signed, _) => {
                let proposal = signed.proposal;
                if proposer(self.plan.committee, proposal.slot, proposal.round) != from {
                    return;
                }
                ((from, proposal.slot, proposal.round, None), Some(proposal.manifest))
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
        let other = |slot| manifest(slot, from, 666);
        match AgreementMessage::from_wire(bytes) {
            Ok(_) if !to.get().is_multiple_of(2) => bytes.to_vec(),
            Ok(AgreementMessage::Proposal(signed, _)) => {
                let other = other(signed.proposal.slot);
                let mut proposal = signed.proposal;
                (proposal.manifest, proposal.locked_in) = (other.digest(), None);
                let signed = proposal.sign(&binding(), &identity);
                AgreementMessage::Proposal(signed, Bytes(other.to_wire())).to_wire()
            }
            Ok(AgreementMessage::Vote(SignedVote { vote, .. })) => {
                let manifest = vote.manifest.is_none().then(|| other(vote.slot).digest());
                let vote = Vote { manifest, ..vote }.sign(&binding(), &identity);
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
