//! The machine against hand-made messages, and all members of a committee against each other.

use std::{collections::BTreeSet, vec};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::{EffectOf, Machine, Verdict, VerdictOf};
use veil_committee_world::{Host, Mail, Physics, Schedule, World};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Slot, Wire, agreement::Instance, scheduling::ClusterScope,
};

use super::*;
use crate::{
    decrypt::SquashedBlock,
    testing::{DIMENSION, EPOCH, KEY_SET, encrypt, identity, index, members, roster, secret_key},
};

mod messages;
mod refusals;

/// Round of the agreement in which the tests' locks are made.
const ROUND: u32 = 2;
const MESSAGES: [u8; 5] = [3, 0, 15, 7, 1];

/// A committee, its key and one machine for each member.
struct Bench {
    committee: Committee,
    key: Vec<u128>,
    rng: ChaCha20Rng,
    machines: Vec<Decryptor>,
}

/// The effects of each member's machine that only decryption has.
type Outcome = Vec<Vec<DecryptionEffect>>;

impl Bench {
    fn new(n: u8) -> Self {
        Self::with_counter(n, 0)
    }

    fn with_counter(n: u8, blocks: u64) -> Self {
        let committee = Committee::new(n).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(n.into());
        let key = secret_key(&mut rng);
        let machine = |decryptor: PartialDecryptor| {
            let identity = identity(decryptor.participant());
            let counter = DecryptionCounter { blocks };
            Decryptor::new(decryptor, identity, roster(committee), counter).unwrap()
        };
        let machines = members(committee, &key, &mut rng).into_iter().map(machine).collect();
        Self { committee, key, rng, machines }
    }

    fn at(&mut self, j: u8) -> &mut Decryptor {
        &mut self.machines[usize::from(j) - 1]
    }

    fn outputs(&mut self, slot: u64) -> RecomputedOutputs {
        let blocks = MESSAGES.iter().map(|m| encrypt(&self.key, *m, &mut self.rng)).collect();
        RecomputedOutputs { context: context(slot), blocks }
    }

    /// The lock that all members' votes make.
    fn lock(&self, slot: u64) -> Lock {
        lock(slot, self.committee.participants())
    }

    /// Authorises with the machines of `present`, and lets these talk until nothing is left, except
    /// that what each member sends goes through `tamper`.
    fn run(
        &mut self,
        outputs: &RecomputedOutputs,
        present: &[ParticipantIndex],
        tamper: impl Fn(ParticipantIndex, Vec<u8>) -> Vec<u8>,
    ) -> Outcome {
        let lock = self.lock(outputs.context.slot.0);
        for j in present {
            self.machines[j.position()].authorise(outputs.clone(), &lock, 0).unwrap();
        }
        let machines = core::mem::take(&mut self.machines).into_iter();
        let outcome = vec![Vec::new(); self.committee.n()];
        let host = Members { machines, present, tamper, outcome };
        // An instant: nobody's time comes.
        let physics = Physics { limit: 0, ..Physics::INSTANT };
        let ended = World::new(host, self.committee, physics, Vec::new()).run();
        self.machines = ended.machines.into_iter().flatten().collect();
        ended.host.outcome
    }

    /// Member j's share of the outputs, as it signs it.
    fn share(&self, j: u8, outputs: &RecomputedOutputs) -> DecryptionMessage {
        let share = self.machines[usize::from(j) - 1].decryptor.partial(&outputs.blocks).unwrap();
        signed(id(outputs), j, DecryptionPayload::Partial(Bytes(share)))
    }

    /// The same with the given byte changed.
    fn wrong_share(&self, j: u8, outputs: &RecomputedOutputs, at: usize) -> DecryptionMessage {
        let DecryptionPayload::Partial(mut bytes) = self.share(j, outputs).payload else {
            unreachable!()
        };
        bytes.0[at] ^= 0x80;
        signed(id(outputs), j, DecryptionPayload::Partial(bytes))
    }

