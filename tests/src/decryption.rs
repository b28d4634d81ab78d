//! Threshold decryption over the simulated network, with the key shares of a simulated ceremony.
//!
//! ```
//! use veil_tests::{decryption::{DecryptionPlan, finished_ceremony}, plan::member};
//!
//! let finished = finished_ceremony(4, 1);
//! let plan = DecryptionPlan::default().absent(3);
//! let report = finished.decrypt(&finished.encrypt(200), &plan, 1);
//! assert_eq!(report.member(member(1)).value(), Some(200));
//! ```

use std::{collections::BTreeSet, sync::Arc};

use tfhe::{
    CompactCiphertextList, FheUint16,
    prelude::{CiphertextList as _, SquashNoise as _},
    set_server_key,
    xof_key_set::CompressedXofKeySet,
};
use veil_committee::{
    decrypt::SquashedBlock,
    decryption::{Completion, DecryptionEffect, Decryptor, RecomputedOutputs, Skip},
    key_share::KeyShare,
};
use veil_committee_machine::{Effect, EffectOf, Machine, PersistId};
use veil_keygen_ceremony::keyset::{decode_blocks, squashed_blocks};
use veil_protocol_spec::{
    Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, Slot, Wire,
    ceremony::CeremonyParameters,
    decryption::{
        DecryptionCounter, DecryptionMessage, DecryptionPayload, ManifestLock, RequestContext,
        RequestId,
    },
    identity::SecretIdentity,
    scheduling::Binding,
};

use crate::{
    fixtures,
    malicious::{crafted_ciphertext, wrong_partial::WrongPartial},
    network::{Agenda, Conditions, Links, Millis},
    plan::{Plan, member},
};

/// Virtual time until a counter is on disk.
const DISK: Millis = 2;

/// A committee with a key.
pub struct Finished {
    /// Seed of the run that made it; the identities are a function of it.
    pub seed: u64,
    /// What the members agreed on.
    pub parameters: CeremonyParameters,
    /// Digest of the key set.
    pub digest: KeySetDigest,
    /// The key set.
    pub key_set: Arc<CompressedXofKeySet>,
    /// Key share of participant j at position j-1.
    pub shares: Vec<Arc<KeyShare>>,
}

/// Runs a ceremony in which nothing goes wrong: 0.1 s for n = 4, 0.3 s for n = 7.
///
/// # Panics
/// If it fails, with the report.
#[must_use]
pub fn finished_ceremony(n: u8, seed: u64) -> Finished {
    let report = Plan::new(n).run(seed);
    let digest = report.assert_completed();
    let first = report.members.first().and_then(|member| member.key_set.clone());
    Finished {
        seed,
        digest,
        key_set: first.expect("a member that completed has the key set"),
        shares: report.members.iter().filter_map(|member| member.key_share.clone()).collect(),
        parameters: report.parameters,
    }
}

/// What goes wrong in a decryption.
#[derive(Clone, Debug, Default)]
pub struct DecryptionPlan {
    /// Members that are away.
    pub absent: Vec<ParticipantIndex>,
    /// Members that send wrong shares, and how.
    pub culprits: Vec<(ParticipantIndex, WrongPartial)>,
    /// Members that ask for the decryption of a crafted ciphertext.
    pub decryption_probers: Vec<ParticipantIndex>,
    /// The network.
    pub conditions: Conditions,
}

impl DecryptionPlan {
    /// A member that is away.
    #[must_use]
    pub fn absent(mut self, j: u8) -> Self {
        self.absent.push(member(j));
        self
    }

    /// A member that sends wrong shares.
    #[must_use]
    pub fn culprit(mut self, j: u8, how: WrongPartial) -> Self {
        self.culprits.push((member(j), how));
        self
    }

    /// A member that asks for a bit of the key.
    #[must_use]
    pub fn decryption_prober(mut self, j: u8) -> Self {
        self.decryption_probers.push(member(j));
        self
    }

    /// The members that are there and follow the protocol.
    #[must_use]
    pub fn is_honest(&self, j: ParticipantIndex) -> bool {
        let is_culprit = self.culprits.iter().any(|(culprit, _)| *culprit == j);
        !is_culprit && !self.decryption_probers.contains(&j) && !self.absent.contains(&j)
    }
}

/// One member after a decryption.
#[derive(Clone, Debug)]
pub struct DecryptingMember {
    /// Who.
    pub participant: ParticipantIndex,
    /// The outcome.
    pub completion: Option<Completion>,
    /// Members whose shares it found wrong.
    pub culprits: BTreeSet<ParticipantIndex>,
    /// Whom it gave up on.
    pub outstanding: Vec<ParticipantIndex>,
    /// What it refused: to whom, what, why.
    pub refused: Vec<(ParticipantIndex, RequestId, Skip)>,
    /// Of which requests a share of it has left.
    pub shared: BTreeSet<RequestId>,
}

