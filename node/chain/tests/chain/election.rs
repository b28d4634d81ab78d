//! The life of an elected cluster: a committee drawn by a proven prevrandao, its key, a hundred
//! certificates, the next committee, an absent member, an equivocation.

use std::collections::BTreeSet;

use veil_contracts::{
    committee_election::CommitteeElection::CommitteeElectionErrors as ElectionErrors,
    disputes::Disputes::DisputesErrors,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as CeremonyErrors,
};
use veil_node_chain::{
    AttemptStatus, Challenges, ClusterSettings, Decision, ElectedCommittee, ElectionStatus,
    Endorsements, KeyPublication, NodeRegistration, Refusal, absence_digest,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, ClusterId, Committee, Epoch, KeccakDigest, ParticipantIndex, PeerIdHash,
    PublicIdentity, ReplicaIndex, Slot,
    identity::SecretIdentity,
    scheduling::{Assignment, Assignments, CertificateBody, CertificateVote, Outcome},
};

use crate::support::{Group, MEMBER, World, identity, refusal};

const MEMBERS: u8 = 10;
const ETHER: u128 = 1_000_000_000_000_000_000;

/// The identity behind a peer.
fn identity_of(peer: &PeerIdHash) -> SecretIdentity {
    let all = (1..=MEMBERS).map(identity);
    all.into_iter().find(|known| PeerIdHash::of(&known.public()) == *peer).unwrap()
}

fn seat(i: u8) -> ParticipantIndex {
    ParticipantIndex::new(i).unwrap()
}

/// Ten members with stake, in three organisations, of which none may have more than three of the six
/// seats.
async fn elected_cluster() -> World {
    let mut world = World::new(4).await;
    let settings = ClusterSettings {
        salt: [1; 32],
        standbys: 2,
        seats_per_organisation: 3,
        elected: true,
        member_stake: ETHER,
        policy: b"spread".to_vec(),
        ..ClusterSettings::new(Committee::new(4).unwrap())
    };
    world.cluster = world.admin.register_cluster(&settings).await.unwrap();
    assert_eq!(world.admin.cluster(world.cluster).await.unwrap().standbys, 2);
    for i in 1..=MEMBERS {
        let registration = NodeRegistration {
            organisation: format!("organisation {}", i % 3).parse().ok(),
            stake: ETHER * u128::from(i),
            ..world.registration(MEMBER)
        };
        world.admin.register_node(&registration, &identity(i)).await.unwrap();
    }
    world
}

async fn elect(world: &World, epoch: u64) -> ElectedCommittee {
    let (cluster, epoch) = (world.cluster, Epoch(epoch));
    let anyone = world.account(5);
    let mined = anyone.request_election(cluster, epoch, false).await.unwrap();
    let election = anyone.election(cluster, epoch).await.unwrap();
    assert_eq!(election.status, ElectionStatus::Requested);
    assert!(election.random_block > mined.block, "not there yet when it was requested");
    let early = refusal(anyone.seal_election(cluster, epoch).await);
    assert!(matches!(early, Refusal::Election(ElectionErrors::TooEarly(_))), "{early:?}");
    assert!(early.to_string().contains("veil chain elect seal"), "{early}");
    world.mine(3).await;
    let mined = anyone.seal_election(cluster, epoch).await.unwrap();
    eprintln!("gas of seal, 4 seats and 2 standbys of 10: {}", mined.gas);
    let committee = anyone.committee(cluster, epoch).await.unwrap().unwrap();
    assert_eq!((committee.seats.len(), committee.standbys.len()), (4, 2));
    assert!(anyone.verify_election(cluster, epoch).await.unwrap(), "the draw off chain");
    let drawn: BTreeSet<_> = committee.seats.iter().chain(&committee.standbys).collect();
    assert_eq!(drawn.len(), 6, "nobody twice");
    committee
}

