//! What a job says of its container holds inside.

use veil_node_containers::{Docker, DockerError, Observed, Terms};
use veil_protocol_spec::scheduling::{
    Capability, CapabilityChange, ContainerSettings, HealthCheck, HealthProbe, JobSpec, Mebibytes,
    StopSignal, Tmpfs, Ulimit, UlimitKind, Unhealthy,
};

use crate::common::{SLEEP, is_podman, job, replicas, socket, with_terms, with_worker};

/// The sample image's own user may do nothing.
fn as_root() -> ContainerSettings {
    ContainerSettings { user: Some("0:0".parse().unwrap()), ..ContainerSettings::default() }
}

/// A job whose program ends with the number of the first line that does not hold, or with 0.
fn checked(container: ContainerSettings, lines: &[&str]) -> JobSpec {
    let checks = lines.iter().zip(1..).map(|(line, number)| format!("{line} || exit {number}\n"));
    let script: String = checks.collect();
    JobSpec { container, ..job(&["sh", "-c", &script]) }
}

async fn holds(container: ContainerSettings, lines: &[&str]) {
    with_worker(async |worker| {
        let desired = replicas(checked(container, lines), 1);
        let report = worker.reconcile(&desired).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        worker.until_observed(Observed::Exited { code: 0 }).await;
    })
    .await;
}

#[tokio::test]
async fn user_folder_and_limits_are_the_jobs() {
    let size = Mebibytes::covering(1 << 20).unwrap();
    let container = ContainerSettings {
        user: Some("101:102".parse().unwrap()),
        workdir: Some("/tmp".parse().unwrap()),
        hostname: Some("web".parse().unwrap()),
        init: true,
        read_only: true,
        tmpfs: ["/tmp", "/www"].map(|path| Tmpfs { path: path.parse().unwrap(), size }).into(),
        shm_size: Mebibytes::covering(8 << 20),
        pids: 100,
        // Both, as Podman raises either that is not said, which not even root may everywhere.
        ulimits: vec![
            Ulimit { kind: UlimitKind::Nofile, soft: 200, hard: 300 },
            Ulimit { kind: UlimitKind::Nproc, soft: 1000, hard: 2000 },
        ],
        ..ContainerSettings::default()
    };
    let lines = [
        "test $(id -u):$(id -g) = 101:102",
        "test $PWD = /tmp",
        "test $(hostname) = web",
        // The small init of the engine is process 1, not this shell.
        "test $$ -ne 1",
        "grep -q ' / [a-z0-9]* ro,' /proc/mounts",
        "touch /tmp/a",
        "test $(stat -c %u:%g /tmp) = 101:102",
        // What the image has there is not.
        "! test -e /www/index.html",
        "! dd if=/dev/zero of=/tmp/a bs=1k count=2000 2>/dev/null",
        "df -k /dev/shm | grep -q ' 8192 '",
        "test $(ulimit -Sn):$(ulimit -Hn) = 200:300",
        "grep -q 'Max processes *1000 *2000 ' /proc/self/limits",
        NO_CAPABILITIES,
    ];
    holds(container, &lines).await;
}

/// The image's user or the job's, if it is not root: what a container may is for root in it.
const NO_CAPABILITIES: &str = "grep -q 'CapEff:.*0000000000000000' /proc/self/status";

#[tokio::test]
async fn the_images_own_user_has_no_capabilities() {
    holds(ContainerSettings::default(), &["test $(id -u) -ne 0", NO_CAPABILITIES]).await;
}

#[tokio::test]
async fn an_image_that_starts_as_root_may_hand_over_to_its_user() {
    let lines = [
        "mkdir /data",
        "chown 101:101 /data",
        "test $(stat -c %u:%g /data) = 101:101",
        "grep -q 'NoNewPrivs:.*1' /proc/self/status",
        // Docker's defaults, as the kernel numbers them.
        "grep -q 'CapEff:.*00000000a80425fb' /proc/self/status",
    ];
    holds(as_root(), &lines).await;
}

#[tokio::test]
async fn capabilities_are_those_that_the_job_keeps() {
    let change =
        CapabilityChange { drop_all: true, add: vec![Capability::Chown], drop: Vec::new() };
    let only = ContainerSettings { capabilities: change, ..as_root() };
    holds(only, &["grep -q 'CapEff:.*0000000000000001' /proc/self/status"]).await;
    let change = CapabilityChange { drop: vec![Capability::Chown], ..CapabilityChange::default() };
    let without = ContainerSettings { capabilities: change, ..as_root() };
    holds(without, &["grep -q 'CapEff:.*00000000a80425fa' /proc/self/status"]).await;
}

#[tokio::test]
async fn a_program_is_stopped_by_its_own_signal() {
    with_worker(async |worker| {
        let container = ContainerSettings { stop_signal: Some(StopSignal::Usr1), ..as_root() };
        let script = "trap 'exit 5' USR1; touch /ready; while :; do sleep 0.1; done";
        let ready = ["/bin/busybox", "test", "-e", "/ready"].map(str::to_owned).to_vec();
        let health = Some(HealthCheck {
            probe: HealthProbe::Command(ready),
            interval_seconds: 1,
            timeout_seconds: 1,
            retries: 100,
            start_period_seconds: 0,
            unhealthy: Unhealthy::Nothing,
        });
        let desired = replicas(JobSpec { container, health, ..job(&["sh", "-c", script]) }, 1);
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        let id = worker.container().await.id.unwrap();
        worker.until_observed(Observed::Running).await;
        worker.engine.stop_container(&id, None).await.unwrap();
        assert_eq!(worker.observed().await, Observed::Exited { code: 5 });
    })
    .await;
}

/// Podman lists it, installed or not, and would run the container by its own without a word.
#[tokio::test]
async fn a_runtime_that_the_engine_would_not_use_is_named_and_nothing_starts() {
    let docker = Docker::connect(&socket()).await.unwrap();
    let other = if is_podman().await { "kata" } else { "no-such-runtime" }.to_owned();
    let error = docker.check_runtime(&other).await.unwrap_err();
    let is_named =
        matches!(error, DockerError::NoRuntime { .. } | DockerError::OtherRuntime { .. });
    assert!(is_named, "{error}");
    with_terms(Terms { runtime: Some(other), ..Terms::default() }, async |worker| {
        let own = worker.engine.info().await.unwrap().default_runtime.unwrap();
        docker.check_runtime(&own).await.unwrap();
        let report = worker.reconcile(&replicas(job(&SLEEP), 1)).await;
        assert_eq!((report.started.len(), report.failed.len()), (0, 1), "{report:?}");
        assert_eq!(worker.containers().await, []);
    })
    .await;
}
