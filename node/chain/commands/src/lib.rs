//! Commands of `veil chain` about authority, and the arguments that all of its commands share.
//!
//! # Role
//! Arguments, and what a command does with them: a report as JSON, which `veil` prints. It prints nothing itself.
//! - [`arguments`]: how to reach the chain and who signs; [`Drafting`](arguments::Drafting): that others do.
//! - [`deploy`]: deploying the contracts, and whether what is deployed is what was built.
//! - [`govern`]: what the timelock is told, and the pause. [`dispute`]: challenges, and what they come to.
//! - [`custody`]: the cluster's admin. [`elect`]: elections of committees.
//!
//! # Flow
//! 1. `clap` reads the arguments into a type of a module here.
//! 2. Its `carry_out` connects, does what is asked, and describes the outcome, or gives a [`CommandError`]. With
//!    `--unsigned` that is [`ChainError::Unsigned`](veil_node_chain::ChainError::Unsigned), which is no failure.
//!
//! # State and restart
//! None.

pub mod arguments;
pub mod custody;
pub mod deploy;
pub mod dispute;
pub mod elect;
mod error;
pub mod govern;

pub use error::CommandError;
