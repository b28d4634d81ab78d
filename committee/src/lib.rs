//! Threshold logic of a committee, without I/O: no clock, no socket, and no entropy of its own
//! except FROST nonces.
//!
//! - [`ring`]: the Galois rings GR(2^64, d) and GR(2^128, d); [`shamir`]: sharing over them;
//!   [`code`]: the Reed-Solomon code of the shares, with error detection and location.
//! - [`subsets`]: replicated-key sets and noise groups; [`prf`]: what their keys expand to;
//!   [`randomness`]: PRSS, PRZS and noise shares.
//! - [`decrypt`]: partial decryption with noise flooding, and combining with the culprits named;
//!   [`decryption`]: the sans-io machine around it, which decrypts only what it recomputed.
//! - [`key_share`]: what a member keeps of the key ceremony, and its form on disk.
//! - [`frost`]: the committee's signatures.

pub mod code;
pub mod decrypt;
pub mod decryption;
pub mod frost;
pub mod key_share;
pub mod prf;
pub mod randomness;
pub mod ring;
pub mod shamir;
pub mod subsets;
#[cfg(test)]
mod testing;