impl DecryptingMember {
    /// The plaintext.
    #[must_use]
    pub fn value(&self) -> Option<u128> {
        decode_blocks(&self.completion.as_ref()?.combined.phases).ok()
    }
}

/// A decryption.
#[derive(Clone, Debug)]
pub struct DecryptionReport {
    /// What was decrypted.
    pub request: RequestId,
    /// Members in order; absent ones have done nothing.
    pub members: Vec<DecryptingMember>,
    /// BLAKE3 over every delivered event.
    pub trace: Blake3Digest,
}

impl DecryptionReport {
    /// One member.
    #[must_use]
    pub fn member(&self, j: ParticipantIndex) -> &DecryptingMember {
        &self.members[j.position()]
    }
}

impl Finished {
    /// A member's identity.
    #[must_use]
    pub fn identity(&self, j: ParticipantIndex) -> SecretIdentity {
        fixtures::identity(self.seed, j)
    }

    /// Encrypts with the public key and squashes, as every evaluator does.
    ///
    /// # Panics
    /// If tfhe refuses the key set.
    #[must_use]
    pub fn encrypt(&self, value: u16) -> Vec<SquashedBlock> {
        let (public_key, server_key) = self.key_set.decompress().into_raw_parts();
        set_server_key(server_key);
        let list = CompactCiphertextList::builder(&public_key).push(value).build_packed();
        let list = list.expand().expect("tfhe expands what it has packed");
        let value: FheUint16 =
            list.get(0).ok().flatten().expect("the list holds one integer of 16 bits");
        squashed_blocks(&value.squash_noise().expect("the server key has a noise-squashing key"))
    }

    /// What the outputs of a slot belong to.
    #[must_use]
    pub const fn context(&self, slot: u64) -> RequestContext {
        RequestContext {
            key_set: self.digest,
            epoch: self.parameters.epoch,
            slot: Slot(slot),
            manifest: Blake3Digest([7; 32]),
        }
    }

    /// Votes of the given members for a slot's manifest.
    #[must_use]
    pub fn lock(
        &self,
        context: &RequestContext,
        voters: impl Iterator<Item = ParticipantIndex>,
    ) -> ManifestLock {
        let RequestContext { key_set, epoch, slot, manifest } = *context;
        let (binding, round) = (Binding { scope: fixtures::SCOPE, key_set, epoch }, 0);
        let digest = ManifestLock::vote_digest(&binding, slot, round, &manifest);
        let votes = voters.map(|j| (j, self.identity(j).sign(&digest))).collect();
        ManifestLock { binding, slot, round, manifest, votes }
    }

    /// The lock that 2t+1 members make.
    #[must_use]
    pub fn full_lock(&self, context: &RequestContext) -> ManifestLock {
        let committee = self.parameters.committee;
        let voters = committee.participants().take(committee.signing_threshold().get());
        self.lock(context, voters)
    }

    /// A member's machine.
    ///
    /// # Panics
    /// Never: shares, identities and roster are of one committee.
    #[must_use]
    pub fn decryptor(&self, j: ParticipantIndex) -> Decryptor {
        let share = self.shares[j.position()].decryptor();
        let roster = self.parameters.roster.clone();
        Decryptor::new(share, self.identity(j), roster, DecryptionCounter::default())
            .expect("shares, identities and roster are of one committee")
    }

    /// The epoch of the key.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.parameters.epoch
    }

    /// Lets all members that are there decrypt one slot's outputs.
    #[must_use]
    pub fn decrypt(
        &self,
        blocks: &[SquashedBlock],
        plan: &DecryptionPlan,
        seed: u64,
    ) -> DecryptionReport {
        let digests: Vec<_> = blocks.iter().map(SquashedBlock::digest).collect();
        let context = self.context(1);
        let committee = self.parameters.committee;
        let mut room = Room {
            finished: self,
            plan,
            agenda: Agenda::default(),
            links: Links::new(committee, plan.conditions.clone(), fixtures::draw(seed, "links", 0)),
            machines: committee
                .participants()
                .map(|j| (!plan.absent.contains(&j)).then(|| self.decryptor(j)))
                .collect(),
            members: committee
                .participants()
                .map(|participant| DecryptingMember {
                    participant,
                    completion: None,
                    culprits: BTreeSet::new(),
                    outstanding: Vec::new(),
                    refused: Vec::new(),
                    shared: BTreeSet::new(),
                })
                .collect(),
            timers: vec![None; committee.n()],
            trace: blake3::Hasher::new(),
        };
        room.run(blocks, &context, seed);
        DecryptionReport {
            request: RequestId::of(&context, &digests),
            members: room.members,
            trace: Blake3Digest(*room.trace.finalize().as_bytes()),
        }
    }
}

