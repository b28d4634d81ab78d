//! Jobs that end.

use bollard::{models::RestartPolicyNameEnum, query_parameters::RemoveContainerOptionsBuilder};
use veil_node_containers::{DesiredReplica, Executor, Keep, Observed, Placement, ReconcileReport};
use veil_protocol_spec::{
    Slot,
    scheduling::{
        ContainerSettings, EndedReplica, JobSpec, JobType, Overlap, ReplicaExit, TimeZone,
    },
};

use crate::common::{Disk, SLEEP, job, replicas, until, with_worker};

fn batch(args: &[&str], max_attempts: u16) -> JobSpec {
    // The sample image's own user may write nowhere.
    let container =
        ContainerSettings { user: Some("0:0".parse().unwrap()), ..ContainerSettings::default() };
    JobSpec { kind: JobType::Batch { max_attempts }, replicas: 1, container, ..job(args) }
}

async fn reconcile(executor: &Executor, desired: &[DesiredReplica]) -> ReconcileReport {
    executor.reconcile(desired, &Keep::NOTHING).await.unwrap()
}

fn ended(desired: &DesiredReplica, code: Option<i32>) -> EndedReplica {
    let (job, replica) = (desired.id().job, desired.replica);
    EndedReplica { job, replica, exit: ReplicaExit { code, out_of_memory: false } }
}

async fn until_exited(executor: &Executor, code: i64) {
    until(async || {
        executor.observe().await.unwrap().remove(0).observed == Observed::Exited { code }
    })
    .await;
}

#[tokio::test]
async fn a_batch_replica_is_run_until_it_succeeds_over_restarts_of_the_worker() {
    with_worker(async |worker| {
        // It succeeds at its third run.
        let script = "echo run >> /runs; [ $(wc -l < /runs) -ge 3 ]";
        let desired = replicas(batch(&["sh", "-c", script], 5), 1);
        let disk = Disk::default();
        for run in 1..=3 {
            let executor = disk.executor(worker.owner).await;
            let report = reconcile(&executor, &desired).await;
            let begun = report.started.len() + report.restarted.len();
            assert_eq!((begun, report.restarted.len()), (1, usize::from(run > 1)), "{report:?}");
            until_exited(&executor, i64::from(run < 3)).await;
            assert_eq!(executor.ended(), [], "another run follows, or nobody looked yet");
        }
        let executor = disk.executor(worker.owner).await;
        assert_eq!(reconcile(&executor, &desired).await.ended, [desired[0].id()]);
        assert_eq!(executor.ended(), [ended(&desired[0], Some(0))]);
        let executor = disk.executor(worker.owner).await;
        let report = reconcile(&executor, &desired).await;
        assert!(report.is_unchanged() && report.kept == [desired[0].id()], "{report:?}");
        assert_eq!(executor.ended(), [ended(&desired[0], Some(0))], "until a certificate says so");
        let policy = worker.container().await.host_config.unwrap().restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::NO), "the engine does not start it");
        // A certificate says that it is done: its room is free.
        assert_eq!(executor.held().await.replicas, [desired[0].id()].into());
        assert_eq!(reconcile(&executor, &[]).await.stopped, [desired[0].id()]);
        assert_eq!((executor.ended(), executor.held().await.replicas.len()), (vec![], 0));
    })
    .await;
}

#[tokio::test]
async fn a_batch_replica_that_fails_is_run_as_often_as_it_may() {
    with_worker(async |worker| {
        let desired = replicas(batch(&["sh", "-c", "echo run >> /runs; exit 3"], 2), 1);
        for restarted in [false, true] {
            let report = worker.reconcile(&desired).await;
            assert_eq!(report.restarted.len(), usize::from(restarted), "{report:?}");
            until_exited(&worker.executor, 3).await;
        }
        assert_eq!(worker.reconcile(&desired).await.ended, [desired[0].id()]);
        assert!(worker.reconcile(&desired).await.is_unchanged());
        assert_eq!(worker.executor.ended(), [ended(&desired[0], Some(3))]);
        let observed = worker.executor.observe().await.unwrap().remove(0);
        assert_eq!(observed.to_string(), "exited (3, 1 restart)");
    })
    .await;
}

