//! Tests: one container's trouble, and the engine's, and the registry's. The clock is the runtime's own.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, advance, sleep, timeout};
use veil_protocol_spec::scheduling::CpuUnits;

use crate::{
    DockerError, Exit, Keep, Observed, ReplicaError, Terms,
    fake::{Fake, observed, reconcile, replicas, states},
};

const SECOND: Duration = Duration::from_secs(1);

/// Asks a worker as its roles do, once a second, so many times, and says how many calls came of it.
async fn quiet(
    fake: &Fake,
    worker: &crate::Executor,
    desired: &[crate::DesiredReplica],
    seconds: u64,
) -> usize {
    let since = Instant::now();
    for second in 0..seconds {
        if second % 10 == 0 {
            let _ = reconcile(worker, desired).await;
            let _ = worker.observe().await.unwrap();
        }
        if second % 30 == 0 {
            let _ = worker.held().await;
        }
        sleep(SECOND).await;
    }
    fake.calls(since, "")
}

/// "Engine calls when nothing changes: under 5 a second", with twenty replicas.
#[tokio::test(start_paused = true)]
async fn an_engine_is_left_alone_when_nothing_changes() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 20));
    assert_eq!(reconcile(&worker, &desired).await.started.len(), 20);
    // All are young: their line in the list changes every second.
    let calls = quiet(&fake, &worker, &desired, 60).await;
    assert!(calls < 5 * 60, "{calls} in the first minute");
    let calls = quiet(&fake, &worker, &desired, 300).await;
    assert!(calls < 2 * 300, "{calls} in five minutes");
    // While it waits for something that does not come, a worker looks more often, at first.
    let since = Instant::now();
    for look in 0..90 {
        let _ = worker.observe().await.unwrap();
        sleep(if look < 40 { SECOND / 4 } else { SECOND }).await;
    }
    let calls = fake.calls(since, "");
    assert!(calls < 5 * 60, "{calls} in a minute of waiting");
}

#[tokio::test(start_paused = true)]
async fn a_container_of_which_the_engine_says_nothing_is_named_and_the_others_are_reported() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 3));
    let _ = reconcile(&worker, &desired).await;
    let stuck = fake.container(&desired[1]);
    fake.ignore(&format!("GET /containers/{stuck}/"));
    let replica = observed(&worker, &desired[1]).await;
    assert_eq!(replica.observed, Observed::Unknown);
    assert_eq!(replica.container.as_ref(), Some(&stuck));
    let error = replica.error.unwrap();
    assert!(error.contains("`inspect` within 5 s"), "{error}");
    use Observed::{Running, Unknown};
    assert_eq!(states(&worker).await, [Running, Unknown, Running]);
    // All that is reserved counts, and the use of those that can be read.
    let held = worker.held().await;
    assert!(held.silence.is_none());
    assert_eq!((held.replicas.len(), held.reserved.cpu), (3, CpuUnits(3)));
    assert_eq!((held.cpu_time, held.memory_bytes), (2 * SECOND, 2 << 20));
    let error = observed(&worker, &desired[1]).await.error.unwrap();
    assert!(error.contains("`stats` within 5 s"), "{error}");
    // The next looks do not wait for it again and again.
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(states(&worker).await, [Running, Unknown, Running]);
    }
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
    // It answers again.
    fake.state().ignores.clear();
    sleep(60 * SECOND).await;
    assert_eq!(states(&worker).await, [Running; 3]);
    assert_eq!(worker.held().await.memory_bytes, 3 << 20);
    assert_eq!(observed(&worker, &desired[1]).await.error, None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_stop_or_start_holds_up_no_other() {
    let fake = Fake::default();
    let (worker, [old, new]) = (fake.worker().await, [replicas(1, 3), replicas(2, 3)]);
    let _ = reconcile(&worker, &old).await;
    let stuck = fake.container(&old[0]);
    fake.ignore(&format!("POST /containers/{stuck}/stop"));
    // The id of the one that comes next.
    let next = format!("c{:063}", 3);
    fake.ignore(&format!("POST /containers/{next}/start"));
    let reconciling = reconcile(&worker, &new);
    let report = {
        let mut reconciling = std::pin::pin!(reconciling);
        // Longer than the grace, shorter than any deadline of a change.
        assert!(timeout(20 * SECOND, &mut reconciling).await.is_err());
        let states = states(&worker).await;
        let count = |of| states.iter().filter(|state| **state == of).count();
        let counts = (count(Observed::Running), count(Observed::Stopping));
        assert_eq!(counts, (2, 1), "two that are new, and the one that does not stop");
        reconciling.await
    };
    assert_eq!((report.stopped.len(), report.started.len(), report.failed.len()), (2, 2, 2));
    for (_, error) in report.failed {
        let timed_out = matches!(&*error, ReplicaError::Docker(DockerError::Timeout { .. }));
        assert!(timed_out, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_leaves_everything_reserved_and_nothing_is_removed() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 3));
    let _ = reconcile(&worker, &desired).await;
    let _ = worker.held().await;
    fake.ignore("/");
    let since = Instant::now();
    let error = worker.reconcile(&[], &Keep::NOTHING).await.unwrap_err();
    assert!(error.to_string().contains("`list` within 15 s"), "{error}");
    assert!(worker.observe().await.is_err());
    let held = worker.held().await;
    assert!(held.silence.is_some());
    assert_eq!((held.replicas.len(), held.reserved.cpu), (3, CpuUnits(3)));
    assert_eq!((fake.calls(since, "stop"), fake.calls(since, "DELETE")), (0, 0));
    fake.state().ignores.clear();
    assert_eq!(reconcile(&worker, &desired).await.kept.len(), 3);
    assert!(worker.held().await.silence.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_process_limit_that_is_reached_is_shown_also_when_the_container_has_ended() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 1));
    let _ = reconcile(&worker, &desired).await;
    let id = fake.container(&desired[0]);
    for (processes, expected) in [(511, None), (512, Some(512))] {
        fake.state().processes = processes;
        let _ = worker.held().await;
        assert_eq!(observed(&worker, &desired[0]).await.process_limit, expected);
    }
    fake.change(&id, |container| (container.state, container.exit_code) = ("exited", 1));
    let _ = worker.held().await;
    let replica = observed(&worker, &desired[0]).await;
    assert_eq!(replica.to_string(), "exited (1, at its limit of 512 processes)");
    assert_eq!(reconcile(&worker, &desired).await.restarted.len(), 1);
    fake.state().processes = 1;
    let _ = worker.held().await;
    assert_eq!(observed(&worker, &desired[0]).await.process_limit, None);
}

