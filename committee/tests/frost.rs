//! Key generation and signing among n members in one loop, with silent and faulty ones; and the
//! known answer that the contracts' tests verify too.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee::frost::{
    Completion, Coordinator, Dkg, EvmSuite, GroupKeyShare, NonceRecord, Purpose, SessionContext,
    SessionEffect, SignedMessage, SigningContext, SigningError, SigningKeyId, SigningSession,
    Timing, coordinator_at,
    dkg::Packages,
    wire::{Body, Payload},
};
use veil_committee_machine::{Effect, Machine, Millis, Verdict};
use veil_protocol_spec::{
    Address, Attempt, ChainId, ClusterId, Committee, Epoch, KeccakDigest, ParticipantIndex, Slot,
    Wire, identity::SecretIdentity,
};

const MESSAGE: KeccakDigest = KeccakDigest([0x5a; 32]);
const TIMING: Timing = Timing { commit: 100, share: 100, max_attempts: 14 };
const DEADLINE: Millis = 10_000;

fn index(i: usize) -> ParticipantIndex {
    ParticipantIndex::new(i as u8).unwrap()
}

fn identity(i: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[i.get(); 32]).unwrap()
}

fn generate(committee: Committee, seed: u64) -> Vec<Arc<GroupKeyShare>> {
    let (mut secrets, mut public) = (Vec::new(), Packages::new());
    for i in committee.participants() {
        let mut rng = ChaCha20Rng::seed_from_u64(seed * 100 + u64::from(i.get()));
        let (secret, package) = Dkg::<EvmSuite>::start(committee, i, &mut rng).unwrap();
        secrets.push((i, secret));
        public.insert(i, package);
    }
    let (mut second, mut inboxes) = (Vec::new(), BTreeMap::<_, Packages<_>>::new());
    for (me, secret) in secrets {
        let mut others = public.clone();
        others.remove(&me);
        let (secret, outgoing) = secret.receive(&others).unwrap();
        second.push((me, secret));
        for (to, package) in outgoing {
            inboxes.entry(to).or_default().insert(me, package);
        }
    }
    let inbox = |me| inboxes.get(&me).cloned().unwrap_or_default();
    second.into_iter().map(|(me, s)| Arc::new(s.finish(&inbox(me)).unwrap())).collect()
}

fn session(shares: &[Arc<GroupKeyShare>], slot: u64) -> Arc<SessionContext> {
    let key = SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(3), slot: Slot(slot) };
    let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
    let context = SigningContext { chain: ChainId(31337), contract, cluster, key };
    let group = Arc::new(shares[0].public().clone());
    let members = group.committee().participants().map(|i| identity(i).public()).collect();
    Arc::new(SessionContext::new(context, group, members).unwrap())
}

/// How a member misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plan {
    Honest,
    /// Sends nothing.
    Silent,
    /// Commits, then nothing.
    CommitsOnly,
    /// Sends a share that is off by something.
    BadShare,
    /// Commits to bytes that are no points.
    BadCommitment,
    /// Its shares arrive long after the deadline.
    Late,
}

/// All machines and what is under way between them.
struct Network {
    session: Arc<SessionContext>,
    plans: BTreeMap<ParticipantIndex, Plan>,
    signers: BTreeMap<ParticipantIndex, SigningSession>,
    coordinators: BTreeMap<ParticipantIndex, Coordinator>,
    journals: BTreeMap<ParticipantIndex, Vec<NonceRecord>>,
    queue: VecDeque<(ParticipantIndex, ParticipantIndex, SignedMessage)>,
    delayed: VecDeque<(ParticipantIndex, ParticipantIndex, SignedMessage)>,
    now: Millis,
    signed: BTreeMap<ParticipantIndex, Completion>,
    collected: Option<Completion>,
    failed: Option<SigningError>,
}

