//! What a chain that changes its mind does to key shares.

use std::fs;

use veil_protocol_spec::{Wire, publication::Publication};

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
