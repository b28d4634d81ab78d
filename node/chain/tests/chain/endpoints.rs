//! Several endpoints: failing over, coming back, and one of another chain.

use std::net::TcpListener;

use veil_node_chain::{
    Allowance, Chain, ChainConfig, ChainError,
    anvil::{Anvil, AnvilConfig},
};
use veil_protocol_spec::{Address, ChainId};

use crate::support::{Limiting, Proxy, World};

/// A handle on the world's contracts behind these endpoints.
async fn connect(world: &World, urls: Vec<String>) -> Result<Chain, ChainError> {
    let config = ChainConfig::new(urls, world.admin.contracts().directory);
    Chain::connect(config.with_key(world.anvil.key(0).unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_is_used_when_one_fails() {
    let world = World::new(4).await;
    let (first, second) =
        (Proxy::start(&world.anvil.url()).await, Proxy::start(&world.anvil.url()).await);
    let chain = connect(&world, vec![first.url(), second.url()]).await.unwrap();
    let set = async |i: u8| {
        chain.set_allowance(world.cluster, Address([i; 20]), Allowance::submit_freely()).await
    };
    set(1).await.unwrap();
    assert!(chain.endpoints().iter().all(|endpoint| endpoint.healthy));

    first.close();
    set(2).await.unwrap();
    let status = chain.endpoints();
    assert_eq!((status[0].healthy, status[1].healthy), (false, true), "{status:?}");
    assert_eq!(status[0].url, first.url());

    // The first answers again and the second does not: the first is asked, in backoff or not.
    first.open();
    second.close();
    set(3).await.unwrap();
    assert!(chain.endpoints()[0].healthy && !chain.endpoints()[1].healthy);

    first.close();
    let error = set(4).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&first.url()) && said.contains(&second.url()), "{said}");

    second.open();
    set(5).await.unwrap();
    for i in [1, 2, 3, 5] {
        let rights = world.admin.allowance(world.cluster, Address([i; 20])).await.unwrap();
        assert_eq!(rights, Allowance::submit_freely(), "{i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_not_asked_first_again() {
    let world = World::new(4).await;
    // It takes connections into its backlog and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let connections = || silent.incoming().take_while(Result::is_ok).count();
    let chain = connect(&world, vec![url, world.anvil.url()]).await.unwrap();
    assert!(connections() > 0, "it is the first in the configuration");
    chain.block().await.unwrap();
    assert_eq!(connections(), 0);
}

/// Providers say so with a body that would be an answer, under whatever status.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_limits_requests_is_left_for_the_next_one() {
    let world = World::new(4).await;
    for status in ["429 Too Many Requests", "200 OK"] {
        let limiting = Limiting::start(status, 31_337).await;
        let chain = connect(&world, vec![limiting.url(), world.anvil.url()]).await.unwrap();
        chain.set_allowance(world.cluster, Address([1; 20]), Allowance::NONE).await.unwrap();
        let found = chain.endpoints();
        assert!(!found[0].healthy && found[1].healthy, "{status}: {found:?}");
        assert!(found[0].fault.as_ref().unwrap().contains("request rate limited"), "{found:?}");

        // Where there is no other, it is waited for.
        let only = connect(&world, vec![limiting.url()]).await.unwrap_err();
        assert!(only.is_transient(), "{only:?}");
        assert!(only.to_string().contains("it limits requests"), "{only}");
    }
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

    // Without a configured chain the first endpoint that answers decides, and the others have to agree.
    let proxy = Proxy::start(&world.anvil.url()).await;
    let urls = vec![proxy.url(), other.url()];
    let chain = Chain::connect(ChainConfig::new(urls, directory)).await.unwrap();
    proxy.close();
    let error = chain.block().await.unwrap_err().to_string();
    assert!(error.contains("it serves chain 5, not 31337"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_is_asked_alone() {
    let world = World::new(4).await;
    let (first, second) =
        (Proxy::start(&world.anvil.url()).await, Proxy::start(&world.anvil.url()).await);
    let chain = connect(&world, vec![first.url(), second.url()]).await.unwrap();
    let alone = chain.each_endpoint().await.unwrap();
    assert_eq!(alone.len(), 2);
    second.close();
    alone[0].block().await.unwrap();
    assert!(alone[1].block().await.is_err(), "the first does not answer for it");
    assert!(chain.each_endpoint().await.unwrap_err().is_transient());
}
