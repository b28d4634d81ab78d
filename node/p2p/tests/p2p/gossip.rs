//! Gossip between honest nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use veil_node_p2p::{Gossip, Network, Protocol, PublishError, RequestError, Topic};

use crate::cluster::{
    QUIC, TCP, cluster, config, connected, id, publish, registered, scope, start, within,
};

/// The first node publishes numbered messages until each of the others has received one; they accept
/// all.
async fn reaches_all(listen: &str) {
    let nodes = [1, 2, 3, 4, 5];
    let (networks, _directory) = cluster(&nodes, listen).await;
    // Each node is given only the bootstrap peer: SWIM spreads the other addresses.
    for (network, node) in networks.iter().zip(nodes) {
        let others: Vec<u8> = nodes.into_iter().filter(|other| *other != node).collect();
        connected(network, &others).await;
    }
    let received = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::new();
    for network in networks.iter().skip(1) {
        let mut queue = network.subscribe(Topic::Certificates);
        let received = Arc::clone(&received);
        readers.push(tokio::spawn(async move {
            let gossip: Gossip = queue.recv().await.unwrap();
            gossip.accept();
            assert_eq!(gossip.author, id(1));
            assert!(gossip.bytes.starts_with(b"certificate "));
            received.fetch_add(1, Ordering::SeqCst);
        }));
    }
    let publisher = networks.first().unwrap();
    let publishing = async {
        for number in 0.. {
            publish(publisher, Topic::Certificates, format!("certificate {number}").as_bytes())
                .await;
            if received.load(Ordering::SeqCst) == 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within("gossip to all", publishing).await;
    for reader in readers {
        within("reader", reader).await.unwrap();
    }
    let traffic = publisher.traffic();
    assert!(traffic.topics[&Topic::Certificates].sent >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_reaches_all_of_five_over_quic() {
    reaches_all(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_reaches_all_of_five_over_tcp() {
    reaches_all(TCP).await;
}

/// In a line a - b - c, b relays to c what it accepts, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn only_accepted_messages_travel_on() {
    // b must relay because a and c cannot connect: both announce an address that nobody listens on.
    // All three are registered, as c would ignore a message of an unregistered author.
    let directory = registered(&[1, 2, 3]);
    let b = start(config(2, TCP, &[]), &directory).await;
    let line = |node| {
        let mut config = config(node, TCP, &b.addresses());
        config.announce = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
        config
    };
    let a = start(line(1), &directory).await;
    let c = start(line(3), &directory).await;
    connected(&b, &[1, 3]).await;

    let mut at_b = b.subscribe(Topic::Jobs);
    let mut at_c = c.subscribe(Topic::Jobs);
    let relay = tokio::spawn(async move {
        while let Some(gossip) = at_b.recv().await {
            match gossip.bytes.first() {
                Some(b'y') => gossip.accept(),
                Some(b'n') => gossip.ignore(),
                _ => gossip.reject("neither yes nor no"),
            }
        }
    });
    // b accepts the last message; when it has reached c, so have all others that b relayed.
    let exchange = async {
        for number in 0.. {
            publish(&a, Topic::Jobs, format!("no {number}").as_bytes()).await;
            publish(&a, Topic::Jobs, format!("yes {number}").as_bytes()).await;
            let next = tokio::time::timeout(Duration::from_millis(500), at_c.recv()).await;
            if let Ok(Some(gossip)) = next {
                return gossip;
            }
        }
        unreachable!("the loop has no end");
    };
    let gossip = within("relayed gossip", exchange).await;
    assert_eq!(gossip.author, id(1));
    assert!(gossip.bytes.starts_with(b"yes"), "{:?}", gossip.bytes);
    while let Ok(gossip) = at_c.try_recv() {
        assert!(gossip.bytes.starts_with(b"yes"), "{:?}", gossip.bytes);
    }
    assert!(!a.connected().borrow().contains(&id(3)), "a and c must not be connected directly");
    relay.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_shares_nothing() {
    let directory = registered(&[1, 2]);
    let a = start(config(1, QUIC, &[]), &directory).await;
    let mut foreign = config(2, QUIC, &a.addresses());
    foreign.scope = scope(2);
    let b = start(foreign, &directory).await;
    connected(&b, &[1]).await;

    let _queue = a.subscribe(Topic::Telemetry);
    let _served = a.serve(Protocol::Sync);
    let request = b.request(id(1), Protocol::Sync, vec![1], Duration::from_secs(60)).await;
    assert!(
        matches!(request, Err(RequestError::Unsupported(peer, _)) if peer == id(1)),
        "{request:?}"
    );
    // The request came back after a full negotiation, so subscriptions would have, too.
    let published = b.publish(Topic::Telemetry, vec![1]).await;
    assert_eq!(published, Err(PublishError::NoPeers(Topic::Telemetry)));
    assert!(a.liveness().borrow().get(&id(2)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_loses_messages_and_holds_up_nobody() {
    let directory = registered(&[1, 2]);
    let a = start(config(1, QUIC, &[]), &directory).await;
    let mut slow = config(2, QUIC, &a.addresses());
    slow.limits.queue = 1;
    let b = start(slow, &directory).await;
    let mut unread = b.subscribe(Topic::Suspicions);
    connected(&a, &[2]).await;

    let dropped = |network: &Network| {
        network.traffic().topics.get(&Topic::Suspicions).map_or(0, |count| count.dropped)
    };
    let flood = async {
        for number in 0_u32.. {
            publish(&a, Topic::Suspicions, &number.to_le_bytes()).await;
            if dropped(&b) > 0 {
                return;
            }
        }
    };
    within("a full queue", flood).await;
    // b still answers while its subscriber sleeps.
    let mut served = b.serve(Protocol::Signing);
    tokio::spawn(async move { served.recv().await.unwrap().respond(vec![9]) });
    let protocol = Protocol::Signing;
    let answer = a.request(id(2), protocol, vec![1], Duration::from_secs(60)).await;
    assert_eq!(answer, Ok(vec![9]));
    assert!(unread.recv().await.is_some());
}
