//! The client and the contracts on a real local chain. It needs anvil; without it these tests fail and
//! say how to get it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps has failed")]

mod anchors;
mod contracts;
mod delegates;
mod election;
mod endpoints;
mod fees;
mod governance;
mod policy;
mod reorganisation;
mod support;
mod transactions;
