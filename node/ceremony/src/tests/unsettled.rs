//! What key shares come to before the chain has decided for good.

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

/// "Per attempt a member signs either ABORT or FINISH, never both": on chain as well. A member that has
/// finished and cannot help to publish the key leaves the decision to the chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_finished_ends_nothing_on_chain() {
    let cluster = Cluster::new();
    let mut running = Vec::new();
    for j in seats() {
        let mut chain = cluster.chain.of(j);
        chain.refuses = j == seat(2);
        running.push(cluster.start_with(j, chain, 1).await);
    }
    reaches(&running[1], "commit-point").await;
    // Whatever it tells the chain, it tells at once.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(cluster.chain.now(), AttemptStatus::Proposed);
    }
    for j in seats() {
        let share = cluster.attempt_folder(j, 0).join(format!("key-share-{j}.age"));
        assert!(share.exists(), "member {j} has finished");
    }
    cluster.chain.set(AttemptStatus::Expired);
    for running in running {
        let error = outcome(running).await.unwrap_err();
        assert!(
            matches!(&error, CeremonyError::Aborted(report) if report.reason == AbortReason::Expired),
            "{error}"
        );
    }
}

/// A member that dies between its ABORT and telling the chain comes back to that, and is free for the next
/// attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_over_its_abort_ends_the_attempt_when_it_is_back() {
    let mut cluster = Cluster::new();
    // The silence of one is noticed soon.
    cluster.timing.machine.round = 3_000;
    let told = Arc::new(Notify::new());
    let mut running = Vec::new();
    for j in seats() {
        let mut chain = cluster.chain.of(j);
        let first = (j == seat(1)).then(|| Arc::clone(&told));
        chain.hangs_over_abort = Some(first.unwrap_or_default());
        running.push(cluster.start_with(j, chain, 1).await);
    }
    for member in &running {
        reaches(member, "commit").await;
    }
    cluster.kill(seat(4), running.pop().unwrap()).await;
    in_time(told.notified()).await;
    cluster.kill(seat(1), running.remove(0)).await;
    assert_eq!(cluster.chain.now(), AttemptStatus::Proposed);
    let back = cluster.start(seat(1), 1).await;
    let aborted = tokio::time::timeout(Duration::from_secs(60), back.task).await;
    let error = aborted.expect("it does not wait for what cannot come").unwrap().unwrap_err();
    assert!(matches!(error, CeremonyError::Aborted(_)), "{error}");
    assert_eq!(cluster.chain.now(), AttemptStatus::Aborted);
}