impl Network {
    fn new(shares: &[Arc<GroupKeyShare>], plans: &[(usize, Plan)]) -> Self {
        let session = session(shares, 9);
        let mut network = Self {
            signers: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            journals: BTreeMap::new(),
            plans: plans.iter().map(|(i, plan)| (index(*i), *plan)).collect(),
            queue: VecDeque::new(),
            delayed: VecDeque::new(),
            now: 0,
            signed: BTreeMap::new(),
            collected: None,
            failed: None,
            session,
        };
        for share in shares {
            let me = share.index();
            let signer =
                SigningSession::new(network.session.clone(), share.clone(), identity(me), [])
                    .unwrap();
            network.signers.insert(me, signer);
            network.signers.get_mut(&me).unwrap().authorise(MESSAGE, DEADLINE).unwrap();
            network.drain(me);
        }
        network
    }

    fn plan(&self, i: ParticipantIndex) -> Plan {
        self.plans.get(&i).copied().unwrap_or(Plan::Honest)
    }

    fn coordinate(&mut self, me: ParticipantIndex) {
        let coordinator = Coordinator::start(
            self.session.clone(),
            me,
            identity(me),
            MESSAGE,
            Attempt(0),
            TIMING,
            self.now,
        );
        self.coordinators.insert(me, coordinator.unwrap());
        self.drain(me);
    }

    /// Carries out the effects of both machines of a member.
    fn drain(&mut self, me: ParticipantIndex) {
        while let Some(effect) = self.signers.get_mut(&me).unwrap().poll_effect() {
            match effect {
                Effect::Send { to, bytes } => self.post(me, to, &bytes),
                Effect::Broadcast(bytes) => self.post_to_all(me, &bytes),
                Effect::Persist { id, record } => {
                    let record = NonceRecord::from_wire(&record.to_wire()).unwrap();
                    self.journals.entry(me).or_default().push(record);
                    self.signers.get_mut(&me).unwrap().persisted(id);
                }
                Effect::Special(SessionEffect::Complete(completion)) => {
                    assert!(self.signed.insert(me, *completion).is_none());
                }
                Effect::Special(SessionEffect::Failed(_)) => {}
            }
        }
        while let Some(effect) = self.coordinators.get_mut(&me).and_then(Machine::poll_effect) {
            match effect {
                Effect::Send { to, bytes } => self.post(me, to, &bytes),
                Effect::Broadcast(bytes) => self.post_to_all(me, &bytes),
                Effect::Persist { record, .. } => match record {},
                Effect::Special(SessionEffect::Complete(completion)) => {
                    self.collected = Some(*completion);
                }
                Effect::Special(SessionEffect::Failed(error)) => self.failed = Some(error),
            }
        }
    }

    /// To the member's own other machine too.
    fn post_to_all(&mut self, from: ParticipantIndex, bytes: &[u8]) {
        for to in self.session.committee().participants() {
            self.post(from, to, bytes);
        }
    }

    /// Sends, as the sender's plan has it.
    fn post(&mut self, from: ParticipantIndex, to: ParticipantIndex, bytes: &[u8]) {
        let mut message = SignedMessage::from_wire(bytes).unwrap();
        let reseal = |body: Body| {
            let payload = Payload { body, ..message.payload.clone() };
            self.session.seal(&identity(from), payload)
        };
        match (self.plan(from), &message.payload.body) {
            (Plan::Silent, _) | (Plan::CommitsOnly, Body::Share { .. }) => return,
            (Plan::Late, Body::Share { .. }) => {
                return self.delayed.push_back((from, to, message));
            }
            (Plan::BadShare, Body::Share { message: signed, package, share }) => {
                let (signed, package, mut share) = (*signed, *package, share.clone());
                share[31] ^= 1;
                message = reseal(Body::Share { message: signed, package, share });
            }
            (Plan::BadCommitment, Body::Commitment { .. }) => {
                message = reseal(Body::Commitment { commitment: vec![2; 71] });
            }
            _ => {}
        }
        self.queue.push_back((from, to, message));
    }