    /// Authorises with member j and stores its counter; effects are dropped.
    fn start(&mut self, j: u8, outputs: &RecomputedOutputs) -> RequestId {
        let lock = self.lock(outputs.context.slot.0);
        let machine = self.at(j);
        let request = machine.authorise(outputs.clone(), &lock, 0).unwrap();
        for effect in drain(machine) {
            if let Effect::Persist { id, .. } = effect {
                machine.persisted(id);
            }
        }
        drain(machine);
        request
    }
}

/// What surrounds the machines; whoever is not present hears nothing.
struct Members<'a, F> {
    machines: vec::IntoIter<Decryptor>,
    present: &'a [ParticipantIndex],
    tamper: F,
    outcome: Outcome,
}

impl<F: Fn(ParticipantIndex, Vec<u8>) -> Vec<u8>> Host for Members<'_, F> {
    type Machine = Decryptor;
    type Moment = ();

    /// Members start in order, and once.
    fn boot(&mut self, _: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Decryptor> {
        self.machines.next()
    }

    fn special(&mut self, j: ParticipantIndex, effect: DecryptionEffect, _: &mut Schedule<Self>) {
        self.outcome[j.position()].push(effect);
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        if self.present.contains(&mail.to) {
            let bytes = (self.tamper)(mail.from, mail.bytes.to_vec()).into();
            world.post(Mail { bytes, ..mail }, 0);
        }
    }

    fn verdict(&mut self, _: &Mail, verdict: VerdictOf<Decryptor>) {
        assert_eq!(verdict, Verdict::Valid);
    }
}

fn context(slot: u64) -> RequestContext {
    let manifest = Blake3Digest([slot as u8; 32]);
    RequestContext::first(KEY_SET, EPOCH, Slot(slot), manifest)
}

fn lock(slot: u64, voters: impl Iterator<Item = ParticipantIndex>) -> Lock {
    let RequestContext { slot, manifest, .. } = context(slot);
    locked(Instance::manifest(slot), manifest, voters)
}

fn locked(
    instance: Instance,
    value: Blake3Digest,
    voters: impl Iterator<Item = ParticipantIndex>,
) -> Lock {
    let digest = Lock::vote_digest(&binding(), instance, ROUND, &value);
    let votes = voters.map(|j| (j, identity(j).sign(&digest))).collect();
    Lock { binding: binding(), instance, round: ROUND, value, votes }
}

fn binding() -> Binding {
    let (chain_id, contract, cluster) = (ChainId(1), Address([2; 20]), ClusterId([3; 32]));
    let scope = ClusterScope { chain_id, contract, cluster };
    Binding { scope, key_set: KEY_SET, epoch: EPOCH }
}

fn id(outputs: &RecomputedOutputs) -> RequestId {
    let digests: Vec<_> = outputs.blocks.iter().map(SquashedBlock::digest).collect();
    RequestId::of(&outputs.context, &digests)
}

fn signed(request: RequestId, j: u8, payload: DecryptionPayload) -> DecryptionMessage {
    DecryptionMessage::sign(request, index(j), payload, &identity(index(j)))
}

fn drain(machine: &mut Decryptor) -> Vec<EffectOf<Decryptor>> {
    core::iter::from_fn(|| machine.poll_effect()).collect()
}

/// Drains the machine; what it sends and stores is dropped.
fn specials(machine: &mut Decryptor) -> Vec<DecryptionEffect> {
    let special = |effect| match effect {
        Effect::Special(effect) => Some(effect),
        _ => None,
    };
    drain(machine).into_iter().filter_map(special).collect()
}

fn completion(effects: &[DecryptionEffect]) -> Option<&Completion> {
    effects.iter().find_map(|effect| match effect {
        DecryptionEffect::Complete(completion) => Some(&**completion),
        _ => None,
    })
}

