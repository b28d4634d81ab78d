//! What governance decides, what is deployed, and transactions that others sign.

use alloy::sol_types::SolCall;
use veil_contracts::{
    directory::Directory::{self, DirectoryErrors},
    policy_registry::PolicyRegistry,
    timelock::Timelock::TimelockErrors,
};
use veil_node_chain::{
    Chain, ChainConfig, ChainError, Decision, DeployOptions, Draft, GovernedCall,
    InvalidDeployment, OperationState, Refusal, UnsignedBatch,
    anvil::{Anvil, AnvilConfig},
};
use veil_protocol_spec::Address;

use crate::support::{World, refusal};

/// The handle of who signs elsewhere.
async fn drafting(world: &World, from: Option<Address>) -> Chain {
    let directory = world.deployment.contracts.directory;
    let config = ChainConfig::new(world.anvil.url(), directory);
    Chain::connect(ChainConfig { draft: Some(Draft { from }), ..config }).await.unwrap()
}

fn unsigned<T: core::fmt::Debug>(result: Result<T, ChainError>) -> UnsignedBatch {
    match result {
        Err(ChainError::Unsigned(batch)) => *batch,
        other => panic!("not for others to sign: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_waits_is_carried_out_or_taken_back_and_is_listed() {
    let world = World::new(4).await;
    let (governor, stranger) = (&world.admin, world.account(3));
    assert_eq!(governor.operations().await.unwrap(), []);
    let guardian = Decision::Guardian(stranger.account());
    let refused = refusal(stranger.schedule(&guardian, None).await);
    assert!(matches!(
        &refused,
        Refusal::Timelock(TimelockErrors::AccessControlUnauthorizedAccount(_))
    ));
    assert!(refused.to_string().contains("--unsigned --from"), "{refused}");

    let (waits, _) = governor.schedule(&guardian, Some(3600)).await.unwrap();
    let (taken_back, _) = governor.schedule(&Decision::Pause(true), Some(3600)).await.unwrap();
    let early = refusal(governor.execute(waits).await);
    assert!(early.to_string().contains("veil chain govern list"), "{early}");
    let twice = refusal(governor.schedule(&guardian, Some(3600)).await);
    assert!(matches!(
        twice,
        Refusal::Timelock(TimelockErrors::TimelockUnexpectedOperationState(_))
    ));
    let states = async || {
        let all = governor.operations().await.unwrap();
        all.iter().map(|one| (one.id, one.state)).collect::<Vec<_>>()
    };
    let now = states().await;
    assert!(matches!(
        now[..],
        [(a, OperationState::Waiting(_)), (b, OperationState::Waiting(_))] if (a, b) == (waits, taken_back)
    ));
    governor.cancel_operation(taken_back).await.unwrap();
    world.pass(3600).await;
    assert!(matches!(
        states().await[..],
        [(_, OperationState::Ready(_)), (_, OperationState::Cancelled)]
    ));
    governor.execute(waits).await.unwrap();
    assert_eq!(
        states().await,
        [(waits, OperationState::Done), (taken_back, OperationState::Cancelled)]
    );
    let call = &governor.operations().await.unwrap()[0].calls[0];
    assert_eq!(call.to, world.deployment.contracts.directory);
    // The guardian pauses; nobody else does, and not twice.
    let nobody = refusal(world.account(4).pause(true).await);
    assert!(nobody.to_string().contains("veil chain govern schedule"), "{nobody}");
    stranger.pause(true).await.unwrap();
    let (until, again) = stranger.paused().await.unwrap();
    assert!(until > governor.time().await.unwrap() && again > until);
    let soon = refusal(stranger.pause(true).await);
    assert!(matches!(soon, Refusal::Directory(DirectoryErrors::PauseTooSoon(_))), "{soon:?}");
    stranger.pause(false).await.unwrap();
    assert_eq!(stranger.paused().await.unwrap().0, 0);

    // What was carried out can be decided again, and what was taken back.
    let (again, _) = governor.schedule(&guardian, None).await.unwrap();
    assert_ne!(again, waits);
    governor.execute(again).await.unwrap();
    assert_eq!(governor.schedule(&Decision::Pause(true), None).await.unwrap().0, taken_back);
    // The delay itself, and a call of whatever contract.
    let (delay, _) = governor.schedule(&Decision::Delay(60), None).await.unwrap();
    governor.execute(delay).await.unwrap();
    let named = Directory::setGuardianCall { guardian_: [9; 20].into() }.abi_encode();
    let call = GovernedCall::new(world.deployment.contracts.directory, 0, named);
    let (called, _) = governor.schedule(&Decision::Call(call), None).await.unwrap();
    refusal(governor.execute(called).await);
    world.pass(60).await;
    governor.execute(called).await.unwrap();
    let verified = governor.verify_deployment().await.unwrap().unwrap();
    assert_eq!((verified.timelock_delay, verified.guardian), (60, Address([9; 20])));
    let unknown = governor.execute(veil_protocol_spec::KeccakDigest([7; 32])).await;
    assert!(matches!(unknown, Err(ChainError::NoOperation { .. })), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_is_what_was_built_to_the_byte() {
    let world = World::new(4).await;
    let verified = world.admin.verify_deployment().await.unwrap().unwrap();
    assert_eq!(verified.contracts.len(), 10);
    assert_eq!((verified.set_version, verified.election_delay), (1, 1));
    for contract in &verified.contracts {
        let honest = world.code(contract.address).await;
        assert_eq!(honest.len(), contract.code_bytes);
        let mut changed = honest.clone();
        // In the last selector of an error, which no answer needs.
        let is_error = |at: &usize| honest[*at] == 0x7f && honest[at + 5..at + 33] == [0; 28];
        let at = (0..honest.len() - 33).rev().find(is_error).unwrap() + 1;
        changed[at] ^= 0x20;
        world.set_code(contract.address, &changed).await;
        let told = world.admin.verify_deployment().await.unwrap().unwrap_err();
        match &told {
            InvalidDeployment::Code { contract: name, address, offset, .. } => {
                assert_eq!((*name, *address, *offset), (contract.name, contract.address, at));
            }
            other => panic!("{other}"),
        }
        assert!(told.to_string().contains(&format!("byte {at}")), "{told}");
        world.set_code(contract.address, &honest).await;
    }
    assert_eq!(world.admin.verify_deployment().await.unwrap().unwrap(), verified);

    // Honest code of another set does not belong here.
    let config = ChainConfig::new(world.anvil.url(), Address([0; 20]));
    let config = config.with_key(world.anvil.key(1).unwrap());
    let (_, other) = Chain::deploy(config).await.unwrap();
    let foreign = world.code(other.contracts.disputes).await;
    world.set_code(world.deployment.contracts.disputes, &foreign).await;
    let told = world.admin.verify_deployment().await.unwrap().unwrap_err();
    assert!(matches!(&told, InvalidDeployment::Value { contract: "Disputes", .. }), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_for_others_is_written_down_once_the_contracts_would_take_it() {
    let world = World::new(4).await;
    let admin = world.admin.account().unwrap();
    let policy = b"pack";
    let batch = unsigned(
        drafting(&world, Some(admin)).await.set_cluster_policy(world.cluster, policy).await,
    );
    let [call] = &batch.calls[..] else { panic!("{batch:?}") };
    assert_eq!(call.to, world.deployment.contracts.policy_registry);
    let sent = PolicyRegistry::setClusterPolicyCall::abi_decode(&call.data).unwrap();
    assert_eq!((sent.cluster.0, sent.policy.to_vec()), (world.cluster.0, policy.to_vec()));
    let file = batch.to_safe_json();
    assert_eq!((file["version"].as_str(), file["chainId"].as_str()), (Some("1.0"), Some("31337")));
    let written = &file["transactions"][0];
    assert_eq!(written["data"], format!("0x{}", veil_protocol_spec::hex(&call.data)));
    assert_eq!((written["value"].as_str(), written["contractMethod"].is_null()), (Some("0"), true));
    assert_eq!(world.admin.cluster_policy(world.cluster).await.unwrap(), b"spread");

    // Refused for who may not, by name; written down unasked for nobody.
    let stranger = drafting(&world, Some(Address([0x5a; 20]))).await;
    let refused = refusal(stranger.set_cluster_policy(world.cluster, policy).await);
    assert!(matches!(refused, Refusal::Policy(_) | Refusal::Registry(_)), "{refused:?}");
    let nobody = drafting(&world, None).await;
    assert_eq!(unsigned(nobody.set_cluster_policy(world.cluster, policy).await).calls, batch.calls);
    // The bond goes along.
    let stake = unsigned(
        nobody.increase_stake(world.cluster, veil_protocol_spec::PeerIdHash([1; 32]), 5).await,
    );
    assert_eq!(stake.to_safe_json()["transactions"][0]["value"], "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_by_salt_goes_on_where_it_ended_and_finds_itself_again() {
    let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
    let key = anvil.key(0).unwrap();
    let governor = key.address();
    let plain = ChainConfig::new(anvil.url(), Address([0; 20]));
    let own = plain.clone().with_key(key);
    let options = DeployOptions {
        timelock_delay: Some(7200),
        governor: Some(governor),
        ..DeployOptions::default()
    };
    // Another account deploys the contracts, and is told who puts them in force.
    let other = plain.clone().with_key(anvil.key(1).unwrap());
    let told = Chain::deploy_deterministic(other, options, [7; 32]).await.unwrap_err();
    assert!(matches!(told, ChainError::NotGovernor { .. }), "{told}");
    assert!(told.to_string().contains("--unsigned --from"), "{told}");
    let draft = ChainConfig { draft: Some(Draft { from: Some(governor) }), ..plain.clone() };
    let left = unsigned(Chain::deploy_deterministic(draft.clone(), options, [7; 32]).await);
    assert_eq!((left.calls.len(), left.left), (2, 0), "{left}");
    let all = unsigned(Chain::deploy_deterministic(draft.clone(), options, [8; 32]).await);
    assert_eq!(all.calls.len() + all.left, 12, "{all}");
    assert!(all.left > 0 && all.to_string().contains("more transactions follow"), "{all}");

    let (chain, deployment) =
        Chain::deploy_deterministic(own.clone(), options, [7; 32]).await.unwrap();
    let verified = chain.verify_deployment().await.unwrap().unwrap();
    assert_eq!((verified.timelock_delay, verified.set_version), (7200, 1));
    assert_eq!(chain.timelock().await.unwrap(), deployment.timelock);
    // The same again sends nothing, and finds the same; who signs elsewhere, too.
    for config in [own, draft] {
        let (_, found) = Chain::deploy_deterministic(config, options, [7; 32]).await.unwrap();
        assert_eq!((found.contracts, found.timelock), (deployment.contracts, deployment.timelock));
        assert_eq!((found.block, found.gas), (deployment.block, 0));
    }
}