    /// Delivers and lets time pass until nothing is left to do.
    fn run(&mut self) {
        self.run_until(Millis::MAX);
    }

    fn run_until(&mut self, end: Millis) {
        loop {
            while let Some((from, to, message)) = self.queue.pop_front() {
                let (signer, bytes) = (self.signers.get_mut(&to).unwrap(), message.to_wire());
                let verdict = signer.handle(from, &bytes, self.now);
                assert!(!matches!(verdict, Verdict::Fault(_)) || self.plan(from) != Plan::Honest);
                if let Some(coordinator) = self.coordinators.get_mut(&to)
                    && let Verdict::Fault(fault) = coordinator.handle(from, &bytes, self.now)
                {
                    assert_ne!(self.plan(fault.culprit), Plan::Honest);
                    assert_eq!(self.session.convict(&fault.evidence), Ok(fault.culprit));
                }
                self.drain(to);
            }
            let Some(now) = self.next_timeout().filter(|at| *at <= end) else { return };
            self.now = now;
            for me in self.session.committee().participants() {
                self.signers.get_mut(&me).unwrap().handle_timeout(now);
                if let Some(coordinator) = self.coordinators.get_mut(&me) {
                    coordinator.handle_timeout(now);
                }
                self.drain(me);
            }
            // Shares that come after the deadline they missed.
            self.queue.extend(self.delayed.drain(..));
        }
    }

    fn next_timeout(&self) -> Option<Millis> {
        let signers = self.signers.values().filter_map(Machine::poll_timeout);
        signers.chain(self.coordinators.values().filter_map(Machine::poll_timeout)).min()
    }

    /// Everybody that listens has the one valid signature, and its signers are on record.
    fn assert_signed(&self) {
        assert_eq!(self.failed, None);
        assert_eq!(self.signed.len(), self.session.committee().n());
        let group = self.session.group();
        for completion in self.signed.values() {
            assert_eq!(completion.message, MESSAGE);
            assert_eq!(group.verify(MESSAGE.as_bytes(), &completion.signature), Ok(()));
        }
        let collected = self.collected.as_ref().unwrap();
        assert_eq!(collected.shares.len(), self.session.committee().signing_threshold().get());
        let commitments = self.journals.values().flatten().map(|record| &record.commitment);
        let count = commitments.clone().count();
        assert_eq!(commitments.collect::<BTreeSet<_>>().len(), count, "a nonce was used twice");
    }
}

fn committees() -> impl Iterator<Item = (Committee, Vec<Arc<GroupKeyShare>>)> {
    [4, 7, 13].into_iter().map(|n| {
        let committee = Committee::new(n).unwrap();
        (committee, generate(committee, 1))
    })
}

fn indices(range: impl IntoIterator<Item = usize>) -> Vec<ParticipantIndex> {
    range.into_iter().map(index).collect()
}

#[test]
fn up_to_t_members_that_fail_in_any_way_do_not_prevent_a_signature() {
    use Plan::{BadCommitment, BadShare, CommitsOnly, Late, Silent};
    for (committee, shares) in committees() {
        let t = committee.max_faulty().get();
        for plan in [Silent, CommitsOnly, BadShare, BadCommitment, Late] {
            for faulty in [0, 1, t] {
                // The first to answer are the first to be chosen.
                let plans: Vec<_> = (1..=faulty).map(|i| (i, plan)).collect();
                let mut network = Network::new(&shares, &plans);
                network.coordinate(index(committee.n()));
                network.run();
                network.assert_signed();
                let culprits = network.coordinators[&index(committee.n())].culprits();
                let provable = matches!(plan, BadShare | BadCommitment);
                let expected = if provable { indices(1..=faulty) } else { Vec::new() };
                assert_eq!(culprits.keys().copied().collect::<Vec<_>>(), expected);
            }
        }
    }
}