/// "A batch job's container pruned by hand does not run again."
#[tokio::test]
async fn a_batch_replica_whose_container_was_pruned_does_not_run_again() {
    with_worker(async |worker| {
        let disk = Disk::default();
        let desired = replicas(batch(&SLEEP, 5), 1);
        let executor = disk.executor(worker.owner).await;
        assert_eq!(reconcile(&executor, &desired).await.started.len(), 1);
        let container = worker.container().await.id.unwrap();
        let remove = RemoveContainerOptionsBuilder::new().force(true).build();
        worker.engine.remove_container(&container, Some(remove)).await.unwrap();

        let executor = disk.executor(worker.owner).await;
        let report = reconcile(&executor, &desired).await;
        assert_eq!((report.ended, report.started.len()), (vec![desired[0].id()], 0));
        assert_eq!(executor.ended(), [ended(&desired[0], None)]);
        let executor = disk.executor(worker.owner).await;
        let report = reconcile(&executor, &desired).await;
        assert!(report.is_unchanged() && report.kept == [desired[0].id()], "{report:?}");
        assert_eq!(worker.containers().await, []);
        assert_eq!(executor.ended(), [ended(&desired[0], None)]);
        // It was lost here, and comes back: its runs are counted anew.
        let placement = Placement { slot: Slot(9), ..desired[0].placement };
        let anew = [DesiredReplica { placement, ..desired[0].clone() }];
        assert_eq!(reconcile(&executor, &anew).await.started, [desired[0].id()]);
        assert_eq!(executor.ended(), []);
    })
    .await;
}

#[tokio::test]
async fn a_batch_replica_that_the_engine_cannot_start_has_not_run() {
    with_worker(async |worker| {
        let broken = JobSpec { command: vec!["/missing".to_owned()], ..batch(&[], 1) };
        let desired = replicas(broken, 1);
        for _ in 0..2 {
            let report = worker.reconcile(&desired).await;
            assert_eq!(report.failed.len() + report.waiting.len(), 1, "{report:?}");
        }
        assert_eq!((worker.executor.ended(), worker.containers().await), (vec![], vec![]));
    })
    .await;
}

/// The certificate by which the last run is over, or left, may not have reached this worker, or not its engine, when the
/// next one's does.
#[tokio::test]
async fn each_run_of_a_periodic_job_has_a_container_of_its_own() {
    with_worker(async |worker| {
        let kind = JobType::Periodic {
            cron: "* * * * *".parse().unwrap(),
            time_zone: TimeZone::default(),
            overlap: Overlap::Replace,
        };
        // It fails if it finds what another run has written.
        let script = "[ ! -e /ran ] && touch /ran && sleep 1";
        let mut desired = replicas(JobSpec { kind, ..batch(&["sh", "-c", script], 1) }, 1);
        let executor = Disk::default().executor(worker.owner).await;
        for slot in [1, 2] {
            desired[0].placement.slot = Slot(slot);
            let report = reconcile(&executor, &desired).await;
            assert_eq!(report.started, [desired[0].id()], "slot {slot}: {report:?}");
            assert_eq!(executor.ended(), []);
            until_exited(&executor, 0).await;
            let report = reconcile(&executor, &desired).await;
            assert_eq!(executor.ended(), [ended(&desired[0], Some(0))], "{report:?}");
        }
        // What still runs is stopped.
        desired[0].placement.slot = Slot(3);
        assert_eq!(reconcile(&executor, &desired).await.started, [desired[0].id()]);
        let before = executor.observe().await.unwrap().remove(0).container;
        desired[0].placement.slot = Slot(4);
        assert_eq!(reconcile(&executor, &desired).await.started, [desired[0].id()]);
        let after = executor.observe().await.unwrap();
        assert_eq!(after.len(), 1);
        assert_ne!(after[0].container, before);
    })
    .await;
}
