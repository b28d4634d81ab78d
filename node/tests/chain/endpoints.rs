//! Several endpoints: failing over, coming back, and one of another chain.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use veil_node::chain::{
    Allowance, Chain, ChainConfig, ChainError,
    anvil::{Anvil, AnvilConfig},
};
use veil_protocol_spec::{Address, ChainId};

use crate::support::{Proxy, World};

/// A handle on the world's contracts behind these endpoints.
async fn connect(world: &World, urls: Vec<String>) -> Result<Chain, ChainError> {
    let config = ChainConfig::new(urls, world.admin.contracts().directory);
    Chain::connect(config.with_key(world.anvil.key(0).unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_is_used_when_one_fails() {
    let world = World::new(4).await;
    let (mut first, mut second) =
        (Proxy::start(&world.anvil.url()).await, Proxy::start(&world.anvil.url()).await);
    let chain = connect(&world, vec![first.url(), second.url()]).await.unwrap();
    let set = async |i: u8| {
        chain.set_allowance(world.cluster, Address([i; 20]), Allowance::submit_freely()).await
    };
    set(1).await.unwrap();
    assert!(chain.endpoints().iter().all(|endpoint| endpoint.healthy));

    first.stop().await;
    set(2).await.unwrap();
    let status = chain.endpoints();
    assert_eq!((status[0].healthy, status[1].healthy), (false, true), "{status:?}");
    assert_eq!(status[0].url, first.url());

    // Back again, while the other one goes: the rest of the first is over or not, it is asked.
    first.restart().await;
    second.stop().await;
    set(3).await.unwrap();
    assert!(chain.endpoints()[0].healthy && !chain.endpoints()[1].healthy);

    first.stop().await;
    let error = set(4).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&first.url()) && said.contains(&second.url()), "{said}");

    second.restart().await;
    set(5).await.unwrap();
    for i in [1, 2, 3, 5] {
        let rights = world.admin.allowance(world.cluster, Address([i; 20])).await.unwrap();
        assert_eq!(rights, Allowance::submit_freely(), "{i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_left_in_time() {
    let world = World::new(4).await;
    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let listening = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            connections.push(connection);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let chain = connect(&world, vec![url, world.anvil.url()]).await.unwrap();
    let before = asked.load(Ordering::SeqCst);
    assert!(before > 0);
    chain.block().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), before, "it is not asked first again");
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_is_refused_by_name() {
    let world = World::new(4).await;
    let config = AnvilConfig { chain_id: Some(ChainId(5)), ..AnvilConfig::default() };
    let other = Anvil::start(config).await.unwrap();
    let directory = world.admin.contracts().directory;
    let expecting = |urls: Vec<String>| ChainConfig {
        chain_id: Some(ChainId(31_337)),
        ..ChainConfig::new(urls, directory)
    };
    let chain = Chain::connect(expecting(vec![other.url(), world.anvil.url()])).await.unwrap();
    assert_eq!(chain.chain_id(), ChainId(31_337));
    let status = chain.endpoints();
    let fault = status[0].fault.clone().unwrap();
    assert!(fault.contains("chain 5") && status[0].url == other.url(), "{status:?}");

    let only = Chain::connect(expecting(vec![other.url()])).await.unwrap_err();
    let said = only.to_string();
    assert!(matches!(only, ChainError::WrongChain { found: ChainId(5), .. }), "{only:?}");
    assert!(said.contains(&other.url()) && !only.is_transient(), "{said}");

    // Without a configured chain the first that answers decides, and the others have to agree.
    let mut proxy = Proxy::start(&world.anvil.url()).await;
    let urls = vec![proxy.url(), other.url()];
    let chain = Chain::connect(ChainConfig::new(urls, directory)).await.unwrap();
    proxy.stop().await;
    let error = chain.block().await.unwrap_err().to_string();
    assert!(error.contains("it serves chain 5, not 31337"), "{error}");
}
