//! Containers on the real engine, pulled from the real registry.
//!
//! `cargo xtask setup --docker` starts both; without them these tests fail and say so. Every test is
//! a worker of its own on the shared engine. They need the rights that a worker needs that filters what its
//! containers reach: root, or CAP_NET_ADMIN; those of networks need root.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "docker/batch.rs"]
mod batch;
#[path = "docker/common.rs"]
mod common;
#[path = "docker/failures.rs"]
mod failures;
#[path = "docker/health.rs"]
mod health;
#[path = "docker/images.rs"]
mod images;
#[path = "docker/links.rs"]
mod links;
#[path = "docker/network.rs"]
mod network;
#[path = "docker/outside.rs"]
mod outside;
#[path = "docker/ports.rs"]
mod ports;
#[path = "docker/proxy.rs"]
mod proxy;
#[path = "docker/reach.rs"]
mod reach;
#[path = "docker/registry.rs"]
mod registry;
#[path = "docker/restarts.rs"]
mod restarts;
#[path = "docker/sealed.rs"]
mod sealed;
#[path = "docker/settings.rs"]
mod settings;
#[path = "docker/trouble.rs"]
mod trouble;
#[path = "docker/volumes.rs"]
mod volumes;

use std::time::Duration;

use bollard::{
    models::{ContainerCreateBody, ContainerSummary},
    query_parameters::CreateContainerOptionsBuilder,
};
use common::{SLEEP, is_podman, job, replicas, until, with_worker};
use tokio::time::timeout;
use veil_node_containers::{Docker, Executor, Keep, Observed, lapsed};
use veil_protocol_spec::{
    Slot,
    scheduling::{CpuUnits, JobSpec, LeasePolicy, MemoryUnits, RestartMode, RestartPolicy},
};

fn on_failure(attempts: u16) -> RestartPolicy {
    RestartPolicy {
        mode: RestartMode::OnFailure,
        attempts: Some(attempts),
        ..RestartPolicy::default()
    }
}

#[tokio::test]
async fn replicas_run_confined_and_labelled_and_a_second_time_changes_nothing() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 2);
        let report = worker.reconcile(&desired).await;
        assert!(report.failed.is_empty(), "{report:?}");
        assert_eq!(report.started, [desired[0].id(), desired[1].id()]);
        let before = worker.containers().await;
        assert_eq!(before.len(), 2);
        for container in &before {
            let seen =
                worker.engine.inspect_container(container.id.as_deref().unwrap(), None).await;
            let seen = seen.unwrap();
            let host = seen.host_config.unwrap();
            assert_eq!(host.nano_cpus, Some(200_000_000));
            assert_eq!(host.memory, Some(64 << 20));
            assert_eq!(host.memory_swap, Some(64 << 20));
            assert_eq!(host.pids_limit, Some(512));
            assert_eq!(host.privileged, Some(false));
            // Podman names each that is not there.
            let is_all = host.cap_drop.unwrap() == ["ALL"];
            assert!(is_all || is_podman().await);
            let security = host.security_opt.unwrap().join(" ");
            assert_eq!(security.trim_end_matches(":true"), "no-new-privileges");
            assert!(host.port_bindings.unwrap_or_default().is_empty());
            let labels = seen.config.unwrap().labels.unwrap();
            assert_eq!(labels["veil.worker"], worker.owner.worker.to_string());
            assert!(labels["veil.cluster"].ends_with(&worker.owner.scope.cluster.to_string()));
            assert_eq!(labels["veil.job"], desired[0].id().job.to_string());
            assert_eq!(labels["veil.slot"], "7");
            assert_eq!(labels["veil.certificate"], "ce".repeat(32));
        }
        let report = worker.reconcile(&desired).await;
        assert!(report.is_unchanged(), "{report:?}");
        assert_eq!(report.kept.len(), 2);
        let ids = |list: &[ContainerSummary]| -> Vec<_> {
            list.iter().map(|container| (container.id.clone(), container.created)).collect()
        };
        assert_eq!(ids(&worker.containers().await), ids(&before));
        let held = worker.executor.held().await;
        assert_eq!((held.reserved.cpu, held.reserved.memory), (CpuUnits(4), MemoryUnits(2)));
        assert!(held.memory_bytes > 0 && held.memory_bytes < held.reserved.memory.amount());
        assert!(!held.cpu_time.is_zero());
        for replica in worker.executor.observe().await.unwrap() {
            assert_eq!(replica.observed, Observed::Running);
            assert_eq!(replica.claimed, Some(desired[0].placement));
        }
    })
    .await;
}

