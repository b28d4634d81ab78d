//! A whole network in this process, with the real chain and the real engine: placement, the loss and
//! the return of a worker and of a member, an image that nobody serves. Insecure parameters.
//!
//! It needs anvil, a Docker engine and the sample image (`cargo xtask setup`); without them it fails
//! and says so.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use veil_node_api::status::ReplicaStatus;
use veil_node_config::job_file::JobFile;
use veil_node_devnet::{Devnet, Place, sample_job};
use veil_protocol_spec::Blake3Digest;

use self::one_process::{image, until, with_network};

#[path = "support/one_process.rs"]
mod one_process;

const REPLICAS: u16 = 3;

fn job(image: &str, replicas: u16) -> JobFile {
    sample_job(image, replicas).unwrap()
}

/// What the worker that has a replica says of it.
async fn own_replicas(devnet: &Devnet, job: Blake3Digest) -> Vec<ReplicaStatus> {
    let mut own = Vec::new();
    for node in devnet.nodes().iter().filter(|node| node.is_started()) {
        let status = node.status().await.unwrap();
        let here = |r: &ReplicaStatus| r.job == job && r.worker == Some(node.peer());
        own.extend(status.replicas.into_iter().filter(here));
    }
    own
}

async fn containers_on(devnet: &Devnet, job: Blake3Digest, worker: &str) -> usize {
    let counts = devnet.running_by_engine(job).await.unwrap();
    counts.into_iter().find(|(name, _)| name == worker).unwrap().1
}

async fn containers(devnet: &Devnet, job: Blake3Digest) -> usize {
    devnet.running_by_engine(job).await.unwrap().into_iter().map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_placed_moved_and_never_doubled() {
    let image = image();
    let folder = tempfile::Builder::new().prefix("veil-").tempdir().unwrap();
    with_network(folder.path(), async |devnet| scenario(devnet, &image).await).await;
}

async fn scenario(devnet: &mut Devnet, image: &str) {
    devnet.start_nodes().await.unwrap();
    let key_set = devnet.make_key().await.unwrap();
    devnet.await_ready(key_set).await.unwrap();

    // Placement, end to end.
    let web = devnet.submit(job(image, REPLICAS)).await.unwrap();
    let running = devnet.await_running(web, REPLICAS).await.unwrap();
    assert_eq!(running.len(), usize::from(REPLICAS));
    let placed = devnet.verify(web, running).await.unwrap();
    assert!(placed.certificate_verified && placed.anchored, "{placed:?}");
    assert_eq!(placed.replicas_running, usize::from(REPLICAS));
    let figures = devnet.figures(placed.slot).await.unwrap();
    for phase in ["collect", "lock", "evaluate", "squash", "decrypt", "sign", "enforce", "anchor"] {
        assert!(figures.phases.contains_key(phase), "{phase} of {:?}", figures.phases);
    }

    // A worker goes: its replicas run elsewhere.
    let lost = placed.replicas[0].worker.clone();
    devnet.stop_node(&lost).await.unwrap();
    let moved = devnet.await_running(web, REPLICAS).await.unwrap();
    assert!(moved.iter().all(|place| place.worker != lost), "{moved:?}");
    let replaced = devnet.verify_certificates().await.unwrap();
    assert!(replaced.last_slot() > placed.slot, "no slot re-placed it: {replaced:?}");

    // It returns: what was moved is stopped there, so that nothing runs twice.
    devnet.start_node(&lost).await.unwrap();
    until("the moved replicas are stopped where they were", async || {
        containers_on(devnet, web, &lost).await == 0
    })
    .await;
    let after: Vec<Place> = devnet.await_running(web, REPLICAS).await.unwrap();
    assert_eq!(after, moved);
    assert_eq!(containers(devnet, web).await, usize::from(REPLICAS));

    // A member goes, and the others go on without it. It returns, and catches up.
    devnet.stop_node("member-2").await.unwrap();
    let second = devnet.submit(job(image, 1)).await.unwrap();
    devnet.await_running(second, 1).await.unwrap();
    devnet.start_node("member-2").await.unwrap();
    let last = devnet.verify_certificates().await.unwrap().last_slot();
    until("the member has every certificate", async || {
        let member = devnet.nodes().iter().find(|node| node.name() == "member-2").unwrap();
        member.status().await.is_ok_and(|status| status.last_slot >= last)
    })
    .await;

    // An image that nobody serves: an error by name, for that replica only.
    let (name, _) = image.split_once('@').unwrap();
    let unknown = format!("{name}@sha256:{}", "0".repeat(64));
    let broken = devnet.submit(job(&unknown, 1)).await.unwrap();
    until("the replica's error names the image", async || {
        own_replicas(devnet, broken).await.iter().any(|replica| {
            let observed = replica.observed.as_ref();
            observed.is_some_and(|o| !o.running && o.state.contains("does not serve"))
        })
    })
    .await;
    assert_eq!(devnet.await_running(web, REPLICAS).await.unwrap(), moved);
    assert_eq!(containers(devnet, broken).await, 0);
}
