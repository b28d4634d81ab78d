//! How an operator reaches its job on the worker that runs it: `protocol-spec/reach.md`.
//!
//! # Roles
//! - A worker runs a [`Server`] over the streams that peers open to it. What it knows of the cluster is a [`World`], what
//!   it does with containers a [`Host`].
//! - An operator's program calls [`reach`] over a stream that its entry node carries to the worker, and gets a
//!   [`Reached`].
//!
//! # Flow
//! 1. Both shake hands ([`veil_node_p2p::Session`]): the operator's end knows the worker by its peer id, and has an
//!    identity that was made for this session.
//! 2. On the first stream the operator sends a request that its account has signed, and that names this session. The
//!    worker checks it ([`authorise`](authorise::authorise)) and answers.
//! 3. On this stream both say from then on that they live, and the worker says why it ends the session: it looks again
//!    whenever the cluster's state changes.
//! 4. Each further stream is what the request was for: the log, the command, or one connection.
//!
//! # State and restart
//! None. A session ends with either end; the operator's program makes another.
//!
//! # Bounds
//! Sessions of one operator, streams of one session, and all waiting have limits; what is sent waits for whoever reads
//! it. Every refusal has a name, and is counted.
//!
//! # Secrets
//! What containers write, what is typed and what goes through connections is the operator's alone: none of it is in a
//! log, a counter or an error here.

pub mod authorise;
mod client;
mod engine;
mod exec;
mod forward;
pub mod frame;
mod host;
mod logs;
mod serve;
#[cfg(test)]
mod tests;

pub use self::{
    authorise::{Place, World},
    client::{ReachFailure, Reached, Sign, Signer, reach},
    forward::splice,
    host::{Command, Host, Ran, refusal_of},
    serve::Server,
};