/// An empty data directory, a body that is missing, a committee that cannot be reached: nothing of it
/// removes what runs.
#[tokio::test]
async fn what_is_not_known_to_be_over_stays() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 2);
        let placed_in = desired[0].placement.slot;
        assert_eq!(worker.reconcile(&desired).await.started.len(), 2);
        // The worker knows certificates up to a slot before the one that placed them.
        let before = Keep { as_of: Slot(placed_in.0 - 1), ..Keep::NOTHING };
        let report = worker.executor.reconcile(&[], &before).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        // It knows that slot, but not what one of the replicas is to run.
        let keep = Keep { as_of: placed_in, replicas: [desired[0].id()].into(), ..Keep::NOTHING };
        let report = worker.executor.reconcile(&[], &keep).await.unwrap();
        assert_eq!(report.stopped, [desired[1].id()]);
        worker.container().await;
        assert_eq!(worker.reconcile(&desired).await.kept, [desired[0].id()]);
    })
    .await;
}

/// Another worker may run the replica by then, whatever this one knows of it. What it wrote is there when
/// the committee is back and has decided nothing else.
#[tokio::test]
async fn a_lapsed_exclusive_replica_is_stopped_and_not_removed() {
    with_worker(async |worker| {
        let exclusive = LeasePolicy::Exclusive { seconds: 60 };
        // It is never started again when it ends by itself.
        let desired = replicas(JobSpec { lease: exclusive, ..job(&SLEEP) }, 1);
        let replicas = [desired[0].id()];
        assert_eq!(worker.reconcile(&desired).await.started, replicas);
        let container = worker.container().await.id;
        let keep = |as_of, replicas: &[_], seconds| Keep {
            as_of,
            replicas: replicas.iter().copied().collect(),
            contact_age: Duration::from_secs(seconds),
            ..Keep::NOTHING
        };
        for (as_of, kept) in [(Slot(0), &[][..]), (Slot(9), &replicas[..])] {
            for (seconds, suspended) in [(59, &[][..]), (60, &replicas[..]), (61, &[][..])] {
                let keep = keep(as_of, kept, seconds);
                let report = worker.executor.reconcile(&[], &keep).await.unwrap();
                assert_eq!(report.suspended, suspended, "{report:?}");
                assert!(report.stopped.is_empty() && report.failed.is_empty(), "{report:?}");
            }
            let stopped = worker.container().await;
            assert_eq!(stopped.state.unwrap().running, Some(false));
            // Its room is not free.
            let held = worker.executor.held().await;
            assert_eq!((held.replicas, held.reserved.cpu), (replicas.into(), CpuUnits(2)));

            assert_eq!(worker.reconcile(&desired).await.restarted, replicas);
            let again = worker.container().await;
            assert_eq!((again.state.unwrap().running, &again.id), (Some(true), &container));
            assert!(worker.reconcile(&desired).await.is_unchanged());
        }
        // Its own end stays its end.
        worker.engine.kill_container(container.as_deref().unwrap(), None).await.unwrap();
        worker.until_observed(Observed::Exited { code: 137 }).await;
        let report = worker.executor.reconcile(&[], &keep(Slot(9), &replicas, 60)).await.unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        assert!(worker.reconcile(&desired).await.is_unchanged());
        assert_eq!(worker.observed().await, Observed::Exited { code: 137 });
    })
    .await;
}

