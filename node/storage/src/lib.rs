//! What a node keeps on disk.
//!
//! # Role
//! Every store of a node, and nothing that decides what is in it:
//!
//! - [`keystore`]: identities, key shares and passphrases, encrypted from the first write;
//! - [`journal`]: the records of a machine, in order, bound into a chain;
//! - [`slot_journal`]: those that belong to slots, until their slots are certified;
//! - [`archive`]: what is kept of ended slots, within the bounds of [`retention`];
//! - [`inputs`]: what evaluating the slot under way needs;
//! - [`ledger`]: the chain of certificates, and the cluster's state that follows from it;
//! - [`trust`]: what certificates are checked against, by first slot;
//! - [`evidence`]: what shows that somebody broke the protocol, and the members' votes for certificates;
//! - [`jobs`]: the bodies of submitted jobs;
//! - [`data_dir`]: the folder that one process has for itself;
//! - [`durable`]: files that survive a power cut, and files that are destroyed.
//!
//! # Flow
//! Each store is opened once, checks what it finds, and names what is damaged. A write is durable
//! before the call returns, so callers wait for the disk: asynchronous ones on a blocking thread.
//!
//! # State and restart
//! Opening is the restart: nothing else is needed, and nothing is repaired silently. What it reads does
//! not grow with the number of slots.
//!
//! # Example
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use veil_node_storage::{data_dir::DataDir, durable};
//!
//! let folder = tempfile::tempdir()?;
//! let data = DataDir::lock(folder.path())?;
//! assert!(DataDir::lock(folder.path()).is_err(), "one process, one folder");
//! let counter = data.path().join("restarts");
//! assert_eq!([durable::count_up(&counter)?, durable::count_up(&counter)?], [1, 2]);
//! # Ok(()) }
//! ```

pub mod archive;
pub mod data_dir;
mod database;
pub mod durable;
pub mod evidence;
pub mod inputs;
pub mod jobs;
pub mod journal;
pub mod keystore;
pub mod ledger;
pub mod retention;
pub mod slot_journal;
pub mod slot_stores;
pub mod trust;
