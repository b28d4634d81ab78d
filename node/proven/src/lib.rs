//! Encrypted lists that others have proven, apart from telemetry: [requests](request) of jobs and the
//! [weights] of the cluster's policy.
//!
//! # Role
//! "An unproven ciphertext that enters a circuit is a key-extraction oracle": a list is verified before it is
//! expanded, and expanded before it is stored or handed on. This crate says whether a list is what it is named,
//! remembers [what was found](known), keeps weights on disk, and says when what nobody has is [asked for
//! again](sought). Whoever fetches lists, and hands what is expanded to a circuit, is `veil-node-core`.
//!
//! # Flow
//! 1. [`known::Known::begin`] says whether somebody has looked at a list before.
//! 2. [`request::expand`], [`weights::PolicyWeightLists::take`]: form, binding, proof, expansion. They take as long as a
//!    proof takes: not for the reactor.
//! 3. [`known::Known::set`] remembers it, also that a list must not be computed on.
//!
//! # State and restart
//! Weights are files of the data directory. After a restart they are verified again, like anything else from a disk
//! that others may have written to; of requests nothing is kept.

pub mod known;
pub mod request;
pub mod sought;
pub mod weights;
