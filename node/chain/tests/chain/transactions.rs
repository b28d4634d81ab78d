//! What may happen to a transaction between sending it and its confirmations.

use std::time::Duration;

use alloy::{
    consensus::Transaction as _,
    network::TransactionBuilder,
    primitives::{B256, U256},
    providers::Provider,
    rpc::types::{Transaction, TransactionRequest},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use veil_contracts::assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as AnchorErrors;
use veil_node_chain::{Allowance, Chain, ChainConfig, ChainError, Mined, Refusal};
use veil_protocol_spec::{Address, scheduling::CertificateBody};

use crate::support::{Group, World, eventually};

const ACCOUNT: Address = Address([0x51; 20]);

/// The admin's handle with shorter times.
async fn hasty(world: &World, change: impl FnOnce(&mut ChainConfig)) -> Chain {
    let mut config = ChainConfig::new(world.anvil.url(), world.admin.contracts().directory)
        .with_key(world.anvil.key(0).unwrap());
    config.poll = Duration::from_millis(50);
    change(&mut config);
    Chain::connect(config).await.unwrap()
}

/// Starts to give an account a right.
fn grant(chain: &Chain, world: &World) -> JoinHandle<Result<Mined, ChainError>> {
    let (chain, cluster) = (chain.clone(), world.cluster);
    tokio::spawn(
        async move { chain.set_allowance(cluster, ACCOUNT, Allowance::submit_freely()).await },
    )
}

async fn granted(world: &World) -> bool {
    world.admin.allowance(world.cluster, ACCOUNT).await.unwrap() == Allowance::submit_freely()
}

/// The transactions that wait, whole: one that is replaced meanwhile could not be asked for by hash.
async fn waiting(world: &World) -> Vec<Transaction> {
    let provider = world.provider();
    let content = provider.raw_request::<_, Value>("txpool_content".into(), ());
    let content = content.await.unwrap();
    let pending = content["pending"].as_object().unwrap();
    let of_accounts = pending.values().flat_map(|of| of.as_object().unwrap().values());
    of_accounts.map(|found| serde_json::from_value(found.clone()).unwrap()).collect()
}

async fn first_waiting(world: &World) -> Transaction {
    eventually("a waiting transaction", async || waiting(world).await.into_iter().next()).await
}

fn hash(transaction: &Transaction) -> B256 {
    *transaction.inner.tx_hash()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_is_sent_again() {
    let world = World::new(4).await;
    let chain = hasty(&world, |_| {}).await;
    world.automine(false).await;
    let sent = grant(&chain, &world);
    let first = hash(&first_waiting(&world).await);
    world.control("anvil_dropTransaction", json!([first])).await;
    let again = first_waiting(&world).await;
    assert_eq!(hash(&again), first, "the same bytes");
    world.mine(1).await;
    sent.await.unwrap().unwrap();
    assert!(granted(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_place_another_one_took_is_sent_under_the_next() {
    let world = World::new(4).await;
    let chain = hasty(&world, |_| {}).await;
    let provider = world.provider();
    world.automine(false).await;
    let sent = grant(&chain, &world);
    let nonce = first_waiting(&world).await.nonce();
    // Another program with the same key. It pays more, so that it replaces ours.
    let admin = chain.account().unwrap().0.into();
    let other = TransactionRequest::default()
        .with_from(admin)
        .with_to(admin)
        .with_value(U256::ZERO)
        .with_nonce(nonce)
        .with_gas_limit(21_000)
        .with_max_fee_per_gas(100_000_000_000)
        .with_max_priority_fee_per_gas(50_000_000_000);
    let other = provider.send_transaction(other).await.unwrap();
    let other = *other.tx_hash();
    world.mine(1).await;
    assert!(provider.get_transaction_receipt(other).await.unwrap().is_some());
    // Ours comes again.
    first_waiting(&world).await;
    world.mine(1).await;
    sent.await.unwrap().unwrap();
    assert!(granted(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fee_of_a_stuck_transaction_is_raised() {
    let world = World::new(4).await;
    let chain = hasty(&world, |config| config.stuck_after = Duration::from_millis(500)).await;
    let provider = world.provider();
    world.automine(false).await;
    let sent = grant(&chain, &world);
    let before = first_waiting(&world).await;
    let first = hash(&before);
    // A block that the transaction is too cheap for.
    let dear = before.max_fee_per_gas() * 3;
    world.control("anvil_setNextBlockBaseFeePerGas", json!([U256::from(dear)])).await;
    world.mine(1).await;
    assert!(provider.get_transaction_receipt(first).await.unwrap().is_none(), "it was mined");
    eventually("a higher fee", async || {
        waiting(&world).await.iter().any(|waits| hash(waits) != first).then_some(())
    })
    .await;
    eventually("its block", async || {
        world.mine(1).await;
        sent.is_finished().then_some(())
    })
    .await;
    let mined = sent.await.unwrap().unwrap().transaction;
    let raised = provider.get_transaction_by_hash(mined.0.into()).await.unwrap().unwrap();
    assert_eq!(raised.nonce(), before.nonce(), "the same place");
    assert!(raised.max_fee_per_gas() > before.max_fee_per_gas() * 9 / 8);
    assert!(granted(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_paid_than_allowed() {
    let world = World::new(4).await;
    let allowing = async |most: u128| {
        hasty(&world, |config| {
            config.stuck_after = Duration::from_millis(100);
            config.deadline = Duration::from_secs(2);
            config.max_fee_per_gas = most;
        })
        .await
    };
    world.automine(false).await;
    // Less than the next block asks for, in wei: nothing is sent.
    let error = grant(&allowing(1).await, &world).await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let ChainError::Fee { price, allowed: 1 } = error else { panic!("{error:?}") };
    assert_eq!(waiting(&world).await.len(), 0);
    // As much, and no more: it is sent, and not raised.
    let sent = grant(&allowing(price.into()).await, &world);
    let first = hash(&first_waiting(&world).await);
    let error = sent.await.unwrap().unwrap_err();
    let still: Vec<_> = waiting(&world).await.iter().map(hash).collect();
    assert_eq!(still, [first], "neither raised nor withdrawn");
    assert!(matches!(error, ChainError::NotMined { .. }) && error.is_transient(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_too_long_is_withdrawn() {
    let world = World::new(4).await;
    let chain = hasty(&world, |config| config.deadline = Duration::from_secs(5)).await;
    world.automine(false).await;
    let sent = grant(&chain, &world);
    first_waiting(&world).await;
    // From now on the withdrawal fits into a block, and the transaction does not.
    world.limit_blocks(30_000).await;
    world.control("anvil_setIntervalMining", json!([1])).await;
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, ChainError::Withdrawn { .. }) && error.is_transient(), "{error:?}");
    // Reads are limited like blocks.
    world.limit_blocks(30_000_000).await;
    assert!(!granted(&world).await, "nothing changed");
    // And the account goes on.
    grant(&chain, &world).await.unwrap().unwrap();
    assert!(granted(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_reorganisation_took_away_is_sent_again() {
    let world = World::new(4).await;
    let chain = hasty(&world, |config| config.confirmations = Some(3)).await;
    let sent = grant(&chain, &world);
    eventually("its block", async || granted(&world).await.then_some(())).await;
    assert!(!sent.is_finished(), "one block is not enough");
    world.reorganise(1).await;
    eventually("its next block", async || {
        world.mine(1).await;
        granted(&world).await.then_some(())
    })
    .await;
    world.mine(3).await;
    sent.await.unwrap().unwrap();
    assert!(granted(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_names_the_reason() {
    let world = World::new(4).await.with_members().await;
    let group = Group::generate(world.committee);
    world.publish(0, &group, None).await;
    let certificate = group.certify(world.body(0, 1, CertificateBody::NO_PREVIOUS));
    world.automine(false).await;
    let chain = world.account(3);
    let sent = tokio::spawn(async move { chain.anchor(&certificate).await });
    let provider = world.provider();
    let ours = first_waiting(&world).await;
    // The same by another account that pays more, and so comes first in the block.
    let other = TransactionRequest::default()
        .with_from(world.account(4).account().unwrap().0.into())
        .with_to(ours.to().unwrap())
        .with_input(ours.input().clone())
        .with_gas_limit(500_000)
        .with_max_fee_per_gas(100_000_000_000)
        .with_max_priority_fee_per_gas(50_000_000_000);
    let _ = provider.send_transaction(other).await.unwrap();
    world.mine(1).await;
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, ChainError::Reverted { .. }), "{error:?}");
    let reason = error.refusal().unwrap();
    assert!(matches!(reason, Refusal::Anchor(AnchorErrors::WrongBase(_))), "{reason:?}");
    assert!(reason.is_out_of_order() && error.to_string().contains("anchored already"), "{error}");
}
