//! Who may connect.

use std::time::Duration;

use veil_node_p2p::{Network, NetworkConfig, NetworkError, Protocol, RequestError};

use crate::cluster::{
    QUIC, TCP, cluster, config, connected, directory, eventually, id, registered, scope, secret,
    start, within,
};

/// The host refuses an unregistered node, which learns why, and accepts it once it is registered.
async fn refuses_unregistered(listen: &str) {
    let (networks, theirs) = cluster(&[1, 2], listen).await;
    let host = networks.first().unwrap();
    connected(host, &[2]).await;

    let own_view = registered(&[1, 2, 3]);
    let unregistered = start(config(3, listen, &host.addresses()), &own_view).await;
    let asked = async {
        loop {
            let request =
                unregistered.request(id(1), Protocol::Sync, vec![], Duration::from_secs(30)).await;
            match request {
                Err(RequestError::Shunned(peer)) => return peer,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(_) => panic!("an unregistered node got an answer"),
            }
        }
    };
    assert_eq!(within("the refusal", asked).await, id(1));
    eventually("the host counts it", || {
        let refusals = host.metrics().refusals();
        refusals.get("connection").is_some_and(|by| by.contains_key("not_registered"))
    })
    .await;
    assert!(!host.connected().borrow().contains(&id(3)));
    assert!(host.connected().borrow().contains(&id(2)), "others are unaffected");
    let to_unregistered = host.request(id(3), Protocol::Sync, vec![], Duration::from_secs(5)).await;
    assert_eq!(to_unregistered, Err(RequestError::NotRegistered(id(3))));

    theirs.send_replace(directory(&[1, 2, 3]));
    connected(host, &[3]).await;
    connected(&networks[1], &[3]).await;

    theirs.send_replace(directory(&[1, 2]));
    for network in &networks {
        let mut watch = network.connected();
        let gone = watch.wait_for(|connected| !connected.contains(&id(3)));
        within("disconnecting", gone).await.unwrap();
    }
    assert!(host.connected().borrow().contains(&id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistered_peers_are_refused_over_quic() {
    refuses_unregistered(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistered_peers_are_refused_over_tcp() {
    refuses_unregistered(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_register_after_the_start_are_connected() {
    let directory_1 = registered(&[1]);
    let a = start(config(1, QUIC, &[]), &directory_1).await;
    let directory_2 = registered(&[2]);
    let b = start(config(2, QUIC, &a.addresses()), &directory_2).await;
    assert!(b.connected().borrow().is_empty());
    directory_2.send_replace(directory(&[1, 2]));
    directory_1.send_replace(directory(&[1, 2]));
    connected(&a, &[2]).await;
    connected(&b, &[1]).await;
}

#[tokio::test]
async fn wrong_addresses_are_named() {
    let directory = registered(&[1]);
    let mut config = NetworkConfig::new(secret(1), scope(1));
    config.bootstrap = vec!["/ip4/127.0.0.1/tcp/7000".parse().unwrap()];
    let error = Network::start(config, directory.subscribe()).await.unwrap_err();
    assert!(matches!(error, NetworkError::Bootstrap(_)), "{error}");

    for listen in [QUIC, TCP] {
        let holder = start(crate::cluster::config(1, listen, &[]), &directory).await;
        let mut config = NetworkConfig::new(secret(1), scope(1));
        let mut taken = holder.addresses()[0].clone();
        taken.pop();
        config.listen = vec![taken];
        let error = Network::start(config, directory.subscribe()).await.unwrap_err();
        assert!(matches!(error, NetworkError::Listen { .. }), "{error}");
    }
}
