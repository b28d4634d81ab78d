//! What cannot work is named, and leaves the rest alone.

use std::{os::unix::net::UnixListener, time::Duration};

use tokio::net::TcpListener;
use veil_node_containers::{
    Deadlines, DesiredReplica, Docker, DockerError, Observed, ReplicaError,
};
use veil_protocol_spec::scheduling::{CpuUnits, GpuUnits, JobSpec, ResourceRequest, Resources};

use crate::common::{SLEEP, image, is_podman, job, replicas, until, with_deadlines, with_worker};

fn with_image(image: String) -> JobSpec {
    JobSpec { image: image.parse().unwrap(), ..job(&SLEEP) }
}

#[tokio::test]
async fn without_an_engine_the_error_names_the_socket_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.sock");
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let silent = folder.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    let deadlines = Deadlines { connect: Duration::from_millis(200), ..Deadlines::default() };
    for socket in [missing, stale, silent] {
        let error = Docker::connect_with(&socket, deadlines).await.unwrap_err();
        assert!(matches!(error, DockerError::NoEngine { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(socket.to_str().unwrap()), "{message}");
        assert!(message.contains("cargo xtask setup --docker"), "{message}");
    }
}

#[tokio::test]
async fn a_digest_that_the_registry_lacks_is_named_and_the_others_run() {
    with_worker(async |worker| {
        let (name, _) = image().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let wrong = replicas(with_image(format!("{name}@sha256:{}", "ab".repeat(32))), 2);
        let good = replicas(job(&SLEEP), 1);
        let report = worker.reconcile(&[wrong.clone(), good.clone()].concat()).await;
        assert_eq!(report.started, [good[0].id()], "{report:?}");
        assert_eq!(report.failed.len(), 2);
        for (_, error) in &report.failed {
            assert!(matches!(**error, ReplicaError::NoSuchImage { .. }), "{error:?}");
        }
        let observed = worker.executor.observe().await.unwrap();
        let observed = observed.iter().find(|replica| replica.id == wrong[0].id()).unwrap();
        assert_eq!(observed.observed, Observed::Missing);
        assert!(observed.error.as_ref().unwrap().contains(&"ab".repeat(32)));
        assert_eq!(observed.claimed, Some(wrong[0].placement));
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_and_asked_again_later() {
    with_worker(async |worker| {
        // A port that only the system may listen at, and nothing does.
        let gone = "127.0.0.1:1";
        let desired = replicas(with_image(format!("{gone}/app@sha256:{}", "ab".repeat(32))), 1);
        let report = worker.reconcile(&desired).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::Pull { .. }), "{error:?}");
        assert_eq!(worker.reconcile(&desired).await.waiting, [desired[0].id()]);
        let observed = worker.executor.observe().await.unwrap();
        assert!(observed[0].error.as_ref().unwrap().contains("(attempt 1; the next in"));
    })
    .await;
}

/// A registry that accepts connections (the kernel does) and never says anything, and a replica of an
/// image of it.
async fn silent_registry() -> (TcpListener, Vec<DesiredReplica>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    (silent, replicas(with_image(format!("{at}/app@sha256:{}", "ab".repeat(32))), 1))
}

#[tokio::test]
async fn a_pull_that_hangs_ends() {
    let deadlines = Deadlines {
        stall: Duration::from_secs(2),
        grace: Duration::from_secs(1),
        ..Deadlines::default()
    };
    with_deadlines(deadlines, async |worker| {
        let (_silent, stuck) = silent_registry().await;
        let report = worker.reconcile(&stuck).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::Pull { .. }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_pull_that_hangs_holds_up_nothing() {
    // It hangs until the registry is gone.
    let hour = Duration::from_secs(3600);
    let grace = Duration::from_secs(1);
    let deadlines = Deadlines { stall: hour, grace, ..Deadlines::default() };
    with_deadlines(deadlines, async |worker| {
        let (silent, stuck) = silent_registry().await;
        let good = replicas(job(&SLEEP), 1);
        let first = worker.reconcile(&stuck);
        let second = async {
            until(async || worker.observed().await == Observed::Pulling).await;
            let report = worker.reconcile(&[stuck.clone(), good.clone()].concat()).await;
            drop(silent);
            report
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((second.started, second.busy), (vec![good[0].id()], vec![stuck[0].id()]));
        let (_, error) = &first.failed[0];
        assert!(matches!(**error, ReplicaError::Pull { .. }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_is_not_in_the_image_leaves_no_container() {
    with_worker(async |worker| {
        let broken = JobSpec { command: vec!["/missing".to_owned()], ..job(&[]) };
        let desired = replicas(broken, 1);
        let report = worker.reconcile(&desired).await;
        let (id, error) = &report.failed[0];
        assert_eq!(*id, desired[0].id());
        assert!(error.to_string().contains("/missing"), "{error}");
        assert_eq!(worker.containers().await, []);
    })
    .await;
}

#[tokio::test]
async fn requests_that_this_machine_cannot_meet_are_named() {
    with_worker(async |worker| {
        let request =
            |resources| JobSpec { request: ResourceRequest::Clear(resources), ..job(&SLEEP) };
        let ResourceRequest::Clear(usual) = job(&SLEEP).request else { panic!("in clear") };
        let gpu = replicas(request(Resources { gpu: GpuUnits(1), ..usual }), 1);
        let cpu = replicas(request(Resources { cpu: CpuUnits(u16::MAX), ..usual }), 1);
        if is_podman().await {
            // It takes any number of CPUs for a limit, and cannot give more than there are.
            let report = worker.reconcile(&[gpu.clone(), cpu.clone()].concat()).await;
            assert_eq!((report.started, report.failed.len()), (vec![cpu[0].id()], 1));
            let (_, error) = &report.failed[0];
            assert!(matches!(**error, ReplicaError::NoGpusOfPodman { wanted: 1 }), "{error}");
            return;
        }
        let report = worker.reconcile(&[gpu.clone(), cpu.clone()].concat()).await;
        let error = |id| &*report.failed.iter().find(|(failed, _)| *failed == id).unwrap().1;
        let no_gpu = error(gpu[0].id());
        assert!(matches!(no_gpu, ReplicaError::NoGpus { wanted: 1, free: 0, all: 0 }), "{no_gpu}");
        assert!(matches!(error(cpu[0].id()), ReplicaError::Docker(DockerError::Refused { .. })));
        assert_eq!(worker.containers().await, []);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_container_with_the_name_is_left_alone() {
    with_worker(async |worker| {
        let desired = replicas(job(&SLEEP), 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let name = worker.container().await.name.unwrap().trim_start_matches('/').to_owned();
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        let foreign = worker.create_beside(Some(&name)).await;
        let report = worker.reconcile(&desired).await;
        let still_there = worker.engine.inspect_container(&foreign, None).await;
        assert!(still_there.is_ok());
        let (_, error) = &report.failed[0];
        assert!(
            matches!(&**error, ReplicaError::NameTaken { name: taken } if *taken == name),
            "{error:?}"
        );
    })
    .await;
}