#[tokio::test(start_paused = true)]
async fn restarts_and_reasons_are_those_of_the_engine_and_of_the_worker() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 1));
    let _ = reconcile(&worker, &desired).await;
    let id = fake.container(&desired[0]);
    let change = |state, exit_code, out_of_memory, restarts| {
        fake.change(&id, |container| {
            (container.state, container.exit_code) = (state, exit_code);
            (container.out_of_memory, container.restarts) = (out_of_memory, restarts);
            container.since = Instant::now();
        });
    };
    for (state, exit_code, out_of_memory, restarts, text) in [
        ("restarting", 1, false, 4, "restarting (4 restarts, last exit 1)"),
        ("running", 0, false, 5, "running (5 restarts, last exit 1)"),
        ("exited", 137, true, 5, "exited (137, out of memory, 5 restarts)"),
    ] {
        sleep(SECOND).await;
        change(state, exit_code, out_of_memory, restarts);
        assert_eq!(observed(&worker, &desired[0]).await.to_string(), text);
    }
    // The worker starts it again, which sets the engine's count to zero.
    assert_eq!(reconcile(&worker, &desired).await.restarted.len(), 1);
    change("running", 0, true, 0);
    let replica = observed(&worker, &desired[0]).await;
    assert_eq!(replica.to_string(), "running (6 restarts, last exit 137, out of memory)");
    assert_eq!(replica.last_exit, Some(Exit { code: 137, out_of_memory: true }));
}

/// Reconciles every ten seconds for as long, as a worker does, and says how many pulls came of it.
async fn pulls(
    fake: &Fake,
    worker: &crate::Executor,
    desired: &[crate::DesiredReplica],
    minutes: u64,
) -> usize {
    let since = Instant::now();
    for _ in 0..minutes * 6 {
        let _ = reconcile(worker, desired).await;
        advance(10 * SECOND).await;
    }
    fake.calls(since, "POST /images/create")
}

/// Docker asks such a registry twice for each pull, by HEAD and by GET.
const REQUESTS_PER_PULL: usize = 2;

