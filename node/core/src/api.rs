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
use veil_node_p2p::{PublishError, Topic};
use veil_node_storage::jobs::Offered;
use veil_protocol_spec::{Blake3Digest, Slot, Wire, scheduling::JobSpec};

use crate::board::StatusBoard;

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

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use veil_protocol_spec::{
        Address, ChainId, ClusterId, identity::SecretIdentity, scheduling::ClusterScope,
    };

    use super::*;
    use crate::{
        admin::{self, AdminError},
        job_file::JobFile,
        status::{JobStatus, Role, Status},
    };

    /// A job survives the way through JSON: it has the digest that was submitted.
    #[test]
    fn a_job_keeps_its_digest_through_json() {
        let (contract, cluster) = (Address([1; 20]), ClusterId([2; 32]));
        let scope = ClusterScope { chain_id: ChainId(31_337), contract, cluster };
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!(
            "image = \"a/b@sha256:{digest}\"\nreplicas = 2\nanti_affinity = \"soft\"\n[resources]\ncpu_millicores = 1\nmemory_mib = 1\n"
        );
        let job = JobFile::parse(&text).unwrap().into_spec(scope, Address([3; 20]), 4).unwrap();
        let json = serde_json::to_string(&job).unwrap();
        let back: JobSpec = serde_json::from_str(&json).unwrap();
        assert_eq!((back.digest(), back), (job.digest(), job));
    }

    #[tokio::test]
    async fn a_node_that_has_not_joined_answers_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let identity = SecretIdentity::from_bytes(&[7; 32]).unwrap().public();
        let board = Arc::new(StatusBoard::new(Role::Worker, &identity).unwrap());
        board.stage("waiting for the chain", ["http://127.0.0.1:1".to_owned()]);
        let stop = CancellationToken::new();
        let serving = admin::serve(socket.clone(), router(board), stop.clone()).await.unwrap();
        let status: Status = admin::get(&socket, "/v1/status").await.unwrap();
        assert_eq!(status.stage, "waiting for the chain");
        assert_eq!(status.waiting_for, ["http://127.0.0.1:1"]);
        assert_eq!((status.role, status.last_slot), (Role::Worker, Slot(0)));
        let jobs: Vec<JobStatus> = admin::get(&socket, "/v1/jobs").await.unwrap();
        assert!(jobs.is_empty());
        let record = admin::get::<serde_json::Value>(&socket, "/v1/slots/1").await;
        assert!(matches!(record, Err(AdminError::Refused(why)) if why.contains("no certificates")));
        stop.cancel();
        serving.await.unwrap();
    }
}
