//! One signer against a hand-driven coordinator.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use veil_committee_machine::EffectOf;
use veil_protocol_spec::{Address, ChainId, ClusterId, Committee, Epoch, Slot};

use super::*;
use crate::frost::{Dkg, Evidence, Purpose, SigningContext, SigningKeyId, dkg::Packages};

const MESSAGE: KeccakDigest = KeccakDigest([7; 32]);
const OTHER: KeccakDigest = KeccakDigest([8; 32]);
const DEADLINE: Millis = 1000;

fn index(i: u8) -> ParticipantIndex {
    ParticipantIndex::new(i).unwrap()
}

fn identity(i: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[i.get(); 32]).unwrap()
}

fn context(slot: u64) -> SigningContext {
    SigningContext {
        chain: ChainId(31337),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
        key: SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(1), slot: Slot(slot) },
    }
}

fn shares(n: u8) -> Vec<Arc<GroupKeyShare>> {
    let committee = Committee::new(n).unwrap();
    let (mut secrets, mut public) = (Vec::new(), Packages::new());
    for i in committee.participants() {
        let mut rng = ChaCha20Rng::seed_from_u64(i.get().into());
        let (secret, package) = Dkg::<EvmSuite>::start(committee, i, &mut rng).unwrap();
        secrets.push((i, secret));
        public.insert(i, package);
    }
    let mut round2 = BTreeMap::new();
    let mut inboxes: BTreeMap<_, Packages<_>> = BTreeMap::new();
    for (me, secret) in secrets {
        let mut others = public.clone();
        others.remove(&me);
        let (secret, outgoing) = secret.receive(&others).unwrap();
        round2.insert(me, secret);
        for (to, package) in outgoing {
            inboxes.entry(to).or_default().insert(me, package);
        }
    }
    let finish = |(me, secret): (_, crate::frost::dkg::Round2Secret)| {
        Arc::new(secret.finish(&inboxes.remove(&me).unwrap_or_default()).unwrap())
    };
    round2.into_iter().map(finish).collect()
}

struct Bench {
    session: Arc<SessionContext>,
    shares: Vec<Arc<GroupKeyShare>>,
}

impl Bench {
    fn new(n: u8) -> Self {
        let shares = shares(n);
        let group = Arc::new(shares[0].public().clone());
        let members = group.committee().participants().map(|i| identity(i).public()).collect();
        let session = Arc::new(SessionContext::new(context(5), group, members).unwrap());
        Self { session, shares }
    }

    fn signer(&self, i: u8, records: &[NonceRecord]) -> SigningSession {
        let share = self.shares[index(i).position()].clone();
        SigningSession::new(self.session.clone(), share, identity(index(i)), records).unwrap()
    }

    /// A message of coordinator 4.
    fn say(&self, attempt: u32, body: Body) -> SignedMessage {
        let four = index(4);
        let payload = Payload { coordinator: four, attempt: Attempt(attempt), from: four, body };
        self.session.seal(&identity(four), payload)
    }

    fn ask(&self, signer: &mut SigningSession, attempt: u32) -> Option<Vec<u8>> {
        let request = self.say(attempt, Body::Request { message: Some(MESSAGE) });
        assert_eq!(hand(signer, 4, &request, 0), Verdict::Valid);
        effects(signer).into_iter().find_map(|effect| match effect {
            Effect::Send { bytes, .. } => match body(&bytes) {
                Body::Commitment { commitment } => Some(commitment),
                _ => None,
            },
            _ => None,
        })
    }

    /// A package for members 1, 2, 3 with these commitments.
    fn package(&self, message: KeccakDigest, commitments: [&Vec<u8>; 3]) -> SignedMessage {
        let commitments = [1, 2, 3].map(index).into_iter().zip(commitments.map(Clone::clone));
        self.say(0, Body::Package { message, commitments: commitments.collect() })
    }
}

fn effects(signer: &mut SigningSession) -> Vec<EffectOf<SigningSession>> {
    core::iter::from_fn(|| signer.poll_effect()).collect()
}

fn hand(
    signer: &mut SigningSession,
    from: u8,
    message: &SignedMessage,
    now: Millis,
) -> SessionVerdict {
    signer.handle(index(from), &message.to_wire(), now)
}

fn body(bytes: &[u8]) -> Body {
    SignedMessage::from_wire(bytes).unwrap().payload.body
}

fn failed(error: SigningError) -> [EffectOf<SigningSession>; 1] {
    [Effect::Special(SessionEffect::Failed(error))]
}

/// Members 1, 2, 3 authorised and asked, with their commitments.
fn asked(bench: &Bench) -> (SigningSession, [Vec<u8>; 3]) {
    let mut signers = [1, 2, 3].map(|i| bench.signer(i, &[]));
    let commitments = signers.each_mut().map(|signer| {
        signer.authorise(MESSAGE, DEADLINE).unwrap();
        bench.ask(signer, 0).unwrap()
    });
    let [first, ..] = signers;
    (first, commitments)
}

