//! Certificates on chain: one after the other, or with slots left out.

use veil_contracts::{
    assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as AnchorErrors,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as CeremonyErrors,
};
use veil_protocol_spec::{
    Blake3Digest, Epoch, KeccakDigest, PeerIdHash, ReplicaIndex, Slot,
    scheduling::{Assignment, Assignments, CertificateBody, Outcome},
};

use crate::support::{Group, WORKER, World, assert_refused, identity};

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_anchored_in_order_and_once() {
    let world = World::new(4).await.with_members().await;
    let group = Group::generate(world.committee);
    let worker = identity(9);
    let owner = world.account(3);
    owner.register_node(&world.registration(WORKER), &worker).await.unwrap();

    let mut first = world.body(0, 3, CertificateBody::NO_PREVIOUS);
    let assignment = Assignment {
        job: Blake3Digest([0x0b; 32]),
        replica: ReplicaIndex(0),
        outcome: Outcome::Node(PeerIdHash::of(&worker.public())),
    };
    let pending = Assignment { replica: ReplicaIndex(1), outcome: Outcome::Pending, ..assignment };
    let tree = Assignments::try_from(vec![assignment, pending]).unwrap().tree();
    first.assignments_root = tree.root();
    let too_early = world.admin.anchor(&group.certify(first)).await;
    assert_refused!(too_early, Ceremony(CeremonyErrors::NoKey(_)));
    world.publish(0, &group, None).await;

    let stranger = Group::generate(world.committee);
    assert_refused!(
        world.admin.anchor(&stranger.certify(first)).await,
        Anchor(AnchorErrors::WrongGroupSignature(_))
    );
    assert_eq!(world.admin.head(world.cluster).await.unwrap(), None);
    let certificate = group.certify(first);
    let mined = world.admin.anchor(&certificate).await.unwrap();
    eprintln!("gas of anchor, first: {}", mined.gas);

    let replay = world.admin.anchor(&certificate).await;
    assert!(replay.as_ref().unwrap_err().refusal().unwrap().is_out_of_order());
    assert_refused!(replay, Anchor(AnchorErrors::WrongBase(_)));
    let gap = world.body(0, 5, KeccakDigest([0xee; 32]));
    assert_refused!(
        world.admin.anchor(&group.certify(gap)).await,
        Anchor(AnchorErrors::WrongBase(_))
    );
    let mut wrong = world.body(0, 4, first.hash());
    wrong.binding.epoch = Epoch(1);
    assert_refused!(
        world.admin.anchor(&group.certify(wrong)).await,
        Anchor(AnchorErrors::EpochNotInForce(_))
    );

    let second = world.body(0, 4, first.hash());
    let mined = world.account(6).anchor(&group.certify(second)).await.unwrap();
    eprintln!("gas of anchor, later: {}", mined.gas);
    let head = world.admin.head(world.cluster).await.unwrap().unwrap();
    assert_eq!((head.hash, head.slot, head.count), (second.hash(), Slot(4), 2));
    let anchored = world.admin.anchored(world.cluster, first.hash()).await.unwrap().unwrap();
    assert_eq!((anchored.slot, anchored.assignments_root), (Slot(3), tree.root()));
    assert_eq!(world.admin.anchored_certificates(world.cluster).await.unwrap().len(), 2);
    assert_eq!(world.admin.anchored(world.cluster, gap.hash()).await.unwrap(), None);

    let (chain, proof) = ([first, second], tree.proof(0).unwrap());
    assert!(world.admin.verify_inclusion(&chain, &assignment, &proof).await.unwrap());
    assert!(!world.admin.verify_inclusion(&chain, &pending, &proof).await.unwrap());
    assert_refused!(
        world.admin.confirm_deployment(&chain, &assignment, &proof).await,
        Anchor(AnchorErrors::NotWorkerOperator(_))
    );
    let unanchored = [first, world.body(0, 5, first.hash())];
    assert_refused!(
        owner.confirm_deployment(&unanchored, &assignment, &proof).await,
        Anchor(AnchorErrors::NotAnchored(_))
    );
    // One that was the head lately will do, once.
    owner.confirm_deployment(&[first], &assignment, &proof).await.unwrap();
    let again = owner.confirm_deployment(&chain, &assignment, &proof).await;
    assert!(again.as_ref().unwrap_err().refusal().unwrap().is_confirmed());
    assert_refused!(again, Anchor(AnchorErrors::AlreadyConfirmed(_)));
}

/// Slots that began before an earlier one was anchored can no longer be: the next one carries on from
/// the head, and what they assign is proved through their links.
#[tokio::test(flavor = "multi_thread")]
async fn slots_are_skipped_and_nothing_gets_stuck() {
    let world = World::new(4).await.with_members().await;
    let group = Group::generate(world.committee);
    let worker = identity(9);
    let owner = world.account(3);
    owner.register_node(&world.registration(WORKER), &worker).await.unwrap();
    world.publish(0, &group, None).await;
    let none = CertificateBody::NO_PREVIOUS;
    let assignment = Assignment {
        job: Blake3Digest([0x0b; 32]),
        replica: ReplicaIndex(0),
        outcome: Outcome::Node(PeerIdHash::of(&worker.public())),
    };
    let tree = Assignments::try_from(vec![assignment]).unwrap().tree();
    // All three name the head as of a block before the first is anchored.
    let first = world.body(0, 1, none);
    let placing = CertificateBody {
        base: none,
        assignments_root: tree.root(),
        ..world.body(0, 2, first.hash())
    };
    let void = CertificateBody {
        base: none,
        evaluation: CertificateBody::VOID,
        ..world.body(0, 3, placing.hash())
    };
    world.admin.anchor(&group.certify(first)).await.unwrap();
    let head = world.admin.head(world.cluster).await.unwrap().unwrap();
    for body in [placing, void] {
        let late = world.admin.anchor(&group.certify(body)).await;
        assert!(late.as_ref().unwrap_err().refusal().unwrap().is_out_of_order());
        assert_refused!(late, Anchor(AnchorErrors::WrongBase(_)));
    }
    let (chain, proof) = ([placing, void], tree.proof(0).unwrap());
    assert_refused!(
        owner.confirm_deployment(&chain, &assignment, &proof).await,
        Anchor(AnchorErrors::NotAnchored(_))
    );
    let (block, _) = world.admin.block().await.unwrap();

    // The next slot reads the chain at that block, and names the head.
    let next = CertificateBody { base: head.hash, ..world.body(0, 9, void.hash()) };
    world.admin.anchor(&group.certify(next)).await.unwrap();
    let found = world.admin.head(world.cluster).await.unwrap().unwrap();
    assert_eq!((found.hash, found.slot, found.count), (next.hash(), Slot(9), 2));
    let chain = [placing, void, next];
    assert!(world.admin.verify_inclusion(&chain, &assignment, &proof).await.unwrap());
    owner.confirm_deployment(&chain, &assignment, &proof).await.unwrap();
    // What members read at a block does not move on with the chain.
    let then = world.admin.at(block).head(world.cluster).await.unwrap().unwrap();
    assert_eq!((then.hash, then.slot), (first.hash(), Slot(1)));
}
