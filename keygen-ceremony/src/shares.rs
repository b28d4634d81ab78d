//! The shares that a member broadcasts, and what all members' shares open to.
//!
//! Step 6 (`ceremony.md`): for each key bit, \[r\] <- PRSS; locally v_j = r_j^2 + r_j, degree 2t;
//! plus a fresh PRZS share. Step 7: v opens; x is the root of X^2 + X = v with even constant
//! coefficient; \[b\] = (\[r\] - x) (-1 - 2x)^-1.
//!
//! Step 8: each body word is <mask, \[key\]> + gadget + noise share + PRZS share, degree 2t; d rows
//! are packed. The products \[s_i\]\[K_j\] of the gadget are local products of shares: they are
//! opened inside the body and never alone, so no degree reduction and no multiplication triple is
//! needed.

pub mod bits;
pub mod bodies;
mod encoding;
pub mod keys;
pub mod opening;
#[cfg(test)]
mod tests;
