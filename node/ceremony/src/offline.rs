//! A whole ceremony on one machine, and what it leaves: for trials, measurements and verification.
//!
//! - [`simulate`]: all members of a ceremony in one process, and [`misbehaviour`] for its faults;
//! - [`share_files`]: the share streams of a ceremony as files;
//! - [`demonstrate`]: the proof that a key set works, with threshold decryption;
//! - [`report`]: what it came to;
//! - [`archive`]: the folder that a finished ceremony leaves, and its verification.

pub mod archive;
pub mod demonstrate;
pub mod misbehaviour;
pub mod report;
pub mod share_files;
pub mod simulate;
