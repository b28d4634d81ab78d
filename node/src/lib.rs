//! The only I/O of Veil: files, the keystore, the command line.
//!
//! - [`share_files`]: the share streams of a ceremony as files;
//! - [`simulate`]: all members of a ceremony in one process, and [`misbehaviour`] for its faults;
//! - [`demonstrate`]: proof that a key set works, with threshold decryption;
//! - [`archive`]: the folder that a finished ceremony leaves, and its verification;
//! - [`cli`]: arguments, output, exit codes.

pub mod admin;
pub mod agreement;
pub mod api;
pub mod archive;
pub mod ceremony;
pub mod chain;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demonstrate;
pub mod devnet;
pub mod driver;
pub mod epoch;
pub mod evaluation;
pub mod follow;
pub mod intake;
pub mod job_file;
pub mod member;
pub mod misbehaviour;
pub mod operator;
pub mod policy_file;
pub mod pool;
pub mod role;
pub mod share_files;
pub mod simulate;
pub mod status;
pub mod telemetry;
pub mod usage;
pub mod worker;
