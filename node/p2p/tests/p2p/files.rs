//! Files by digest.

use std::{path::Path, time::Duration};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use veil_node_p2p::{FetchError, Network, Progress};
use veil_protocol_spec::{Blake3Digest, PeerIdHash};

use crate::cluster::{DEADLINE, QUIC, TCP, cluster, connected, id};

/// Longer than all windows of a connection together: a server that stops early has not sent
/// everything.
const LEN: usize = 64 << 20;

fn content(seed: u64) -> (Vec<u8>, Blake3Digest) {
    let mut bytes = vec![0; LEN];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let digest = Blake3Digest(*blake3::hash(&bytes).as_bytes());
    (bytes, digest)
}

async fn fetch(
    network: &Network,
    from: &[PeerIdHash],
    digest: Blake3Digest,
    into: &Path,
    deadline: Duration,
    progress: impl FnMut(Progress) + Send,
) -> Result<u64, FetchError> {
    network.fetch(from, digest, into, LEN as u64, deadline, progress).await
}

async fn takes_over(listen: &str) {
    let (networks, _directory) = cluster(&[1, 2, 3], listen).await;
    let [client, first, second] = &networks[..] else { panic!("three nodes") };
    connected(client, &[2, 3]).await;
    let folder = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(1);
    let source = folder.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    first.provide(digest, source.clone());
    second.provide(digest, source);

    // The test stops the only server that it asks, in the middle: the fetch fails, and what has
    // arrived stays.
    let into = folder.path().join("fetched");
    let mut stopped = false;
    let stop_midway = |progress: Progress| {
        if !stopped && progress.bytes > 1 << 20 {
            stopped = true;
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(first.stop());
            });
        }
    };
    let error = fetch(client, &[id(2)], digest, &into, Duration::from_secs(60), stop_midway).await;
    let Err(FetchError::Deadline { bytes: arrived, .. }) = error else { panic!("{error:?}") };
    assert!(arrived > 1 << 20 && (arrived as usize) < LEN, "{arrived}");
    assert!(!into.exists());

    // A later fetch asks the first server in vain and resumes there with the second.
    let mut seen = Vec::new();
    let len = fetch(client, &[id(2), id(3)], digest, &into, DEADLINE, |p| seen.push(p)).await;
    assert_eq!(len.unwrap(), LEN as u64);
    let start = seen.first().unwrap();
    assert_eq!((start.bytes, start.total, start.peer), (arrived, LEN as u64, id(3)));
    assert_eq!(std::fs::read(&into).unwrap(), bytes);
    assert!(!folder.path().join("fetched.part").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_over_quic() {
    takes_over(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over_over_tcp() {
    takes_over(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_names_its_server() {
    let (networks, _directory) = cluster(&[1, 2, 3], QUIC).await;
    let [client, culprit, honest] = &networks[..] else { panic!("three nodes") };
    connected(client, &[2, 3]).await;
    let folder = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(2);
    let mut wrong = bytes.clone();
    wrong[LEN / 2] ^= 1;
    let good = folder.path().join("good");
    let bad = folder.path().join("bad");
    std::fs::write(&good, &bytes).unwrap();
    std::fs::write(&bad, &wrong).unwrap();
    culprit.provide(digest, bad);
    honest.provide(digest, good);

    let into = folder.path().join("fetched");
    let error = fetch(client, &[id(2)], digest, &into, DEADLINE, |_| ()).await;
    assert!(
        matches!(&error, Err(FetchError::Corrupted { peers, .. }) if *peers == [id(2)]),
        "{error:?}"
    );
    assert!(!into.exists());

    // The part of an earlier run is wrong: the fetch notices it and still succeeds.
    std::fs::write(folder.path().join("fetched.part"), &wrong[..LEN * 3 / 4]).unwrap();
    let len = fetch(client, &[id(2), id(3)], digest, &into, DEADLINE, |_| ()).await;
    assert_eq!(len.unwrap(), LEN as u64);
    assert_eq!(std::fs::read(&into).unwrap(), bytes);

    let into = folder.path().join("small");
    let short = Duration::from_secs(30);
    let error = client.fetch(&[id(3)], digest, &into, LEN as u64 - 1, short, |_| ()).await;
    assert!(matches!(&error, Err(FetchError::Deadline { bytes: 0, .. })), "{error:?}");
    assert!(error.unwrap_err().to_string().contains("length"));
}

/// Prints what fetching as much as a production key set takes over QUIC on this machine, both ends
/// included.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a figure"]
async fn fetch_figure() {
    const MIB: usize = 512;
    let (networks, _directory) = cluster(&[1, 2], QUIC).await;
    let [client, server] = &networks[..] else { panic!("two nodes") };
    connected(client, &[2]).await;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let block = content(2).0;
    let bytes: Vec<u8> = block.iter().copied().cycle().take(MIB << 20).collect();
    let digest = Blake3Digest(*blake3::hash(&bytes).as_bytes());
    std::fs::write(&source, &bytes).unwrap();
    server.provide(digest, source);
    let from = [id(2)];
    for run in 1..=5 {
        let into = folder.path().join(format!("fetched-{run}"));
        let start = std::time::Instant::now();
        let fetched = client.fetch(&from, digest, &into, bytes.len() as u64, DEADLINE * 10, |_| {});
        assert_eq!(fetched.await.unwrap(), bytes.len() as u64);
        println!("run {run}: {MIB} MiB in {:.2} s", start.elapsed().as_secs_f64());
        std::fs::remove_file(into).unwrap();
    }
}
