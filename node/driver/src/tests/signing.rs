//! Signing under the driver: the first coordinator is dead, and nobody signs twice.

use std::{collections::BTreeMap, sync::Arc};

use rand::rngs::OsRng;
use veil_committee::frost::{
    self, EvmSuite, GroupKeyShare, Purpose, SessionContext, SigningContext, SigningError,
    SigningKeyId, SigningMachine, SigningSchedule, coordinator_at, dkg::Dkg,
};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeccakDigest, Slot, identity::SecretIdentity,
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

fn session(group: &GroupKeyShare, committee: Committee) -> Arc<SessionContext> {
    let key = SigningKeyId { purpose: Purpose::Certificate, epoch: Epoch(1), slot: Slot(1) };
    let context = SigningContext {
        chain: ChainId(1),
        contract: Address([1; 20]),
        cluster: ClusterId([2; 32]),
        key,
    };
    let roster = committee.participants().map(|j| identity(j).public()).collect();
    Arc::new(SessionContext::new(context, Arc::new(group.public().clone()), roster).unwrap())
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
        let store = NonceStore::open(&folder.path().join(format!("{me}.redb"))).unwrap();
        let machine = SigningMachine::new(
            Arc::clone(&session),
            Arc::clone(share),
            identity(me),
            &store.records(),
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
        let store = NonceStore::open(&folder.path().join(format!("{me}.redb"))).unwrap();
        let mut machine = SigningMachine::new(
            Arc::clone(&session),
            Arc::clone(share),
            identity(me),
            &store.records(),
            SCHEDULE,
        )
        .unwrap();
        let other = machine.authorise(KeccakDigest([8; 32]), &[], 50_000, 0);
        if store.records().is_empty() {
            assert_eq!(other, Ok(()), "it was not among the signers");
        } else {
            assert!(matches!(other, Err(SigningError::AlreadyAuthorised { .. })), "{other:?}");
            assert_eq!(machine.authorise(message, &[], 50_000, 0), Ok(()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_alone_signs_for_itself() {
    let committee = Committee::new(1).unwrap();
    let share = key_shares(committee).remove(0);
    let session = session(&share, committee);
    let folder = tempfile::tempdir().unwrap();
    let store = NonceStore::open(&folder.path().join("nonces.redb")).unwrap();
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
    assert_eq!(store.records().len(), 1);
}
