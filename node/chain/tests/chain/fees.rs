//! The fee pool at real prices: steps are paid back, and never more than they cost.

use alloy::{primitives::U256, providers::Provider};
use veil_contracts::{
    fee_pool::FeePool::FeePoolErrors as FeeErrors,
    node_registry::NodeRegistry::NodeRegistryErrors as RegistryErrors,
};
use veil_node_chain::Chain;
use veil_node_chain_fees::Fees;
use veil_protocol_spec::scheduling::CertificateBody;

use crate::support::{Group, World, assert_refused};

const DEPOSIT: u128 = 1_000_000_000_000_000_000;

async fn balance(world: &World, of: &Chain) -> U256 {
    let account = of.account().unwrap();
    world.provider().get_balance(account.0.into()).await.unwrap()
}

/// That a transaction is paid back nearly, and not more than it cost.
fn assert_paid_back(cost: U256, owed: U256) {
    assert!(owed <= cost && owed * U256::from(10) >= cost * U256::from(7), "{owed} of {cost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_paid_back_from_the_clusters_pool() {
    let world = World::new(4).await.with_members().await;
    let group = Group::generate(world.committee);
    let fees = Fees(&world.admin);
    let (publisher, anchorer) = (world.account(7), world.account(6));
    let [publisher_is, anchorer_is] = [&publisher, &anchorer].map(|of| of.account().unwrap());

    // What is empty fails nothing.
    world.publish(0, &group, None).await;
    assert_eq!(fees.owed(publisher_is).await.unwrap(), U256::ZERO);
    assert_refused!(fees.withdraw(publisher_is).await, Fees(FeeErrors::NothingOwed(_)));
    assert_refused!(fees.deposit(world.cluster, 0).await, Fees(FeeErrors::EmptyFee(_)));

    fees.deposit(world.cluster, DEPOSIT).await.unwrap();
    let first = world.body(0, 3, CertificateBody::NO_PREVIOUS);
    let before = balance(&world, &anchorer).await;
    let mined = anchorer.anchor(&group.certify(first)).await.unwrap();
    let cost = before - balance(&world, &anchorer).await;
    let owed = fees.owed(anchorer_is).await.unwrap();
    eprintln!("gas of anchor, first, refunded: {}; cost {cost}, owed {owed}", mined.gas);
    assert_paid_back(cost, owed);
    let pool = fees.pool(world.cluster).await.unwrap();
    assert_eq!(U256::from(pool.balance_wei) + owed, U256::from(DEPOSIT));
    assert_eq!((pool.anchor_interval, pool.anchor_refunded_at > 0), (60, true));
    // The certificates are where they were.
    let head = world.admin.head(world.cluster).await.unwrap().unwrap();
    assert_eq!((head.hash, head.epoch, head.count), (first.hash(), first.binding.epoch, 1));

    // What is refused is refused by the contract that does it.
    let replay = anchorer.anchor(&group.certify(first)).await;
    assert!(replay.unwrap_err().refusal().unwrap().is_out_of_order());
    // Too soon to be paid back.
    let second = world.body(0, 4, first.hash());
    anchorer.anchor(&group.certify(second)).await.unwrap();
    assert_eq!(fees.owed(anchorer_is).await.unwrap(), owed);
    assert_refused!(
        Fees(&anchorer).set_anchor_interval(world.cluster, 1).await,
        Registry(RegistryErrors::NotClusterAdmin(_))
    );
    fees.set_anchor_interval(world.cluster, 1).await.unwrap();
    world.pass(2).await;
    anchorer.anchor(&group.certify(world.body(0, 5, second.hash()))).await.unwrap();
    let all = fees.owed(anchorer_is).await.unwrap();
    assert!(all > owed, "{all}");

    // Anybody takes it out for the account.
    let before = balance(&world, &anchorer).await;
    fees.withdraw(anchorer_is).await.unwrap();
    assert_eq!(balance(&world, &anchorer).await, before + all);
    assert_eq!(fees.owed(anchorer_is).await.unwrap(), U256::ZERO);

    let before = balance(&world, &publisher).await;
    world.publish(1, &Group::generate(world.committee), Some(&group)).await;
    let cost = before - balance(&world, &publisher).await;
    assert_paid_back(cost, fees.owed(publisher_is).await.unwrap());
}
