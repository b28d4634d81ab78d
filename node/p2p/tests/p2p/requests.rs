//! Requests and their failures.

use std::time::Duration;

use veil_node_p2p::{Network, Protocol, RequestError};

use crate::cluster::{QUIC, TCP, cluster, config, connected, id, registered, start, within};

const LONG: Duration = Duration::from_secs(300);

async fn pair(listen: &str) -> (Network, Network) {
    let (mut networks, _directory) = cluster(&[1, 2], listen).await;
    let (b, a) = (networks.pop().unwrap(), networks.pop().unwrap());
    connected(&a, &[2]).await;
    connected(&b, &[1]).await;
    (a, b)
}

async fn answers_bulk(listen: &str) {
    let (a, b) = pair(listen).await;
    let mut served = b.serve(Protocol::Ceremony);
    let server = tokio::spawn(async move {
        while let Some(request) = served.recv().await {
            assert_eq!(request.from, id(1));
            let mut bytes = request.bytes.clone();
            bytes.reverse();
            request.respond(bytes);
        }
    });
    // As in a ceremony: messages of the greatest length, more than may be in flight at once.
    let longest: Vec<u8> = (0..Protocol::Ceremony.max_request()).map(|i| i as u8).collect();
    let requests = (0..80).map(|_| a.request(id(2), Protocol::Ceremony, longest.clone(), LONG));
    let answers = within("bulk", futures::future::join_all(requests)).await;
    let mut reversed = longest;
    reversed.reverse();
    for answer in answers {
        // `assert_eq` would print two mebibytes.
        assert!(answer.map_err(|e| panic!("{e}")) == Ok::<_, RequestError>(reversed.clone()));
    }
    let count = b.traffic().protocols[&Protocol::Ceremony];
    assert_eq!((count.received, count.sent, count.dropped), (80, 80, 0));
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_are_answered_over_quic() {
    answers_bulk(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_are_answered_over_tcp() {
    answers_bulk(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_name() {
    let (a, b) = pair(QUIC).await;
    let ask = |protocol, bytes, deadline| a.request(id(2), protocol, bytes, deadline);

    let protocol = Protocol::Signing;
    let max = protocol.max_request();
    let error = ask(protocol, vec![0; max + 1], LONG).await;
    assert_eq!(error, Err(RequestError::TooLarge { protocol, max }));
    assert_eq!(ask(protocol, vec![1], LONG).await, Err(RequestError::Unsupported(id(2), protocol)));

    let mut served = b.serve(protocol);
    // By content, not by order: a request that has timed out arrives late, or not at all.
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let request = served.recv().await.unwrap();
            match request.bytes[0] {
                1 => request.refuse("no such session"),
                2 => drop(request),
                3 => kept.push(request),
                _ => {
                    request.respond(vec![7; max + 1]);
                    return kept;
                }
            }
        }
    });
    let refused =
        |reason: &str| Err(RequestError::Refused { peer: id(2), reason: reason.to_owned() });
    assert_eq!(ask(protocol, vec![1], LONG).await, refused("no such session"));
    assert_eq!(ask(protocol, vec![2], LONG).await, refused(""));
    let late = ask(protocol, vec![3], Duration::from_millis(300)).await;
    assert_eq!(late, Err(RequestError::Timeout(id(2))));
    assert_eq!(ask(protocol, vec![4], LONG).await, refused("the answer is too long"));
    drop(within("server", server).await.unwrap());
    // The server has ended, and its queue with it.
    assert_eq!(ask(protocol, vec![5], LONG).await, Err(RequestError::Unsupported(id(2), protocol)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_named() {
    let (a, b) = pair(TCP).await;
    let mut served = b.serve(Protocol::Agreement);
    let asked = a.request(id(2), Protocol::Agreement, vec![1], LONG);
    let stopped = async {
        let request = served.recv().await.unwrap();
        b.stop().await;
        request
    };
    let (answer, _request) = within("the break", async { tokio::join!(asked, stopped) }).await;
    assert!(matches!(answer, Err(RequestError::Broken(peer, _)) if peer == id(2)), "{answer:?}");
    let answer = within("a dial", a.request(id(2), Protocol::Agreement, vec![1], LONG)).await;
    assert!(matches!(answer, Err(RequestError::NotConnected(peer)) if peer == id(2)), "{answer:?}");
    let answer = b.request(id(1), Protocol::Agreement, vec![1], LONG).await;
    assert_eq!(answer, Err(RequestError::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_too_much_is_told_to_wait() {
    let directory = registered(&[1, 2, 3]);
    let mut strict = config(1, QUIC, &[]);
    let rate = strict.limits.rates.requests.get_mut(&Protocol::Sync).unwrap();
    (rate.per_second, rate.burst) = (0, 3);
    let server = start(strict, &directory).await;
    let greedy = start(config(2, QUIC, &server.addresses()), &directory).await;
    let modest = start(config(3, QUIC, &server.addresses()), &directory).await;
    let mut served = server.serve(Protocol::Sync);
    tokio::spawn(async move {
        while let Some(request) = served.recv().await {
            request.respond(vec![1]);
        }
    });
    connected(&greedy, &[1]).await;
    connected(&modest, &[1]).await;
    for _ in 0..3 {
        assert_eq!(greedy.request(id(1), Protocol::Sync, vec![], LONG).await, Ok(vec![1]));
    }
    let fourth = greedy.request(id(1), Protocol::Sync, vec![], LONG).await;
    assert_eq!(fourth, Err(RequestError::Busy(id(1))));
    assert_eq!(modest.request(id(1), Protocol::Sync, vec![], LONG).await, Ok(vec![1]));
}
