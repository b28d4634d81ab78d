//! Deployment, registration, ceremonies, jobs.

use std::time::Duration;

use alloy::{
    providers::ProviderBuilder,
    signers::{SignerSync, local::PrivateKeySigner},
};
use futures::future::join_all;
use veil_contracts::{
    assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as AnchorErrors,
    job_board::JobBoard::JobBoardErrors,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as CeremonyErrors,
    node_registry::{
        INodeRegistry::Registration,
        IVeilContract::{CompactSignature, Point},
        NodeRegistry::{self, NodeRegistryErrors},
    },
};
use veil_node_chain::{
    AccountKey, Allowance, AttemptStatus, Chain, ChainConfig, ChainError, ClusterSettings,
    NodeApproval, NodeRegistration,
    anvil::{Anvil, AnvilConfig},
    registration_digest,
};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ChainId, Committee, Epoch, ParticipantIndex, PeerIdHash,
    Signature, scheduling::CertificateBody,
};

use crate::support::{Group, MEMBER, WORKER, World, assert_refused, identity};

const FREELY: Allowance = Allowance::submit_freely();

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_set_is_found_through_its_directory() {
    let world = World::new(4).await;
    let directory = world.deployment.contracts.directory;
    let config = ChainConfig::new(world.anvil.url(), directory);
    let chain = Chain::connect(config.clone()).await.unwrap();
    assert_eq!(chain.contracts(), world.admin.contracts());
    assert_eq!(chain.chain_id(), ChainId(31337));
    assert!(matches!(
        chain.set_cluster_policy(world.cluster, b"binpack").await,
        Err(ChainError::NoAccount)
    ));

    let other = ChainConfig { chain_id: Some(ChainId(1)), ..config.clone() };
    assert!(matches!(Chain::connect(other).await, Err(ChainError::WrongChain { .. })));
    for wrong in [Address([9; 20]), chain.contracts().job_board] {
        let config = ChainConfig { directory: wrong, ..config.clone() };
        let error = Chain::connect(config).await.unwrap_err();
        assert!(
            matches!(error, ChainError::NoDirectory { .. } | ChainError::Incomplete { .. }),
            "{error:?}"
        );
    }
    for url in ["not a url", "ftp://127.0.0.1:1"] {
        let config = ChainConfig { rpc: url.into(), ..config.clone() };
        assert!(matches!(Chain::connect(config).await, Err(ChainError::InvalidUrl { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_register_with_proof_of_their_identity_only() {
    let world = World::new(4).await;
    assert_eq!(world.admin.cluster_policy(world.cluster).await.unwrap(), b"spread");
    let operator = world.account(1);
    let (peer, registration) = (PeerIdHash::of(&identity(1).public()), world.registration(MEMBER));

    let unapproved = operator.register_node(&registration, &identity(1)).await;
    assert_refused!(unapproved, Registry(NodeRegistryErrors::NodeNotApproved(_)));
    assert_refused!(
        operator.set_allowance(world.cluster, operator.account().unwrap(), FREELY).await,
        Registry(NodeRegistryErrors::NotClusterAdmin(_))
    );
    let approval = world.approval(&operator, MEMBER).await;
    world.admin.approve_node(world.cluster, peer, &approval).await.unwrap();
    let mined = operator.register_node(&registration, &identity(1)).await.unwrap();
    eprintln!("gas of register: {}", mined.gas);
    let again = operator.register_node(&registration, &identity(1)).await;
    assert_refused!(again, Registry(NodeRegistryErrors::NodeAlreadyRegistered(_)));

    // An open cluster takes workers without approval, and lists all in the order of registration.
    world.account(2).register_node(&world.registration(WORKER), &identity(8)).await.unwrap();
    for i in 2..=5 {
        world.admin.register_node(&registration, &identity(i)).await.unwrap();
    }
    let nodes = world.admin.nodes(world.cluster).await.unwrap();
    let seats: Vec<_> = nodes.iter().map(|node| node.seat.map(ParticipantIndex::get)).collect();
    // Members first.
    assert_eq!(seats, [Some(1), Some(2), Some(3), Some(4), None, None]);
    assert_eq!(nodes[0].peer, peer);
    assert_eq!(nodes[0].identity, identity(1).public());
    assert_eq!(nodes[0].operator, operator.account().unwrap());
    assert_eq!((nodes[0].roles, nodes[5].roles), (MEMBER, WORKER));
    assert_eq!(nodes[0].organisation, registration.organisation);
    assert_eq!(nodes[5].organisation, None);
    assert_eq!(nodes[0].labels, registration.labels);

    // A node that left may come back, later in the order.
    assert_refused!(
        world.account(3).exit_node(world.cluster, peer).await,
        Registry(NodeRegistryErrors::NotNodeOperator(_))
    );
    operator.exit_node(world.cluster, peer).await.unwrap();
    assert_eq!(world.admin.node(world.cluster, peer).await.unwrap(), None);
    let used = operator.register_node(&registration, &identity(1)).await;
    assert_refused!(used, Registry(NodeRegistryErrors::NodeNotApproved(_)));
    world.admin.approve_node(world.cluster, peer, &approval).await.unwrap();
    operator.register_node(&registration, &identity(1)).await.unwrap();
    let nodes = world.admin.nodes(world.cluster).await.unwrap();
    assert_eq!(nodes.iter().rfind(|node| node.roles.member).unwrap().peer, peer);
}

/// What the operator says of its node is nothing: the admin's word is, for one registration, in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_what_the_admin_approved() {
    let world = World::new(4).await;
    let (operator, cluster) = (world.account(1), world.cluster);
    let peer = PeerIdHash::of(&identity(1).public());
    let acme = NodeRegistration {
        organisation: Some("Acme".parse().unwrap()),
        ..world.registration(WORKER)
    };
    let claimed = operator.register_node(&acme, &identity(1)).await;
    assert_refused!(claimed, Registry(NodeRegistryErrors::NodeNotApproved(_)));
    let approval = NodeApproval {
        organisation: acme.organisation.clone(),
        ..world.approval(&operator, WORKER).await
    };
    let by_another = operator.approve_node(cluster, peer, &approval).await;
    assert_refused!(by_another, Registry(NodeRegistryErrors::NotClusterAdmin(_)));
    let past = NodeApproval { valid_until: 1, ..approval.clone() };
    let past = world.admin.approve_node(cluster, peer, &past).await;
    assert_refused!(past, Registry(NodeRegistryErrors::InvalidApprovalTime(_)));
    assert_eq!(world.admin.approval(cluster, peer).await.unwrap(), None);

    world.admin.approve_node(cluster, peer, &approval).await.unwrap();
    assert_eq!(world.admin.approval(cluster, peer).await.unwrap(), Some(approval.clone()));
    for other in [
        NodeRegistration { organisation: Some("Zoo".parse().unwrap()), ..acme.clone() },
        NodeRegistration { roles: MEMBER, ..acme.clone() },
    ] {
        let refused = operator.register_node(&other, &identity(1)).await.unwrap_err();
        let text = refused.to_string();
        let named = "worker of organisation Acme: register it so, with `veil chain register --role \
                     worker --organisation 'Acme'`";
        assert!(text.contains(named), "{text}");
    }
    world.admin.withdraw_approval(cluster, peer).await.unwrap();
    let withdrawn = operator.register_node(&acme, &identity(1)).await;
    assert_refused!(withdrawn, Registry(NodeRegistryErrors::NodeNotApproved(_)));

    world.admin.approve_node(cluster, peer, &approval).await.unwrap();
    operator.register_node(&acme, &identity(1)).await.unwrap();
    let node = world.admin.node(cluster, peer).await.unwrap().unwrap();
    assert_eq!((node.organisation, node.roles), (acme.organisation.clone(), WORKER));
    assert_eq!(world.admin.approval(cluster, peer).await.unwrap(), None, "used up");

    world.admin.approve_node(cluster, peer, &approval).await.unwrap();
    operator.exit_node(cluster, peer).await.unwrap();
    world.pass(3601).await;
    let late = operator.register_node(&acme, &identity(1)).await;
    assert_refused!(late, Registry(NodeRegistryErrors::ApprovalExpired(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_signed_by_another_key_or_for_another_account_is_refused() {
    let world = World::new(4).await;
    let provider = ProviderBuilder::new().connect_http(world.anvil.url().parse().unwrap());
    let registry = world.admin.contracts().node_registry;
    let contract = NodeRegistry::new(registry.0.into(), provider);
    let registration = world.registration(WORKER);
    let public = identity(1).public();
    let sender = Address([5; 20]);
    let attempt = async |key: [u8; 32], operator: Address| {
        let scope = world.admin.scope(world.cluster);
        let digest = registration_digest(&scope, &registration, &public, &operator, 0);
        let signer = PrivateKeySigner::from_slice(&key).unwrap();
        let owner = PrivateKeySigner::from_slice(&*identity(1).expose()).unwrap();
        let signature = signer.sign_hash_sync(&digest.into()).unwrap();
        let point = owner.public_key();
        let mut vs = signature.s();
        vs.set_bit(255, signature.v());
        let message = Registration {
            cluster: world.cluster.0.into(),
            identity: Point {
                x: alloy::primitives::U256::from_be_slice(&point[..32]),
                y: alloy::primitives::U256::from_be_slice(&point[32..]),
            },
            roles: 1, // the registry's bit for a worker
            organisation: alloy::primitives::B256::ZERO,
            labels: "zone=eu-1".to_owned(),
        };
        let compact = CompactSignature { r: signature.r().into(), vs: vs.into() };
        let call = contract.register(message, compact).from(sender.0.into());
        call.call().await.map_err(|error| error.as_decoded_interface_error::<NodeRegistryErrors>())
    };
    let wrong = |result| matches!(result, Err(Some(NodeRegistryErrors::WrongIdentitySignature(_))));
    assert!(wrong(attempt([2; 32], sender).await.map(|_| ())), "another key");
    assert!(wrong(attempt([1; 32], Address([6; 20])).await.map(|_| ())), "another account");
    assert!(attempt([1; 32], sender).await.is_ok(), "the right one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_needs_the_signatures_of_all_members_and_of_the_group() {
    let world = World::new(4).await;
    assert_refused!(
        world.admin.propose_ceremony(&world.proposal(0, 0).await).await,
        Ceremony(CeremonyErrors::TooFewMembers(_))
    );
    let world = world.with_members().await;
    assert_refused!(
        world.account(1).propose_ceremony(&world.proposal(0, 0).await).await,
        Registry(NodeRegistryErrors::NotClusterAdmin(_))
    );
    world.admin.propose_ceremony(&world.proposal(0, 0).await).await.unwrap();
    assert_refused!(
        world.admin.propose_ceremony(&world.proposal(0, 1).await).await,
        Ceremony(CeremonyErrors::AttemptStillOpen(_))
    );
    let attempt = world.admin.ceremony_attempt(world.cluster, Epoch(0), Attempt(0)).await.unwrap();
    let attempt = attempt.unwrap();
    assert_eq!(attempt.status, AttemptStatus::Proposed);
    assert_eq!(attempt.roster, world.roster().iter().map(PeerIdHash::of).collect::<Vec<_>>());

    let (group, stranger) = (Group::generate(world.committee), Group::generate(world.committee));
    let publication = world.publication(0, 0, &group);
    let good = world.endorse(&publication, &group);
    let publish = async |endorsements: &_| {
        world.admin.publish_key(&publication, &world.roster(), endorsements).await
    };
    let mut bad = good.clone();
    bad.members.pop();
    assert_refused!(publish(&bad).await, Ceremony(CeremonyErrors::WrongNumberOfSignatures(_)));
    let mut bad = good.clone();
    bad.members[2] = Signature(good.members[1].0);
    assert!(matches!(publish(&bad).await, Err(ChainError::Point(_))));
    let mut bad = good.clone();
    bad.possession = stranger.sign(publication.possession_digest());
    assert_refused!(publish(&bad).await, Ceremony(CeremonyErrors::WrongProofOfPossession(_)));
    // The signatures of another publication.
    let mut other = publication;
    other.transcript_root = Blake3Digest([0xff; 32]);
    bad.possession = group.sign(other.possession_digest());
    assert_refused!(publish(&bad).await, Ceremony(CeremonyErrors::WrongProofOfPossession(_)));
    assert_eq!(world.admin.current_key(world.cluster).await.unwrap(), None);

    let mined = publish(&good).await.unwrap();
    eprintln!("gas of publish, n = 4: {}", mined.gas);
    let key = world.admin.current_key(world.cluster).await.unwrap().unwrap();
    assert_eq!(key.group_key, publication.group_key);
    assert_eq!(key.key_set, publication.key_set);
    assert_eq!(key.reference_string, publication.reference_string);
    assert_eq!(key.verifying_shares_root, publication.verifying_shares_root);

    let again = publish(&good).await;
    assert!(again.as_ref().unwrap_err().refusal().unwrap().is_attempt_over());
    assert_refused!(again, Ceremony(CeremonyErrors::AttemptPublished(_)));
    let reason = Blake3Digest([1; 32]);
    let late = world.admin.abort_ceremony(world.cluster, Epoch(0), Attempt(0), reason).await;
    assert_refused!(late, Ceremony(CeremonyErrors::AttemptPublished(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_aborted_or_has_expired_makes_no_key() {
    let world = World::new(4).await.with_members().await;
    let group = Group::generate(world.committee);
    let reason = Blake3Digest([1; 32]);
    let publish = async |attempt| {
        let publication = world.publication(0, attempt, &group);
        let endorsements = world.endorse(&publication, &group);
        world.admin.publish_key(&publication, &world.roster(), &endorsements).await
    };
    let status = async |attempt| {
        let found = world.admin.ceremony_attempt(world.cluster, Epoch(0), Attempt(attempt)).await;
        found.unwrap().map(|attempt| attempt.status)
    };
    assert_eq!(status(0).await, None);
    assert_refused!(publish(0).await, Ceremony(CeremonyErrors::UnknownAttempt(_)));

    world.admin.propose_ceremony(&world.proposal(0, 0).await).await.unwrap();
    let stranger = world.account(5);
    let abort = stranger.abort_ceremony(world.cluster, Epoch(0), Attempt(0), reason).await;
    assert_refused!(abort, Ceremony(CeremonyErrors::NotAParticipant(_)));
    // Any account may send a member's signature.
    let scope = world.admin.scope(world.cluster);
    let digest = veil_node_chain::abort_digest(&scope, Epoch(0), Attempt(0), &reason);
    let seat = ParticipantIndex::new(3).unwrap();
    stranger
        .abort_ceremony_signed(
            world.cluster,
            (Epoch(0), Attempt(0)),
            reason,
            (seat, identity(3).public()),
            &identity(3).sign(&digest),
        )
        .await
        .unwrap();
    assert_eq!(status(0).await, Some(AttemptStatus::Aborted));
    assert_refused!(publish(0).await, Ceremony(CeremonyErrors::AttemptAborted(_)));

    world.admin.propose_ceremony(&world.proposal(0, 1).await).await.unwrap();
    world.pass(4000).await;
    assert_eq!(status(1).await, Some(AttemptStatus::Expired));
    assert_refused!(publish(1).await, Ceremony(CeremonyErrors::AttemptExpired(_)));
    assert_eq!(world.admin.ceremony_attempts(world.cluster, Epoch(0)).await.unwrap(), 2);

    world.admin.propose_ceremony(&world.proposal(0, 2).await).await.unwrap();
    publish(2).await.unwrap();
    assert_eq!(status(2).await, Some(AttemptStatus::Published));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_epoch_needs_the_consent_of_the_group_before() {
    let world = World::new(1).await.with_members().await;
    let (first, second) = (Group::generate(world.committee), Group::generate(world.committee));
    eprintln!("gas of publish, n = 1: {}", world.publish(0, &first, None).await);
    let certificate = world.body(0, 1, CertificateBody::NO_PREVIOUS);
    world.admin.anchor(&first.certify(certificate)).await.unwrap();

    world.admin.propose_ceremony(&world.proposal(1, 0).await).await.unwrap();
    let publication = world.publication(1, 0, &second);
    let endorsements = world.endorse(&publication, &second);
    world.admin.publish_key(&publication, &world.roster(), &endorsements).await.unwrap();
    assert_eq!(world.admin.current_epoch(world.cluster).await.unwrap(), Some(Epoch(0)), "ready");
    assert_refused!(
        world.activate(&publication, &second).await,
        Ceremony(CeremonyErrors::WrongHandoverSignature(_))
    );
    let handover = first.sign(publication.handover_digest(CertificateBody::NO_PREVIOUS));
    let none = CertificateBody::NO_PREVIOUS;
    assert_refused!(
        world.admin.activate_key(world.cluster, Epoch(1), none, Some(&handover)).await,
        Ceremony(CeremonyErrors::NotTheHead(_))
    );
    world.activate(&publication, &first).await.unwrap();
    assert_refused!(
        world.activate(&publication, &first).await,
        Ceremony(CeremonyErrors::NoReadyKey(_))
    );
    assert_eq!(world.admin.current_epoch(world.cluster).await.unwrap(), Some(Epoch(1)));

    let late = world.body(0, 2, certificate.hash());
    assert_refused!(
        world.admin.anchor(&first.certify(late)).await,
        Anchor(AnchorErrors::EpochNotInForce(_))
    );
    let next = world.body(1, 2, certificate.hash());
    world.admin.anchor(&second.certify(next)).await.unwrap();
}

/// A cluster gets another admin when that one accepts; a stake's operator says once where it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_a_stakes_payment_are_given_away() {
    let world = World::new(4).await;
    let (heir, cold) = (world.account(3), world.account(4));
    let (cluster, account) = (world.cluster, heir.account().unwrap());
    assert_refused!(
        heir.accept_admin(cluster).await,
        Registry(NodeRegistryErrors::NotNextAdmin(_))
    );
    world.admin.transfer_admin(cluster, Some(account)).await.unwrap();
    world.admin.transfer_admin(cluster, None).await.unwrap();
    assert_refused!(
        heir.accept_admin(cluster).await,
        Registry(NodeRegistryErrors::NotNextAdmin(_))
    );
    world.admin.transfer_admin(cluster, Some(account)).await.unwrap();
    heir.accept_admin(cluster).await.unwrap();
    assert_eq!(heir.cluster(cluster).await.unwrap().admin, account);

    let operator = world.account(5);
    operator.register_node(&world.registration(WORKER), &identity(8)).await.unwrap();
    let peer = PeerIdHash::of(&identity(8).public());
    let to = cold.account().unwrap();
    operator.set_withdrawal_address(cluster, peer, to).await.unwrap();
    assert_refused!(
        operator.set_withdrawal_address(cluster, peer, account).await,
        Registry(NodeRegistryErrors::NotStakeHolder(_))
    );
    cold.set_withdrawal_address(cluster, peer, account).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_ordered_and_need_a_right() {
    let world = World::new(4).await;
    let (operator, digest) = (world.account(1), Blake3Digest([0x0b; 32]));
    let account = operator.account().unwrap();
    let refused = operator.submit_job(world.cluster, digest, 0, 3).await;
    assert_refused!(refused, Jobs(JobBoardErrors::MissingRight(_)));
    world.admin.set_allowance(world.cluster, account, FREELY).await.unwrap();
    assert_eq!(world.admin.allowance(world.cluster, account).await.unwrap(), FREELY);
    let own = world.admin.account().unwrap();
    let budget = Allowance { leak_bits_per_day: 4, ..FREELY };
    world.admin.set_allowance(world.cluster, own, budget).await.unwrap();
    assert_eq!(operator.submit_job(world.cluster, digest, 0, 3).await.unwrap(), 0);
    assert_eq!(world.admin.submit_job(world.cluster, digest, 0, 3).await.unwrap(), 1);
    let over = world.admin.submit_job(world.cluster, digest, 1, 2).await;
    assert_refused!(over, Jobs(JobBoardErrors::LeakBudgetExceeded(_)));
    let replay = operator.submit_job(world.cluster, digest, 0, 3).await;
    assert_refused!(replay, Jobs(JobBoardErrors::WrongNonce(_)));
    assert_eq!(operator.next_job_nonce(world.cluster, account).await.unwrap(), 1);

    let foreign = operator.cancel_job(world.cluster, 1).await;
    assert_refused!(foreign, Jobs(JobBoardErrors::NotSubmitter(_)));
    let copy = operator.submit_job(world.cluster, digest, 1, 3).await;
    assert_refused!(copy, Jobs(JobBoardErrors::AlreadySubmitted(_)));
    // The admin may cancel anybody's.
    world.admin.cancel_job(world.cluster, 0).await.unwrap();
    let jobs = world.admin.jobs(world.cluster, 0).await.unwrap();
    let shown: Vec<_> = jobs.iter().map(|job| (job.position, job.cancelled)).collect();
    assert_eq!(shown, [(0, true), (1, false)]);
    assert_eq!(world.admin.jobs(world.cluster, 2).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_account_may_be_sent_at_once() {
    let world = World::new(4).await;
    let mut changes = world.admin.changes();
    let before = *changes.borrow_and_update();
    let accounts: Vec<_> = (1..=12).map(|i| Address([i; 20])).collect();
    let sent = accounts.iter().map(|account| {
        let chain = world.admin.clone();
        async move { chain.set_allowance(world.cluster, *account, FREELY).await }
    });
    for mined in join_all(sent).await {
        mined.unwrap();
    }
    for account in accounts {
        assert_eq!(world.admin.allowance(world.cluster, account).await.unwrap(), FREELY);
    }
    let new = tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|now| *now != before));
    assert!(new.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handles_of_one_account_do_not_lose_transactions() {
    let world = World::new(4).await;
    // Each handle counts its nonces, as two processes would.
    let handles = [world.account(0), world.account(0)];
    for i in 1..=6_u8 {
        let account = Address([i; 20]);
        let handle = &handles[usize::from(i % 2)];
        handle.set_allowance(world.cluster, account, FREELY).await.unwrap();
        assert_eq!(world.admin.allowance(world.cluster, account).await.unwrap(), FREELY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_funds_is_named() {
    let world = World::new(4).await;
    let poor = world.admin.with_key(AccountKey::from_bytes(&[0x77; 32]).unwrap());
    let error = poor.register_node(&world.registration(WORKER), &identity(1)).await.unwrap_err();
    assert!(matches!(error, ChainError::Funds { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_went_away_is_named_and_its_state_survives() {
    let folder = tempfile::tempdir().unwrap();
    let state = Some(folder.path().join("state.json"));
    let anvil = Anvil::start(AnvilConfig { state: state.clone(), ..AnvilConfig::default() });
    let anvil = anvil.await.unwrap();
    let config = ChainConfig::new(anvil.url(), Address([0; 20])).with_key(anvil.key(0).unwrap());
    let (chain, deployment) = Chain::deploy(config).await.unwrap();
    let written: serde_json::Value = serde_json::from_str(&deployment.to_text()).unwrap();
    let directory = written["directory"].as_str().unwrap().to_lowercase();
    assert_eq!(directory, format!("0x{}", deployment.contracts.directory));
    assert!(written["assignment_anchor"].is_string() && written["timelock"].is_string());
    let cluster = chain.register_cluster(&ClusterSettings::new(Committee::new(1).unwrap())).await;
    let cluster = cluster.unwrap();
    let registration = NodeRegistration {
        cluster,
        roles: WORKER,
        organisation: None,
        labels: vec!["zone=eu-1".parse().unwrap()],
        stake: 7,
    };
    chain.register_node(&registration, &identity(1)).await.unwrap();
    let nodes = chain.nodes(cluster).await.unwrap();
    drop(anvil);
    let error = chain.block().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { .. }) && error.is_transient(), "{error:?}");

    let anvil = Anvil::start(AnvilConfig { state, ..AnvilConfig::default() }).await.unwrap();
    let directory = chain.contracts().directory;
    let again = Chain::connect(ChainConfig::new(anvil.url(), directory)).await.unwrap();
    assert_eq!(again.contracts(), chain.contracts());
    // With its events, from which the keys and labels of nodes are read.
    assert_eq!(again.nodes(cluster).await.unwrap(), nodes);
    assert_eq!((nodes[0].stake, nodes[0].labels.len()), (7, 1));
}
