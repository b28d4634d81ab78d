//! What a running process answers, whatever its role: on its admin socket, and from afar.
//!
//! | route | |
//! |---|---|
//! | `GET /livez` | that it runs; open |
//! | `GET /readyz` | [`Readiness`](veil_node_api::status::Readiness), with code 503 if it cannot take part |
//! | `GET /openapi.json` | this table for programs, with all that is in the bodies; open |
//! | `GET /v1/status` | [`Status`](veil_node_api::status::Status) |
//! | `GET /v1/jobs` | list of [`JobStatus`](veil_node_api::status::JobStatus) |
//! | `POST /v1/jobs` | takes a [`JobSpec`] and gossips it; answers [`JobOffered`] |
//! | `GET /v1/jobs/{job}/versions` | the versions of the job that this one is a version of: list of [`JobVersion`](veil_node_api::versions::JobVersion) |
//! | `GET /v1/sealing-keys` | the keys that jobs are sealed to, each signed by its member: list of [`SealingKeyAnnouncement`](veil_protocol_spec::sealing::SealingKeyAnnouncement) |
//! | `GET /v1/encryption-keys` | what requests are encrypted with: [`EncryptionKeys`] |
//! | `GET`, `POST /v1/policy/weights` | the policy's [encrypted weights](veil_node_api::weights) |
//! | `GET /v1/slots/{slot}` | the [`SlotRecord`] |
//! | `GET /v1/snapshot` | the newest record and the state after it, which its certificate commits to: [`SnapshotFile`] |
//! | `GET /v1/slots/{slot}/votes` | the members' signed votes for the certificate of a slot |
//! | `GET /v1/evidence` | list of [`EvidenceStatus`] |
//! | `GET /v1/evidence/{digest}` | [`EvidenceFile`] |
//! | `GET /v1/slots/{slot}/conflict` | another record that the committee signed for the same slot |
//! | `GET /v1/workers/{worker}/reach` | [a way](veil_node_api::relay) to a worker, upgraded to a stream of bytes |
//! | `POST /v1/worker/evictions` | a worker [gives replicas back](veil_node_api::evict), on its socket only |
//! | `GET /metrics` | what the node measures of itself, in OpenMetrics text, for Prometheus |

mod weights;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use veil_node_api::{gate::Caller, refuse, relay, routes::Routes, weights::PATH as WEIGHTS};
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
    codec::Bytes,
    hex,
    scheduling::{JobSpec, SlotRecord},
    sealing::EncryptionKeys,
};
use veil_scheduler::write_public_key;

use crate::{
    epoch::ActiveEpoch,
    report::{Joined, Reporter},
    sealing,
};
use veil_node_api::status::{EvidenceFile, EvidenceStatus, SnapshotFile};

/// What became of a job's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOffered {
    /// Its digest, which the chain must list.
    pub job: Blake3Digest,
    /// Whether the chain lists it as this node sees it.
    pub listed: bool,
}

/// What the routes are for, for programs: OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// Routes that tell nothing of the cluster.
pub(crate) fn open() -> Routes {
    Routes::default()
        .get("/livez", async || Json(json!({ "live": true })))
        .get("/openapi.json", async || ([JSON], OPENAPI))
}

/// All others, of both roles.
pub(crate) fn read_and_post(reporter: Reporter) -> Routes {
    Routes::default()
        .get("/readyz", ready)
        .get("/v1/status", async |State(of): Answers| Json(of.status()))
        .get("/v1/jobs", async |State(of): Answers| Json(of.jobs()))
        .post("/v1/jobs", offer)
        .get("/v1/jobs/{job}/versions", versions)
        .get("/v1/sealing-keys", sealing_keys)
        .get("/v1/snapshot", snapshot)
        .get("/v1/encryption-keys", encryption_keys)
        .get(WEIGHTS, weights::list)
        .post(WEIGHTS, weights::take)
        .get("/v1/slots/{slot}", record)
        .get("/v1/slots/{slot}/conflict", conflict)
        .get("/v1/slots/{slot}/votes", votes)
        .get("/v1/evidence", evidence_list)
        .get("/v1/evidence/{digest}", evidence)
        .get("/metrics", async |State(of): Answers| ([TEXT], of.metrics()))
        .with_state(reporter.clone())
        .merge(relay::routes(Arc::new(reporter)))
}

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

const TEXT: (header::HeaderName, &str) =
    (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");

type Answers = State<Reporter>;

async fn ready(State(of): Answers) -> Response {
    let readiness = of.readiness();
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

async fn offer(
    State(reporter): Answers,
    Extension(caller): Extension<Caller>,
    Json(job): Json<JobSpec>,
) -> Response {
    if let Err(denied) = caller.acts_for(job.operator) {
        return denied.into_response();
    }
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

async fn versions(State(of): Answers, Path(job): Path<Blake3Digest>) -> Response {
    let versions = of.versions(&job);
    if versions.is_empty() {
        return refuse(StatusCode::NOT_FOUND, &format!("the body of job {job} is not known here"));
    }
    Json(versions).into_response()
}

async fn sealing_keys(State(of): Answers) -> Response {
    let (Some(joined), Some(epoch)) = (of.joined(), of.epoch()) else {
        return refuse(StatusCode::CONFLICT, &"this node is not ready: it has no key yet");
    };
    let members = (epoch.committee, &*epoch.roster);
    let own = epoch.sealing.get();
    Json(sealing::announced(&joined.peers, epoch.binding, members, own).await).into_response()
}

/// Whoever encrypts believes neither key for this node's saying so: it asks the chain and the members.
async fn encryption_keys(State(of): Answers) -> Response {
    let Some(epoch) = of.epoch() else {
        return refuse(StatusCode::CONFLICT, &"this node is not ready: it has no key yet");
    };
    let writing = tokio::task::spawn_blocking(move || {
        let public_key = write_public_key(&epoch.keys.public).ok()?;
        let mut string = Vec::new();
        epoch.reference_string.write(&mut string).ok()?;
        Some(EncryptionKeys { public_key: Bytes(public_key), reference_string: Bytes(string) })
    });
    match writing.await {
        Ok(Some(keys)) => Json(keys).into_response(),
        _ => refuse(StatusCode::SERVICE_UNAVAILABLE, &"the keys cannot be written here"),
    }
}

async fn record(answers: Answers, Path(slot): Path<u64>) -> Response {
    let missing = format!("slot {slot} is not certified here");
    read(&answers.0, move |ledger| ledger.record(Slot(slot)), missing).await
}

async fn snapshot(answers: Answers) -> Response {
    let snapshot = move |epoch: &ActiveEpoch| {
        let snapshot = epoch.ledger.snapshot()?;
        Ok::<_, LedgerError>(snapshot.map(|of| SnapshotFile { wire: hex(&of.to_wire()) }))
    };
    read_epoch(&answers.0, snapshot, "no slot is certified here yet".to_owned()).await
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
        Ok::<_, EvidenceError>(found.map(|found| EvidenceFile { wire: hex(&found.to_wire()) }))
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
mod tests;
