//! The `veil` binary: the command line.
//!
//! # Roles
//! What a node does is in the crates below: `veil-node-core` for every role, `veil-node-ceremony`,
//! `veil-node-member`, `veil-node-worker`; what an operator asks of a cluster in `veil-node-operator`; a whole network on
//! one machine in `veil-node-devnet`. This crate knows them all and puts them together.
//!
//! - [`cli`]: arguments, output, exit codes.
//!
//! # Flow
//! [`cli::Cli::run`] reads the arguments, runs one command to its end, prints its result, and turns a
//! failure into a sentence and an exit code.
//!
//! # State and restart
//! None of its own.

pub mod cli;
