//! A job as its operator submits it.
//!
//! # Role
//! What operators write, members place and workers run: the [`job`] itself.
//!
//! - what is run: its [`kind`], its [`image`], how its [`container`] is set up, its [`volume`]s;
//! - when a periodic one runs: its [`schedule`];
//! - what it needs: [`resources`], and [`quantities`], as the circuits count them; or the [`proven`] list that an
//!   encrypted request is, of which winners learn the [`limits`](opened::SealedRequest);
//! - where it may run: [`labels`]; how many workers are asked for it: [`sampling`]; and how it is reached: [`network`];
//! - what it reaches of its operator's other jobs, and waits for: [`links`];
//! - what becomes of it: [`lifecycle`];
//! - what only winners can open: [`sealed`], and what is in it: [`contents`].
//!
//! Bounds are in [`limits`], every [`refusal`] has a name, and [`unsupported`] lists what a job can say and nobody
//! does yet.
//!
//! # Flow, state and restart
//! None: a job is a value. Bytes from outside go through [`job::JobSpec::parse`], which decodes and applies every
//! rule; a job that was made here goes through [`job::JobSpec::validate`].
//!
//! # Example
//! ```
//! use veil_protocol_spec_job::resources::{CpuUnits, MemoryUnits};
//!
//! // Requests are rounded up to whole units.
//! assert_eq!(CpuUnits::covering(150), Ok(CpuUnits(2)));
//! assert_eq!(MemoryUnits::covering(100 << 20), Ok(MemoryUnits(2)));
//! ```

#[cfg(test)]
mod arbitrary;
pub mod container;
pub mod contents;
pub mod image;
pub mod job;
pub mod kind;
pub mod labels;
pub mod lifecycle;
pub mod limits;
pub mod links;
pub mod names;
pub mod network;
pub mod opened;
pub mod proven;
pub mod quantities;
pub mod refusal;
pub mod request;
pub mod resources;
mod rules;
pub mod sampling;
pub mod schedule;
pub mod sealed;
mod text;
pub mod unsupported;
pub mod version;
pub mod volume;
