//! What a chain that changes its mind does to key shares.

use std::fs;

use veil_protocol_spec::{Blake3Digest, KeySetDigest, Wire, publication::Publication};

use super::*;

/// A chain that says that an attempt is over, and then that it made the key, costs nobody its share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_published_after_all_has_all_its_shares() {
    let cluster = Cluster::new();
    cluster.chain.publishes(false);
    let running = cluster.all_sign_the_publication().await;
    cluster.chain.set(AttemptStatus::Aborted);
    for (j, running) in seats().zip(running) {
        assert!(matches!(outcome(running).await.unwrap_err(), CeremonyError::Aborted(_)));
        assert_eq!(cluster.secrets(j, 0), (false, false), "member {j}");
    }
    // The block with the abort is replaced by one with the publication.
    let publication = fs::read(cluster.attempt_folder(seat(1), 0).join("publication.bin")).unwrap();
    let publication = Publication::from_wire(&publication).unwrap();
    cluster.chain.set(AttemptStatus::Published {
        transcript_root: publication.transcript_root,
        key_set: publication.key_set,
    });
    let mut running = Vec::new();
    for j in seats() {
        running.push(cluster.start(j, 1).await);
    }
    for (j, running) in seats().zip(running) {
        let key = outcome(running).await.unwrap();
        assert_eq!(key.key_set, publication.key_set);
        assert_eq!(cluster.secrets(j, 0), (false, true), "member {j} has its share");
    }
}

/// One endpoint that lies, for however long, destroys nobody's share while another says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_void_share_is_destroyed_only_once_all_endpoints_say_that_it_is_void() {
    let cluster = Cluster::new();
    cluster.chain.publishes(false);
    let running = cluster.all_sign_the_publication().await;
    cluster.chain.set(AttemptStatus::Aborted);
    for running in running {
        assert!(outcome(running).await.is_err());
    }
    let void = cluster.attempt_folder(seat(1), 0).join("key-share-1.age.void");
    let starts_again = async || {
        cluster.chain.state.lock().unwrap().block += VOID_DEPTH;
        assert!(outcome(cluster.start(seat(1), 1).await).await.is_err());
    };
    let (transcript_root, key_set) = (Blake3Digest([1; 32]), KeySetDigest([2; 32]));
    cluster.chain.second_endpoint_says(AttemptStatus::Published { transcript_root, key_set });
    for _ in 0..3 {
        starts_again().await;
        assert!(void.exists());
    }
    cluster.chain.second_endpoint_says(AttemptStatus::Expired);
    starts_again().await;
    assert!(void.exists(), "from now on it counts how long all have said so");
    starts_again().await;
    assert!(!void.exists());
}
