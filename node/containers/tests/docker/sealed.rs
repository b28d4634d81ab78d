//! What is sealed in a job, as its container finds it.

use std::{fs, sync::Arc};

use veil_node_containers::{DesiredReplica, Observed, ReplicaError, Terms};
use veil_protocol_spec::{
    codec::Bytes,
    scheduling::{
        ContainerSettings, FileMode, JobSpec, RestartMode, RestartPolicy, SealedContents,
        SealedFile, SealedVariable,
    },
};

use crate::common::{job, replicas, until, with_terms};

const SECRET: &str = "hunter2-of-the-test";

fn contents() -> SealedContents {
    let file = |path: &str, mode: u16| SealedFile {
        path: path.parse().unwrap(),
        mode: FileMode::try_from(mode).unwrap(),
        content: Bytes(SECRET.as_bytes().to_vec()),
    };
    SealedContents {
        env: vec![SealedVariable { name: "DB".into(), value: "a b=c".into() }],
        files: vec![file("/etc/app.conf", 0o444), file("/run/secrets/db", 0o400)],
        registry: None,
        arguments: None,
        request: None,
    }
}

/// A job whose program ends with the number of the first line that does not hold.
fn checked(user: &str, lines: &[&str], restart: RestartPolicy) -> DesiredReplica {
    let checks = lines.iter().zip(1..).map(|(line, number)| format!("{line} || exit {number}\n"));
    let script: String = checks.collect();
    let user = Some(user.parse().unwrap());
    let container = ContainerSettings { user, ..ContainerSettings::default() };
    let spec = JobSpec { container, restart, ..job(&["sh", "-c", &script]) };
    let [one] = &replicas(spec, 1)[..] else { panic!("one") };
    DesiredReplica { contents: Some(Arc::new(contents())), ..one.clone() }
}

fn terms(folder: &tempfile::TempDir) -> Terms {
    Terms { secrets: folder.path().to_owned(), ..Terms::default() }
}

#[tokio::test]
async fn files_are_in_memory_and_variables_are_set_and_both_go_with_the_replica() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let terms = terms(&folder);
    let secrets = terms.secrets.clone();
    with_terms(terms, async |worker| {
        let read = format!("[ \"$(cat /run/secrets/db)\" = {SECRET} ]");
        let lines = [
            "[ \"$DB\" = \"a b=c\" ]",
            read.as_str(),
            "[ \"$(stat -c %a /run/secrets/db)\" = 400 ]",
            "[ \"$(stat -c %u:%g /run/secrets/db)\" = 101:101 ]",
            "[ \"$(stat -c %a /etc/app.conf)\" = 444 ]",
            "grep -q ' /run/secrets/db tmpfs ro' /proc/mounts",
            "! sh -c 'echo x > /etc/app.conf' 2>/dev/null",
        ];
        let desired = [checked(
            "101:101",
            &lines,
            RestartPolicy { mode: RestartMode::Never, ..RestartPolicy::default() },
        )];
        let report = worker.reconcile(&desired).await;
        assert_eq!(report.started.len(), 1, "{report:?}");
        worker.until_observed(Observed::Exited { code: 0 }).await;
        let container = worker.container().await;
        let labels = format!("{:?}", container.config.unwrap().labels);
        assert!(!labels.contains(SECRET) && !labels.contains("a b=c"), "{labels}");
        assert_eq!(fs::read_dir(&secrets).unwrap().count(), 1);
        assert_eq!(worker.reconcile(&[]).await.stopped.len(), 1);
        assert_eq!(fs::read_dir(&secrets).unwrap().count(), 0, "removed with the replica");
    })
    .await;
}

/// A host that starts again has nothing in memory: the worker lays the files out before it starts the container again,
/// and the engine starts none by itself.
#[tokio::test]
async fn a_container_that_is_started_again_finds_its_files() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let terms = terms(&folder);
    let secrets = terms.secrets.clone();
    with_terms(terms, async |worker| {
        // The first run leaves a mark and fails; the second finds it, and the file.
        let lines = ["[ -e /ran ] || { : > /ran; exit 9; }", "grep -q hunter2 /etc/app.conf"];
        let restart = RestartPolicy {
            mode: RestartMode::OnFailure,
            attempts: Some(2),
            delay_seconds: 1,
            ..RestartPolicy::default()
        };
        let desired = [checked("0", &lines, restart)];
        assert_eq!(worker.reconcile(&desired).await.started.len(), 1);
        until(async || {
            let state = worker.container().await.state.unwrap();
            state.exit_code == Some(9) && state.running == Some(false)
        })
        .await;
        for own in fs::read_dir(&secrets).unwrap() {
            fs::remove_dir_all(own.unwrap().path()).unwrap();
        }
        until(async || {
            drop(worker.reconcile(&desired).await);
            worker.observed().await == Observed::Exited { code: 0 }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_would_lie_on_a_disk_is_not_started() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    with_terms(terms(&folder), async |worker| {
        let desired = [checked("0", &["true"], RestartPolicy::default())];
        let report = worker.reconcile(&desired).await;
        let [(_, error)] = &report.failed[..] else { panic!("{report:?}") };
        assert!(matches!(&**error, ReplicaError::Secrets { .. }), "{error}");
        assert!(error.to_string().contains("not in memory"), "{error}");
        assert!(worker.containers().await.is_empty());
    })
    .await;
}