#[tokio::test(start_paused = true)]
async fn a_registry_that_limits_its_use_is_asked_less_and_less_often() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 3));
    let message = "toomanyrequests: You have reached your pull rate limit.";
    fake.state().pull = Some((500, Vec::new(), json!({ "message": message })));
    let report = reconcile(&worker, &desired).await;
    let (_, error) = &report.failed[0];
    assert!(matches!(**error, ReplicaError::Limited { .. }), "{error}");
    let requests = REQUESTS_PER_PULL * (1 + pulls(&fake, &worker, &desired, 5).await);
    assert!(requests < 15, "{requests} in five minutes");
    // Pauses are drawn: at this moment one may just have ended. Right after an attempt none has.
    let mut attempts = 0;
    while attempts == 0 {
        attempts = reconcile(&worker, &desired).await.failed.len();
        advance(SECOND).await;
    }
    let report = reconcile(&worker, &desired).await;
    assert_eq!((report.waiting.len(), report.failed.len()), (3, 0), "{report:?}");
    let error = observed(&worker, &desired[0]).await.error.unwrap();
    assert!(error.contains(message) && error.contains("the next in"), "{error}");
    // It serves again.
    fake.state().pull = None;
    assert_eq!(pulls(&fake, &worker, &desired, 11).await, 1);
    assert_eq!(states(&worker).await, [Observed::Running; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_kept() {
    let limited = json!({ "message": "slow down" });
    let words = json!({ "message": "toomanyrequests: retry-after: 15m0s, allowed: 10/hour" });
    for pull in [(429, vec![("Retry-After", "900")], limited), (500, Vec::new(), words)] {
        let fake = Fake::default();
        let (worker, desired) = (fake.worker().await, replicas(1, 1));
        fake.state().pull = Some(pull);
        let report = reconcile(&worker, &desired).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::Limited { .. }), "{error}");
        assert_eq!(pulls(&fake, &worker, &desired, 14).await, 0);
        assert_eq!(pulls(&fake, &worker, &desired, 2).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_tried_once_until_job_or_engine_change() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 2));
    let message = "unsupported media type application/vnd.in-toto+json";
    let answer = json!({ "errorDetail": { "message": message }, "error": message });
    fake.state().pull = Some((200, Vec::new(), answer));
    assert_eq!(pulls(&fake, &worker, &desired, 60).await, 1);
    let replica = observed(&worker, &desired[0]).await;
    let error = replica.error.unwrap();
    assert_eq!(replica.observed, Observed::Missing);
    assert!(error.contains("use the digest of the index"), "{error}");
    assert!(!error.contains("the next in"), "{error}");
    // Another job with the same image.
    let both = [desired.clone(), replicas(2, 1)].concat();
    assert_eq!(pulls(&fake, &worker, &both, 60).await, 1);
    // Another engine behind the socket.
    fake.ignore("/");
    assert!(worker.observe().await.is_err());
    fake.state().ignores.clear();
    assert_eq!(pulls(&fake, &worker, &both, 60).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_for_other_machines_is_not_started() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 1));
    let image = desired[0].spec.image.as_str().to_owned();
    for (architecture, says) in [("arm64", "linux/arm64"), ("unknown", "attestation")] {
        fake.state().images.insert(image.clone(), architecture.to_owned());
        let worker = fake.worker().await;
        let report = reconcile(&worker, &desired).await;
        let (_, error) = &report.failed[0];
        assert!(error.is_final() && error.to_string().contains(says), "{error}");
    }
    fake.state().images.insert(image, "amd64".to_owned());
    assert_eq!(reconcile(&worker, &desired).await.started.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_to_start_is_tried_less_and_less_often() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 1));
    fake.ignore("/start");
    let since = Instant::now();
    for _ in 0..30 {
        let _ = reconcile(&worker, &desired).await;
        advance(10 * SECOND).await;
    }
    let starts = fake.calls(since, "/start");
    assert!((2..=6).contains(&starts), "{starts}");
    let error = observed(&worker, &desired[0]).await.error.unwrap();
    assert!(error.contains("`start` within 30 s"), "{error}");
    fake.state().ignores.clear();
    advance(600 * SECOND).await;
    assert_eq!(reconcile(&worker, &desired).await.started.len(), 1);
}

/// The engine's networks are not where this process could filter them, whatever its rights are.
#[tokio::test]
async fn without_rules_nothing_starts() {
    let fake = Fake::default();
    let (worker, desired) = (fake.worker_on(Terms::default()).await, replicas(1, 2));
    let since = Instant::now();
    let report = reconcile(&worker, &desired).await;
    assert_eq!((report.started.len(), report.failed.len()), (0, 2), "{report:?}");
    for (_, error) in &report.failed {
        assert!(matches!(**error, ReplicaError::Firewall(_)), "{error}");
    }
    assert_eq!(fake.calls(since, "/containers/create"), 0);
    let error = observed(&worker, &desired[0]).await.error.unwrap();
    assert!(
        error.contains("no container is started") && error.contains("worker.egress"),
        "{error}"
    );
    // One network for the operator, and it goes again.
    assert_eq!(fake.calls(since, "/networks/create"), 1);
    let _ = reconcile(&worker, &[]).await;
    assert_eq!(fake.state().networks.len(), 0);
}

/// Only what this worker has pulled, that nobody uses, for as long.
#[tokio::test(start_paused = true)]
async fn unused_images_are_collected_and_nobody_elses() {
    use std::time::SystemTime;
    let fake = Fake::default();
    let (worker, desired) = (fake.worker().await, replicas(1, 1));
    fake.state().images.insert("somebody/elses@sha256:00".to_owned(), "amd64".to_owned());
    let hour = Duration::from_secs(3600);
    let after = |hours: u32| SystemTime::now() + hour * hours;
    let _ = reconcile(&worker, &desired).await;
    assert_eq!(worker.collect_images(hour, after(2)).await.unwrap(), []);
    let _ = reconcile(&worker, &[]).await;
    // It was in use when it was last looked.
    assert_eq!(worker.collect_images(hour, after(2)).await.unwrap(), []);
    let image = desired[0].spec.image.clone();
    assert_eq!(worker.collect_images(hour, after(4)).await.unwrap(), [image]);
    assert_eq!(fake.state().images.len(), 1);
    // What was there before is not this worker's.
    fake.state().images.insert(desired[0].spec.image.as_str().to_owned(), "amd64".to_owned());
    let _ = reconcile(&worker, &desired).await;
    let _ = reconcile(&worker, &[]).await;
    assert_eq!(worker.collect_images(hour, after(1000)).await.unwrap(), []);
    assert_eq!(fake.state().images.len(), 2);
}
