//! The members of one run, their hosts, disks and network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_agreement::{Agreement, AgreementConfig, AgreementEffect, Timing, Validity};
use veil_committee_machine::{Effect, EffectOf, Machine, PersistId};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, Slot, Wire,
    agreement::{AgreementMessage, SignedVote, Vote, VoteKind, proposer, record::Record},
    codec::Bytes,
    decryption::ManifestLock,
    scheduling::Manifest,
};

use super::{AgreementCrash, AgreementPlan, AgreementReport, binding, roster};
use crate::{
    fixtures,
    network::{Agenda, Links, Millis},
};

/// Virtual time until a record is on disk.
const DISK: Millis = 3;
/// Virtual time in which a host writes or validates a manifest.
const HOST: Millis = 15;
/// Virtual time in which a host fetches certificates when it learns that it is behind.
const FETCH: Millis = 2_000;
/// Virtual time after which a run counts as stuck.
const LIMIT: Millis = 3_600_000;

fn manifest(slot: Slot, proposer: ParticipantIndex, variant: u64) -> Manifest {
    fixtures::manifest(binding(), slot, proposer, variant)
}

enum Event {
    Start(ParticipantIndex, u64, Slot),
    Deliver { from: ParticipantIndex, to: ParticipantIndex, bytes: Arc<[u8]> },
    Stored(ParticipantIndex, u64, PersistId, Record),
    Propose(ParticipantIndex, u64, Slot, u32),
    Validated(ParticipantIndex, u64, Blake3Digest, Validity),
    Timer(ParticipantIndex, u64),
    CatchUp(ParticipantIndex, u64, Slot),
    Return(ParticipantIndex),
}

#[derive(Default)]
struct Node {
    machine: Option<Agreement>,
    /// Raised by each crash, so that what was under way then is lost.
    life: u64,
    disk: Vec<Record>,
    effects: u64,
    timer: Option<Millis>,
    /// The last slot decided or taken from certificates.
    settled: Slot,
}

pub(super) struct Room {
    plan: AgreementPlan,
    seed: u64,
    committee: Committee,
    agenda: Agenda<Event>,
    links: Links,
    rng: ChaCha20Rng,
    nodes: Vec<Node>,
    locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (ManifestLock, Manifest)>>,
    fetched: BTreeMap<ParticipantIndex, BTreeSet<Slot>>,
    convicted: BTreeSet<ParticipantIndex>,
    abstained: Vec<(ParticipantIndex, String)>,
    appeals: u64,
    times: BTreeMap<(ParticipantIndex, Slot), Millis>,
    /// What each honest member has said in each place.
    said: BTreeMap<(ParticipantIndex, Slot, u32, Option<VoteKind>), Option<Blake3Digest>>,
    trace: blake3::Hasher,
}

impl Room {
    pub(super) fn new(plan: AgreementPlan, seed: u64) -> Self {
        let committee = Committee::new(plan.n).expect("the plan's size is supported");
        let links = fixtures::draw(seed, "agreement links", 0);
        let locks = committee.participants().filter(|j| plan.is_honest(*j));
        Self {
            seed,
            committee,
            agenda: Agenda::default(),
            links: Links::new(committee, plan.conditions.clone(), links),
            rng: ChaCha20Rng::from_seed(fixtures::draw(seed, "agreement owners", 0)),
            nodes: committee.participants().map(|_| Node::default()).collect(),
            locks: locks.map(|j| (j, BTreeMap::new())).collect(),
            fetched: BTreeMap::new(),
            convicted: BTreeSet::new(),
            abstained: Vec::new(),
            appeals: 0,
            times: BTreeMap::new(),
            said: BTreeMap::new(),
            trace: blake3::Hasher::new(),
            plan,
        }
    }

    pub(super) fn run(&mut self) {
        let active: Vec<_> =
            self.committee.participants().filter(|j| !self.plan.silent.contains(j)).collect();
        for j in active {
            self.wake(j);
        }
        while !self.is_over()
            && let Some(event) = self.agenda.pop()
        {
            self.take(event);
        }
    }

    fn is_over(&self) -> bool {
        let last = Slot(self.plan.slots);
        let done = |j: &ParticipantIndex| self.nodes[j.position()].settled >= last;
        self.agenda.now() > LIMIT || self.locks.keys().all(done)
    }

