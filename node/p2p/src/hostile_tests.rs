//! A registered peer that speaks libp2p by itself and breaks the rules of this network.

mod floods;

use std::{sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder,
    gossipsub::{self, MessageAuthenticity, ValidationMode},
    noise,
    swarm::NetworkBehaviour,
    tcp, yamux,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use veil_protocol_spec::{
    Address, ChainId, ClusterId, PeerIdHash, PublicIdentity, identity::SecretIdentity,
    registry::Roles, scheduling::ClusterScope,
};

use crate::{
    config::{Limits, NetworkConfig},
    directory::{Directory, Peer},
    error::RequestError,
    gossip::Topics,
    identity,
    kind::{Protocol, Topic, scope_tag},
    network::Network,
};

const DEADLINE: Duration = Duration::from_secs(120);
const SCOPE: ClusterScope = ClusterScope {
    chain_id: ChainId(31337),
    contract: Address([1; 20]),
    cluster: ClusterId([1; 32]),
};

#[derive(NetworkBehaviour)]
struct Hostile {
    streams: libp2p_stream::Behaviour,
    gossip: gossipsub::Behaviour,
}

fn secret(node: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[node; 32]).unwrap()
}

fn id(node: u8) -> PeerIdHash {
    PeerIdHash::of(&secret(node).public())
}

/// The victim 1 and its honest peer 2, both members. The hostile peers are registered too: 3 as a
/// member, 4 as a worker. The sender keeps the directory alive.
async fn cluster() -> (Network, Network, watch::Sender<Arc<Directory>>) {
    cluster_with(|_| {}).await
}

/// The same, with other bounds of the victim.
async fn cluster_with(
    bound: impl FnOnce(&mut Limits),
) -> (Network, Network, watch::Sender<Arc<Directory>>) {
    let peers = [1, 2, 3, 4].map(|node| {
        let roles = Roles { worker: true, member: node != 4 };
        Peer { identity: secret(node).public(), roles }
    });
    let directory = watch::Sender::new(Arc::new(Directory::from_iter(peers)));
    let mut config = NetworkConfig::new(secret(1), SCOPE);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    bound(&mut config.limits);
    let victim = Network::start(config, directory.subscribe()).await.unwrap();
    let mut config = NetworkConfig::new(secret(2), SCOPE);
    config.bootstrap = victim.addresses();
    let honest = Network::start(config, directory.subscribe()).await.unwrap();
    (victim, honest, directory)
}

fn hostile(victim: &Network, gossip_bytes: usize) -> Swarm<Hostile> {
    hostile_as(3, victim, gossip_bytes)
}

fn hostile_as(node: u8, victim: &Network, gossip_bytes: usize) -> Swarm<Hostile> {
    let key = identity::keypair(&secret(node)).unwrap();
    let scope = scope_tag(&SCOPE);
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("/veil/{scope}/meshsub"))
        .validation_mode(ValidationMode::Strict)
        .max_transmit_size(gossip_bytes)
        .flood_publish(true)
        .build()
        .unwrap();
    let authenticity = MessageAuthenticity::Signed(key.clone());
    let gossip = gossipsub::Behaviour::new(authenticity, config).unwrap();
    let streams = libp2p_stream::Behaviour::new();
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Hostile { streams, gossip })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    swarm.dial(victim.addresses()[0].clone()).unwrap();
    swarm
}

/// How often the victim has refused something for this reason.
fn refused(victim: &Network, protocol: &str, reason: &str) -> u64 {
    let refusals = victim.metrics().refusals();
    refusals.get(protocol).and_then(|by| by.get(reason)).copied().unwrap_or_default()
}

fn stream_name(lane: &str) -> StreamProtocol {
    let scope = scope_tag(&SCOPE);
    StreamProtocol::try_from_owned(format!("/veil/{scope}/{lane}/1")).unwrap()
}

fn frame(version: u8, tag: u8, len: u32) -> Vec<u8> {
    let mut frame = vec![version, tag];
    frame.extend_from_slice(&len.to_le_bytes());
    frame
}

