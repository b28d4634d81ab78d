//! Threshold decryption in the simulated world, with the key shares of a simulated ceremony.
//!
//! ```
//! use veil_tests::{decryption::{DecryptionPlan, finished_ceremony}, plan::member};
//!
//! let finished = finished_ceremony(4, 1);
//! let plan = DecryptionPlan::new(4).absent(3);
//! let report = finished.decrypt(&finished.encrypt(200), &plan, 1);
//! assert_eq!(report.member(member(1)).value(), Some(200));
//! ```

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
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
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Host, Mail, Schedule, World};
use veil_keygen_ceremony::keyset::{decode_blocks, squashed_blocks};
use veil_protocol_spec::{
    Blake3Digest, KeySetDigest, ParticipantIndex, Slot, Wire,
    agreement::{Instance, Lock},
    ceremony::CeremonyParameters,
    decryption::{
        DecryptionCounter, DecryptionMessage, DecryptionPayload, RequestContext, RequestId,
    },
    scheduling::Binding,
};

use crate::{
    ceremony::CeremonyPlan,
    fixtures,
    malicious::{crafted_ciphertext, wrong_partial::WrongPartial},
    plan::{Plan, Scenario},
};

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
    let report = CeremonyPlan::new(n).run(seed);
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

/// Every member that is there decrypts one slot's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecryptionScenario {}

/// A decryption and what goes wrong in it.
pub type DecryptionPlan = Plan<DecryptionScenario>;

/// How a member deviates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecryptionBehaviour {
    /// Sends wrong shares.
    WrongPartial(WrongPartial),
    /// Asks for the decryption of a crafted ciphertext, which would give it a bit of the key.
    ProbeKey,
}

impl Scenario for DecryptionScenario {
    type Behaviour = DecryptionBehaviour;
    type Moment = ();
}

impl Plan<DecryptionScenario> {
    /// A member that sends wrong shares.
    #[must_use]
    pub fn culprit(self, j: u8, how: WrongPartial) -> Self {
        self.behaves(j, DecryptionBehaviour::WrongPartial(how))
    }
}

/// One member after a decryption; one that was absent has done nothing.
#[derive(Clone, Debug, Default)]
pub struct DecryptingMember {
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
    /// Members in order.
    pub members: Vec<DecryptingMember>,
    /// Effects carried out by each member.
    pub effects: Vec<u64>,
    /// The plan.
    pub plan: DecryptionPlan,
    /// Seed of the run.
    pub seed: u64,
    /// What happened, event by event.
    pub log: EventLog,
}

impl DecryptionReport {
    /// Panics with all that is needed to repeat the run.
    ///
    /// # Panics
    /// Always.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        self.plan.fail(&format!("{what}\n{:#?}", self.members), self.seed, &self.log)
    }

    /// The members that are there and follow the protocol.
    pub fn honest(&self) -> impl Iterator<Item = (ParticipantIndex, &DecryptingMember)> {
        self.plan.honest().map(|j| (j, self.member(j)))
    }

    /// One member.
    #[must_use]
    pub fn member(&self, j: ParticipantIndex) -> &DecryptingMember {
        &self.members[j.position()]
    }
}

impl Finished {
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
    pub fn context(&self, slot: u64) -> RequestContext {
        let (epoch, manifest) = (self.parameters.epoch, Blake3Digest([7; 32]));
        RequestContext::first(self.digest, epoch, Slot(slot), manifest)
    }

    /// The lock that 2t+1 members make.
    #[must_use]
    pub fn lock(&self, context: &RequestContext) -> Lock {
        let RequestContext { key_set, epoch, slot, manifest, .. } = *context;
        let (binding, round) = (Binding { scope: fixtures::SCOPE, key_set, epoch }, 0);
        let instance = Instance::manifest(slot);
        let digest = Lock::vote_digest(&binding, instance, round, &manifest);
        let committee = self.parameters.committee;
        let voters = committee.participants().take(committee.signing_threshold().get());
        let votes = voters.map(|j| (j, fixtures::identity(self.seed, j).sign(&digest))).collect();
        Lock { binding, instance, round, value: manifest, votes }
    }

    /// A member's machine.
    ///
    /// # Panics
    /// Never: shares, identities and roster are of one committee.
    #[must_use]
    pub fn decryptor(&self, j: ParticipantIndex, counter: DecryptionCounter) -> Decryptor {
        let share = self.shares[j.position()].decryptor();
        let roster = self.parameters.roster.clone();
        Decryptor::new(share, fixtures::identity(self.seed, j), roster, counter)
            .expect("shares, identities and roster are of one committee")
    }

