//! What a running process answers on its admin socket, whatever its role.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/status` | [`Status`](crate::status::Status) |
//! | `GET /v1/jobs` | list of [`JobStatus`](crate::status::JobStatus) |
//! | `POST /v1/jobs` | takes a [`JobSpec`] and gossips it; answers [`JobOffered`] |
//! | `GET /v1/slots/{slot}` | the [`SlotRecord`] |
//! | `GET /v1/slots/{slot}/votes` | the members' signed votes for the certificate of a slot |
//! | `GET /v1/evidence` | list of [`EvidenceStatus`] |
//! | `GET /v1/evidence/{digest}` | [`EvidenceFile`] |
//! | `GET /v1/slots/{slot}/conflict` | another record that the committee signed for the same slot |
//! | `GET /metrics` | what the node measures of itself, in OpenMetrics text, for Prometheus |

use std::fmt::Write as _;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use veil_node_p2p::{PublishError, Topic};
use veil_node_storage::{
    evidence::{
        EvidenceError, KeptEvidence,
        verdict::{Culprit, Place, Verdict},
    },
    jobs::Offered,
    ledger::{Ledger, LedgerError},
};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Slot, Wire,
    scheduling::{JobSpec, SlotRecord},
};

use crate::{
    epoch::ActiveEpoch,
    report::{Joined, Reporter},
    status::{EvidenceFile, EvidenceStatus},
};

/// What became of a job's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOffered {
    /// Its digest, which the chain must list.
    pub job: Blake3Digest,
    /// Whether the chain lists it as this node sees it.
    pub listed: bool,
}

/// The routes of both roles.
pub fn router(reporter: Reporter) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(of): Answers| Json(of.status())))
        .route("/v1/jobs", get(async |State(of): Answers| Json(of.jobs())).post(offer))
        .route("/v1/slots/{slot}", get(record))
        .route("/v1/slots/{slot}/conflict", get(conflict))
        .route("/v1/slots/{slot}/votes", get(votes))
        .route("/v1/evidence", get(evidence_list))
        .route("/v1/evidence/{digest}", get(evidence))
        .route("/metrics", get(async |State(of): Answers| ([TEXT], of.metrics())))
        .with_state(reporter)
}

const TEXT: (header::HeaderName, &str) =
    (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");

type Answers = State<Reporter>;

/// A refusal in the form that [`crate::admin`] passes on.
pub fn refuse(code: StatusCode, error: &dyn core::fmt::Display) -> Response {
    (code, Json(serde_json::json!({ "error": error.to_string() }))).into_response()
}

async fn offer(State(reporter): Answers, Json(job): Json<JobSpec>) -> Response {
    let Some(Joined { network, jobs, .. }) = reporter.joined() else {
        return refuse(StatusCode::CONFLICT, &"this node has not joined its cluster yet");
    };
    let (digest, bytes) = (job.digest(), job.to_wire());
    let offered = tokio::task::spawn_blocking(move || jobs.offer(job)).await;
    let offered = match offered {
        Ok(Ok(offered)) => offered,
        Ok(Err(error)) => return refuse(StatusCode::BAD_REQUEST, &error),
        Err(_) => return refuse(StatusCode::SERVICE_UNAVAILABLE, &"the node is stopping"),
    };
    match network.publish(Topic::Jobs, bytes).await {
        // Whoever misses the gossip asks for the body once the chain lists its digest.
        Ok(()) | Err(PublishError::Duplicate(_) | PublishError::NoPeers(_)) => {}
        Err(error) => tracing::warn!(%error, job = %digest, "a job's body was not gossiped"),
    }
    Json(JobOffered { job: digest, listed: offered != Offered::Waiting }).into_response()
}

async fn record(answers: Answers, Path(slot): Path<u64>) -> Response {
    let missing = format!("slot {slot} is not certified here");
    read(&answers.0, move |ledger| ledger.record(Slot(slot)), missing).await
}

async fn conflict(answers: Answers, Path(slot): Path<u64>) -> Response {
    let missing = format!("this node knows one certificate of slot {slot} at most");
    read(&answers.0, move |ledger| ledger.conflict(Slot(slot)), missing).await
}

async fn votes(answers: Answers, Path(slot): Path<u64>) -> Response {
    let votes = move |epoch: &ActiveEpoch| epoch.evidence.votes(Slot(slot)).map(Some);
    read_epoch(&answers.0, votes, String::new()).await
}

async fn evidence_list(answers: Answers) -> Response {
    let list = |epoch: &ActiveEpoch| {
        let kept = epoch.evidence.list()?;
        Ok::<_, EvidenceError>(Some(
            kept.iter().map(|kept| status_of(epoch, kept)).collect::<Vec<_>>(),
        ))
    };
    read_epoch(&answers.0, list, String::new()).await
}

fn status_of(epoch: &ActiveEpoch, kept: &KeptEvidence) -> EvidenceStatus {
    let Verdict { kind, culprit, epoch: of, place } = kept.verdict;
    let (participant, peer) = match culprit {
        Culprit::Group => (None, None),
        Culprit::Node(peer) => (None, Some(peer)),
        Culprit::Member(member) => {
            // Of another epoch the roster is not known here.
            let identity = epoch.roster.get(member.position());
            let identity = identity.filter(|_| of == epoch.binding.epoch);
            (Some(member), identity.map(PeerIdHash::of))
        }
    };
    EvidenceStatus {
        digest: kept.digest,
        kind,
        participant,
        peer,
        epoch: of,
        slot: match place {
            Place::Slot(slot) => Some(slot),
            Place::Request(_) => None,
        },
        bytes: kept.bytes,
        command: kind
            .is_punished_on_chain()
            .then(|| format!("veil evidence report {}", kept.digest)),
    }
}

async fn evidence(answers: Answers, Path(digest): Path<Blake3Digest>) -> Response {
    let find = move |epoch: &ActiveEpoch| {
        let found = epoch.evidence.find(&digest)?;
        let hex = |bytes: Vec<u8>| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}"); // writing into memory does not fail
                text
            })
        };
        Ok::<_, EvidenceError>(found.map(|found| EvidenceFile { wire: hex(found.to_wire()) }))
    };
    read_epoch(&answers.0, find, format!("no evidence {digest} is kept here")).await
}

