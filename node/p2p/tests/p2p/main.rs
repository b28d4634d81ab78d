//! Several networks in one process, over real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cluster;
mod files;
mod gate;
mod gossip;
mod liveness;
mod requests;
mod streams;
