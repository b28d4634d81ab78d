//! Ceremonies of four members in one process, over an in-memory network, each with a data
//! directory of its own; members die and come back.

use std::{fs, future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use veil_node_driver::memory::{MemoryNetwork, MemoryTransports};
use veil_node_storage::{
    data_dir::{DataDir, DataDirError},
    journal::Journal,
    keystore::Passphrase,
};
use veil_protocol_spec::{
    Committee, ParticipantIndex,
    ceremony::{AbortReason, SignedMessage},
};

use self::doubles::{TestChain, identity, roster, scope, timing};
use super::*;
use crate::folder::VOID_DEPTH;

mod crashes;
mod doubles;
mod p2p;
mod unsettled;

struct Cluster {
    network: MemoryNetwork,
    chain: TestChain,
    folder: tempfile::TempDir,
    timing: CeremonyTiming,
    passphrase: Passphrase,
}

struct Running {
    task: JoinHandle<Result<FinishedKey, CeremonyError>>,
    status: CeremonyProgress,
}

fn seats() -> impl Iterator<Item = ParticipantIndex> {
    Committee::new(4).unwrap().participants()
}

fn seat(index: u8) -> ParticipantIndex {
    ParticipantIndex::new(index).unwrap()
}

impl Cluster {
    /// Starts all members, until any of them can bring the publication.
    async fn all_sign_the_publication(&self) -> Vec<Running> {
        let mut running = Vec::new();
        for j in seats() {
            running.push(self.start(j, 1).await);
        }
        for member in &running {
            reaches(member, "possession").await;
        }
        running
    }

    fn new() -> Self {
        let cluster = Self {
            network: MemoryNetwork::default(),
            chain: TestChain::new(),
            folder: tempfile::tempdir().unwrap(),
            timing: timing(),
            passphrase: Passphrase::random(),
        };
        cluster.chain.call(&roster());
        cluster
    }

    fn data_dir(&self, j: ParticipantIndex) -> PathBuf {
        self.folder.path().join(format!("member-{j}"))
    }

    fn attempt_folder(&self, j: ParticipantIndex, attempt: u32) -> PathBuf {
        self.data_dir(j).join(format!("ceremony/epoch-0-attempt-{attempt}"))
    }

    async fn member(&self, j: ParticipantIndex, chain: TestChain) -> Member<MemoryTransports> {
        // A killed member's thread lets go of its files a moment later.
        let path = self.data_dir(j);
        let data = eventually("the data directory is free", || DataDir::lock(&path).ok()).await;
        let journal = self.attempt_folder(j, 0).join("journal.redb");
        eventually("the journal is free", || {
            let open = || Journal::open::<SignedMessage>(&journal).is_ok();
            (!journal.exists() || open()).then_some(())
        })
        .await;
        Member {
            options: MemberOptions {
                identity: identity(j),
                passphrase: self.passphrase.clone(),
                scope: scope(),
                parameters: "insecure-short".to_owned(),
                timing: self.timing,
            },
            data: Arc::new(data),
            transports: self.network.of(j),
            chain: Arc::new(chain),
            status: CeremonyProgress::default(),
        }
    }

    async fn start(&self, j: ParticipantIndex, attempts: u32) -> Running {
        self.start_with(j, self.chain.of(j), attempts).await
    }

    async fn start_with(&self, j: ParticipantIndex, chain: TestChain, attempts: u32) -> Running {
        Self::run(self.member(j, chain).await, attempts)
    }

    fn run(member: Member<MemoryTransports>, attempts: u32) -> Running {
        let status = member.status.clone();
        let task =
            tokio::spawn(async move { join(&member, attempts, &CancellationToken::new()).await });
        Running { task, status }
    }

    /// As near to a kill as one process allows: nothing more is sent, stored or drained.
    async fn kill(&self, j: ParticipantIndex, running: Running) {
        self.network.kill(j);
        running.task.abort();
        let _ = running.task.await;
    }

    fn void_share(&self, j: ParticipantIndex, attempt: u32) -> PathBuf {
        self.attempt_folder(j, attempt).join(format!("key-share-{j}.age.void"))
    }

    fn secrets(&self, j: ParticipantIndex, attempt: u32) -> (bool, bool) {
        let folder = self.attempt_folder(j, attempt);
        (folder.join("seed.age").exists(), folder.join(format!("key-share-{j}.age")).exists())
    }
}

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits for a condition that stays.
async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

const STEPS: [&str; 23] = [
    "preflight",
    "commit",
    "commit-echo",
    "deal",
    "confirm",
    "confirm-echo",
    "reference-string",
    "reference-string-echo",
    "check-reference-string",
    "compute-bits",
    "bits-root",
    "bits-root-echo",
    "open-bits",
    "compute-bodies",
    "bodies-root",
    "bodies-root-echo",
    "open-bodies",
    "assemble",
    "prove",
    "finish",
    "publication",
    "possession",
    "commit-point",
];

fn rank(step: &str) -> Option<usize> {
    let step = match step {
        "publish" => "possession",
        other => other,
    };
    STEPS.iter().position(|known| *known == step)
}

/// Waits until a member is at a step or past it. It is not through: the chain must not publish.
async fn reaches(running: &Running, step: &str) {
    let mut status = running.status.subscribe();
    let there = in_time(status.wait_for(|s| rank(&s.step) >= rank(step) || s.outcome.is_some()));
    assert_eq!(there.await.unwrap().outcome, None);
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

async fn outcome(running: Running) -> Result<FinishedKey, CeremonyError> {
    in_time(running.task).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_members_make_one_key_and_anyone_can_verify_it() {
    let cluster = Cluster::new();
    let mut running = Vec::new();
    for j in seats() {
        running.push(cluster.start(j, 1).await);
    }
    let mut keys = Vec::new();
    for running in running {
        keys.push(outcome(running).await.unwrap());
    }
    assert!(keys.iter().all(|key| key.key_set == keys[0].key_set));
    assert!(keys.iter().all(|key| key.reference_string == keys[0].reference_string));
    let AttemptStatus::Published { transcript_root, key_set } = cluster.chain.now() else {
        panic!("not published")
    };
    assert_eq!((transcript_root, key_set), (keys[0].transcript_root, keys[0].key_set));
    for (j, key) in seats().zip(&keys) {
        assert_eq!(cluster.secrets(j, 0), (false, true), "the seed is gone, the share is there");
        assert!(!key.folder.join("journal.redb").exists(), "and so are the sealed deals");
        let journals = journals::missing(&journals::folder(&cluster.data_dir(j)));
        assert!(journals.is_empty(), "what it signs with the share is written down: {journals:?}");
        let share =
            veil_node_storage::keystore::read_key_share(&key.key_share_file(), &cluster.passphrase)
                .unwrap();
        assert_eq!(share.origin().key_set, key.key_set);
        assert_eq!(FinishedKey::load(&cluster.data_dir(j), key.epoch).unwrap().as_ref(), Some(key));
    }
    let verified = crate::offline::archive::verify(&keys[1].folder, |_, _| {}).unwrap();
    assert_eq!(verified.transcript.digest, keys[0].key_set);
    assert_eq!(verified.transcript.certificate.root, transcript_root);
    assert!(keys.iter().all(|key| key.reference_string.digest == verified.reference_string));
    assert_eq!(
        read_status(&cluster.data_dir(seat(3))).unwrap().outcome.as_deref(),
        Some("completed")
    );
    // Joining again changes nothing.
    let again = outcome(cluster.start(seat(3), 1).await).await.unwrap();
    assert_eq!(again, keys[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_killed_at_any_step_goes_on_where_it_was() {
    for step in [
        "commit",
        "deal",
        "open-bits",
        "compute-bodies",
        "prove",
        "finish",
        "publication",
        "possession",
    ] {
        let cluster = Cluster::new();
        cluster.chain.publishes(false);
        let mut running = Vec::new();
        for j in seats().filter(|j| j.get() != 2) {
            running.push(cluster.start(j, 1).await);
        }
        let victim = cluster.start(seat(2), 1).await;
        reaches(&victim, step).await;
        cluster.kill(seat(2), victim).await;
        running.push(cluster.start(seat(2), 1).await);
        cluster.chain.publishes(true);
        let mut digests = Vec::new();
        for running in running {
            match outcome(running).await {
                Ok(key) => digests.push(key.key_set),
                Err(error) => panic!("killed at {step}: {error}"),
            }
        }
        assert_eq!(digests.len(), 4);
        assert!(digests.iter().all(|digest| *digest == digests[0]), "killed at {step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_get_lost_are_asked_for_again() {
    let mut cluster = Cluster::new();
    cluster.network = MemoryNetwork::losing(9);
    let mut running = Vec::new();
    for j in seats() {
        running.push(cluster.start(j, 1).await);
    }
    let mut keys = Vec::new();
    for running in running {
        keys.push(outcome(running).await.unwrap().key_set);
    }
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert!(cluster.network.sent() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_dies_is_replaced_and_learns_of_it() {
    let cluster = Cluster::new();
    let told = Arc::new(Notify::new());
    let mut chain = cluster.chain.of(seat(1));
    chain.hangs = Some(Arc::clone(&told));
    let first = cluster.start_with(seat(1), chain, 1).await;
    let mut running = Vec::new();
    for j in seats().skip(1) {
        running.push(cluster.start(j, 1).await);
    }
    in_time(told.notified()).await;
    cluster.kill(seat(1), first).await;
    let mut keys = Vec::new();
    for running in running {
        keys.push(outcome(running).await.unwrap().key_set);
    }
    let by = cluster.chain.state.lock().unwrap().published_by.unwrap();
    assert_ne!(by, seat(1));
    // Back when it is all over, and alone: its records are enough.
    let back = outcome(cluster.start(seat(1), 1).await).await.unwrap();
    assert!(keys.iter().all(|key| *key == back.key_set));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_the_publication_has_its_key_when_nobody_is_left_to_ask() {
    let cluster = Cluster::new();
    cluster.chain.publishes(false);
    let mut running = cluster.all_sign_the_publication().await;
    cluster.kill(seat(4), running.pop().unwrap()).await;
    cluster.chain.publishes(true);
    let mut keys = Vec::new();
    for running in running {
        keys.push(outcome(running).await.unwrap());
    }
    let back = outcome(cluster.start(seat(4), 1).await).await.unwrap();
    assert_eq!(back.key_set, keys[0].key_set);
    assert_eq!(back.reference_string, keys[0].reference_string);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_attempt_makes_no_key_anywhere() {
    let cluster = Cluster::new();
    cluster.chain.publishes(false);
    let mut running = Vec::new();
    for j in seats().take(3) {
        running.push(cluster.start(j, 1).await);
    }
    let last = cluster.start(seat(4), 1).await;
    // Nothing is published, so everybody stays where it is once it has signed FINISH.
    let finished = |j| cluster.attempt_folder(j, 0).join(format!("key-share-{j}.age")).exists();
    eventually("all members have signed FINISH", || seats().all(finished).then_some(())).await;
    cluster.kill(seat(4), last).await;
    cluster.chain.set(AttemptStatus::Expired);
    for (j, running) in seats().zip(running) {
        let error = outcome(running).await.unwrap_err();
        assert!(
            matches!(&error, CeremonyError::Aborted(report) if report.reason == AbortReason::Expired),
            "{error}"
        );
        assert_eq!(cluster.secrets(j, 0), (false, false), "member {j}");
        assert!(cluster.void_share(j, 0).exists(), "member {j}");
    }
    let error = outcome(cluster.start(seat(4), 1).await).await.unwrap_err();
    assert!(matches!(error, CeremonyError::OutOfDate { .. }), "{error}");
    assert_eq!(cluster.secrets(seat(4), 0), (false, false));
    // The void share is destroyed when the attempt has been over for long.
    for (block, kept) in
        [(1_000, true), (1_000 + VOID_DEPTH - 1, true), (1_000 + VOID_DEPTH, false)]
    {
        cluster.chain.state.lock().unwrap().block = block;
        let error = outcome(cluster.start(seat(4), 1).await).await.unwrap_err();
        assert!(matches!(error, CeremonyError::OutOfDate { .. }), "{error}");
        assert_eq!(cluster.void_share(seat(4), 0).exists(), kept, "at block {block}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_attempt_is_followed_by_the_next_one() {
    let cluster = Cluster::new();
    cluster.chain.publishes(false);
    let mut running = Vec::new();
    for j in seats() {
        running.push(cluster.start(j, 2).await);
    }
    reaches(&running[0], "commit").await;
    abort(&cluster.chain, &identity(seat(3)), "the operator says so").await.unwrap();
    cluster.chain.publishes(true);
    let proposer = cluster.chain.clone();
    let options = ProposeOptions {
        scope: scope(),
        committee: Committee::new(4).unwrap(),
        parameters: "insecure-short".to_owned(),
        duration: Duration::from_secs(600),
        attempts: 1,
        wait: true,
        poll: Duration::from_millis(50),
    };
    let proposed = in_time(propose(&proposer, &options, |_| {})).await.unwrap();
    assert_eq!(proposed.attempt.0, 1);
    let mut keys = Vec::new();
    for running in running {
        let key = outcome(running).await.unwrap();
        assert_eq!(key.attempt.0, 1);
        keys.push(key.key_set);
    }
    let AttemptStatus::Published { key_set, .. } = proposed.status else { panic!("{proposed:?}") };
    assert!(keys.iter().all(|key| *key == key_set));
    assert_eq!(cluster.secrets(seat(1), 0), (false, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_ready_is_named_before_anything_starts() {
    let mut cluster = Cluster::new();
    cluster.timing.preflight = Duration::from_secs(20);
    let mut running = Vec::new();
    for j in seats().take(2) {
        running.push(cluster.start(j, 1).await);
    }
    for running in running {
        let error = outcome(running).await.unwrap_err();
        let CeremonyError::Preflight(report) = &error else { panic!("{error}") };
        let faults: Vec<_> = report.members.iter().map(|row| row.faults.clone()).collect();
        assert_eq!(
            faults,
            [vec![], vec![], vec![PreflightFault::Unreachable], vec![PreflightFault::Unreachable]]
        );
        assert!(error.to_string().contains("participant  4"), "{error}");
    }
    assert!(!cluster.attempt_folder(seat(1), 0).join("seed.age").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_is_not_for_this_member_is_refused() {
    let cluster = Cluster::new();
    let refused = |running| async {
        let error = outcome(running).await.unwrap_err();
        assert!(matches!(error, CeremonyError::Proposal(_) | CeremonyError::Setup(_)), "{error}");
        error.to_string()
    };
    let change = |f: fn(&mut Proposal)| {
        f(cluster.chain.state.lock().unwrap().attempts.last_mut().unwrap());
    };
    change(|proposal| proposal.context = [1; 32]);
    let text = refused(cluster.start(seat(1), 1).await).await;
    assert!(text.contains("another chain, contract or cluster"), "{text}");
    change(|proposal| proposal.context = ceremony_context(&scope()));
    change(|proposal| proposal.parameters = "production".to_owned());
    let text = refused(cluster.start(seat(1), 1).await).await;
    assert!(text.contains("configured for insecure-short"), "{text}");
    change(|proposal| proposal.parameters = "insecure-short".to_owned());
    change(|proposal| proposal.parameters_digest.0[0] ^= 1);
    refused(cluster.start(seat(1), 1).await).await;
    change(|proposal| proposal.parameters_digest.0[0] ^= 1);
    change(|proposal| proposal.roster[0] = identity(seat(9)).public());
    let text = refused(cluster.start(seat(1), 1).await).await;
    assert!(text.contains("not on the ceremony's roster"), "{text}");
    assert!(!cluster.attempt_folder(seat(1), 0).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_serves_one_process() {
    let cluster = Cluster::new();
    let path = cluster.data_dir(seat(1));
    let held = DataDir::lock(&path).unwrap();
    assert!(matches!(DataDir::lock(&path), Err(DataDirError::InUse(_))));
    assert!(DataDir::is_locked(&path));
    drop(held);
    assert!(!DataDir::is_locked(&path));
    fs::remove_dir_all(&path).unwrap();
}