async fn read(
    reporter: &Reporter,
    query: impl FnOnce(&Ledger) -> Result<Option<SlotRecord>, LedgerError> + Send + 'static,
    missing: String,
) -> Response {
    read_epoch(reporter, move |epoch| query(&epoch.ledger), missing).await
}

/// Answers with what a store of the epoch has.
async fn read_epoch<T: Serialize + Send + 'static, E: core::fmt::Display + Send + 'static>(
    reporter: &Reporter,
    query: impl FnOnce(&ActiveEpoch) -> Result<Option<T>, E> + Send + 'static,
    missing: String,
) -> Response {
    let Some(epoch) = reporter.epoch() else {
        return refuse(StatusCode::NOT_FOUND, &"this node knows no certificates yet");
    };
    match tokio::task::spawn_blocking(move || query(&epoch)).await {
        Ok(Ok(Some(found))) => Json(found).into_response(),
        Ok(Ok(None)) => refuse(StatusCode::NOT_FOUND, &missing),
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, &"the node is stopping"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
        sync::watch,
    };
    use tokio_util::sync::CancellationToken;
    use veil_node_process::metrics::Metrics;
    use veil_protocol_spec::identity::SecretIdentity;

    use super::*;
    use crate::{
        admin::{self, AdminError},
        progress::Progress,
        status::{JobStatus, Role, Status},
    };

    #[tokio::test]
    async fn a_node_that_has_not_joined_answers_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let identity = SecretIdentity::from_bytes(&[7; 32]).unwrap().public();
        let progress = Arc::new(Progress::new(Role::Worker, &identity).unwrap());
        let (joined, epoch) = (watch::Sender::new(None), watch::Sender::new(None));
        let metrics = Metrics::default();
        let of = (Arc::clone(&progress), metrics.clone());
        let reporter = Reporter::new(of.0, of.1, joined.subscribe(), epoch.subscribe());
        progress.stage("waiting for the chain", ["http://127.0.0.1:1".to_owned()]);
        let stop = CancellationToken::new();
        let serving = admin::serve(socket.clone(), router(reporter), stop.clone()).await.unwrap();
        let status: Status = admin::get(&socket, "/v1/status").await.unwrap();
        assert_eq!(status.stage, "waiting for the chain");
        assert_eq!(status.waiting_for, ["http://127.0.0.1:1"]);
        assert_eq!((status.role, status.last_slot), (Role::Worker, Slot(0)));
        let jobs: Vec<JobStatus> = admin::get(&socket, "/v1/jobs").await.unwrap();
        assert!(jobs.is_empty());
        metrics.refuse("telemetry", "too_soon");
        let status: Status = admin::get(&socket, "/v1/status").await.unwrap();
        assert_eq!(status.refusals["telemetry"]["too_soon"], 1);
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("application/openmetrics-text"));
        let counted = "veil_refusals_total{protocol=\"telemetry\",reason=\"too_soon\"} 1";
        assert!(text.lines().any(|line| line == counted), "{text}");
        let record = admin::get::<serde_json::Value>(&socket, "/v1/slots/1").await;
        assert!(matches!(record, Err(AdminError::Refused(why)) if why.contains("no certificates")));
        let evidence = admin::get::<serde_json::Value>(&socket, "/v1/evidence").await;
        assert!(matches!(evidence, Err(AdminError::Refused(_))));
        stop.cancel();
        serving.await.unwrap();
    }
}