/// All signatures for a key of a roster.
fn endorse(
    publication: &KeyPublication,
    roster: &[PeerIdHash],
    group: &Group,
) -> (Vec<PublicIdentity>, Endorsements) {
    let digest = publication.member_digest();
    let identities: Vec<_> = roster.iter().map(identity_of).collect();
    let endorsements = Endorsements {
        members: identities.iter().map(|identity| identity.sign(&digest)).collect(),
        possession: group.sign(publication.possession_digest()),
    };
    (identities.iter().map(SecretIdentity::public).collect(), endorsements)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_election_to_a_slashed_equivocator() {
    let world = elected_cluster().await;
    let (admin, cluster) = (&world.admin, world.cluster);
    let none = refusal(admin.propose_ceremony(&world.proposal(0, 0).await).await);
    assert!(matches!(none, Refusal::Ceremony(CeremonyErrors::NoCommittee(_))), "{none:?}");

    // A committee of four, and its key.
    let first = elect(&world, 0).await;
    let group = Group::generate(world.committee);
    admin.propose_ceremony(&world.proposal(0, 0).await).await.unwrap();
    let attempt = admin.ceremony_attempt(cluster, Epoch(0), Attempt(0)).await.unwrap().unwrap();
    assert_eq!(attempt.roster, first.seats);
    let publication = world.publication(0, 0, &group);
    let (roster, endorsements) = endorse(&publication, &first.seats, &group);
    let mined = world.account(7).publish_key(&publication, &roster, &endorsements).await.unwrap();
    eprintln!("gas of publish, n = 4, elected: {}", mined.gas);

    // A hundred certificates with one assignment each, in order.
    let mut previous = CertificateBody::NO_PREVIOUS;
    let mut bodies = Vec::new();
    for i in 0..100_u64 {
        let assignment = Assignment {
            job: Blake3Digest([i as u8; 32]),
            replica: ReplicaIndex(0),
            outcome: Outcome::Node(first.seats[0]),
        };
        let mut body = world.body(0, i + 1, previous);
        body.assignments_root = Assignments::try_from(vec![assignment]).unwrap().tree().root();
        admin.anchor(&group.certify(body)).await.unwrap();
        previous = body.hash();
        bodies.push(body);
    }
    let head = admin.head(cluster).await.unwrap().unwrap();
    assert_eq!((head.count, head.hash, head.slot), (100, previous, Slot(100)));
    let anchored = admin.anchored_certificates(cluster).await.unwrap();
    let hashes: Vec<_> = anchored.iter().map(|anchored| anchored.hash).collect();
    assert_eq!(hashes, bodies.iter().map(CertificateBody::hash).collect::<Vec<_>>());

    // The second committee's first attempt fails by one member's absence; three others say so, and a
    // standby takes the seat.
    let second = elect(&world, 1).await;
    admin.propose_ceremony(&world.proposal(1, 0).await).await.unwrap();
    let absent = seat(2);
    let scope = admin.scope(cluster);
    let place = (Epoch(1), Attempt(0));
    let digest = absence_digest(&scope, place, absent);
    let witness = |i: u8| {
        let identity = identity_of(&second.seats[usize::from(i) - 1]);
        (seat(i), identity.public(), identity.sign(&digest))
    };
    let witnesses = [witness(1), witness(3)]; // t+1 of them
    let open = refusal(admin.replace_seat(cluster, place, absent, &witnesses).await);
    assert!(matches!(open, Refusal::Ceremony(CeremonyErrors::AttemptNotFailed(_))), "{open:?}");
    world.pass(4000).await;
    let few = refusal(admin.replace_seat(cluster, place, absent, &witnesses[..1]).await);
    assert!(matches!(few, Refusal::Ceremony(CeremonyErrors::TooFewAbsences(_))), "{few:?}");
    admin.replace_seat(cluster, place, absent, &witnesses).await.unwrap();
    admin.propose_ceremony(&world.proposal(1, 1).await).await.unwrap();
    let attempt = admin.ceremony_attempt(cluster, Epoch(1), Attempt(1)).await.unwrap().unwrap();
    let mut expected = second.seats.clone();
    expected[1] = second.standbys[0];
    assert_eq!(attempt.roster, expected);
    // The failed attempt has harmed nothing.
    let failed = admin.ceremony_attempt(cluster, Epoch(1), Attempt(0)).await.unwrap().unwrap();
    assert_eq!(failed.status, AttemptStatus::Expired);
    assert_eq!(admin.current_epoch(cluster).await.unwrap(), Some(Epoch(0)));

    // Its key needs the first group's signature, by FROST.
    let next = Group::generate(world.committee);
    let publication = world.publication(1, 1, &next);
    let (roster, endorsements) = endorse(&publication, &expected, &next);
    admin.publish_key(&publication, &roster, &endorsements).await.unwrap();
    assert_eq!(admin.current_epoch(cluster).await.unwrap(), Some(Epoch(0)), "ready, no more");
    let refused = refusal(world.activate(&publication, &next).await);
    let handover = CeremonyErrors::WrongHandoverSignature(Default::default());
    assert_eq!(refused, Refusal::Ceremony(handover));
    let refused = admin.activate_key(cluster, Epoch(1), KeccakDigest([9; 32]), None).await;
    assert!(matches!(refusal(refused), Refusal::Ceremony(CeremonyErrors::NotTheHead(_))));
    world.activate(&publication, &group).await.unwrap();
    assert_eq!(admin.current_epoch(cluster).await.unwrap(), Some(Epoch(1)));
    let late = world.body(0, 101, previous);
    assert!(admin.anchor(&group.certify(late)).await.is_err(), "an old key anchors nothing");
    let body = world.body(1, 101, previous);
    admin.anchor(&next.certify(body)).await.unwrap();

    // A member votes for two certificates of one slot.
    let culprit = identity_of(&expected[0]);
    let key = culprit.public();
    let vote = |byte: u8| CertificateVote {
        scope,
        epoch: Epoch(1),
        slot: Slot(102),
        certificate: KeccakDigest([byte; 32]),
    };
    let (a, b) = (vote(1), vote(2));
    let (signed_a, signed_b) = (culprit.sign(&a.digest()), culprit.sign(&b.digest()));
    let before = admin.node(cluster, expected[0]).await.unwrap().unwrap().stake;
    let reporter = world.account(6);
    let same = reporter.report_equivocation((&a, &signed_a), (&a, &signed_a), &key);
    assert!(matches!(refusal(same.await), Refusal::Disputes(_)));
    reporter.report_equivocation((&a, &signed_a), (&b, &signed_b), &key).await.unwrap();
    let after = admin.node(cluster, expected[0]).await.unwrap().unwrap().stake;
    let lost: u128 = admin.lost_stake(cluster, Epoch(1), expected[0]).await.unwrap().to();
    assert!(lost > 0 && after == before - lost, "{before} {after} {lost}");
    let account = reporter.account().unwrap();
    let reward: u128 = reporter.claimable(account).await.unwrap().to();
    assert!(reward > 0 && reward < lost, "{reward} of {lost}");
    reporter.claim(account).await.unwrap();
    assert!(reporter.claimable(account).await.unwrap().is_zero());
    let again = reporter.report_equivocation((&a, &signed_a), (&b, &signed_b), &key).await;
    assert!(matches!(refusal(again), Refusal::Disputes(_)), "once only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_signs_twice_is_suspended() {
    let world = World::new(1).await.with_members().await;
    let group = Group::generate(world.committee);
    world.publish(0, &group, None).await;
    let one = world.body(0, 1, CertificateBody::NO_PREVIOUS);
    let mut other = one;
    other.state_root = KeccakDigest([9; 32]);
    let anyone = world.account(4);
    anyone.report_group_equivocation(&group.certify(one), &group.certify(other)).await.unwrap();
    let refused = refusal(anyone.anchor(&group.certify(one)).await);
    assert!(refused.to_string().contains("suspended for equivocation"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_known_until_governance_has_decided() {
    let world = World::new(1).await.with_members().await;
    let group = Group::generate(world.committee);
    world.publish(0, &group, None).await;
    let chain = world.account(4);
    // Each of a certificate that is anchored, with the others up to the last one.
    let (mut bodies, mut previous) = (Vec::new(), CertificateBody::NO_PREVIOUS);
    for slot in [3, 8, 9] {
        let body = world.body(0, slot, previous);
        chain.anchor(&group.certify(body)).await.unwrap();
        previous = body.hash();
        bodies.push(body);
    }
    let challenge = async |from: usize| {
        chain.challenge_evaluation(&bodies[from..], Blake3Digest([0xe0; 32])).await
    };
    let unanchored = world.body(0, 12, previous);
    let refused = chain.challenge_evaluation(&[unanchored], Blake3Digest([0xe0; 32])).await;
    assert!(matches!(refusal(refused), Refusal::Disputes(DisputesErrors::NotAnchored(_))));
    let none = chain.open_challenges(world.cluster, &Challenges::default()).await.unwrap();
    assert_eq!(none, Challenges::default());
    assert_eq!(challenge(0).await.unwrap(), 0);
    assert_eq!(challenge(1).await.unwrap(), 1);
    let twice = refusal(challenge(1).await);
    assert!(matches!(twice, Refusal::Disputes(DisputesErrors::AlreadyChallenged(_))), "{twice:?}");
    let two = chain.open_challenges(world.cluster, &none).await.unwrap();
    assert_eq!(two.slots(), [Slot(3), Slot(8)].into());
    let elsewhere = chain.open_challenges(ClusterId([7; 32]), &none).await.unwrap();
    assert!(elsewhere.slots().is_empty(), "they are another cluster's");
    let decision = Decision::Resolve { id: 0, upheld: false, culprits: Vec::new() };
    let (operation, _) = world.admin.schedule(&decision, None).await.unwrap();
    world.admin.execute(operation).await.unwrap();
    challenge(2).await.unwrap();
    let after = chain.open_challenges(world.cluster, &two).await.unwrap();
    assert_eq!(after.slots(), [Slot(8), Slot(9)].into());
    let early = refusal(chain.lapse_challenge(1).await);
    assert!(matches!(early, Refusal::Disputes(DisputesErrors::ChallengeNotLapsed(_))), "{early:?}");
    let anew = chain.open_challenges(world.cluster, &none).await.unwrap();
    assert_eq!(anew, after, "from the beginning the same is found");
    world.pass(30 * 24 * 3600).await;
    chain.lapse_challenge(1).await.unwrap();
    let left = chain.open_challenges(world.cluster, &after).await.unwrap();
    assert_eq!(left.slots(), [Slot(9)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committee_is_not_drawn_by_another_header_or_of_too_few() {
    let world = elected_cluster().await;
    let anyone = world.account(5);
    let wrong = refusal(anyone.request_election(world.cluster, Epoch(1), false).await);
    assert!(wrong.to_string().contains("epoch 0, not 1"), "{wrong}");
    assert_eq!(anyone.committee(world.cluster, Epoch(0)).await.unwrap(), None);
    let unrequested = refusal(anyone.seal_election(world.cluster, Epoch(0)).await);
    assert!(matches!(unrequested, Refusal::Election(ElectionErrors::NotRequested(_))));
    anyone.request_election(world.cluster, Epoch(0), false).await.unwrap();
    let again = refusal(anyone.request_election(world.cluster, Epoch(0), false).await);
    assert!(matches!(again, Refusal::Election(ElectionErrors::AlreadyRequested(_))), "{again:?}");
    world.mine(2).await;
    let early = refusal(anyone.expire_election(world.cluster, Epoch(0)).await);
    assert!(matches!(early, Refusal::Election(ElectionErrors::NotExpired(_))), "{early:?}");

    // An appointed cluster elects nobody.
    let appointed = ClusterSettings::new(Committee::new(4).unwrap());
    let settings = ClusterSettings { salt: [2; 32], ..appointed };
    let appointed = world.admin.register_cluster(&settings).await.unwrap();
    let refused = refusal(anyone.request_election(appointed, Epoch(0), false).await);
    assert!(matches!(refused, Refusal::Election(ElectionErrors::NotElected(_))), "{refused:?}");
}
