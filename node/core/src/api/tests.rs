use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use veil_node_api::{
    client::{Client, ClientError},
    socket,
};
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::identity::SecretIdentity;

use super::*;
use veil_node_api::progress::Progress;
use veil_node_api::status::{JobStatus, Role, Status};

mod documented;

/// A node that has not joined: its parts, and what answers for it.
struct Unjoined {
    progress: Arc<Progress>,
    metrics: Metrics,
    reporter: Reporter,
}

impl Unjoined {
    fn new() -> Self {
        let identity = SecretIdentity::from_bytes(&[7; 32]).unwrap().public();
        let progress =
            Arc::new(Progress::new(Role::Worker, "12D3".to_owned(), PeerIdHash::of(&identity)));
        let (joined, epoch) = (watch::Sender::new(None), watch::Sender::new(None));
        let metrics = Metrics::default();
        let of = (Arc::clone(&progress), metrics.clone());
        let reporter = Reporter::new(of.0, of.1, joined.subscribe(), epoch.subscribe());
        Self { progress, metrics, reporter }
    }
}

#[tokio::test]
async fn a_node_that_has_not_joined_answers_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let Unjoined { progress, metrics, reporter } = Unjoined::new();
    progress.stage("waiting for the chain", ["http://127.0.0.1:1".to_owned()]);
    let stop = CancellationToken::new();
    let path = socket.clone();
    let router = read_and_post(reporter).merge(open()).into_router();
    let serving = socket::serve(path, router, stop.clone()).await.unwrap();
    let client = Client::of_socket(socket.clone());
    let status: Status = client.get("/v1/status").await.unwrap();
    assert_eq!(status.stage, "waiting for the chain");
    assert_eq!(status.waiting_for, ["http://127.0.0.1:1"]);
    assert_eq!((status.role, status.last_slot), (Role::Worker, Slot(0)));
    let live: serde_json::Value = client.get("/livez").await.unwrap();
    assert_eq!(live["live"], true);
    let unready = client.get::<serde_json::Value>("/readyz").await;
    assert!(matches!(unready, Err(ClientError::Refused(why)) if why.contains("127.0.0.1:1")));
    progress.takes_part("working", []);
    let readiness: serde_json::Value = client.get("/readyz").await.unwrap();
    assert_eq!((&readiness["ready"], &readiness["stage"]), (&true.into(), &"working".into()));
    progress.stage("leaving", []);
    assert!(client.get::<serde_json::Value>("/readyz").await.is_err());
    let jobs: Vec<JobStatus> = client.get("/v1/jobs").await.unwrap();
    assert!(jobs.is_empty());
    metrics.refuse("telemetry", "too_soon");
    let status: Status = client.get("/v1/status").await.unwrap();
    assert_eq!(status.refusals["telemetry"]["too_soon"], 1);
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200") && head.contains("application/openmetrics-text"));
    let counted = "veil_refusals_total{protocol=\"telemetry\",reason=\"too_soon\"} 1";
    assert!(text.lines().any(|line| line == counted), "{text}");
    let record = client.get::<serde_json::Value>("/v1/slots/1").await;
    assert!(matches!(record, Err(ClientError::Refused(why)) if why.contains("no certificates")));
    let evidence = client.get::<serde_json::Value>("/v1/evidence").await;
    assert!(matches!(evidence, Err(ClientError::Refused(_))));
    stop.cancel();
    serving.await.unwrap();
}