/// Each state in which a worker can die that stops a replica, or starts it again.
#[tokio::test]
async fn stopping_for_a_lease_can_be_cut_off_anywhere() {
    with_worker(async |worker| {
        let exclusive = LeasePolicy::Exclusive { seconds: 60 };
        let desired = replicas(JobSpec { lease: exclusive, ..job(&SLEEP) }, 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let keep = Keep { as_of: Slot(0), contact_age: Duration::MAX, ..Keep::NOTHING };
        for milliseconds in [1, 3, 5, 10, 20, 40, 80, 160, 320, 640, 1_300] {
            let cut_off = Duration::from_millis(milliseconds);
            let _ = timeout(cut_off, worker.executor.reconcile(&[], &keep)).await;
            let _ = timeout(cut_off, worker.reconcile(&desired)).await;
            until(async || {
                let report = worker.reconcile(&desired).await;
                let state = worker.container().await.state.unwrap();
                report.is_unchanged() && state.running == Some(true)
            })
            .await;
        }
    })
    .await;
}

/// A worker that was counted as lost and is back: what nobody else runs goes on.
#[tokio::test]
async fn what_has_no_other_place_goes_on_and_what_has_one_is_removed() {
    with_worker(async |worker| {
        let keeps = replicas(job(&SLEEP), 1);
        let exclusive = LeasePolicy::Exclusive { seconds: 60 };
        let excludes = replicas(JobSpec { lease: exclusive, ..job(&SLEEP) }, 1);
        let desired = [keeps.clone(), excludes.clone()].concat();
        assert_eq!(worker.reconcile(&desired).await.started.len(), 2);
        // It renews no lease meanwhile.
        let lapsed = Keep {
            as_of: Slot(9),
            replicas: [excludes[0].id()].into(),
            contact_age: Duration::from_secs(60),
            ..Keep::NOTHING
        };
        let report = worker.executor.reconcile(&keeps, &lapsed).await.unwrap();
        assert!(report.stopped.is_empty(), "{report:?}");
        assert_eq!((report.kept, report.suspended), (vec![keeps[0].id()], vec![excludes[0].id()]));
        // Placed here again, both are the same containers.
        let report = worker.reconcile(&desired).await;
        assert_eq!((report.kept, report.restarted), (vec![keeps[0].id()], vec![excludes[0].id()]));
        // Placed elsewhere.
        assert_eq!(worker.reconcile(&excludes).await.stopped, [keeps[0].id()]);
        assert_eq!(worker.reconcile(&[]).await.stopped, [excludes[0].id()]);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_desired_is_stopped_and_nothing_else() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 2);
        let foreign = worker.create_beside(None).await;
        worker.engine.start_container(&foreign, None).await.unwrap();
        assert_eq!(worker.reconcile(&desired).await.started.len(), 2);
        let report = worker.reconcile(&desired[1..]).await;
        let foreign_runs = worker.engine.inspect_container(&foreign, None).await;
        assert_eq!(foreign_runs.unwrap().state.unwrap().running, Some(true));
        assert_eq!(report.stopped, [desired[0].id()]);
        assert_eq!(report.kept, [desired[1].id()]);
        worker.container().await;
    })
    .await;
}