#[test]
fn mixed_faults_are_survived_too() {
    use Plan::{BadShare, CommitsOnly, Late, Silent};
    let committee = Committee::new(13).unwrap();
    let shares = generate(committee, 2);
    let plans = [(1, BadShare), (2, CommitsOnly), (5, Silent), (9, Late)];
    let mut network = Network::new(&shares, &plans);
    network.coordinate(index(3));
    network.run();
    network.assert_signed();
    assert!(network.coordinators[&index(3)].culprits().keys().eq(&[index(1)]));
}

#[test]
fn more_than_t_failures_are_named() {
    for (committee, shares) in committees() {
        let (n, t) = (committee.n(), committee.max_faulty().get());
        let bad = (1..=t).map(|i| (i, Plan::BadShare));
        let silent = (t + 1..=2 * t).map(|i| (i, Plan::CommitsOnly));
        let mut network = Network::new(&shares, &bad.chain(silent).collect::<Vec<_>>());
        network.coordinate(index(n));
        network.run();
        let error = network.failed.unwrap();
        assert!(matches!(error, SigningError::TooFewSigners { .. }));
        assert_eq!(error.culprits(), indices(1..=t));
        assert_eq!(error.absentees(), indices(t + 1..=2 * t));
        assert!(network.signed.is_empty());

        let silent: Vec<_> = (1..=t + 1).map(|i| (i, Plan::Silent)).collect();
        let mut network = Network::new(&shares, &silent);
        network.coordinate(index(n));
        network.run();
        let error = network.failed.unwrap();
        assert!(error.culprits().is_empty());
        assert_eq!(error.absentees(), indices(1..=t + 1));
    }
}

#[test]
fn attempts_are_bounded() {
    let (committee, shares) = committees().nth(1).unwrap();
    let mut network = Network::new(&shares, &[(1, Plan::BadShare)]);
    let me = index(committee.n());
    let timing = Timing { max_attempts: 1, ..TIMING };
    let session = network.session.clone();
    let coordinator =
        Coordinator::start(session, me, identity(me), MESSAGE, Attempt(0), timing, 0).unwrap();
    network.coordinators.insert(me, coordinator);
    network.drain(me);
    network.run();
    let (culprits, absentees) = (indices([1]), Vec::new());
    let expected = SigningError::OutOfAttempts { attempts: 1, culprits, absentees };
    assert_eq!(network.failed, Some(expected));
}

#[test]
fn another_coordinator_takes_over_and_several_do_not_disturb_each_other() {
    for (committee, shares) in committees() {
        let (first, second) =
            (coordinator_at(committee, Slot(9), 0), coordinator_at(committee, Slot(9), 1));
        assert_ne!(first, second);
        let mut network = Network::new(&shares, &[(first.get().into(), Plan::Silent)]);
        network.coordinate(first); // nobody hears it
        network.coordinate(second);
        network.run();
        assert_eq!(network.signed.len(), committee.n());

        let mut network = Network::new(&shares, &[]);
        network.coordinate(first);
        network.coordinate(second);
        network.run();
        network.assert_signed();
    }
}

/// Nobody has authorised anything; member `me` gathers commitments, of which `lost` go missing.
fn prepared(shares: &[Arc<GroupKeyShare>], me: ParticipantIndex, lost: usize) -> Network {
    let mut network = Network::new(shares, &[]);
    for share in shares {
        let session = network.session.clone();
        let signer = SigningSession::new(session, share.clone(), identity(share.index()), []);
        network.signers.insert(share.index(), signer.unwrap());
    }
    let session = network.session.clone();
    let coordinator = Coordinator::prepare(session, me, identity(me), Attempt(0), TIMING, 0);
    network.coordinators.insert(me, coordinator.unwrap());
    network.drain(me);
    let asked: Vec<_> = network.queue.drain(..).skip(lost).collect();
    for (from, to, message) in asked {
        assert_eq!(
            network.signers.get_mut(&to).unwrap().handle(from, &message.to_wire(), 0),
            Verdict::Valid
        );
        network.drain(to);
    }
    network.run_until(0);
    network
}

