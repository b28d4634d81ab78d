//! Several endpoints of one chain behind one transport.
//!
//! # Flow of a request
//! 1. The endpoint that answered last is asked first, then the others in the order of configuration;
//!    those in backoff come last.
//! 2. Before its first request, and again after a failure, an endpoint is asked for its chain id. One
//!    of another chain than the first that answered, or than the configured one, is refused by name.
//! 3. An endpoint that fails goes into backoff, longer each time; the next one is asked.
//! 4. When all have failed, the error names the fault of each one.
//!
//! # State
//! Per endpoint: failures in a row, the end of its backoff, its fault. It lives as long as the
//! connection.
//!
//! # Caveats
//! A refusal is an answer: what the chain refuses, every endpoint refuses. That an endpoint limits requests is none,
//! whatever status its answer has. Endpoints may lag behind one another; the one in use is kept as long as it answers, because otherwise the chain would seem to go
//! back and forth.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task,
    time::Duration,
};

use alloy::{
    primitives::U64,
    rpc::{
        client::RpcClient,
        json_rpc::{RequestPacket, ResponsePacket},
    },
    transports::{TransportError, TransportErrorKind, TransportFut, http::Http},
};
use reqwest::{Client, Url};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;
use tower_service::Service;
use tracing::{info, warn};
use veil_protocol_spec::ChainId;

use crate::{
    error::{ChainError, root_cause},
    fault::{Fault, NoEndpoint},
};

/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for an endpoint to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Backoff after the first failure in a row; each further failure doubles it.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest backoff; also that of an endpoint of another chain.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// URLs of JSON-RPC endpoints of one chain, in the order in which they are tried. As text: separated
/// by commas. In a configuration file: one text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RpcUrls(Vec<String>);

impl RpcUrls {
    /// The URLs as they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl From<&str> for RpcUrls {
    fn from(text: &str) -> Self {
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        Self(urls.map(ToOwned::to_owned).collect())
    }
}

impl From<String> for RpcUrls {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Vec<String>> for RpcUrls {
    fn from(urls: Vec<String>) -> Self {
        Self(urls)
    }
}

impl fmt::Display for RpcUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl<'de> Deserialize<'de> for RpcUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "the URL of an RPC, or a list of them")]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::One(text) => text.into(),
            Either::Many(urls) => urls.into(),
        })
    }
}

/// The state of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// Its URL without path and query, which may hold a provider's key.
    pub url: String,
    /// Whether its last request got an answer, or none was made yet.
    pub healthy: bool,
    /// What it did wrong at its last request.
    pub fault: Option<String>,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it did not.
    pub failed: u64,
}

#[derive(Default)]
struct Health {
    /// Whether its chain id was checked since its last failure.
    checked: bool,
    failures: u32,
    backoff_until: Option<Instant>,
    fault: Option<Fault>,
}

struct Endpoint {
    url: String,
    http: Http<Client>,
    health: Mutex<Health>,
    answered: AtomicU64,
    failed: AtomicU64,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    /// Fixed by the configuration, or by the first endpoint that answers.
    chain: OnceLock<ChainId>,
    /// The one that answered last.
    current: AtomicUsize,
}

/// The transport. Clones share the endpoints' health.
#[derive(Clone)]
pub(crate) struct Endpoints(Arc<Shared>);

