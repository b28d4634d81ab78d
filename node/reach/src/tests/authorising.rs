//! Who is let in: every way not to be is named, whatever else holds.

use proptest::prelude::*;
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    reach::{
        Action, ExecWanted, LogsWanted, MOST_SECONDS, PortWanted, ReachRequest, Refusal,
        SignedReachRequest,
    },
    registry::Delegation,
};

use super::*;
use crate::authorise::{authorise, port, stays};

fn request(by: u8, action: Action) -> ReachRequest {
    ReachRequest {
        scope: scope(1),
        worker: peer(1),
        client: peer(5),
        account: key(by).address(),
        operator: key(1).address(),
        job: JOB,
        replica: REPLICA,
        action,
        expires: NOW + 60,
    }
}

fn logs() -> Action {
    Action::Logs(LogsWanted::default())
}

fn exec() -> Action {
    let command = vec!["id".to_owned()];
    Action::Exec(ExecWanted { command, input: false, terminal: None })
}

fn signed(by: u8, request: ReachRequest) -> SignedReachRequest {
    let signature = key(by).sign(&request.digest()).unwrap();
    SignedReachRequest::new(request, &signature)
}

fn judge(facts: &Facts, signed: &SignedReachRequest) -> Result<(), Refusal> {
    let world = TestWorld::new(facts.clone());
    futures::executor::block_on(authorise(&*world, peer(5), signed))
}

fn with(change: impl FnOnce(&mut ReachRequest)) -> Result<(), Refusal> {
    let mut request = request(1, logs());
    change(&mut request);
    judge(&Facts::default(), &signed(1, request))
}

fn at(change: impl FnOnce(&mut Facts), action: Action) -> Result<(), Refusal> {
    let mut facts = Facts::default();
    change(&mut facts);
    judge(&facts, &signed(1, request(1, action)))
}

#[test]
fn the_operator_of_the_job_is_let_in_and_every_other_case_has_its_name() {
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|of| of.expires = NOW), Ok(()));
    assert_eq!(with(|of| of.scope = scope(2)), Err(Refusal::OtherCluster));
    assert_eq!(with(|of| of.worker = peer(2)), Err(Refusal::OtherWorker));
    // Replayed in another session, by the entry node that has recorded it.
    assert_eq!(with(|of| of.client = peer(6)), Err(Refusal::OtherClient));
    assert_eq!(with(|of| of.expires = NOW - 1), Err(Refusal::Expired));
    assert_eq!(with(|of| of.expires = NOW + MOST_SECONDS + 1), Err(Refusal::TooLong));
    assert_eq!(with(|of| of.account = key(3).address()), Err(Refusal::Signature));
    assert_eq!(with(|of| of.job = Blake3Digest([8; 32])), Err(Refusal::UnknownJob));
    assert_eq!(with(|of| of.replica = ReplicaIndex(3)), Err(Refusal::NotHere));
    let stranger = ReachRequest { operator: key(3).address(), ..request(3, logs()) };
    assert_eq!(judge(&Facts::default(), &signed(3, stranger)), Err(Refusal::OtherOperator));
    let submitted = |facts: &mut Facts| facts.submission.as_mut().unwrap().cancelled = true;
    assert_eq!(at(submitted, logs()), Err(Refusal::Stopped));
    assert_eq!(at(|facts| facts.place = Place::Elsewhere, logs()), Err(Refusal::NotHere));
    assert_eq!(at(|facts| facts.place = Place::EndedHere, logs()), Ok(()));
    assert_eq!(at(|facts| facts.place = Place::EndedHere, exec()), Err(Refusal::NotHere));
    assert_eq!(at(|facts| facts.exec = false, exec()), Err(Refusal::ExecOff));
    assert_eq!(at(|facts| facts.exec = false, logs()), Ok(()));
    assert_eq!(at(|_| {}, exec()), Ok(()));
    let nothing = Action::Exec(ExecWanted { command: Vec::new(), input: false, terminal: None });
    assert_eq!(at(|_| {}, nothing), Err(Refusal::Malformed));
}

#[test]
fn a_delegate_is_let_in_while_the_chain_says_so() {
    let by_delegate = |delegation| {
        let facts = Facts { delegation, ..Facts::default() };
        judge(&facts, &signed(2, request(2, logs())))
    };
    assert_eq!(by_delegate(Ok(Delegation::Until(NOW))), Ok(()));
    for none in [
        Delegation::Until(NOW - 1),
        Delegation::Never,
        Delegation::Expired(7),
        Delegation::Revoked(7),
    ] {
        assert_eq!(by_delegate(Ok(none)), Err(Refusal::NotDelegated), "{none:?}");
    }
    assert_eq!(by_delegate(Err("the chain is silent".to_owned())), Err(Refusal::NotNow));
}

#[test]
fn a_stranger_learns_nothing_of_jobs() {
    // Whatever is true of the job, somebody else's signature is refused for being that.
    for change in [
        |facts: &mut Facts| facts.submission = None,
        |facts: &mut Facts| facts.place = Place::Elsewhere,
        |facts: &mut Facts| facts.exec = false,
    ] {
        let mut facts = Facts::default();
        change(&mut facts);
        assert_eq!(judge(&facts, &signed(3, request(1, exec()))), Err(Refusal::Signature));
    }
}

#[test]
fn ports_are_found_by_name_and_taken_by_number() {
    let world = TestWorld::new(Facts::default());
    let named = |name: &str| port(&*world, &JOB, &PortWanted::Named(name.parse().unwrap()));
    assert_eq!(named("http"), Ok(8080));
    assert_eq!(named("dns"), Err(Refusal::Datagrams));
    assert_eq!(named("other"), Err(Refusal::NoPort));
    // Also one that the job does not name, as with kubectl.
    assert_eq!(port(&*world, &JOB, &PortWanted::Number(7.try_into().unwrap())), Ok(7));
}

proptest! {
    /// A signature holds for what was signed and nothing else: any byte of a signed request that is changed is refused.
    #[test]
    fn no_changed_byte_is_let_in(place: prop::sample::Index, change in 1_u8..) {
        use veil_protocol_spec::Wire as _;
        let mut bytes = signed(1, request(1, exec())).to_wire();
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        if let Ok(changed) = SignedReachRequest::from_wire(&bytes) {
            prop_assert!(judge(&Facts::default(), &changed).is_err(), "byte {place}");
        }
    }

    /// What is let in stays until the job or its place changes, and no longer.
    #[test]
    fn what_is_let_in_stays_only_while_it_would_be_let_in(
        cancelled: bool, known: bool, elsewhere: bool, later in 0_u64..1_000_000,
    ) {
        let mut facts = Facts { now: NOW + later, ..Facts::default() };
        facts.submission = facts.submission.filter(|_| known);
        if let Some(of) = &mut facts.submission {
            of.cancelled = cancelled;
        }
        if elsewhere {
            facts.place = Place::Elsewhere;
        }
        let stays = stays(&*TestWorld::new(facts), &request(1, logs()));
        prop_assert_eq!(stays.is_ok(), known && !cancelled && !elsewhere);
    }
}
