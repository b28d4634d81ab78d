//! Signing under the driver: the first coordinator is dead, and nobody signs twice.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rand::rngs::OsRng;
use veil_committee::frost::{
    self, EvmSuite, GroupKeyShare, NonceRecord, Purpose, SessionContext, SigningContext,
    SigningError, SigningKeyId, SigningMachine, SigningSchedule, coordinator_at, dkg::Dkg,
};
use veil_node_storage::{
    archive::{Archive, Kind},
    retention::Retention,
};
use veil_protocol_spec::{
    Address, Attempt, ChainId, ClusterId, Epoch, KeccakDigest, Slot, Wire,
    identity::SecretIdentity, scheduling::UnixMillis,
};

use super::*;

fn key_shares(committee: Committee) -> Vec<Arc<GroupKeyShare>> {
    let mut round1 = BTreeMap::new();
    let mut secrets = Vec::new();
    for j in committee.participants() {
        let (secret, package) = Dkg::<EvmSuite>::start(committee, j, &mut OsRng).unwrap();
        secrets.push((j, secret));
        round1.insert(j, package);
    }
    let mut round2: BTreeMap<ParticipantIndex, BTreeMap<_, _>> = BTreeMap::new();
    let mut next = Vec::new();
    for (j, secret) in secrets {
        let others = round1.clone().into_iter().filter(|(i, _)| *i != j).collect();
        let (secret, outgoing) = secret.receive(&others).unwrap();
        for (to, package) in outgoing {
            round2.entry(to).or_default().insert(j, package);
        }
        next.push((j, secret));
    }
    next.into_iter()
        .map(|(j, secret)| Arc::new(secret.finish(&round2.remove(&j).unwrap_or_default()).unwrap()))
        .collect()
}

fn identity(j: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[j.get(); 32]).unwrap()
}

const PLACE: SigningContext = SigningContext {
    chain: ChainId(1),
    contract: Address([1; 20]),
    cluster: ClusterId([2; 32]),
    key: SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(1), slot: Slot(1) },
};

fn store(path: &Path) -> NonceStore {
    NonceStore::open(path, Slot(0)).unwrap()
}

fn session(group: &GroupKeyShare, committee: Committee) -> Arc<SessionContext> {
    let roster = committee.participants().map(|j| identity(j).public()).collect();
    Arc::new(SessionContext::new(PLACE, Arc::new(group.public().clone()), roster).unwrap())
}