impl Endpoints {
    /// # Errors
    /// [`ChainError::InvalidUrl`].
    pub(crate) fn new(urls: &RpcUrls, expected: Option<ChainId>) -> Result<Self, ChainError> {
        let endpoints: Result<Vec<_>, _> = urls.0.iter().map(|url| Endpoint::new(url)).collect();
        let endpoints = endpoints?;
        if endpoints.is_empty() {
            let detail = "no URL is given".to_owned();
            return Err(ChainError::InvalidUrl { url: String::new(), detail });
        }
        let chain = expected.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self(Arc::new(Shared { endpoints, chain, current: AtomicUsize::new(0) })))
    }

    /// The chain that all endpoints have to serve, once one has answered.
    pub(crate) fn chain(&self) -> Option<ChainId> {
        self.0.chain.get().copied()
    }

    /// URL of the endpoint in use.
    pub(crate) fn current(&self) -> &str {
        let current = self.0.current.load(Ordering::Relaxed);
        self.0.endpoints.get(current).map_or("", |endpoint| &endpoint.url)
    }

    pub(crate) fn status(&self) -> Vec<EndpointStatus> {
        let status = |endpoint: &Endpoint| {
            let fault = endpoint.health().fault.as_ref().map(ToString::to_string);
            EndpointStatus {
                url: endpoint.url.clone(),
                healthy: fault.is_none(),
                fault,
                answered: endpoint.answered.load(Ordering::Relaxed),
                failed: endpoint.failed.load(Ordering::Relaxed),
            }
        };
        self.0.endpoints.iter().map(status).collect()
    }

    /// Step 1.
    fn order(&self) -> Vec<(usize, &Endpoint)> {
        let (current, now) = (self.0.current.load(Ordering::Relaxed), Instant::now());
        let mut order: Vec<_> = self.0.endpoints.iter().enumerate().collect();
        order.sort_by_key(|(index, endpoint)| {
            let backoff = endpoint.health().backoff_until.filter(|until| *until > now);
            // The sort keeps the configured order among equals.
            (backoff, *index != current)
        });
        order
    }

    async fn request(self, packet: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let mut faults = Vec::new();
        for (index, endpoint) in self.order() {
            match endpoint.request(&packet, &self.0.chain).await {
                Ok(answer) => {
                    let before = self.0.current.swap(index, Ordering::Relaxed);
                    if before != index {
                        info!(url = endpoint.url, "using another endpoint of the chain");
                    }
                    return Ok(answer);
                }
                Err(fault) => faults.push((endpoint.url.clone(), fault)),
            }
        }
        Err(TransportErrorKind::custom(NoEndpoint(faults)))
    }
}

impl Endpoint {
    fn new(text: &str) -> Result<Self, ChainError> {
        let invalid = |detail: String| ChainError::InvalidUrl { url: text.to_owned(), detail };
        let url: Url = text.parse().map_err(|error| invalid(format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("only http and https are supported".to_owned()));
        }
        // For TLS. It fails, which is not an error, if the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client =
            Client::builder().timeout(REQUEST_TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        // A proxy is for other machines.
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| invalid(error.to_string()))?;
        let name = public(&url);
        Ok(Self {
            url: name,
            http: Http::with_client(client, url),
            health: Mutex::default(),
            answered: AtomicU64::default(),
            failed: AtomicU64::default(),
        })
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps 2 and 3.
    async fn request(
        &self,
        packet: &RequestPacket,
        chain: &OnceLock<ChainId>,
    ) -> Result<ResponsePacket, Fault> {
        let answer = async {
            let checked = self.health().checked;
            if !checked {
                self.check(chain).await?;
            }
            let answer = self.http.clone().call(packet.clone()).await;
            let answer = answer.map_err(|error| no_answer(&error))?;
            limit(&answer).map_or(Ok(answer), |says| Err(Fault::Limited(says)))
        };
        match answer.await {
            Ok(answer) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                let before = core::mem::take(&mut *self.health());
                self.health().checked = true;
                if before.fault.is_some() {
                    info!(url = self.url, "the endpoint answers again");
                }
                Ok(answer)
            }
            Err(fault) => {
                self.fail(fault.clone());
                Err(fault)
            }
        }
    }

    async fn check(&self, chain: &OnceLock<ChainId>) -> Result<(), Fault> {
        let client = RpcClient::new(self.http.clone(), true);
        let found = client.request_noparams::<U64>("eth_chainId").await;
        let found = ChainId(found.map_err(|error| no_answer(&error))?.to());
        let expected = *chain.get_or_init(|| found);
        if expected == found { Ok(()) } else { Err(Fault::OtherChain { expected, found }) }
    }

