//! Starting again and stopping, as the job says.

use std::time::{Duration, Instant};

use veil_node_containers::{Executor, Keep, Observed};
use veil_protocol_spec::scheduling::{
    ContainerSettings, HealthCheck, HealthProbe, JobSpec, RestartMode, RestartPolicy, Unhealthy,
};

use crate::common::{Disk, SLEEP, Worker, job, replicas, until, with_worker};

fn restarting(policy: RestartPolicy, args: &[&str]) -> JobSpec {
    JobSpec { restart: policy, ..job(args) }
}

async fn seen(executor: &Executor) -> (String, u64) {
    let observed = executor.observe().await.unwrap().remove(0);
    (observed.to_string(), observed.restarts)
}

#[tokio::test]
async fn attempts_are_counted_after_whatever_exit_and_over_a_restart_of_the_worker() {
    with_worker(async |worker| {
        let policy = RestartPolicy {
            mode: RestartMode::Always,
            attempts: Some(2),
            interval_seconds: 3600,
            ..RestartPolicy::default()
        };
        let desired = replicas(restarting(policy, &["true"]), 1);
        let disk = Disk::default();
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        for _ in 0..2 {
            // A process of its own each time.
            let executor = disk.executor(worker.owner).await;
            until(async || {
                let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
                report.restarted.len() == 1
            })
            .await;
        }
        worker.until_observed(Observed::Exited { code: 0 }).await;
        let executor = disk.executor(worker.owner).await;
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        assert_eq!(seen(&executor).await.0, "exited (0, 2 restarts)");
    })
    .await;
}

#[tokio::test]
async fn a_delay_is_waited_for_and_the_worker_says_when_it_is_over() {
    with_worker(async |worker| {
        let policy = RestartPolicy {
            mode: RestartMode::OnFailure,
            attempts: Some(1),
            delay_seconds: 8,
            ..RestartPolicy::default()
        };
        let desired = replicas(restarting(policy, &["sh", "-c", "exit 3"]), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        worker.until_observed(Observed::Exited { code: 3 }).await;
        let begun = Instant::now();
        assert!(worker.reconcile(&desired).await.is_unchanged());
        assert_eq!(worker.observed().await, Observed::Restarting);
        let again = async {
            loop {
                worker.executor.wake().await;
                if worker.reconcile(&desired).await.restarted.len() == 1 {
                    break begun.elapsed();
                }
            }
        };
        let took = again.await;
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(60));
        assert!((least..most).contains(&took), "{took:?}");
    })
    .await;
}

#[tokio::test]
async fn the_engine_tells_of_an_end_before_anybody_looks() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let id = worker.container().await.id.unwrap();
        let kill = async {
            // Until the engine has taken the question.
            tokio::time::sleep(Duration::from_secs(1)).await;
            worker.engine.kill_container(&id, None).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = worker.executor.wake() => {}
            () = worker.executor.listen() => unreachable!("it goes on"),
            () = kill => unreachable!("it goes on"),
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it says nothing"),
        }
        assert_eq!(worker.observed().await, Observed::Exited { code: 137 });
    })
    .await;
}

fn check(probe: HealthProbe) -> HealthCheck {
    HealthCheck {
        probe,
        interval_seconds: 1,
        timeout_seconds: 1,
        retries: 1,
        start_period_seconds: 0,
        unhealthy: Unhealthy::Restart,
    }
}

/// Both by the engine's check and by the worker's own.
#[tokio::test]
async fn what_is_unhealthy_is_started_again_as_often_as_the_job_allows() {
    let probes = [
        HealthProbe::Command(["/bin/busybox", "false"].map(str::to_owned).to_vec()),
        HealthProbe::Tcp { port: 8080 },
    ];
    for probe in probes {
        with_worker(async |worker| {
            let policy = RestartPolicy {
                mode: RestartMode::OnFailure,
                attempts: Some(1),
                ..RestartPolicy::default()
            };
            // It ends with code 0 when it is told to stop, which is no failure by itself.
            let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
            let spec =
                JobSpec { health: Some(check(probe)), ..restarting(policy, &["sh", "-c", script]) };
            let desired = replicas(spec, 1);
            assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
            let restarts = async || {
                let _ = worker.reconcile(&desired).await;
                seen(&worker.executor).await
            };
            until(async || restarts().await.1 == 1).await;
            until(async || restarts().await.0.starts_with("unhealthy (1 restart")).await;
            for _ in 0..3 {
                assert!(worker.reconcile(&desired).await.is_unchanged());
            }
        })
        .await;
    }
}

async fn stop_takes(worker: &Worker, seconds: u16) -> Duration {
    let container =
        ContainerSettings { stop_timeout_seconds: seconds, ..ContainerSettings::default() };
    // Process 1 of a container ignores what it does not handle.
    let desired = replicas(JobSpec { container, ..job(&SLEEP) }, 1);
    assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
    let begun = Instant::now();
    assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
    begun.elapsed()
}

#[tokio::test]
async fn a_container_has_the_time_to_stop_that_its_job_says() {
    with_worker(async |worker| {
        assert!(stop_takes(worker, 4).await >= Duration::from_secs(4));
        assert!(stop_takes(worker, 0).await < Duration::from_secs(4));
    })
    .await;
}