#[tokio::test]
async fn workers_that_share_an_engine_do_not_touch_each_other() {
    with_worker(async |one| {
        with_worker(async |other| {
            let desired = replicas(job(&SLEEP), 1);
            assert_eq!(one.reconcile(&desired).await.started.len(), 1);
            assert_eq!(other.reconcile(&desired).await.started.len(), 1);
            assert_eq!(one.reconcile(&[]).await.stopped.len(), 1);
            assert_eq!(other.container().await.state.unwrap().running, Some(true));
            assert!(other.reconcile(&desired).await.is_unchanged());
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_restarted_worker_knows_its_containers() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 2);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 2);
        let docker = Docker::connect(&common::socket()).await.unwrap();
        let restarted = Executor::new(docker, worker.owner);
        let report = restarted.reconcile(&desired[..1], &Keep::NOTHING).await.unwrap();
        assert_eq!((report.kept.len(), report.stopped.len()), (1, 1), "{report:?}");
        assert!(report.started.is_empty() && report.restarted.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_killed_container_runs_again() {
    with_worker(async |worker| {
        let mut spec = job(&SLEEP);
        spec.restart = RestartPolicy::default();
        let desired = replicas(spec, 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let id = worker.container().await.id.unwrap();
        // Killed through the engine, which takes it as an order and does not start it again.
        worker.engine.kill_container(&id, None).await.unwrap();
        until(async || worker.observed().await == Observed::Exited { code: 137 }).await;
        until(async || worker.reconcile(&desired).await.restarted == [desired[0].id()]).await;
        let seen = worker.container().await;
        assert_eq!(seen.id, Some(id));
        assert_eq!(seen.state.unwrap().running, Some(true));
    })
    .await;
}

#[tokio::test]
async fn only_the_worker_restarts_what_fails_and_as_often_as_the_job_allows() {
    for lease in [LeasePolicy::Keep, LeasePolicy::Exclusive { seconds: 60 }] {
        with_worker(async |worker| {
            let spec = JobSpec { lease, restart: on_failure(2), ..job(&["sh", "-c", "exit 3"]) };
            let desired = replicas(spec, 1);
            assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
            for _ in 0..2 {
                until(async || worker.reconcile(&desired).await.restarted.len() == 1).await;
            }
            worker.until_observed(Observed::Exited { code: 3 }).await;
            assert_eq!(worker.container().await.restart_count, Some(0), "by the engine");
            assert!(worker.reconcile(&desired).await.is_unchanged());
            assert_eq!(worker.observed().await, Observed::Exited { code: 3 });
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_done_stays_done() {
    with_worker(async |worker| {
        let desired = replicas(job(&["true"]), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        worker.until_observed(Observed::Exited { code: 0 }).await;
        assert!(worker.reconcile(&desired).await.is_unchanged());
    })
    .await;
}

#[tokio::test]
async fn a_container_that_was_created_only_is_adopted() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let seen = worker.container().await;
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        // As a worker leaves it that dies between the two calls.
        let name = seen.name.unwrap();
        let options = CreateContainerOptionsBuilder::new().name(name.trim_start_matches('/'));
        let body = ContainerCreateBody {
            image: Some(common::image()),
            cmd: Some(SLEEP.map(str::to_owned).to_vec()),
            labels: seen.config.unwrap().labels,
            ..ContainerCreateBody::default()
        };
        let id = worker.engine.create_container(Some(options.build()), body).await.unwrap().id;
        assert_eq!(worker.reconcile(&desired).await.started, [desired[0].id()]);
        assert_eq!(worker.container().await.id, Some(id));
        assert_eq!(worker.observed().await, Observed::Running);
    })
    .await;
}

#[tokio::test]
async fn reconciling_can_be_cut_off_anywhere() {
    with_worker(async |worker| {
        for milliseconds in [1, 3, 10, 20, 30, 45, 60, 80, 100, 150, 200, 300] {
            let desired = replicas(job(&SLEEP), 1);
            let cut_off = Duration::from_millis(milliseconds);
            let _ = timeout(cut_off, worker.executor.reconcile(&desired, &Keep::NOTHING)).await;
            let report = worker.reconcile(&desired).await;
            assert!(report.failed.is_empty() && report.busy.is_empty(), "{report:?}");
            assert_eq!(worker.container().await.state.unwrap().running, Some(true));
        }
    })
    .await;
}

#[test]
fn an_exclusive_lease_lapses_and_the_other_kind_never_does() {
    let mut exclusive = job(&SLEEP);
    exclusive.lease = LeasePolicy::Exclusive { seconds: 60 };
    let desired = [replicas(exclusive, 1), replicas(job(&SLEEP), 1)].concat();
    assert_eq!(lapsed(&desired, Duration::from_secs(59)), []);
    assert_eq!(lapsed(&desired, Duration::from_secs(60)), [desired[0].id()]);
    assert_eq!(lapsed(&desired, Duration::MAX), [desired[0].id()]);
}