    fn wake(&mut self, j: ParticipantIndex) {
        let config = AgreementConfig {
            committee: self.committee,
            binding: binding(),
            roster: roster(self.committee, self.seed),
            timing: Timing {
                propose: 1_000,
                prevote: 500,
                precommit: 500,
                retry: 1_500,
                growth: 250,
                most: 10_000,
            },
        };
        let identity = fixtures::identity(self.seed, j);
        let node = &mut self.nodes[j.position()];
        let machine = Agreement::new(config, identity, node.disk.clone())
            .expect("roster, committee and identity are of one fixture");
        // An undecided slot goes on; it is started again if it was decided, too, to answer others.
        let slot = machine.slot().max(Slot(1));
        node.machine = Some(machine);
        let (life, delay) = (node.life, self.rng.gen_range(0..50));
        self.agenda.at(self.agenda.now() + delay, Event::Start(j, life, slot));
    }

    fn take(&mut self, event: Event) {
        let now = self.agenda.now();
        match event {
            Event::Start(j, life, slot) => self.input(j, life, |machine| {
                // A slot that was started meanwhile stays started.
                let _ = machine.start(slot, now);
            }),
            Event::Deliver { from, to, bytes } => {
                self.trace.update(&now.to_le_bytes()).update(&[from.get(), to.get()]);
                self.trace.update(&bytes);
                let life = self.nodes[to.position()].life;
                self.input(to, life, |machine| drop(machine.handle(from, &bytes, now)));
            }
            Event::Stored(j, life, id, record) => {
                let node = &mut self.nodes[j.position()];
                if node.life == life {
                    // As the driver's journal does: bytes, not memory.
                    let bytes = record.to_wire();
                    node.disk.push(Record::from_wire(&bytes).expect("a record reads back"));
                }
                self.input(j, life, |machine| machine.persisted(id));
            }
            Event::Propose(j, life, slot, round) => {
                let bytes = manifest(slot, j, u64::from(round)).to_wire();
                self.input(j, life, |machine| {
                    // The round may be over by now.
                    let _ = machine.propose(slot, round, bytes, now);
                });
            }
            Event::Validated(j, life, digest, validity) => {
                self.input(j, life, |machine| machine.validated(digest, validity, now));
            }
            Event::Timer(j, life) => {
                if self.nodes[j.position()].timer == Some(now) {
                    self.nodes[j.position()].timer = None;
                    self.input(j, life, |machine| machine.handle_timeout(now));
                }
            }
            Event::CatchUp(j, life, slot) => self.catch_up(j, life, slot),
            Event::Return(j) => self.wake(j),
        }
    }

    /// Certificates of the slots before `slot` exist, since honest members have left those.
    fn catch_up(&mut self, j: ParticipantIndex, life: u64, slot: Slot) {
        let node = &mut self.nodes[j.position()];
        if node.life != life || node.settled >= slot {
            return;
        }
        for missed in (node.settled.0 + 1..slot.0).map(Slot) {
            self.fetched.entry(j).or_default().insert(missed);
            node.settled = missed;
        }
        if slot.0 <= self.plan.slots {
            let now = self.agenda.now();
            self.input(j, life, |machine| {
                let _ = machine.start(slot, now);
            });
        }
    }

    fn input(&mut self, j: ParticipantIndex, life: u64, input: impl FnOnce(&mut Agreement)) {
        let node = &mut self.nodes[j.position()];
        let Some(machine) = node.machine.as_mut().filter(|_| node.life == life) else { return };
        input(machine);
        while let Some(effect) =
            self.nodes[j.position()].machine.as_mut().and_then(Machine::poll_effect)
        {
            if self.crashes(j) {
                return;
            }
            self.carry_out(j, life, effect);
        }
        let node = &mut self.nodes[j.position()];
        let due = node.machine.as_ref().and_then(Machine::poll_timeout);
        if due != node.timer {
            node.timer = due.map(|at| at.max(self.agenda.now()));
            if let Some(at) = node.timer {
                self.agenda.at(at, Event::Timer(j, life));
            }
        }
    }

    fn crashes(&mut self, j: ParticipantIndex) -> bool {
        let node = &mut self.nodes[j.position()];
        let effect = node.effects;
        node.effects += 1;
        let due = |c: &&AgreementCrash| c.member == j && c.at_effect == effect;
        let Some(crash) = self.plan.crashes.iter().find(due) else { return false };
        node.machine = None;
        node.timer = None;
        node.life += 1;
        self.agenda.at(self.agenda.now() + crash.away, Event::Return(j));
        true
    }

    fn carry_out(&mut self, j: ParticipantIndex, life: u64, effect: EffectOf<Agreement>) {
        let now = self.agenda.now();
        match effect {
            Effect::Persist { id, record } => {
                self.agenda.at(now + DISK, Event::Stored(j, life, id, record));
            }
            Effect::Broadcast(bytes) => {
                for to in self.committee.participants().filter(|to| *to != j) {
                    self.send(j, to, &bytes);
                }
            }
            Effect::Send { to, bytes } => self.send(j, to, &bytes),
            Effect::Special(effect) => self.carry_out_special(j, life, effect),
        }
    }