    /// Lets all members that are there decrypt one slot's outputs.
    #[must_use]
    pub fn decrypt(
        &self,
        blocks: &[SquashedBlock],
        plan: &DecryptionPlan,
        seed: u64,
    ) -> DecryptionReport {
        let (context, n) = (self.context(1), plan.committee.n());
        let host = Members {
            finished: self,
            plan,
            seed,
            outputs: RecomputedOutputs { context, blocks: blocks.to_vec() },
            lock: self.lock(&context),
            counters: vec![DecryptionCounter::default(); n],
            members: vec![DecryptingMember::default(); n],
            probed: BTreeSet::new(),
        };
        let physics = plan.physics("decryption", seed);
        let ended = World::new(host, plan.committee, physics, plan.crashes.clone()).run();
        let (members, effects, log) = (ended.host.members, ended.effects, ended.log);
        DecryptionReport { members, effects, plan: plan.clone(), seed, log }
    }
}

struct Members<'a> {
    finished: &'a Finished,
    plan: &'a DecryptionPlan,
    seed: u64,
    outputs: RecomputedOutputs,
    lock: Lock,
    /// What each member has on disk.
    counters: Vec<DecryptionCounter>,
    members: Vec<DecryptingMember>,
    /// Whom a member has asked for a bit of the key.
    probed: BTreeSet<(ParticipantIndex, ParticipantIndex)>,
}

impl Host for Members<'_> {
    type Machine = Decryptor;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, world: &mut Schedule<Self>) -> Option<Decryptor> {
        if self.plan.absent.contains(&j) {
            return None;
        }
        // Members evaluate at different speeds.
        let [delay, ..] = fixtures::draw(self.seed, "evaluation", u64::from(j.get()));
        let (outputs, lock) = (self.outputs.clone(), self.lock.clone());
        world.input(j, Millis::from(delay), move |machine, now| {
            let authorised = machine.authorise(outputs, &lock, now);
            authorised.expect("the outputs are of this key and locked");
        });
        Some(self.finished.decryptor(j, self.counters[j.position()]))
    }

    fn store(&mut self, j: ParticipantIndex, record: DecryptionCounter) {
        self.counters[j.position()] = record;
    }

    fn special(
        &mut self,
        j: ParticipantIndex,
        effect: DecryptionEffect,
        world: &mut Schedule<Self>,
    ) {
        let member = &mut self.members[j.position()];
        match effect {
            DecryptionEffect::Complete(completion) => {
                world.record(|| format!("{j} has the plaintext"));
                member.culprits.extend(&completion.combined.culprits);
                member.completion = Some(*completion);
            }
            DecryptionEffect::WrongShare { culprit, .. } => {
                world.record(|| format!("{j} names {culprit}"));
                member.culprits.insert(culprit);
            }
            DecryptionEffect::Refused { from, request, reason } => {
                member.refused.push((from, request, reason));
            }
            DecryptionEffect::Outstanding { participants, .. } => {
                member.outstanding = participants;
            }
        }
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let Mail { from, to, ref bytes } = mail;
        let identity = fixtures::identity(self.finished.seed, from);
        let mut leaving = vec![Arc::clone(bytes)];
        if let Ok(message) = DecryptionMessage::from_wire(bytes)
            && let DecryptionPayload::Partial(_) = message.payload
        {
            self.members[from.position()].shared.insert(message.request);
            if let Some(DecryptionBehaviour::WrongPartial(how)) = self.plan.behaviours.get(&from) {
                leaving = vec![how.instead(message, to, &identity).to_wire().into()];
            }
        }
        if self.plan.behaviours.get(&from) == Some(&DecryptionBehaviour::ProbeKey)
            && self.probed.insert((from, to))
        {
            let share = &self.finished.shares[from.position()];
            let attack = crafted_ciphertext::attack(share, &self.outputs.context, &identity);
            leaving.extend(attack.into_iter().map(|message| message.to_wire().into()));
        }
        for bytes in leaving {
            world.post(Mail { from, to, bytes }, 0);
        }
    }

    fn describe(bytes: &[u8]) -> Cow<'static, str> {
        match DecryptionMessage::from_wire(bytes).map(|message| message.payload) {
            Ok(DecryptionPayload::Partial(_)) => "a partial decryption".into(),
            Ok(DecryptionPayload::Request) => "a request for shares".into(),
            Err(_) => "no message".into(),
        }
    }
}
