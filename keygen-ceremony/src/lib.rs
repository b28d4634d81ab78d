//! Distributed key generation for TFHE: n members end up with shares of a key that never exists
//! anywhere, and everybody with a `CompressedXofKeySet` that the stock `tfhe` library uses.
//!
//! Source: `ceremony.md` in `protocol-spec`; Cramer-Damgard-Ishai (TCC 2005), eprint 2023/815 and
//! 2025/699 (section 7 and appendix B).
//!
//! - [`setup`] is what a member is told, [`seed`] what it draws from, [`machine`] the participant
//!   itself: sans-io, deterministic, restartable.
//! - [`channel`] and [`contributions`] make the keys that sets of members share.
//! - [`shares`], with [`ntt`] and [`chunks`], computes and opens the two share streams; [`store`]
//!   keeps them.
//! - [`keyset`] knows tfhe's parameters and layout and assembles the key set.
//! - [`transcript`] verifies a finished ceremony offline.

pub mod channel;
pub mod chunks;
pub mod contributions;
mod engine;
pub mod keyset;
pub mod machine;
pub mod ntt;
pub mod proof;
pub mod seed;
pub mod setup;
pub mod shares;
pub mod store;
pub mod transcript;
