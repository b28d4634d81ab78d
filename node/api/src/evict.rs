//! A worker's operator gives replicas back: `POST /v1/worker/evictions`, on the worker's own socket only.
//!
//! Whoever reaches the socket operates the worker. What is said here is signed by the worker and goes to the members
//! with its telemetry.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{Note, UnixMillis},
};

use crate::{refuse, routes::Routes};

/// Which replicas of this worker are given back, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evict {
    /// The first digits of the job's digest; nothing for all that the worker has.
    pub job: Option<String>,
    /// Which of the job's replicas; nothing for all of them.
    pub replica: Option<ReplicaIndex>,
    /// Seconds until the worker stops them.
    pub notice_seconds: u64,
    /// Why, for those whose replicas they are.
    #[serde(default)]
    pub reason: Note,
}

/// A replica that is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Digest of its job.
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
    /// When the worker stops it, if it runs here still; nothing if it runs until it runs elsewhere.
    pub until: Option<UnixMillis>,
}

/// Why nothing is given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvictError {
    /// The request names nothing that is here.
    #[error("{0}")]
    NothingSuch(String),
    /// Not now.
    #[error("{0}")]
    NotNow(String),
}

/// A worker, as far as it gives replicas back.
pub trait GivesBack: Send + Sync {
    /// Gives them back, all or none.
    ///
    /// # Errors
    /// [`EvictError`].
    fn give_back(&self, request: &Evict) -> Result<Vec<Evicted>, EvictError>;
}

/// The path of the route.
pub const PATH: &str = "/v1/worker/evictions";

/// The route.
#[must_use]
pub fn routes(worker: Arc<dyn GivesBack>) -> Routes {
    Routes::default().post(PATH, evict).with_state(worker)
}

async fn evict(State(worker): State<Arc<dyn GivesBack>>, Json(request): Json<Evict>) -> Response {
    // A file is written, which is short.
    let evicted = tokio::task::spawn_blocking(move || worker.give_back(&request)).await;
    match evicted {
        Ok(Ok(evicted)) => Json(evicted).into_response(),
        Ok(Err(error @ EvictError::NothingSuch(_))) => refuse(StatusCode::NOT_FOUND, &error),
        Ok(Err(error @ EvictError::NotNow(_))) => refuse(StatusCode::CONFLICT, &error),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, &"the worker is stopping"),
    }
}
