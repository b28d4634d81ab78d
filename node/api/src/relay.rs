//! A way through a node to a worker: `GET /v1/workers/{worker}/reach`, upgraded to a stream of bytes.
//!
//! The node carries what it cannot read. Who may use it: whoever may use job routes. The worker asks who it is anew, and
//! believes nothing of what the node says.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use axum::{
    Extension,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use veil_protocol_spec::PeerIdHash;

use crate::{denied::Denied, gate::Caller, refuse, routes::Routes};

/// The route.
pub const PATH: &str = "/v1/workers/{worker}/reach";
/// What the connection becomes.
pub const PROTOCOL: &str = "veil-reach/1";

/// Ways that are open at once, of all callers; no worker takes more of one node.
const WAYS: usize = 64;
/// Of them, of one caller from afar.
const WAYS_OF_ONE: usize = 16;
/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// Anything that bytes go through in both directions.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The node cannot go anywhere yet.
    #[error("{0}")]
    NotNow(String),
    /// Not to this worker.
    #[error("{0}")]
    Unreachable(String),
}

/// A node, as far as it leads to others.
#[async_trait]
pub trait Leads: Send + Sync + 'static {
    /// A stream to a worker.
    ///
    /// # Errors
    /// [`NoWay`].
    async fn lead(&self, worker: PeerIdHash) -> Result<Box<dyn Bytes>, NoWay>;
}

/// The ways that are open.
#[derive(Clone)]
struct Ways {
    node: Arc<dyn Leads>,
    open: Arc<Mutex<HashMap<Caller, usize>>>,
}

struct Way {
    open: Arc<Mutex<HashMap<Caller, usize>>>,
    caller: Caller,
}

impl Ways {
    fn take(&self, caller: Caller) -> Option<Way> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&caller).copied().unwrap_or_default();
        if all >= WAYS || caller != Caller::Local && own >= WAYS_OF_ONE {
            return None;
        }
        *open.entry(caller).or_default() += 1;
        Some(Way { open: Arc::clone(&self.open), caller })
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

/// The route, through this node.
#[must_use]
pub fn routes(node: Arc<dyn Leads>) -> Routes {
    Routes::default().get(PATH, lead).with_state(Ways { node, open: Arc::default() })
}

async fn lead(
    State(ways): State<Ways>,
    Extension(caller): Extension<Caller>,
    Path(worker): Path<PeerIdHash>,
    mut request: Request,
) -> Response {
    if caller == Caller::Reader {
        return Denied::ReadOnly.into_response();
    }
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|asked| asked.as_bytes() != PROTOCOL.as_bytes()) {
        let error =
            format!("this is no page: ask for an upgrade to {PROTOCOL}, as `veil job` does");
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, &error);
        response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(PROTOCOL));
        return response;
    }
    let Some(way) = ways.take(caller) else {
        let error = "too many sessions go through this node; end some, or ask another node";
        return refuse(StatusCode::TOO_MANY_REQUESTS, &error);
    };
    let mut stream = match ways.node.lead(worker).await {
        Ok(stream) => stream,
        Err(error @ NoWay::NotNow(_)) => return refuse(StatusCode::CONFLICT, &error),
        Err(error @ NoWay::Unreachable(_)) => return refuse(StatusCode::BAD_GATEWAY, &error),
    };
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _way = way;
        let carried = async {
            let upgraded = upgrading.await.map_err(io::Error::other)?;
            let mut upgraded = TokioIo::new(upgraded);
            copy_bidirectional_with_sizes(&mut upgraded, &mut stream, BUFFER, BUFFER).await
        };
        if let Err(error) = carried.await {
            tracing::debug!(%worker, %error, "a way through this node ended");
        }
    });
    let upgrade = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, upgrade, Body::empty()).into_response()
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::Address;

    use super::*;

    struct Nowhere;

    #[async_trait]
    impl Leads for Nowhere {
        async fn lead(&self, _: PeerIdHash) -> Result<Box<dyn Bytes>, NoWay> {
            Err(NoWay::NotNow("nowhere".to_owned()))
        }
    }

    #[test]
    fn one_operator_does_not_take_all_ways() {
        let ways = Ways { node: Arc::new(Nowhere), open: Arc::default() };
        let operator = |byte| Caller::Operator(Address([byte; 20]));
        let held: Vec<_> = (0..=WAYS_OF_ONE).map_while(|_| ways.take(operator(1))).collect();
        assert_eq!(held.len(), WAYS_OF_ONE);
        assert!(ways.take(operator(2)).is_some());
        let local: Vec<_> = (0..=WAYS).map_while(|_| ways.take(Caller::Local)).collect();
        assert_eq!(local.len(), WAYS - WAYS_OF_ONE);
        drop((held, local));
        assert!(ways.open.lock().unwrap().is_empty(), "what is not open is forgotten");
    }
}
