//! Nodes of a test cluster, and waiting for conditions.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use veil_node_p2p::{
    Directory, Health, Liveness, Multiaddr, Network, NetworkConfig, Peer, PublishError, SwimConfig,
    Topic,
};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, PeerIdHash, identity::SecretIdentity, registry::Roles,
    scheduling::ClusterScope,
};

/// Far more than any step takes: only a fault reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

pub(crate) fn secret(node: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[node; 32]).unwrap()
}

pub(crate) fn id(node: u8) -> PeerIdHash {
    PeerIdHash::of(&secret(node).public())
}

pub(crate) fn scope(cluster: u8) -> ClusterScope {
    ClusterScope {
        chain_id: ChainId(31337),
        contract: Address([1; 20]),
        cluster: ClusterId([cluster; 32]),
    }
}

pub(crate) fn directory(nodes: &[u8]) -> Arc<Directory> {
    let roles = Roles { worker: true, member: true };
    let peers = nodes.iter().map(|node| Peer { identity: secret(*node).public(), roles });
    Arc::new(peers.collect())
}

pub(crate) fn registered(nodes: &[u8]) -> watch::Sender<Arc<Directory>> {
    watch::Sender::new(directory(nodes))
}

pub(crate) fn config(node: u8, listen: &str, bootstrap: &[Multiaddr]) -> NetworkConfig {
    let mut config = NetworkConfig::new(secret(node), scope(1));
    config.listen = vec![listen.parse().unwrap()];
    config.bootstrap = bootstrap.to_vec();
    config.swim = SwimConfig {
        probe_period: Duration::from_millis(500),
        probe_rtt: Duration::from_millis(200),
        indirect_probes: 2,
        suspicion: Duration::from_secs(1),
        incarnation: 0,
    };
    config
}

pub(crate) async fn start(
    config: NetworkConfig,
    directory: &watch::Sender<Arc<Directory>>,
) -> Network {
    // `RUST_LOG` shows what the networks do; an error means that another test has set up the log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Network::start(config, directory.subscribe()).await.unwrap()
}

/// Starts the nodes; the first is the bootstrap peer of the others.
pub(crate) async fn cluster(
    nodes: &[u8],
    listen: &str,
) -> (Vec<Network>, watch::Sender<Arc<Directory>>) {
    let directory = registered(nodes);
    let mut networks: Vec<Network> = Vec::new();
    for node in nodes {
        let bootstrap = networks.first().map(Network::addresses).unwrap_or_default();
        networks.push(start(config(*node, listen, &bootstrap), &directory).await);
    }
    (networks, directory)
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let result = timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits until a connection to each of `peers` is open.
pub(crate) async fn connected(network: &Network, peers: &[u8]) {
    let mut watch = network.connected();
    let all = watch.wait_for(|connected| peers.iter().all(|peer| connected.contains(&id(*peer))));
    within("connecting", all).await.unwrap();
}

/// Waits until the health of a peer, as `network` knows it, satisfies `is`.
pub(crate) async fn health(network: &Network, peer: u8, is: impl Fn(Option<Health>) -> bool) {
    let mut watch = network.liveness();
    let known = watch.wait_for(|liveness: &Liveness| is(liveness.get(&id(peer))));
    within("liveness", known).await.unwrap();
}

/// Polls until `condition` holds; once true, it must stay true.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, poll).await;
}

/// Publishes, and tries again as long as no subscriber is known.
pub(crate) async fn publish(network: &Network, topic: Topic, bytes: &[u8]) {
    let published = async {
        loop {
            match network.publish(topic, bytes.to_vec()).await {
                Err(PublishError::NoPeers(_)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                result => return result,
            }
        }
    };
    within("publishing", published).await.unwrap();
}