#[test]
fn the_share_leaves_only_after_the_record_is_stored_and_only_once() {
    let bench = Bench::new(4);
    let (mut signer, [a, b, c]) = asked(&bench);
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    assert_eq!(hand(&mut signer, 4, &package, 1), Verdict::Valid);
    let [Effect::Persist { id, record }] = &effects(&mut signer)[..] else { panic!() };
    assert_eq!((record.message, &record.commitment), (MESSAGE, &a));
    assert!(effects(&mut signer).is_empty());
    signer.persisted(PersistId(99));
    assert!(effects(&mut signer).is_empty());
    signer.persisted(*id);
    let [Effect::Send { to, bytes }] = &effects(&mut signer)[..] else { panic!() };
    assert!(matches!(body(bytes), Body::Share { message: MESSAGE, .. }));
    assert_eq!(*to, index(4));
    signer.persisted(*id);
    assert!(effects(&mut signer).is_empty());

    // The same package again, and the same nonce in another package.
    let used = Verdict::Skip(Skip::NonceUsed);
    assert_eq!(hand(&mut signer, 4, &package, 1), used);
    let other = bench.package(MESSAGE, [&a, &c, &b]);
    assert_eq!(hand(&mut signer, 4, &other, 1), used);
    let request = bench.say(0, Body::Request { message: Some(MESSAGE) });
    assert_eq!(hand(&mut signer, 4, &request, 1), used);
    assert!(effects(&mut signer).is_empty());
}

#[test]
fn a_record_that_is_not_stored_ends_the_session_without_a_share() {
    let bench = Bench::new(4);
    let (mut signer, [a, b, c]) = asked(&bench);
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    assert_eq!(hand(&mut signer, 4, &package, 1), Verdict::Valid);
    effects(&mut signer);
    assert!(signer.persist_failed(PersistId(0)));
    assert_eq!(effects(&mut signer), failed(SigningError::NotPersisted));
    signer.persisted(PersistId(0));
    assert!(effects(&mut signer).is_empty());
}

#[test]
fn crafted_packages_are_refused_and_do_not_spend_the_nonce() {
    let bench = Bench::new(4);
    let (mut signer, [a, b, c]) = asked(&bench);
    let mut check = |package: SignedMessage, refusal| {
        assert_eq!(hand(&mut signer, 4, &package, 1), Verdict::Skip(refusal));
        assert!(effects(&mut signer).is_empty());
    };
    check(bench.package(MESSAGE, [&b, &a, &c]), Skip::CommitmentModified);
    check(bench.package(OTHER, [&a, &b, &c]), Skip::NotAuthorised { asked: OTHER });
    let others = vec![(index(2), b.clone()), (index(3), c.clone()), (index(4), a.clone())];
    let without_me = Body::Package { message: MESSAGE, commitments: others.clone() };
    check(bench.say(0, without_me), Skip::CommitmentMissing);
    let other_attempt = vec![(index(1), a.clone()), (index(2), b.clone()), (index(3), c.clone())];
    check(
        bench.say(1, Body::Package { message: MESSAGE, commitments: other_attempt.clone() }),
        Skip::NonceUsed,
    );

    // Provably wrong: too few signers, one twice, no points, not by the coordinator.
    let mut twice = other_attempt.clone();
    twice[1] = twice[0].clone();
    let mut no_point = other_attempt.clone();
    no_point[2].1[8] ^= 1;
    no_point[2].1.truncate(70);
    for commitments in [other_attempt[..2].to_vec(), twice, no_point] {
        let package = bench.say(0, Body::Package { message: MESSAGE, commitments });
        let Verdict::Fault(fault) = hand(&mut signer, 4, &package, 1) else { panic!() };
        assert_eq!(fault.culprit, index(4));
        assert_eq!(bench.session.convict(&fault.evidence), Ok(index(4)));
    }
    // The nonce is still there for the honest package.
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    assert_eq!(hand(&mut signer, 4, &package, 1), Verdict::Valid);
}