fn authorise_all(network: &mut Network, me: ParticipantIndex, ready: &[ParticipantIndex]) {
    let coordinator = network.coordinators.get_mut(&me).unwrap();
    coordinator.authorise(MESSAGE, ready.iter().copied(), network.now);
    network.drain(me);
    for i in network.session.committee().participants() {
        network.signers.get_mut(&i).unwrap().authorise(MESSAGE, DEADLINE).unwrap();
        network.drain(i);
    }
}

#[test]
fn with_commitments_gathered_ahead_one_round_trip_is_left() {
    for (committee, shares) in committees() {
        let me = index(committee.n());
        let threshold = committee.signing_threshold().get();
        let mut network = prepared(&shares, me, 0);
        // Whoever is known to be ready signs, though others have committed too.
        let ready = indices(committee.n() - threshold + 1..=committee.n());
        authorise_all(&mut network, me, &ready);
        let packages: Vec<_> = network.queue.iter().map(|(_, to, _)| *to).collect();
        assert_eq!(packages, ready);
        let is_package = |m: &SignedMessage| matches!(m.payload.body, Body::Package { .. });
        assert!(network.queue.iter().all(|(_, _, message)| is_package(message)));
        network.run();
        network.assert_signed();
        assert!(network.journals.keys().copied().eq(ready));
    }
}

#[test]
fn commitments_that_got_lost_are_asked_for_again_with_and_without_a_message() {
    let (committee, shares) = committees().next().unwrap();
    let me = index(committee.n());
    for wait in [0, TIMING.commit] {
        let mut network = prepared(&shares, me, 2);
        network.run_until(wait);
        authorise_all(&mut network, me, &[]);
        network.run();
        network.assert_signed();
    }
}

#[test]
fn a_group_of_one_signs_through_the_same_calls() {
    let committee = Committee::new(1).unwrap();
    let mut network = Network::new(&generate(committee, 1), &[]);
    network.coordinate(index(1));
    network.run();
    let group = network.session.group();
    let completion = &network.signed[&index(1)];
    assert_eq!(group.verify(MESSAGE.as_bytes(), &completion.signature), Ok(()));
    assert_eq!(network.collected.unwrap().signature, completion.signature);
}

/// Members 1 to `restarting` answer the first request, then lose what is not on disk.
fn restart_after_commitment(shares: &[Arc<GroupKeyShare>], restarting: usize) -> Network {
    let mut network = Network::new(shares, &[]);
    network.coordinate(index(4));
    for _ in shares {
        let (from, to, message) = network.queue.pop_front().unwrap();
        let verdict = network.signers.get_mut(&to).unwrap().handle(from, &message.to_wire(), 0);
        assert_eq!(verdict, Verdict::Valid);
        network.drain(to);
    }
    for me in indices(1..=restarting) {
        let share = shares[me.position()].clone();
        let journal = network.journals.get(&me).into_iter().flatten();
        let mut signer =
            SigningSession::new(network.session.clone(), share, identity(me), journal).unwrap();
        signer.authorise(MESSAGE, DEADLINE).unwrap();
        network.signers.insert(me, signer);
    }
    network
}

#[test]
fn a_signer_that_restarts_between_commitment_and_package_costs_an_attempt() {
    let (_, shares) = committees().next().unwrap();
    let mut network = restart_after_commitment(&shares, 1);
    network.run();
    network.assert_signed();
}

#[test]
fn if_all_signers_restart_the_next_coordinator_succeeds() {
    let (_, shares) = committees().next().unwrap();
    let mut network = restart_after_commitment(&shares, 3);
    network.run_until(DEADLINE - 1);
    // All of the chosen owe a share that nobody can make any more.
    assert_eq!(network.failed.take().unwrap().absentees(), indices(1..=3));
    network.coordinate(index(1));
    network.run();
    network.assert_signed();
}

#[path = "frost/known_answer.rs"]
mod known_answer;
