//! SWIM.

use std::time::Duration;

use veil_node::p2p::Health;

use crate::cluster::{QUIC, TCP, cluster, config, connected, health, registered, start};

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
            if network.me() != crate::cluster::id(node) {
                health(network, node, alive).await;
            }
        }
    }
    networks[3].stop().await;
    for network in &networks[..3] {
        health(network, 4, down).await;
    }
    // On a new port; the others learn it from the new record.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_needs_no_suspicion() {
    let directory = registered(&[1, 2, 3]);
    let mut networks = Vec::new();
    for node in [1, 2, 3] {
        let bootstrap = networks.first().map(veil_node::p2p::Network::addresses);
        let mut config = config(node, QUIC, &bootstrap.unwrap_or_default());
        // A suspicion would take longer than this test may.
        config.swim.suspicion = Duration::from_secs(3600);
        networks.push(start(config, &directory).await);
    }
    health(&networks[0], 3, alive).await;
    health(&networks[1], 3, alive).await;
    networks[2].leave().await;
    health(&networks[0], 3, down).await;
    health(&networks[1], 3, down).await;
}