const SCHEDULE: SigningSchedule = SigningSchedule {
    rotation: 100,
    timing: frost::Timing { commit: 5_000, share: 5_000, max_attempts: 4 },
    restarts: 0,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_coordinator_is_replaced_and_a_second_message_is_refused() {
    let committee = Committee::new(4).unwrap();
    let shares = key_shares(committee);
    let session = session(&shares[0], committee);
    let dead = coordinator_at(committee, Slot(1), 0);
    let folder = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::default();
    let message = KeccakDigest([7; 32]);
    let mut running = Vec::new();
    for share in shares.iter().filter(|share| share.index() != dead) {
        let me = share.index();
        let store = store(&folder.path().join(format!("{me}.redb")));
        let machine = SigningMachine::new(
            Arc::clone(&session),
            Arc::clone(share),
            identity(me),
            &store.records(&PLACE),
            SCHEDULE,
        );
        let (host, outcome) = NonceHost::new(store);
        let (transport, incoming) = network.of(me).open(Channel::Signing, &[]);
        let mut config = config(1);
        config.me = me;
        let driver = Driver::start(config, machine.unwrap(), host, transport, incoming);
        driver.with(move |m, now| m.authorise(message, &[], 50_000, now)).await.unwrap().unwrap();
        running.push((driver, outcome));
    }
    for (_, outcome) in &mut running {
        let outcome = in_time(outcome.wait_for(Option::is_some)).await.unwrap().clone();
        let completion = outcome.unwrap().unwrap();
        assert_eq!(completion.message, message);
        shares[0].public().verify(message.as_bytes(), &completion.signature).unwrap();
    }
    for (driver, _) in running {
        assert!(driver.finish(Duration::from_secs(5)).await.unwrap().error.is_none());
    }
    // After a restart the journal knows what was signed.
    for share in shares.iter().filter(|share| share.index() != dead) {
        let me = share.index();
        let store = store(&folder.path().join(format!("{me}.redb")));
        let mut machine = SigningMachine::new(
            Arc::clone(&session),
            Arc::clone(share),
            identity(me),
            &store.records(&PLACE),
            SCHEDULE,
        )
        .unwrap();
        let other = machine.authorise(KeccakDigest([8; 32]), &[], 50_000, 0);
        if store.records(&PLACE).is_empty() {
            assert_eq!(other, Ok(()), "it was not among the signers");
        } else {
            assert!(matches!(other, Err(SigningError::AlreadyAuthorised { .. })), "{other:?}");
            assert_eq!(machine.authorise(message, &[], 50_000, 0), Ok(()));
        }
    }
}

/// A session that does not know what another has signed in its place finds out before its share leaves.
#[test]
fn a_second_message_for_a_place_is_refused_whatever_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nonces.redb");
    let record = |message: u8, attempt: u32| NonceRecord {
        context: PLACE,
        message: KeccakDigest([message; 32]),
        coordinator: seat(1),
        attempt: Attempt(attempt),
        commitment: vec![message],
    };
    let nonces = store(&path);
    let [mut first, mut second] = [(); 2].map(|()| NonceHost::new(nonces.clone()).0);
    first.persist(&[record(7, 0)]).unwrap();
    let refused = second.persist(&[record(7, 1), record(8, 0)]).unwrap_err();
    let conflict = refused.inner().downcast_ref::<ConflictingNonce>();
    assert_eq!(conflict, Some(&ConflictingNonce(KeccakDigest([7; 32]))), "{refused}");
    second.persist(&[record(7, 2)]).unwrap();
    drop((first, second, nonces));
    let nonces = store(&path);
    let (mut again, _) = NonceHost::new(nonces.clone());
    assert!(again.persist(&[record(8, 0)]).is_err());
    assert_eq!(nonces.records(&PLACE), [record(7, 0), record(7, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_alone_signs_for_itself() {
    let committee = Committee::new(1).unwrap();
    let share = key_shares(committee).remove(0);
    let session = session(&share, committee);
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("nonces.redb"));
    let machine =
        SigningMachine::new(session, Arc::clone(&share), identity(seat(1)), &[], SCHEDULE).unwrap();
    let (host, mut outcome) = NonceHost::new(store.clone());
    let (transport, incoming) = MemoryNetwork::default().of(seat(1)).open(Channel::Signing, &[]);
    let config = DriverConfig::new(committee, seat(1));
    let driver = Driver::start(config, machine, host, transport, incoming);
    let message = KeccakDigest([7; 32]);
    driver.with(move |m, now| m.authorise(message, &[], 50_000, now)).await.unwrap().unwrap();
    let outcome = in_time(outcome.wait_for(Option::is_some)).await.unwrap().clone();
    let completion = outcome.unwrap().unwrap();
    share.public().verify(message.as_bytes(), &completion.signature).unwrap();
    assert_eq!(store.records(&PLACE).len(), 1);
}

/// What was signed in a certified slot is not in memory, is kept for a dispute, and is not signed anew,
/// also after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_signed_in_a_slot_whose_nonces_are_in_the_archive() {
    let committee = Committee::new(1).unwrap();
    let share = key_shares(committee).remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nonces.redb");
    let archive = folder.path().join("archive.redb");
    let archive = Archive::open(&archive, Retention::default()).unwrap();
    let sign = async |store: &NonceStore, message: u8| {
        let machine = SigningMachine::new(
            session(&share, committee),
            Arc::clone(&share),
            identity(seat(1)),
            &store.records(&PLACE),
            SCHEDULE,
        );
        let (host, mut outcome) = NonceHost::new(store.clone());
        let (transport, incoming) =
            MemoryNetwork::default().of(seat(1)).open(Channel::Signing, &[]);
        let config = DriverConfig::new(committee, seat(1));
        let driver = Driver::start(config, machine.unwrap(), host, transport, incoming);
        let message = KeccakDigest([message; 32]);
        driver.with(move |m, now| m.authorise(message, &[], 50_000, now)).await.unwrap().unwrap();
        let signed = in_time(outcome.wait_for(Option::is_some)).await.unwrap().clone();
        driver.kill().await.unwrap(); // only then is the journal free
        signed.unwrap().is_ok()
    };
    let nonces = store(&path);
    assert!(sign(&nonces, 7).await);
    let signed = nonces.records(&PLACE);
    nonces.prune(Slot(1), &archive, UnixMillis(0)).unwrap();
    assert_eq!(nonces.records(&PLACE), []);
    assert_eq!(archive.entries(Slot(1), Kind::Nonce).unwrap(), [signed[0].to_wire()]);
    assert!(!sign(&nonces, 8).await);
    drop(nonces);
    assert!(!sign(&store(&path), 8).await);
    assert_eq!(store(&path).records(&PLACE), []);
}
