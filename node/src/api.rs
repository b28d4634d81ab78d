//! What a running process answers on its admin socket, whatever its role.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/status` | [`Status`](crate::status::Status) |
//! | `GET /v1/jobs` | list of [`JobStatus`](crate::status::JobStatus) |
//! | `POST /v1/jobs` | takes a [`JobSpec`] and gossips it; answers [`JobOffered`] |
//! | `GET /v1/slots/{slot}` | the [`SlotRecord`](veil_protocol_spec::scheduling::SlotRecord) |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use veil_protocol_spec::{Blake3Digest, Slot, Wire, scheduling::JobSpec};

use crate::{
    jobs::Offered,
    p2p::{PublishError, Topic},
    role::StatusBoard,
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
pub fn router(board: Arc<StatusBoard>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(board): Board| Json(board.status())))
        .route("/v1/jobs", get(async |State(board): Board| Json(board.jobs())).post(offer))
        .route("/v1/slots/{slot}", get(record))
        .with_state(board)
}

type Board = State<Arc<StatusBoard>>;

/// A refusal in the form that [`crate::admin`] passes on.
pub fn refuse(code: StatusCode, error: &dyn core::fmt::Display) -> Response {
    (code, Json(serde_json::json!({ "error": error.to_string() }))).into_response()
}

async fn offer(State(board): Board, Json(job): Json<JobSpec>) -> Response {
    let Some(cluster) = board.cluster().cloned() else {
        return refuse(StatusCode::CONFLICT, &"this node has not joined its cluster yet");
    };
    let (digest, bytes) = (job.digest(), job.to_wire());
    let jobs = Arc::clone(&cluster.jobs);
    let offered = tokio::task::spawn_blocking(move || jobs.offer(job)).await;
    let offered = match offered {
        Ok(Ok(offered)) => offered,
        Ok(Err(error)) => return refuse(StatusCode::BAD_REQUEST, &error),
        Err(_) => return refuse(StatusCode::SERVICE_UNAVAILABLE, &"the node is stopping"),
    };
    match cluster.network.publish(Topic::Jobs, bytes).await {
        // Whoever misses the gossip asks for the body once the chain lists its digest.
        Ok(()) | Err(PublishError::Duplicate(_) | PublishError::NoPeers(_)) => {}
        Err(error) => tracing::warn!(%error, job = %digest, "a job's body was not gossiped"),
    }
    Json(JobOffered { job: digest, listed: offered != Offered::Waiting }).into_response()
}

async fn record(State(board): Board, Path(slot): Path<u64>) -> Response {
    let Some(epoch) = board.epoch().cloned() else {
        return refuse(StatusCode::NOT_FOUND, &"this node knows no certificates yet");
    };
    let read = tokio::task::spawn_blocking(move || epoch.ledger.record(Slot(slot))).await;
    match read {
        Ok(Ok(Some(record))) => Json(record).into_response(),
        Ok(Ok(None)) => {
            refuse(StatusCode::NOT_FOUND, &format_args!("slot {slot} is not certified here"))
        }
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, &"the node is stopping"),
    }
}
