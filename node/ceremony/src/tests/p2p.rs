//! The same over real sockets on loopback.

use tokio::sync::watch;
use veil_node_p2p::{Directory, Multiaddr, Network, NetworkConfig, Peer};
use veil_protocol_spec::registry::Roles;

use super::*;

struct Node {
    network: Network,
    running: Running,
    _directory: watch::Sender<Arc<Directory>>,
}

async fn start(cluster: &Cluster, j: ParticipantIndex, bootstrap: &[Multiaddr]) -> Node {
    let roles = Roles { worker: false, member: true };
    let peers = seats().map(|j| Peer { identity: identity(j).public(), roles });
    let (sender, directory) = watch::channel(Arc::new(peers.collect::<Directory>()));
    let mut config = NetworkConfig::new(identity(j), scope());
    config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    config.bootstrap = bootstrap.to_vec();
    let network = Network::start(config, directory).await.unwrap();
    let member = cluster.member(j, cluster.chain.of(j)).await;
    let Member { options, data, chain, status, .. } = member;
    let transports = P2pTransports::new(network.clone());
    let member = Member { options, data, transports, chain, status: status.clone() };
    let task = tokio::spawn(async move { join(&member, 1, &CancellationToken::new()).await });
    Node { network, running: Running { task, status }, _directory: sender }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceremony_over_the_network_survives_a_member_killed_in_the_middle() {
    let cluster = Cluster::new();
    let first = start(&cluster, seat(1), &[]).await;
    let bootstrap = first.network.addresses();
    let mut nodes = vec![first];
    for j in seats().skip(1) {
        nodes.push(start(&cluster, j, &bootstrap).await);
    }
    let victim = nodes.remove(2);
    reaches(&victim.running, "open-bits").await;
    victim.network.stop().await;
    victim.running.task.abort();
    let _ = victim.running.task.await;
    nodes.insert(2, start(&cluster, seat(3), &bootstrap).await);
    let mut keys = Vec::new();
    for node in nodes {
        keys.push(outcome(node.running).await.unwrap().key_set);
        drop(node.network);
    }
    assert!(keys.iter().all(|key| *key == keys[0]));
}