    fn carry_out_special(&mut self, j: ParticipantIndex, life: u64, effect: AgreementEffect) {
        let now = self.agenda.now();
        match effect {
            AgreementEffect::GetValue { slot, round } => {
                self.agenda.at(now + HOST, Event::Propose(j, life, slot, round));
            }
            AgreementEffect::Validate { digest, manifest, by_quorum, .. } => {
                self.appeals += u64::from(by_quorum);
                let hard = self.plan.refused.contains(&manifest.proposer);
                let soft = self.plan.strict.contains(&j) && !by_quorum;
                let validity = if hard || soft { Validity::Invalid } else { Validity::Valid };
                self.agenda.at(now + HOST, Event::Validated(j, life, digest, validity));
            }
            AgreementEffect::Locked { lock, manifest } => self.locked(j, life, *lock, *manifest),
            AgreementEffect::Equivocated { culprit, evidence } => {
                let roster = roster(self.committee, self.seed);
                let convicted = evidence.convict(&binding(), self.committee, &roster);
                assert_eq!(convicted, Ok(culprit), "seed {}", self.seed);
                assert!(!self.plan.is_honest(culprit), "seed {}: {culprit} is honest", self.seed);
                self.convicted.insert(culprit);
            }
            AgreementEffect::Behind { slot } => {
                self.agenda.at(now + FETCH, Event::CatchUp(j, life, slot));
            }
            AgreementEffect::Abstained { reason, .. } => self.abstained.push((j, reason)),
        }
    }

    fn locked(&mut self, j: ParticipantIndex, life: u64, lock: ManifestLock, manifest: Manifest) {
        let slot = lock.slot;
        if let Some(locks) = self.locks.get_mut(&j) {
            let known = locks.entry(slot).or_insert_with(|| (lock, manifest.clone()));
            assert_eq!(known.1, manifest, "seed {}: member {j}, slot {slot}", self.seed);
            self.times.entry((j, slot)).or_insert(self.agenda.now());
        }
        let node = &mut self.nodes[j.position()];
        node.settled = node.settled.max(slot);
        if slot.0 < self.plan.slots {
            let delay = self.rng.gen_range(0..200);
            let next = Slot(slot.0 + 1);
            self.agenda.at(self.agenda.now() + delay, Event::Start(j, life, next));
        }
    }

    fn send(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        let bytes: Arc<[u8]> = if self.plan.equivocators.contains(&from) {
            self.equivocate(from, to, bytes).into()
        } else {
            self.listen(from, bytes);
            bytes.into()
        };
        for at in self.links.carry(from, to, bytes.len(), self.agenda.now()) {
            self.agenda.at(at, Event::Deliver { from, to, bytes: Arc::clone(&bytes) });
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
                if proposer(self.committee, proposal.slot, proposal.round) != from {
                    return;
                }
                ((from, proposal.slot, proposal.round, None), Some(proposal.manifest))
            }
            _ => return,
        };
        let first = *self.said.entry(place).or_insert(said);
        assert_eq!(first, said, "seed {}: member {from} contradicts itself", self.seed);
    }

    /// The even ones are told something else.
    fn equivocate(&self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) -> Vec<u8> {
        let identity = fixtures::identity(self.seed, from);
        let other = |slot| manifest(slot, from, 666).to_wire();
        let digest = |slot| manifest(slot, from, 666).digest();
        match AgreementMessage::from_wire(bytes) {
            Ok(_) if !to.get().is_multiple_of(2) => bytes.to_vec(),
            Ok(AgreementMessage::Proposal(signed, _)) => {
                let slot = signed.proposal.slot;
                let mut proposal = signed.proposal;
                (proposal.manifest, proposal.locked_in) = (digest(slot), None);
                let signed = proposal.sign(&binding(), &identity);
                AgreementMessage::Proposal(signed, Bytes(other(slot))).to_wire()
            }
            Ok(AgreementMessage::Vote(SignedVote { vote, .. })) => {
                let manifest = vote.manifest.is_none().then(|| digest(vote.slot));
                let vote = Vote { manifest, ..vote }.sign(&binding(), &identity);
                AgreementMessage::Vote(vote).to_wire()
            }
            _ => bytes.to_vec(),
        }
    }

    pub(super) fn report(self) -> AgreementReport {
        let effects = self.committee.participants().zip(self.nodes.iter().map(|n| n.effects));
        AgreementReport {
            plan: self.plan,
            seed: self.seed,
            locks: self.locks,
            fetched: self.fetched,
            convicted: self.convicted,
            abstained: self.abstained,
            appeals: self.appeals,
            times: self.times,
            effects: effects.collect(),
            elapsed: self.agenda.now(),
            trace: Blake3Digest(*self.trace.finalize().as_bytes()),
        }
    }
}
