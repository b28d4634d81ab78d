//! Key generation, and signing by n members in the simulated world, with silent and faulty ones; and
//! the known answer that the contracts' tests verify too.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee::frost::{
    Completion, Coordinator, Dkg, EvmSuite, GroupKeyShare, NonceRecord, Purpose, SessionContext,
    SessionEffect, SignedMessage, SigningContext, SigningEffect, SigningError, SigningKeyId,
    SigningMachine, SigningSchedule, SigningSession, Timing, dkg::Packages, wire::Body,
};
use veil_committee_machine::{Effect, Machine, Millis, Verdict, VerdictOf};
use veil_committee_world::{Conditions, Crash, Host, Mail, Physics, Schedule, When, World};
use veil_protocol_spec::{
    Address, Attempt, ChainId, ClusterId, Committee, Epoch, KeccakDigest, ParticipantIndex, Slot,
    Wire, identity::SecretIdentity,
};

const MESSAGE: KeccakDigest = KeccakDigest([0x5a; 32]);
const TIMING: Timing = Timing { commit: 100, share: 100, max_attempts: 14 };
const DEADLINE: Millis = 10_000;
/// Long after any deadline for a share.
const LATE: Millis = 1_000;

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

/// What surrounds the machines of one session.
struct Members {
    session: Arc<SessionContext>,
    shares: Vec<Arc<GroupKeyShare>>,
    schedule: SigningSchedule,
    plans: BTreeMap<ParticipantIndex, Plan>,
    /// When they learn the message. If that is later than at once, the first coordinator gathers
    /// commitments ahead.
    known_at: Millis,
    /// Whom that coordinator knows to be ready then.
    ready: Vec<ParticipantIndex>,
    /// How many of its first requests go missing.
    lost: usize,
    conditions: Conditions,
    crashes: Vec<Crash<()>>,
    journals: BTreeMap<ParticipantIndex, Vec<NonceRecord>>,
    /// What was sent: when, by whom, to whom, what.
    sent: Vec<(Millis, ParticipantIndex, ParticipantIndex, Body)>,
    signed: BTreeMap<ParticipantIndex, Completion>,
    culprits: BTreeSet<ParticipantIndex>,
    /// How coordinators failed.
    failed: Vec<SigningError>,
}

impl Members {
    /// The first coordinator is `first`; the others' turn never comes.
    fn new(shares: &[Arc<GroupKeyShare>], first: usize, plans: &[(usize, Plan)]) -> Self {
        let group = Arc::new(shares[0].public().clone());
        // The first turn is that of the member at the slot's position.
        let slot = Slot(index(first).position() as u64);
        let key = SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(3), slot };
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        let context = SigningContext { chain: ChainId(31337), contract, cluster, key };
        let members = group.committee().participants().map(|i| identity(i).public()).collect();
        Self {
            session: Arc::new(SessionContext::new(context, group, members).unwrap()),
            shares: shares.to_vec(),
            schedule: SigningSchedule { rotation: 2 * DEADLINE, timing: TIMING, restarts: 0 },
            plans: plans.iter().map(|(i, plan)| (index(*i), *plan)).collect(),
            known_at: 0,
            ready: Vec::new(),
            lost: 0,
            conditions: Conditions::INSTANT,
            crashes: Vec::new(),
            journals: BTreeMap::new(),
            sent: Vec::new(),
            signed: BTreeMap::new(),
            culprits: BTreeSet::new(),
            failed: Vec::new(),
        }
    }

    fn plan(&self, i: ParticipantIndex) -> Plan {
        self.plans.get(&i).copied().unwrap_or(Plan::Honest)
    }

    /// Runs the session until nothing is left to do.
    fn run(self) -> Self {
        let (committee, crashes) = (self.session.committee(), self.crashes.clone());
        let physics = Physics { conditions: self.conditions.clone(), ..Physics::INSTANT };
        World::new(self, committee, physics, crashes).run().host
    }

    /// Everybody that listens has the one valid signature, and its signers are on record.
    fn assert_signed(&self) {
        assert_eq!(self.failed, []);
        assert_eq!(self.signed.len(), self.session.committee().n());
        let group = self.session.group();
        for completion in self.signed.values() {
            assert_eq!(completion.message, MESSAGE);
            assert_eq!(group.verify(MESSAGE.as_bytes(), &completion.signature), Ok(()));
        }
        let collected = self.signed.values().find(|completion| !completion.shares.is_empty());
        let needed = self.session.committee().signing_threshold().get();
        assert_eq!(collected.unwrap().shares.len(), needed);
        let commitments = self.journals.values().flatten().map(|record| &record.commitment);
        let count = commitments.clone().count();
        assert_eq!(commitments.collect::<BTreeSet<_>>().len(), count, "a nonce was used twice");
    }
}

impl Host for Members {
    type Machine = SigningMachine;
    type Moment = ();

