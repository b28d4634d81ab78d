//! A harness for the protocols of Veil: virtual time, a simulated network, fault plans as data,
//! malicious members, and the properties that every run has.
//!
//! - [`plan`]: what goes wrong; [`plan::Plan::run`] runs one attempt of the key ceremony under a
//!   plan and a seed and gives a [`report::Report`].
//! - [`network`]: virtual time and links; [`commit_point`]: what stands for the chain; [`disk`]:
//!   what outlives a crash.
//! - [`malicious`]: members that deviate, one file per misbehaviour.
//! - [`agreement`]: agreement on manifests over the same network.
//! - [`decryption`]: threshold decryption over the same network, with the shares of a simulated
//!   ceremony.
//!
//! A run is a function of plan and seed: same inputs, same trace hash. There is no clock and no
//! entropy in here. Parameters are the insecure test set.

pub mod agreement;
pub mod commit_point;
pub mod decryption;
pub mod disk;
pub mod fixtures;
pub mod malicious;
pub mod network;
pub mod plan;
pub mod report;
mod simulation;
