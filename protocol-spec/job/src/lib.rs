//! A job as its operator submits it.
//!
//! # Role
//! What operators write, members place and workers run: the [`job`] itself, its [`image`], what it needs
//! ([`resources`], and [`quantities`], as the circuits count them), the [`labels`] that it asks workers for, and
//! the [`proven`] list that an encrypted request is.
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
pub mod image;
pub mod job;
mod job_rules;
pub mod labels;
pub mod proven;
pub mod quantities;
pub mod resources;