enum Event {
    Authorise(ParticipantIndex),
    Deliver { from: ParticipantIndex, to: ParticipantIndex, bytes: Arc<[u8]> },
    Persisted(ParticipantIndex, PersistId),
    Timer(ParticipantIndex),
}

struct Room<'a> {
    finished: &'a Finished,
    plan: &'a DecryptionPlan,
    agenda: Agenda<Event>,
    links: Links,
    machines: Vec<Option<Decryptor>>,
    members: Vec<DecryptingMember>,
    timers: Vec<Option<Millis>>,
    trace: blake3::Hasher,
}

impl Room<'_> {
    fn run(&mut self, blocks: &[SquashedBlock], context: &RequestContext, seed: u64) {
        let lock = self.finished.full_lock(context);
        for j in self.finished.parameters.committee.participants() {
            // Members evaluate at different speeds.
            let [delay, ..] = fixtures::draw(seed, "evaluation", u64::from(j.get()));
            self.agenda.at(Millis::from(delay), Event::Authorise(j));
        }
        while let Some(event) = self.agenda.pop() {
            let now = self.agenda.now();
            match event {
                Event::Authorise(j) => {
                    let outputs = RecomputedOutputs { context: *context, blocks: blocks.to_vec() };
                    self.input(j, |machine| {
                        let authorised = machine.authorise(outputs, &lock, now);
                        authorised.expect("the outputs are of this key and locked");
                    });
                    if self.plan.decryption_probers.contains(&j) {
                        self.ask_for_a_key_bit(j);
                    }
                }
                Event::Deliver { from, to, bytes } => {
                    self.trace.update(&now.to_le_bytes()).update(&[from.get(), to.get()]);
                    self.trace.update(&bytes);
                    self.input(to, |machine| drop(machine.handle(from, &bytes, now)));
                }
                Event::Persisted(j, id) => self.input(j, |machine| machine.persisted(id)),
                Event::Timer(j) => {
                    if self.timers[j.position()] == Some(now) {
                        self.timers[j.position()] = None;
                        self.input(j, |machine| machine.handle_timeout(now));
                    }
                }
            }
        }
    }

    fn input(&mut self, j: ParticipantIndex, input: impl FnOnce(&mut Decryptor)) {
        let Some(machine) = &mut self.machines[j.position()] else { return };
        input(machine);
        while let Some(effect) = self.machines[j.position()].as_mut().and_then(Machine::poll_effect)
        {
            self.carry_out(j, effect);
        }
        let due = self.machines[j.position()].as_ref().and_then(Machine::poll_timeout);
        if due != self.timers[j.position()] {
            self.timers[j.position()] = due;
            if let Some(at) = due {
                self.agenda.at(at, Event::Timer(j));
            }
        }
    }

    fn carry_out(&mut self, j: ParticipantIndex, effect: EffectOf<Decryptor>) {
        let member = &mut self.members[j.position()];
        match effect {
            Effect::Persist { id, .. } => {
                self.agenda.at(self.agenda.now() + DISK, Event::Persisted(j, id));
            }
            Effect::Broadcast(bytes) => self.broadcast(j, &bytes),
            Effect::Send { to, bytes } => self.send(j, to, &bytes),
            Effect::Special(DecryptionEffect::Complete(completion)) => {
                member.culprits.extend(&completion.combined.culprits);
                member.completion = Some(*completion);
            }
            Effect::Special(DecryptionEffect::WrongShare { culprit, .. }) => {
                member.culprits.insert(culprit);
            }
            Effect::Special(DecryptionEffect::Refused { from, request, reason }) => {
                member.refused.push((from, request, reason));
            }
            Effect::Special(DecryptionEffect::Outstanding { participants, .. }) => {
                member.outstanding = participants;
            }
        }
    }

    fn broadcast(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        for to in self.finished.parameters.committee.participants().filter(|to| *to != from) {
            self.send(from, to, bytes);
        }
    }

    fn send(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Ok(message) = DecryptionMessage::from_wire(&bytes)
            && let DecryptionPayload::Partial(_) = message.payload
        {
            self.members[from.position()].shared.insert(message.request);
            if let Some((_, how)) = self.plan.culprits.iter().find(|(culprit, _)| *culprit == from)
            {
                bytes = how.instead(message, to, &self.finished.identity(from)).to_wire();
            }
        }
        let bytes: Arc<[u8]> = bytes.into();
        for at in self.links.carry(from, to, bytes.len(), self.agenda.now()) {
            self.agenda.at(at, Event::Deliver { from, to, bytes: Arc::clone(&bytes) });
        }
    }

    fn ask_for_a_key_bit(&mut self, j: ParticipantIndex) {
        let share = &self.finished.shares[j.position()];
        let identity = self.finished.identity(j);
        for message in crafted_ciphertext::attack(share, &self.finished.context(1), &identity) {
            self.broadcast(j, &message.to_wire());
        }
    }
}