    fn boot(&mut self, me: ParticipantIndex, world: &mut Schedule<Self>) -> Option<SigningMachine> {
        let share = Arc::clone(&self.shares[me.position()]);
        let journal = self.journals.get(&me).into_iter().flatten();
        let session = Arc::clone(&self.session);
        if self.known_at > 0 {
            world.input(me, 0, SigningMachine::prepare);
        }
        let ready = self.ready.clone();
        world.input(me, self.known_at - world.now(), move |machine, now| {
            machine.authorise(MESSAGE, &ready, DEADLINE, now).unwrap();
        });
        Some(SigningMachine::new(session, share, identity(me), journal, self.schedule).unwrap())
    }

    fn store(&mut self, me: ParticipantIndex, record: NonceRecord) {
        let record = NonceRecord::from_wire(&record.to_wire()).unwrap();
        self.journals.entry(me).or_default().push(record);
    }

    fn special(&mut self, me: ParticipantIndex, effect: SigningEffect, _: &mut Schedule<Self>) {
        match effect {
            SigningEffect::Complete(completion) => {
                assert!(self.signed.insert(me, *completion).is_none());
            }
            SigningEffect::CoordinatorFailed(error) => self.failed.push(error),
            SigningEffect::Failed(_) => {}
        }
    }

    /// Sends, as the sender's plan has it.
    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let Mail { from, to, .. } = mail;
        let mut payload = SignedMessage::from_wire(&mail.bytes).unwrap().payload;
        self.sent.push((world.now(), from, to, payload.body.clone()));
        match (self.plan(from), &mut payload.body) {
            (Plan::Silent, _) | (Plan::CommitsOnly, Body::Share { .. }) => return,
            (Plan::Late, Body::Share { .. }) => return world.post(mail, LATE),
            (Plan::BadShare, Body::Share { share, .. }) => share[31] ^= 1,
            (Plan::BadCommitment, Body::Commitment { commitment }) => *commitment = vec![2; 71],
            (_, Body::Request { .. }) if self.lost > 0 => {
                self.lost -= 1;
                return;
            }
            _ => return world.post(mail, 0),
        }
        let bytes = self.session.seal(&identity(from), payload).to_wire().into();
        world.post(Mail { bytes, ..mail }, 0);
    }

    fn verdict(&mut self, _: &Mail, verdict: VerdictOf<SigningMachine>) {
        if let Verdict::Fault(fault) = verdict {
            assert_ne!(self.plan(fault.culprit), Plan::Honest);
            assert_eq!(self.session.convict(&fault.evidence), Ok(fault.culprit));
            self.culprits.insert(fault.culprit);
        }
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
                let members = Members::new(&shares, committee.n(), &plans).run();
                members.assert_signed();
                let provable = matches!(plan, BadShare | BadCommitment);
                let expected = if provable { indices(1..=faulty) } else { Vec::new() };
                assert!(members.culprits.iter().eq(&expected), "{:?}", members.culprits);
            }
        }
    }
}

#[test]
fn mixed_faults_are_survived_too() {
    use Plan::{BadShare, CommitsOnly, Late, Silent};
    let shares = generate(Committee::new(13).unwrap(), 2);
    let plans = [(1, BadShare), (2, CommitsOnly), (5, Silent), (9, Late)];
    let members = Members::new(&shares, 3, &plans).run();
    members.assert_signed();
    assert!(members.culprits.iter().eq(&[index(1)]));
}

#[test]
fn more_than_t_failures_are_named() {
    for (committee, shares) in committees() {
        let (n, t) = (committee.n(), committee.max_faulty().get());
        let bad = (1..=t).map(|i| (i, Plan::BadShare));
        let silent = (t + 1..=2 * t).map(|i| (i, Plan::CommitsOnly));
        let members = Members::new(&shares, n, &bad.chain(silent).collect::<Vec<_>>()).run();
        let [error] = &members.failed[..] else { panic!("{:?}", members.failed) };
        assert!(matches!(error, SigningError::TooFewSigners { .. }));
        assert_eq!(error.culprits(), indices(1..=t));
        assert_eq!(error.absentees(), indices(t + 1..=2 * t));
        assert!(members.signed.is_empty());

        let silent: Vec<_> = (1..=t + 1).map(|i| (i, Plan::Silent)).collect();
        let members = Members::new(&shares, n, &silent).run();
        let [error] = &members.failed[..] else { panic!("{:?}", members.failed) };
        assert!(error.culprits().is_empty());
        assert_eq!(error.absentees(), indices(1..=t + 1));
    }
}

#[test]
fn attempts_are_bounded() {
    let (committee, shares) = committees().nth(1).unwrap();
    let mut members = Members::new(&shares, committee.n(), &[(1, Plan::BadShare)]);
    members.schedule.timing.max_attempts = 1;
    let (culprits, absentees) = (indices([1]), Vec::new());
    let expected = SigningError::OutOfAttempts { attempts: 1, culprits, absentees };
    assert_eq!(members.run().failed, [expected]);
}

