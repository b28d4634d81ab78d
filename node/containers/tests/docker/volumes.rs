//! What volumes hold inside, and what is left of them.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use bollard::query_parameters::ListVolumesOptions;
use veil_node_containers::{DesiredReplica, HostVolume, Observed, ReplicaError, Terms};
use veil_protocol_spec::scheduling::{
    ContainerSettings, DiskUnits, JobSpec, Mebibytes, OnLoss, ResourceRequest, Resources, Volume,
    VolumeKind,
};

use crate::common::{Worker, job, replicas, until, with_terms, with_worker};

fn volume(name: &str, kind: VolumeKind, read_only: bool) -> Volume {
    let mount = format!("/{name}").parse().unwrap();
    Volume { name: name.parse().unwrap(), mount, kind, read_only }
}

/// A job with these volumes whose program ends with the number of the first line that does not hold.
fn checked(volumes: Vec<Volume>, lines: &[&str]) -> JobSpec {
    let checks = lines.iter().zip(1..).map(|(line, number)| format!("{line} || exit {number}\n"));
    let script: String = checks.collect();
    let ResourceRequest::Clear(usual) = job(&[]).request else { panic!("in clear") };
    let request = ResourceRequest::Clear(Resources { disk: DiskUnits(1), ..usual });
    let container =
        ContainerSettings { user: Some("0".parse().unwrap()), ..ContainerSettings::default() };
    JobSpec { volumes, request, container, ..job(&["sh", "-c", &script]) }
}

/// Members place no job with a folder of a worker yet.
fn unchecked(spec: JobSpec) -> Vec<DesiredReplica> {
    let [one] = &replicas(job(&[]), 1)[..] else { panic!("one") };
    vec![DesiredReplica { spec: Arc::new(spec), ..one.clone() }]
}

async fn holds(worker: &Worker, desired: &[DesiredReplica]) {
    let report = worker.reconcile(desired).await;
    assert_eq!(report.started.len(), 1, "{report:?}");
    worker.until_observed(Observed::Exited { code: 0 }).await;
}

async fn volumes(worker: &Worker) -> Vec<String> {
    let mounts = worker.container().await.mounts.unwrap_or_default();
    mounts.into_iter().filter_map(|mount| mount.name).collect()
}

#[tokio::test]
async fn ephemeral_and_tmpfs_volumes_are_written_to_and_go_with_the_container() {
    with_worker(async |worker| {
        let size = Mebibytes::covering(4 << 20).unwrap();
        let lists = vec![
            volume("cache", VolumeKind::Tmpfs { size }, false),
            volume("fixed", VolumeKind::Tmpfs { size }, true),
            volume("scratch", VolumeKind::Ephemeral { size }, false),
        ];
        let lines = [
            "touch /cache/a && touch /scratch/a",
            "! touch /fixed/a 2>/dev/null",
            "grep -q ' /cache tmpfs rw,nosuid,nodev,noexec.*size=4096k' /proc/mounts",
            "! dd if=/dev/zero of=/cache/b bs=1M count=5 2>/dev/null",
            "grep ' /scratch ' /proc/mounts | grep -qv tmpfs",
        ];
        holds(worker, &replicas(checked(lists, &lines), 1)).await;
        let [name] = &volumes(worker).await[..] else { panic!("one volume of the engine") };
        let known = async || {
            let listed = worker.engine.list_volumes(None::<ListVolumesOptions>).await.unwrap();
            listed.volumes.unwrap_or_default().iter().any(|volume| volume.name == *name)
        };
        assert!(known().await);
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        assert!(!known().await, "removed with the replica");
    })
    .await;
}

/// Engines on file systems without quotas keep nobody from it, and those with them do.
#[tokio::test]
async fn more_in_a_volume_than_was_asked_for_is_prevented_or_said() {
    with_worker(async |worker| {
        let size = Mebibytes::covering(4 << 20).unwrap();
        let scratch = vec![volume("scratch", VolumeKind::Ephemeral { size }, false)];
        let fill = "dd if=/dev/zero of=/scratch/a bs=1M count=8 2>/dev/null; sleep 3600";
        assert_eq!(
            worker.reconcile(&replicas(checked(scratch, &[fill]), 1)).await.started.len(),
            1
        );
        let [name] = &volumes(worker).await[..] else { panic!("one volume of the engine") };
        let options = worker.engine.inspect_volume(name).await.unwrap().options;
        if options.contains_key("size") {
            return;
        }
        until(async || {
            let _ = worker.executor.held().await;
            let observed = worker.executor.observe().await.unwrap().remove(0);
            let says = "the volume `scratch` holds more";
            observed.error.is_some_and(|error| error.contains(says))
        })
        .await;
        assert_eq!(worker.observed().await, Observed::Running);
    })
    .await;
}

#[tokio::test]
async fn a_folder_of_the_worker_is_mounted_by_its_name_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("before"), "").unwrap();
    let lent = |read_only| {
        let path = folder.path().to_owned();
        BTreeMap::from([("data".parse().unwrap(), HostVolume { path, read_only })])
    };
    let host = VolumeKind::Host { on_loss: OnLoss::Pending };
    let write =
        checked(vec![volume("data", host, false)], &["test -e /data/before", "touch /data/after"]);
    with_terms(Terms { volumes: lent(false), ..Terms::default() }, async |worker| {
        holds(worker, &unchecked(write.clone())).await;
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        assert!(folder.path().join("after").exists());
        let lines = ["test -e /data/after", "! touch /data/never 2>/dev/null"];
        let read = checked(vec![volume("data", host, true)], &lines);
        holds(worker, &unchecked(read)).await;
    })
    .await;
    // Lent for reading only, or not at all.
    with_terms(Terms { volumes: lent(true), ..Terms::default() }, async |worker| {
        let report = worker.reconcile(&unchecked(write.clone())).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::ReadOnlyVolume { .. }), "{error}");
    })
    .await;
    with_worker(async |worker| {
        let report = worker.reconcile(&unchecked(write)).await;
        let (_, error) = &report.failed[0];
        assert!(matches!(**error, ReplicaError::NoVolume { .. }), "{error}");
        assert!(worker.containers().await.is_empty() && worker.networks().await.is_empty());
    })
    .await;
    assert!(folder.path().join("before").exists());
}