#[test]
fn only_authentic_messages_of_this_session_are_opened() {
    let bench = Bench::new(4);
    let mut signer = bench.signer(1, &[]);
    let request = bench.say(0, Body::Request { message: Some(MESSAGE) });
    let mut check = |from, message: &SignedMessage, skip| {
        assert_eq!(hand(&mut signer, from, message, 0), Verdict::Skip(skip));
    };
    check(3, &request, Skip::WrongSender);
    check(
        13,
        &SignedMessage {
            payload: Payload { from: index(13), ..request.payload.clone() },
            ..request.clone()
        },
        Skip::WrongSender,
    );
    let mut changed = request.clone();
    changed.payload.attempt = Attempt(1);
    check(4, &changed, Skip::BadSignature);
    let mut elsewhere = request.clone();
    elsewhere.key.slot = Slot(6);
    check(4, &elsewhere, Skip::OtherSession);
    let foreign = SigningContext { cluster: ClusterId([9; 32]), ..context(5) };
    let group = Arc::new(bench.session.group().clone());
    let members = group.committee().participants().map(|i| identity(i).public()).collect();
    let foreign = SessionContext::new(foreign, group, members).unwrap();
    let replayed = foreign.seal(&identity(index(4)), request.payload.clone());
    check(4, &replayed, Skip::BadSignature);
    let verdict = signer.handle(index(4), &[], 0);
    assert!(matches!(verdict, Verdict::Skip(Skip::Codec(_))), "{verdict:?}");
}

#[test]
fn a_second_message_for_the_slot_is_refused_even_after_a_restart() {
    let bench = Bench::new(4);
    let (mut signer, [a, b, c]) = asked(&bench);
    let refused = Err(SigningError::AlreadyAuthorised { authorised: MESSAGE, asked: OTHER });
    assert_eq!(signer.authorise(OTHER, DEADLINE), refused);
    assert_eq!(signer.authorise(MESSAGE, DEADLINE), Ok(()));
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    assert_eq!(hand(&mut signer, 4, &package, 1), Verdict::Valid);
    let [Effect::Persist { record, .. }] = &effects(&mut signer)[..] else { panic!() };
    let record = record.clone();
    drop(signer);

    let mut restarted = bench.signer(1, core::slice::from_ref(&record));
    assert_eq!(restarted.authorise(OTHER, DEADLINE), refused);
    assert_eq!(restarted.authorise(MESSAGE, DEADLINE), Ok(()));
    // The nonces of its former life are gone; a request gets new ones.
    assert_eq!(hand(&mut restarted, 4, &package, 2), Verdict::Skip(Skip::NonceUsed));
    assert_ne!(bench.ask(&mut restarted, 0).unwrap(), a);
    assert_eq!(hand(&mut restarted, 4, &package, 2), Verdict::Skip(Skip::CommitmentModified));

    // Records of other slots do not matter; two messages for one do.
    let elsewhere = NonceRecord { context: context(6), ..record.clone() };
    assert!(!record.conflicts_with(&elsewhere));
    assert_eq!(bench.signer(1, &[elsewhere]).authorise(OTHER, DEADLINE), Ok(()));
    let conflicting = NonceRecord { message: OTHER, ..record.clone() };
    assert!(record.conflicts_with(&conflicting));
    let share = bench.shares[0].clone();
    let journal = [record, conflicting];
    let broken = SigningSession::new(bench.session.clone(), share, identity(index(1)), &journal);
    assert_eq!(broken.unwrap_err(), SigningError::CorruptJournal);
}

#[test]
fn no_two_sessions_or_attempts_share_a_nonce() {
    let bench = Bench::new(4);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let mut signer = bench.signer(1, &[]);
        signer.authorise(MESSAGE, DEADLINE).unwrap();
        for attempt in 0..5 {
            let commitment = bench.ask(&mut signer, attempt).unwrap();
            assert!(points(&commitment).into_iter().all(|point| seen.insert(point)));
            // The same request again is answered with the same commitment.
            assert_eq!(bench.ask(&mut signer, attempt).unwrap(), commitment);
        }
        let stale = bench.say(0, Body::Request { message: Some(MESSAGE) });
        assert_eq!(hand(&mut signer, 4, &stale, 0), Verdict::Skip(Skip::Stale));
    }
}

fn points(commitment: &[u8]) -> [Vec<u8>; 2] {
    let parsed = round1::SigningCommitments::<EvmSuite>::deserialize(commitment).unwrap();
    [parsed.hiding(), parsed.binding()].map(|point| point.serialize().unwrap())
}

#[test]
fn early_requests_wait_for_the_members_own_authorisation() {
    let bench = Bench::new(4);
    let mut signer = bench.signer(1, &[]);
    assert_eq!(bench.ask(&mut signer, 0), None);
    signer.authorise(OTHER, DEADLINE).unwrap();
    assert_eq!(effects(&mut signer), []);
    assert_eq!(signer.poll_timeout(), Some(DEADLINE));
    let mut signer = bench.signer(1, &[]);
    assert_eq!(bench.ask(&mut signer, 0), None);
    signer.authorise(MESSAGE, DEADLINE).unwrap();
    assert!(matches!(effects(&mut signer)[..], [Effect::Send { .. }]));
}

