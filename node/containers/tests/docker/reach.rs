//! What a container writes, commands in it, and connections to it, from outside.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use veil_node_containers::{LogPart, LogRange, Observed, ReachError, ReplicaId, Running};
use veil_protocol_spec::{Blake3Digest, ReplicaIndex};

use crate::common::{Worker, job, replicas, until, with_worker};

const NOBODY: ReplicaId = ReplicaId { job: Blake3Digest([9; 32]), replica: ReplicaIndex(0) };

async fn text(worker: &Worker, container: &str, range: LogRange) -> Vec<(bool, String)> {
    let parts: Vec<LogPart> = worker.executor.logs(container, range).try_collect().await.unwrap();
    let text = |part: LogPart| {
        assert!(part.time > 1_700_000_000_000_000_000, "{}", part.time);
        (part.is_error, String::from_utf8(part.bytes.to_vec()).unwrap())
    };
    parts.into_iter().map(text).collect()
}

#[tokio::test]
async fn a_log_is_read_to_its_end_and_followed_from_there() {
    with_worker(async |worker| {
        let script = "echo one; echo two >&2; sleep 1; echo three; exec sleep 3600";
        let desired = replicas(job(&["sh", "-c", script]), 1);
        worker.reconcile(&desired).await;
        assert!(worker.executor.find(&NOBODY).await.unwrap().is_none());
        let found = worker.executor.find(&desired[0].id()).await.unwrap().unwrap();
        assert!(found.running);
        let container = found.container.as_str();
        let all = LogRange::default();
        until(async || text(worker, container, all).await.len() == 3).await;
        let mut written = text(worker, container, all).await;
        // Each of both is in order; the engine mixes them as it reads them.
        written.sort();
        let line = |is_error, text: &str| (is_error, format!("{text}\n"));
        assert_eq!(written, [line(false, "one"), line(false, "three"), line(true, "two")]);
        let last = LogRange { tail: Some(1), ..all };
        assert_eq!(text(worker, container, last).await, [line(false, "three")]);
        let mut following = worker.executor.logs(container, LogRange { follow: true, ..last });
        let first = following.next().await.unwrap().unwrap();
        assert_eq!(&first.bytes[..], b"three\n");
        let more = timeout(Duration::from_millis(500), following.next()).await;
        assert!(more.is_err(), "it goes on");
        // It ends with the container.
        worker.engine.kill_container(container, None).await.unwrap();
        assert!(following.next().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_command_has_its_input_its_output_and_its_code() {
    with_worker(async |worker| {
        let desired = replicas(job(&["sleep", "3600"]), 1);
        worker.reconcile(&desired).await;
        let found = worker.executor.find(&desired[0].id()).await.unwrap().unwrap();
        let sh = |script: &str| ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        let script = sh("cat; echo wrong >&2; exit 7");
        let begun = worker.executor.exec(&found.container, script, true, None).await.unwrap();
        let Running { mut input, output, command } = begun;
        input.write_all(b"typed\n").await.unwrap();
        input.shutdown().await.unwrap();
        let mut written: Vec<_> = output.try_collect().await.unwrap();
        written.sort();
        let written: Vec<_> = written.iter().map(|(error, bytes)| (*error, &bytes[..])).collect();
        assert_eq!(written, [(false, &b"typed\n"[..]), (true, b"wrong\n")]);
        assert_eq!(command.exit_code().await.unwrap(), Some(7));
        // A terminal has the size that it is given.
        let script = sh("sleep 1; stty size");
        let begun = worker.executor.exec(&found.container, script, false, Some((30, 90))).await;
        let Running { output, command, .. } = begun.unwrap();
        command.resize((40, 120)).await.unwrap();
        let written: Vec<_> = output.try_collect().await.unwrap();
        let written: Vec<u8> = written.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(String::from_utf8(written).unwrap().trim(), "40 120");
        // A program that is not there is the engine's to say.
        let nothing = vec!["/nothing".to_owned()];
        match worker.executor.exec(&found.container, nothing, false, None).await {
            Err(_) => {}
            Ok(Running { output, command, .. }) => {
                let _ = output.count().await;
                assert!(!matches!(command.exit_code().await, Ok(Some(0))));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_port_is_reached_whether_or_not_it_is_published() {
    with_worker(async |worker| {
        // The sample's web server, and no port in the job.
        let desired = replicas(job(&[]), 1);
        worker.reconcile(&desired).await;
        let id = desired[0].id();
        until(async || worker.executor.connect(&id, 8080).await.is_ok()).await;
        let mut connection = worker.executor.connect(&id, 8080).await.unwrap();
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut page = String::new();
        connection.read_to_string(&mut page).await.unwrap();
        assert!(page.contains(" 200 "), "{page}");
        let refused = worker.executor.connect(&id, 9).await.unwrap_err();
        assert!(matches!(refused, ReachError::NothingListens), "{refused}");
        let refused = worker.executor.connect(&NOBODY, 8080).await.unwrap_err();
        assert!(matches!(refused, ReachError::NoContainer), "{refused}");
        let container = worker.container().await.id.unwrap();
        worker.engine.kill_container(&container, None).await.unwrap();
        until(async || matches!(worker.observed().await, Observed::Exited { .. })).await;
        let refused = worker.executor.connect(&id, 8080).await.unwrap_err();
        assert!(matches!(refused, ReachError::NotRunning), "{refused}");
    })
    .await;
}
