//! SWIM.

use std::time::Duration;

use veil_node_p2p::{Gossip, Health, Network, Protocol, Topic};

use crate::cluster::{
    QUIC, TCP, cluster, config, connected, health, id, publish, registered, start, within,
};

fn alive(health: Option<Health>) -> bool {
    health == Some(Health::Alive)
}

fn down(health: Option<Health>) -> bool {
    matches!(health, Some(Health::Down { .. }))
}

async fn notices_stop_and_restart(listen: &str) {
    let nodes = [1, 2, 3, 4];
    let (networks, directory) = cluster(&nodes, listen).await;
    for network in &networks {
        for node in nodes {
            if network.me() != id(node) {
                health(network, node, alive).await;
            }
        }
    }
    networks[3].stop().await;
    for network in &networks[..3] {
        health(network, 4, down).await;
    }
    // The node has a new port; the others learn it from the new record.
    let again = start(config(4, listen, &networks[1].addresses()), &directory).await;
    for network in &networks[..3] {
        health(network, 4, alive).await;
        connected(network, &[4]).await;
    }
    for node in [1, 2, 3] {
        health(&again, node, alive).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_down_and_alive_again_after_a_restart_over_quic() {
    notices_stop_and_restart(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_down_and_alive_again_after_a_restart_over_tcp() {
    notices_stop_and_restart(TCP).await;
}

/// Two processes with one identity, both connected to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_identity_the_earlier_incarnation_is_told() {
    let nodes = [1, 2, 3, 4];
    let (networks, directory) = cluster(&nodes, QUIC).await;
    for network in &networks[..3] {
        health(network, 4, alive).await;
    }
    let mut later = config(4, QUIC, &networks[0].addresses());
    later.swim.incarnation = 7;
    let later = start(later, &directory).await;
    let told = |network: &Network| {
        let mut liveness = network.liveness();
        async move {
            within("being told", liveness.wait_for(|known| known.is_superseded())).await.unwrap();
        }
    };
    told(&networks[3]).await;
    networks[3].stop().await;
    // The earlier one is started once more, and is told again: a later start makes no later incarnation.
    let earlier = start(config(4, QUIC, &networks[1].addresses()), &directory).await;
    told(&earlier).await;
    earlier.stop().await;
    for network in &networks[..3] {
        health(network, 4, alive).await;
    }
    assert!(!later.liveness().borrow().is_superseded());
}

/// Gossip of `author` comes out of `queue`.
async fn hears(mut queue: tokio::sync::mpsc::Receiver<Gossip>, author: &Network) {
    let publishing = async {
        for number in 0.. {
            publish(author, Topic::Certificates, format!("certificate {number}").as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let heard = async {
        tokio::select! {
            gossip = queue.recv() => gossip.unwrap().accept(),
            () = publishing => {}
        }
    };
    within("gossip", heard).await;
}

/// An address of the loopback network that belongs to this run: no other test takes a port there
/// while the node is away.
fn own_loopback() -> String {
    let [a, b, c] = rand::random::<[u8; 3]>();
    format!("127.{}.{b}.{}", a.max(1), c.clamp(1, 254))
}

/// A killed node sends nothing more; it comes back at its old address, while the other node may
/// still hold connections to the previous run.
async fn comes_back_after_a_kill(listen: &str) {
    let listen = &listen.replace("127.0.0.1", &own_loopback());
    let directory = registered(&[1, 2]);
    let a = start(config(1, listen, &[]), &directory).await;
    // Only the new run has not been told of this yet when it is back.
    let subscribed = a.subscribe(Topic::Certificates);
    let bootstrap = a.addresses();

    let process = tokio::runtime::Runtime::new().unwrap();
    let first = config(2, listen, &bootstrap);
    let view = directory.clone();
    let killed = process.spawn(async move { start(first, &view).await }).await.unwrap();
    let mut address = killed.addresses().remove(0);
    address.pop();
    health(&a, 2, alive).await;
    // Dropped tasks send nothing more, on any layer.
    process.shutdown_background();

    let again = async {
        loop {
            // The port is free once the runtime has ended.
            let config = config(2, &address.to_string(), &bootstrap);
            match Network::start(config, directory.subscribe()).await {
                Ok(network) => return network,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let again = within("the old port", again).await;
    let mut served = again.serve(Protocol::Sync);
    let server = tokio::spawn(async move {
        while let Some(request) = served.recv().await {
            request.respond(vec![2]);
        }
    });
    let asked = async {
        while a.request(id(2), Protocol::Sync, vec![], Duration::from_secs(5)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("an answer of the new run", asked).await;
    health(&a, 2, alive).await;
    health(&again, 1, alive).await;
    hears(subscribed, &again).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_at_its_old_address_over_quic() {
    comes_back_after_a_kill(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_at_its_old_address_over_tcp() {
    comes_back_after_a_kill(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_leave_needs_no_suspicion() {
    let directory = registered(&[1, 2, 3]);
    let mut networks = Vec::new();
    for node in [1, 2, 3] {
        let bootstrap = networks.first().map(Network::addresses);
        let mut config = config(node, QUIC, &bootstrap.unwrap_or_default());
        // A suspicion would last longer than the deadline of this test.
        config.swim.suspicion = Duration::from_secs(3600);
        networks.push(start(config, &directory).await);
    }
    health(&networks[0], 3, alive).await;
    health(&networks[1], 3, alive).await;
    networks[2].leave().await;
    health(&networks[0], 3, down).await;
    health(&networks[1], 3, down).await;
}
