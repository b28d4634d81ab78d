//! The common reference string (CRS) of the proofs of encrypted lists, made by a committee.
//!
//! Source: `reference-string.md` in `protocol-spec`; each step is quoted where it is done. Snarky
//! Ceremonies (eprint 2021/219) for sequential updates; eprint 2021/1130 for the membership tests.
//!
//! # Flow
//! 1. [`Size`] says how many powers a string has.
//! 2. [`Powers::start`]; then each member [contributes](Powers::contribute), and everybody
//!    [checks](check_contribution) its proof and its first powers at once.
//! 3. [`Powers::check`] at the end: that all are powers of one exponent.
//! 4. [`ReferenceString::made_of`] is what proofs are made and verified with.
//!
//! # Caveats
//! Points are multiplied in variable time: whoever measures a contributor's machine while it contributes
//! may learn its exponent. Exponents are not overwritten in every working buffer of the arithmetic.

mod contribution;
mod curve;
mod error;
mod powers;
mod size;
mod string;

pub use self::{
    contribution::{Contribution, First, PROOF_BYTES, Place, check_contribution, prove},
    error::{ReferenceStringError, Refused},
    powers::Powers,
    size::Size,
    string::ReferenceString,
};
