//! One container's trouble is its own, on a real engine behind a socket that lets calls hang.

use std::time::{Duration, Instant};

use veil_node_containers::{Deadlines, Docker, Executor, Exit, Keep, Observed};
use veil_protocol_spec::scheduling::{
    CpuUnits, HealthCheck, HealthProbe, JobSpec, LeasePolicy, MemoryUnits, ResourceRequest,
    Resources, RestartMode, RestartPolicy, Unhealthy,
};

use crate::{
    common::{Disk, SLEEP, Worker, job, replicas, until, with_worker},
    proxy::Proxy,
};

/// The same worker behind a proxy, with short deadlines.
async fn behind(worker: &Worker, proxy: &Proxy) -> Executor {
    let second = Duration::from_secs(1);
    let deadlines =
        Deadlines { list: 2 * second, look: second, grace: second, ..Deadlines::default() };
    let docker = Docker::connect_with(&proxy.socket(), deadlines).await.unwrap();
    Executor::new(docker, worker.owner)
}

/// kubernetes/kubernetes#94829, moby/moby#44300.
#[tokio::test]
async fn a_container_of_which_the_engine_says_nothing_is_named_and_the_others_are_reported() {
    with_worker(async |worker| {
        let proxy = Proxy::start();
        let executor = behind(worker, &proxy).await;
        let desired = replicas(job(&SLEEP), 3);
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert_eq!(report.started.len(), 3, "{report:?}");
        let observed = executor.observe().await.unwrap();
        let stuck = observed[1].container.clone().unwrap();
        proxy.ignore(&[format!("/{stuck}/json"), format!("/{stuck}/stats")]);

        let executor = behind(worker, &proxy).await; // which has seen nothing yet
        let observed = executor.observe().await.unwrap();
        let states: Vec<_> = observed.iter().map(|replica| replica.observed).collect();
        assert_eq!(states, [Observed::Running, Observed::Unknown, Observed::Running]);
        let error = observed[1].error.as_ref().unwrap();
        assert!(error.contains("`inspect`"), "{error}");
        let held = executor.held().await;
        assert!(held.silence.is_none());
        assert_eq!(held.reserved.cpu, CpuUnits(6));
        assert!(held.memory_bytes > 0);
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_named_and_nothing_is_removed() {
    with_worker(async |worker| {
        let proxy = Proxy::start();
        let executor = behind(worker, &proxy).await;
        let desired = replicas(job(&SLEEP), 1);
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert_eq!(report.started.len(), 1);
        assert!(executor.held().await.silence.is_none());
        proxy.ignore(&["/".to_owned()]);
        let error = executor.reconcile(&[], &Keep::NOTHING).await.unwrap_err();
        assert!(error.to_string().contains("`list`"), "{error}");
        let held = executor.held().await;
        assert!(held.silence.is_some());
        assert_eq!(held.reserved.cpu, CpuUnits(2), "as the engine said last");
        worker.container().await;
        proxy.ignore(&[]);
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert_eq!(report.kept.len(), 1, "{report:?}");
    })
    .await;
}

/// The engine calls it running until it has ended.
#[tokio::test]
async fn a_container_that_has_its_grace_to_end_is_not_called_running() {
    with_worker(async |worker| {
        let deaf = ["sh", "-c", "trap '' TERM; while true; do sleep 1; done"];
        let desired = replicas(job(&deaf), 3);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 3);
        let keep = Keep::NOTHING;
        let stopping = worker.executor.reconcile(&desired[..2], &keep);
        let states = async {
            until(async || {
                let observed = worker.executor.observe().await.unwrap();
                let count = |of| observed.iter().filter(|seen| seen.observed == of).count();
                (count(Observed::Running), count(Observed::Stopping)) == (2, 1)
            })
            .await;
        };
        let (report, ()) = tokio::join!(stopping, states);
        assert_eq!(report.unwrap().stopped.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_container_that_is_killed_for_its_memory_says_so() {
    with_worker(async |worker| {
        let eats = ["sh", "-c", "x=a; while true; do x=$x$x; done"];
        let desired = replicas(job(&eats), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        // Podman before 5.0 looks for the kernel's word in another place than where it is left.
        let facts = worker.executor.facts().await.unwrap();
        let is_told = facts.engine != "Podman" || !facts.version.starts_with("4.");
        let says = if is_told { "exited (137, out of memory)" } else { "exited (137)" };
        until(async || {
            let observed = worker.executor.observe().await.unwrap();
            observed[0].to_string() == says
        })
        .await;
    })
    .await;
}

/// The engine keeps no count of them.
#[tokio::test]
async fn restarts_are_counted_over_a_restart_of_the_worker() {
    with_worker(async |worker| {
        let mut spec = job(&["sh", "-c", "exit 3"]);
        spec.lease = LeasePolicy::Exclusive { seconds: 60 };
        spec.restart = RestartPolicy {
            mode: RestartMode::OnFailure,
            attempts: Some(2),
            ..RestartPolicy::default()
        };
        let desired = replicas(spec, 1);
        let disk = Disk::default();
        let executor = disk.executor(worker.owner).await;
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert_eq!(report.started.len(), 1, "{report:?}");
        for _ in 0..2 {
            let executor = disk.executor(worker.owner).await;
            until(async || {
                let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
                report.restarted.len() == 1
            })
            .await;
        }
        worker.until_observed(Observed::Exited { code: 3 }).await;
        // As often as the job allows, whoever asks.
        let executor = disk.executor(worker.owner).await;
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        let observed = executor.observe().await.unwrap().remove(0);
        assert_eq!(observed.to_string(), "exited (3, 2 restarts)");
        assert_eq!(observed.last_exit, Some(Exit { code: 3, out_of_memory: false }));
    })
    .await;
}

/// dotnet/runtime#55964: to the program it looks like a lack of memory.
#[tokio::test]
async fn a_limit_of_processes_that_is_reached_is_shown() {
    with_worker(async |worker| {
        let forks = "i=1; while [ $i -lt 512 ]; do sleep 3600 & i=$((i+1)); done; wait";
        let ResourceRequest::Clear(usual) = job(&SLEEP).request else { panic!("in clear") };
        let request = Resources { memory: MemoryUnits(16), cpu: CpuUnits(10), ..usual };
        let spec =
            JobSpec { request: ResourceRequest::Clear(request), ..job(&["sh", "-c", forks]) };
        assert_eq!(worker.reconcile(&replicas(spec, 1)).await.started.len(), 1);
        until(async || {
            let _ = worker.executor.held().await;
            let observed = worker.executor.observe().await.unwrap();
            observed[0].to_string() == "running (at its limit of 512 processes)"
        })
        .await;
    })
    .await;
}

/// What the worker itself adds to what the engine needs, and what it asks when nothing changes:
/// `cargo test --release -p veil-node-containers --test docker figures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures"]
async fn figures_of_twenty_replicas() {
    with_worker(async |worker| {
        let proxy = Proxy::start();
        let executor = behind(worker, &proxy).await;
        let probe = HealthProbe::Tcp { port: 8080 };
        let health = HealthCheck {
            probe,
            interval_seconds: 1,
            timeout_seconds: 1,
            retries: 2,
            start_period_seconds: 0,
            unhealthy: Unhealthy::Nothing,
        };
        let desired = replicas(JobSpec { health: Some(health), replicas: 20, ..job(&[]) }, 20);
        let begun = Instant::now();
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        let took = begun.elapsed();
        assert_eq!(report.started.len(), 20, "{report:?}");
        println!("twenty replicas started in {took:?} with {} calls", proxy.calls());
        // The same by the engine alone, as many at once.
        let begun = Instant::now();
        let alone = (0..20).map(async |_| {
            let id = worker.create_beside(None).await;
            worker.engine.start_container(&id, None).await.unwrap();
        });
        use futures::StreamExt as _;
        futures::stream::iter(alone).buffer_unordered(8).collect::<()>().await;
        println!("by the engine alone in {:?}", begun.elapsed());
        let running = async || {
            let observed = executor.observe().await.unwrap();
            observed.iter().all(|replica| replica.observed == Observed::Running)
        };
        until(running).await;
        let (begun, _) = (Instant::now(), proxy.calls());
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        for tick in 0..=9 {
            ticks.tick().await;
            let _ = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
            let _ = executor.observe().await.unwrap();
            if tick % 3 == 0 {
                let _ = executor.held().await;
            }
        }
        let per_second = proxy.calls() as f64 / begun.elapsed().as_secs_f64();
        println!("{per_second:.2} calls a second when nothing changes");
        let begun = Instant::now();
        let report = executor.reconcile(&desired, &Keep::NOTHING).await.unwrap();
        assert!(report.is_unchanged());
        println!("nothing to do: {:?}", begun.elapsed());
    })
    .await;
}