fn culprits_found(effects: &[DecryptionEffect]) -> BTreeSet<ParticipantIndex> {
    let mut culprits = BTreeSet::new();
    for effect in effects {
        if let DecryptionEffect::WrongShare { request, culprit, evidence } = effect {
            assert_eq!((evidence.request, evidence.sender), (*request, *culprit));
            culprits.insert(*culprit);
        }
    }
    culprits
}

#[test]
fn every_number_of_members_from_a_quorum_on_decrypts() {
    for n in [1, 4, 7, 10, 13] {
        let mut bench = Bench::new(n);
        let quorum = bench.committee.signing_threshold().get();
        for count in quorum..=n.into() {
            let outputs = bench.outputs(count as u64);
            let present: Vec<_> = bench.committee.participants().rev().take(count).collect();
            let outcome = bench.run(&outputs, &present, |_, bytes| bytes);
            for j in &present {
                let completion = completion(&outcome[j.position()]).unwrap();
                assert_eq!(completion.request, id(&outputs));
                assert_eq!(completion.context, outputs.context);
                assert_eq!(completion.combined.messages(), MESSAGES);
                assert_eq!(completion.combined.culprits, []);
                assert_eq!(completion.participants.len(), quorum);
                let status = bench.machines[j.position()].status().pop().unwrap();
                assert!(status.complete && status.received.len() == count, "{status:?}");
            }
        }
    }
}

#[test]
fn fewer_members_open_nothing_and_the_others_are_named() {
    for n in [4, 7, 13] {
        let mut bench = Bench::new(n);
        let too_few = bench.committee.signing_threshold().get() - 1;
        let present: Vec<_> = bench.committee.participants().take(too_few).collect();
        let outputs = bench.outputs(1);
        let outcome = bench.run(&outputs, &present, |_, bytes| bytes);
        assert!(outcome.iter().all(Vec::is_empty));
        let absent: Vec<_> = bench.committee.participants().skip(present.len()).collect();
        for j in &present {
            let status = bench.machines[j.position()].status();
            assert_eq!(status[0].received, present);
            assert_eq!(status[0].outstanding, absent);
            assert!(!status[0].complete && status[0].blocks == MESSAGES.len());
        }
    }
}

/// One changes one element, one all of them, the others send bytes of another length.
fn falsify(request: RequestId, j: ParticipantIndex, bytes: &[u8]) -> Vec<u8> {
    let message = DecryptionMessage::from_wire(bytes).unwrap();
    let DecryptionPayload::Partial(Bytes(mut share)) = message.payload else { unreachable!() };
    match j.get() {
        1 => share[40] ^= 1,
        2 => share.iter_mut().for_each(|b| *b ^= 0x80),
        3 => share.truncate(16),
        _ => share.clear(),
    }
    signed(request, j.get(), DecryptionPayload::Partial(Bytes(share))).to_wire()
}

#[test]
fn t_culprits_are_named_with_evidence_that_convinces_others() {
    for n in [4, 7, 13] {
        let mut bench = Bench::new(n);
        let (committee, roster) = (bench.committee, roster(bench.committee));
        let culprits: BTreeSet<_> =
            committee.participants().take(committee.max_faulty().get()).collect();
        let everybody: Vec<_> = committee.participants().collect();
        let outputs = bench.outputs(1);
        let request = id(&outputs);
        let outcome = bench.run(&outputs, &everybody, |from, bytes| {
            if culprits.contains(&from) { falsify(request, from, &bytes) } else { bytes }
        });
        for j in everybody.iter().filter(|j| !culprits.contains(j)) {
            let effects = &outcome[j.position()];
            let completion = completion(effects).unwrap();
            assert_eq!(completion.combined.messages(), MESSAGES);
            assert!(completion.participants.iter().all(|j| !culprits.contains(j)));
            assert_eq!(culprits_found(effects), culprits, "seen by {j}");
            let machine = &bench.machines[j.position()];
            assert_eq!(BTreeSet::from_iter(machine.status()[0].culprits.clone()), culprits);
            let shares: Vec<_> = machine.partials(request).cloned().collect();
            let convicted = wrong_shares(committee, &roster, &shares).unwrap();
            assert_eq!(BTreeSet::from_iter(convicted), culprits);
            for culprit in committee.participants() {
                let Some(wrong) = machine.wrong_partial(request, culprit) else {
                    assert!(!culprits.contains(&culprit));
                    continue;
                };
                assert_eq!(RequestId::of(&wrong.context, &wrong.blocks), request);
                assert_eq!(wrong.partials.len(), committee.signing_threshold().get() + 1);
                assert_eq!(wrong_shares(committee, &roster, &wrong.partials), Ok(vec![culprit]));
            }
        }
    }
}