/// Keeps the hostile swarm going.
fn spawn(mut swarm: Swarm<Hostile>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

async fn wait_for_peer(network: &Network, peer: u8) {
    let mut connected = network.connected();
    let there = connected.wait_for(|connected| connected.contains(&id(peer)));
    timeout(DEADLINE, there).await.unwrap().unwrap();
}

/// The honest peer still gets an answer from the victim.
async fn is_unaffected(victim: &Network, honest: &Network) {
    wait_for_peer(victim, 2).await;
    let mut served = victim.serve(Protocol::Signing);
    let server = tokio::spawn(async move { served.recv().await.unwrap().respond(vec![1]) });
    // A request may overtake `serve`, which the victim's task has not seen yet then.
    let answer = loop {
        let answer = honest.request(id(1), Protocol::Signing, vec![0], DEADLINE).await;
        if !matches!(answer, Err(RequestError::Unsupported(..))) {
            break answer;
        }
    };
    assert_eq!(answer, Ok(vec![1]));
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_refused_and_harm_nobody() {
    let (victim, honest, _directory) = cluster().await;
    let mut served = victim.serve(Protocol::Ceremony);
    let swarm = hostile(&victim, 1024);
    let mut control = swarm.behaviour().streams.new_control();
    let task = spawn(swarm);
    wait_for_peer(&victim, 3).await;

    let tag = |protocol| protocol as u8;
    // (lane, bytes, the tag of the answer; none if the stream just ends)
    let cases = [
        ("request", frame(2, tag(Protocol::Ceremony), 0), Some(5)),
        ("request", frame(1, 99, 0), Some(5)),
        ("request", frame(1, tag(Protocol::Swim), 0), Some(5)),
        ("swim", frame(1, tag(Protocol::Ceremony), 0), Some(5)),
        ("request", frame(1, tag(Protocol::Ceremony), u32::MAX), Some(4)),
        ("request", frame(1, tag(Protocol::Signing), 8193), Some(4)),
        ("swim", frame(1, tag(Protocol::Swim), 1 << 20), Some(4)),
        // Shorter than its length.
        ("request", frame(1, tag(Protocol::Ceremony), 100), None),
        ("request", vec![1, 1], None),
        ("request", vec![], None),
    ];
    for (lane, bytes, expected) in cases {
        let peer = victim.peer_id();
        let mut stream = control.open_stream(peer, stream_name(lane)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        match expected {
            Some(tag) => assert_eq!(answer.get(1), Some(&tag), "{lane} {bytes:?}"),
            None => assert!(read.is_err() || answer.is_empty(), "{lane} {bytes:?}"),
        }
    }
    // A malformed membership message is confirmed, like all, and ignored.
    let mut stream = control.open_stream(victim.peer_id(), stream_name("swim")).await.unwrap();
    let mut junk = frame(1, tag(Protocol::Swim), 40);
    junk.extend_from_slice(&[0xff; 40]);
    stream.write_all(&junk).await.unwrap();
    let mut answer = [0; 6];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, [1, 0, 0, 0, 0, 0]);

    is_unaffected(&victim, &honest).await;
    assert!(served.try_recv().is_err(), "none of this is a request");
    assert!(victim.liveness().borrow().get(&id(3)).is_none());
    // Each is counted under its name: five heads and the membership message; three lengths.
    for (protocol, reason, count) in [
        ("request", "malformed", 3),
        ("swim", "malformed", 2),
        ("ceremony", "too_long", 1),
        ("signing", "too_long", 1),
        ("swim", "too_long", 1),
    ] {
        assert_eq!(refused(&victim, protocol, reason), count, "{protocol} {reason}");
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_gossip_is_refused_and_harms_nobody() {
    let (victim, honest, _directory) = cluster().await;
    let mut delivered = victim.subscribe(Topic::Evaluations);
    let mut swarm = hostile(&victim, 1 << 20);
    let scope = scope_tag(&SCOPE);
    let topics = Topics::new(&scope);
    let topic = topics.ident(Topic::Evaluations).clone();

    // Publishing fails until the victim's subscription arrives.
    let publish = async {
        loop {
            swarm.select_next_some().await;
            let gossip = &mut swarm.behaviour_mut().gossip;
            if gossip.publish(topic.clone(), vec![7; 64 * 1024]).is_ok() {
                return gossip.publish(topic.clone(), vec![8; 100]);
            }
        }
    };
    timeout(DEADLINE, publish).await.unwrap().unwrap();
    let task = spawn(swarm);
    // Messages of one author come in order: had the long one been taken, it would be the first.
    let gossip = timeout(DEADLINE, delivered.recv()).await.unwrap().unwrap();
    assert_eq!((gossip.author, gossip.bytes.len()), (id(3), 100));
    is_unaffected(&victim, &honest).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_the_framing_is_named() {
    let (victim, _honest, _directory) = cluster().await;
    let swarm = hostile(&victim, 1024);
    let mut control = swarm.behaviour().streams.new_control();
    let mut incoming = control.accept(stream_name("request")).unwrap();
    let task = spawn(swarm);
    wait_for_peer(&victim, 3).await;

    let answers: [&[u8]; 4] = [
        &[9, 0, 0, 0, 0, 0],                // another version
        &[1, 77, 0, 0, 0, 0],               // no such outcome
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 1], // four gibibytes
        &[1, 1, 0xff, 0xff, 0, 0, b'x'],    // a reason of 64 KiB
    ];
    let answering = tokio::spawn(async move {
        for answer in answers {
            let (_, mut stream) = incoming.next().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.close().await.unwrap();
            // Waits for the asker to finish: a dropped stream would reset the answer.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    for answer in answers {
        let result = victim.request(id(3), Protocol::Decryption, vec![1], DEADLINE).await;
        assert_eq!(result, Err(RequestError::Malformed(id(3))), "{answer:?}");
    }
    timeout(DEADLINE, answering).await.unwrap().unwrap();
    task.abort();
}

#[tokio::test]
async fn a_directory_entry_off_the_curve_is_skipped() {
    let roles = Roles::default();
    let peers = [secret(1).public(), PublicIdentity([0; 33])];
    let peers = peers.map(|identity| Peer { identity, roles });
    let directory = watch::Sender::new(Arc::new(Directory::from_iter(peers)));
    let config = NetworkConfig::new(secret(1), SCOPE);
    let network = Network::start(config, directory.subscribe()).await.unwrap();
    let invalid = PeerIdHash::of(&PublicIdentity([0; 33]));
    let result = network.request(invalid, Protocol::Sync, vec![], DEADLINE).await;
    assert_eq!(result, Err(RequestError::NotRegistered(invalid)));
}