    fn fail(&self, fault: Fault) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        if health.fault.as_ref() != Some(&fault) {
            warn!(url = self.url, %fault, "an endpoint of the chain has failed");
        }
        let backoff = match &fault {
            Fault::OtherChain { .. } => MAX_BACKOFF,
            Fault::NoAnswer(_) | Fault::Limited(_) => {
                FIRST_BACKOFF.saturating_mul(1 << health.failures.min(10))
            }
        };
        health.checked = false;
        health.failures += 1;
        health.backoff_until = Some(Instant::now() + backoff.min(MAX_BACKOFF));
        health.fault = Some(fault);
    }
}

/// The URL without user, path and query, where providers put keys.
fn public(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let more = if url.path().len() > 1 || url.query().is_some() { "/..." } else { "" };
    format!("{}://{host}{port}{more}", url.scheme())
}

/// What an endpoint says that answers nobody any more, or not so often. One code of providers also stands for a range of
/// blocks that is too wide, which its caller makes narrower, and for a block that is not there, which is an answer.
fn limit(answer: &ResponsePacket) -> Option<String> {
    let is_limit = |message: &str| {
        let message = message.to_lowercase();
        !["range", "results", "not found", "logs"].iter().any(|word| message.contains(word))
    };
    let mut errors = answer.iter_errors();
    let error = errors.find(|error| error.is_retry_err() && is_limit(&error.message))?;
    Some(error.message.chars().take(200).collect())
}

/// The fault of a request without an answer. A body that is not JSON-RPC counts as none.
fn no_answer(error: &TransportError) -> Fault {
    Fault::NoAnswer(match error {
        TransportError::Transport(TransportErrorKind::HttpError(http)) => {
            format!("HTTP {}", http.status)
        }
        TransportError::Transport(TransportErrorKind::HttpErrorWithRetryAfter {
            error, ..
        }) => format!("HTTP {}", error.status),
        TransportError::Transport(kind) => root_cause(kind),
        TransportError::DeserError { .. } => "an answer that is not JSON-RPC".to_owned(),
        other => other.to_string(),
    })
}

impl Service<RequestPacket> for Endpoints {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().request(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_one_text_or_a_list() {
        #[derive(Deserialize)]
        struct Section {
            rpc: RpcUrls,
        }
        let parse = |text: &str| toml::from_str::<Section>(text).map(|section| section.rpc.0);
        assert_eq!(parse("rpc = 'http://a'").unwrap(), ["http://a"]);
        assert_eq!(parse("rpc = 'http://a, http://b,'").unwrap(), ["http://a", "http://b"]);
        assert_eq!(parse("rpc = ['http://a', 'http://b']").unwrap(), ["http://a", "http://b"]);
        assert!(parse("rpc = 5").unwrap_err().to_string().contains("or a list of them"));
    }

    #[test]
    fn keys_in_urls_are_not_shown() {
        let shown = |text: &str| public(&text.parse().unwrap());
        assert_eq!(shown("http://127.0.0.1:8545"), "http://127.0.0.1:8545");
        assert_eq!(
            shown("https://me:pw@host.example/v3/5ec3e7?k=5ec3e7"),
            "https://host.example/..."
        );
    }

    #[test]
    fn a_limit_is_told_from_a_refusal() {
        let said = |code: i64, message: &str| {
            let answer = serde_json::json!({
                "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message },
            });
            limit(&serde_json::from_value(answer).unwrap())
        };
        for (code, message) in [
            (-32005, "daily request count exceeded, request rate limited"),
            (429, "Your app has exceeded its compute units per second capacity"),
            (-32007, "100/second request limit reached - reduce calls per second"),
            (-32000, "too many requests"),
        ] {
            assert_eq!(said(code, message).as_deref(), Some(message));
        }
        for (code, message) in [
            (-32005, "query returned more than 10000 results"),
            (-32005, "block range is too wide"),
            (-32000, "header not found"),
            (3, "execution reverted"),
            (-32000, "nonce too low"),
        ] {
            assert_eq!(said(code, message), None, "{message}");
        }
    }

    #[test]
    fn urls_are_checked_at_once() {
        for bad in ["", "nonsense", "ftp://a", "http://a,ws://b"] {
            let made = Endpoints::new(&bad.into(), None);
            assert!(matches!(made.err(), Some(ChainError::InvalidUrl { .. })), "{bad}");
        }
    }
}