#[test]
fn a_wrong_share_that_comes_late_is_named_and_a_right_one_is_not() {
    let mut bench = Bench::new(7);
    let outputs = bench.outputs(1);
    let request = bench.start(1, &outputs);
    for j in 2..=5 {
        let share = bench.share(j, &outputs).to_wire();
        assert_eq!(bench.at(1).handle(index(j), &share, 1), Verdict::Valid);
    }
    let effects = specials(bench.at(1));
    assert_eq!(completion(&effects).unwrap().participants.len(), 5);
    assert!(culprits_found(&effects).is_empty());
    let evidence = Box::new(bench.wrong_share(6, &outputs, 0));
    assert_eq!(bench.at(1).handle(index(6), &evidence.to_wire(), 2), Verdict::Valid);
    let found = DecryptionEffect::WrongShare { request, culprit: index(6), evidence };
    assert_eq!(specials(bench.at(1)), [found]);
    let share = bench.share(7, &outputs).to_wire();
    assert_eq!(bench.at(1).handle(index(7), &share, 3), Verdict::Valid);
    assert_eq!(drain(bench.at(1)), []);
    assert_eq!(bench.at(1).status()[0].culprits, [index(6)]);
}

#[test]
fn a_member_with_a_damaged_key_share_finds_itself() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let mut other = ChaCha20Rng::seed_from_u64(99);
    let damaged = members(bench.committee, &secret_key(&mut other), &mut other).remove(0);
    let roster = roster(bench.committee);
    let counter = DecryptionCounter::default();
    bench.machines[0] = Decryptor::new(damaged, identity(index(1)), roster, counter).unwrap();
    let everybody: Vec<_> = bench.committee.participants().collect();
    let outcome = bench.run(&outputs, &everybody, |_, bytes| bytes);
    for effects in outcome {
        assert_eq!(completion(&effects).unwrap().combined.messages(), MESSAGES);
        assert_eq!(culprits_found(&effects), BTreeSet::from([index(1)]));
    }
}

#[test]
fn same_inputs_same_effects_also_after_a_restart() {
    let trace = || {
        let mut bench = Bench::new(7);
        let outputs = bench.outputs(1);
        bench.start(1, &outputs);
        bench.at(1).handle_timeout(5_000);
        let share = bench.share(2, &outputs).to_wire();
        assert_eq!(bench.at(1).handle(index(2), &share, 6_000), Verdict::Valid);
        drain(bench.at(1))
    };
    assert_eq!(trace(), trace());
    let own = |counter| {
        let mut bench = Bench::with_counter(4, counter);
        let outputs = bench.outputs(1);
        let request = bench.start(2, &outputs);
        let own = bench.at(2).partials(request).cloned().collect::<Vec<_>>();
        (own, bench.at(2).counter().blocks)
    };
    let (before, counted) = own(0);
    let (after, total) = own(counted);
    assert_eq!(before, after);
    assert_eq!((counted, total), (5, 10));
}

#[test]
fn printing_redacts() {
    let bench = Bench::new(4);
    let printed = format!("{:?}", bench.machines[0]);
    assert_eq!(printed, "Decryptor(member 1 of n=4 t=1, <redacted>)");
}
