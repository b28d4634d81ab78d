//! Following the contracts' events: they settle at a depth, may be undone before, and are caught up with
//! after an absence.

use std::time::Duration;

use veil_node_chain::{Allowance, Chain, ChainConfig, ChainError, ChainEvent, Follower, Update};
use veil_protocol_spec::{Address, scheduling::BlockRef};

use crate::support::{Proxy, World};

/// A handle that acts on what is three blocks deep.
async fn follow(world: &World, url: String, log_range: u64) -> (Chain, Follower) {
    let mut config = ChainConfig::new(url, world.admin.contracts().directory);
    config.depth = Some(3);
    config.log_range = log_range;
    config.poll = Duration::from_millis(50);
    let chain = Chain::connect(config).await.unwrap();
    let (last, _) = chain.block().await.unwrap();
    let from = chain.block_before(last.number + 1).await.unwrap();
    (chain.clone(), chain.follow(from))
}

/// A short text for each update: what happened to whose rights.
fn text(update: &Update<ChainEvent>) -> String {
    let (mark, event) = match update {
        Update::Seen(event) => ('+', event),
        Update::Undone(event) => ('-', event),
        Update::Settled(event) => ('=', event),
    };
    assert_eq!(event.contract, "PolicyRegistry");
    let account = event.arguments["account"].as_str().unwrap();
    format!("{mark}{}", account[2..4].to_lowercase())
}

async fn updates(follower: &mut Follower) -> Vec<String> {
    follower.catch_up().await.unwrap().iter().map(text).collect()
}

async fn grant(world: &World, i: u8) {
    world
        .admin
        .set_allowance(world.cluster, Address([i; 20]), Allowance::submit_freely())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_settle_at_the_depth_and_are_undone_before() {
    let world = World::new(4).await;
    let (chain, mut follower) = follow(&world, world.anvil.url(), 100).await;
    grant(&world, 0x11).await;
    grant(&world, 0x22).await;
    assert_eq!(updates(&mut follower).await, ["+11", "+22"]);
    let settled_before = chain.settled().await.unwrap();

    // The last block, with 0x22, is replaced by an empty one.
    world.reorganise(1).await;
    assert_eq!(updates(&mut follower).await, ["-22"]);
    assert_eq!(
        world.admin.allowance(world.cluster, Address([0x22; 20])).await.unwrap(),
        Allowance::NONE
    );
    grant(&world, 0x33).await;
    world.mine(1).await;
    assert_eq!(updates(&mut follower).await, ["+33", "=11"]);
    world.mine(3).await;
    assert_eq!(updates(&mut follower).await, ["=33"]);
    // What is acted on was never replaced.
    chain.check_block(settled_before).await.unwrap();

    // An empty reorganisation at the same height changes blocks, not events.
    let before: BlockRef = chain.block().await.unwrap().0;
    world.reorganise(2).await;
    assert_ne!(chain.block().await.unwrap().0, before);
    assert!(chain.check_block(before).await.is_err());
    assert_eq!(updates(&mut follower).await, [""; 0]);
    grant(&world, 0x44).await;
    world.mine(3).await;
    assert_eq!(updates(&mut follower).await, ["=44"], "deep enough when it is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_deeper_than_the_depth_is_an_error() {
    let world = World::new(4).await;
    let (_, mut follower) = follow(&world, world.anvil.url(), 100).await;
    grant(&world, 0x11).await;
    world.mine(4).await;
    assert!(updates(&mut follower).await.contains(&"=11".to_owned()));
    world.reorganise(5).await;
    let error = follower.catch_up().await.unwrap_err();
    assert!(matches!(error, ChainError::DeepReorganisation(_)), "{error:?}");
    assert!(error.to_string().contains("chain.depth"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_during_an_absence_is_caught_up_with_in_order() {
    let world = World::new(4).await;
    let proxy = Proxy::start(&world.anvil.url()).await;
    let (chain, mut follower) = follow(&world, proxy.url(), 3).await;
    grant(&world, 0x10).await;
    assert_eq!(updates(&mut follower).await, ["+10"]);
    let position = follower.position();

    proxy.close();
    let error = follower.catch_up().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    for i in 0x11..=0x1f {
        grant(&world, i).await;
        world.mine(1).await;
    }
    proxy.open();
    let expected: Vec<_> = (0x10..=0x1e).map(|i| format!("={i:x}")).collect();
    let caught = updates(&mut follower).await;
    let settled: Vec<_> = caught.iter().filter(|text| text.starts_with('=')).cloned().collect();
    assert_eq!(settled, expected);
    assert!(caught.contains(&"+1f".to_owned()), "{caught:?}");

    // After a restart, from where it was.
    let mut again = chain.follow(position);
    let settled: Vec<_> =
        updates(&mut again).await.into_iter().filter(|text| text.starts_with('=')).collect();
    assert_eq!(settled, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_follower_gets_the_update() {
    let world = World::new(4).await;
    let (_, mut follower) = follow(&world, world.anvil.url(), 100).await;
    let waiting = tokio::spawn(async move { follower.next().await });
    grant(&world, 0x11).await;
    let update = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    assert_eq!(text(&update.unwrap().unwrap()), "+11");
}