#[test]
fn another_coordinator_takes_over_and_several_do_not_disturb_each_other() {
    for (committee, shares) in committees() {
        let mut members = Members::new(&shares, 2, &[(2, Plan::Silent)]); // nobody hears it
        members.schedule.rotation = 500;
        assert_eq!(members.run().signed.len(), committee.n());

        let mut members = Members::new(&shares, 2, &[]);
        // The second turn comes while the first coordinator waits, and the first not again meanwhile.
        members.conditions.latency = (5, 10);
        members.schedule.rotation = 15;
        let members = members.run();
        members.assert_signed();
        let asks = |i| {
            let is_request = |body: &Body| matches!(body, Body::Request { .. });
            members.sent.iter().any(|(_, from, _, body)| *from == index(i) && is_request(body))
        };
        assert!(asks(2) && asks(3));
    }
}

#[test]
fn with_commitments_gathered_ahead_one_round_trip_is_left() {
    for (committee, shares) in committees() {
        let (n, threshold) = (committee.n(), committee.signing_threshold().get());
        // Whoever is known to be ready signs, though others have committed too.
        let ready = indices(n - threshold + 1..=n);
        let mut members = Members::new(&shares, n, &[]);
        (members.known_at, members.ready) = (50, ready.clone());
        let members = members.run();
        members.assert_signed();
        let is_first_round =
            |body: &Body| matches!(body, Body::Request { .. } | Body::Commitment { .. });
        assert!(members.sent.iter().all(|(now, .., body)| is_first_round(body) == (*now == 0)));
        let packages =
            members.sent.iter().filter(|(.., body)| matches!(body, Body::Package { .. }));
        // The coordinator has its own without sending it.
        assert!(packages.map(|(_, _, to, _)| to).eq(&ready[..threshold - 1]));
        assert!(members.journals.keys().eq(&ready));
    }
}

#[test]
fn commitments_that_got_lost_are_asked_for_again_with_and_without_a_message() {
    let (committee, shares) = committees().next().unwrap();
    for wait in [1, TIMING.commit + 1] {
        let mut members = Members::new(&shares, committee.n(), &[]);
        (members.known_at, members.lost) = (wait, 2);
        members.run().assert_signed();
    }
}

#[test]
fn a_group_of_one_signs_through_the_same_calls() {
    let shares = generate(Committee::new(1).unwrap(), 1);
    let (me, members) = (index(1), Members::new(&shares, 1, &[]).run());
    let completion = &members.signed[&me];
    let group = members.session.group();
    assert_eq!(group.verify(MESSAGE.as_bytes(), &completion.signature), Ok(()));

    // A coordinator takes its signature as any other's.
    let (session, share) = (&members.session, Arc::clone(&shares[0]));
    let mut signer = SigningSession::new(Arc::clone(session), share, identity(me), []).unwrap();
    signer.authorise(MESSAGE, DEADLINE).unwrap();
    let Some(Effect::Persist { id, .. }) = signer.poll_effect() else { panic!() };
    signer.persisted(id);
    let Some(Effect::Broadcast(bytes)) = signer.poll_effect() else { panic!() };
    let (session, identity, attempt) = (Arc::clone(session), identity(me), Attempt(0));
    let mut coordinator =
        Coordinator::start(session, me, identity, MESSAGE, attempt, TIMING, 0).unwrap();
    assert_eq!(coordinator.handle(me, &bytes, 0), Verdict::Valid);
    let effect = core::iter::from_fn(|| coordinator.poll_effect()).last();
    let Some(Effect::Special(SessionEffect::Complete(collected))) = effect else { panic!() };
    assert_eq!(group.verify(MESSAGE.as_bytes(), &collected.signature), Ok(()));
}

/// Members 1 to `restarting` answer the first request, then lose what is not on disk.
fn restart_after_commitment(members: &mut Members, restarting: usize) {
    let crash = |i| Crash { participant: index(i), at: When::AfterEffects(1), away: Some(0) };
    members.crashes = (1..=restarting).map(crash).collect();
}

#[test]
fn a_signer_that_restarts_between_commitment_and_package_costs_an_attempt() {
    let (_, shares) = committees().next().unwrap();
    let mut members = Members::new(&shares, 4, &[]);
    restart_after_commitment(&mut members, 1);
    let members = members.run();
    members.assert_signed();
    let attempts = members
        .sent
        .iter()
        .filter(|(_, _, to, body)| *to == index(2) && matches!(body, Body::Request { .. }));
    assert_eq!(attempts.count(), 2);
}

#[test]
fn if_all_signers_restart_the_next_coordinator_succeeds() {
    let (_, shares) = committees().next().unwrap();
    let mut members = Members::new(&shares, 4, &[]);
    restart_after_commitment(&mut members, 3);
    (members.known_at, members.ready) = (50, indices(1..=3));
    members.schedule.rotation = 1_000;
    let mut members = members.run();
    // All of the chosen owe a share that nobody can make any more.
    assert_eq!(members.failed.remove(0).absentees(), indices(1..=3));
    members.assert_signed();
}

#[path = "frost/known_answer.rs"]
mod known_answer;
