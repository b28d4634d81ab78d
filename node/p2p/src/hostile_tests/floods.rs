//! Peers that send more than they may, or what they may not.

use libp2p_stream::Control;
use tokio::{io::AsyncReadExt as _, net::TcpSocket};
use veil_protocol_spec::Blake3Digest;

use super::*;
use crate::rates::Rate;

/// Three messages at once, and no more.
const THREE: Rate = Rate { per_second: 0, burst: 3, bytes_per_second: 0, burst_bytes: 1 << 20 };

/// Sends a head and reads the tag of the answer; nothing if the stream ends without one.
async fn ask(control: &mut Control, victim: &Network, head: &[u8]) -> Option<u8> {
    let mut stream = control.open_stream(victim.peer_id(), stream_name("request")).await.ok()?;
    stream.write_all(head).await.ok()?;
    stream.flush().await.ok()?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer[1])
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The answer comes although nothing of the body has been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_no_member_is_refused_before_its_body_is_read() {
    let (victim, honest, _directory) = cluster().await;
    let _served = victim.serve(Protocol::Ceremony);
    let swarm = hostile_as(4, &victim, 1024);
    let mut control = swarm.behaviour().streams.new_control();
    let task = spawn(swarm);
    wait_for_peer(&victim, 4).await;
    let committee = Protocol::ALL
        .into_iter()
        .filter(|protocol| !matches!(protocol, Protocol::Swim | Protocol::Sync));
    for protocol in committee {
        let longest = u32::try_from(protocol.max_request()).unwrap();
        let head = frame(1, protocol as u8, longest);
        let answer = timeout(DEADLINE, ask(&mut control, &victim, &head)).await.unwrap();
        assert_eq!(answer, Some(6), "{protocol}");
        assert_eq!(refused(&victim, protocol.name(), "not_a_member"), 1, "{protocol}");
    }
    is_unaffected(&victim, &honest).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_on_and_on_is_disconnected_for_a_while() {
    let (victim, honest, _directory) = cluster_with(|limits| {
        limits.rates.requests.insert(Protocol::Sync, THREE);
    })
    .await;
    let _served = victim.serve(Protocol::Sync);
    wait_for_peer(&victim, 2).await;
    let swarm = hostile(&victim, 1024);
    let mut control = swarm.behaviour().streams.new_control();
    let task = spawn(swarm);
    wait_for_peer(&victim, 3).await;

    let head = frame(1, Protocol::Sync as u8, 10);
    let asking = async {
        let mut connected = victim.connected();
        while connected.borrow_and_update().contains(&id(3)) {
            // The first three wait for a body that never comes.
            let _ = timeout(Duration::from_millis(200), ask(&mut control, &victim, &head)).await;
        }
    };
    timeout(DEADLINE, asking).await.unwrap();
    assert!(refused(&victim, "sync", "too_often") >= 100);
    task.abort();

    // Back at once, it is not let in.
    let task = spawn(hostile(&victim, 1024));
    until("the pause", || refused(&victim, "connection", "paused") > 0).await;
    assert!(!victim.connected().borrow().contains(&id(3)));
    is_unaffected(&victim, &honest).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_over_the_rate_is_left_aside_and_that_of_others_is_not() {
    let (victim, honest, _directory) = cluster_with(|limits| {
        limits.rates.gossip.insert(Topic::Evaluations, THREE);
    })
    .await;
    let mut delivered = victim.subscribe(Topic::Evaluations);
    wait_for_peer(&victim, 2).await;
    let mut swarm = hostile(&victim, 1 << 20);
    let topics = Topics::new(&scope_tag(&SCOPE));
    let topic = topics.ident(Topic::Evaluations).clone();
    // Publishing fails until the victim's subscription arrives.
    let publishing = async {
        let mut number = 0;
        while number < 20 {
            let gossip = &mut swarm.behaviour_mut().gossip;
            if gossip.publish(topic.clone(), vec![number; 100]).is_ok() {
                number += 1;
            } else {
                swarm.select_next_some().await;
            }
        }
    };
    timeout(DEADLINE, publishing).await.unwrap();
    let task = spawn(swarm);
    until("the refusals", || refused(&victim, "evaluations", "too_often") == 17).await;
    let publishing = async {
        while honest.publish(Topic::Evaluations, b"honest".to_vec()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, publishing).await.unwrap();
    let mut authors = Vec::new();
    while authors.len() < 4 {
        authors.push(timeout(DEADLINE, delivered.recv()).await.unwrap().unwrap().author);
    }
    authors.sort_unstable();
    let mut expected = vec![id(2), id(3), id(3), id(3)];
    expected.sort_unstable();
    assert_eq!(authors, expected);
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_by_a_worker_are_left_aside() {
    let (victim, honest, _directory) = cluster().await;
    let mut delivered = victim.subscribe(Topic::Certificates);
    let mut swarm = hostile_as(4, &victim, 1 << 20);
    let topics = Topics::new(&scope_tag(&SCOPE));
    let topic = topics.ident(Topic::Certificates).clone();
    let publish = async {
        loop {
            swarm.select_next_some().await;
            if swarm.behaviour_mut().gossip.publish(topic.clone(), vec![7; 100]).is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, publish).await.unwrap();
    let task = spawn(swarm);
    until("the refusal", || refused(&victim, "certificates", "not_a_member") == 1).await;
    assert!(delivered.try_recv().is_err());
    is_unaffected(&victim, &honest).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_keep_out_nobody_elsewhere() {
    let (victim, honest, _directory) = cluster_with(|limits| {
        (limits.half_open, limits.half_open_per_address) = (32, 8);
    })
    .await;
    let port = victim.addresses()[0].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    let mut open = Vec::new();
    for _ in 0..64 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 77], 0).into()).unwrap();
        open.push(timeout(DEADLINE, socket.connect(to)).await.unwrap().unwrap());
    }
    until("the refusals", || refused(&victim, "connection", "half_open") >= 56).await;
    // The honest peer comes from 127.0.0.1.
    is_unaffected(&victim, &honest).await;
    // Those that were refused are closed; the others wait for the time-out of the handshake.
    let mut closed = 0;
    for mut stream in open {
        let read = timeout(Duration::from_millis(10), stream.read(&mut [0; 64])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 56, "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_cannot_take_all_places_of_those_that_fetch() {
    let (victim, honest, _directory) = cluster_with(|limits| limits.blob_serves = 3).await;
    let folder = tempfile::tempdir().unwrap();
    let (path, into) = (folder.path().join("file"), folder.path().join("copy"));
    let content = vec![5; 32 << 20];
    std::fs::write(&path, &content).unwrap();
    let digest = Blake3Digest(*blake3::hash(&content).as_bytes());
    victim.provide(digest, path);
    wait_for_peer(&victim, 2).await;
    let swarm = hostile(&victim, 1024);
    let mut control = swarm.behaviour().streams.new_control();
    let task = spawn(swarm);
    wait_for_peer(&victim, 3).await;

    // It asks for the file again and again, and reads nothing but the head of the answer.
    let mut question = vec![1];
    question.extend_from_slice(digest.as_bytes());
    question.extend_from_slice(&0_u64.to_le_bytes());
    let (mut open, mut found, mut busy) = (Vec::new(), 0, 0);
    for _ in 0..8 {
        let mut stream = control.open_stream(victim.peer_id(), stream_name("blob")).await.unwrap();
        stream.write_all(&question).await.unwrap();
        stream.flush().await.unwrap();
        let mut head = [0; 10];
        timeout(DEADLINE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        match head[1] {
            0 => found += 1,
            2 => busy += 1,
            other => panic!("{other}"),
        }
        open.push(stream);
    }
    assert_eq!((found, busy), (2, 6));
    assert_eq!(refused(&victim, "blob", "too_many_streams"), 6);
    let fetched = honest.fetch(&[id(1)], digest, &into, 64 << 20, DEADLINE, |_| {}).await;
    assert_eq!(fetched.unwrap(), content.len() as u64);
    task.abort();
}
