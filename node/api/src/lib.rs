//! How a node is asked: HTTP with JSON bodies, on a Unix socket in its data directory and, if that is
//! configured, over TLS.
//!
//! # Roles
//! - [`socket`]: serves on the Unix socket. Whoever may open it (its owner) may ask everything.
//! - [`tls`]: serves on an address. Reading needs a token, job routes an operator's login.
//! - [`gate`]: tells who asks ([`gate::Caller`]), by the way the request came or by its token.
//! - [`sessions`]: challenges, logins and their tokens; no I/O and no clock.
//! - [`token`]: what tokens look like; [`denied`]: why a caller is turned away, with a word for programs.
//! - [`evict`]: a worker's operator gives replicas back. [`relay`]: a way through a node to a worker.
//! - [`progress`]: how far a process is, which its tasks write and the answers read.
//! - [`routes`]: routers whose routes can be listed and compared with the OpenAPI document.
//! - [`status`]: what the answers say; [`replicas`], [`given_back`], [`periodic`], [`versions`]: what they say of jobs, from
//!   what the certificates say; [`weights`]: those of the policy, if they are encrypted.
//! - [`client`]: asks a node, by socket or by URL; the command line speaks only through it. [`address`]: where;
//!   [`trust`]: by which certificates.
//!
//! # Flow of a login
//! 1. `POST /v1/login/challenge` with the account: the node answers with a challenge and the time until which
//!    it can be answered. It remembers nothing: the challenge is authenticated by a key of this process.
//! 2. The operator's key signs an EIP-712 `ApiLogin` that names chain, directory, cluster, the **certificate** that
//!    the node showed, account, challenge and time. Both requests go over one connection. A node that passes on
//!    another's challenge has shown its own certificate, and gets a signature of no use there.
//! 3. `POST /v1/login` with the signature: the node checks it, and that the chain grants the account a right,
//!    and answers with a token for a quarter of an hour. A challenge is answered once.
//!
//! # State and restart
//! Tokens and the key of challenges are in memory: a restart ends all sessions. Certificate, key and read
//! token are files.

pub mod address;
pub mod client;
pub mod denied;
pub mod evict;
pub mod gate;
pub mod given_back;
pub mod measure;
pub mod periodic;
pub mod progress;
pub mod relay;
pub mod replicas;
pub mod routes;
pub mod sessions;
pub mod socket;
pub mod status;
pub mod tls;
pub mod token;
pub mod trust;
pub mod versions;
pub mod weights;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// A refusal in the form that [`client`] passes on: `{"error": ...}`.
pub fn refuse(code: StatusCode, error: &dyn core::fmt::Display) -> Response {
    (code, Json(serde_json::json!({ "error": error.to_string() }))).into_response()
}
