//! x
pub mod chunks;
pub mod keyset;
pub mod ntt;
pub mod shares;