#[test]
fn commitments_may_be_given_ahead_and_the_share_still_waits_for_the_authorisation() {
    let bench = Bench::new(4);
    let ahead = bench.say(0, Body::Request { message: None });
    let mut signers = [1, 2, 3].map(|i| bench.signer(i, &[]));
    let [a, b, c] = signers.each_mut().map(|signer| {
        assert_eq!(hand(signer, 4, &ahead, 0), Verdict::Valid);
        let [Effect::Send { bytes, .. }] = &effects(signer)[..] else { panic!() };
        let Body::Commitment { commitment } = body(bytes) else { panic!() };
        commitment
    });
    let [mut first, mut second, _] = signers;
    // Known to the coordinator, not to this member: nothing leaves and no nonce is spent.
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    for signer in [&mut first, &mut second] {
        assert_eq!(hand(signer, 4, &package, 1), Verdict::Valid);
        assert!(effects(signer).is_empty());
    }
    first.authorise(MESSAGE, DEADLINE).unwrap();
    let [Effect::Persist { record, .. }] = &effects(&mut first)[..] else { panic!() };
    assert_eq!((record.message, &record.commitment), (MESSAGE, &a));
    // A member that authorises something else signs nothing.
    second.authorise(OTHER, DEADLINE).unwrap();
    assert_eq!(effects(&mut second), []);
}

#[test]
fn the_deadline_ends_the_session() {
    let bench = Bench::new(4);
    let (mut signer, [a, b, c]) = asked(&bench);
    signer.handle_timeout(DEADLINE - 1);
    assert!(effects(&mut signer).is_empty());
    signer.handle_timeout(DEADLINE);
    assert_eq!(effects(&mut signer), failed(SigningError::Deadline));
    assert_eq!(signer.poll_timeout(), None);
    let package = bench.package(MESSAGE, [&a, &b, &c]);
    assert_eq!(hand(&mut signer, 4, &package, DEADLINE), Verdict::Skip(Skip::Over));
    assert_eq!(signer.authorise(MESSAGE, 2 * DEADLINE), Err(SigningError::Over));
}

#[test]
fn a_designated_decryptor_signs_under_the_same_equation() {
    let bench = Bench::new(1);
    let mut signer = bench.signer(1, &[]);
    signer.authorise(MESSAGE, DEADLINE).unwrap();
    let [Effect::Persist { id, record }] = &effects(&mut signer)[..] else { panic!() };
    assert_eq!(record.message, MESSAGE);
    signer.persisted(*id);
    let [Effect::Broadcast(result), Effect::Special(SessionEffect::Complete(completion))] =
        &effects(&mut signer)[..]
    else {
        panic!()
    };
    let group = bench.session.group();
    assert_eq!(group.verify(MESSAGE.as_bytes(), &completion.signature), Ok(()));
    assert!(group.verify(OTHER.as_bytes(), &completion.signature).is_err());
    // The broadcast completes another machine that has authorised the message, now or later.
    let mut other = bench.signer(1, &[]);
    assert_eq!(other.handle(index(1), result, 0), Verdict::Valid);
    other.authorise(MESSAGE, DEADLINE).unwrap();
    assert!(matches!(effects(&mut other)[..], [Effect::Special(SessionEffect::Complete(_))]));
}

#[test]
fn keys_of_another_group_or_member_are_refused() {
    let bench = Bench::new(4);
    let new = |share: &Arc<GroupKeyShare>, who| {
        SigningSession::new(bench.session.clone(), share.clone(), identity(index(who)), [])
    };
    assert_eq!(new(&bench.shares[0], 2).unwrap_err(), SigningError::WrongKey);
    assert_eq!(new(&shares(7)[0], 1).unwrap_err(), SigningError::WrongKey);
    let printed = format!("{:?}", new(&bench.shares[0], 1).unwrap());
    assert!(printed.contains("redacted"), "{printed}");
}

#[test]
fn two_shares_for_one_slot_convict_and_one_does_not() {
    let bench = Bench::new(4);
    let share = |message, share: Vec<u8>| {
        let package = Blake3Digest([0; 32]);
        bench.say(0, Body::Share { message, package, share })
    };
    let (first, second) = (share(MESSAGE, vec![1; 32]), share(OTHER, vec![1; 32]));
    let double = |first: &SignedMessage, second: &SignedMessage| {
        let (first, second) = (first.clone(), second.clone());
        bench.session.convict(&Evidence::DoubleShare { first, second })
    };
    assert_eq!(double(&first, &second), Ok(index(4)));
    assert!(double(&first, &share(MESSAGE, vec![2; 32])).is_err());
    assert!(double(&first, &bench.say(0, Body::Request { message: Some(OTHER) })).is_err());
    let mut forged = second.clone();
    forged.payload.attempt = Attempt(3);
    assert!(double(&first, &forged).is_err());
    assert!(bench.session.convict(&Evidence::Malformed(first)).is_err());
}
